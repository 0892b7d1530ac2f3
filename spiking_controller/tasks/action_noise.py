"""Correlated random motions on top of an action, from which a forward model learns."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class OrnsteinUhlenbeckNoise:
    """x <- ρ·x + sqrt(1 - ρ²)·σ·N(0, 1) per control step (Uhlenbeck, Ornstein 1930, at fixed intervals).

    Attributes:
        value: x, of any shape.
    """

    def __init__(self, shape: tuple[int, ...], deviation: float, correlation: float, rng: np.random.Generator) -> None:
        """Start from rest, x = 0.

        Args:
            shape: of x.
            deviation: σ, of x in the long run.
            correlation: ρ, of x from one control step to the next.
            rng: source of the random numbers.
        """
        self.value: FloatArray = np.zeros(shape)
        self._deviation = deviation
        self._correlation = correlation
        self._rng = rng

    def draw(self, shape: tuple[int, ...]) -> None:
        """Start anew from the stationary distribution, with this shape."""
        self.value = self._deviation * self._rng.standard_normal(shape)

    def advance(self) -> FloatArray:
        """One control step on; returns x."""
        innovation = self._deviation * self._rng.standard_normal(self.value.shape)
        self.value = self._correlation * self.value + np.sqrt(1.0 - self._correlation**2) * innovation
        return self.value
