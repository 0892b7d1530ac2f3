"""A spiking network built from plain snntorch modules: what `snn.network.SpikingNetwork` is compared with.

It is a `networks.features.ControlNetwork` too, so that forward model, policy, losses and optimisers run on either of
the two unchanged.
"""

import math
from typing import NamedTuple

import snntorch
import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.neurons import Backend
from spiking_controller.snn.surrogate import spike_function


class SnntorchState(NamedTuple):
    """State of the network; per hidden layer [batch, neurons], of the readout [batch, outputs].

    Attributes:
        synaptic, membrane: of each hidden layer.
        mean_spikes: of each hidden layer over the last control step.
        readout_synaptic, readout_membrane: of the readout.
    """

    synaptic: tuple[Tensor, ...]
    membrane: tuple[Tensor, ...]
    mean_spikes: tuple[Tensor, ...]
    readout_synaptic: Tensor
    readout_membrane: Tensor

    def detach(self) -> "SnntorchState":
        """The same state without its history."""
        return SnntorchState(
            tuple(layer.detach() for layer in self.synaptic),
            tuple(layer.detach() for layer in self.membrane),
            tuple(layer.detach() for layer in self.mean_spikes),
            self.readout_synaptic.detach(),
            self.readout_membrane.detach(),
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
        Raises:
            ConfigError: the network is recurrent from tick to tick.
        """
        super().__init__()
        if original.config.recurrence == "tick":
            raise ConfigError("recurrence 'tick' has no counterpart from snntorch modules; choose none or step.")
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
                self._neuron(decay.synaptic, decay.membrane, "subtract") for decay in effective.decays
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

    def initial_state(self, batch: int) -> SnntorchState:
        """The state at the start of an episode, for `batch` independent copies."""
        layers = tuple(self.input.weight.new_zeros(batch, neurons) for neurons in self.config.hidden)
        readout = self.input.weight.new_zeros(batch, self.outputs)
        return SnntorchState(layers, layers, layers, readout, readout)

    def unroll(
        self, features: Tensor, state: SnntorchState, effective: None
    ) -> tuple[Tensor, tuple[Tensor, ...], SnntorchState]:
        """Many control steps from features [steps, batch, inputs]; see `SpikingNetwork.unroll`."""
        del effective
        readouts, activity, state = [], [], state.detach()
        for drive in self.input(features) if self._tuned else features:
            readout, state, spikes = self._step(drive, state)
            readouts.append(readout)
            activity.append([layer.mean(0) for layer in spikes])
        by_layer = tuple(torch.stack(layer) for layer in zip(*activity, strict=True))
        return torch.stack(readouts), by_layer, state.detach()

    def step(
        self, features: Tensor, state: SnntorchState, effective: None
    ) -> tuple[Tensor, SnntorchState, tuple[Tensor, ...]]:
        """One control step from features [batch, inputs]; see `SpikingNetwork.step`."""
        del effective
        return self._step(self.input(features) if self._tuned else features, state)

    def _step(self, source: Tensor, state: SnntorchState) -> tuple[Tensor, SnntorchState, tuple[Tensor, ...]]:
        """One control step, from the first layer's drive, [batch, neurons], if tuned, else from the features."""
        synaptic, membrane = list(state.synaptic), list(state.membrane)
        readout_synaptic, readout_membrane = state.readout_synaptic, state.readout_membrane
        feedback = self._feedback(state) if self._tuned else []
        recorded: tuple[list[Tensor], ...] = tuple([] for _ in self.neurons)
        for _ in range(self.config.ticks):
            output = torch.zeros(())
            if not self._tuned:
                feedback = self._feedback(state)
            for index, neuron in enumerate(self.neurons):
                if index:
                    drive = self.between[index - 1](recorded[index - 1][-1])
                else:
                    drive = source if self._tuned else self.input(source)
                if feedback:
                    drive = drive + feedback[index]
                spikes, synaptic[index], membrane[index] = neuron(drive, synaptic[index], membrane[index])
                recorded[index].append(spikes)
                output = output + self.readout[index](spikes)
            _, readout_synaptic, readout_membrane = self.readout_neuron(output, readout_synaptic, readout_membrane)
        spikes_by_layer = tuple(torch.stack(layer) for layer in recorded)
        mean_spikes = tuple(layer.mean(0) for layer in spikes_by_layer) if feedback else state.mean_spikes
        after = SnntorchState(tuple(synaptic), tuple(membrane), mean_spikes, readout_synaptic, readout_membrane)
        return readout_membrane, after, spikes_by_layer

    def _feedback(self, state: SnntorchState) -> list[Tensor]:
        """What each layer receives from its spikes of the step before; none without recurrence."""
        return [project(spikes) for project, spikes in zip(self.recurrent, state.mean_spikes, strict=False)]


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
