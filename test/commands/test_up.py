"""`spiking_controller up` starts the graph, ends it in order, and leaves no process behind, however it ends."""

import argparse
import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from spiking_controller.commands import up
from spiking_controller.errors import ConfigError
from spiking_controller.nodes import (
    description,
    evaluator,
    imagination,
    markers,
    recorder,
    torque_watchdog,
    trainer,
)
from spiking_controller.nodes.bridge import node as mujoco_bridge
from spiking_controller.nodes.common.parameters import FOR_ALL_NODES
from spiking_controller.nodes.controller import node as controller
from spiking_controller.nodes.viewer import node as viewer
from spiking_controller.resources import share_path

GOAL = (0.45, -0.25, 0.45)
ROOT = Path(__file__).resolve().parents[2]
NODES = {module: name for name, module in up.NODE_MODULES.items()}


class Up:
    """A running `spiking_controller up`."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spiking_controller.cli", "up", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def children(self) -> dict[str, int]:
        """Process numbers of the nodes by name."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {module_of(int(pid)): int(pid) for pid in pids}


def module_of(pid: int) -> str:
    """The node that a process runs; empty for one that is gone."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return NODES.get(command[2], command[2]) if len(command) > 2 else ""


def assert_gone(pids: Iterator[int] | Any) -> None:
    end = time.monotonic() + 30.0
    left = set(pids)
    while left := {pid for pid in left if module_of(pid)}:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Up] = []

    def start_up(*options: str) -> Up:
        started.append(Up(tmp_path / f"up{len(started)}.log", *options))
        return started[-1]

    yield start_up
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        print(each.output, file=sys.stderr)


def test_up_runs_the_graph_in_a_namespace_and_ends_it_without_torque(start: Any, make_probe: Any) -> None:
    probe = make_probe("left")
    graph = start("--namespace", "left", "--real-time-factor", "0.9")
    probe.set_in_motion(*GOAL)
    children = graph.children()
    assert children.keys() == {"controller", "mujoco_bridge", "description"}
    graph.process.send_signal(signal.SIGINT)
    assert graph.process.wait(60) == 0
    assert_gone(children.values())
    probe.wait_for_rest("the last torque, which is zero")
    probe.assert_every_torque_is_legal()


def test_a_node_that_ends_by_itself_ends_the_others_with_a_sentence(start: Any) -> None:
    graph = start("--model", "/nowhere/net.safetensors")
    assert graph.process.wait(60) == 1
    assert "/nowhere/net.safetensors: there is no such checkpoint" in graph.output
    assert "error: controller ended by itself with exit code 2." in graph.output
    assert "Traceback" not in graph.output


def test_control_goes_on_when_the_recorder_dies(start: Any, probe: Any, tmp_path: Path) -> None:
    graph = start("--record", str(tmp_path / "bag"))
    probe.set_in_motion(*GOAL)
    os.kill(graph.children()["recorder"], signal.SIGKILL)
    sentence = "error: recorder ended by itself with exit code -9; control goes on without it."
    probe.wait_for(lambda: sentence in graph.output, "the sentence")
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the goal")
    graph.process.send_signal(signal.SIGINT)
    assert graph.process.wait(60) == 0


def test_no_node_outlives_a_killed_up(start: Any) -> None:
    graph = start()
    end = time.monotonic() + 60.0
    while len(children := graph.children()) < 3 or "" in children:
        assert time.monotonic() < end
        time.sleep(0.05)
    graph.process.kill()
    graph.process.wait()
    assert_gone(children.values())


def test_with_a_watchdog_a_killed_controller_leaves_no_torque(start: Any, make_probe: Any) -> None:
    probe = make_probe("left")
    graph = start("--namespace", "left", "--watchdog", "true")
    probe.set_in_motion(*GOAL)
    children = graph.children()
    assert children.keys() == {"controller", "torque_watchdog", "mujoco_bridge", "description"}
    os.kill(children["controller"], signal.SIGKILL)
    assert graph.process.wait(60) == 1
    probe.wait_for_rest("the last torque, which is zero")
    assert "error: controller ended by itself with exit code -9." in graph.output
    assert "has no effect" not in graph.output
    assert_gone(children.values())


def test_a_missing_parameter_file_is_one_sentence(start: Any) -> None:
    graph = start("--params-file", "/nowhere/panda.yaml")
    assert graph.process.wait(60) == 2
    assert graph.output.splitlines() == [
        "error: params-file: there is no file /nowhere/panda.yaml; give the path of a ROS parameter file."
    ]


def test_a_folder_that_exists_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --record a folder that does not exist yet"):
        up.run(parsed("--record", str(tmp_path)))


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    return parser.parse_args(list(options))


def test_only_what_is_asked_for_is_started_and_overridden() -> None:
    assert up.planned_nodes(parsed()) == {"controller": {"use_sim_time": True}, "description": {}, "mujoco_bridge": {}}
    assert list(up.planned_nodes(parsed("--description", "false"))) == ["controller", "mujoco_bridge"]
    nodes = up.planned_nodes(
        parsed("--train", "true", "--record", "2024", "--model", "m.safetensors", "--headless", "false")
    )
    assert list(nodes) == ["controller", "trainer", "description", "recorder", "mujoco_bridge"]
    assert nodes["controller"]["checkpoint"] == "m.safetensors"
    assert nodes["recorder"]["directory"] == "2024"
    assert nodes["mujoco_bridge"] == {"headless": False}


def test_what_says_which_arm_it_is_goes_to_all_nodes() -> None:
    nodes = up.planned_nodes(
        parsed(
            *("--arm", "planar_arm", "--gravity-compensation", "false"),
            *("--watchdog", "true", "--train", "true", "--record", "bag"),
        )
    )
    assert nodes.pop("description") == {"arm": "planar_arm"}
    assert list(nodes) == ["controller", "torque_watchdog", "trainer", "recorder", "mujoco_bridge"]
    arm = {"arm": "planar_arm", "gravity_compensation": False}
    assert all(parameters.items() >= arm.items() for parameters in nodes.values())
    # ROS reads no YAML references, which come from dictionaries that two nodes share.
    assert "&" not in yaml.safe_dump(nodes)


def test_what_rviz_and_foxglove_show_runs_beside_control() -> None:
    for option in ("--markers", "--rviz"):
        nodes = up.planned_nodes(parsed(option, "true", "--model", "m.safetensors"))
        assert list(nodes) == ["controller", "description", "imagination", "markers", "mujoco_bridge"]
        assert nodes["imagination"] == nodes["controller"]


def test_the_page_comes_with_the_imagined_future() -> None:
    nodes = up.planned_nodes(parsed("--view", "true", "--arm", "planar_arm"))
    assert list(nodes) == ["controller", "description", "imagination", "viewer", "mujoco_bridge"]
    assert nodes["viewer"] == {"arm": "planar_arm"}


def test_rviz_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="there is no rviz2 here; source a ROS 2 installation that has it"):
        up.run(parsed("--rviz", "true"))


def test_rviz_shows_the_arm_of_the_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program, given = tmp_path / "rviz2", tmp_path / "given"
    program.write_text(f'#!/bin/sh\ncp "$2" {given}.part && echo "$@" >> {given}.part && mv {given}.part {given}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def wait_for_rviz(*arguments: Any) -> int:
        end = time.monotonic() + 30.0
        while not given.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return 0

    monkeypatch.setattr(up, "supervise", wait_for_rviz)
    assert up.run(parsed("--rviz", "true", "--namespace", "left", "--arm", "planar_arm")) == 0
    text = given.read_text()
    assert "Fixed Frame: left/planar_base" in text
    assert 'TF Prefix: "left"' in text
    assert "__ns:=/left" in text


def test_the_bridges_options_go_to_the_bridge() -> None:
    nodes = up.planned_nodes(parsed("--lock-step", "true", "--real-time-factor", "0", "--payload-mass", "2"))
    assert nodes["mujoco_bridge"] == {"lock_step": True, "real_time_factor": 0.0, "payload_mass": 2.0}
    assert nodes["controller"] == {"use_sim_time": True}


def launch_file(name: str) -> Any:
    """What stands under that name in the launch file, which only an installation of ROS 2 can import."""
    tree = ast.parse((ROOT / "launch" / "panda.launch.py").read_text())
    return next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name)  # type: ignore[attr-defined]


def test_the_launch_file_has_the_same_arguments() -> None:
    names = [ast.literal_eval(row.elts[0]) for row in launch_file("ARGUMENTS").elts]
    assert names == list(vars(parsed()))


def test_the_launch_file_needs_the_same_nodes() -> None:
    assert set(ast.literal_eval(launch_file("NEEDED"))) == set(up.NEEDED)


@pytest.mark.parametrize(
    "node",
    [
        controller,
        description,
        evaluator,
        imagination,
        markers,
        mujoco_bridge,
        recorder,
        torque_watchdog,
        trainer,
        viewer,
    ],
)
def test_the_parameter_file_documents_every_parameter_with_its_default(node: Any) -> None:
    written = yaml.safe_load(share_path("config", "panda.yaml").read_text())
    name = NODES[node.__name__]
    assert written["/**"]["ros__parameters"].keys() == set(FOR_ALL_NODES)
    values = written["/**"]["ros__parameters"] | written[f"/**/{name}"]["ros__parameters"]
    assert {spec.name: spec.default for spec in node.PARAMETERS} == {
        spec.name: values.get(spec.name) for spec in node.PARAMETERS
    }
    assert written[f"/**/{name}"]["ros__parameters"].keys() <= {spec.name for spec in node.PARAMETERS}
