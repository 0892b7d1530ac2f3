"""The launch files declare what the documents name, with ROS's `launch` or, where that is absent, with a stand-in."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ARGUMENTS = {
    "panda.launch.py": {"arm", "model", "namespace", "train", "record", "headless", "params_file", "payload_mass"},
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
    if find_spec("launch_ros") is not None:
        from launch.actions import DeclareLaunchArgument as FromRos

        return FromRos
    for name in MODULES:
        module = ModuleType(name)
        module.__getattr__ = lambda attribute: StandIn  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["launch.actions"].DeclareLaunchArgument = DeclareLaunchArgument  # type: ignore[attr-defined]
    packages = sys.modules["ament_index_python.packages"]
    packages.get_package_share_directory = lambda package: str(root)  # type: ignore[attr-defined]
    return DeclareLaunchArgument


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_launch_file_declares_its_arguments(name: str, root: Path, launch: Any) -> None:
    description = runpy.run_path(str(root / "launch" / name))["generate_launch_description"]()
    declared = {entity.name for entity in description.entities if isinstance(entity, launch)}
    assert len(description.entities) == len(declared) + 1, "and what starts the nodes"
    assert ARGUMENTS[name] <= declared
