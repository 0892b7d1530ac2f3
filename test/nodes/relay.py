"""Stands between a driver's joint states and the controller, and spoils them on request: `python relay.py`.

Passes `joint_states_raw` on as `joint_states`. A text on `fault`, such as "nan_position 0.3", names one of `FAULTS` and
for how many seconds of wall time.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import StopRequest, create_executor, run_process

DELAY: Final = 25
"""States by which a delayed driver is behind: 50 ms at 500 Hz."""


class Past(NamedTuple):
    """The last state before the fault, and the latest ones, the present one last."""

    onset: JointState
    latest: deque[JointState]


def _told(message: JointState, position: Sequence[float], velocity: Sequence[float]) -> JointState:
    """Other values under the same stamp."""
    return JointState(header=message.header, name=message.name, position=position, velocity=velocity)


def stopped(message: JointState, past: Past) -> None:
    """Nothing passes."""


def nan_position(message: JointState, past: Past) -> JointState:
    """Every angle is NaN."""
    message.position = [math.nan] * len(message.position)
    return message


def infinite_velocity(message: JointState, past: Past) -> JointState:
    """One velocity is infinite."""
    message.velocity[3] = math.inf
    return message


def swapped(message: JointState, past: Past) -> JointState:
    """Hand to base instead of base to hand, with fingers in between and without efforts, as some drivers send it."""
    order = list(range(len(message.name)))[::-1]
    fingers = ["panda_finger_joint1", "panda_finger_joint2"]
    parts = (list(message.name), list(message.position), list(message.velocity))
    name, position, velocity = ([part[index] for index in order] for part in parts)
    spoilt = JointState(header=message.header)
    spoilt.name = [*name[:3], *fingers, *name[3:]]
    spoilt.position = [*position[:3], 0.02, 0.02, *position[3:]]
    spoilt.velocity = [*velocity[:3], 0.0, 0.0, *velocity[3:]]
    return spoilt


def zero_velocity(message: JointState, past: Past) -> JointState:
    """The driver fills velocities in."""
    return _told(message, message.position, [0.0] * len(message.name))


def frozen(message: JointState, past: Past) -> JointState:
    """The same state for ever, with fresh stamps."""
    return _told(message, past.onset.position, past.onset.velocity)


def frozen_at_zero_velocity(message: JointState, past: Past) -> JointState:
    """The same angles for ever, of an arm that seems to rest."""
    return _told(message, past.onset.position, [0.0] * len(message.name))


def opposite_velocity(message: JointState, past: Past) -> JointState:
    """Velocities have the wrong sign."""
    return _told(message, message.position, [-velocity for velocity in message.velocity])


def delayed(message: JointState, past: Past) -> JointState:
    """The past with fresh stamps."""
    return _told(message, past.latest[0].position, past.latest[0].velocity)


def offset(message: JointState, past: Past) -> JointState:
    """The angle of the second joint is wrong by 0.3 rad."""
    position = list(message.position)
    position[1] += 0.3
    return _told(message, position, message.velocity)


FAULTS: dict[str, Callable[[JointState, Past], JointState | None]] = {
    fault.__name__: fault
    for fault in (
        stopped,
        nan_position,
        infinite_velocity,
        swapped,
        zero_velocity,
        frozen,
        frozen_at_zero_velocity,
        opposite_velocity,
        delayed,
        offset,
    )
}


class Relay(Node):
    """Passes joint states on, sound or spoilt."""

    def __init__(self) -> None:
        super().__init__("relay")
        self._fault = ""
        self._until = 0.0
        self._onset = JointState()
        self._latest: deque[JointState] = deque(maxlen=DELAY + 1)
        self._publisher = self.create_publisher(JointState, "joint_states", messages.STATE_PUBLISHER)
        self.create_subscription(String, "fault", self._on_fault, messages.RELIABLE)
        self.create_subscription(JointState, "joint_states_raw", self._on_states, messages.STATE_PUBLISHER)

    def _on_fault(self, message: String) -> None:
        self._fault, seconds = message.data.split()
        self._until = time.monotonic() + float(seconds)
        if self._latest:
            self._onset = self._latest[-1]
        self.get_logger().info(f"fault: {message.data}")

    def _on_states(self, message: JointState) -> None:
        self._latest.append(message)
        passed: JointState | None = message
        if time.monotonic() < self._until:
            passed = FAULTS[self._fault](message, Past(self._onset, self._latest))
        elif self._fault:
            self.get_logger().info(f"the truth after: {self._fault}")
            self._fault = ""
        if passed is not None:
            self._publisher.publish(passed)


def _relay(stop: StopRequest) -> int:
    node = Relay()
    executor = create_executor()
    executor.add_node(node)
    while not stop and rclpy.ok():
        executor.spin_once(timeout_sec=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(run_process(_relay, None))
