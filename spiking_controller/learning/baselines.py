"""Networks without spikes, to compare the spiking ones with: a GRU that carries its state, and an MLP that has none.

Both have the interface of `snn.network.SpikingNetwork`, so that everything around the network stays the same: features,
prediction, losses, replay, schedules, checkpoints and control. Of a `NetworkConfig` they take `hidden`; every other key
is about spiking neurons and means nothing here.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spiking_controller.snn.network import NetworkConfig


class GRUState(NamedTuple):
    """What a GRU remembers: the hidden values of each layer, [batch, neurons] each."""

    hidden: tuple[Tensor, ...]

    def detach(self) -> "GRUState":
        """The same state without its history."""
        return GRUState(tuple(layer.detach() for layer in self.hidden))


class MLPState(NamedTuple):
    """What an MLP remembers: nothing."""

    def detach(self) -> "MLPState":
        """The same state without its history."""
        return self


class _StepInterface(nn.Module):
    """What the baselines share: nothing to compute once per pass, and the features themselves drive the first layer."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.inputs = inputs
        self.outputs = outputs

    def effective(self) -> None:
        """Nothing: the parameters are used as they are."""

    def limit_time_constants(self) -> None:
        """Nothing: there are no time constants."""

    def input_drive(self, features: Tensor, effective: None) -> Tensor:
        """The features, [..., inputs]: no part of the step can be computed for many steps at once."""
        del effective
        return features


class GRUNetwork(_StepInterface):
    """Features -> layers of gated recurrent units (Cho et al. 2014) -> linear readout of the last layer.

    The hidden values persist from control step to control step and are handed in and out, as the state of the spiking
    networks is.
    """

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int, seed: int) -> None:
        """Initialise as PyTorch does, uniformly in ±1/sqrt(neurons).

        Args:
            config: `hidden` gives the units of each layer.
            inputs, outputs: number of features and of readout values.
            seed: of the initial weights.
        """
        super().__init__(config, inputs, outputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cells = nn.ModuleList(
                nn.GRUCell(before, after) for before, after in pairwise((inputs, *config.hidden))
            )
            self.readout = nn.Linear(config.hidden[-1], outputs)

    def initial_state(self, batch: int) -> GRUState:
        """The state at the start of an episode, for `batch` independent copies."""
        like = self.readout.weight
        return GRUState(tuple(like.new_zeros(batch, neurons) for neurons in self.config.hidden))

    def step(self, features: Tensor, state: GRUState, effective: None) -> tuple[Tensor, GRUState, tuple[Tensor, ...]]:
        """One control step.

        Args:
            features: [batch, inputs].
            state: before the step.
            effective: from `effective()`.
        Returns:
            The readout [batch, outputs], the state after the step, and no spikes.
        """
        del effective
        hidden: list[Tensor] = []
        for cell, before in zip(self.cells, state.hidden, strict=True):
            features = cell(features, before)
            hidden.append(features)
        return self.readout(features), GRUState(tuple(hidden)), ()

    def step_from_drive(
        self, input_drive: Tensor, state: GRUState, effective: None
    ) -> tuple[Tensor, GRUState, tuple[Tensor, ...]]:
        """`step` from what `input_drive` gave."""
        return self.step(input_drive, state, effective)


class MLPNetwork(_StepInterface):
    """Features -> fully connected layers with rectified linear units -> linear readout."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int, seed: int) -> None:
        """Initialise as PyTorch does, uniformly in ±1/sqrt(inputs of the layer).

        Args:
            config: `hidden` gives the units of each layer.
            inputs, outputs: number of features and of readout values.
            seed: of the initial weights.
        """
        super().__init__(config, inputs, outputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = _perceptron((inputs, *config.hidden, outputs))

    def initial_state(self, batch: int) -> MLPState:
        """The empty state."""
        del batch
        return MLPState()

    def step(self, features: Tensor, state: MLPState, effective: None) -> tuple[Tensor, MLPState, tuple[Tensor, ...]]:
        """One control step; arguments and results as `GRUNetwork.step`."""
        del effective
        return self.layers(features), state, ()

    def step_from_drive(
        self, input_drive: Tensor, state: MLPState, effective: None
    ) -> tuple[Tensor, MLPState, tuple[Tensor, ...]]:
        """`step` from what `input_drive` gave."""
        return self.step(input_drive, state, effective)


def _perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers between these sizes with a nonlinearity between every two."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
