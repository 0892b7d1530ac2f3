"""The launch files declare what the documents name; where ROS's `launch` is installed, they are executed."""

import ast
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

ARGUMENTS = {
    "panda.launch.py": {"arm", "model", "namespace", "train", "record", "headless", "params_file", "payload_mass"},
    "replay.launch.py": {"bag", "model", "rate", "loop", "player", "json", "params_file"},
}


def has_ros_launch() -> bool:
    """Whether `launch` is ROS's package, and not the folder of that name here."""
    return find_spec("launch_ros") is not None


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_launch_file_declares_its_arguments(name: str, root: Path) -> None:
    path = root / "launch" / name
    if has_ros_launch():
        from launch.actions import DeclareLaunchArgument

        description = runpy.run_path(str(path))["generate_launch_description"]()
        declared = {entity.name for entity in description.entities if isinstance(entity, DeclareLaunchArgument)}
        assert len(description.entities) > len(declared)
    else:
        tree = ast.parse(path.read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "generate_launch_description" in functions
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        declared = {value for value in constants if isinstance(value, str)}
    assert ARGUMENTS[name] <= declared
