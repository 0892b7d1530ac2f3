"""Cuts a recorded stream of joint states into control steps: what was seen, what was done, what came of it.

Nobody needs to have recorded when the controller's steps were: any stream of joint states has a grid of control steps
laid over it. Where the controller's predictions tell its steps, the grid is theirs.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.disturbance_observer import SETTLING
from spiking_controller.robots.gravity import GravityModel
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

PERIOD_TOLERANCE = 0.25
"""Control steps may lie apart by this fraction more or less than the control period, with drivers that jitter."""
LONGEST_HOLD = NANOSECONDS // 10
"""A measured torque, or what was taken off it, stands for so long where none follows, ns."""

_SETTLING = round(SETTLING * NANOSECONDS)


class ControlStep(NamedTuple):
    """One control step.

    Attributes:
        time: its start, ns.
        continues: it begins where the last one ended.
        observation, following: at its start and at its end, [observation].
        torque: that acted at its end, N·m, [n], in the task's gravity convention, as the networks alone would have it:
            what was taken off is added again; None where none was recorded.
        velocity: at the torque's time, rad/s, [n].
        torque_time: stamp of the torque, ns; -1 without one.
        torque_rate: mean |rate| of the controlled joints' torque within the step, N·m/s; NaN where it is not known.
        reported: the controller itself made its steps there.
        unsettled: the controller had just begun to take something off: how much it is has yet to be found out, and what
            acted was not what the networks expect.
    """

    time: int
    continues: bool
    observation: FloatArray
    following: FloatArray
    torque: FloatArray | None
    velocity: FloatArray
    torque_time: int
    torque_rate: float
    reported: bool
    unsettled: bool = False


class Outcome(NamedTuple):
    """What a joint state led to: control steps that it completes, and whether a stretch of steps begins with it."""

    steps: list[ControlStep]
    begins: bool


class _State(NamedTuple):
    time: int
    joint_position: FloatArray
    joint_velocity: FloatArray


class ControlStepBuilder:
    """Joint states in order of time come in, control steps come out.

    The grid starts with the first joint state and after each gap; its pitch is the control period. Between two joint
    states the state is interpolated: angles by the cubic that fits angles and velocities, velocities linearly. Torques
    and reported steps must be there before the joint state that follows them.

    Attributes:
        dropped: what could not be used, by reason.
    """

    def __init__(self, task: ReachTask, measured: bool, includes_gravity: bool) -> None:
        """Cut steps of the task's control period.

        Args:
            task: of the networks.
            measured: torques were measured and have the stamp at which they acted; otherwise they were commanded and
                have the stamp of the joint state that they answer.
            includes_gravity: they carry the arm's weight.
        """
        self.dropped: Counter[str] = Counter()
        self._task = task
        self._codec = ObservationCodec(task)
        self._period = round(task.control_period * NANOSECONDS)
        self._measured = measured
        wanted = task.gravity_convention == "raw"
        self._gravity = GravityModel(task.arm) if includes_gravity != wanted else None
        self._gravity_sign = 1.0 if wanted else -1.0
        self._torques: dict[int, FloatArray] = {}
        self._disturbances: dict[int, FloatArray] = {}
        self._takes_off = False
        self._noticed: list[int] = []
        self._last_reported: int | None = None
        self._anchors: list[int] = []
        self._last: ArmSample | None = None
        self._start: _State | None = None
        self._target = 0
        self._restarts = False
        self._continues = False
        self._samples: dict[int, ArmSample] = {}

    def report_step(self, time: int) -> None:
        """The controller made a control step at this stamp, ns.

        Steps count only in a row, a control period apart; a slow driver's controller leaves some out.
        """
        last, self._last_reported = self._last_reported, time
        if last is None or not self._is_period(time - last):
            return
        for anchor in (last, time):
            if not self._anchors or anchor > self._anchors[-1]:
                self._anchors.append(anchor)

    def add_torque(self, time: int, torque: FloatArray) -> None:
        """A torque, N·m, [n], with its stamp, ns."""
        if not np.isfinite(torque).all():
            self.dropped["torque that is not finite"] += 1
            return
        self._torques[time] = torque

    def add_disturbance(self, time: int, torque: FloatArray) -> None:
        """What the controller has taken off its torques from a control step on, N·m, [m]; `time` is its stamp, ns.

        The networks know the arm without: what they did is their own torque, not the corrected one.
        """
        if not np.isfinite(torque).all():
            self.dropped["disturbance that is not finite"] += 1
            return
        self._disturbances[time] = torque
        takes_off = bool(torque.any())
        if takes_off and not self._takes_off:
            self._noticed.append(time)
        self._takes_off = takes_off

    def add(self, sample: ArmSample) -> Outcome:
        """The next joint state."""
        if self._last is None or not sample.continues:
            self._forget_before(sample.time)
            self._begin(_State(sample.time, sample.joint_position, sample.joint_velocity))
            self._last = sample
            self._samples[sample.time] = sample
            return Outcome([], True)
        self._samples[sample.time] = sample
        steps, begins = [], False
        while sample.time >= self._target:
            state = _between(self._last, sample, self._target)
            if self._restarts:
                self._begin(state)
                begins = True
            else:
                steps.append(self._complete(state))
        self._last = sample
        return Outcome(steps, begins)

    def _is_period(self, interval: int) -> bool:
        return abs(interval - self._period) <= PERIOD_TOLERANCE * self._period

    def _begin(self, state: _State) -> None:
        """A stretch of steps starts here."""
        self._continues = False
        self._go_on_from(state)

    def _go_on_from(self, state: _State) -> None:
        """Look for the end of the step that starts here."""
        self._start = state
        while self._anchors and self._anchors[0] <= state.time - self._period:
            del self._anchors[0]
        ahead = next((anchor for anchor in self._anchors if anchor > state.time), None)
        nominal = state.time + self._period
        self._restarts = ahead is not None and ahead < nominal and not self._is_period(ahead - state.time)
        follows = ahead is not None and (self._restarts or self._is_period(ahead - state.time))
        self._target = ahead if ahead is not None and follows else nominal

    def _complete(self, end: _State) -> ControlStep:
        start = self._start
        assert start is not None
        reported = start.time in self._anchors and end.time in self._anchors
        torque, velocity, time, rate = self._torque_between(start.time, end.time)
        step = ControlStep(
            start.time,
            self._continues,
            self._observation(start),
            self._observation(end),
            torque,
            velocity,
            time,
            rate,
            reported,
            any(noticed <= start.time < noticed + _SETTLING for noticed in self._noticed),
        )
        self._continues = True
        self._go_on_from(end)
        return step

    def _observation(self, state: _State) -> FloatArray:
        hand = self._task.arm.chain.position(state.joint_position)
        return self._codec.encode(state.joint_position, state.joint_velocity, hand)

    def _torque_between(self, start: int, end: int) -> tuple[FloatArray | None, FloatArray, int, float]:
        """The torque that acted at the end of a step, the velocity at its stamp, the stamp, and its rate before."""
        # A command acts from the joint state after the one that it answers; a measured torque acted until its stamp.
        first, last = (start + 1, end) if self._measured else (start, end - 1)
        known = sorted(stamp for stamp in self._torques if stamp in self._samples)
        stamps = [stamp for stamp in known if first <= stamp <= last]
        if not stamps and self._measured:  # joint states are rarer than control steps
            stamps = [stamp for stamp in known if end - LONGEST_HOLD <= stamp <= start][-1:]
        torque, velocity, rate = None, np.zeros(len(self._task.arm.joint_names)), np.nan
        time = stamps[-1] if stamps else -1
        if stamps:
            sample, torque = self._samples[time], self._torques[time]
            velocity = sample.joint_velocity
            taken_off = self._taken_off(time)
            if taken_off is not None:
                torque = torque.copy()
                torque[: taken_off.size] += taken_off
            if self._gravity is not None:
                torque = torque + self._gravity_sign * self._gravity.torque(sample.joint_position)
        else:
            self.dropped["control step without a torque"] += 1
        if len(stamps) > 1:
            torques = np.stack([self._torques[stamp] for stamp in stamps])[:, : self._task.controlled_joints]
            travel = np.abs(np.diff(torques, axis=0)).sum(axis=0).mean()
            rate = float(travel) * NANOSECONDS / (stamps[-1] - stamps[0])
        self._forget_before(min(end, time) if self._measured and stamps else end)
        return torque, velocity, time, rate

    def _taken_off(self, time: int) -> FloatArray | None:
        """What the controller had taken off a torque of that stamp, ns, if it did."""
        latest = time - 1 if self._measured else time
        stamps = [stamp for stamp in self._disturbances if time - LONGEST_HOLD <= stamp <= latest]
        taken_off = self._disturbances[max(stamps)] if stamps else None
        return taken_off if taken_off is not None and taken_off.any() else None

    def _forget_before(self, time: int) -> None:
        for buffer, oldest in (
            (self._torques, time),
            (self._samples, time),
            (self._disturbances, time - LONGEST_HOLD),
        ):
            for stamp in [stamp for stamp in buffer if stamp < oldest]:
                del buffer[stamp]
        self._noticed = [noticed for noticed in self._noticed if noticed >= time - _SETTLING]

    def restart(self) -> None:
        """Time jumped: what is left belongs to the past."""
        self._torques.clear()
        self._disturbances.clear()
        self._noticed.clear()
        self._takes_off = False
        self._samples.clear()
        self._anchors.clear()
        self._last_reported = None
        self._last = None


def _between(before: ArmSample, after: ArmSample, time: int) -> _State:
    """The state at a time between two joint states."""
    if time == after.time:
        return _State(time, after.joint_position, after.joint_velocity)
    if time == before.time:
        return _State(time, before.joint_position, before.joint_velocity)
    span = (after.time - before.time) / NANOSECONDS
    x = (time - before.time) / (after.time - before.time)
    position = (
        (2 * x**3 - 3 * x**2 + 1) * before.joint_position
        + (x**3 - 2 * x**2 + x) * span * before.joint_velocity
        + (3 * x**2 - 2 * x**3) * after.joint_position
        + (x**3 - x**2) * span * after.joint_velocity
    )
    velocity = (1 - x) * before.joint_velocity + x * after.joint_velocity
    return _State(time, position, velocity)
