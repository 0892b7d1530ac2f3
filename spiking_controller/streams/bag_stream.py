"""Finds one arm's topics in any bag and streams their messages to a listener."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import Arm, get_arm, shipped_arms
from spiking_controller.robots.gravity import GravityModel
from spiking_controller.streams.bag_reader import read, unreadable_topics
from spiking_controller.streams.message_feed import (
    ACCEPTED_GOAL,
    DISTURBANCE,
    JOINT_STATE,
    POINT,
    POSE,
    PREDICTION,
    PREDICTION_ERROR,
    TORQUE,
    ArmTopics,
    DamagedMessageError,
    Listener,
    MessageFeed,
    decoded,
    stamp_of,
)
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]
Effort = Literal["auto", "with-gravity", "without-gravity"]

NUMBER = "std_msgs/msg/Float64"

_PEEKED = 200
"""So many first messages of a topic tell what it holds."""
_SLICES, _PER_SLICE = 20, 50
"""Gravity is looked for in so many places of the bag, in so many joint states each."""
_NOT_MEASURED = re.compile(
    "(?<![a-z])(desired|commands?|commanded|cmd|targets?|references?|set_?points?|goals?|predict(ed|ions?))(?![a-z])"
)
"""Words in the name of a topic that say where joints shall or will be, not where they are."""
_AS_FAST = 0.9
"""A topic with this share of the fastest one's rate is as fast."""
_SLOW = 0.1
"""A joint slower than this hardly needs torque to accelerate, rad/s."""
_WEIGHT_FRACTION = 0.5
"""From this share of the arm's weight on, efforts include it."""


@dataclass(frozen=True)
class StreamOptions:
    """What a user says about a bag instead of having it guessed.

    Attributes:
        joint_states, torque, goal: names of topics.
        joint_names: as the driver calls the arm's joints.
        effort: whether torques include gravity.
    """

    joint_states: str | None = None
    torque: str | None = None
    goal: str | None = None
    joint_names: tuple[str, ...] = ()
    effort: Effort = "auto"


@dataclass
class BagStream:
    """What a bag holds about an arm.

    Attributes:
        topics: what is on which.
        joint_names: of the arm, as the bag calls them.
        has_effort: joint states come with efforts.
        includes_gravity: the torques carry the arm's weight.
        period: median time between joint states, s; NaN where there are not two.
        notes: what was guessed or is missing, a sentence each.
        messages: read so far, by topic.
        left_out: messages of topics that are of no use here, by topic.
        unstamped: messages without a stamp, for which the time of receipt stood in, by topic.
    """

    topics: ArmTopics
    joint_names: tuple[str, ...]
    has_effort: bool
    includes_gravity: bool
    period: float
    notes: list[str] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, int] = field(default_factory=dict)
    unstamped: Counter[str] = field(default_factory=Counter)

    @property
    def measured_torque(self) -> bool:
        """The torques are the efforts of the joint states."""
        return self.topics.torque is None

    def feed(self, bag: Reader, listener: Listener) -> None:
        """Read the bag once, from its start to its end.

        Raises:
            ConfigError: the bag is damaged.
        """
        chosen = [connection for connection in bag.connections if connection.topic in self.topics.all]
        self.left_out = dict(
            sorted((c.topic, c.msgcount) for c in bag.connections if c.topic not in self.topics.all and c.msgcount)
        )
        feed = MessageFeed(self.topics, self.has_effort, listener)
        self.messages, self.unstamped = feed.messages, feed.unstamped
        for connection, received, data in read(bag, chosen):
            try:
                feed.add(connection.topic, connection.msgtype, data, received)
            except DamagedMessageError as error:
                raise _damaged(bag, connection, error) from error


def recorded_about(bag: Reader) -> dict[str, str]:
    """What the recorder of this package says of the run in metadata.yaml; empty for other bags."""
    return {str(key): str(value) for key, value in (bag.storage.metadata.custom or {}).items()}


def recorded_arm(bag: Reader) -> str | None:
    """The arm that was recorded: what the recorder of this package noted, else the shipped one whose joints are named.

    Raises:
        ConfigError: the bag is damaged.
    """
    noted = recorded_about(bag).get("arm")
    if noted:
        return noted
    held = {connection.topic for connection in _readable(bag) if connection.msgtype == JOINT_STATE}
    names = {
        name
        for topic in held
        for connection, _, data in _first(bag, topic)
        for name in _decoded(bag, connection, data).name
    }
    return next((arm for arm in shipped_arms() if names.issuperset(get_arm(arm).joint_names)), None)


def find_stream(bag: Reader, arm: Arm, options: StreamOptions | None = None) -> BagStream:
    """Find the arm in an open bag.

    Args:
        bag: from `bag_reader.opened`.
        arm: that shall be in it.
        options: what is not to be guessed.
    Raises:
        ConfigError: the bag is empty or damaged, or the arm's joints or a named topic are not in it.
    """
    options = options or StreamOptions()
    notes: list[str] = []
    topic, names, period = _find_joint_states(bag, arm, options, notes)
    readable = _readable(bag)
    namespaces = [topic[:end] for end, letter in enumerate(topic) if letter == "/"]

    def beside(name: str, *kinds: str) -> str | None:
        """A topic of the controller that belongs to those joint states: in their namespace, else in one around it."""
        held = {c.topic for c in readable if c.msgtype in kinds}
        return next((f"{space}/{name}" for space in reversed(namespaces) if f"{space}/{name}" in held), None)

    torque = options.torque or beside(TORQUE, JOINT_STATE)
    _check_topic(bag, options.torque, "--torque", JOINT_STATE)
    _check_topic(bag, options.goal, "--goal-topic", POINT, POSE)
    if torque == topic:
        torque = None
    if options.goal is not None:
        goals: tuple[str, ...] = (options.goal,)
    else:
        accepted = beside(ACCEPTED_GOAL, POINT)
        asked = (beside("goal_point", POINT), beside("goal_pose", POSE))
        goals = (accepted,) if accepted else tuple(name for name in asked if name)
    predictions = beside(PREDICTION, JOINT_STATE)
    errors = beside(PREDICTION_ERROR, NUMBER)
    efforts = _efforts(bag, topic, names) if torque is None else None
    has_effort = efforts is not None
    if torque is not None:
        notes.append(f"torques are those commanded on {torque}.")
    elif has_effort:
        notes.append(f"torques are the efforts of {topic}.")
    else:
        notes.append(
            f"{topic} has no efforts and there is no topic of torques: the forward model cannot be judged, and "
            "nothing compares the policy's torques."
        )
    if goals:
        notes.append(f"goals are those on {' and '.join(goals)}.")
    gravity = _includes_gravity(bag, arm, options.effort, torque, efforts, notes)
    taken_off = beside(DISTURBANCE, JOINT_STATE)
    if taken_off is not None:
        notes.append(f"what the controller took off the torques is on {taken_off} and is added again.")
    topics = ArmTopics(topic, torque, taken_off, goals, predictions, errors)
    return BagStream(topics, names, has_effort, gravity, period, notes)


class _JointStates(NamedTuple):
    """A topic of joint states that has all joints of an arm, with their positions.

    Attributes:
        topic: its name.
        names: of the arm's joints.
        period: median time between complete messages, s; NaN where there are not two.
    """

    topic: str
    names: tuple[str, ...]
    period: float

    @property
    def is_measured(self) -> bool:
        """Its name does not say otherwise."""
        return not _NOT_MEASURED.search(self.topic.lower())

    @property
    def rate(self) -> float:
        """Messages per second; 0 where it is not known."""
        return 0.0 if math.isnan(self.period) else 1.0 / self.period

    def __str__(self) -> str:
        rate = f"{self.rate:.0f} Hz" if self.rate else "rate unknown"
        return f"{self.topic} ({rate})" if self.is_measured else f"{self.topic} (by its name not measured, {rate})"


def _find_joint_states(bag: Reader, arm: Arm, options: StreamOptions, notes: list[str]) -> _JointStates:
    """The topic with the arm's joints, and their names there."""
    path = bag.path
    if not bag.message_count:
        raise ConfigError(f"{path} is empty: it holds no message; give a bag of an arm that was recorded.")
    readable = _readable(bag)
    unreadable = unreadable_topics(bag)
    notes += [f"not everything can be read: {reason}." for reason in unreadable.values()]
    held = sorted({c.topic for c in readable if c.msgtype == JOINT_STATE})
    if not held:
        for connection in bag.connections:
            if connection.msgtype == JOINT_STATE and connection.topic in unreadable:
                raise ConfigError(f"{path} has no joint states: {unreadable[connection.topic]}.")
        kinds = ", ".join(sorted({c.msgtype for c in readable}))
        raise ConfigError(f"{path} holds no sensor_msgs/JointState (only {kinds}); record the arm's joint_states too.")
    _check_topic(bag, options.joint_states, "--joint-states", JOINT_STATE)
    seen: dict[str, list[str]] = {}
    fitting: list[_JointStates] = []
    for topic in [options.joint_states] if options.joint_states else held:
        stamped = [(_decoded(bag, c, data), received) for c, received, data in _first(bag, topic)]
        seen[topic] = sorted({name for message, _ in stamped for name in message.name})
        for names in (options.joint_names or arm.joint_names, () if options.joint_names else _alike(seen[topic], arm)):
            complete = [
                stamp_of(message) or received
                for message, received in stamped
                if set(names) <= set(message.name) and len(message.position) == len(message.name)
            ]
            if names and complete:
                fitting.append(_JointStates(topic, tuple(names), _median_step(complete)))
                break
    if fitting:
        chosen = _best(fitting)
        if len(fitting) > 1:
            others = ", ".join(str(candidate) for candidate in fitting if candidate is not chosen)
            notes.append(
                f"joint states are those of {chosen}, rather than of {others}: measured ones come before desired ones, "
                "then the fastest, then the simplest name; --joint-states names another topic."
            )
        elif not chosen.is_measured:
            notes.append(f"joint states are those of {chosen.topic}, which by its name are not measured.")
        if chosen.names != arm.joint_names and not options.joint_names:
            notes.append(f"the arm's joints are taken to be {', '.join(chosen.names)}; --joint-names names others.")
        return chosen
    wanted = ", ".join(options.joint_names or arm.joint_names)
    found = "; ".join(f"{topic} has {', '.join(names) or 'no joint'}" for topic, names in seen.items())
    raise ConfigError(
        f"{path} has no joint states of {wanted} ({found}); name the {len(arm.joint_names)} joints, from base to hand, "
        "with --joint-names."
    )


def _best(candidates: Sequence[_JointStates]) -> _JointStates:
    """Measured before desired, then the fastest; among equally fast ones `joint_states`, then short names."""
    alike = [candidate for candidate in candidates if candidate.is_measured] or candidates
    enough = _AS_FAST * max(candidate.rate for candidate in alike)
    fast = [candidate for candidate in alike if candidate.rate >= enough]
    return min(fast, key=lambda it: (not it.topic.endswith("joint_states"), len(it.topic), it.topic))


def _median_step(times: Sequence[int]) -> float:
    """Median of the steps forward between times (ns), s; NaN where there is none."""
    steps = np.diff(times)
    return float(np.median(steps[steps > 0])) / NANOSECONDS if (steps > 0).any() else math.nan


def _readable(bag: Reader) -> list[Connection]:
    """Those with messages."""
    unreadable = unreadable_topics(bag)
    return [connection for connection in bag.connections if connection.msgcount and connection.topic not in unreadable]


def _alike(names: Sequence[str], arm: Arm) -> tuple[str, ...]:
    """The names of as many joints as the arm has, where they are one numbered row; empty where they are not."""
    rows: dict[str, dict[int, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.*joint_?)(\d+)", name)
        if match:
            rows.setdefault(match[1], {})[int(match[2])] = name
    count = len(arm.joint_names)
    complete = [row for row in rows.values() if sorted(row) == list(range(1, count + 1))]
    return tuple(complete[0][number] for number in range(1, count + 1)) if len(complete) == 1 else ()


def _check_topic(bag: Reader, topic: str | None, option: str, *kinds: str) -> None:
    if topic is None:
        return
    reason = unreadable_topics(bag).get(topic)
    if reason is not None:
        raise ConfigError(f"{option} {topic} cannot be used: {reason}.")
    fitting = sorted({c.topic for c in bag.connections if c.msgtype in kinds})
    if topic not in fitting:
        raise ConfigError(
            f"{option} {topic} is no topic of {' or '.join(kinds)} in {bag.path}; it has "
            f"{', '.join(fitting) or 'none of them'}."
        )


def _first(bag: Reader, topic: str) -> Iterator[tuple[Connection, int, bytes]]:
    """The first messages of a topic."""
    messages = read(bag, [connection for connection in bag.connections if connection.topic == topic])
    for _, message in zip(range(_PEEKED), messages, strict=False):
        yield message


class _Efforts(NamedTuple):
    """Of slow or, where there are few of them, all joint states: angles, rad, and efforts, N·m, [samples, n]."""

    position: FloatArray
    effort: FloatArray


def _efforts(bag: Reader, topic: str, names: Sequence[str]) -> _Efforts | None:
    """Efforts all over the bag; None where there are none, or nothing but zeros."""
    connections = [connection for connection in bag.connections if connection.topic == topic]
    rows: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    edges = np.linspace(bag.start_time, bag.end_time, _SLICES + 1).astype(np.int64)
    for start, stop in pairwise(edges.tolist()):
        slice_messages = read(bag, connections, start, stop)
        for _, (connection, _, data) in zip(range(_PER_SLICE), slice_messages, strict=False):
            message = _decoded(bag, connection, data)
            count = len(message.name)
            if not set(names) <= set(message.name) or len(message.effort) != count or len(message.position) != count:
                continue
            index = [list(message.name).index(name) for name in names]
            velocity = message.velocity if len(message.velocity) == count else np.zeros(count)
            row = message.position[index], message.effort[index], velocity[index]
            if np.isfinite(row).all():
                rows.append(row)
    if not rows:
        return None
    position, effort, velocity = (np.array(values) for values in zip(*rows, strict=True))
    if not effort.any():
        return None
    slow = (np.abs(velocity) < _SLOW).all(axis=-1)
    chosen = slow if slow.sum() >= _PER_SLICE else np.ones(len(position), dtype=bool)
    return _Efforts(position[chosen], effort[chosen])


def _includes_gravity(
    bag: Reader, arm: Arm, effort: Effort, torque: str | None, efforts: _Efforts | None, notes: list[str]
) -> bool:
    """Whether the torques carry the arm's weight: as declared, as the recorder says, or as the efforts look."""
    if effort != "auto":
        return effort == "with-gravity"
    compensated = recorded_about(bag).get("gravity_compensation")
    if compensated is not None:
        return compensated != "true"
    if torque is not None or efforts is None:
        return False
    model = GravityModel(arm)
    weight = np.array([model.torque(position) for position in efforts.position])
    size = float(np.square(weight).sum())
    if size < 1e-9:
        return False
    fraction = float((efforts.effort * weight).sum() / size)
    includes = fraction > _WEIGHT_FRACTION
    notes.append(
        f"the efforts {'include' if includes else 'do not include'} the arm's weight (they show {fraction:.2f} of it); "
        "--effort says it otherwise."
    )
    return includes


def _decoded(bag: Reader, connection: Connection, data: bytes) -> Any:
    """A message."""
    try:
        return decoded(connection.msgtype, data)
    except DamagedMessageError as error:
        raise _damaged(bag, connection, error) from error


def _damaged(bag: Reader, connection: Connection, error: DamagedMessageError) -> ConfigError:
    return ConfigError(f"{bag.path}: a message on {connection.topic} is {error}; record it again.")
