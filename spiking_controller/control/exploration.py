"""Small random motions on top of the policy's, from which a forward model learns more; off unless asked for."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.tasks.action_noise import OrnsteinUhlenbeckNoise

CORRELATION: Final = 0.9
"""Of the noise from one control step to the next, as in training."""
BOUND: Final = 2.0
"""The noise never exceeds so many standard deviations."""
LARGEST: Final = 0.1
"""Largest standard deviation, as a share of the full action."""


class ExplorationNoise:
    """Ornstein-Uhlenbeck noise on the action, cut at two standard deviations."""

    def __init__(self, size: int, deviation: float, seed: int = 0) -> None:
        """Start from rest.

        Args:
            size: number of controlled joints.
            deviation: σ, as a share of the full action; 0 switches the noise off.
            seed: of the random numbers.
        Raises:
            ConfigError: a deviation outside 0 to LARGEST.
        """
        if not 0.0 <= deviation <= LARGEST:
            raise ConfigError(f"exploration is {deviation}; give a number from 0 to {LARGEST:g}.")
        self.deviation = deviation
        self._noise = OrnsteinUhlenbeckNoise((size,), deviation, CORRELATION, np.random.default_rng(seed))

    def perturb(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """The action with the noise of this control step, in [-1, 1]; unchanged where the noise is off."""
        if self.deviation == 0.0:
            return action
        bound = BOUND * self.deviation
        return np.clip(action + np.clip(self._noise.advance(), -bound, bound), -1.0, 1.0)
