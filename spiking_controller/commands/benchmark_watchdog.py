"""`spiking_controller benchmark watchdog`: how much later a command reaches the arm through the torque watchdog."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray

from spiking_controller.commands.up import NODE_MODULES
from spiking_controller.errors import ConfigError
from spiking_controller.nodes.clients.graph import START_LIMIT, Graph, GraphError, keep_to_ourselves
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import start_ros
from spiking_controller.nodes.torque_watchdog import COMMANDS, UNCHECKED_COMMANDS
from spiking_controller.robots.arm import get_arm
from spiking_controller.units import NANOSECONDS

PERIOD: Final = 0.002
"""Between two commands, as between two joint states, s."""
_SETTLING: Final = 1.0
"""From the first command to those that count, s."""
_LAST_WORDS: Final = 0.5
"""What is on its way at the end may take so long, s."""
_LARGEST: Final = 1.0
_STEPS: Final = 2**20
"""Torques go from 0 to _LARGEST N·m in so many steps, so that each command is known by its torque."""
_DEEP: Final = QoSProfile(depth=1000)


class CommandProbe(Node):
    """Sends commands as a controller does, and notes when each left the controller and when it left the watchdog.

    Nobody spins it: it takes its messages itself. The times are those of the middleware.
    """

    def __init__(self) -> None:
        """Join the topics."""
        super().__init__("command_probe")
        self._joints = len(get_arm("panda").joint_names)
        self._sent = 0
        self._publisher = self.create_publisher(Float64MultiArray, UNCHECKED_COMMANDS, messages.COMMAND)
        self._taps = [
            self.create_subscription(Float64MultiArray, topic, _ignore, _DEEP)
            for topic in (UNCHECKED_COMMANDS, COMMANDS)
        ]
        # By its torque: when the middleware was given a command, ns.
        self._sent_at: dict[float, int] = {}
        self._passed_on_at: dict[float, int] = {}

    def send(self) -> None:
        """The next command."""
        torque = np.full(self._joints, _LARGEST * (self._sent % _STEPS) / _STEPS)
        self._publisher.publish(Float64MultiArray(data=messages.doubles(torque)))
        self._sent += 1

    @property
    def passed_on(self) -> int:
        """How many commands have come through the watchdog."""
        return len(self._passed_on_at)

    def drain(self) -> None:
        """Note what has arrived."""
        for tap, left_at in zip(self._taps, (self._sent_at, self._passed_on_at), strict=True):
            handle = tap.handle
            with handle:
                while (taken := handle.take_message(tap.msg_type, False)) is not None:
                    message, info = taken
                    left_at[message.data[0]] = info["source_timestamp"]

    def clear(self) -> None:
        """What was heard so far does not count."""
        self.drain()
        self._sent_at.clear()
        self._passed_on_at.clear()

    def delays(self) -> NDArray[np.float64]:
        """From the controller's publication to the watchdog's, s, [commands that came through]."""
        both = self._sent_at.keys() & self._passed_on_at.keys()
        return np.array([self._passed_on_at[torque] - self._sent_at[torque] for torque in both]) / NANOSECONDS


def _ignore(message: Float64MultiArray) -> None:
    """Never called: nobody spins the probe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `benchmark watchdog`."""
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long to measure (default: 60)")


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit code.

    Raises:
        ConfigError: an option out of range.
        GraphError: the watchdog does not come up or dies.
    """
    if args.seconds <= 0:
        raise ConfigError(f"--seconds {args.seconds:g} must be above 0.")
    keep_to_ourselves()
    delays = 1e3 * measure(args.seconds)
    print(
        f"Through the torque watchdog, a command leaves later by p50 {np.quantile(delays, 0.5):.3f} ms, "
        f"p99 {np.quantile(delays, 0.99):.3f} ms, max {delays.max():.3f} ms ({len(delays)} commands, "
        f"one every {1e3 * PERIOD:g} ms)."
    )
    return 0


def measure(seconds: float) -> NDArray[np.float64]:
    """Send commands through a watchdog for some wall time (s).

    Returns:
        From the publication of a command to that by the watchdog, s, [commands].
    Raises:
        GraphError: the watchdog does not come up or dies.
    """
    start_ros([])
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph = Graph([sys.executable, "-m", NODE_MODULES["torque_watchdog"]], Path(folder) / "watchdog.log")
            try:
                return _listen(graph, seconds)
            finally:
                graph.stop()
    finally:
        rclpy.try_shutdown()


def _listen(graph: Graph, seconds: float) -> NDArray[np.float64]:
    probe = CommandProbe()

    def pass_time(duration: float, sending: bool = True) -> None:
        end = time.monotonic() + duration
        while (now := time.monotonic()) < end:
            if sending:
                probe.send()
            probe.drain()
            time.sleep(max(0.0, now + PERIOD - time.monotonic()))
        graph.check()

    try:
        limit = time.monotonic() + START_LIMIT
        while not probe.passed_on:
            if time.monotonic() > limit:
                raise GraphError(f"no command came through within {START_LIMIT:.0f} s: {graph.last_words()}")
            pass_time(0.1)
        pass_time(_SETTLING)
        probe.clear()
        pass_time(seconds)
        pass_time(_LAST_WORDS, sending=False)
        return probe.delays()
    finally:
        probe.destroy_node()
