"""What networks cost: size, sparsity and operations per control step, and an estimate of the energy they need.

The definitions are NeuroBench's (Yik et al. 2025, "The neurobench framework for benchmarking neuromorphic computing
algorithms and systems", Nature Communications 16, 1545):

- effective operations: products of a value and a weight that are both not zero; ACs (accumulates) where the values are
  spikes, MACs (multiply-accumulates) where they are analogue. Biases and activation functions do not count. Together
  they are the synaptic operations.
- dense operations: the same if no value and no weight were zero.
- activation sparsity: share of zeros among the values of the hidden units, over units, ticks, steps and episodes.
- connection sparsity: share of zeros among the weights. Footprint: bytes of parameters and buffers.

Its package counts with hooks on `nn.Linear` and `nn.GRUCell` modules, which the spiking networks do not consist of. So
this module counts, connection by connection, and a test holds the counts equal to the package's.

How a spiking network is counted, per control step:

- features to the first layer: MACs, once, since the features are constant over the ticks. Where they are sent on
  change, only those that were sent: the layer holds its drive, and adds the weights times the change.
- spikes to the next layer or to the readout: ACs. Through a low-rank connection A·B a spike passes its column of B
  (ACs), and the latent values, which are analogue, pass A in every tick (MACs).
- recurrence by the mean spikes of the step before: graded values, so MACs, once. By the spikes of the tick before: as
  from layer to layer.
- learnable gains are part of the weights around them, and no operations.

NeuroBench's synaptic operations leave out what a neuron does in a tick, and its count of neuron operations knows other
neurons than ours. They are given beside the rest as `neuron_update_macs`: per neuron and tick 3 MACs for synaptic
current and membrane, 2 more for threshold and adaptation; 3 for each readout. A GRU's products of gates and hidden
values are MACs, as NeuroBench counts them.

Rounded weights and state (`fixed_point`) change the footprint; an operation has the energy of 32-bit arithmetic
whatever its bits, so that energies compare.
"""

from collections.abc import Callable, Sequence
from functools import singledispatch
from itertools import chain
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from spiking_controller.networks.baselines import GRUNetwork, GRUState, MLPNetwork, MLPState
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.features import architecture_of
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.state import NetworkState
from spiking_controller.tasks.episodes import Episodes

MAC_ENERGY: Final = 4.6e-12
"""Of a 32-bit floating-point multiplication (3.7 pJ) and addition (0.9 pJ) in 45 nm, J (Horowitz 2014, "Computing's
energy problem (and what we can do about it)", ISSCC). Memory access is not part of it."""
AC_ENERGY: Final = 0.9e-12
"""Of the addition alone, J (Horowitz 2014)."""
LOIHI_SYNAPTIC_ENERGY: Final = 23.6e-12
"""Of a synaptic operation on Loihi, at least, J (Davies et al. 2018, "Loihi: a neuromorphic manycore processor with
on-chip learning", IEEE Micro 38, table of pre-silicon figures). MACs are counted at the same price as ACs."""

_LIF_MACS: Final = 3
_ADAPTATION_MACS: Final = 2


class Cost(NamedTuple):
    """Counts of some control steps of some arms; they add up.

    Attributes:
        effective_macs, effective_acs, dense: synaptic operations, see above.
        neuron_update_macs: of the neurons' own dynamics.
        activations, active: values of hidden units, and those of them that are not zero.
    """

    effective_macs: int = 0
    effective_acs: int = 0
    dense: int = 0
    neuron_update_macs: int = 0
    activations: int = 0
    active: int = 0

    def plus(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(*(mine + its for mine, its in zip(self, other, strict=True)))


def _products(values: Tensor, weight: Tensor) -> tuple[int, int]:
    """Products of values [..., inputs] and weights [outputs, inputs]: those of two non-zero factors, and all."""
    non_zero = (values != 0).reshape(-1, values.shape[-1]).sum(0)
    fan_out = (weight != 0).sum(0)
    return int((non_zero * fan_out).sum()), values.numel() * weight.shape[0]


def _analogue(values: Tensor, weight: Tensor) -> Cost:
    effective, dense = _products(values, weight)
    return Cost(effective_macs=effective, dense=dense)


def _spiking(spikes: Tensor, weight: Tensor) -> Cost:
    effective, dense = _products(spikes, weight)
    return Cost(effective_acs=effective, dense=dense)


@singledispatch
def step_cost(network: Any, features: Tensor, state: Any, spikes: tuple[Tensor, ...]) -> Cost:
    """What one control step of a network costs, summed over the batch.

    Args:
        network: spiking or a baseline.
        features: that it was given, [batch, inputs].
        state: before the step.
        spikes: of each layer in the step, [ticks, batch, neurons]; empty for a baseline.
    """
    raise TypeError(f"the operations of a {type(network).__name__} cannot be counted.")


@step_cost.register
def _(network: SpikingNetwork, features: Tensor, state: NetworkState, spikes: tuple[Tensor, ...]) -> Cost:
    config, weights = network.config, network.weights()
    held = state.held_features
    sent = features if held is None or config.delta is None else network.received(features, state) - held
    cost = _analogue(sent, weights.input_weight)
    for index, layer in enumerate(spikes):
        if index > 0:
            cost = cost.plus(_low_rank(spikes[index - 1], weights.expand, weights.compress, index - 1, _spiking))
        if config.is_recurrent(index):
            fed_back = state.layers[index].mean_spikes
            is_tick_wise = config.recurrence == "tick"
            if is_tick_wise:
                fed_back = torch.cat((fed_back.unsqueeze(0), layer[:-1]))
            count = _spiking if is_tick_wise else _analogue
            cost = cost.plus(_low_rank(fed_back, weights.recurrent_expand, weights.recurrent_compress, index, count))
        if config.is_read_out(index):
            cost = cost.plus(_spiking(layer, weights.readout_weight[index]))
        per_tick = _LIF_MACS + (_ADAPTATION_MACS if config.neuron == "adaptive_lif" else 0)
        cost = cost.plus(
            Cost(neuron_update_macs=per_tick * layer.numel(), activations=layer.numel(), active=int(layer.sum()))
        )
    return cost.plus(Cost(neuron_update_macs=_LIF_MACS * config.ticks * len(features) * network.outputs))


def _low_rank(
    values: Tensor,
    expand: Sequence[Tensor],
    compress: Sequence[Tensor],
    index: int,
    count: Callable[[Tensor, Tensor], Cost],
) -> Cost:
    """Through A·B, or through the one full matrix in `expand`; `count` says what the values are."""
    if not compress:
        return count(values, expand[index])
    latent = values @ compress[index].t()
    return count(values, compress[index]).plus(_analogue(latent, expand[index]))


@step_cost.register
def _(network: GRUNetwork, features: Tensor, state: GRUState, spikes: tuple[Tensor, ...]) -> Cost:
    cost = Cost()
    values = features
    for cell, hidden in zip(network.cells, state.hidden, strict=True):
        assert isinstance(cell, nn.GRUCell)
        cost = cost.plus(_analogue(values, cell.weight_ih)).plus(_analogue(hidden, cell.weight_hh))
        values = cell(values, hidden)
        # r·(W h + b), (1 - z)·n and z·h, element by element.
        gates = 2 * values.numel() + int((hidden != 0).sum())
        cost = cost.plus(Cost(effective_macs=gates, dense=3 * values.numel()))
        cost = cost.plus(Cost(activations=values.numel(), active=int((values != 0).sum())))
    return cost.plus(_analogue(values, network.readout.weight))


@step_cost.register
def _(network: MLPNetwork, features: Tensor, state: MLPState, spikes: tuple[Tensor, ...]) -> Cost:
    cost = Cost()
    values = features
    for layer in network.layers:
        if isinstance(layer, nn.Linear):
            cost = cost.plus(_analogue(values, layer.weight))
        values = layer(values)
        if not isinstance(layer, nn.Linear):
            cost = cost.plus(Cost(activations=values.numel(), active=int((values != 0).sum())))
    return cost


def connection_sparsity(network: nn.Module) -> float:
    """Share of zeros among the weights of all connections."""
    weights = [p for name, p in network.named_parameters() if p.dim() == 2 and "log_tau" not in name]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def footprint(network: nn.Module) -> int:
    """Bytes of parameters and buffers, and of the exponents of rounded weights, one for each row."""
    every = [*network.parameters(), *network.buffers()]
    bits = sum(8 * tensor.element_size() * tensor.numel() for tensor in every)
    if isinstance(network, SpikingNetwork):
        config, (input_weight, biases, *between) = network.config, network.weights()
        if config.weight_bits is not None:
            for weight in (input_weight, *chain(*between)):
                bits -= (32 - config.weight_bits) * weight.numel() - 8 * len(weight)
        if config.state_bits is not None:
            bits -= (32 - config.state_bits) * sum(bias.numel() for bias in biases)
    return -(-bits // 8)


def parameter_count(network: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def _stacked(states: Sequence[Any]) -> Any:
    """States of a network at batch 1 as one state of a batch: NamedTuples and tuples of tensors, part by part."""
    first = states[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    parts = [_stacked(part) for part in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


class CostMeter:
    """Adds up what one of the two networks costs, over control steps that somebody else carries out.

    Attributes:
        active_fractions: share of hidden units that were active, for each call of `add`.
    """

    def __init__(self, part: Policy | ForwardModel) -> None:
        self._network = part.network
        self._cost = Cost()
        self._layer_spikes = [0] * len(self._network.config.hidden)
        self._steps = 0
        self.active_fractions: list[float] = []

    def add(self, features: Tensor, state: Any, spikes: tuple[Tensor, ...]) -> None:
        """A control step; arguments as of `step_cost`."""
        cost = step_cost(self._network, features, state, spikes)
        self._cost = self._cost.plus(cost)
        self.active_fractions.append(cost.active / cost.activations)
        for index, layer in enumerate(spikes):
            self._layer_spikes[index] += int(layer.sum())
        self._steps += len(features)

    def add_singles(self, features: Tensor, states: Sequence[Any], spikes: Sequence[tuple[Tensor, ...]]) -> None:
        """Control steps that were made at batch 1: features [steps, inputs], state before and spikes of each."""
        layers = tuple(torch.cat(layer, dim=1) for layer in zip(*spikes, strict=True))
        self.add(features, _stacked(states), layers)

    def metrics(self) -> dict[str, Any]:
        """Of the steps that were counted, see `measure_complexity`; of none, what does not need any."""
        network, config, cost = self._network, self._network.config, self._cost
        assert isinstance(network, nn.Module)
        static = {
            "architecture": architecture_of(config),
            "parameters": parameter_count(network),
            "footprint_bytes": footprint(network),
            "connection_sparsity": connection_sparsity(network),
        }
        if not self._steps:
            return static
        macs, acs, updates = (
            count / self._steps for count in (cost.effective_macs, cost.effective_acs, cost.neuron_update_macs)
        )
        synaptic_energy = macs * MAC_ENERGY + acs * AC_ENERGY
        is_spiking = isinstance(network, SpikingNetwork)
        seconds = self._steps * config.ticks * config.tick
        return {
            **static,
            "activation_sparsity": 1.0 - cost.active / cost.activations,
            "effective_macs": macs,
            "effective_acs": acs,
            "dense_operations": cost.dense / self._steps,
            "neuron_update_macs": updates,
            "energy_45nm_j": synaptic_energy,
            "energy_45nm_with_neurons_j": synaptic_energy + updates * MAC_ENERGY,
            "energy_loihi_j": (macs + acs) * LOIHI_SYNAPTIC_ENERGY if is_spiking else None,
            "spikes_per_neuron_per_second": cost.active / (seconds * sum(config.hidden)) if is_spiking else None,
            "spikes_per_neuron_per_second_by_layer": {
                f"hidden{index + 1}": count / (seconds * neurons)
                for index, (count, neurons) in enumerate(zip(self._layer_spikes, config.hidden, strict=True))
                if is_spiking
            },
        }


class _Counter:
    """Runs one of the two networks step by step and adds up what it costs."""

    def __init__(self, part: Policy | ForwardModel, batch: int) -> None:
        self._network = part.network
        self._effective = part.for_inference()
        self._state = part.initial_state(batch)
        self._meter = CostMeter(part)

    def step(self, features: Tensor) -> None:
        """One control step with these features, [batch, inputs]."""
        before = self._state
        _, self._state, spikes = self._network.step(features, before, self._effective)
        self._meter.add(features, before, spikes)

    def metrics(self) -> dict[str, Any]:
        """See `measure_complexity`."""
        return self._meter.metrics()


def measure_complexity(checkpoint: Checkpoint, episodes: Episodes) -> dict[str, Any]:
    """What both networks cost on recorded episodes, which they go through again, step by step.

    Args:
        checkpoint: the networks.
        episodes: of the policy.
    Returns:
        For "policy" and "forward_model" the same figures: `architecture`, `parameters`, `footprint_bytes`,
        `connection_sparsity`, `activation_sparsity`; per control step `effective_macs`, `effective_acs`,
        `dense_operations`, `neuron_update_macs`, `energy_45nm_j` and `energy_45nm_with_neurons_j` (without and with the
        neuron updates) and `energy_loihi_j`; `spikes_per_neuron_per_second` and the same `_by_layer`. What only spikes
        have is None or empty for a baseline.
    """
    policy, model = checkpoint.policy, checkpoint.forward_model
    observation, action, goal = (
        torch.from_numpy(values) for values in (episodes.observation, episodes.action, episodes.goal)
    )
    batch, steps = action.shape[:2]
    with torch.inference_mode():
        of_policy, of_model = _Counter(policy, batch), _Counter(model, batch)
        previous = torch.zeros_like(action[:, 0])
        for step in range(steps):
            of_policy.step(policy.inputs(observation[:, step], previous, goal))
            of_model.step(model.inputs(observation[:, step], action[:, step], previous))
            previous = action[:, step]
    return {"policy": of_policy.metrics(), "forward_model": of_model.metrics()}
