"""A recorded run as something to look at: any moment of a bag, with what led there."""

from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import Arm
from spiking_controller.streams.bag_reader import opened, read
from spiking_controller.streams.bag_stream import find_stream
from spiking_controller.streams.message_feed import DamagedMessageError, decoded
from spiking_controller.streams.moments import CONTACT_SHOWN, CURVES, REFUSAL_SHOWN, Curves, Health, Moment
from spiking_controller.units import NANOSECONDS

SPACING = 0.02
"""Of joint states that are kept, s."""
CURVE_SPACING = 0.1
"""Of the curves' samples, s."""
SHOWN = 20.0
"""Length of the curves, s."""
TRAIL = 3.0
"""Length of the hand's way, s."""
_TOPICS = {
    "controller/goal": "geometry_msgs/msg/PointStamped",
    "controller/torque": "sensor_msgs/msg/JointState",
    "controller/tracking_error": "std_msgs/msg/Float64",
    "controller/prediction_error": "std_msgs/msg/Float64",
    "controller/spikes": "std_msgs/msg/UInt8MultiArray",
    "controller/status": "diagnostic_msgs/msg/DiagnosticStatus",
    "controller/imagination": "nav_msgs/msg/Path",
    "controller/imagined_state": "sensor_msgs/msg/JointState",
    "controller/version": "std_msgs/msg/String",
    "controller/disturbance": "sensor_msgs/msg/JointState",
    "controller/load": "std_msgs/msg/Float64MultiArray",
    "controller/contact": "geometry_msgs/msg/WrenchStamped",
}
_KEPT = ("states", "spikes seen", "refusals")


class _Track:
    """What was heard of one thing, by the time of receipt, s."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.entries: list[Any] = []

    def add(self, time: float, entry: Any, spacing: float = 0.0) -> None:
        """Keep it, unless the last one is closer than that."""
        if not self.times or time - self.times[-1] >= spacing:
            self.times.append(time)
            self.entries.append(entry)

    def at(self, time: float) -> Any | None:
        """The latest that was heard by then; None before the first."""
        index = bisect_right(self.times, time) - 1
        return self.entries[index] if index >= 0 else None

    def lately(self, time: float, age: float) -> Any | None:
        """The latest that was heard by then; None if it is older than that, s."""
        index = bisect_right(self.times, time) - 1
        return self.entries[index] if index >= 0 and time - self.times[index] < age else None

    def between(self, start: float, end: float) -> list[Any]:
        """What was heard after the one and until the other."""
        return self.entries[bisect_right(self.times, start) : bisect_right(self.times, end)]


class RecordedRun:
    """A bag of one arm, read into memory at 50 postures a second.

    Attributes:
        arm: that was recorded.
        duration: s.
    """

    def __init__(self, path: Path, arm: Arm) -> None:
        """Read it.

        Args:
            path: a rosbag2 folder, or one .mcap or .db3 file.
            arm: that shall be in it.
        Raises:
            ConfigError: it is no bag, damaged, or without the arm.
        """
        self.arm = arm
        self._tracks: dict[str, _Track] = {name: _Track() for name in (*_TOPICS, *CURVES, *_KEPT)}
        self._health: list[tuple[float, Health]] = []
        self._asked = ("", "")
        with opened(path) as bag:
            stream = find_stream(bag, arm)
            self._names = stream.joint_names
            space = stream.topics.joint_states.rpartition("/")[0]
            self._goal_entry = f"{space}/controller: goal"
            short = {f"{space}/{name}": name for name, kind in _TOPICS.items()}
            short[stream.topics.joint_states] = "joint_states"
            wanted = [
                connection
                for connection in bag.connections
                if connection.topic == "/diagnostics"
                or short.get(connection.topic) == "joint_states"
                or _TOPICS.get(short.get(connection.topic, "")) == connection.msgtype
            ]
            begin = None
            for connection, received, data in read(bag, wanted):
                begin = received if begin is None else begin
                try:
                    message = decoded(connection.msgtype, data)
                except DamagedMessageError as error:
                    raise ConfigError(f"{path}: a message on {connection.topic} is {error}.") from error
                self._take(short.get(connection.topic, "diagnostics"), (received - begin) / NANOSECONDS, message)
        states = self._tracks["states"].times
        self.duration = states[-1] if states else 0.0
        self._hands = arm.chain.position(np.array(self._tracks["states"].entries))

    def _take(self, topic: str, time: float, message: Any) -> None:
        tracks = self._tracks
        if topic == "joint_states":
            angles = dict(zip(message.name, message.position, strict=False))
            if all(name in angles for name in self._names):
                tracks["states"].add(time, np.array([angles[name] for name in self._names]), SPACING)
        elif topic == "diagnostics":
            self._health += [(time, Health(_level(each), each.name, each.message)) for each in message.status]
            for each in message.status:
                if each.name == self._goal_entry:
                    self._take_refusal(time, each)
        elif topic == "controller/goal":
            tracks[topic].add(time, np.array([message.point.x, message.point.y, message.point.z]))
        elif topic == "controller/status":
            reason = next((each.value for each in message.values if each.key == "reason"), "")
            tracks[topic].add(time, (message.message, reason))
        elif topic == "controller/imagination":
            places = [each.pose.position for each in message.poses]
            tracks[topic].add(time, np.array([(place.x, place.y, place.z) for place in places]).reshape(-1, 3))
        elif topic == "controller/imagined_state":
            tracks[topic].add(time, np.asarray(message.position, dtype=np.float64))
        elif topic == "controller/tracking_error":
            tracks["distance"].add(time, float(message.data), CURVE_SPACING)
        elif topic == "controller/prediction_error":
            tracks["prediction error"].add(time, float(message.data), CURVE_SPACING)
        elif topic == "controller/torque":
            tracks["torque"].add(time, float(np.abs(message.effort).max()), CURVE_SPACING)
        elif topic == "controller/version":
            tracks[topic].add(time, message.data)
        elif topic == "controller/disturbance":
            tracks["disturbance"].add(time, float(np.linalg.norm(message.effort)), CURVE_SPACING)
        elif topic == "controller/load":
            tracks[topic].add(time, (float(message.data[0]), float(message.data[1])), CURVE_SPACING)
        elif topic == "controller/contact":
            force = message.wrench.force
            tracks[topic].add(time, np.array([force.x, force.y, force.z]))
        else:
            tracks["spikes seen"].add(time, _spikes(message))

    def _take_refusal(self, time: float, status: Any) -> None:
        """The controller repeats it until another goal is accepted."""
        asked = next((each.value for each in status.values if each.key == "asked"), "")
        now = (status.message, asked) if _level(status) == 1 else ("", "")
        if now != self._asked:
            self._asked = now
            place = np.array([float(part) for part in asked.split()]) if now[0] and asked else None
            self._tracks["refusals"].add(time, (now[0], place))

    def at(self, time: float) -> Moment:
        """The moment so many seconds after the bag's first message."""
        tracks = self._tracks
        states = tracks["states"]
        now = max(bisect_right(states.times, time) - 1, 0)
        begin = bisect_right(states.times, time - TRAIL)
        state, reason = tracks["controller/status"].at(time) or ("", "")
        health = {entry.name: entry for heard, entry in self._health if heard <= time}
        future = tracks["controller/imagination"].at(time)
        lately_refused = tracks["refusals"].lately(time, REFUSAL_SHOWN)
        return Moment(
            time=time,
            joint_position=states.entries[now],
            goal=tracks["controller/goal"].at(time),
            refusal=(tracks["refusals"].at(time) or ("", None))[0],
            refused=None if lately_refused is None else lately_refused[1],
            trail=self._hands[begin : now + 1 : 3],
            future=np.zeros((0, 3)) if future is None else future,
            future_position=tracks["controller/imagined_state"].at(time),
            state=state,
            reason=reason,
            version=tracks["controller/version"].at(time) or "",
            disturbance=tracks["disturbance"].at(time),
            load=tracks["controller/load"].at(time),
            contact=tracks["controller/contact"].lately(time, CONTACT_SHOWN),
            health=tuple(health.values()),
        )

    def curves(self, time: float) -> Curves:
        """What the curves show at that moment."""
        begin = max(time - SHOWN, 0.0)
        grid = np.arange(begin, time + CURVE_SPACING / 2, SHOWN / 100.0)
        values = {name: np.full(grid.size, np.nan) for name in CURVES}
        for name in ("distance", "prediction error", "torque", "disturbance"):
            found = [self._tracks[name].at(moment) for moment in grid]
            values[name] = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
        for index, moment in enumerate(grid):
            heard = self._tracks["spikes seen"].between(moment - 0.5, moment)
            if heard:
                values["spikes"][index] = sum(int(layer.sum()) for spikes in heard for layer in spikes.values()) / 0.5
        return Curves(grid, values)

    def spikes(self, time: float, steps: int) -> list[Mapping[str, np.ndarray]]:
        """The spikes of the latest control steps by then, oldest first, [ticks, neurons] by layer."""
        track = self._tracks["spikes seen"]
        return track.entries[: bisect_right(track.times, time)][-steps:]


def _level(status: Any) -> int:
    level = status.level
    return level[0] if isinstance(level, bytes) else int(level)


def _spikes(message: Any) -> dict[str, np.ndarray]:
    """As `nodes.common.messages.spikes_from_message`, of a message that was read without ROS."""
    data, start, found = np.asarray(message.data, dtype=np.uint8), int(message.layout.data_offset), {}
    for layer in message.layout.dim[1:]:
        found[layer.label] = data[start : start + layer.stride].reshape(-1, layer.size)
        start += layer.stride
    return found
