"""Removes the static offset that a network leaves at its goal, by a bounded integral on the goal it is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError


class SetPointIntegral:
    """The policy is given goal + I instead of the goal, with

        I <- I + gain·period·exp(-(v/slow)²)·(goal - hand)    while |goal - hand| is below the zone;    |I| <= clamp

    where v is the speed of the hand. So nothing winds up far from the goal or on the way to it, and a goal that the arm
    cannot hold shifts by `clamp` at most.
    """

    def __init__(
        self, period: float, gain: float = 2.0, zone: float = 0.1, clamp: float = 0.05, slow: float = 0.03
    ) -> None:
        """Set the gains.

        Args:
            period: control period, s.
            gain: 1/s; 0 switches the integral off.
            zone: distance below which it integrates, m.
            clamp: longest shift of the goal, m.
            slow: speed of the hand at which it integrates 1/e as fast as at rest, m/s.
        Raises:
            ConfigError: a negative or non-finite value, or a `period` or `slow` of zero.
        """
        for name, value in (("gain", gain), ("zone", zone), ("clamp", clamp)):
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"set-point integral: {name} is {value}; give a number of at least 0.")
        for name, value in (("period", period), ("slow", slow)):
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"set-point integral: {name} is {value}; give a number above 0.")
        self._period = period
        self._gain = gain
        self._zone = zone
        self._clamp = clamp
        self._slow = slow
        self.reset()

    def reset(self) -> None:
        """Forget the offset: a new goal or a new episode."""
        self._offset: NDArray[np.float64] | float = 0.0
        self._last_hand: NDArray[np.float64] | None = None

    def shift(self, goal: NDArray[np.floating], hand: NDArray[np.floating]) -> NDArray[Any]:
        """Integrate one control period and return the goal to give to the policy.

        The speed of the hand is not known in the first period after a reset; nothing is integrated in it.

        Args:
            goal: m, [..., d].
            hand: hand position, m, [..., d].
        """
        now = np.array(hand, dtype=np.float64)
        last, self._last_hand = self._last_hand, now
        if last is None:
            return goal + self._offset
        error = np.asarray(goal, dtype=np.float64) - now
        near = np.linalg.norm(error, axis=-1, keepdims=True) < self._zone
        speed = np.linalg.norm(now - last, axis=-1, keepdims=True) / self._period
        rate = self._gain * np.exp(-np.square(speed / self._slow))
        offset = self._offset + self._period * rate * np.where(near, error, 0.0)
        length = np.linalg.norm(offset, axis=-1, keepdims=True)
        self._offset = offset * np.minimum(1.0, self._clamp / np.maximum(length, 1e-12))
        return goal + self._offset
