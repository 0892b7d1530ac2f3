"""The configuration of a spiking network."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from spiking_controller.errors import ConfigError
from spiking_controller.snn.compiled.kernels import MOST_TICKS
from spiking_controller.snn.fixed_point import FixedPoint
from spiking_controller.snn.initialisation import Initialisation
from spiking_controller.snn.neurons import Threshold
from spiking_controller.snn.surrogate import surrogate_derivative

NeuronModel = Literal["adaptive_lif", "lif"]
Reset = Literal["subtract", "zero"]
Recurrence = Literal["none", "step", "tick"]
RecurrentLayers = Literal["all", "first"]
ReadoutLayers = Literal["all", "last"]
ReadoutLeak = Literal["membrane", "output"]
InputGains = Literal["shared", "per_input"]
InputWeights = Literal["analogue", "spiking"]
TimeConstants = Literal["per_neuron", "per_layer", "fixed"]


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and initial values of one spiking network.

    Attributes:
        hidden: neurons of each hidden layer.
        recurrence: what each layer receives of its own spikes: "none"; "step", their mean over the previous control
            step; "tick", those of the previous tick (the paper).
        recurrent_layers: which layers do so: "all", or the "first" alone (the paper).
        rank: latent dimension of spike-to-spike weights (layer to layer and recurrent); 0 for full matrices.
        neuron: "adaptive_lif" or "lif".
        reset: what a spike does to the membrane: "subtract" the threshold from it, or set it to "zero", as most
            neuromorphic chips do.
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
        readout_layers: whose spikes the readout receives: "all" layers', or the "last" one's (the paper).
        readout_leak: what the readout's membrane leaks from: its own "membrane" of the tick before, or the "output",
            tanh of it (the policy of the paper), so that it cannot wind up.
        delay: ticks by which the features reach the first layer late, at most a control step's. The paper delays every
            connection by one tick. Along a chain of layers delays add up and may be taken together: one each for
            features, L - 1 connections between layers, and readout make L + 1.
        threshold_decay: linear decay of the threshold base, 1/s (adaptive_lif).
        threshold_floor: lowest value of the threshold base, which rests at 1; None for no bound, as in the paper.
        adaptation_strength: ξ (adaptive_lif).
        input_gain, output_gain: initial learnable scales.
        input_gains: whether features have one gain together, "shared", or one each, "per_input" (the paper).
        input_weights: what fluctuation-driven weights take the features for: "analogue" values of variance 1, held
            constant, or "spiking" inputs at the rate ν (the paper), six times as large with its values.
        rate: ν of the fluctuation-driven initialisation, Hz.
        feed_forward_variance: α of the same, fraction of the membrane's variance in a recurrent layer that comes from
            feed-forward input.
        weight_bits: with which the weights act, see `fixed_point.round_rows`; None for float32.
        state_bits, state_fraction_bits: of the fixed-point numbers that hold biases and state, which is rounded in
            every tick, see `fixed_point.FixedPoint`; None for float32.
        delta: a feature is sent only when it differs by more than this from the value that was sent last; None if all
            are sent in every step.
    """

    hidden: tuple[int, ...] = (256, 256)
    recurrence: Recurrence = "none"
    recurrent_layers: RecurrentLayers = "all"
    rank: int = 32
    neuron: NeuronModel = "adaptive_lif"
    reset: Reset = "subtract"
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
    readout_layers: ReadoutLayers = "all"
    readout_leak: ReadoutLeak = "membrane"
    delay: int = 0
    threshold_decay: float = 10.0
    threshold_floor: float | None = None
    adaptation_strength: float = 0.05
    input_gain: float = 0.5
    output_gain: float = 0.5
    input_gains: InputGains = "shared"
    input_weights: InputWeights = "analogue"
    rate: float = 50.0
    feed_forward_variance: float = 0.9
    weight_bits: int | None = None
    state_bits: int | None = None
    state_fraction_bits: int | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        surrogate_derivative(self.surrogate)
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden = {self.hidden!r} must list at least one layer of at least one neuron.")
        for name, kinds in (
            ("neuron", NeuronModel),
            ("reset", Reset),
            ("recurrence", Recurrence),
            ("recurrent_layers", RecurrentLayers),
            ("readout_layers", ReadoutLayers),
            ("readout_leak", ReadoutLeak),
            ("input_gains", InputGains),
            ("input_weights", InputWeights),
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
        if not 0 <= self.delay <= self.ticks:
            raise ConfigError(f"delay = {self.delay} must be at least 0 and at most ticks = {self.ticks}.")
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
        if self.weight_bits is not None and not 2 <= self.weight_bits <= 16:
            raise ConfigError(f"weight_bits = {self.weight_bits} must lie between 2 and 16; leave it out for float32.")
        if (self.state_bits is None) != (self.state_fraction_bits is None):
            raise ConfigError(
                f"state_bits = {self.state_bits} and state_fraction_bits = {self.state_fraction_bits} go together; "
                "give both or neither."
            )
        if self.fixed_point is not None and not 0 <= self.fixed_point.fraction_bits <= self.fixed_point.bits - 2 <= 22:
            raise ConfigError(
                f"state_bits = {self.state_bits} must be at most 24, and state_fraction_bits = "
                f"{self.state_fraction_bits} at least 0 and smaller by 2, for the sign and the threshold of 1."
            )
        if self.readout_leak == "output" and self.fixed_point is not None:
            raise ConfigError(
                "readout_leak 'output' takes a tanh in every tick, which state_bits does not round; leave one out."
            )
        if self.delta is not None and not 0.0 <= self.delta < math.inf:
            raise ConfigError(f"delta = {self.delta} must be a finite number of at least 0; leave it out to send all.")

    def is_recurrent(self, layer: int) -> bool:
        """Whether the layer of this index receives its own spikes."""
        return self.recurrence != "none" and (layer == 0 or self.recurrent_layers == "all")

    def is_read_out(self, layer: int) -> bool:
        """Whether the readout receives the spikes of the layer of this index."""
        return self.readout_layers == "all" or layer == len(self.hidden) - 1

    @property
    def fixed_point(self) -> FixedPoint | None:
        """The numbers that hold the state; None for float32."""
        if self.state_bits is None or self.state_fraction_bits is None:
            return None
        return FixedPoint(self.state_bits, self.state_fraction_bits)

    @property
    def threshold(self) -> Threshold:
        """How the firing threshold moves, per tick, and what a spike takes off the membrane."""
        clears = self.reset == "zero"
        if self.neuron == "lif":
            return Threshold(clears=clears)
        floor = -math.inf if self.threshold_floor is None else self.threshold_floor
        return Threshold(1.0, self.threshold_decay * self.tick, self.adaptation_strength, floor, clears)
