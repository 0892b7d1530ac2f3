"""Starts the spiking controller with a simulated Panda: `ros2 launch spiking_controller panda.launch.py`."""

import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from spiking_controller.nodes.common.arm_parameters import arm_in
from spiking_controller.nodes.common.needed_process import fail_launch
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.urdf import urdf
from spiking_controller.viewing.rviz import rviz_configuration

PACKAGE = "spiking_controller"
SHARE = Path(get_package_share_directory(PACKAGE))
PARAMS_FILE = SHARE / "config" / "panda.yaml"
STATE_PUBLISHER = "robot_state_publisher"

NEEDED = ("mujoco_bridge", "controller", "torque_watchdog")
"""Control goes on without any of the others."""
ARGUMENTS = [
    ("arm", "", "The arm: panda, fr3, planar_arm, or an arm's file; empty: as in params_file, panda."),
    ("model", "", "Checkpoint of the networks (.safetensors); empty: as in params_file, else the shipped one."),
    ("namespace", "", "ROS namespace of all nodes, for several arms side by side."),
    ("use_sim_time", "true", "The nodes follow the simulated clock: true or false."),
    ("gravity_compensation", "", "The arm carries its own weight: true or false; empty: as in params_file, true."),
    ("real_time_factor", "", "Simulated seconds per second; empty: as in params_file, 1.0."),
    ("lock_step", "", "One command per joint state: true or false; empty: as in params_file, false."),
    ("payload_mass", "", "Mass in the hand that the arm does not know of, kg; empty: as in params_file, 0.0."),
    ("headless", "", "Run without a window: true or false; empty: as in params_file, true."),
    ("watchdog", "false", "Also start the torque watchdog between controller and bridge: true or false."),
    ("train", "false", "Also start the online trainer: true or false."),
    (
        "description",
        "true",
        "Also publish robot_description, /tf and /tf_static: robot_state_publisher, or our own node without it.",
    ),
    (
        "markers",
        "false",
        "Also publish markers, the imagined future and the spikes as a picture, for RViz and Foxglove: true or false.",
    ),
    ("rviz", "false", "Also start RViz, and the markers for it: true or false."),
    ("view", "false", "Also serve a page for the browser on this machine, and print its address: true or false."),
    ("record", "", "Record the graph into this folder; empty: do not record."),
    ("params_file", str(PARAMS_FILE), "Parameters of all nodes."),
]


def arm_name(context: LaunchContext) -> str:
    """The arm that is asked for, or that of params_file."""
    return str(context.launch_configurations["arm"] or arm_in(Path(context.launch_configurations["params_file"])))


def state_publisher(context: LaunchContext) -> Node:
    """ROS's own publisher of robot_description, /tf and /tf_static; the namespace stands before the frames' names."""
    namespace = context.launch_configurations["namespace"].strip("/")
    description = urdf(get_arm(arm_name(context)))
    return Node(
        package=STATE_PUBLISHER,
        executable=STATE_PUBLISHER,
        name=STATE_PUBLISHER,
        namespace=namespace,
        parameters=[
            {
                "robot_description": ParameterValue(description, value_type=str),
                "frame_prefix": f"{namespace}/" if namespace else "",
                "publish_frequency": 30.0,
            }
        ],
        output="screen",
    )


def rviz(context: LaunchContext) -> Node | LogInfo:
    """RViz, or a sentence where it is not installed."""
    if "rviz2" not in get_packages_with_prefixes():
        return LogInfo(msg="rviz:=true has no effect: rviz2 is not installed; run apt install ros-jazzy-rviz2.")
    namespace = context.launch_configurations["namespace"].strip("/")
    with tempfile.NamedTemporaryFile("w", suffix=".rviz", delete=False) as file:
        file.write(rviz_configuration(arm_name(context), namespace))
    return Node(package="rviz2", executable="rviz2", namespace=namespace, arguments=["-d", file.name], output="screen")


def nodes(context: LaunchContext) -> list[Node | LogInfo]:
    """Bridge and controller, the arm's description; torque watchdog, trainer and recorder where they are asked for."""

    def given(name: str, argument: str, kind: type) -> dict[str, ParameterValue]:
        """A parameter from a launch argument; nothing where that is empty, so that params_file decides."""
        if not context.launch_configurations[argument]:
            return {}
        return {name: ParameterValue(LaunchConfiguration(argument), value_type=kind)}

    def node(executable: str, parameters: dict[str, ParameterValue], *remaps: tuple[str, str]) -> Node:
        """One of our nodes. The end of one that control needs is the end of the launch."""
        return Node(
            package=PACKAGE,
            executable=executable,
            name=executable,
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), parameters],
            # Nodes in a namespace follow their own bridge's clock.
            remappings=[("/clock", "clock"), *remaps],
            # What the node proves to be where ROS 2 security is on (config/security_policy.xml).
            ros_arguments=["--enclave", f"/{PACKAGE}/{executable}"],
            output="screen",
            emulate_tty=True,
            on_exit=fail_launch if executable in NEEDED else None,
        )

    arm = given("arm", "arm", str) | given("gravity_compensation", "gravity_compensation", bool)
    sim_time = given("use_sim_time", "use_sim_time", bool)
    control = arm | sim_time | given("checkpoint", "model", str)
    bridge = (
        arm
        | given("real_time_factor", "real_time_factor", float)
        | given("lock_step", "lock_step", bool)
        | given("payload_mass", "payload_mass", float)
        | given("headless", "headless", bool)
    )
    started: list[Node | LogInfo] = [node("mujoco_bridge", bridge)]
    if context.launch_configurations["watchdog"].lower() == "true":
        watched = ("effort_controller/commands", "effort_controller/unchecked_commands")
        started += [node("torque_watchdog", arm | sim_time), node("controller", control, watched)]
    else:
        started.append(node("controller", control))
    if context.launch_configurations["train"].lower() == "true":
        started.append(node("trainer", control))
    if context.launch_configurations["description"].lower() == "true":
        if STATE_PUBLISHER in get_packages_with_prefixes():
            started.append(state_publisher(context))
        else:
            started.append(node("description", given("arm", "arm", str)))
    shows = {name: context.launch_configurations[name].lower() == "true" for name in ("markers", "rviz", "view")}
    if any(shows.values()):
        started.append(node("imagination", control))
    if shows["markers"] or shows["rviz"]:
        started.append(node("markers", given("arm", "arm", str)))
    if shows["view"]:
        started.append(node("viewer", given("arm", "arm", str)))
    if shows["rviz"]:
        started.append(rviz(context))
    if context.launch_configurations["record"]:
        started.append(node("recorder", arm | sim_time | given("directory", "record", str)))
    return started


def generate_launch_description() -> LaunchDescription:
    """The arguments, then the nodes."""
    arguments = [DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])
