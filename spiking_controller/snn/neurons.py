"""Leaky integrate-and-fire neurons with explicit state: what goes in comes out, nothing is hidden in a module.

`adaptive_lif_step` is the mathematics, one tick in plain PyTorch. `scan` runs the ticks of one control step, either
by that function (`backend="torch"`, any device) or by a compiled kernel (`backend="fused"`, CPU, float32). Both give
the same values. A gradient through a single step always takes the function; training goes through `compiled/unroll.py`.
"""

import math
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.fixed_point import FixedPoint
from spiking_controller.snn.surrogate import spike_function

Backend = Literal["fused", "torch"]
_LOWEST: Final = float(np.finfo(np.float32).min)


class LIFState(NamedTuple):
    """State of a layer of current-based adaptive LIF neurons. Every tensor is [batch, neurons]."""

    synaptic_current: Tensor
    membrane: Tensor
    adaptation: Tensor
    threshold_base: Tensor


class LIFDecay(NamedTuple):
    """Decay factors per tick, exp(-dt/τ), of the three state variables. Every tensor is [neurons]."""

    synaptic: Tensor
    membrane: Tensor
    adaptation: Tensor


class Threshold(NamedTuple):
    """How the firing threshold moves, and what a spike takes off the membrane (in units of the resting threshold).

    Attributes:
        rest: value of the base right after a spike.
        decrement: linear decay of the base per tick.
        adaptation_strength: ξ, how much one unit of the adaptation variable raises the threshold.
        floor: lowest value of the base.
        clears: whether a spike sets the membrane to zero, instead of subtracting the threshold.
    """

    rest: float = 1.0
    decrement: float = 0.0
    adaptation_strength: float = 0.0
    floor: float = -math.inf
    clears: bool = False

    @property
    def moves(self) -> bool:
        """Whether it ever leaves `rest`; plain LIF neurons have one that does not."""
        return self.decrement != 0.0 or self.adaptation_strength != 0.0


def initial_state(batch: int, neurons: int, threshold: Threshold, like: Tensor) -> LIFState:
    """The state at the start of an episode: everything at rest, on the device and in the type of `like`."""
    zeros = like.new_zeros(batch, neurons)
    return LIFState(zeros, zeros, zeros, torch.full_like(zeros, threshold.rest))


def adaptive_lif_step(
    drive: Tensor,
    state: LIFState,
    decay: LIFDecay,
    threshold: Threshold,
    surrogate: str,
    fixed_point: FixedPoint | None = None,
) -> tuple[Tensor, LIFState]:
    """One tick of current-based adaptive leaky integrate-and-fire (Huebotter et al. 2025, section on neurons).

        syn   <- β_syn·syn + drive
        mem   <- β_mem·mem + (1 - β_mem)·syn
        base  <- max(base - decrement, floor)              (no gradient)
        ϑ      = base + ξ·a
        spike  = H(mem - ϑ)
        mem   <- mem - ϑ·spike             (reset, no gradient through ϑ·spike)
        a     <- β_ada·a + spike
        base  <- rest if spike

    If the threshold does not move, ϑ = rest, and a and base stay as they are. If a spike clears the membrane, the reset
    is mem <- mem·(1 - spike), likewise without a gradient through the spike. In fixed point, every value of the state
    is rounded when it is written.

    Args:
        drive: weighted input of this tick, [batch, neurons].
        state: the layer's state before the tick.
        decay: decay factors, [neurons] each.
        threshold: how the threshold moves.
        surrogate: name of the surrogate derivative, see `surrogate.SURROGATES`.
        fixed_point: the numbers that hold the state; None for float32.
    Returns:
        Spikes in {0, 1}, [batch, neurons], and the state after the tick.
    """
    written = _as_it_is if fixed_point is None else fixed_point.round
    synaptic = written(decay.synaptic * state.synaptic_current + drive)
    membrane = written(decay.membrane * state.membrane + (1.0 - decay.membrane) * synaptic)
    if not threshold.moves:
        spikes = spike_function(surrogate)(membrane - threshold.rest)
        reset = written(_reset(membrane, threshold.rest, spikes.detach(), threshold))
        return spikes, LIFState(synaptic, reset, state.adaptation, state.threshold_base)
    lowered = written((state.threshold_base - threshold.decrement).clamp(min=threshold.floor))
    level = lowered + threshold.adaptation_strength * state.adaptation
    spikes = spike_function(surrogate)(membrane - level)
    fired = spikes.detach()
    return spikes, LIFState(
        synaptic,
        written(_reset(membrane, level.detach(), fired, threshold)),
        written(decay.adaptation * state.adaptation + spikes),
        torch.where(fired > 0, torch.full_like(lowered, threshold.rest), lowered),
    )


def _reset(membrane: Tensor, level: Tensor | float, fired: Tensor, threshold: Threshold) -> Tensor:
    """The membrane after spikes `fired` at the threshold `level`, before it is rounded."""
    return membrane * (1.0 - fired) if threshold.clears else membrane - level * fired


def _as_it_is(values: Tensor) -> Tensor:
    return values


def kernel_neurons(decay: LIFDecay, threshold: Threshold, fixed_point: FixedPoint | None = None) -> kernels.Neurons:
    """Parameters of a layer's neurons as the kernels take them, copied."""
    factors = torch.stack([part.detach() for part in decay]).numpy()
    # The kernels are compiled for finite numbers.
    floor = max(threshold.floor, _LOWEST)
    rounding = kernels.Rounding(0.0, 0.0, 0.0)
    if fixed_point is not None:
        rounding = kernels.Rounding(fixed_point.quantum, float(fixed_point.lowest), float(fixed_point.highest))
    return kernels.Neurons(
        factors,
        threshold.rest,
        threshold.decrement,
        threshold.adaptation_strength,
        floor,
        threshold.clears,
        rounding,
    )


def scan(
    drive: Tensor,
    state: LIFState,
    decay: LIFDecay,
    threshold: Threshold,
    *,
    ticks: int,
    surrogate: str = "gaussian",
    backend: Backend = "fused",
    fixed_point: FixedPoint | None = None,
) -> tuple[Tensor, LIFState]:
    """Run the ticks of one control step.

    Args:
        drive: [ticks, batch, neurons], or [1, batch, neurons] for a drive held constant over the step.
        state: the layer's state before the step.
        decay: decay factors, [neurons] each.
        threshold: how the threshold moves.
        ticks: number of ticks.
        surrogate: name of the surrogate derivative.
        backend: "fused" (compiled kernel, CPU and float32, where no gradient is recorded) or "torch" (readable
            reference, any device).
        fixed_point: the numbers that hold the state; None for float32.
    Returns:
        Spikes [ticks, batch, neurons] and the state after the step.
    """
    needs_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in (drive, *state, *decay))
    if backend == "fused" and not needs_gradient:
        return _compiled_scan(drive, state, decay, threshold, ticks, fixed_point)
    collected = []
    for tick in range(ticks):
        now = drive[0] if drive.shape[0] == 1 else drive[tick]
        spikes, state = adaptive_lif_step(now, state, decay, threshold, surrogate, fixed_point)
        collected.append(spikes)
    return torch.stack(collected), state


def _compiled_scan(
    drive: Tensor,
    state: LIFState,
    decay: LIFDecay,
    threshold: Threshold,
    ticks: int,
    fixed_point: FixedPoint | None,
) -> tuple[Tensor, LIFState]:
    """`scan` in the compiled kernel, without gradients."""
    batch, neurons = drive.shape[1:]
    before = torch.stack([part.detach() for part in state], 1)
    spikes, after = drive.new_empty(ticks, batch, neurons), torch.empty_like(before)
    fired = kernels.empty_lists(batch, ticks, neurons)
    kernels.scan_forward(
        drive.detach().transpose(0, 1).contiguous().numpy(),
        before.numpy(),
        kernel_neurons(decay, threshold, fixed_point),
        np.empty((neurons, 0), np.float32),
        kernels.StepResult(
            fired,
            after.numpy(),
            np.empty((batch, neurons), np.float32),
            np.empty((batch, ticks, 0), np.float32),
        ),
    )
    kernels.write_spikes(fired, spikes.numpy())
    return spikes, LIFState(*after.unbind(1))
