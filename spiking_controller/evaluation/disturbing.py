"""Disturbs arms that the controller of the live graph drives: loads that are picked up, pushes that last, contacts."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.controller import ControllerSettings, StepReport
from spiking_controller.evaluation.lock_step import FOR_EVER, LockStep, over_arms
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.tasks.goals import sample_goals, sample_joint_position
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

SETTLING_TIME: Final = 1.5
"""An arm holds for so long before anything happens to it, s,"""
HOLDING_TIME: Final = 3.0
"""and for so long afterwards, s;"""
MOTION_TIME: Final = 2.0
"""then it sets out for another goal, and the load is weighed after this time, s."""
BACK: Final = 0.005
"""The hand is back at its goal within this distance, m."""
LOADS: Final = (1.0, 2.0, 3.0)
"""That are picked up, kg."""
STEADY_PUSH: Final = 15.0
"""On the hand, in a random direction, N; measured after PUSHED_FOR, s."""
PUSHED_FOR: Final = 2.0

CARRIED: Final = 1.0
"""Load in the trials of contacts, kg,"""
NOISE: Final = (1e-4, 2e-3)
"""and white noise on angles, rad, and velocities, rad/s."""
TOUCH: Final = 10.0
"""Force of a contact, N,"""
TOUCH_TIME: Final = 0.1
"""and how long it lasts, s."""
NOTICED: Final = 0.06
"""A contact counts as noticed within this time, s;"""
ECHO: Final = 0.6
"""within this one it is no false alarm, s; nor is one so soon after the arm itself or a joint hit something."""
GOAL_TIME: Final = 4.0
"""Between two goals, s."""
ALARM_TRIALS: Final = 12
"""Arms that reach without being touched, side by side."""

UNCHANGED_GOALS: Final = 8
"""For each of the other trials so many arms as the networks know them go to a goal, with and without the observer."""
FINAL_TIME: Final = 0.5
"""A final error is the mean over so long, s, as in `tasks.metrics`."""


class Carried(NamedTuple):
    """One arm that picked a load up while it held a goal.

    Attributes:
        moved_m: how far the hand went from its goal, at most.
        back_after_s: from when on it was within BACK of it; None if it was not by the end of HOLDING_TIME.
        mass_kg: of the load, as estimated MOTION_TIME after it had set out for another goal.
    """

    moved_m: float
    back_after_s: float | None
    mass_kg: float


class Touched(NamedTuple):
    """One arm that was touched: how long until that was noticed, s (None: not), and alarms that were false."""

    noticed_after_s: float | None
    false_alarms: int


class Unchanged(NamedTuple):
    """One arm as its networks know it, with a goal.

    Attributes:
        observed_m, alone_m: final error with and without the observer.
        noticed: whether the observer added anything. Where it did not, the torques are the same to the last bit.
    """

    observed_m: float
    alone_m: float
    noticed: bool


def disturb(checkpoint: Checkpoint, *, seed: int, arms: int, minutes: float) -> dict[str, Any]:
    """Disturb many arms, simulated side by side, one on each processor.

    Args:
        checkpoint: with the networks.
        seed: of postures, goals and directions.
        arms: of each kind of trial.
        minutes: of reaching without a touch, in which every contact is a false alarm, simulated.
    Returns:
        Plain data. `loads`: for each of LOADS its `kg` and, as lists over arms, the fields of `Carried`. `push`:
        `newton` and a list `distance_m`. `contacts`: for "rest" and "motion" lists of the fields of `Touched`;
        `minutes` and `false_alarms` of reaching. `unchanged`: lists of the fields of `Unchanged`, over
        UNCHANGED_GOALS · `arms` arms.
    """
    task = checkpoint.task
    rng = np.random.default_rng([seed, *b"disturb"])
    postures = sample_joint_position(task, rng, arms)
    goals = sample_goals(task, rng, arms)
    directions = rng.normal(size=(2, arms, 3))
    directions[..., task.goal_dimensions :] = 0.0
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    moments = rng.uniform(0.1, 1.2, size=arms)
    trials = list(zip(postures, goals, strict=True))
    carried = over_arms(pick_up, [(checkpoint, *trial, mass) for mass in LOADS for trial in trials])
    pushed = over_arms(
        push, [(checkpoint, *trial, STEADY_PUSH * way) for trial, way in zip(trials, directions[0], strict=True)]
    )
    touched = over_arms(
        touch,
        [
            (checkpoint, *trial, TOUCH * way, moment if moves else None, number)
            for moves in (False, True)
            for number, (trial, way, moment) in enumerate(zip(trials, directions[1], moments, strict=True))
        ],
    )
    alarms = over_arms(
        reach_untouched, [(checkpoint, seed, 60.0 * minutes / ALARM_TRIALS, n) for n in range(ALARM_TRIALS)]
    )
    count = UNCHANGED_GOALS * arms
    starts = zip(sample_joint_position(task, rng, count), sample_goals(task, rng, count), strict=True)
    unchanged = over_arms(reach_unchanged, [(checkpoint, *start) for start in starts])
    return {
        "arms": arms,
        "loads": [
            {"kg": mass, **_lists(Carried, carried[index * arms : (index + 1) * arms])}
            for index, mass in enumerate(LOADS)
        ],
        "push": {"newton": STEADY_PUSH, "distance_m": pushed},
        "contacts": {
            "rest": _lists(Touched, touched[:arms]),
            "motion": _lists(Touched, touched[arms:]),
            "minutes": minutes,
            "false_alarms": sum(alarms),
        },
        "unchanged": _lists(Unchanged, unchanged),
    }


def _lists(kind: type[Carried] | type[Touched] | type[Unchanged], rows: list[Any]) -> dict[str, list[float]]:
    return {name: [getattr(row, name) for row in rows] for name in kind._fields}


class _Trial:
    """One arm in lock-step; every control step is reported.

    Attributes:
        alarms: times of contacts that were noticed while the arm itself hit nothing, s.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        posture: FloatArray,
        noise_seed: int = 0,
        settings: ControllerSettings | None = None,
    ) -> None:
        task = checkpoint.task
        self.loop = LockStep.of(checkpoint, posture, settings, noise_seed)
        self.alarms: list[float] = []
        self._hit_at = -np.inf
        self.go(task.arm.chain.position(posture)[: task.goal_dimensions])

    def burden(self) -> None:
        """Put CARRIED into the hand, and NOISE onto the sensors."""
        position, velocity = NOISE
        self.loop.arm.apply(ArmCondition(payload_mass=CARRIED, position_noise=position, velocity_noise=velocity))

    def go(self, goal: FloatArray) -> None:
        self.loop.controller.set_goal(goal)

    def run(self, seconds: float) -> list[StepReport]:
        """Let time pass; the control steps."""
        end = self.loop.time + seconds
        reports = []
        while self.loop.time < end:
            begins = self.loop.step() is not None
            # Goals are reached as the networks see fit: on the way the arm may touch the floor or itself.
            if self.loop.arm.data.ncon or self.loop.arm.data.nl:
                self._hit_at = self.loop.time
            if begins:
                reports.append(self.loop.controller.report())
                if reports[-1].contact is not None and self.loop.time - self._hit_at > ECHO:
                    self.alarms.append(reports[-1].time / NANOSECONDS)
        return reports


def pick_up(checkpoint: Checkpoint, posture: FloatArray, goal: FloatArray, mass: float) -> Carried:
    """Put a load of that mass, kg, into a hand that holds; `goal`: to which it goes then, m, [d]."""
    trial = _Trial(checkpoint, posture)
    trial.run(SETTLING_TIME)
    trial.loop.arm.apply(ArmCondition(payload_mass=mass))
    errors = np.array([report.tracking_error for report in trial.run(HOLDING_TIME)])
    beyond = np.flatnonzero(errors > BACK)
    steps = beyond[-1] + 1 if beyond.size else 0
    back = float(steps * checkpoint.task.control_period) if steps < len(errors) else None
    trial.go(goal)
    found = trial.run(MOTION_TIME)[-1].disturbance
    return Carried(float(errors.max()), back, 0.0 if found is None else found.mass)


def push(checkpoint: Checkpoint, posture: FloatArray, goal: FloatArray, force: FloatArray) -> float:
    """Distance from hand to goal after PUSHED_FOR, m."""
    trial = _Trial(checkpoint, posture)
    trial.run(SETTLING_TIME)
    trial.loop.arm.push(force, duration=FOR_EVER)
    return trial.run(PUSHED_FOR)[-1].tracking_error


def touch(
    checkpoint: Checkpoint,
    posture: FloatArray,
    goal: FloatArray,
    force: FloatArray,
    moment: float | None,
    noise_seed: int,
) -> Touched:
    """Touch the hand of an arm that carries CARRIED and whose sensors are noisy.

    Args:
        checkpoint: with the networks.
        posture: at the start, rad, [n].
        goal: to which it goes, m, [d], once the load is known.
        force: N, [3].
        moment: at which it is touched, s after it set out back to where it came from; None: once it is there, at rest.
        noise_seed: of the sensors.
    """
    trial = _Trial(checkpoint, posture, noise_seed)
    start = trial.loop.controller.goal
    assert start is not None
    trial.burden()
    trial.run(SETTLING_TIME)
    trial.alarms.clear()
    trial.go(goal)
    trial.run(GOAL_TIME)
    trial.go(start)
    trial.run(GOAL_TIME if moment is None else moment)
    touched_at = trial.loop.time
    trial.loop.arm.push(force, duration=TOUCH_TIME)
    after = trial.run(1.5)
    # What a control step finds has been reported once it is over.
    noticed = [report.time / NANOSECONDS - touched_at for report in after if report.contact is not None]
    in_time = float(noticed[0]) if noticed and noticed[0] <= ECHO else None
    return Touched(in_time, sum(not 0.0 <= time - touched_at <= ECHO for time in trial.alarms))


def reach_untouched(checkpoint: Checkpoint, seed: int, duration: float, number: int) -> int:
    """Go from goal to goal with a load; how many contacts were noticed that were none, once the load was known."""
    rng = np.random.default_rng([seed, *b"untouched", number])
    trial = _Trial(checkpoint, np.asarray(checkpoint.task.arm.home, dtype=np.float64), number)
    trial.burden()
    trial.run(SETTLING_TIME)
    trial.alarms.clear()
    for goal in sample_goals(checkpoint.task, rng, round(duration / GOAL_TIME)):
        trial.go(goal)
        trial.run(GOAL_TIME)
    return len(trial.alarms)


def reach_unchanged(checkpoint: Checkpoint, posture: FloatArray, goal: FloatArray) -> Unchanged:
    """Go from a posture, rad, [n], to a goal, m, [d], for GOAL_TIME, with the observer and, if it acts, without."""

    def reach(settings: ControllerSettings) -> tuple[float, bool]:
        """The final error, m, and whether the observer added anything."""
        trial = _Trial(checkpoint, posture, settings=settings)
        trial.go(goal)
        reports = trial.run(GOAL_TIME)
        last = reports[-round(FINAL_TIME / checkpoint.task.control_period) :]
        acted = any(report.disturbance is not None and report.disturbance.torque.any() for report in reports)
        return float(np.mean([report.tracking_error for report in last])), acted

    observed, noticed = reach(ControllerSettings())
    alone, _ = reach(ControllerSettings(disturbance_gain=0.0)) if noticed else (observed, False)
    return Unchanged(observed, alone, noticed)
