"""The launch files declare what the documents name, with ROS's `launch` or, where that is absent, with a stand-in."""

import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from spiking_controller.commands.up import NEEDED
from spiking_controller.nodes.common.needed_process import fail_launch
from spiking_controller.nodes.torque_watchdog import COMMANDS, UNCHECKED_COMMANDS
from spiking_controller.robots.arm import get_arm

ARGUMENTS = {
    "panda.launch.py": {
        "arm",
        "model",
        "namespace",
        "watchdog",
        "train",
        "description",
        "markers",
        "rviz",
        "view",
        "record",
        "headless",
        "params_file",
        "payload_mass",
    },
    "fr3.launch.py": {"arm"},
    "replay.launch.py": {"bag", "model", "rate", "loop", "player", "json", "params_file"},
}
MODULES = (
    "ament_index_python",
    "ament_index_python.packages",
    "launch",
    "launch.actions",
    "launch.event_handlers",
    "launch.events",
    "launch.events.process",
    "launch.substitutions",
    "launch_ros",
    "launch_ros.actions",
    "launch_ros.parameter_descriptions",
    "launch_ros.substitutions",
)
"""What a launch file may import from."""

WITH_ROS = find_spec("launch_ros") is not None


class StandIn:
    """Whatever a launch file makes; its first argument is what it is called or holds."""

    def __init__(self, first: Any = None, *more: Any, **options: Any) -> None:
        self.name = self.entities = first
        self.options = options


class DeclareLaunchArgument(StandIn):
    pass


@pytest.fixture
def launch(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class that declares an argument, of ROS's `launch` or of the stand-in, which is importable then."""
    # `launch` alone may also be the folder of that name here.
    if WITH_ROS:
        from launch.actions import DeclareLaunchArgument as FromRos

        return FromRos
    for name in MODULES:
        module = ModuleType(name)
        module.__getattr__ = lambda attribute: StandIn  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["launch.actions"].DeclareLaunchArgument = DeclareLaunchArgument  # type: ignore[attr-defined]
    packages = sys.modules["ament_index_python.packages"]
    packages.get_package_share_directory = lambda package: str(root)  # type: ignore[attr-defined]
    packages.get_packages_with_prefixes = dict  # type: ignore[attr-defined]
    return DeclareLaunchArgument


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_launch_file_declares_its_arguments(name: str, root: Path, launch: Any) -> None:
    description = runpy.run_path(str(root / "launch" / name))["generate_launch_description"]()
    declared = {entity.name for entity in description.entities if isinstance(entity, launch)}
    assert len(description.entities) == len(declared) + 1, "and what starts the nodes"
    assert ARGUMENTS[name] <= declared


@pytest.mark.skipif(WITH_ROS, reason="only the stand-in shows what a node was made with")
def test_the_fr3s_launch_file_is_the_pandas_with_bridge_networks_and_description_of_an_fr3(
    root: Path, launch: Any
) -> None:
    arm, included = runpy.run_path(str(root / "launch" / "fr3.launch.py"))["generate_launch_description"]().entities
    assert (arm.name, arm.options["default_value"]) == ("arm", "fr3")
    packages = sys.modules["ament_index_python.packages"]
    packages.get_packages_with_prefixes = lambda: {"robot_state_publisher": "/opt/ros"}  # type: ignore[attr-defined]
    content = runpy.run_path(included.name)
    given = {name: value for name, value, _ in content["ARGUMENTS"]} | {"arm": arm.options["default_value"]}
    started = content["nodes"](SimpleNamespace(launch_configurations=given))
    nodes = {node.options["executable"]: node.options for node in started}
    for name in ("mujoco_bridge", "controller"):
        assert nodes[name]["parameters"][-1]["arm"].name.name == "arm", "the launch argument, not the file, decides"
    assert '<robot name="fr3">' in nodes["robot_state_publisher"]["parameters"][0]["robot_description"].name
    assert get_arm("fr3").checkpoint.is_file()  # type: ignore[union-attr]


@pytest.mark.skipif(WITH_ROS, reason="only the stand-in shows what a node was made with")
@pytest.mark.parametrize("watchdog", ["true", "false"])
def test_nodes_that_control_needs_fail_the_launch_and_a_watchdog_gets_the_controllers_commands(
    watchdog: str, root: Path, launch: Any
) -> None:
    content = runpy.run_path(str(root / "launch" / "panda.launch.py"))
    given = {name: value for name, value, _ in content["ARGUMENTS"]}
    configurations = given | {"train": "true", "record": "bag", "watchdog": watchdog}
    started = content["nodes"](SimpleNamespace(launch_configurations=configurations))
    nodes = {node.options["executable"]: node.options for node in started}
    assert {name for name, options in nodes.items() if options["on_exit"] is fail_launch} == set(NEEDED) & nodes.keys()
    assert ("torque_watchdog" in nodes) == (watchdog == "true")
    remap = (COMMANDS, UNCHECKED_COMMANDS)
    assert {name for name, options in nodes.items() if remap in options["remappings"]} == (
        {"controller"} if watchdog == "true" else set()
    )


@pytest.mark.skipif(WITH_ROS, reason="only the stand-in shows what a node was made with")
@pytest.mark.parametrize("is_installed", [True, False])
def test_the_arm_is_described_by_ros_or_where_that_is_absent_by_our_own_node(
    is_installed: bool, root: Path, launch: Any
) -> None:
    packages = sys.modules["ament_index_python.packages"]
    packages.get_packages_with_prefixes = (  # type: ignore[attr-defined]
        lambda: {"robot_state_publisher": "/opt/ros"} if is_installed else {}
    )
    content = runpy.run_path(str(root / "launch" / "panda.launch.py"))
    given = {name: value for name, value, _ in content["ARGUMENTS"]}
    started = content["nodes"](SimpleNamespace(launch_configurations=given | {"namespace": "left"}))
    nodes = {node.options["executable"]: node.options for node in started}
    assert ("robot_state_publisher" in nodes, "description" in nodes) == (is_installed, not is_installed)
    if is_installed:
        parameters = nodes["robot_state_publisher"]["parameters"][0]
        assert parameters["frame_prefix"] == "left/"
        assert '<robot name="panda">' in parameters["robot_description"].name
    without = content["nodes"](SimpleNamespace(launch_configurations=given | {"description": "false"}))
    assert {node.options["executable"] for node in without} == {"mujoco_bridge", "controller"}


@pytest.mark.skipif(WITH_ROS, reason="only the stand-in shows what a node was made with")
@pytest.mark.parametrize("is_installed", [True, False])
def test_rviz_comes_with_markers_and_knows_the_namespace_or_says_why_not(
    is_installed: bool, root: Path, launch: Any
) -> None:
    packages = sys.modules["ament_index_python.packages"]
    packages.get_packages_with_prefixes = lambda: {"rviz2": "/opt/ros"} if is_installed else {}  # type: ignore[attr-defined]
    content = runpy.run_path(str(root / "launch" / "panda.launch.py"))
    given = {name: value for name, value, _ in content["ARGUMENTS"]} | {"rviz": "true", "namespace": "left"}
    started = content["nodes"](SimpleNamespace(launch_configurations=given))
    nodes = {node.options["executable"]: node.options for node in started if "executable" in node.options}
    assert {"markers", "imagination"} <= nodes.keys()
    if not is_installed:
        assert "rviz2 is not installed" in started[-1].options["msg"]
        return
    written = Path(nodes["rviz2"]["arguments"][1])
    assert "Fixed Frame: left/panda_link0" in written.read_text()
    assert 'TF Prefix: "left"' in written.read_text()
    written.unlink()


def test_a_process_that_ends_by_itself_fails_the_launch_and_one_that_was_asked_to_does_not() -> None:
    event = SimpleNamespace(process_name="controller-2", returncode=2)
    with pytest.raises(RuntimeError, match="controller-2 ended by itself with exit code 2"):
        fail_launch(event, SimpleNamespace(is_shutdown=False))
    fail_launch(event, SimpleNamespace(is_shutdown=True))


@pytest.mark.skipif(find_spec("ros2launch") is None, reason="needs ros2 launch and an installed package")
def test_ros2_launch_fails_where_the_controller_cannot_start() -> None:
    command = ["ros2", "launch", "spiking_controller", "panda.launch.py", "model:=/nowhere/net.safetensors"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "controller-2 ended by itself with exit code 2" in ended.stdout + ended.stderr
