"""Turns messages of joint states, torques and goals into control steps in order of their stamps.

Topics overtake each other, in a running graph as in a bag. So what happens is ordered by stamps, `LAG` behind the
newest joint state: the same messages give the same control steps, whatever the order in which the topics came.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.arm_state import ArmSample, ArmStateReader, Rejection
from spiking_controller.control.goals import GoalChecker
from spiking_controller.control.state_check import CONTRADICTION, Doubt, StateCheck
from spiking_controller.errors import GoalError
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.streams.control_steps import ControlStepBuilder, Outcome
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

LAG = NANOSECONDS // 5
"""How far a topic may be behind the joint states, ns."""


@dataclass(frozen=True)
class StreamSettings:
    """What the messages mean.

    Attributes:
        joint_names: as the driver calls the arm's joints, from base to hand; by default the arm's own names.
        measured_torque: the torques that acted are the efforts of the joint states; otherwise they come over
            `add_torque`, as commanded.
        includes_gravity: these torques carry the arm's weight. Where the networks' torques do not, or the other way
            round, it is taken out or added, with the robot model.
        longest_gap: joint states farther apart do not continue each other, s.
    """

    joint_names: tuple[str, ...] = ()
    measured_torque: bool = False
    includes_gravity: bool = False
    longest_gap: float = 0.1


class _Goal(NamedTuple):
    time: int
    goal: FloatArray


class StepStream:
    """Takes messages as they come. What comes of them goes to `_on_goal`, `_on_sample` and `_on_jump` of a subclass.

    Attributes:
        counts: what came and was not used, by reason.
        estimated_velocities: joint states that came without velocities and were used.
        problem: why the latest joint state was of no use, a sentence; empty if it was.
        implausible: what the joint states show that cannot be true (see `control.state_check`), the first sentence of
            each kind. Such states are used all the same.
    """

    def __init__(self, task: ReachTask, settings: StreamSettings) -> None:
        """Read the arm of a task.

        Args:
            task: of the networks.
            settings: what the messages mean.
        Raises:
            ConfigError: wrong joint names.
        """
        self.task = task
        self.counts: Counter[str] = Counter()
        self.estimated_velocities = 0
        self.problem = ""
        self.implausible: dict[str, str] = {}
        self._stream_settings = settings
        self._reader = ArmStateReader(
            settings.joint_names or task.arm.joint_names, task.arm.limits, settings.longest_gap
        )
        self._check = StateCheck(
            self._reader.joint_names, task.arm.limits, ArmDynamics(task.arm), np.asarray(task.arm.home)
        )
        self._builder = ControlStepBuilder(task, settings.measured_torque, settings.includes_gravity)
        self._torque_places = lru_cache(maxsize=8)(self._find_places)
        self._pending: deque[ArmSample] = deque()
        self._waiting_goals: list[_Goal] = []
        self._newest: int | None = None

    def _on_goal(self, goal: FloatArray) -> None:
        """Another goal from the next joint state on, m, [d]."""

    def _on_sample(self, sample: ArmSample, outcome: Outcome) -> None:
        """The next joint state, and the control steps that it completes."""

    def _on_jump(self) -> None:
        """Time jumped back: stamps of the past mean nothing any more. What came before is processed."""
        self.counts["jump back in time"] += 1
        self._builder.restart()
        self._waiting_goals = [_Goal(0, goal.goal) for goal in self._waiting_goals]

    def add_joint_state(
        self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike = (), effort: ArrayLike = ()
    ) -> None:
        """A joint state; arguments as of `ArmStateReader.read`, efforts (N·m) like velocities.

        What cannot be used is counted.
        """
        estimated = self._reader.estimated_velocities
        sample = self._reader.read(time, names, position, velocity)
        if isinstance(sample, Rejection):
            self.problem = sample.sentence
            return
        self.problem = ""
        if not sample.continues:
            self._process_until(None)
            if self._newest is not None and sample.time <= self._newest:
                self._on_jump()
        self._note_implausible(sample)
        self.estimated_velocities += self._reader.estimated_velocities - estimated
        self._newest = sample.time
        self._pending.append(sample)
        if self._stream_settings.measured_torque:
            self._add_torque(time, names, effort, "effort")
        self._process_until(sample.time - LAG)

    def _note_implausible(self, sample: ArmSample) -> None:
        found = self._check.examine(sample)
        if isinstance(found, Doubt):
            self.implausible.setdefault(found.fault.kind, found.fault.sentence)
        elif self._check.contradiction:
            self.implausible.setdefault(CONTRADICTION, self._check.contradiction)

    def add_torque(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """A commanded torque, N·m, one per name, with the stamp (ns) of the joint state that it answers."""
        if not self._stream_settings.measured_torque:
            self._add_torque(time, names, torque, "torque")

    def _add_torque(self, time: int, names: Sequence[str], torque: ArrayLike, kind: str) -> None:
        values = np.asarray(torque, dtype=np.float64)
        if values.shape != (len(names),):
            self.counts[f"{kind} without one number per joint"] += 1
            return
        index = self._torque_places(tuple(names))
        if index is None:
            self.counts[f"{kind} that lacks joints of the arm"] += 1
            return
        self._builder.add_torque(time, values[index])

    def add_disturbance(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """What the controller has taken off its torques, N·m, one per name; see `ControlStepBuilder`."""
        joints = self.task.controlled_joints
        values = np.asarray(torque, dtype=np.float64)
        wanted = self._reader.joint_names[:joints]
        if values.shape != (len(names),) or not set(wanted) <= set(names):
            self.counts["disturbance that lacks joints of the arm"] += 1
            return
        self._builder.add_disturbance(time, values[[list(names).index(name) for name in wanted]])

    def _find_places(self, names: tuple[str, ...]) -> list[int] | None:
        """Where the arm's joints stand among the names; None where one is missing."""
        wanted = self._reader.joint_names
        return [names.index(name) for name in wanted] if set(wanted) <= set(names) else None

    def add_goal(self, time: int, point: ArrayLike, frame: str = "", accepted: bool = True) -> None:
        """A goal; one that cannot be used is counted.

        Args:
            time: its stamp, ns; 0, or one far from the joint states' time: from now on.
            point: m, [3].
            frame: of the point, with or without a prefix; empty stands for the arm's base frame.
            accepted: by the controller. Others are checked as it would check them.
        """
        if frame.rpartition("/")[2] not in ("", self.task.arm.base_frame):
            self.counts[f"goal in the frame {frame}"] += 1
            return
        goal = np.asarray(point, dtype=np.float64)[: self.task.goal_dimensions]
        if not np.isfinite(goal).all():
            self.counts["goal that is not finite"] += 1
            return
        if not accepted:
            try:
                self._goal_checker.check(point)
            except GoalError:
                self.counts["goal that the controller would refuse"] += 1
                return
        now = self._newest or 0
        if not time or abs(time - now) > NANOSECONDS:
            time = now
        self._waiting_goals.append(_Goal(time, goal))

    @cached_property
    def _goal_checker(self) -> GoalChecker:
        return GoalChecker(self.task)

    def add_prediction(self, time: int) -> None:
        """The stamp of a prediction that the controller published, ns: when it expected its next control step."""
        self._builder.report_step(time - round(self.task.control_period * NANOSECONDS))

    def add_prediction_error(self, error: float) -> None:
        """What the controller published as its forward model's error, rad; not part of the control steps."""

    def _process_until(self, time: int | None) -> None:
        """Everything up to a time, ns; None: all."""
        while self._pending and (time is None or self._pending[0].time <= time):
            self._process(self._pending.popleft())

    def _process(self, sample: ArmSample) -> None:
        for waiting in [goal for goal in self._waiting_goals if goal.time < sample.time]:
            self._waiting_goals.remove(waiting)
            self._on_goal(waiting.goal)
        self._on_sample(sample, self._builder.add(sample))

    def finish(self) -> None:
        """The stream is over: take what is still waiting."""
        self._process_until(None)

    @property
    def waiting_goals(self) -> list[FloatArray]:
        """Goals, m, [d] each, that no joint state has come for yet."""
        return [waiting.goal for waiting in self._waiting_goals]

    @property
    def dropped(self) -> Counter[str]:
        """What was not used, by reason: messages, and control steps."""
        return (
            self.counts
            + self._builder.dropped
            + Counter({f"joint state: {reason}": count for reason, count in self._reader.rejections.items()})
        )
