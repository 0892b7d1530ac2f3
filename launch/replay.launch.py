"""Plays a bag and judges networks on it: `ros2 launch spiking_controller replay.launch.py bag:=DIR model:=FILE`."""

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import ExecutableInPackage

from spiking_controller.nodes.clients.play_command import OWN_PLAYER, ROS2_BAG, play_command
from spiking_controller.nodes.common.needed_process import fail_launch

PACKAGE = "spiking_controller"
PARAMS_FILE = Path(get_package_share_directory(PACKAGE)) / "config" / "panda.yaml"
READY = "judges"
"""The evaluator says so when it listens; a bag that begins earlier would lose its start."""
STOP_TIMEOUT = "20"
"""It may take so long to tell its last figures on a busy machine, s."""
LAST_WORDS = 2.0
"""What has been played is still judged for so long, s."""

ARGUMENTS = [
    ("bag", None, "The bag: a rosbag2 folder, or one .mcap or .db3 file."),
    (
        "model",
        "",
        "Checkpoints (.safetensors), several separated by commas; empty: as in params_file, the shipped one.",
    ),
    ("rate", "1.0", "Bag seconds per second."),
    ("loop", "false", "Start the bag again at its end: true or false. Each round is judged for itself."),
    ("player", "", "ros2bag or spiking_controller; empty: ros2 bag where it is installed, else this package's own."),
    ("json", "", "Write the figures of the last complete round to this file; empty: do not."),
    ("arm", "", "The arm: panda, fr3, planar_arm, or an arm's file; empty: as in params_file, panda."),
    ("namespace", "", "ROS namespace in which the bag has its topics."),
    ("torque", "", "The torques that acted: commanded or measured; empty: as in params_file, commanded."),
    ("effort", "", "Whether these are with-gravity or without-gravity; empty: as in params_file, auto."),
    ("gravity_compensation", "", "The arm carried its own weight: true or false; empty: as in params_file, true."),
    ("params_file", str(PARAMS_FILE), "Parameters of all nodes."),
]


def player(context: LaunchContext) -> ExecuteProcess:
    """What publishes the bag, with its time on /clock. Its end is the end of the launch."""
    given = context.launch_configurations
    chosen = given["player"] or (ROS2_BAG if ROS2_BAG in get_packages_with_prefixes() else OWN_PLAYER)
    program, *arguments = play_command(chosen, given["bag"], given["rate"], given["loop"].lower() == "true")
    own = ExecutableInPackage(executable=program, package=PACKAGE)

    def finish(event: ProcessExited, context: LaunchContext) -> TimerAction:
        if event.returncode:
            fail_launch(event, context)
        return TimerAction(period=LAST_WORDS, actions=[Shutdown(reason="the bag is over")])

    return ExecuteProcess(
        cmd=[own if program == OWN_PLAYER else program, *arguments],
        output="screen",
        on_exit=finish,
    )


def processes(context: LaunchContext) -> list[Node | RegisterEventHandler]:
    """The evaluator, and the player as soon as it listens."""

    def given(name: str, kind: type) -> dict[str, ParameterValue]:
        """A parameter from the argument of that name; nothing where that is empty, so that params_file decides."""
        if not context.launch_configurations[name]:
            return {}
        return {name: ParameterValue(LaunchConfiguration(name), value_type=kind)}

    parameters: dict[str, Any] = {"use_sim_time": True}
    for name in ("arm", "torque", "effort", "json"):
        parameters |= given(name, str)
    parameters |= given("gravity_compensation", bool)
    models = [path.strip() for path in context.launch_configurations["model"].split(",") if path.strip()]
    if models:
        parameters["checkpoints"] = models
    evaluator = Node(
        package=PACKAGE,
        executable="evaluator",
        name="evaluator",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), parameters],
        output="screen",
        emulate_tty=True,
        sigterm_timeout=STOP_TIMEOUT,
        on_exit=fail_launch,
    )
    waiting = [player(context)]

    def start_player(event: ProcessIO) -> list[ExecuteProcess]:
        return [waiting.pop()] if waiting and READY in event.text.decode(errors="replace") else []

    return [
        RegisterEventHandler(OnProcessIO(target_action=evaluator, on_stdout=start_player, on_stderr=start_player)),
        evaluator,
    ]


def generate_launch_description() -> LaunchDescription:
    """The arguments, then the processes."""
    arguments = [DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=processes)])
