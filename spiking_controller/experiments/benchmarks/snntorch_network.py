"""A spiking network built from plain snntorch modules: what `snn.network.SpikingNetwork` is compared with.

It is a `networks.features.ControlNetwork` too, so that forward model, policy, losses and optimisers run on either of
the two unchanged.
"""

import math
from typing import NamedTuple

import snntorch
import torch
from torch import Tensor, nn

from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.neurons import Backend
from spiking_controller.snn.surrogate import spike_function


class SnntorchState(NamedTuple):
    """State of the network; per hidden layer [batch, neurons], of the readout [batch, outputs].

    Attributes:
        synaptic, membrane: of each hidden layer.
        fed_back: of each hidden layer the mean spikes of the last control step, or with tick-wise recurrence the spikes
            of its last tick.
        readout_synaptic, readout_membrane: of the readout; as in `snn.state.NetworkState`.
        held_features: of the control step before, [batch, inputs], where features come late.
    """

    synaptic: tuple[Tensor, ...]
    membrane: tuple[Tensor, ...]
    fed_back: tuple[Tensor, ...]
    readout_synaptic: Tensor
    readout_membrane: Tensor
    held_features: Tensor

    def detach(self) -> "SnntorchState":
        """The same state without its history."""
        return SnntorchState(
            tuple(layer.detach() for layer in self.synaptic),
            tuple(layer.detach() for layer in self.membrane),
            tuple(layer.detach() for layer in self.fed_back),
            self.readout_synaptic.detach(),
            self.readout_membrane.detach(),
            self.held_features.detach(),
        )


class SnntorchNetwork(nn.Module):
    """The counterpart of a `SpikingNetwork`: same sizes, connections, time constants and weights.

    Weights are `nn.Linear`, latent compression a pair of them; neurons are `snntorch.Synaptic` with a learnable alpha
    and beta per neuron, called tick by tick with their state passed in and out; the readout is one without reset.
    The features are constant over a control step; still their product is taken in every tick, as in snntorch's own
    examples, unless the network is to be `tuned`: then once per step, or for a whole window.

    What differs from `SpikingNetwork`:
        - snntorch has no adaptive threshold: the neurons are plain LIF with threshold 1, whatever the original's are.
        - its membrane lacks the factor (1 - β): mem <- β·mem + syn. The factor, and the input and output gains, are
          multiplied into the weights.
        - alpha and beta are learnt themselves, not the logarithms of the time constants.
        - it resets at once (`reset_delay=False`) like ours, but lets the gradient through the reset; and a neuron
          whose membrane lies above threshold even after the reset does not fire in the next tick below 2·threshold.
    """

    backend: Backend = "torch"
    compiled = False

    def __init__(self, original: SpikingNetwork, *, tuned: bool) -> None:
        """Build the counterpart of a network and copy its present weights and time constants.

        Args:
            original: the network.
            tuned: take out of the ticks what need not be in them; the values stay the same.
        """
        super().__init__()
        self._tuned = tuned
        self.config = original.config
        self.inputs = original.inputs
        self.outputs = original.outputs
        with torch.no_grad():
            effective = original.effective()
            # What a unit of drive adds to the membrane in the same tick, [neurons, 1].
            shares = [(1.0 - decay.membrane).unsqueeze(1) for decay in effective.decays]
            biases = [share.squeeze(1) * bias for share, bias in zip(shares, original.bias, strict=True)]
            self.input = _linear(shares[0] * original.input_weight * effective.input_gain, biases[0])
            self.between = nn.ModuleList(
                _projection(shares[index] * expand, _at(original.compress, index - 1), biases[index])
                for index, expand in enumerate(original.expand, start=1)
            )
            self.recurrent = nn.ModuleList(
                _projection(shares[index] * expand, _at(original.recurrent_compress, index), None)
                for index, expand in enumerate(original.recurrent_expand)
            )
            self.neurons = nn.ModuleList(
                self._neuron(decay.synaptic, decay.membrane, self.config.reset) for decay in effective.decays
            )
            decay_synaptic, decay_membrane = torch.exp(-self.config.tick * torch.exp(-original.readout_log_tau))
            gain = ((1.0 - decay_membrane) * effective.output_gain).unsqueeze(1)
            self.readout = nn.ModuleList(_linear(gain * weight, None) for weight in original.readout_weight)
            self.readout_neuron = self._neuron(decay_synaptic, decay_membrane, "none")

    def _neuron(self, alpha: Tensor, beta: Tensor, reset_mechanism: str) -> snntorch.Synaptic:
        return snntorch.Synaptic(
            alpha.clone(),
            beta.clone(),
            spike_grad=spike_function(self.config.surrogate),
            learn_alpha=True,
            learn_beta=True,
            reset_mechanism=reset_mechanism,
            reset_delay=False,
        )

    def effective(self) -> None:
        """Nothing is prepared per unroll: snntorch's modules work from their parameters in every tick."""

    def for_inference(self) -> None:
        """Nothing, as `effective`."""

    @torch.no_grad()
    def limit_time_constants(self) -> None:
        """Bring alpha and beta back to where the time constants keep their upper bounds; call after every update."""
        for neuron in self.neurons:
            self._limit(neuron, self.config.longest_tau)
        self._limit(self.readout_neuron, self.config.longest_readout_tau)

    def _limit(self, neuron: snntorch.Synaptic, longest_tau: float) -> None:
        for decay in (neuron.alpha, neuron.beta):
            decay.clamp_(0.0, math.exp(-self.config.tick / longest_tau))

    def resting_potential(self, features: Tensor, effective: None) -> tuple[Tensor, ...]:
        """Where the membranes of each layer settle while no neuron fires; see `SpikingNetwork.resting_potential`."""
        del effective
        drives = [self.input(features), *(list(between.parameters())[-1] for between in self.between)]
        rest = []
        for drive, neuron in zip(drives, self.neurons, strict=True):
            assert isinstance(neuron, snntorch.Synaptic)
            rest.append(drive / ((1.0 - neuron.alpha) * (1.0 - neuron.beta)))
        return tuple(rest)

    def initial_state(self, batch: int) -> SnntorchState:
        """The state at the start of an episode, for `batch` independent copies."""
        layers = tuple(self.input.weight.new_zeros(batch, neurons) for neurons in self.config.hidden)
        readout = self.input.weight.new_zeros(batch, self.outputs)
        held = self.input.weight.new_zeros(batch, self.inputs)
        return SnntorchState(layers, layers, layers, readout, readout, held)

    def unroll(
        self, features: Tensor, state: SnntorchState, effective: None
    ) -> tuple[Tensor, tuple[Tensor, ...], SnntorchState]:
        """Many control steps from features [steps, batch, inputs]; see `SpikingNetwork.unroll`."""
        del effective
        readouts, activity, state = [], [], state.detach()
        drives = self.input(features) if self._tuned else features
        for now, drive in zip(features, drives, strict=True):
            readout, state, spikes = self._step(drive, state, now)
            readouts.append(readout)
            activity.append([layer.mean(0) for layer in spikes])
        by_layer = tuple(torch.stack(layer) for layer in zip(*activity, strict=True))
        return torch.stack(readouts), by_layer, state.detach()

    def step(
        self, features: Tensor, state: SnntorchState, effective: None
    ) -> tuple[Tensor, SnntorchState, tuple[Tensor, ...]]:
        """One control step from features [batch, inputs]; see `SpikingNetwork.step`."""
        del effective
        return self._step(self.input(features) if self._tuned else features, state, features)

    def _step(
        self, source: Tensor, state: SnntorchState, features: Tensor
    ) -> tuple[Tensor, SnntorchState, tuple[Tensor, ...]]:
        """One control step, from the first layer's drive, [batch, neurons], if tuned, else from the features."""
        config = self.config
        synaptic, membrane = list(state.synaptic), list(state.membrane)
        readout_synaptic, readout_membrane = state.readout_synaptic, state.readout_membrane
        late = state.held_features
        if self._tuned and config.delay > 0:
            late = self.input(late)
        is_tick_wise = config.recurrence == "tick"
        feedback = self._feedback(state.fed_back) if self._tuned and not is_tick_wise else []
        first_read = len(self.neurons) - len(self.readout)
        recorded: tuple[list[Tensor], ...] = tuple([] for _ in self.neurons)
        last, potential = state.fed_back, readout_membrane
        for tick in range(config.ticks):
            output = torch.zeros(())
            if is_tick_wise or not self._tuned:
                feedback = self._feedback(last if is_tick_wise else state.fed_back)
            for index, neuron in enumerate(self.neurons):
                if index:
                    drive = self.between[index - 1](recorded[index - 1][-1])
                else:
                    now = late if tick < config.delay else source
                    drive = now if self._tuned else self.input(now)
                if index < len(feedback):
                    drive = drive + feedback[index]
                spikes, synaptic[index], membrane[index] = neuron(drive, synaptic[index], membrane[index])
                recorded[index].append(spikes)
                if index >= first_read:
                    output = output + self.readout[index - first_read](spikes)
            _, readout_synaptic, potential = self.readout_neuron(output, readout_synaptic, readout_membrane)
            readout_membrane = torch.tanh(potential) if config.readout_leak == "output" else potential
            last = tuple(layer[-1] for layer in recorded)
        spikes_by_layer = tuple(torch.stack(layer) for layer in recorded)
        fed_back = state.fed_back
        if len(self.recurrent) > 0:
            fed_back = last if is_tick_wise else tuple(layer.mean(0) for layer in spikes_by_layer)
        after = SnntorchState(tuple(synaptic), tuple(membrane), fed_back, readout_synaptic, readout_membrane, features)
        return potential, after, spikes_by_layer

    def _feedback(self, fed_back: tuple[Tensor, ...]) -> list[Tensor]:
        """What each recurrent layer receives of its own spikes."""
        return [project(spikes) for project, spikes in zip(self.recurrent, fed_back, strict=False)]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer that starts with these values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def _projection(expand: Tensor, compress: Tensor | None, bias: Tensor | None) -> nn.Sequential:
    """Weights between spiking neurons: compression and expansion, or one full matrix if there is no compression."""
    last = _linear(expand, bias)
    return nn.Sequential(last) if compress is None else nn.Sequential(_linear(compress, None), last)


def _at(compress: nn.ParameterList, index: int) -> Tensor | None:
    return compress[index] if len(compress) else None
