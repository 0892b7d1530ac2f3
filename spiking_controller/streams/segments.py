"""Rebuilds what the networks saw and did from what the graph publishes, for learning while the arm works.

The controller's predictions say when its control steps were, joint states say what it saw, its torques what it did.
The three come over separate topics, in any order, and some get lost. What is not whole is dropped and counted.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Segment
from spiking_controller.tasks.torque import TorqueLaw
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

PERIOD_TOLERANCE = 0.25
"""Control steps may lie apart by this share more or less than the control period, with drivers that jitter."""
LONGEST_BUFFER = 5000
"""So many joint states and torques wait for their control step, at most."""


class _Step(NamedTuple):
    observation: NDArray[np.float32]
    action: NDArray[np.float32]


class SegmentBuilder:
    """Cuts the stream into segments of equal length, each on the way to one goal.

    The action of a control step is recovered by inverting the torque law on the last torque before the next step,
    when the torque rate limit has let it through:

        u = clip((torque + damping * q̇) / torque_scale, -1, 1)

    where torque and q̇ have the same stamp. Where the safety filter held the torque back, u is what was carried out.

    Attributes:
        segments: how many were completed.
        dropped: segments that were broken off, by reason.
    """

    def __init__(self, task: ReachTask, steps: int) -> None:
        """Cut segments of `steps` control steps of the task's arm."""
        self.segments = 0
        self.dropped: Counter[str] = Counter()
        self._task = task
        self._length = steps
        self._codec = ObservationCodec(task)
        self._law = TorqueLaw(task)
        self._period = round(task.control_period * NANOSECONDS)
        self._states: dict[int, ArmSample] = {}
        self._torques: dict[int, FloatArray] = {}
        # The last two control steps wait: their torques may still be on the way.
        self._waiting: list[int] = []
        self._steps: list[_Step] = []
        self._goal: NDArray[np.float32] | None = None

    def add_state(self, sample: ArmSample) -> None:
        """A joint state."""
        if self._states and sample.time < next(reversed(self._states)):
            self._start_anew("time jumped back")
        self._states[sample.time] = sample
        self._bound(self._states)

    def add_torque(self, time: int, torque: ArrayLike) -> None:
        """A torque as it was sent, [n], N·m, with the stamp (ns) of the joint state that it answers."""
        values = np.asarray(torque, dtype=np.float64)
        if values.shape != (len(self._task.arm.joint_names),) or not np.isfinite(values).all():
            self._break_off("unusable torque")
            return
        self._torques[time] = values
        self._bound(self._torques)

    def add_goal(self, goal: ArrayLike) -> None:
        """Another goal from now on, [d], m; a segment under way to the last one ends unfinished."""
        self._break_off("goal changed")
        self._goal = np.array(goal, dtype=np.float32)

    def add_prediction(self, predicted_time: int) -> Segment | None:
        """A prediction's stamp, ns: one control period after the control step that made it.

        Returns:
            A segment, if this completes one.
        """
        time = predicted_time - self._period
        if self._waiting:
            interval = time - self._waiting[-1]
            if interval == 0:
                return None
            if interval < 0:
                self._start_anew("time jumped back")
            elif abs(interval - self._period) > PERIOD_TOLERANCE * self._period:
                self._waiting.clear()
                self._break_off("missing control step")
        self._waiting.append(time)
        if len(self._waiting) < 3:
            return None
        start, end = self._waiting[:2]
        del self._waiting[0]
        return self._finish_step(start, end)

    def _finish_step(self, start: int, end: int) -> Segment | None:
        """The control step from `start` to `end` is over and all of it that will come has come."""
        state = self._states.get(start)
        answered = [time for time in self._torques if start <= time < end and time in self._states]
        if state is None:
            self._break_off("missing joint state")
        elif not answered:
            self._break_off("missing torque")
        elif self._goal is not None:
            hand = self._task.arm.chain.position(state.joint_position)
            observation = self._codec.encode(state.joint_position, state.joint_velocity, hand)
            self._steps.append(_Step(observation.astype(np.float32), self._action(max(answered))))
        for buffer in (self._states, self._torques):
            for time in [time for time in buffer if time < end]:
                del buffer[time]
        return self._take_segment()

    def _action(self, time: int) -> NDArray[np.float32]:
        """What the torque with that stamp amounts to, [m]."""
        return self._law.action(self._torques[time], self._states[time].joint_velocity).astype(np.float32)

    def _take_segment(self) -> Segment | None:
        # One step more at either end: the action before the first step, the observation after the last.
        if len(self._steps) < self._length + 2:
            return None
        assert self._goal is not None
        observation = np.stack([step.observation for step in self._steps[1:]])
        action = np.stack([step.action for step in self._steps[:-1]])
        # The next segment begins where this one ends.
        del self._steps[: self._length]
        self.segments += 1
        return Segment(observation, action[1:], action[0], self._goal)

    def _break_off(self, reason: str) -> None:
        """Drop the segment under way, if there is one."""
        if self._steps:
            self.dropped[reason] += 1
            self._steps.clear()

    def _start_anew(self, reason: str) -> None:
        self._break_off(reason)
        self._states.clear()
        self._torques.clear()
        self._waiting.clear()

    def _bound(self, buffer: dict[int, ArmSample] | dict[int, FloatArray]) -> None:
        while len(buffer) > LONGEST_BUFFER:
            del buffer[next(iter(buffer))]
