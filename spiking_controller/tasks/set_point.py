"""Removes the static offset that a network leaves at its goal, by a bounded integral on the goal it is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError

_SMOOTHING = 0.1
"""Time constant with which the speed of the hand is smoothed, s: a tremor is no approach."""


class SetPointIntegral:
    """The policy is given goal + I instead of the goal, with

        I <- I + gain·period·exp(-(patience·v/e)²)·(goal - hand)    while e is below the zone;    |I| <= clamp

    where e = |goal - hand|, and v is the speed of the hand. A hand that closes in by itself, by more than about a share
    1 / patience of its error per second, is left alone at any distance; one that has stopped short is moved on. So
    nothing winds up on the way to the goal, and a goal that the arm cannot hold shifts by `clamp` at most.
    """

    def __init__(
        self, period: float, gain: float = 1.0, zone: float = 0.1, clamp: float = 0.05, patience: float = 1.0
    ) -> None:
        """Set the gains.

        Args:
            period: control period, s.
            gain: 1/s; 0 switches the integral off.
            zone: distance below which it integrates, m.
            clamp: longest shift of the goal, m.
            patience: how long the hand may take for a way as long as its error, s; a hand that is as fast is integrated
                for 1/e as fast as one at rest. 0 integrates whatever the speed.
        Raises:
            ConfigError: a negative or non-finite value, or a `period` of zero.
        """
        for name, value in (("gain", gain), ("zone", zone), ("clamp", clamp), ("patience", patience)):
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"set-point integral: {name} is {value}; give a number of at least 0.")
        if not (np.isfinite(period) and period > 0):
            raise ConfigError(f"set-point integral: period is {period}; give a number above 0.")
        self._period = period
        self._gain = gain
        self._zone = zone
        self._clamp = clamp
        self._patience = patience
        self.reset()

    def reset(self) -> None:
        """Forget the offset: a new goal or a new episode."""
        self._offset: NDArray[np.float64] | float = 0.0
        self._velocity: NDArray[np.float64] | float = 0.0
        self._last_hand: NDArray[np.float64] | None = None

    def shift(self, goal: NDArray[np.floating], hand: NDArray[np.floating], is_held: bool = False) -> NDArray[Any]:
        """Integrate one control period and return the goal to give to the policy.

        The speed of the hand is not known in the first period after a reset; nothing is integrated in it.

        Args:
            goal: m, [..., d].
            hand: hand position, m, [..., d].
            is_held: something else is removing the offset now; what was integrated stays.
        """
        now = np.array(hand, dtype=np.float64)
        last, self._last_hand = self._last_hand, now
        if last is None:
            return goal + self._offset
        new = min(1.0, self._period / _SMOOTHING)
        self._velocity = self._velocity + new * ((now - last) / self._period - self._velocity)
        if is_held:
            return goal + self._offset
        error = np.asarray(goal, dtype=np.float64) - now
        distance = np.linalg.norm(error, axis=-1, keepdims=True)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        stalled = np.exp(-np.square(self._patience * speed / np.maximum(distance, 1e-9)))
        offset = self._offset + self._period * self._gain * stalled * np.where(distance < self._zone, error, 0.0)
        length = np.linalg.norm(offset, axis=-1, keepdims=True)
        self._offset = offset * np.minimum(1.0, self._clamp / np.maximum(length, 1e-12))
        return goal + self._offset
