"""Networks without spikes, to compare the spiking ones with: a GRU that carries its state, and an MLP that has none.

Both are `features.ControlNetwork`s, as `snn.network.SpikingNetwork` is, so that everything around the network stays the
same: features, prediction, losses, replay memory, schedules, checkpoints and control.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.snn.neurons import Backend


@dataclass(frozen=True)
class BaselineConfig:
    """Sizes of a baseline.

    Attributes:
        hidden: units of each hidden layer.
        ticks, tick: those of the spiking network whose place it takes, the length in s; their product is the control
            period. A baseline itself has one update per control step.
    """

    hidden: tuple[int, ...] = (256, 256)
    ticks: int = 4
    tick: float = 0.005

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden = {self.hidden!r} must list at least one layer of at least one unit.")
        if self.ticks < 1 or self.tick <= 0:
            raise ConfigError(f"ticks = {self.ticks} must be at least 1, and tick = {self.tick} above 0.")


@dataclass(frozen=True)
class GRUConfig(BaselineConfig):
    """Sizes of a `GRUNetwork`."""


@dataclass(frozen=True)
class MLPConfig(BaselineConfig):
    """Sizes of an `MLPNetwork`."""


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


class _Baseline(nn.Module, ABC):
    """Common part of the baselines: plain PyTorch that unrolls step by step and prepares nothing per unroll."""

    backend: Backend = "torch"
    compiled = False

    def __init__(self, config: BaselineConfig, inputs: int, outputs: int, seed: int) -> None:
        """Initialise as PyTorch does: uniformly, within 1/sqrt(inputs of the layer), or 1/sqrt(neurons) in a GRU.

        Args:
            config: sizes.
            inputs, outputs: number of features and of readout values.
            seed: of the initial weights.
        """
        super().__init__()
        self.config = config
        self.inputs = inputs
        self.outputs = outputs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build()

    @abstractmethod
    def _build(self) -> None:
        """Make the layers."""

    def effective(self) -> None:
        """Nothing: the parameters are used as they are."""

    def for_inference(self) -> None:
        """Nothing, as `effective`."""

    def limit_time_constants(self) -> None:
        """Nothing: there are no time constants."""

    def resting_potential(self, features: Tensor, effective: None) -> tuple[Tensor, ...]:
        """Nothing: there are no membranes."""
        return ()

    @abstractmethod
    def step(self, features: Tensor, state: Any, effective: None) -> tuple[Tensor, Any, tuple[Tensor, ...]]:
        """One control step."""

    def unroll(self, features: Tensor, state: Any, effective: None) -> tuple[Tensor, tuple[Tensor, ...], Any]:
        """Many control steps, from a state into which no gradient flows.

        Args:
            features: [steps, batch, inputs].
            state: before the first step.
            effective: from `effective()`.
        Returns:
            The readout [steps, batch, outputs], no spikes, and the state after the last step, detached.
        """
        outputs, state = [], state.detach()
        for now in features:
            readout, state, _ = self.step(now, state, effective)
            outputs.append(readout)
        return torch.stack(outputs), (), state.detach()


class GRUNetwork(_Baseline):
    """Features -> layers of gated recurrent units (Cho et al. 2014) -> linear readout of the last layer.

    The hidden values persist from control step to control step and are handed in and out, as the state of the spiking
    networks is.
    """

    def _build(self) -> None:
        sizes = (self.inputs, *self.config.hidden)
        self.cells = nn.ModuleList(nn.GRUCell(before, after) for before, after in pairwise(sizes))
        self.readout = nn.Linear(sizes[-1], self.outputs)

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


class MLPNetwork(_Baseline):
    """Features -> fully connected layers with rectified linear units -> linear readout."""

    def _build(self) -> None:
        self.layers = _perceptron((self.inputs, *self.config.hidden, self.outputs))

    def initial_state(self, batch: int) -> MLPState:
        """The empty state."""
        del batch
        return MLPState()

    def step(self, features: Tensor, state: MLPState, effective: None) -> tuple[Tensor, MLPState, tuple[Tensor, ...]]:
        """One control step; arguments and results as `GRUNetwork.step`."""
        del effective
        return self.layers(features), state, ()


def _perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers between these sizes with a nonlinearity between every two."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
