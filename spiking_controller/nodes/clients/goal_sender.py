"""Sends a list of goals to a running graph, one after the other, and records what the graph answers.

Time is what the joint states are stamped with, so that slow, quick and lock-step simulations give the same recording.
"""

import time
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import PointStamped, PoseStamped
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray

from spiking_controller.errors import GoalError
from spiking_controller.evaluation.demo.recording import Recording
from spiking_controller.nodes.common import messages
from spiking_controller.units import NANOSECONDS

RECORD = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Deep enough that messages at 500 Hz wait, instead of being dropped, while this process is not scheduled."""
ASK_AGAIN = 0.5
"""Between two questions for the controller's state, s."""
REPEAT_AFTER = 0.2
"""A goal that the controller has not accepted is sent again after this stamped time, s."""
SAME_GOAL = 1e-9
"""A goal that comes back from the controller closer than this is the one that was sent, m."""


class GoalSender(Node):
    """Waits for the controller, then holds each goal for the same stamped time while it records.

    Whoever spins this node calls `ask_state` until `controller_is_active`, then `start`, and goes on until `finished`.
    """

    def __init__(
        self, goals: NDArray[np.float64], frame: str, duration: float, rest: float, controller: str = "controller"
    ) -> None:
        """Join the graph; nothing is sent before `start`.

        Args:
            goals: m in `frame`, [goals, 3].
            frame: the frame_id of the goals.
            duration: stamped time for which each goal is held, s.
            rest: stamped time between `start` and the first goal, s.
            controller: name of the controller node.
        """
        super().__init__("goal_sender")
        self.goals = np.asarray(goals, dtype=np.float64)
        self._frame = frame
        self._duration = duration
        self._rest = rest
        self._controller = controller
        self._is_started = False
        self._next_time = np.inf
        self._published = -np.inf
        self._accepted = np.zeros(len(self.goals), dtype=bool)
        self._goal_time: list[float] = []
        self._joint_names: tuple[str, ...] = ()
        self._joint_time: list[float] = []
        self._joint_position: list[Sequence[float]] = []
        self._hand_time: list[float] = []
        self._hand_position: list[tuple[float, float, float]] = []
        self._spike_time: list[float] = []
        self._spikes: list[dict[str, NDArray[np.uint8]]] = []
        self._controller_state: int = State.PRIMARY_STATE_UNKNOWN
        self._state_answer: Future | None = None
        self._asked_at = -np.inf
        self._state_client = self.create_client(GetState, f"{controller}/get_state")
        self._publisher = self.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self.create_subscription(JointState, "joint_states", self._on_joint_states, RECORD)
        self.create_subscription(PoseStamped, "hand_pose", self._on_hand_pose, RECORD)
        self.create_subscription(UInt8MultiArray, f"{controller}/spikes", self._on_spikes, RECORD)
        self.create_subscription(PointStamped, f"{controller}/goal", self._on_goal, messages.LATCHED)

    @property
    def time(self) -> float | None:
        """Stamp of the latest joint state, s; None before the first."""
        return self._joint_time[-1] if self._joint_time else None

    @property
    def goals_sent(self) -> int:
        """How many goals have been sent so far."""
        return len(self._goal_time)

    @property
    def finished(self) -> bool:
        """Whether the last goal has been held for its whole time."""
        return self.goals_sent == len(self.goals) and self._joint_time[-1] >= self._next_time

    def ask_state(self) -> None:
        """Ask the controller for its lifecycle state, at most once in `ASK_AGAIN`.

        An answer can be lost: a service may be ready before it knows where to answer to.
        """
        now = time.monotonic()
        if not self._state_client.service_is_ready() or now - self._asked_at < ASK_AGAIN:
            return
        if self._state_answer is not None:
            self._state_client.remove_pending_request(self._state_answer)
        self._state_answer = self._state_client.call_async(GetState.Request())
        self._state_answer.add_done_callback(self._on_state)
        self._asked_at = now

    def _on_state(self, answer: Future) -> None:
        self._controller_state = answer.result().current_state.id

    @property
    def controller_is_active(self) -> bool:
        """Whether the controller said so and listens for goals, and joint states and hand poses arrive."""
        return (
            self._controller_state == State.PRIMARY_STATE_ACTIVE
            and self._publisher.get_subscription_count() > 0
            and bool(self._joint_time)
            and bool(self._hand_time)
        )

    @property
    def missing(self) -> str:
        """What `controller_is_active` still waits for, as the end of a sentence."""
        if not self._joint_time:
            return "no joint_states arrive"
        if not self._hand_time:
            return "no hand_pose arrives"
        if not self._state_client.service_is_ready():
            return f"no node '{self._controller}' answers"
        return f"the node '{self._controller}' is not active"

    def start(self) -> None:
        """Begin with the goals after the rest time; what was recorded so far is forgotten."""
        assert self.time is not None, "joint states must arrive before the start"
        self._next_time = self.time + self._rest
        self._is_started = True
        for values in (self._joint_time, self._joint_position, self._hand_time, self._hand_position):
            del values[:-1]
        self._spike_time.clear()
        self._spikes.clear()

    def recording(self) -> Recording:
        """Everything since `start`.

        Raises:
            GoalError: the controller refused a goal that was sent.
        """
        refused = np.flatnonzero(~self._accepted[: self.goals_sent])
        if refused.size:
            goal = np.array2string(self.goals[refused[0]], precision=3)
            raise GoalError(
                f"the controller did not accept goal {refused[0] + 1} at {goal} m in '{self._frame}'; its log says why."
            )
        return Recording(
            joint_names=self._joint_names,
            joint_time=np.array(self._joint_time),
            joint_position=np.array(self._joint_position),
            hand_time=np.array(self._hand_time),
            hand_position=np.array(self._hand_position),
            goal_time=np.array(self._goal_time),
            goal=self.goals[: self.goals_sent],
            goal_duration=self._duration,
            spike_time=np.array(self._spike_time),
            spikes={name: np.stack([step[name] for step in self._spikes]) for name in self._layers()},
        )

    def distance(self) -> float | None:
        """Distance of the hand from the goal that was sent last, m; None before the first."""
        if not self._goal_time:
            return None
        return float(np.linalg.norm(self._hand_position[-1] - self.goals[self.goals_sent - 1]))

    def _layers(self) -> list[str]:
        return list(self._spikes[0]) if self._spikes else []

    def _on_joint_states(self, message: JointState) -> None:
        time = _seconds(message)
        if not self._joint_names:
            self._joint_names = tuple(message.name)
        self._joint_time.append(time)
        self._joint_position.append(message.position)
        if not self._is_started:
            return
        if self.goals_sent < len(self.goals) and time >= self._next_time:
            self._goal_time.append(time)
            self._next_time = time + self._duration
            self._publish_goal(time)
        elif self.goals_sent and not self._accepted[self.goals_sent - 1] and time - self._published > REPEAT_AFTER:
            self._publish_goal(time)

    def _publish_goal(self, time: float) -> None:
        """Send the present goal; again if it was lost on the way, since discovery may be one-sided for a moment."""
        goal = PointStamped()
        messages.set_stamp(goal.header.stamp, round(time * NANOSECONDS))
        goal.header.frame_id = self._frame
        goal.point.x, goal.point.y, goal.point.z = map(float, self.goals[self.goals_sent - 1])
        self._publisher.publish(goal)
        self._published = time

    def _on_hand_pose(self, message: PoseStamped) -> None:
        self._hand_time.append(_seconds(message))
        place = message.pose.position
        self._hand_position.append((place.x, place.y, place.z))

    def _on_spikes(self, message: UInt8MultiArray) -> None:
        # The message has no stamp; it follows the joint state that made the control step due.
        if self._joint_time:
            self._spike_time.append(self._joint_time[-1])
            self._spikes.append(messages.spikes_from_message(message))

    def _on_goal(self, message: PointStamped) -> None:
        accepted = (message.point.x, message.point.y, message.point.z)
        sent = self.goals[: self.goals_sent]
        self._accepted[: self.goals_sent] |= np.linalg.norm(sent - accepted, axis=-1) < SAME_GOAL


def _seconds(message: JointState | PoseStamped) -> float:
    return messages.stamp_to_time(message.header.stamp) / NANOSECONDS
