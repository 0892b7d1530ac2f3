"""Starts the graph as processes where `ros2 launch` is absent, and ends it in order: `spiking_controller up`.

The controller is stopped first, so that it can ramp the torque down while the bridge still listens. No process
outlives this one, not even if it is killed.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spiking_controller.errors import ConfigError
from spiking_controller.nodes.process import StopRequest, catch_signals
from spiking_controller.resources import share_path

STOP_TIMEOUT = 8.0
"""A node that has not ended this long after it was asked to is killed, s."""
_SET_PARENT_DEATH_SIGNAL = 1


class NodeProcess(NamedTuple):
    """A node to start: its module in `spiking_controller.nodes` and its ROS parameters."""

    module: str
    parameters: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of launch/panda.launch.py, as options."""

    def option(name: str, **settings: Any) -> None:
        parser.add_argument(f"--{name}", **settings)

    option("model", default="", help="checkpoint of the networks; empty: as in params-file, else the shipped one")
    option("namespace", default="", help="ROS namespace of all nodes, for several arms side by side")
    option("use-sim-time", type=boolean, default="true", metavar="BOOL", help="the nodes follow the simulated clock")
    option("real-time-factor", type=decimal, help="simulated seconds per second; by default as in params-file")
    option("headless", type=boolean, metavar="BOOL", help="run without a window; by default as in params-file")
    option("train", type=boolean, default="false", metavar="BOOL", help="also start the online trainer")
    option("record", default="", metavar="DIR", help="record the graph into this folder; empty: do not")
    option("params-file", default="", help="parameters of all nodes; empty: the shipped config/panda.yaml")


def run(args: argparse.Namespace) -> int:
    """Start the nodes and wait for Ctrl-C.

    Returns:
        0 after Ctrl-C or SIGTERM, 1 if a node ended by itself.
    Raises:
        ConfigError: the parameter file does not exist.
    """
    parameter_file = Path(args.params_file) if args.params_file else share_path("config", "panda.yaml")
    if not parameter_file.is_file():
        raise ConfigError(f"params-file: there is no file {parameter_file}; give the path of a ROS parameter file.")
    ros_arguments = ["--params-file", str(parameter_file)]
    if args.namespace:
        ros_arguments += ["--remap", f"__ns:=/{args.namespace.strip('/')}", "--remap", "/clock:=clock"]
    stop = StopRequest()
    catch_signals(stop)
    return supervise(planned_nodes(args), ros_arguments, stop)


def planned_nodes(args: argparse.Namespace) -> list[NodeProcess]:
    """Which nodes the options ask for, in the order in which they are stopped."""

    def given(**parameters: str | None) -> dict[str, str]:
        """Parameters without those that are left to the parameter file."""
        return {name: value for name, value in parameters.items() if value}

    sim_time = given(use_sim_time=args.use_sim_time)
    nodes = [NodeProcess("controller", sim_time | given(checkpoint=quoted(args.model)))]
    if args.train == "true":
        nodes.append(NodeProcess("trainer", sim_time))
    if args.record:
        nodes.append(NodeProcess("recorder", sim_time | given(directory=quoted(args.record))))
    bridge = given(real_time_factor=args.real_time_factor, headless=args.headless)
    return [*nodes, NodeProcess("mujoco_bridge", bridge)]


def supervise(nodes: Sequence[NodeProcess], ros_arguments: Sequence[str], stop: StopRequest) -> int:
    """Run nodes until asked to stop (0) or until one of them ends by itself (1)."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for node in nodes:
            processes[node.module] = _start(node, ros_arguments)
        while not stop:
            for name, process in processes.items():
                if process.poll() is not None:
                    print(f"error: {name} ended by itself with exit code {process.returncode}.", file=sys.stderr)
                    return 1
            time.sleep(0.05)
        return 0
    finally:
        for process in processes.values():
            _end(process)


def _start(node: NodeProcess, ros_arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", f"spiking_controller.nodes.{node.module}", "--ros-args", *ros_arguments]
    for name, value in node.parameters.items():
        command += ["--param", f"{name}:={value}"]
    parent, c_library = os.getpid(), ctypes.CDLL(None)

    def die_with_parent() -> None:
        if sys.platform == "linux":
            c_library.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    # A session of its own, so that Ctrl-C in the terminal reaches only us and we end the nodes in order.
    return subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and kill it (with all it started) if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def quoted(text: str) -> str:
    """A text that ROS does not take for a number; empty stays empty."""
    return json.dumps(text) if text else ""


def boolean(text: str) -> str:
    """A truth value as ROS spells it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower()


def decimal(text: str) -> str:
    """A number as ROS spells one that is not whole."""
    try:
        return repr(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
