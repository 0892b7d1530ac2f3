"""launch/replay.launch.py starts what this package and ros2 bag understand. The launch library itself is a stand-in."""

import argparse
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from spiking_controller.nodes import evaluator, player

Launch = Callable[..., list[Any]]

MODULES = {
    "ament_index_python.packages": (),
    "launch": ("LaunchContext", "LaunchDescription"),
    "launch.actions": (
        "DeclareLaunchArgument",
        "ExecuteProcess",
        "OpaqueFunction",
        "RegisterEventHandler",
        "Shutdown",
        "TimerAction",
    ),
    "launch.event_handlers": ("OnProcessIO",),
    "launch.events.process": ("ProcessIO",),
    "launch.substitutions": ("LaunchConfiguration",),
    "launch_ros.actions": ("Node",),
    "launch_ros.parameter_descriptions": ("ParameterValue",),
    "launch_ros.substitutions": ("ExecutableInPackage",),
}


def recorded(name: str) -> Any:
    """A class whose instances remember what they were made with."""

    class Recorded(SimpleNamespace):
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(kind=name, positional=positional, **named)

    return Recorded


@pytest.fixture
def launch(root: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Runs the launch file as `ros2 launch` would, with arguments; gives evaluator and player."""

    def start(installed: tuple[str, ...] = (), **given: str) -> list[Any]:
        for path, names in MODULES.items():
            parts = path.split(".")
            for count in range(1, len(parts) + 1):
                name = ".".join(parts[:count])
                if count < len(parts):
                    monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or ModuleType(name))
                else:
                    monkeypatch.setitem(sys.modules, name, ModuleType(name))
            for name in names:
                setattr(sys.modules[path], name, recorded(name))
        packages: Any = sys.modules["ament_index_python.packages"]
        packages.get_package_share_directory = lambda package: str(root)
        packages.get_packages_with_prefixes = lambda: dict.fromkeys(installed, "/opt/ros")
        launch_file = runpy.run_path(str(root / "launch" / "replay.launch.py"))
        (*arguments, function) = launch_file["generate_launch_description"]().positional[0]
        values = {argument.positional[0]: argument.default_value for argument in arguments} | given
        assert values.keys() == {argument.positional[0] for argument in arguments}
        handler, node = function.function(SimpleNamespace(launch_configurations=values))
        on_output = handler.positional[0].on_stderr
        assert on_output(SimpleNamespace(text=b"loading")) == []
        (process,) = on_output(SimpleNamespace(text=b"[INFO] [evaluator]: judges networks"))
        assert on_output(SimpleNamespace(text=b"judges")) == []  # once
        return [node, process, values]

    return start


def words(process: Any, values: dict[str, str]) -> list[str]:
    """The command line, with what was given for launch arguments."""
    return [
        word if isinstance(word, str) else values.get(word.positional[0], "") if word.positional else word.executable
        for word in process.cmd
    ]


def test_the_own_player_understands_its_command_line(launch: Launch) -> None:
    _, process, values = launch(bag="run1", loop="true", rate="2.0")
    program, command, *options = words(process, values)
    assert (program, command) == ("spiking_controller", "play")
    parser = argparse.ArgumentParser()
    player.add_arguments(parser)
    parsed = parser.parse_args(options)
    assert (parsed.bag, parsed.rate, parsed.loop, parsed.clock) == (Path("run1"), 2.0, True, 100.0)


def test_ros2_bag_plays_where_it_is_installed_and_leaves_the_recorded_clock_out(launch: Launch) -> None:
    _, process, values = launch(("rclpy", "ros2bag"), bag="run1")
    command = words(process, values)
    assert command[:6] == ["ros2", "bag", "play", "run1", "--clock", "100"]
    assert "--loop" not in command
    assert command[-2:] == ["--exclude-topics", "/clock"]
    _, process, values = launch(("ros2bag",), bag="run1", player="spiking_controller")
    assert words(process, values)[0] == "spiking_controller"
    with pytest.raises(RuntimeError, match="player is 'tape'; give ros2bag or spiking_controller"):
        launch(bag="run1", player="tape")


def test_the_evaluator_gets_parameters_that_it_has(launch: Launch) -> None:
    node, _, _ = launch(
        bag="run1",
        model="old.safetensors, new.safetensors",
        arm="panda",
        torque="measured",
        effort="with-gravity",
        gravity_compensation="true",
        json="figures.json",
    )
    assert (node.package, node.executable, node.name) == ("spiking_controller", "evaluator", "evaluator")
    parameters = node.parameters[1]
    assert parameters["checkpoints"] == ["old.safetensors", "new.safetensors"]
    known = {spec.name for spec in evaluator.PARAMETERS} | {"use_sim_time"}
    assert parameters.keys() == {
        "use_sim_time",
        "checkpoints",
        "arm",
        "torque",
        "effort",
        "gravity_compensation",
        "json",
    }
    assert parameters.keys() <= known
    node, _, _ = launch(bag="run1")
    assert node.parameters[1] == {"use_sim_time": True}
    assert "judges" in Path(evaluator.__file__).read_text()  # what the launch waits for
