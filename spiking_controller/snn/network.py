"""A layered spiking network: analogue features in, K ticks of spiking layers, a leaky readout out. State is explicit.

The network is stepped once per control step. Within a step the features are constant; neuron state persists from
step to step and is handed in and out. Time constants, weights and gains that depend only on the parameters are
computed once per pass (`SpikingNetwork.effective`) and reused by every step of an unroll.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from spiking_controller.snn import initialisation
from spiking_controller.snn.compiled.parameters import (
    LayerParameters,
    ReadoutParameters,
    UnrollOptions,
    UnrollParameters,
)
from spiking_controller.snn.compiled.single_step import SingleStep
from spiking_controller.snn.compiled.unroll import Unroll, unroll
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.fixed_point import round_rows
from spiking_controller.snn.neurons import Backend, LIFDecay, LIFState, initial_state, scan
from spiking_controller.snn.readout import (
    ReadoutResponse,
    read_out,
    readout_response,
    rounded_read_out,
    saturating_read_out,
)
from spiking_controller.snn.state import LayerState, NetworkState

_SHORTEST_TAU = 1e-3


class Weights(NamedTuple):
    """Weights and biases as they act: the parameters of the same names, rounded if the configuration says so."""

    input_weight: Tensor
    bias: tuple[Tensor, ...]
    expand: tuple[Tensor, ...]
    compress: tuple[Tensor, ...]
    recurrent_expand: tuple[Tensor, ...]
    recurrent_compress: tuple[Tensor, ...]
    readout_weight: tuple[Tensor, ...]


class Effective(NamedTuple):
    """Weights, decay factors, gains and the readout's response, computed from the parameters once per unroll.

    `readout` covers the ticks of a control step, or a single tick where the state is rounded in every tick. `single`
    takes the steps at batch 1; only `SpikingNetwork.for_inference` sets it.
    """

    weights: Weights
    decays: tuple[LIFDecay, ...]
    input_gain: Tensor
    output_gain: Tensor
    readout: ReadoutResponse
    single: SingleStep | None = None


class _Constants(nn.Module):
    """Tensors of a network that are not trained; iterates and is saved as an `nn.ParameterList` would be."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        for index, tensor in enumerate(tensors):
            self.register_buffer(str(index), tensor)

    def __iter__(self) -> Iterator[Tensor]:
        return self.buffers()


class SpikingNetwork(nn.Module):
    """Features -> spiking layers -> leaky readout, from every layer or the last.

    The first layer receives W·x + b, constant over the step, or with a delay that of the step before in its first
    ticks; each further layer the spikes of the one before, through
    A·B with latent rank k; a recurrent layer also its own spikes, through another A·B: their mean over the previous
    control step, or those of the previous tick.
    """

    log_tau: nn.ParameterList | _Constants
    readout_log_tau: Tensor

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int, seed: int, backend: Backend = "fused") -> None:
        """Draw the initial weights.

        Args:
            config: sizes and initial values.
            inputs, outputs: number of features and of readout values.
            seed: of the initial weights.
            backend: how a layer's ticks are run, see `neurons.scan`.
        """
        super().__init__()
        self.config = config
        self.inputs = inputs
        self.outputs = outputs
        self.backend: Backend = backend
        generator = torch.Generator().manual_seed(seed)
        layers = range(len(config.hidden))
        # Standard deviation of a layer's feed-forward weights, and of its recurrent ones, relative to all of them.
        feed_forward = [math.sqrt(config.feed_forward_variance) if config.is_recurrent(i) else 1.0 for i in layers]
        recurrent = math.sqrt(1.0 - config.feed_forward_variance)

        time_constants = (config.tau_synaptic, config.tau_membrane, config.tau_adaptation)
        log_tau = [_log_time_constants(config, time_constants, neurons) for neurons in config.hidden]
        self.log_tau = _Constants(log_tau) if config.time_constants == "fixed" else nn.ParameterList(log_tau)
        self.input_weight = nn.Parameter(
            initialisation.weights(
                config.initialisation,
                config.hidden[0],
                inputs,
                feed_forward[0] * _input_weight_deviation(config, inputs),
                generator,
            )
        )
        self.bias = nn.ParameterList()
        fan_in = inputs
        for neurons in config.hidden:
            bound = 1.0 / math.sqrt(fan_in)
            self.bias.append(nn.Parameter((torch.rand(neurons, generator=generator) * 2.0 - 1.0) * bound))
            fan_in = neurons
        self.expand = nn.ParameterList()
        self.compress = nn.ParameterList()
        for index in layers[1:]:
            before, after = config.hidden[index - 1 : index + 1]
            self._append_weights(self.expand, self.compress, after, before, feed_forward[index], generator)
        self.recurrent_expand = nn.ParameterList()
        self.recurrent_compress = nn.ParameterList()
        for index, neurons in enumerate(config.hidden):
            if config.is_recurrent(index):
                self._append_weights(
                    self.recurrent_expand, self.recurrent_compress, neurons, neurons, recurrent, generator
                )
        read_out = [neurons for index, neurons in enumerate(config.hidden) if config.is_read_out(index)]
        self.readout_weight = nn.ParameterList(
            nn.Parameter(
                initialisation.weights(
                    config.initialisation,
                    outputs,
                    neurons,
                    initialisation.spike_weight_deviation(
                        sum(read_out),
                        config.rate,
                        config.tau_readout_synaptic,
                        config.tau_readout_membrane,
                        config.tick,
                    ),
                    generator,
                )
            )
            for neurons in read_out
        )
        readout_time_constants = (config.tau_readout_synaptic, config.tau_readout_membrane)
        readout_log_tau = _log_time_constants(config, readout_time_constants, outputs)
        if config.time_constants == "fixed":
            self.register_buffer("readout_log_tau", readout_log_tau)
        else:
            self.readout_log_tau = nn.Parameter(readout_log_tau)
        gains = torch.full((inputs,) if config.input_gains == "per_input" else (), config.input_gain)
        self.log_input_gain = nn.Parameter(gains.log())
        self.log_output_gain = nn.Parameter(torch.full((outputs,), config.output_gain).log())

    def _append_weights(
        self,
        expand: nn.ParameterList,
        compress: nn.ParameterList,
        after: int,
        before: int,
        share: float,
        generator: Generator,
    ) -> None:
        """Weights between spiking neurons: A and B of rank k, or one full matrix in `expand` if k is 0."""
        config = self.config
        deviation = share * initialisation.spike_weight_deviation(
            before, config.rate, config.tau_synaptic, config.tau_membrane, config.tick
        )
        if config.rank and config.rank < min(before, after):
            left, right = initialisation.low_rank_weights(
                config.initialisation, after, before, config.rank, deviation, generator
            )
            expand.append(nn.Parameter(left))
            compress.append(nn.Parameter(right))
        else:
            full = initialisation.weights(config.initialisation, after, before, deviation, generator)
            expand.append(nn.Parameter(full))

    @staticmethod
    def _through(spikes: Tensor, expand: Sequence[Tensor], compress: Sequence[Tensor], index: int) -> Tensor:
        latent = spikes @ compress[index].t() if len(compress) else spikes
        return latent @ expand[index].t()

    def weights(self) -> Weights:
        """The current weights and biases as they act; differentiable."""
        bits, fixed_point = self.config.weight_bits, self.config.fixed_point

        def rounded(weight: Tensor) -> Tensor:
            return weight if bits is None else round_rows(weight, bits)

        return Weights(
            rounded(self.input_weight),
            tuple(bias if fixed_point is None else fixed_point.round(bias) for bias in self.bias),
            *(
                tuple(map(rounded, weights))
                for weights in (
                    self.expand,
                    self.compress,
                    self.recurrent_expand,
                    self.recurrent_compress,
                    (*self._no_readout(), *self.readout_weight),
                )
            ),
        )

    def _no_readout(self) -> list[Tensor]:
        """Readout weights of zero, of the layers that are not read out."""
        like = self.readout_weight[0]
        not_read = self.config.hidden[: len(self.config.hidden) - len(self.readout_weight)]
        return [like.new_zeros(self.outputs, neurons) for neurons in not_read]

    def effective(self) -> Effective:
        """Weights, decay factors, gains and readout response of the current parameters; differentiable."""
        tick = self.config.tick

        def decay(log_tau: Tensor, neurons: int) -> Tensor:
            # A layer that shares its time constants has one column, but the kernels take one value per neuron.
            return torch.exp(-tick * torch.exp(-log_tau)).expand(-1, neurons).contiguous()

        readout = decay(self.readout_log_tau, self.outputs)
        return Effective(
            self.weights(),
            tuple(
                LIFDecay(*decay(log_tau, neurons))
                for log_tau, neurons in zip(self.log_tau, self.config.hidden, strict=True)
            ),
            self.log_input_gain.exp(),
            self.log_output_gain.exp(),
            readout_response(readout[0], readout[1], self.config.ticks if self._readout_is_linear else 1),
        )

    @property
    def _readout_is_linear(self) -> bool:
        """Whether the readout over the ticks of a step has a closed form."""
        return self.config.fixed_point is None and self.config.readout_leak == "membrane"

    @torch.no_grad()
    def for_inference(self) -> Effective:
        """`effective` for steps without gradients, with the compiled step at batch 1 where there is one."""
        effective = self.effective()
        has_way = self.config.recurrence != "tick" and self.config.readout_leak == "membrane" and self.config.delay == 0
        if self.backend != "fused" or not has_way:
            return effective
        return effective._replace(single=SingleStep(self.unroll_parameters(effective), self._unroll_options))

    @torch.no_grad()
    def limit_time_constants(self) -> None:
        """Bring learned time constants back into their bounds; call after every update."""
        if self.config.time_constants == "fixed":
            return
        shortest = math.log(_SHORTEST_TAU)
        for log_tau in self.log_tau:
            log_tau.clamp_(shortest, math.log(self.config.longest_tau))
        self.readout_log_tau.clamp_(shortest, math.log(self.config.longest_readout_tau))

    @torch.no_grad()
    def convert_ticks(self, tick: float) -> None:
        """Fit weights that were learned with ticks of another length to this network's.

        Time constants are in seconds, but a drive is added in every tick: features and biases d settle at
        syn = d / (1 - β), and spikes at the rate f give the mean syn = w·f·tick / (1 - β), with β = exp(-tick/τ). The
        weights are scaled so that each neuron's mean synaptic current stays the same for the same features and rates.

        Args:
            tick: length of the ticks that the weights were learned with, s.
        """
        if tick == self.config.tick:
            return

        def scale(log_tau: Tensor) -> Tensor:
            rate = torch.exp(-log_tau[0])
            return torch.expm1(-self.config.tick * rate) / torch.expm1(-tick * rate)

        for index, log_tau in enumerate(self.log_tau):
            of_drive = scale(log_tau)
            of_spikes = (of_drive * tick / self.config.tick).unsqueeze(-1)
            self.bias[index].mul_(of_drive)
            if index == 0:
                self.input_weight.mul_(of_drive.unsqueeze(-1))
            else:
                self.expand[index - 1].mul_(of_spikes)
            if self.config.is_recurrent(index):
                self.recurrent_expand[index].mul_(of_spikes)
        of_readout = (scale(self.readout_log_tau) * tick / self.config.tick).unsqueeze(-1)
        for weight in self.readout_weight:
            weight.mul_(of_readout)

    @torch.no_grad()
    def shift_rest(self, layer: int, neurons: Tensor, amount: float) -> None:
        """Move the membrane potential at which some neurons rest without input, through their bias.

        A constant drive b settles at b / (1 - β_syn), in units of the resting threshold.

        Args:
            layer: index of the hidden layer.
            neurons: which, bool, [neurons].
            amount: by how much.
        """
        self.bias[layer] += amount * (1.0 - self.effective().decays[layer].synaptic) * neurons

    def initial_state(self, batch: int) -> NetworkState:
        """The state at the start of an episode, for `batch` independent copies."""
        like = self.input_weight
        layers = tuple(
            LayerState(initial_state(batch, neurons, self.config.threshold, like), like.new_zeros(batch, neurons))
            for neurons in self.config.hidden
        )
        zeros = like.new_zeros(batch, self.outputs)
        is_held = self.config.delta is not None or self.config.delay > 0
        held = like.new_zeros(batch, self.inputs) if is_held else None
        return NetworkState(layers, zeros, zeros, held)

    def received(self, features: Tensor, state: NetworkState) -> Tensor:
        """The features that the first layer works with: all as they are now, or on change only those that changed.

        Args:
            features: as they are now, [batch, inputs].
            state: the network's state before the step.
        """
        if state.held_features is None or self.config.delta is None:
            return features
        has_changed = (features - state.held_features).abs() > self.config.delta
        return torch.where(has_changed, features, state.held_features)

    def input_drive(self, features: Tensor, effective: Effective) -> Tensor:
        """The constant drive of the first layer, [..., neurons], from features [..., inputs]."""
        weights = effective.weights
        return nn.functional.linear(features * effective.input_gain, weights.input_weight, weights.bias[0])

    def resting_potential(self, features: Tensor, effective: Effective) -> tuple[Tensor, ...]:
        """Where the membranes of each layer settle while no neuron fires, in units of the resting threshold.

        A constant drive b settles at b / (1 - β_syn).

        Args:
            features: [batch, inputs].
            effective: from `effective()`, of the same parameters.
        Returns:
            [batch, neurons] of the first layer, which the features drive; [neurons] of the others.
        """
        drives = [self.input_drive(features, effective), *list(self.bias)[1:]]
        return tuple(drive / (1.0 - decay.synaptic) for drive, decay in zip(drives, effective.decays, strict=True))

    def unroll(
        self, features: Tensor, state: NetworkState, effective: Effective
    ) -> tuple[Tensor, tuple[Tensor, ...], NetworkState]:
        """Many control steps, from a state into which no gradient flows.

        Args:
            features: analogue inputs, [steps, batch, inputs].
            state: the network's state before the first step.
            effective: from `effective()`, of the same parameters.
        Returns:
            The readout [steps, batch, outputs], the mean spikes per tick of each layer [steps, batch, neurons], and the
            state after the last step, detached.
        """
        if self.compiled:
            parameters = self.unroll_parameters(effective)
            return unroll(parameters, self._unroll_options, state, features)
        outputs, spikes, state = [], [], state.detach()
        for now in features:
            readout, state, fired = self.step(now, state, effective)
            outputs.append(readout)
            spikes.append(fired)
        activity = tuple(torch.stack([layer.mean(0) for layer in layers]) for layers in zip(*spikes, strict=True))
        return torch.stack(outputs), activity, state.detach()

    @property
    def compiled(self) -> bool:
        """Whether unrolls take the compiled way, which knows neither fixed point nor features sent on change."""
        return self.backend == "fused" and self.config.fixed_point is None and self.config.delta is None

    @property
    def _unroll_options(self) -> UnrollOptions:
        config = self.config
        return UnrollOptions(
            config.threshold,
            config.surrogate,
            config.ticks,
            config.recurrence,
            config.recurrent_layers,
            config.readout_leak,
            config.delay,
            config.fixed_point,
        )

    def unroll_parameters(self, effective: Effective) -> UnrollParameters:
        """All parameters as the compiled unroll takes them; differentiable."""
        weights = effective.weights
        layers = tuple(
            LayerParameters(
                decay,
                weights.readout_weight[index],
                weights.bias[index],
                weights.expand[index - 1] if index > 0 else weights.input_weight * effective.input_gain,
                weights.compress[index - 1] if index > 0 and weights.compress else None,
                weights.recurrent_expand[index] if self.config.is_recurrent(index) else None,
                weights.recurrent_compress[index]
                if self.config.is_recurrent(index) and weights.recurrent_compress
                else None,
            )
            for index, decay in enumerate(effective.decays)
        )
        response = effective.readout
        readout = ReadoutParameters(
            response.synaptic_keep,
            response.synaptic_gain.squeeze(1),
            response.membrane_keep,
            response.membrane_from_synaptic,
            response.membrane_gain.squeeze(1),
            effective.output_gain,
        )
        return UnrollParameters(layers, readout)

    def start_unroll(self, effective: Effective, state: NetworkState, steps: int, batch: int) -> Unroll:
        """An unroll of `steps` steps that the caller advances itself, from a state into which no gradient flows."""
        return Unroll(self.unroll_parameters(effective), self._unroll_options, state, steps, batch)

    def step(
        self, features: Tensor, state: NetworkState, effective: Effective
    ) -> tuple[Tensor, NetworkState, tuple[Tensor, ...]]:
        """One control step.

        Args:
            features: analogue inputs, [batch, inputs].
            state: the network's state before the step.
            effective: from `effective()` or `for_inference()`, of the same parameters.
        Returns:
            The readout [batch, outputs], the state after the step, and the spikes of each layer,
            [ticks, batch, neurons].
        """
        features = self.received(features, state)
        held = None if state.held_features is None else features
        if effective.single is not None and len(features) == 1:
            readout, after, fired = effective.single.step(features, state)
            return readout, after._replace(held_features=held), fired
        config, weights = self.config, effective.weights
        drive = self.input_drive(features, effective).unsqueeze(0)
        if config.delay > 0 and state.held_features is not None:
            late = self.input_drive(state.held_features, effective).unsqueeze(0)
            drive = torch.cat([late] * config.delay + [drive] * (config.ticks - config.delay))
        layers: list[LayerState] = []
        all_spikes: list[Tensor] = []
        currents: Tensor | None = None
        for index, (layer, decay) in enumerate(zip(state.layers, effective.decays, strict=True)):
            if index > 0:
                drive = self._through(all_spikes[-1], weights.expand, weights.compress, index - 1)
                drive = drive + weights.bias[index]
            is_recurrent = config.is_recurrent(index)
            if is_recurrent and config.recurrence == "step":
                mean, recurrent = layer.mean_spikes, (weights.recurrent_expand, weights.recurrent_compress)
                drive = drive + self._through(mean, *recurrent, index)
            if is_recurrent and config.recurrence == "tick":
                spikes, neurons = self._scan_tick_by_tick(drive, layer, decay, weights, index)
                fed_back = spikes[-1]
            else:
                spikes, neurons = scan(
                    drive,
                    layer.neurons,
                    decay,
                    config.threshold,
                    ticks=config.ticks,
                    surrogate=config.surrogate,
                    backend=self.backend,
                    fixed_point=config.fixed_point,
                )
                fed_back = spikes.mean(0)
            layers.append(LayerState(neurons, fed_back))
            all_spikes.append(spikes)
            current = spikes @ weights.readout_weight[index].t()
            currents = current if currents is None else currents + current
        assert currents is not None
        synaptic, membrane = state.readout_synaptic, state.readout_membrane
        if config.readout_leak == "output":
            currents = currents * effective.output_gain
            readout, synaptic, membrane = saturating_read_out(currents, synaptic, membrane, effective.readout)
        else:
            if config.fixed_point is None:
                synaptic, membrane = read_out(currents, synaptic, membrane, effective.readout)
            else:
                synaptic, membrane = rounded_read_out(
                    currents, synaptic, membrane, effective.readout, config.fixed_point
                )
            readout = membrane * effective.output_gain
        return readout, NetworkState(tuple(layers), synaptic, membrane, held), tuple(all_spikes)

    def _scan_tick_by_tick(
        self, drive: Tensor, layer: LayerState, decay: LIFDecay, weights: Weights, index: int
    ) -> tuple[Tensor, LIFState]:
        """`scan` of the layer of that index, where every tick also receives the layer's spikes of the tick before."""
        config = self.config
        neurons, fired = layer
        ticks: list[Tensor] = []
        for now in drive.expand(config.ticks, -1, -1):
            fed_back = self._through(fired, weights.recurrent_expand, weights.recurrent_compress, index)
            spikes, neurons = scan(
                (now + fed_back).unsqueeze(0),
                neurons,
                decay,
                config.threshold,
                ticks=1,
                surrogate=config.surrogate,
                backend=self.backend,
                fixed_point=config.fixed_point,
            )
            fired = spikes[0]
            ticks.append(fired)
        return torch.stack(ticks), neurons


def _input_weight_deviation(config: NetworkConfig, inputs: int) -> float:
    """Standard deviation of fluctuation-driven weights from the features, without recurrence."""
    if config.input_weights == "spiking":
        return initialisation.spike_weight_deviation(
            inputs, config.rate, config.tau_synaptic, config.tau_membrane, config.tick
        )
    return initialisation.analogue_weight_deviation(inputs, config.tau_synaptic, config.tick) / config.input_gain


def _log_time_constants(config: NetworkConfig, seconds: tuple[float, ...], neurons: int) -> Tensor:
    """Logarithms of initial time constants, [len(seconds), neurons], or [len(seconds), 1] if the neurons share them."""
    return torch.tensor(seconds).log().unsqueeze(1).repeat(1, neurons if config.time_constants == "per_neuron" else 1)
