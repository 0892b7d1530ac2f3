"""Sends one goal to a running controller and says whether it was accepted: `spiking_controller goal X Y Z`."""

import argparse
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from spiking_controller.errors import GoalError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import start_ros

ANSWER_TIMEOUT = 5.0
"""How long to wait for the controller, s."""
SETTLE = 0.5
"""Who listens must not have changed for this long, s: a recorder may be discovered later than the controller."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The goal, and which controller it is for."""
    for axis in "xyz":
        parser.add_argument(axis, type=float, help=f"{axis} of the goal in the arm's base frame, m")
    parser.add_argument("--namespace", default="", help="namespace of the controller")
    parser.add_argument("--frame", default="", help="frame of the goal; empty: the arm's base frame")


def run(args: argparse.Namespace) -> int:
    """Send the goal; 0 once the controller has accepted it.

    Raises:
        ConfigError: ROS does not start in this environment.
        GoalError: the controller refused it (with its reason), or none answered.
    """
    start_ros([])
    try:
        node = GoalCommand((args.x, args.y, args.z), args.frame, args.namespace)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        end = time.monotonic() + ANSWER_TIMEOUT
        while time.monotonic() < end and not node.answered:
            executor.spin_once(timeout_sec=0.05)
            node.send_once()
        node.wait_until_heard()
        executor.shutdown()
        node.conclude()
    finally:
        rclpy.try_shutdown()
    print(f"goal ({args.x:g}, {args.y:g}, {args.z:g}) accepted")
    return 0


class GoalCommand(Node):
    """Sends a goal as soon as a controller listens, and reads its answer."""

    def __init__(self, goal: tuple[float, float, float], frame: str, namespace: str) -> None:
        """Join the graph.

        Args:
            goal: x, y, z, m.
            frame: of the goal; empty: the arm's base frame.
            namespace: of the controller.
        """
        super().__init__("goal_command", namespace=namespace)
        self._goal = goal
        self._frame = frame
        self._sent = False
        self._accepted = False
        self._refusal = ""
        self._listeners = 0
        self._listeners_since = time.monotonic()
        self._controller = self.resolve_topic_name("controller")
        self._publisher = self.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, messages.RELIABLE)

    @property
    def answered(self) -> bool:
        """Whether the controller has accepted or refused."""
        return self._accepted or bool(self._refusal)

    def send_once(self) -> None:
        """Send the goal if that is not done yet and the controller, and whoever else listens, would hear it."""
        listeners, now = self._publisher.get_subscription_count(), time.monotonic()
        if listeners != self._listeners:
            self._listeners, self._listeners_since = listeners, now
        connected = 0 < self.count_subscribers("goal_point") <= listeners and self.count_publishers("controller/goal")
        if self._sent or not connected or now - self._listeners_since < SETTLE:
            return
        message = PointStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self._frame
        message.point.x, message.point.y, message.point.z = self._goal
        self._publisher.publish(message)
        self._sent = True

    def wait_until_heard(self) -> None:
        """Stay until every listener has the goal."""
        self._publisher.wait_for_all_acked(Duration(seconds=1.0))

    def conclude(self) -> None:
        """Nothing if the goal was accepted; raises GoalError otherwise."""
        if self._refusal:
            raise GoalError(self._refusal)
        if not self._accepted:
            raise GoalError(
                f"no answer from {self._controller} within {ANSWER_TIMEOUT:g} s; start it, or name its --namespace."
            )

    def _on_goal(self, message: PointStamped) -> None:
        point = message.point
        if self._sent and np.allclose((point.x, point.y, point.z), self._goal, atol=1e-9):
            self._accepted = True

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            asked = {item.key: item.value for item in status.values}.get("asked")
            if status.name == f"{self._controller}: goal" and asked == messages.point_text(*self._goal):
                self._refusal = status.message if status.level != DiagnosticStatus.OK else ""
                # A goal in another frame comes back in the base frame, and is known by this alone.
                self._accepted |= self._sent and not self._refusal
