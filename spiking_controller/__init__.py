"""A spiking controller for robot arms in ROS 2, trained end to end through a spiking forward model."""

__version__ = "0.1.0"
