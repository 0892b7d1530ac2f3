"""Starts the graph as processes where `ros2 launch` is absent, and ends it in order: `spiking_controller up`.

The controller is stopped first, so that it can ramp the torque down while the bridge still listens. No process
outlives this one, not even if it is killed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from spiking_controller.errors import ConfigError
from spiking_controller.nodes.common.arm_parameters import arm_in
from spiking_controller.nodes.common.child_process import start_process
from spiking_controller.nodes.common.process import StopRequest, caught_signals, check_domain
from spiking_controller.nodes.torque_watchdog import COMMANDS, UNCHECKED_COMMANDS
from spiking_controller.resources import share_path
from spiking_controller.viewing.rviz import rviz_configuration

NODE_MODULES = {
    "mujoco_bridge": "spiking_controller.nodes.bridge.node",
    "controller": "spiking_controller.nodes.controller.node",
    "torque_watchdog": "spiking_controller.nodes.torque_watchdog",
    "trainer": "spiking_controller.nodes.trainer",
    "recorder": "spiking_controller.nodes.recorder",
    "evaluator": "spiking_controller.nodes.evaluator",
    "description": "spiking_controller.nodes.description",
    "imagination": "spiking_controller.nodes.imagination",
    "markers": "spiking_controller.nodes.markers",
    "viewer": "spiking_controller.nodes.viewer.node",
}
"""What `python -m` starts each node with, by the node's name."""
WATCHED = f"controller:{COMMANDS}:={UNCHECKED_COMMANDS}"
"""The remap that puts the torque watchdog between the controller and the arm."""
STOP_TIMEOUT = 8.0
"""A node that has not ended this long after it was asked to is killed, s."""
NEEDED = ("controller", "torque_watchdog", "mujoco_bridge")
"""Control goes on without any of the others."""


Parameters = dict[str, bool | float | str]


def command_line(options: Sequence[str]) -> list[str]:
    """The command that `nodes.clients.graph.Graph` runs: `spiking_controller up` with these options."""
    return [sys.executable, "-m", "spiking_controller.cli", "up", *options]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of launch/panda.launch.py, as options."""

    def option(name: str, **settings: Any) -> None:
        parser.add_argument(f"--{name}", **settings)

    option("arm", help="the arm: a name, or the path of an arm's file; by default as in params-file")
    option("model", help="checkpoint of the networks; by default as in params-file, else the shipped one")
    option("namespace", default="", help="ROS namespace of all nodes, for several arms side by side")
    option("use-sim-time", type=boolean, default=True, metavar="BOOL", help="the nodes follow the simulated clock")
    option(
        "gravity-compensation",
        type=boolean,
        metavar="BOOL",
        help="the arm carries its own weight; by default as in params-file",
    )
    option("real-time-factor", type=float, help="simulated seconds per second; by default as in params-file")
    option("lock-step", type=boolean, metavar="BOOL", help="one command per joint state; by default as in params-file")
    option(
        "payload-mass", type=float, help="kg in the hand that the arm does not know of; by default as in params-file"
    )
    option("headless", type=boolean, metavar="BOOL", help="run without a window; by default as in params-file")
    option(
        "watchdog",
        type=boolean,
        default=False,
        metavar="BOOL",
        help="also start the torque watchdog between controller and bridge",
    )
    option("train", type=boolean, default=False, metavar="BOOL", help="also start the online trainer")
    option(
        "description",
        type=boolean,
        default=True,
        metavar="BOOL",
        help="also publish robot_description, /tf and /tf_static, so that tools can draw the arm",
    )
    option(
        "markers",
        type=boolean,
        default=False,
        metavar="BOOL",
        help="also publish markers, the imagined future and the spikes as a picture, for RViz and Foxglove",
    )
    option("rviz", type=boolean, default=False, metavar="BOOL", help="also start RViz, and the markers for it")
    option(
        "view",
        type=boolean,
        default=False,
        metavar="BOOL",
        help="also serve a page for the browser on this machine, and print its address",
    )
    option("record", metavar="DIR", help="record the graph into this folder; by default do not")
    option("params-file", type=Path, help="parameters of all nodes; by default the shipped config/panda.yaml")


def run(args: argparse.Namespace) -> int:
    """Start the nodes and wait for Ctrl-C.

    Returns:
        0 after Ctrl-C or SIGTERM, 1 if a node that control needs ended by itself.
    Raises:
        ConfigError: the parameter file does not exist, the folder to record into does, or ROS_DOMAIN_ID is none.
    """
    check_domain()
    parameter_file = args.params_file or share_path("config", "panda.yaml")
    if not parameter_file.is_file():
        raise ConfigError(f"params-file: there is no file {parameter_file}; give the path of a ROS parameter file.")
    if args.record and Path(args.record).exists():
        raise ConfigError(f"record: {args.record} exists already; give --record a folder that does not exist yet.")
    if args.view and find_spec("viser") is None:
        raise ConfigError("view: viser is not installed; run `pip install 'spiking_controller[view]'`.")
    nodes = planned_nodes(args)
    namespace = f"/{args.namespace.strip('/')}" if args.namespace else ""
    # A file, since `--param` would lose against what the parameter file says to a node by name.
    overrides = {f"{namespace}/{name}": {"ros__parameters": values} for name, values in nodes.items() if values}
    with caught_signals() as stop, tempfile.NamedTemporaryFile("w", suffix=".yaml") as override_file:
        yaml.safe_dump(overrides, override_file)
        override_file.flush()
        arguments = ["--params-file", str(parameter_file), "--params-file", override_file.name]
        if namespace:
            arguments += ["--remap", f"__ns:={namespace}", "--remap", "/clock:=clock"]
        if args.watchdog:
            arguments += ["--remap", WATCHED]
        if not args.rviz:
            return supervise(list(nodes), arguments, stop)
        with tempfile.NamedTemporaryFile("w", suffix=".rviz") as shown:
            shown.write(rviz_configuration(args.arm or arm_in(parameter_file), namespace))
            shown.flush()
            viewer = _start_rviz(Path(shown.name), namespace)
            try:
                return supervise(list(nodes), arguments, stop)
            finally:
                _end(viewer)


def planned_nodes(args: argparse.Namespace) -> dict[str, Parameters]:
    """Which nodes the options ask for, in the order in which they are stopped, and their parameters."""

    def given(**parameters: bool | float | str | None) -> Parameters:
        """Without those that are left to the parameter file."""
        return {name: value for name, value in parameters.items() if value is not None}

    arm = given(arm=args.arm, gravity_compensation=args.gravity_compensation)
    sim_time = given(use_sim_time=args.use_sim_time)
    control = arm | sim_time | given(checkpoint=args.model)
    nodes = {"controller": control}
    if args.watchdog:
        nodes["torque_watchdog"] = arm | sim_time
    if args.train:
        nodes["trainer"] = dict(control)
    if args.description:
        nodes["description"] = given(arm=args.arm)
    if args.markers or args.rviz or args.view:
        nodes["imagination"] = dict(control)
    if args.markers or args.rviz:
        nodes["markers"] = given(arm=args.arm)
    if args.view:
        nodes["viewer"] = given(arm=args.arm)
    if args.record:
        nodes["recorder"] = arm | sim_time | given(directory=args.record)
    bridge = given(
        real_time_factor=args.real_time_factor,
        lock_step=args.lock_step,
        payload_mass=args.payload_mass,
        headless=args.headless,
    )
    return nodes | {"mujoco_bridge": arm | bridge}


def supervise(names: Sequence[str], ros_arguments: Sequence[str], stop: StopRequest) -> int:
    """Run nodes (of `NODE_MODULES`) until asked to stop (0) or until a needed one ends (1)."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in names:
            processes[name] = _start(name, ros_arguments)
        running = dict(processes)
        while not stop:
            for name, process in processes.items():
                if name not in running or process.poll() is None:
                    continue
                del running[name]
                ended = f"error: {name} ended by itself with exit code {process.returncode}"
                if name in NEEDED:
                    print(f"{ended}.", file=sys.stderr)
                    return 1
                print(f"{ended}; control goes on without it.", file=sys.stderr)
            time.sleep(0.05)
        return 0
    finally:
        for process in processes.values():
            _end(process)


def _start(name: str, ros_arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    return start_process([sys.executable, "-m", NODE_MODULES[name], "--ros-args", *ros_arguments])


def _start_rviz(configuration: Path, namespace: str) -> "subprocess.Popen[bytes]":
    """RViz with a configuration; control goes on when somebody closes it.

    Raises:
        ConfigError: it is not installed.
    """
    program = shutil.which("rviz2")
    if program is None:
        raise ConfigError("rviz: there is no rviz2 here; source a ROS 2 installation that has it, or leave --rviz out.")
    remap = ["--ros-args", "--remap", f"__ns:={namespace}"] if namespace else []
    return start_process([program, "-d", str(configuration), *remap])


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and kill it (with all it started) if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def boolean(text: str) -> bool:
    """True or false, as ROS spells them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"
