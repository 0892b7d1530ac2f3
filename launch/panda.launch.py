"""Starts the spiking controller with a simulated Panda: `ros2 launch spiking_controller panda.launch.py`."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "spiking_controller"
SHARE = Path(get_package_share_directory(PACKAGE))

ARGUMENTS = [
    ("model", "", "Checkpoint of the networks (.safetensors); empty: the shipped models/panda_reach.safetensors."),
    ("namespace", "", "ROS namespace of all nodes, for several arms side by side."),
    ("use_sim_time", "true", "The nodes follow the simulated clock: true or false."),
    ("real_time_factor", "1.0", "Simulated seconds per second."),
    ("headless", "true", "Run without a window: true or false. Where there is no display there is no window."),
    ("train", "false", "Also start the online trainer: true or false."),
    ("record", "", "Record the graph into this folder; empty: do not record."),
    ("params_file", str(SHARE / "config" / "panda.yaml"), "Parameters of all nodes."),
]


def node(kind: type[Node], executable: str, parameters: dict[str, ParameterValue], **options: object) -> Node:
    """One of our nodes. Its end is the end of the launch."""
    return kind(
        package=PACKAGE,
        executable=executable,
        name=executable,
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), parameters],
        # Nodes in a namespace follow their own bridge's clock.
        remappings=[("/clock", "clock")],
        output="screen",
        emulate_tty=True,
        on_exit=Shutdown(reason=f"{executable} ended"),
        **options,
    )


def generate_launch_description() -> LaunchDescription:
    """Bridge and controller, and trainer and recorder where they are asked for."""
    use_sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    nodes: list[Action] = [
        node(
            Node,
            "mujoco_bridge",
            {
                "real_time_factor": ParameterValue(LaunchConfiguration("real_time_factor"), value_type=float),
                "headless": ParameterValue(LaunchConfiguration("headless"), value_type=bool),
            },
        ),
        node(
            LifecycleNode,
            "controller",
            {**use_sim_time, "checkpoint": ParameterValue(LaunchConfiguration("model"), value_type=str)},
        ),
        node(Node, "trainer", use_sim_time, condition=IfCondition(LaunchConfiguration("train"))),
        node(
            Node,
            "recorder",
            {**use_sim_time, "directory": ParameterValue(LaunchConfiguration("record"), value_type=str)},
            condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("record"), "")),
        ),
    ]
    arguments = [DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS]
    return LaunchDescription([*arguments, *nodes])
