"""Brings goals from other frames into the arm's base frame, through tf2 where that is installed."""

from typing import Any

import numpy as np
from geometry_msgs.msg import Point, TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time

from spiking_controller.errors import GoalError

try:
    import tf2_ros
except ImportError:
    # The rclpy wheels come without it.
    tf2_ros = None


class Frames:
    """Knows the arm's base frame, and by tf2 the others."""

    def __init__(self, node: Node, base_frame: str, prefix: str = "") -> None:
        """Listen to /tf, if tf2 is there, in the node's own executor.

        Args:
            node: in whose executor.
            base_frame: of the arm.
            prefix: before its name, which may be left out.
        """
        self._base_frames = [prefix + base_frame, base_frame] if prefix else [base_frame]
        self._buffer: Any = None
        if tf2_ros is not None:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        """Leave /tf."""
        if self._buffer is not None:
            self._listener.unregister()

    def in_base_frame(self, point: Point, frame: str) -> NDArray[np.float64]:
        """A point in the arm's base frame, m, [3], by the latest transform.

        Raises:
            GoalError: another frame, and tf2 is not there or does not know it.
        """
        coordinates = np.array([point.x, point.y, point.z])
        frame = frame.removeprefix("/")
        if frame in ("", *self._base_frames):
            return coordinates
        text = f"the goal ({point.x:.3f}, {point.y:.3f}, {point.z:.3f}) is in the frame '{frame}'"
        fix = f"give it in '{self._base_frames[-1]}' or with an empty frame_id."
        if self._buffer is None:
            raise GoalError(f"{text}, and tf2_ros, which could transform it, is not installed; {fix}")
        reason = ""
        for base_frame in self._base_frames:
            try:
                return transformed(coordinates, self._buffer.lookup_transform(base_frame, frame, Time()))
            except tf2_ros.TransformException as error:
                reason = " ".join(str(error).split())
        raise GoalError(f"{text}, which tf2 cannot transform ({reason}); {fix}")


def transformed(point: NDArray[np.float64], transform: TransformStamped) -> NDArray[np.float64]:
    """A point [3] of the transform's child frame in its parent frame: v + 2 q × (q × v + w v), then the translation."""
    rotation, translation = transform.transform.rotation, transform.transform.translation
    axis = np.array([rotation.x, rotation.y, rotation.z])
    turned = point + 2.0 * np.cross(axis, np.cross(axis, point) + rotation.w * point)
    return np.asarray(turned + np.array([translation.x, translation.y, translation.z]))
