"""Tells a stream of goals from single ones, and where a streamed goal is now, how fast and with what acceleration."""

from collections import deque
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

LONGEST_INTERVAL: Final = 0.15
"""A goal goes on with the one before if it comes at most so much later, s,"""
FASTEST: Final = 1.0
"""has moved no faster than this, m/s,"""
SLACK: Final = 0.01
"""apart from this, m: goals are seen by cameras and moved by hand."""
WINDOW: Final = 0.25
"""The motion is that of the goals of so much time, s,"""
FEWEST: Final = 4
"""and of at least so many."""
LATENESS: Final = 1.2
"""After so many intervals the next goal is late, and less and less of the motion is believed."""
PATIENCE: Final = 2.0
"""A goal that stays away for so many intervals"""
SHORTEST_PATIENCE: Final = 0.1
"""and this time, s, has stopped where it was last."""
DOUBT: Final = 4.0
"""So many times the noise power is taken off that of the estimated motion."""


class GoalMotion(NamedTuple):
    """Where a goal is now and how it moves; arrays are [d].

    Attributes:
        position: m, in the base frame.
        velocity: m/s.
        acceleration: m/s².
    """

    position: FloatArray
    velocity: FloatArray
    acceleration: FloatArray


class _Fit(NamedTuple):
    """goal(t) = place + velocity·t + acceleration·t²/2, t since the latest goal, s; each trusted by a share, 0 to 1.

    The next goal is late from the age `late` of the latest one on, and is no longer awaited after `patience`, s.
    """

    place: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    velocity_share: float
    acceleration_share: float
    late: float
    patience: float

    def fraction_at(self, age: float) -> float:
        """How much of the motion is still believed when the latest goal is so old, s."""
        if not 0.0 <= age <= self.patience:
            return 0.0
        return 1.0 if age <= self.late else (self.patience - age) / (self.patience - self.late)


class GoalTrack:
    """The latest goals, with their stamps.

    A parabola is fitted to the goals of the last WINDOW by least squares. What its residuals would explain is no
    motion: velocity and acceleration are shrunk by the share of noise in their square (positive-part James-Stein, see
    Efron and Morris 1973), so that an object at rest before a noisy camera rests.
    """

    def __init__(self) -> None:
        """Begin without a goal."""
        self._times: deque[int] = deque()
        self._goals: deque[FloatArray] = deque()
        self._fit: _Fit | None = None

    def reset(self) -> None:
        """Forget all goals; the next one goes on with none."""
        self._times.clear()
        self._goals.clear()
        self._fit = None

    def add(self, time: int, goal: FloatArray) -> bool:
        """Note a goal.

        Args:
            time: when it came, ns.
            goal: m, [d].
        Returns:
            Whether it goes on with the one before, as one of a stream does; otherwise it is another goal.
        """
        continues = self._continues(time, goal)
        if not continues:
            self.reset()
        elif time == self._times[-1]:
            self._times.pop()
            self._goals.pop()
        self._times.append(time)
        self._goals.append(np.array(goal, dtype=np.float64))
        while len(self._times) > FEWEST and time - self._times[0] > WINDOW * NANOSECONDS:
            self._times.popleft()
            self._goals.popleft()
        self._fit = self._fitted()
        return continues

    def is_moving(self, time: int) -> bool:
        """Whether the latest goal went on elsewhere than the one before, LONGEST_INTERVAL or less before `time`, ns."""
        if len(self._goals) < 2 or not 0 <= time - self._times[-1] <= LONGEST_INTERVAL * NANOSECONDS:
            return False
        return not np.array_equal(self._goals[-1], self._goals[-2])

    def at(self, time: int, latency: float = 0.0) -> GoalMotion | None:
        """The goal at a moment; None where it rests, or is not known to move.

        Args:
            time: ns.
            latency: how old a goal is when it comes, s.
        """
        fit = self._fit
        if fit is None:
            return None
        age = (time - self._times[-1]) / NANOSECONDS
        fraction = fit.fraction_at(age)
        if fraction == 0.0:
            return None
        ahead = age + latency
        share, bent = fraction * fit.velocity_share, fit.acceleration_share
        acceleration = bent * fit.acceleration
        velocity = fit.velocity + ahead * acceleration
        place = fit.place + ahead * fit.velocity + 0.5 * ahead**2 * acceleration
        latest = self._goals[-1]
        return GoalMotion(latest + share * (place - latest), share * velocity, share * acceleration)

    def _continues(self, time: int, goal: FloatArray) -> bool:
        if not self._times:
            return False
        interval = (time - self._times[-1]) / NANOSECONDS
        way = float(np.linalg.norm(goal - self._goals[-1]))
        return 0.0 <= interval <= LONGEST_INTERVAL and way <= FASTEST * interval + SLACK

    def _fitted(self) -> _Fit | None:
        """The motion of the goals, None where there is none."""
        count = len(self._times)
        latest = self._goals[-1]
        if count < FEWEST or all(np.array_equal(goal, latest) for goal in self._goals):
            return None
        times = np.array([(time - self._times[-1]) / NANOSECONDS for time in self._times])
        goals = np.array(self._goals)
        powers = times[:, None] ** np.arange(3)
        covariance = np.linalg.inv(powers.T @ powers)
        place, velocity, half_acceleration = covariance @ powers.T @ goals
        residual = goals - powers @ np.array([place, velocity, half_acceleration])
        # Sum over the coordinates of the variance of one goal.
        noise = float(np.square(residual).sum()) / (count - 3)
        interval = -float(times[0]) / (count - 1)
        patience = min(max(PATIENCE * interval, SHORTEST_PATIENCE), LONGEST_INTERVAL)
        return _Fit(
            place,
            velocity,
            2.0 * half_acceleration,
            _share(velocity, noise * covariance[1, 1]),
            _share(half_acceleration, noise * covariance[2, 2]),
            LATENESS * interval,
            patience,
        )


def _share(value: FloatArray, noise: float) -> float:
    """What is left of a value, [d], of which a part of this square is noise, 0 to 1."""
    power = float(value @ value)
    return max(0.0, 1.0 - DOUBT * noise / power) if power > 0.0 else 0.0
