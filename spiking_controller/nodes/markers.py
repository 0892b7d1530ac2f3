"""The markers node: what the controller is about, for RViz and Foxglove, and the spikes as a picture.

It only listens to what the controller says, ten times a second, and sends nothing while nobody looks.
"""

import math
import sys
import time
from array import array
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, WrenchStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import ColorRGBA, UInt8MultiArray
from visualization_msgs.msg import Marker, MarkerArray

from spiking_controller.evaluation.raster import SpikeRaster
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import ARM, JOINT_NAMES, joint_names
from spiking_controller.nodes.common.frame_prefix import FRAME_PREFIX, frame_prefix
from spiking_controller.nodes.common.latest import LatestMessages
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, repeat_until_stopped, run_bystander
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.link_frames import JointAxes

NEAR = math.radians(10.0)
"""A joint limit is shown from this distance on, rad."""
REFUSAL_SHOWN = 6.0
"""How long a refused goal is shown, s."""
PUSH_SHOWN = 0.5
"""How long a push is shown after its last message, s."""
CONTACT_SHOWN = 1.0
"""How long a contact is shown that the controller has noticed, s."""
METRES_PER_NEWTON = 0.01
IMAGE_EVERY = 2
"""The spikes change on one of so many pictures."""

RED = ColorRGBA(r=0.9, g=0.1, b=0.1, a=0.9)
GREEN = ColorRGBA(r=0.1, g=0.7, b=0.3, a=0.9)
BLUE = ColorRGBA(r=0.1, g=0.4, b=0.9, a=0.8)
VIOLET = ColorRGBA(r=0.6, g=0.3, b=0.9, a=0.9)
ORANGE = ColorRGBA(r=1.0, g=0.55, b=0.0, a=0.9)

PARAMETERS = [
    ARM,
    JOINT_NAMES,
    FRAME_PREFIX,
    ParameterSpec("frequency", 10.0, "Pictures per second (wall clock), Hz.", 0.5, 60.0),
    ParameterSpec("trail", 3.0, "How long the hand's way stays visible, s (wall clock).", 0.0, 60.0),
]


class Markers(Node):
    """Publishes `controller/markers` and `controller/spike_image`; `run` is its life."""

    def __init__(self) -> None:
        """Join the topics.

        Raises:
            ConfigError: a parameter has a wrong value.
        """
        super().__init__("markers")
        declare_parameters(self, PARAMETERS)
        arm = get_arm(value_of(self, "arm"))
        self._arm = arm
        self._joint_names = joint_names(self)
        self._axes = JointAxes(arm)
        self._prefix = frame_prefix(self)
        self._frame = self._prefix + arm.base_frame
        self._frequency = value_of(self, "frequency")
        self._pictures = 0
        self._trail: deque[Point] = deque(maxlen=max(2, round(value_of(self, "trail") * self._frequency)))
        self._angles: np.ndarray | None = None
        self._stamp = 0
        self._goal: Point | None = None
        self._refused: tuple[Point, str] | None = None
        self._refused_at = -math.inf
        self._asked = ""
        self._future: list[Point] = []
        self._push: WrenchStamped | None = None
        self._contact: WrenchStamped | None = None
        self._pushed_at = self._touched_at = -math.inf
        self._raster = SpikeRaster()
        self._states = LatestMessages(self, {"joint_states": JointState})
        self._spikes = LatestMessages(self, {"controller/spikes": UInt8MultiArray}, messages.WAITING, "spikes")
        self._publisher = self.create_publisher(MarkerArray, "controller/markers", messages.RELIABLE)
        self._image_publisher = self.create_publisher(Image, "controller/spike_image", messages.LATEST)
        self.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.LATCHED)
        self.create_subscription(Path, "controller/imagination", self._on_imagination, messages.LATEST)
        self.create_subscription(WrenchStamped, "mujoco_bridge/push", self._on_push, messages.RELIABLE)
        self.create_subscription(WrenchStamped, "controller/contact", self._on_contact, messages.RELIABLE)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, messages.RELIABLE)
        self._controller_goal = f"{self.get_namespace().rstrip('/')}/controller: goal"

    def run(self, stop: StopRequest) -> None:
        """Draw until asked to stop."""
        try:
            repeat_until_stopped(self, stop, lambda: 1.0 / self._frequency, self._draw)
        finally:
            self._states.close()
            self._spikes.close()

    def _draw(self) -> None:
        """One picture, for whoever listens."""
        self._look()
        if self._publisher.get_subscription_count():
            self._publisher.publish(MarkerArray(markers=self._markers()))
        self._pictures += 1
        if self._pictures % IMAGE_EVERY == 0 and self._image_publisher.get_subscription_count():
            self._image_publisher.publish(self._image())

    def _look(self) -> None:
        """Take what has come since the last picture."""
        while (spikes := self._spikes.take("controller/spikes")) is not None:
            self._raster.add(messages.spikes_from_message(spikes))
        state = self._states.take("joint_states")
        if state is None:
            return
        angles = dict(zip(state.name, state.position, strict=False))
        if not all(name in angles for name in self._joint_names):
            self.get_logger().warning(
                f"the joint states lack one of {', '.join(self._joint_names)}; set joint_names.",
                throttle_duration_sec=5.0,
            )
            return
        self._angles = np.array([angles[name] for name in self._joint_names])
        stamp = messages.stamp_to_time(state.header.stamp)
        if stamp < self._stamp:
            self._trail.clear()
        self._stamp = stamp
        self._trail.append(_point(self._arm.chain.position(self._angles)))

    def _on_goal(self, message: PointStamped) -> None:
        self._goal = message.point

    def _on_imagination(self, message: Path) -> None:
        self._future = [pose.pose.position for pose in message.poses]

    def _on_push(self, message: WrenchStamped) -> None:
        self._push, self._pushed_at = message, time.monotonic()

    def _on_contact(self, message: WrenchStamped) -> None:
        self._contact, self._touched_at = message, time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name != self._controller_goal:
                continue
            asked = next((item.value for item in status.values if item.key == "asked"), "")
            is_new = (asked, status.message) != (self._asked, "")
            self._asked = asked
            if status.level != DiagnosticStatus.WARN or not asked:
                self._refused = None
            elif is_new and (self._refused is None or self._refused[1] != status.message):
                coordinates = [float(part) for part in asked.split()]
                self._refused = Point(x=coordinates[0], y=coordinates[1], z=coordinates[2]), status.message
                self._refused_at = time.monotonic()

    def _markers(self) -> list[Marker]:
        """All of them; those that are over are deleted."""
        now = time.monotonic()
        made = []
        if self._goal is not None:
            made.append(self._marker("goal", Marker.SPHERE, GREEN, size=0.04, place=self._goal))
        if self._refused is not None and now - self._refused_at < REFUSAL_SHOWN:
            place, sentence = self._refused
            if all(math.isfinite(value) for value in (place.x, place.y, place.z)):
                made.append(self._marker("refused goal", Marker.SPHERE, RED, size=0.04, place=place))
            else:
                place = Point()
            above = Point(x=place.x, y=place.y, z=place.z + 0.06)
            text = self._marker("refusal", Marker.TEXT_VIEW_FACING, RED, size=0.03, place=above)
            text.text = sentence
            made.append(text)
        if len(self._trail) > 1:
            trail = self._marker("trail", Marker.LINE_STRIP, BLUE, size=0.006)
            trail.points = list(self._trail)
            made.append(trail)
        if len(self._future) > 1:
            future = self._marker("imagination", Marker.LINE_STRIP, VIOLET, size=0.006)
            future.points = self._future
            made += [future, self._marker("imagined hand", Marker.SPHERE, VIOLET, size=0.03, place=self._future[-1])]
        made += self._limit_markers()
        if self._push is not None and now - self._pushed_at < PUSH_SHOWN:
            made += self._arrow("push", ORANGE, self._push)
        if self._contact is not None and now - self._touched_at < CONTACT_SHOWN:
            made += self._arrow("contact", RED, self._contact)
        clear = Marker(action=Marker.DELETEALL)
        clear.header.frame_id = self._frame
        return [clear, *made]

    def _limit_markers(self) -> list[Marker]:
        """A ring at each joint that is near one of its limits, and how near, in degrees."""
        if self._angles is None:
            return []
        limits, made = self._arm.limits, []
        room = np.minimum(self._angles - limits.position_lower, limits.position_upper - self._angles)
        for joint, place in enumerate(self._axes.origins(self._angles)):
            if room[joint] < NEAR:
                ring = self._marker("joint limits", Marker.SPHERE, ORANGE, size=0.14, place=_point(place))
                text = self._marker("joint limits", Marker.TEXT_VIEW_FACING, ORANGE, size=0.03, place=_point(place))
                text.pose.position.z += 0.1
                text.text = f"{self._joint_names[joint]}: {math.degrees(room[joint]):.0f}° to its limit"
                ring.id, text.id = 2 * joint, 2 * joint + 1
                made += [ring, text]
        return made

    def _arrow(self, namespace: str, colour: ColorRGBA, wrench: WrenchStamped) -> list[Marker]:
        """A force, where it acts: on the hand, or at the origin of the link in whose frame it is given."""
        force, frame = wrench.wrench.force, wrench.header.frame_id.removeprefix("/").removeprefix(self._prefix)
        vector = np.array([force.x, force.y, force.z])
        if not vector.any() or self._angles is None:
            return []
        arrow, tip = self._marker(namespace, Marker.ARROW, colour, size=0.015), np.zeros(3)
        if frame in ("", self._arm.base_frame):
            tip = self._arm.chain.position(self._angles)
        else:
            arrow.header.frame_id = self._prefix + frame
        arrow.scale.y, arrow.scale.z = 0.03, 0.04
        arrow.points = [_point(tip - METRES_PER_NEWTON * vector), _point(tip)]
        return [arrow]

    def _marker(self, namespace: str, kind: int, colour: ColorRGBA, size: float, place: Point | None = None) -> Marker:
        marker = Marker(ns=namespace, type=kind, action=Marker.ADD, color=colour)
        marker.header.frame_id = self._frame
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = size
        if place is not None:
            marker.pose.position.x, marker.pose.position.y, marker.pose.position.z = place.x, place.y, place.z
        return marker

    def _image(self) -> Image:
        picture = self._raster.image()
        image = Image(height=picture.shape[0], width=picture.shape[1], encoding="mono8", step=picture.shape[1])
        messages.set_stamp(image.header.stamp, self._stamp)
        image.data = array("B", picture.tobytes())
        return image


def _point(values: np.ndarray) -> Point:
    return Point(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def main(args: list[str] | None = None) -> int:
    """Run the markers node until Ctrl-C or SIGTERM."""
    return run_bystander(Markers, args)


if __name__ == "__main__":
    sys.exit(main())
