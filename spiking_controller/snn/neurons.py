"""Leaky integrate-and-fire neurons with explicit state: what goes in comes out, nothing is hidden in a module.

`adaptive_lif_step` is the mathematics, one tick in plain PyTorch. `scan` runs the ticks of one control step, either
by that function (`backend="torch"`, any device) or by a compiled kernel with its own backward pass
(`backend="fused"`, CPU, float32). Both give the same values and gradients.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from spiking_controller.snn import kernels
from spiking_controller.snn.surrogate import spike_function, surrogate_derivative

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


class _FusedScan(torch.autograd.Function):
    """`ticks` steps of `adaptive_lif_step` in one compiled pass, forward and backward."""

    @staticmethod
    def forward(  # type: ignore[override]
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
        _, batch, neurons = drive.shape
        spikes = drive.new_empty(ticks, batch, neurons)
        distance = torch.empty_like(spikes)
        traces = drive.new_empty(3, ticks + 1, batch, neurons)
        base_out = torch.empty_like(base)
        kernels.scan_forward(
            drive.detach().contiguous().numpy(),
            synaptic.detach().contiguous().numpy(),
            membrane.detach().contiguous().numpy(),
            adaptation.detach().contiguous().numpy(),
            base.detach().contiguous().numpy(),
            decay_synaptic.detach().numpy(),
            decay_membrane.detach().numpy(),
            decay_adaptation.detach().numpy(),
            threshold.rest,
            threshold.decrement,
            threshold.adaptation_strength,
            spikes.numpy(),
            distance.numpy(),
            traces[0].numpy(),
            traces[1].numpy(),
            traces[2].numpy(),
            base_out.numpy(),
        )
        ctx.save_for_backward(distance, traces, decay_synaptic, decay_membrane, decay_adaptation)
        ctx.surrogate = surrogate
        ctx.adaptation_strength = threshold.adaptation_strength
        ctx.drive_ticks = drive.shape[0]
        ctx.mark_non_differentiable(base_out)
        return spikes, traces[0, ticks], traces[1, ticks], traces[2, ticks], base_out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        grad_spikes: Tensor,
        grad_synaptic: Tensor,
        grad_membrane: Tensor,
        grad_adaptation: Tensor,
        grad_base: Tensor,
    ) -> tuple[Tensor | None, ...]:
        del grad_base
        distance, traces, decay_synaptic, decay_membrane, decay_adaptation = ctx.saved_tensors
        derivative = surrogate_derivative(ctx.surrogate)(distance)
        grad_state = torch.stack((grad_synaptic, grad_membrane, grad_adaptation))
        grad_drive = distance.new_zeros(ctx.drive_ticks, *distance.shape[1:])
        grad_decay = distance.new_zeros(3, distance.shape[-1])
        kernels.scan_backward(
            grad_spikes.contiguous().numpy(),
            grad_state[0].numpy(),
            grad_state[1].numpy(),
            grad_state[2].numpy(),
            derivative.numpy(),
            traces[0].numpy(),
            traces[1].numpy(),
            traces[2].numpy(),
            decay_synaptic.numpy(),
            decay_membrane.numpy(),
            decay_adaptation.numpy(),
            ctx.adaptation_strength,
            grad_drive.numpy(),
            grad_decay[0].numpy(),
            grad_decay[1].numpy(),
            grad_decay[2].numpy(),
        )
        return (
            grad_drive,
            grad_state[0],
            grad_state[1],
            grad_state[2],
            None,
            grad_decay[0],
            grad_decay[1],
            grad_decay[2],
            None,
            None,
            None,
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
        spikes, *after = _FusedScan.apply(drive, *state, *decay, threshold, surrogate, ticks)  # type: ignore[no-untyped-call]
        return spikes, LIFState(*after)
    collected = []
    for tick in range(ticks):
        now = drive[0] if drive.shape[0] == 1 else drive[tick]
        spikes, state = adaptive_lif_step(now, state, decay, threshold, surrogate)
        collected.append(spikes)
    return torch.stack(collected), state
