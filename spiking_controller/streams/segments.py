"""Cuts control steps into training segments; live ones are rebuilt from what the graph publishes.

The controller's predictions say when its control steps were, joint states say what it saw, its torques what it did.
The three come over separate topics, in any order, and some get lost. What is not whole is dropped and counted.
"""

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.streams.control_steps import PERIOD_TOLERANCE, ControlStep, ControlStepBuilder
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Segment
from spiking_controller.tasks.torque import TorqueLaw
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

LONGEST_BUFFER = 5000
"""At most so many joint states and torques wait for their control step."""


class SegmentCutter:
    """Cuts consecutive control steps into segments of equal length, each beginning where the last one ended.

    The action of a control step is recovered by inverting the torque law on the torque that acted at its end, when the
    torque rate limit has let it through:

        u = clip((torque + damping * q̇) / torque_scale, -1, 1)

    where torque and q̇ have the same stamp. Where the safety filter held the torque back, u is what was carried out.
    """

    def __init__(self, task: ReachTask, length: int, *, needs_previous: bool) -> None:
        """Cut segments of `length` control steps.

        Args:
            task: of the networks.
            length: control steps per segment.
            needs_previous: the first step of a stretch only gives the action before the first segment; otherwise that
                action counts as zero.
        """
        self._length = length
        self._needs_previous = needs_previous
        self._law = TorqueLaw(task)
        self._steps: list[ControlStep] = []
        self._before: ControlStep | None = None

    def add(self, step: ControlStep, goal: NDArray[np.floating]) -> Segment | None:
        """The next control step, with a torque; a segment on the way to the goal (m, [d]) if this completes one."""
        if self._before is None and self._needs_previous:
            self._before = step
            return None
        self._steps.append(step)
        if len(self._steps) < self._length:
            return None
        observation = np.array([*(each.observation for each in self._steps), step.following])
        action = np.array([self._action(each) for each in self._steps])
        previous = np.zeros_like(action[0]) if self._before is None else self._action(self._before)
        self._before = step
        self._steps.clear()
        return Segment(*(np.asarray(part).astype(np.float32) for part in (observation, action, previous, goal)))

    def break_off(self) -> int:
        """Forget the steps of the segment under way; returns how many."""
        unused = len(self._steps)
        self._steps.clear()
        self._before = None
        return unused

    def _action(self, step: ControlStep) -> FloatArray:
        assert step.torque is not None
        return self._law.action(step.torque, step.velocity)


class SegmentBuilder:
    """Turns the controller's own control steps into segments of equal length, each on the way to one goal.

    A control step is built by `ControlStepBuilder`, as from a bag, from joint states that the controller stepped on.

    Attributes:
        segments: how many were completed.
        dropped: segments that were broken off, by reason.
    """

    def __init__(self, task: ReachTask, steps: int) -> None:
        """Cut segments of `steps` control steps of the task's arm."""
        self.segments = 0
        self.dropped: Counter[str] = Counter()
        self._task = task
        self._period = round(task.control_period * NANOSECONDS)
        self._states: dict[int, ArmSample] = {}
        self._torques: dict[int, FloatArray] = {}
        self._disturbances: dict[int, FloatArray] = {}
        # The last two control steps wait: their torques may still be on the way.
        self._waiting: list[int] = []
        includes_gravity = task.gravity_convention == "raw"
        self._builder = ControlStepBuilder(task, measured=False, includes_gravity=includes_gravity)
        self._built_until: int | None = None
        self._cutter = SegmentCutter(task, steps, needs_previous=True)
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

    def add_disturbance(self, time: int, torque: ArrayLike) -> None:
        """What the controller has taken off the torques from a control step on; see `ControlStepBuilder`."""
        values = np.asarray(torque, dtype=np.float64)
        if values.shape != (self._task.controlled_joints,) or not np.isfinite(values).all():
            self._break_off("unusable disturbance")
            return
        self._disturbances[time] = values
        self._bound(self._disturbances)

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
                self._interrupt("missing control step")
        self._waiting.append(time)
        self._builder.report_step(time)
        if len(self._waiting) < 3:
            return None
        start, end = self._waiting[:2]
        del self._waiting[0]
        return self._finish_step(start, end)

    def _finish_step(self, start: int, end: int) -> Segment | None:
        """The control step from `start` to `end` is over and all of it that will come has come."""
        segment = None
        if start not in self._states or end not in self._states:
            self._interrupt("missing joint state")
        else:
            step = self._control_step(start, end)
            if step.torque is None:
                self._break_off("missing torque")
            elif step.unsettled:
                self._break_off("disturbance just noticed")
            elif self._goal is not None:
                segment = self._cutter.add(step, self._goal)
        for buffer in (self._states, self._torques, self._disturbances):
            for time in [time for time in buffer if time < end]:
                del buffer[time]
        self.segments += segment is not None
        return segment

    def _control_step(self, start: int, end: int) -> ControlStep:
        for time, torque in self._torques.items():
            if start <= time < end:
                self._builder.add_torque(time, torque)
        for time, taken_off in self._disturbances.items():
            if start <= time < end:
                self._builder.add_disturbance(time, taken_off)
        steps: list[ControlStep] = []
        first = start if self._built_until is None else start + 1
        for time in sorted(time for time in self._states if first <= time <= end):
            steps += self._builder.add(self._states[time]._replace(continues=True)).steps
        self._built_until = end
        (step,) = steps
        return step

    def _break_off(self, reason: str) -> None:
        """Drop the segment under way, if there is one."""
        if self._cutter.break_off():
            self.dropped[reason] += 1

    def _interrupt(self, reason: str) -> None:
        """Drop the segment under way; the next control step does not continue the last one."""
        self._break_off(reason)
        self._builder.restart()
        self._built_until = None
        for time in self._waiting:
            self._builder.report_step(time)

    def _start_anew(self, reason: str) -> None:
        self._waiting.clear()
        self._interrupt(reason)
        self._states.clear()
        self._torques.clear()
        self._disturbances.clear()

    def _bound(self, buffer: dict[int, ArmSample] | dict[int, FloatArray]) -> None:
        while len(buffer) > LONGEST_BUFFER:
            del buffer[next(iter(buffer))]
