"""Leaky integrate-and-fire neurons with explicit state: what goes in comes out, nothing is hidden in a module.

`adaptive_lif_step` is the mathematics, one tick in plain PyTorch. `scan` runs the ticks of one control step, either
by that function (`backend="torch"`, any device) or by a compiled kernel with its own backward pass
(`backend="fused"`, CPU, float32). Both give the same values and gradients.
"""

import threading
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


class _Scratch(threading.local):
    """Buffers for the traces of one scan, kept from call to call: fresh ones would page-fault on every step."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def get(self, ticks: int, batch: int, neurons: int) -> tuple[Tensor, Tensor]:
        """Membrane - threshold [ticks, batch, neurons] and three state traces [3, ticks + 1, batch, neurons]."""
        shape = (ticks, batch, neurons)
        if shape not in self._buffers:
            self._buffers[shape] = torch.empty(shape), torch.empty(3, ticks + 1, batch, neurons)
        return self._buffers[shape]


_scratch = _Scratch()


def _run_forward(
    drive: Tensor, state: LIFState, decay: LIFDecay, threshold: Threshold, spikes: Tensor, base_out: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill `spikes` and `base_out`; returns the scratch buffers, valid until the next scan of this shape."""
    distance, traces = _scratch.get(*spikes.shape)
    kernels.scan_forward(
        drive.detach().contiguous().numpy(),
        *(part.detach().contiguous().numpy() for part in state),
        *(part.detach().contiguous().numpy() for part in decay),
        threshold.rest,
        threshold.decrement,
        threshold.adaptation_strength,
        spikes.numpy(),
        distance.numpy(),
        *(trace.numpy() for trace in traces),
        base_out.numpy(),
    )
    return distance, traces


class _FusedScan(torch.autograd.Function):
    """`ticks` steps of `adaptive_lif_step` in one compiled pass, forward and backward.

    Only the inputs are saved; the backward pass runs the forward kernel once more, which costs less than moving the
    traces of a whole unroll through memory.
    """

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
        state = LIFState(synaptic, membrane, adaptation, base)
        decay = LIFDecay(decay_synaptic, decay_membrane, decay_adaptation)
        spikes = drive.new_empty(ticks, *drive.shape[1:])
        base_out = torch.empty_like(base)
        _, traces = _run_forward(drive, state, decay, threshold, spikes, base_out)
        ctx.save_for_backward(drive, *state, *decay)
        ctx.options = threshold, surrogate
        ctx.mark_non_differentiable(base_out)
        after = traces[:, ticks].clone()
        return spikes, after[0], after[1], after[2], base_out

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
        threshold, surrogate = ctx.options
        drive, *saved = ctx.saved_tensors
        state, decay = LIFState(*saved[:4]), LIFDecay(*saved[4:])
        distance, traces = _run_forward(
            drive, state, decay, threshold, torch.empty_like(grad_spikes), torch.empty_like(state.threshold_base)
        )
        derivative = surrogate_derivative(surrogate)(distance)
        grad_state = torch.stack((grad_synaptic, grad_membrane, grad_adaptation))
        grad_drive = torch.zeros_like(drive)
        grad_decay = drive.new_zeros(3, drive.shape[-1])
        kernels.scan_backward(
            grad_spikes.contiguous().numpy(),
            *(part.numpy() for part in grad_state),
            derivative.numpy(),
            *(trace.numpy() for trace in traces),
            *(part.detach().contiguous().numpy() for part in decay),
            threshold.adaptation_strength,
            grad_drive.numpy(),
            *(part.numpy() for part in grad_decay),
        )
        return grad_drive, *grad_state, None, *grad_decay, None, None, None


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
