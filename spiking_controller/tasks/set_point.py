"""Removes the static offset that a network leaves at its goal, by a bounded integral on the goal it is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError


class SetPointIntegral:
    """The policy is given goal + I instead of the goal, with

        I <- I + gain·period·(goal - hand)    while |goal - hand| is below the zone;    |I| <= clamp

    so that far from the goal nothing winds up, and a goal that the arm cannot hold shifts by `clamp` at most.
    """

    def __init__(self, period: float, gain: float = 1.0, zone: float = 0.03, clamp: float = 0.015) -> None:
        """Set the gains.

        Args:
            period: control period, s.
            gain: 1/s; 0 switches the integral off.
            zone: distance below which it integrates, m.
            clamp: longest shift of the goal, m.
        Raises:
            ConfigError: a negative or non-finite value.
        """
        for name, value in (("period", period), ("gain", gain), ("zone", zone), ("clamp", clamp)):
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"set-point integral: {name} is {value}; give a number of at least 0.")
        self._step = gain * period
        self._zone = zone
        self._clamp = clamp
        self._offset: NDArray[np.float64] | float = 0.0

    def reset(self) -> None:
        """Forget the offset: a new goal or a new episode."""
        self._offset = 0.0

    def shift(self, goal: NDArray[np.floating], hand: NDArray[np.floating]) -> NDArray[Any]:
        """Integrate one control period and return the goal to give to the policy.

        Args:
            goal: m, [..., d].
            hand: hand position, m, [..., d].
        """
        error = np.asarray(goal, dtype=np.float64) - hand
        near = np.linalg.norm(error, axis=-1, keepdims=True) < self._zone
        offset = self._offset + self._step * np.where(near, error, 0.0)
        length = np.linalg.norm(offset, axis=-1, keepdims=True)
        self._offset = offset * np.minimum(1.0, self._clamp / np.maximum(length, 1e-12))
        return goal + self._offset
