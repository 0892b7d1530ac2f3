"""Decodes serialised messages about an arm and tells a listener what they say: those of a bag or of a running graph.

Both go through here, so that both mean the same.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import ArrayLike
from rosbags.typesys import Stores, get_typestore

from spiking_controller.units import NANOSECONDS

JOINT_STATE = "sensor_msgs/msg/JointState"
POINT = "geometry_msgs/msg/PointStamped"
POSE = "geometry_msgs/msg/PoseStamped"

# Topics of the controller, beside the joint states.
TORQUE = "controller/torque"
DISTURBANCE = "controller/disturbance"
PREDICTION = "controller/prediction"
PREDICTION_ERROR = "controller/prediction_error"
ACCEPTED_GOAL = "controller/goal"

_TYPES = get_typestore(Stores.ROS2_JAZZY)


class DamagedMessageError(ValueError):
    """Bytes that are no message of their type; the text goes on after "a message on ... is"."""


def decoded(kind: str, data: bytes) -> Any:
    """The message in CDR bytes.

    Args:
        kind: its type, such as "sensor_msgs/msg/JointState".
        data: as serialised.
    Raises:
        DamagedMessageError: it is none of that type.
    """
    try:
        return _TYPES.deserialize_cdr(data, kind)
    except Exception as error:  # the library raises whatever the bytes make it stumble over
        raise DamagedMessageError(f"no {kind} ({error})") from error


class Listener(Protocol):
    """Who is told; see `step_stream.StepStream`."""

    def add_joint_state(
        self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike, effort: ArrayLike
    ) -> None:
        """A joint state."""

    def add_torque(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """A commanded torque."""

    def add_disturbance(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """What the controller has taken off its torques."""

    def add_goal(self, time: int, point: ArrayLike, frame: str, accepted: bool) -> None:
        """A goal."""

    def add_prediction(self, time: int) -> None:
        """Stamp of a prediction."""

    def add_prediction_error(self, error: float) -> None:
        """A published error."""


class ArmTopics(NamedTuple):
    """What is on which topic.

    Attributes:
        joint_states: the arm's.
        torque: commanded torques; None: the efforts of the joint states are the torques.
        disturbance: what the controller has taken off them; None where it does not tell.
        goals: of PointStamped or PoseStamped.
        predictions, prediction_errors: of the controller; None where there are none.
    """

    joint_states: str
    torque: str | None
    disturbance: str | None
    goals: tuple[str, ...]
    predictions: str | None
    prediction_errors: str | None

    @property
    def all(self) -> set[str]:
        """Their names."""
        every = (
            self.joint_states,
            self.torque,
            self.disturbance,
            *self.goals,
            self.predictions,
            self.prediction_errors,
        )
        return {topic for topic in every if topic is not None}


class MessageFeed:
    """Takes messages as bytes and tells the listener.

    Attributes:
        messages: so far, by topic.
        unstamped: messages without a stamp, for which the time of receipt stood in, by topic.
    """

    def __init__(self, topics: ArmTopics, has_effort: bool, listener: Listener) -> None:
        """Tell a listener.

        Args:
            topics: what is on which.
            has_effort: efforts of the joint states mean something.
            listener: is told.
        """
        self.messages: Counter[str] = Counter()
        self.unstamped: Counter[str] = Counter()
        self._topics = topics
        self._has_effort = has_effort
        self._listener = listener

    def add(self, topic: str, kind: str, data: bytes, received: int) -> None:
        """A message.

        Args:
            topic: one of the topics.
            kind: its type, such as "sensor_msgs/msg/JointState".
            data: as serialised.
            received: when it was, ns.
        Raises:
            DamagedMessageError: it cannot be decoded.
        """
        message = decoded(kind, data)
        self.messages[topic] += 1
        topics, listener = self._topics, self._listener
        if topic == topics.prediction_errors:
            listener.add_prediction_error(float(message.data))
            return
        stamp = stamp_of(message)
        if not stamp and received > NANOSECONDS:  # at the start of simulated time zero is a stamp
            self.unstamped[topic] += 1
            stamp = received
        if topic == topics.joint_states:
            effort = message.effort if self._has_effort else ()
            listener.add_joint_state(stamp, message.name, message.position, message.velocity, effort)
        elif topic == topics.torque:
            listener.add_torque(stamp, message.name, message.effort)
        elif topic == topics.disturbance:
            listener.add_disturbance(stamp, message.name, message.effort)
        elif topic == topics.predictions:
            listener.add_prediction(stamp)
        else:
            point = message.point if kind == POINT else message.pose.position
            accepted = topic.endswith(ACCEPTED_GOAL)
            listener.add_goal(stamp, (point.x, point.y, point.z), message.header.frame_id, accepted)


def stamp_of(message: Any) -> int:
    """Stamp of a decoded message, ns."""
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)
