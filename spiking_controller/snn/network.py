"""A layered spiking network: analogue features in, K ticks of spiking layers, a leaky readout out. State is explicit.

The network is stepped once per control step. Within a step the features are constant; neuron state persists from
step to step and is handed in and out. Time constants, weights and gains that depend only on the parameters are
computed once per pass (`SpikingNetwork.effective`) and reused by every step of an unroll.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Generator, Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.snn import initialisation
from spiking_controller.snn.compiled.kernels import MOST_TICKS
from spiking_controller.snn.compiled.layers import (
    LayerParameters,
    ReadoutParameters,
    UnrollOptions,
    UnrollParameters,
)
from spiking_controller.snn.compiled.single_step import SingleStep
from spiking_controller.snn.compiled.unroll import Unroll, unroll
from spiking_controller.snn.initialisation import Initialisation
from spiking_controller.snn.neurons import Backend, LIFDecay, LIFState, Threshold, initial_state, scan
from spiking_controller.snn.state import LayerState, NetworkState
from spiking_controller.snn.surrogate import surrogate_derivative

NeuronModel = Literal["adaptive_lif", "lif"]
Recurrence = Literal["none", "step", "tick"]
TimeConstants = Literal["per_neuron", "per_layer", "fixed"]

_SHORTEST_TAU = 1e-3


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and initial values of one spiking network.

    Attributes:
        hidden: neurons of each hidden layer.
        recurrence: what each layer receives of its own spikes: "none"; "step", their mean over the previous control
            step; "tick", those of the previous tick (the paper).
        rank: latent dimension of spike-to-spike weights (layer to layer and recurrent); 0 for full matrices.
        neuron: "adaptive_lif" or "lif".
        surrogate: name of the surrogate derivative: "gaussian", "multi_gaussian", "superspike" or "sigmoid".
        initialisation: of the weights, see `initialisation`: "fluctuation", "kaiming" or "uniform".
        ticks: SNN ticks per control step, K; at most 31, see `compiled.kernels`.
        tick: length of a tick, s.
        time_constants: whether they are learned "per_neuron", one "per_layer", or "fixed" at their initial values; the
            readout's likewise, its neurons being the outputs.
        tau_membrane, tau_synaptic, tau_adaptation: initial time constants, s.
        tau_readout_membrane, tau_readout_synaptic: the same for the readout, s.
        longest_tau, longest_readout_tau: upper bounds of the learnable time constants, s. Training sees unrolls of less
            than a second from an empty state; a readout with a memory beyond that turns into an integrator that winds
            up in longer episodes.
        threshold_decay: linear decay of the threshold base, 1/s (adaptive_lif).
        threshold_floor: lowest value of the threshold base, which rests at 1; None for no bound, as in the paper.
        adaptation_strength: ξ (adaptive_lif).
        input_gain, output_gain: initial learnable scales.
        rate: ν of the fluctuation-driven initialisation, Hz.
        feed_forward_variance: α of the same, fraction of the membrane's variance in a recurrent layer that comes from
            feed-forward input.
    """

    hidden: tuple[int, ...] = (256, 256)
    recurrence: Recurrence = "none"
    rank: int = 32
    neuron: NeuronModel = "adaptive_lif"
    surrogate: str = "multi_gaussian"
    initialisation: Initialisation = "fluctuation"
    ticks: int = 4
    tick: float = 0.005
    time_constants: TimeConstants = "per_neuron"
    tau_membrane: float = 0.006
    tau_synaptic: float = 0.003
    tau_adaptation: float = 0.1
    tau_readout_membrane: float = 0.02
    tau_readout_synaptic: float = 0.01
    longest_tau: float = 0.3
    longest_readout_tau: float = 0.1
    threshold_decay: float = 10.0
    threshold_floor: float | None = None
    adaptation_strength: float = 0.05
    input_gain: float = 0.5
    output_gain: float = 0.5
    rate: float = 50.0
    feed_forward_variance: float = 0.9

    def __post_init__(self) -> None:
        surrogate_derivative(self.surrogate)
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden = {self.hidden!r} must list at least one layer of at least one neuron.")
        for name, kinds in (
            ("neuron", NeuronModel),
            ("recurrence", Recurrence),
            ("initialisation", Initialisation),
            ("time_constants", TimeConstants),
        ):
            known = get_args(kinds)
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} '{getattr(self, name)}' is unknown; choose one of: {', '.join(known)}.")
        if self.rank < 0 or not 1 <= self.ticks <= MOST_TICKS:
            raise ConfigError(
                f"rank = {self.rank} must be at least 0, and ticks = {self.ticks} at least 1 and at most {MOST_TICKS}."
            )
        for name in (
            "tick",
            "tau_membrane",
            "tau_synaptic",
            "tau_adaptation",
            "longest_tau",
            "longest_readout_tau",
            "rate",
            "input_gain",
            "output_gain",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be above 0.")
        if self.threshold_floor is not None and not -math.inf < self.threshold_floor < 1.0:
            raise ConfigError(f"threshold_floor = {self.threshold_floor} must be finite and below 1, the rest.")
        if not 0 < self.feed_forward_variance <= 1:
            raise ConfigError(f"feed_forward_variance = {self.feed_forward_variance} must lie in (0, 1].")

    @property
    def threshold(self) -> Threshold:
        """How the firing threshold moves, per tick."""
        if self.neuron == "lif":
            return Threshold()
        floor = -math.inf if self.threshold_floor is None else self.threshold_floor
        return Threshold(1.0, self.threshold_decay * self.tick, self.adaptation_strength, floor)


class _ReadoutResponse(NamedTuple):
    """Closed form of the readout's leaky integrators over the K ticks of a step (they are linear).

    With currents c_k, k = 1..K: syn_K = synaptic_keep·syn_0 + Σ synaptic_gain_k·c_k, and
    mem_K = membrane_keep·mem_0 + membrane_from_synaptic·syn_0 + Σ membrane_gain_k·c_k.
    Gains are [ticks, 1, outputs], the rest [outputs].
    """

    synaptic_keep: Tensor
    synaptic_gain: Tensor
    membrane_keep: Tensor
    membrane_from_synaptic: Tensor
    membrane_gain: Tensor


class Effective(NamedTuple):
    """Decay factors, gains and the readout's response, computed from the parameters once per unroll.

    `single` takes the steps at batch 1; only `SpikingNetwork.for_inference` sets it.
    """

    decays: tuple[LIFDecay, ...]
    input_gain: Tensor
    output_gain: Tensor
    readout: _ReadoutResponse
    single: SingleStep | None = None


def readout_response(beta_synaptic: Tensor, beta_membrane: Tensor, ticks: int) -> _ReadoutResponse:
    """The closed form of `ticks` steps of syn <- β_s·syn + c, mem <- β_m·mem + (1 - β_m)·syn.

    Args:
        beta_synaptic, beta_membrane: decay factors per tick, [outputs].
        ticks: K.
    """
    one = torch.ones_like(beta_synaptic)
    zero = torch.zeros_like(beta_synaptic)
    gains_synaptic, gains_membrane = [one], [1.0 - beta_membrane]
    for _ in range(ticks - 1):
        gains_synaptic.append(beta_synaptic * gains_synaptic[-1])
        gains_membrane.append(beta_membrane * gains_membrane[-1] + (1.0 - beta_membrane) * gains_synaptic[-1])
    from_synaptic, keep = zero, one
    for _ in range(ticks):
        keep = beta_synaptic * keep
        from_synaptic = beta_membrane * from_synaptic + (1.0 - beta_membrane) * keep
    return _ReadoutResponse(
        beta_synaptic**ticks,
        torch.stack(gains_synaptic[::-1]).unsqueeze(1),
        beta_membrane**ticks,
        from_synaptic,
        torch.stack(gains_membrane[::-1]).unsqueeze(1),
    )


class _Constants(nn.Module):
    """Tensors of a network that are not trained; iterates and is saved as an `nn.ParameterList` would be."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        for index, tensor in enumerate(tensors):
            self.register_buffer(str(index), tensor)

    def __iter__(self) -> Iterator[Tensor]:
        return self.buffers()


class SpikingNetwork(nn.Module):
    """Features -> spiking layers -> leaky readout from every layer.

    The first layer receives W·x + b, constant over the step; each further layer the spikes of the one before, through
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
        is_recurrent = config.recurrence != "none"
        feed_forward = math.sqrt(config.feed_forward_variance) if is_recurrent else 1.0
        recurrent = math.sqrt(1.0 - config.feed_forward_variance)

        time_constants = (config.tau_synaptic, config.tau_membrane, config.tau_adaptation)
        log_tau = [_log_time_constants(config, time_constants, neurons) for neurons in config.hidden]
        self.log_tau = _Constants(log_tau) if config.time_constants == "fixed" else nn.ParameterList(log_tau)
        self.input_weight = nn.Parameter(
            initialisation.weights(
                config.initialisation,
                config.hidden[0],
                inputs,
                feed_forward
                * initialisation.analogue_weight_deviation(inputs, config.tau_synaptic, config.tick)
                / config.input_gain,
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
        for before, after in zip(config.hidden[:-1], config.hidden[1:], strict=True):
            self._append_weights(self.expand, self.compress, after, before, feed_forward, generator)
        self.recurrent_expand = nn.ParameterList()
        self.recurrent_compress = nn.ParameterList()
        if is_recurrent:
            for neurons in config.hidden:
                self._append_weights(
                    self.recurrent_expand, self.recurrent_compress, neurons, neurons, recurrent, generator
                )
        self.readout_weight = nn.ParameterList(
            nn.Parameter(
                initialisation.weights(
                    config.initialisation,
                    outputs,
                    neurons,
                    initialisation.spike_weight_deviation(
                        sum(config.hidden),
                        config.rate,
                        config.tau_readout_synaptic,
                        config.tau_readout_membrane,
                        config.tick,
                    ),
                    generator,
                )
            )
            for neurons in config.hidden
        )
        readout_time_constants = (config.tau_readout_synaptic, config.tau_readout_membrane)
        readout_log_tau = _log_time_constants(config, readout_time_constants, outputs)
        if config.time_constants == "fixed":
            self.register_buffer("readout_log_tau", readout_log_tau)
        else:
            self.readout_log_tau = nn.Parameter(readout_log_tau)
        self.log_input_gain = nn.Parameter(torch.tensor(config.input_gain).log())
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
    def _through(spikes: Tensor, expand: nn.ParameterList, compress: nn.ParameterList, index: int) -> Tensor:
        latent = spikes @ compress[index].t() if len(compress) else spikes
        return latent @ expand[index].t()

    def effective(self) -> Effective:
        """Decay factors, gains and readout response of the current parameters; differentiable."""
        tick = self.config.tick

        def decay(log_tau: Tensor, neurons: int) -> Tensor:
            # A layer that shares its time constants has one column, but the kernels take one value per neuron.
            return torch.exp(-tick * torch.exp(-log_tau)).expand(-1, neurons).contiguous()

        readout = decay(self.readout_log_tau, self.outputs)
        return Effective(
            tuple(
                LIFDecay(*decay(log_tau, neurons))
                for log_tau, neurons in zip(self.log_tau, self.config.hidden, strict=True)
            ),
            self.log_input_gain.exp(),
            self.log_output_gain.exp(),
            readout_response(readout[0], readout[1], self.config.ticks),
        )

    @torch.no_grad()
    def for_inference(self) -> Effective:
        """`effective` for steps without gradients, with the compiled step at batch 1 where there is one."""
        effective = self.effective()
        if not self.compiled or self.config.recurrence == "tick":
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
        return NetworkState(layers, zeros, zeros)

    def input_drive(self, features: Tensor, effective: Effective) -> Tensor:
        """The constant drive of the first layer, [..., neurons], from features [..., inputs]."""
        return nn.functional.linear(features * effective.input_gain, self.input_weight, self.bias[0])

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
        """Whether unrolls take the compiled way."""
        return self.backend == "fused"

    @property
    def _unroll_options(self) -> UnrollOptions:
        config = self.config
        return UnrollOptions(config.threshold, config.surrogate, config.ticks, config.recurrence)

    def unroll_parameters(self, effective: Effective) -> UnrollParameters:
        """All parameters as the compiled unroll takes them; differentiable."""
        recurrent = self.config.recurrence != "none"
        layers = tuple(
            LayerParameters(
                decay,
                self.readout_weight[index],
                self.bias[index],
                self.expand[index - 1] if index > 0 else self.input_weight * effective.input_gain,
                self.compress[index - 1] if index > 0 and len(self.compress) else None,
                self.recurrent_expand[index] if recurrent else None,
                self.recurrent_compress[index] if recurrent and len(self.recurrent_compress) else None,
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
        if effective.single is not None and len(features) == 1:
            return effective.single.step(features, state)
        config = self.config
        drive = self.input_drive(features, effective).unsqueeze(0)
        layers: list[LayerState] = []
        all_spikes: list[Tensor] = []
        currents: Tensor | None = None
        for index, (layer, decay) in enumerate(zip(state.layers, effective.decays, strict=True)):
            if index > 0:
                drive = self._through(all_spikes[-1], self.expand, self.compress, index - 1) + self.bias[index]
            if config.recurrence == "step":
                drive = drive + self._through(layer.mean_spikes, self.recurrent_expand, self.recurrent_compress, index)
            if config.recurrence == "tick":
                spikes, neurons = self._scan_tick_by_tick(drive, layer, decay, index)
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
                )
                fed_back = spikes.mean(0)
            layers.append(LayerState(neurons, fed_back))
            all_spikes.append(spikes)
            current = spikes @ self.readout_weight[index].t()
            currents = current if currents is None else currents + current
        assert currents is not None
        response = effective.readout
        synaptic = response.synaptic_keep * state.readout_synaptic + (response.synaptic_gain * currents).sum(0)
        membrane = (
            response.membrane_keep * state.readout_membrane
            + response.membrane_from_synaptic * state.readout_synaptic
            + (response.membrane_gain * currents).sum(0)
        )
        return (
            membrane * effective.output_gain,
            NetworkState(tuple(layers), synaptic, membrane),
            tuple(all_spikes),
        )

    def _scan_tick_by_tick(
        self, drive: Tensor, layer: LayerState, decay: LIFDecay, index: int
    ) -> tuple[Tensor, LIFState]:
        """`scan` of the layer of that index, where every tick also receives the layer's spikes of the tick before."""
        config = self.config
        neurons, fired = layer
        ticks: list[Tensor] = []
        for now in drive.expand(config.ticks, -1, -1):
            fed_back = self._through(fired, self.recurrent_expand, self.recurrent_compress, index)
            spikes, neurons = scan(
                (now + fed_back).unsqueeze(0),
                neurons,
                decay,
                config.threshold,
                ticks=1,
                surrogate=config.surrogate,
                backend=self.backend,
            )
            fired = spikes[0]
            ticks.append(fired)
        return torch.stack(ticks), neurons


def _log_time_constants(config: NetworkConfig, seconds: tuple[float, ...], neurons: int) -> Tensor:
    """Logarithms of initial time constants, [len(seconds), neurons], or [len(seconds), 1] if the neurons share them."""
    return torch.tensor(seconds).log().unsqueeze(1).repeat(1, neurons if config.time_constants == "per_neuron" else 1)
