"""Divisive normalisation: what vanishes at rest is divided by its own size, and the readout is multiplied by it.

Close to rest an arm is linear in what moves it: at half the velocities, errors and actions, half as much follows. A
network that sees directions and sizes apart, and whose readout is scaled by the size, has that built in. Its own noise,
which for spikes is a fixed share of the readout, then shrinks with the motion, and at rest nothing is left of it. The
operation is one of neuroscience's canonical ones: Carandini, Heeger 2012, "Normalization as a canonical neural
computation", Nature Reviews Neuroscience 13.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spiking_controller.errors import ConfigError


@dataclass(frozen=True)
class Normalisation:
    """How features z that vanish at rest are normalised: s = sqrt(mean z² + floor²), z -> z / s, and the level of s.

    Attributes:
        floor: root mean square of z below which the arm counts as at rest; z is dimensionless: velocities as shares of
            their limits, actions, and tanh(error_gain · (goal - hand)).
        error_gain: of the hand's distance to the goal, 1/m.
    """

    floor: float = 0.003
    error_gain: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 < self.floor < 1.0:
            raise ConfigError(f"normalisation: floor = {self.floor} must lie between 0 and 1.")
        if not 0.0 < self.error_gain < math.inf:
            raise ConfigError(f"normalisation: error_gain = {self.error_gain} must be a finite number above 0.")

    def normalise(self, parts: list[Tensor]) -> Tensor:
        """Directions and level, [..., n + 1], of features z in parts that are n together.

        The level is log(s / floor) / log(1 / floor): 0 at rest, 1 at s = 1.
        """
        together = torch.cat(parts, -1)
        size = torch.sqrt(together.square().mean(-1, keepdim=True) + self.floor**2)
        level = torch.log(size / self.floor) / -math.log(self.floor)
        return torch.cat((together / size, level), -1)

    def size(self, normalised: Tensor) -> Tensor:
        """s, [..., 1], of features that end with what `normalise` returned."""
        return torch.exp(math.log(self.floor) * (1.0 - normalised[..., -1:]))

    def pull_back(self, normalised: Tensor, grad: Tensor, grad_size: Tensor) -> Tensor:
        """Gradient of z, [..., n], from those of `normalise`'s result, [..., n + 1], and of `size`'s, [..., 1]."""
        size = self.size(normalised)
        direction, on_direction = normalised[..., :-1], grad[..., :-1]
        along = (direction * on_direction).sum(-1, keepdim=True)
        on_size = grad_size + grad[..., -1:] / (size * -math.log(self.floor)) - along / size
        return on_direction / size + direction * on_size / direction.shape[-1]
