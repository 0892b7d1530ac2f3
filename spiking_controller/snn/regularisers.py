"""Activity regularisers: penalties that keep firing rates between a lower and an upper bound.

Zenke & Vogels 2021, "The remarkable robustness of surrogate gradient learning for instilling complex function in
spiking neural networks", Neural Computation 33(4); Rossbroich, Gygax, Zenke 2022 (see `initialisation`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spiking_controller.errors import ConfigError

Activity = tuple[Tensor, ...]
"""Mean spikes per tick of every neuron, [neurons], layer by layer; empty for a network that does not spike."""


@dataclass(frozen=True)
class ActivityRegulariser:
    """Bounds on firing and what it costs to leave them.

    Attributes:
        lower: rate below which a neuron is penalised, Hz; 0 switches it off.
        upper: mean rate of a layer above which the layer is penalised, Hz; 0 switches it off. The bound is on the mean,
            so that single neurons may fire often.
        weight_lower, weight_upper: on the squared excess, 1/Hz².
        silence: weight of the resting potential's squared excess over `silence_level`, in units of the resting
            threshold, where nothing moves and nothing is wanted: a network that keeps below it rests without spikes.
        silence_level: highest resting potential that costs nothing, below the threshold of 1.
    """

    lower: float = 0.0
    upper: float = 0.0
    weight_lower: float = 1e-4
    weight_upper: float = 1e-4
    silence: float = 0.0
    silence_level: float = 0.8

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "weight_lower", "weight_upper", "silence"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} of an activity regulariser must be at least 0.")
        if 0 < self.upper < self.lower:
            raise ConfigError(
                f"upper = {self.upper} Hz of an activity regulariser must not be below lower = {self.lower} Hz."
            )

    def add_penalty(self, loss: Tensor, activity: Activity, tick: float) -> Tensor:
        """A loss with what a network's activity costs added; the same tensor where nothing is penalised.

        With rates r_i of the n neurons of a layer, summed over layers:

            weight_lower / n · Σ_i max(0, lower - r_i)²  +  weight_upper · max(0, 1/n · Σ_i r_i - upper)²

        Args:
            loss: scalar.
            activity: of the network, differentiable.
            tick: length of a tick, s.
        """
        for spikes in activity:
            rate = spikes / tick
            if self.lower > 0:
                loss = loss + self.weight_lower * torch.relu(self.lower - rate).square().mean()
            if self.upper > 0:
                loss = loss + self.weight_upper * torch.relu(rate.mean() - self.upper).square()
        return loss

    def silence_penalty(self, resting_potential: Activity) -> Tensor:
        """What potentials above `silence_level` cost: the squared excess, summed over neurons, averaged over the rest.

        Args:
            resting_potential: of each layer, [..., neurons], differentiable.
        """
        excess = [torch.relu(layer - self.silence_level).square().sum(-1).mean() for layer in resting_potential]
        return self.silence * torch.stack(excess).sum() if excess else torch.zeros(())


def mean_activity(spikes: Sequence[Tensor]) -> Activity:
    """Activity over steps and batch, from each layer's mean spikes per tick [steps, batch, neurons]."""
    return tuple(layer.mean((0, 1)) for layer in spikes)
