"""Measures how long after its torque an arm is seen to move, which gives away states that tell the past."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.joint_checks import likeness_by_lag
from spiking_controller.robots.dynamics import ArmDynamics

FloatArray = NDArray[np.float64]

SPACING: Final = 0.006
"""Between two points, s."""
POINTS: Final = 40
"""Points of the motion that is looked at, 0.24 s."""
FEWEST: Final = 16
"""Points before anything is judged."""
LAGS: Final = 20
"""Lags that are tried, 0 to 114 ms."""
LATE: Final = 4
"""A lag of so many points, 24 ms, is one that no honest driver has."""
LEAST_CHANGE: Final = 0.3
"""The velocity must have changed by this (root mean square over joints and points, per window), rad/s."""
LIKENESS: Final = 0.7
"""Correlation of the expected and the seen change, at least, at the lag that is found,"""
ADVANTAGE: Final = 0.4
"""and by how much it exceeds the one without lag."""


class ResponseLag:
    """Compares the change of velocity that torques should cause, M(q)⁻¹·torque, with the one that is told, lag by lag.

    A load, friction or a weak motor changes how much an arm moves, but not when.
    """

    def __init__(self, dynamics: ArmDynamics) -> None:
        """Watch an arm with these dynamics."""
        self._dynamics = dynamics
        joints = len(dynamics.damping)
        self._expected = np.zeros((POINTS + LAGS, joints))
        self._seen = np.zeros((POINTS, joints))
        self._likeness = np.zeros(LAGS)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._count = 0
        self._expected[:] = 0.0
        self._seen[:] = 0.0
        self._impulse: FloatArray = np.zeros(self._expected.shape[1])
        self._elapsed = 0.0
        self._velocity: FloatArray | None = None

    def add(self, position: FloatArray, velocity: FloatArray, torque: FloatArray, period: float) -> float:
        """Take the next state.

        Args:
            position: rad, [n].
            velocity: rad/s, [n].
            torque: that the arm has got since the state before, N·m, [n].
            period: since that state, s.
        Returns:
            The lag that was found, s; 0 where there is none, or too little motion to tell.
        """
        if self._velocity is None:
            self._velocity = velocity
            return 0.0
        self._impulse = self._impulse + period * (torque - self._dynamics.damping * velocity)
        self._elapsed += period
        if self._elapsed < SPACING - 1e-9:
            return 0.0
        self._expected[:-1] = self._expected[1:]
        self._seen[:-1] = self._seen[1:]
        self._expected[-1] = self._impulse
        self._seen[-1] = velocity - self._velocity
        self._velocity, self._impulse, self._elapsed = velocity, np.zeros_like(velocity), 0.0
        self._count += 1
        if self._count < FEWEST:
            return 0.0
        return self._lag(position)

    def _lag(self, position: FloatArray) -> float:
        if float(np.square(self._seen).sum()) < LEAST_CHANGE**2:
            return 0.0
        expected = self._expected @ np.linalg.inv(self._dynamics.mass_matrix(position))
        likeness = self._likeness
        likeness_by_lag(expected, self._seen, likeness)
        best = int(np.argmax(likeness))
        # The largest lag that is tried may be on the way to a larger one, or to nothing.
        if LATE <= best < LAGS - 1 and likeness[best] > LIKENESS and likeness[best] - likeness[:2].max() > ADVANTAGE:
            return best * SPACING
        return 0.0
