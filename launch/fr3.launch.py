"""Starts the spiking controller with a simulated FR3: `ros2 launch spiking_controller fr3.launch.py`."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription

PANDA = Path(get_package_share_directory("spiking_controller")) / "launch" / "panda.launch.py"


def generate_launch_description() -> LaunchDescription:
    """All of panda.launch.py with its arguments, and the FR3 as the arm."""
    arm = DeclareLaunchArgument("arm", default_value="fr3", description="The arm, bridge and networks alike.")
    return LaunchDescription([arm, IncludeLaunchDescription(str(PANDA))])
