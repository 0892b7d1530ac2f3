"""The last word on every torque: whatever comes in, what goes out is finite and inside every limit.

The limits are those of `robots.limits.TorqueLimiter`, the same code that the policy was trained with. This class adds
what only the live arm needs: it copes with any input, ramps down, and counts why it intervened.
"""

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.robots.limits import JointLimits, TorqueLimiter

FloatArray = NDArray[np.float64]


class SafetyFilter:
    """Limits a stream of torques, one after the other.

    Rules, in this order: wrong length, NaN or infinity in torque, position, velocity or period -> ramp towards zero;
    torque limits; braking beyond the soft position bounds and above the velocity limit; torque rate limit from the
    torque sent last. Inside all of them the torque passes bit-equal.

    Attributes:
        torque: sent last, N·m, [n].
        interventions: how often the filter changed a torque, by reason.
    """

    def __init__(self, limits: JointLimits, soft_fraction: float = 0.8, longest_period: float = 0.002) -> None:
        """Start from zero torque.

        Args:
            limits: of the arm, [n] joints.
            soft_fraction: share of the position range inside which torque may push outward.
            longest_period: the rate limit lets the torque change by at most what is legal in this time, s, however
                long ago the last torque was sent; else the first torque after lost messages would be a jump.
        """
        self._limits = limits
        self._limiter = TorqueLimiter(limits, soft_fraction)
        self._soft_lower, self._soft_upper = limits.soft_bounds(soft_fraction)
        self._joints = len(limits.torque)
        self.longest_period = longest_period
        self.torque: FloatArray = np.zeros(self._joints)
        self.interventions: Counter[str] = Counter()

    def filter(
        self, torque: ArrayLike, joint_position: ArrayLike, joint_velocity: ArrayLike, period: float
    ) -> FloatArray:
        """The torque that may be sent now, N·m, [n].

        Args:
            torque: wanted, N·m, [n].
            joint_position: rad, [n].
            joint_velocity: rad/s, [n].
            period: since the last torque was sent, s.
        """
        wanted, position, velocity = (self._vector(value) for value in (torque, joint_position, joint_velocity))
        if wanted is None:
            return self._ramp("non-finite torque", period)
        if position is None or velocity is None:
            return self._ramp("non-finite joint state", period)
        legal_period = self._legal_period(period)
        limited = self._limiter.limit(wanted, self.torque, position, velocity, legal_period)
        if not np.array_equal(limited, wanted):
            self._count_reasons(wanted, position, velocity, legal_period)
        self.torque = limited
        return limited

    def ramp_down(self, period: float) -> FloatArray:
        """The next torque on the way to zero at the rate limit, N·m, [n]; `period` as in `filter`."""
        step = self._limits.torque_rate * self._legal_period(period)
        self.torque = self.torque - np.clip(self.torque, -step, step)
        return self.torque

    def _ramp(self, reason: str, period: float) -> FloatArray:
        self.interventions[reason] += 1
        return self.ramp_down(period)

    def _vector(self, value: ArrayLike) -> FloatArray | None:
        """The value as finite floats [n], or None."""
        try:
            vector = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            return None
        return vector if vector.shape == (self._joints,) and np.isfinite(vector).all() else None

    def _legal_period(self, period: float) -> float:
        return min(period, self.longest_period) if period > 0.0 else 0.0

    def _count_reasons(self, wanted: FloatArray, position: FloatArray, velocity: FloatArray, period: float) -> None:
        """Which rules changed the torque. A joint can meet several; each rule counts once per torque."""
        limits = self._limits
        lowest, highest = self._limiter.bounds(position, velocity)
        clipped = np.clip(wanted, -limits.torque, limits.torque)
        held_back = (clipped > highest) | (clipped < lowest)
        beyond = (position >= self._soft_upper) | (position <= self._soft_lower)
        too_fast = np.abs(velocity) >= limits.velocity
        legal = np.minimum(np.maximum(clipped, lowest), highest)
        too_quick = np.abs(legal - self.torque) > limits.torque_rate * period
        for reason, joints in (
            ("torque limit", clipped != wanted),
            ("position limit", held_back & beyond),
            ("velocity limit", held_back & too_fast),
            ("torque rate limit", too_quick),
        ):
            if joints.any():
                self.interventions[reason] += 1
