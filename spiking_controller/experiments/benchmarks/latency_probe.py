"""Listens to a live graph while it sends goals, and notes when each joint state and each torque was on its way.

The times are those of the middleware: of the publisher when a message left, of this process' receiving thread when it
arrived. So the probe may look at its messages late and in batches, and takes little of the processor time that it
measures. Messages are not deserialised; their stamp stands at the beginning.
"""

import struct
from array import array
from typing import Any, Final

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray

from spiking_controller.experiments.benchmarks.control_benchmark import Traffic
from spiking_controller.nodes.common import messages
from spiking_controller.units import NANOSECONDS

COUNTED: Final = ("missed control step", "overruns", "late states")
"""What the controller counts on /diagnostics that a benchmark wants to know."""
_DEEP: Final = QoSProfile(depth=5000, reliability=ReliabilityPolicy.BEST_EFFORT)


class Tap:
    """Everything that is heard of one topic whose messages begin with a header. `drain` it now and then."""

    def __init__(self, node: Node, kind: Any, topic: str) -> None:
        """Listen.

        Args:
            node: that nobody spins: the tap takes its messages itself.
            kind: of the messages.
            topic: its name.
        """
        self._subscription = node.create_subscription(kind, topic, _ignore, _DEEP, raw=True)
        self._columns = tuple(array("q") for _ in Traffic._fields)

    def drain(self) -> int:
        """Note what has arrived; returns how many messages."""
        count = 0
        handle = self._subscription.handle
        with handle:
            while (taken := handle.take_message(self._subscription.msg_type, True)) is not None:
                data, info = taken
                # After four bytes that say how it is encoded, a message with a header begins with its stamp.
                seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
                row = (
                    seconds * NANOSECONDS + nanoseconds,
                    info["source_timestamp"],
                    info["received_timestamp"],
                    info["publication_sequence_number"],
                )
                for column, value in zip(self._columns, row, strict=True):
                    column.append(value)
                count += 1
        return count

    def clear(self) -> None:
        """Forget what was noted."""
        for column in self._columns:
            del column[:]

    @property
    def traffic(self) -> Traffic:
        """What was noted since `clear`."""
        return Traffic(*(np.array(column, dtype=np.int64) for column in self._columns))


class LatencyProbe:
    """Taps on joint states and torques, and the few messages that are worth reading; whoever uses it spins `node`.

    Attributes:
        node: for the executor.
        states, torques: the taps.
        diagnostics: messages about the controller on /diagnostics so far.
        goals: goals accepted so far.
        model_updates: networks that somebody sent.
    """

    def __init__(self, frame: str) -> None:
        """Join the graph.

        Args:
            frame: the goals' frame_id.
        """
        self.node = Node("latency_probe")
        self._unspun = Node("latency_taps")
        self.states = Tap(self._unspun, JointState, "joint_states")
        self.torques = Tap(self._unspun, JointState, "controller/torque")
        self.diagnostics = 0
        self.goals = 0
        self.model_updates = 0
        self._counts = dict.fromkeys(COUNTED, 0)
        self._trained = self._trained_before = 0
        self._frame = frame
        self._publisher = self.node.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, messages.RELIABLE)
        self.node.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.RELIABLE)
        self.node.create_subscription(UInt8MultiArray, "model_update", self._on_update, messages.RELIABLE)

    @property
    def counts(self) -> dict[str, int]:
        """`COUNTED`, as the controller last said."""
        return dict(self._counts)

    @property
    def training_updates(self) -> int:
        """How often the trainer has trained, whatever came of it."""
        return self._trained - self._trained_before

    @property
    def takes_goals(self) -> bool:
        """Whether somebody listens for goals."""
        return self._publisher.get_subscription_count() > 0

    def send_goal(self, goal: NDArray[np.float64]) -> None:
        """Send the hand to a point, m in the frame, [3]."""
        message = PointStamped()
        message.header.frame_id = self._frame
        message.point.x, message.point.y, message.point.z = goal.tolist()
        self._publisher.publish(message)

    def drain(self) -> None:
        """Note what has arrived on both taps."""
        self.states.drain()
        self.torques.drain()

    def clear(self) -> None:
        """Begin anew: what was heard so far does not count."""
        self.drain()
        self.states.clear()
        self.torques.clear()
        self.goals = self.model_updates = 0
        self._trained_before = self._trained

    def close(self) -> None:
        """Leave the graph."""
        self.node.destroy_node()
        self._unspun.destroy_node()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if status.name == "/controller: control":
                self.diagnostics += 1
                self._counts = {name: int(values.get(name, 0)) for name in COUNTED}
            elif status.name == "/trainer: learning":
                self._trained = int(values.get("update", 0))

    def _on_goal(self, message: PointStamped) -> None:
        self.goals += 1

    def _on_update(self, message: UInt8MultiArray) -> None:
        self.model_updates += 1


def _ignore(message: bytes) -> None:
    """Never called: nobody spins a tap's node."""
