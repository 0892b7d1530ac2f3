"""Takes goals from the graph, at a pace that leaves control alone, and says which one is in force."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, PoseStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from spiking_controller.control.goals import GoalChecker
from spiking_controller.control.moving_goal import GoalTrack
from spiking_controller.errors import GoalError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.frame_prefix import frame_prefix
from spiking_controller.nodes.controller.frames import Frames
from spiking_controller.tasks.reach import ReachTask

SPACING = 0.02
"""Between two goals that are looked at, s (wall clock); of those that come meanwhile only the latest counts."""
REFUSAL_PERIOD = 1.0
"""Of a stream of goals that are refused, one is told in this time, s (wall clock)."""


class _Request(NamedTuple):
    """What was asked for: where, m, in which frame, and when it came, as a stamp of the joint states, ns."""

    point: Point
    frame: str
    time: int


class GoalInput:
    """The topics `goal_point`, `goal_pose` and `~/goal`.

    Attributes:
        counts: refused goals, and those that gave way to a later one unseen.
        status: what /diagnostics says about the last goal that was asked for.
    """

    def __init__(
        self,
        node: LifecycleNode,
        task: ReachTask,
        take: Callable[[NDArray[np.float64], int], None],
        refused: Callable[[], None],
        clock: Callable[[], int],
    ) -> None:
        """Join the topics.

        Args:
            node: in whose name.
            task: that goals are checked for.
            take: is given every good goal, m, [d], and when it came, ns.
            refused: is called after a refusal, once in REFUSAL_PERIOD for those of a stream.
            clock: stamp of the latest joint state, ns. Goals are timed by it, not by their own stamps, which may be of
                another clock or left empty.
        """
        self.counts: Counter[str] = Counter()
        self._node = node
        prefix = frame_prefix(node)
        self._base_frame = prefix + task.arm.base_frame
        self._checker = GoalChecker(task)
        self._frames = Frames(node, task.arm.base_frame, prefix)
        self._take = take
        self._refused = refused
        self._clock = clock
        self._refused_track = GoalTrack()
        self._refusal_told = -np.inf
        self._waiting: _Request | None = None
        self._closed = False
        self._looked_at = -np.inf
        self._publisher = node.create_publisher(PointStamped, "~/goal", messages.LATCHED)
        self._subscriptions = [
            node.create_subscription(PointStamped, "goal_point", self._on_goal_point, messages.RELIABLE),
            node.create_subscription(PoseStamped, "goal_pose", self._on_goal_pose, messages.RELIABLE),
        ]
        self._set_status(DiagnosticStatus.OK, "no goal was asked for")

    def close(self) -> None:
        """Leave the topics."""
        self._frames.close()
        self._node.destroy_publisher(self._publisher)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._closed = True

    def poll(self) -> None:
        """Look at a goal that had to wait, if it is time."""
        if self._waiting is not None and time.monotonic() - self._looked_at >= SPACING:
            request, self._waiting = self._waiting, None
            self._look_at(request)

    def publish(self, goal: NDArray[np.float64]) -> None:
        """Tell everyone the goal that is in force, m, [d]."""
        message = PointStamped()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = self._base_frame
        for axis, value in zip("xyz", goal, strict=False):
            setattr(message.point, axis, float(value))
        self._publisher.publish(message)

    def _on_goal_point(self, message: PointStamped) -> None:
        self._offer(_Request(message.point, message.header.frame_id, self._clock()))

    def _on_goal_pose(self, message: PoseStamped) -> None:
        self._node.get_logger().info("goal_pose: the position is used, the orientation is not", once=True)
        self._offer(_Request(message.pose.position, message.header.frame_id, self._clock()))

    def _offer(self, request: _Request) -> None:
        if self._closed:
            # The executor may hold an event of a topic that has just been left.
            return
        if self._waiting is not None:
            self.counts["superseded goal"] += 1
        self._waiting = request
        self.poll()

    def _look_at(self, request: _Request) -> None:
        """Go there, or say why not and keep the last goal."""
        self._looked_at = time.monotonic()
        point = request.point
        try:
            goal = self._checker.check(self._frames.in_base_frame(point, request.frame))
        except GoalError as error:
            self.counts["refused goal"] += 1
            self._set_status(DiagnosticStatus.WARN, str(error), point)
            self._tell_refusal(request, error)
            return
        self._refused_track.reset()
        self._set_status(DiagnosticStatus.OK, "accepted", point)
        self._take(goal, request.time)

    def _tell_refusal(self, request: _Request, error: GoalError) -> None:
        point = request.point
        goes_on = self._refused_track.add(request.time, np.array([point.x, point.y, point.z]))
        now = time.monotonic()
        if goes_on and now - self._refusal_told < REFUSAL_PERIOD:
            return
        self._refusal_told = now
        self._node.get_logger().warning(f"refused: {error}")
        self._refused()

    def _set_status(self, level: bytes, summary: str, point: Point | None = None) -> None:
        asked = {"asked": messages.point_text(point.x, point.y, point.z)} if point else {}
        self.status = messages.status(f"{self._node.get_fully_qualified_name()}: goal", level, summary, asked)
