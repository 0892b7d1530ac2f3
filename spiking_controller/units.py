"""Units of time that ROS and the package convert between."""

NANOSECONDS = 1_000_000_000
