"""Sends goals from a node of your own and waits until the hand has reached each.

Start the graph first (`spiking_controller up` or `ros2 launch spiking_controller panda.launch.py`), then this program.
"""

import sys

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

GOALS = [(0.45, 0.2, 0.5), (0.45, -0.2, 0.4)]  # in the frame of the arm's base, m


class GoalTour(Node):
    """Sends the next goal whenever the controller says that the last one is reached."""

    def __init__(self) -> None:
        super().__init__("goal_tour")
        self.ahead = list(GOALS)
        self._sent = False
        self._publisher = self.create_publisher(PointStamped, "goal_point", 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticStatus, "controller/status", self._on_status, latched)
        self.create_timer(0.5, self._send)

    def _send(self) -> None:
        # Sent again until the controller is on its way: it may not have been listening yet.
        if self.ahead and not self._sent:
            message = PointStamped()
            message.header.frame_id = "panda_link0"
            message.point.x, message.point.y, message.point.z = self.ahead[0]
            self._publisher.publish(message)

    def _on_status(self, status: DiagnosticStatus) -> None:
        if status.message == "reaching":
            self._sent = True
        elif status.message == "reached" and self._sent:
            print(f"reached {self.ahead.pop(0)}", flush=True)
            self._sent = False


def main() -> int:
    """Spin until all goals are reached."""
    rclpy.init()
    tour = GoalTour()
    try:
        while tour.ahead:
            rclpy.spin_once(tour)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
