"""Leaky integrate-and-fire neurons with explicit state: what goes in comes out, nothing is hidden in a module.

`adaptive_lif_step` is the mathematics, one tick in plain PyTorch. `scan` runs the ticks of one control step, either
by that function (`backend="torch"`, any device) or by a compiled kernel with its own backward pass
(`backend="fused"`, CPU, float32). Both give the same values and gradients.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from spiking_controller.snn import kernels
from spiking_controller.snn.surrogate import spike_function

Backend = Literal["fused", "torch"]


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
    """How the firing threshold moves (dimensionless; the membrane is in units of the resting threshold).

    Attributes:
        rest: value of the base right after a spike.
        decrement: linear decay of the base per tick; 0 keeps it at rest.
        adaptation_strength: ξ, how much one unit of the adaptation variable raises the threshold; 0 gives plain LIF.
    """

    rest: float = 1.0
    decrement: float = 0.0
    adaptation_strength: float = 0.0


def initial_state(batch: int, neurons: int, threshold: Threshold, like: Tensor) -> LIFState:
    """The state at the start of an episode: everything at rest, on the device and in the type of `like`."""
    zeros = like.new_zeros(batch, neurons)
    return LIFState(zeros, zeros, zeros, torch.full_like(zeros, threshold.rest))


def adaptive_lif_step(
    drive: Tensor, state: LIFState, decay: LIFDecay, threshold: Threshold, surrogate: str
) -> tuple[Tensor, LIFState]:
    """One tick of current-based adaptive leaky integrate-and-fire (Huebotter et al. 2025, section on neurons).

        syn   <- β_syn·syn + drive
        mem   <- β_mem·mem + (1 - β_mem)·syn
        ϑ      = (base - decrement) + ξ·a
        spike  = H(mem - ϑ)
        mem   <- mem - ϑ·spike             (reset, no gradient)
        a     <- β_ada·a + spike
        base  <- rest if spike else base - decrement       (no gradient)

    Args:
        drive: weighted input of this tick, [batch, neurons].
        state: the layer's state before the tick.
        decay: decay factors, [neurons] each.
        threshold: how the threshold moves.
        surrogate: name of the surrogate derivative, see `surrogate.SURROGATES`.
    Returns:
        Spikes in {0, 1}, [batch, neurons], and the state after the tick.
    """
    synaptic = decay.synaptic * state.synaptic_current + drive
    membrane = decay.membrane * state.membrane + (1.0 - decay.membrane) * synaptic
    lowered = state.threshold_base - threshold.decrement
    level = lowered + threshold.adaptation_strength * state.adaptation
    spikes = spike_function(surrogate)(membrane - level)
    fired = spikes.detach()
    return spikes, LIFState(
        synaptic,
        membrane - (level * fired).detach(),
        decay.adaptation * state.adaptation + spikes,
        torch.where(fired > 0, torch.full_like(lowered, threshold.rest), lowered),
    )


def run_ticks(
    drive: Tensor, state: LIFState, decay: LIFDecay, threshold: Threshold, ticks: int
) -> tuple[Tensor, LIFState]:
    """`ticks` steps of `adaptive_lif_step` in the compiled kernel, without gradients; as `scan`, contiguous."""
    spikes = drive.new_empty(ticks, *drive.shape[1:])
    after = LIFState(*(torch.empty_like(part) for part in state))
    kernels.scan_forward(
        drive.numpy(),
        *(part.numpy() for part in state),
        *(part.numpy() for part in decay),
        threshold.rest,
        threshold.decrement,
        threshold.adaptation_strength,
        spikes.numpy(),
        *(part.numpy() for part in after),
        drive.new_empty(drive.shape[1:]).numpy(),
    )
    return spikes, after


class LayerGradients(NamedTuple):
    """Gradients of what went into `run_ticks`.

    Attributes:
        drive: as the drive.
        state: [3, batch, neurons], of synaptic current, membrane and adaptation.
        decay: [3, neurons], of synaptic, membrane and adaptation decay.
    """

    drive: Tensor
    state: Tensor
    decay: Tensor


def back_propagate_ticks(
    grad_spikes: Tensor,
    grad_state: Tensor,
    drive: Tensor,
    state: LIFState,
    decay: LIFDecay,
    threshold: Threshold,
    surrogate: str,
) -> LayerGradients:
    """The backward pass of `run_ticks`; `grad_state` [3, batch, neurons] is overwritten.

    Nothing but the inputs is needed: the kernel runs the ticks once more, row by row, which costs less than moving the
    traces of a whole unroll through memory.
    """
    grad_drive = torch.empty_like(drive)
    grad_decay = drive.new_zeros(3, drive.shape[-1])
    kernels.scan_backward(
        grad_spikes.numpy(),
        drive.new_zeros(drive.shape[1:]).numpy(),
        *grad_state.numpy(),
        drive.numpy(),
        *(part.numpy() for part in state),
        *(part.numpy() for part in decay),
        threshold.rest,
        threshold.decrement,
        threshold.adaptation_strength,
        kernels.SURROGATE_CODES[surrogate],
        True,
        grad_drive.numpy(),
        *grad_decay.numpy(),
    )
    return LayerGradients(grad_drive, grad_state, grad_decay)


class _FusedScan(torch.autograd.Function):
    """`run_ticks` and `back_propagate_ticks` for autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        drive: Tensor,
        synaptic: Tensor,
        membrane: Tensor,
        adaptation: Tensor,
        base: Tensor,
        decay_synaptic: Tensor,
        decay_membrane: Tensor,
        decay_adaptation: Tensor,
        threshold: Threshold,
        surrogate: str,
        ticks: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        inputs = [
            part.contiguous()
            for part in (drive, synaptic, membrane, adaptation, base, decay_synaptic, decay_membrane, decay_adaptation)
        ]
        spikes, after = run_ticks(inputs[0], LIFState(*inputs[1:5]), LIFDecay(*inputs[5:]), threshold, ticks)
        ctx.save_for_backward(*inputs)
        ctx.options = threshold, surrogate
        ctx.mark_non_differentiable(after.threshold_base)
        return spikes, *after

    @staticmethod
    def backward(
        ctx: Any,
        grad_spikes: Tensor,
        grad_synaptic: Tensor,
        grad_membrane: Tensor,
        grad_adaptation: Tensor,
        grad_base: Tensor,
    ) -> tuple[Tensor | None, ...]:
        del grad_base
        drive, *saved = ctx.saved_tensors
        grad_state = torch.stack((grad_synaptic, grad_membrane, grad_adaptation))
        gradients = back_propagate_ticks(
            grad_spikes.contiguous(), grad_state, drive, LIFState(*saved[:4]), LIFDecay(*saved[4:]), *ctx.options
        )
        return gradients.drive, *gradients.state, None, *gradients.decay, None, None, None


def scan(
    drive: Tensor,
    state: LIFState,
    decay: LIFDecay,
    threshold: Threshold,
    *,
    ticks: int,
    surrogate: str = "gaussian",
    backend: Backend = "fused",
) -> tuple[Tensor, LIFState]:
    """Run the ticks of one control step.

    Args:
        drive: [ticks, batch, neurons], or [1, batch, neurons] for a drive held constant over the step.
        state: the layer's state before the step.
        decay: decay factors, [neurons] each.
        threshold: how the threshold moves.
        ticks: number of ticks.
        surrogate: name of the surrogate derivative.
        backend: "fused" (compiled kernel, CPU and float32) or "torch" (readable reference, any device).
    Returns:
        Spikes [ticks, batch, neurons] and the state after the step.
    """
    if backend == "fused":
        spikes, *after = _FusedScan.apply(drive, *state, *decay, threshold, surrogate, ticks)
        return spikes, LIFState(*after)
    collected = []
    for tick in range(ticks):
        now = drive[0] if drive.shape[0] == 1 else drive[tick]
        spikes, state = adaptive_lif_step(now, state, decay, threshold, surrogate)
        collected.append(spikes)
    return torch.stack(collected), state
