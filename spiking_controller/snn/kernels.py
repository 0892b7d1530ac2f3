"""Compiled kernels that run all ticks of one control step of a spiking layer in one pass over memory.

The mathematics is that of `neurons.adaptive_lif_step`; the plain PyTorch loop there is the reference that these
kernels are tested against. Arrays are float32 and C-contiguous: `[ticks, batch, neurons]` over a step,
`[batch, neurons]` for a state, `[neurons]` for a parameter. A drive of one tick is held constant over the step.
"""

from typing import Any

import numpy as np
from numba import njit

_OPTIONS: Any = {"cache": True, "fastmath": True, "error_model": "numpy", "nogil": True}


@njit(**_OPTIONS)
def scan_forward(
    drive: np.ndarray,
    synaptic_current: np.ndarray,
    membrane: np.ndarray,
    adaptation: np.ndarray,
    base: np.ndarray,
    decay_synaptic: np.ndarray,
    decay_membrane: np.ndarray,
    decay_adaptation: np.ndarray,
    base_rest: float,
    base_decrement: float,
    adaptation_strength: float,
    spikes: np.ndarray,
    distance: np.ndarray,
    synaptic_trace: np.ndarray,
    membrane_trace: np.ndarray,
    adaptation_trace: np.ndarray,
    base_out: np.ndarray,
) -> None:
    """Run every tick; the three traces hold the state before tick 0 and after each tick, `[ticks + 1, ...]`.

    `distance` receives membrane - threshold before the reset, the argument of the surrogate derivative.
    """
    ticks, batch, neurons = spikes.shape
    constant = drive.shape[0] == 1
    rest = np.float32(base_rest)
    decrement = np.float32(base_decrement)
    strength = np.float32(adaptation_strength)
    one = np.float32(1.0)
    zero = np.float32(0.0)
    synaptic_trace[0] = synaptic_current
    membrane_trace[0] = membrane
    adaptation_trace[0] = adaptation
    base_out[:] = base
    for tick in range(ticks):
        source = 0 if constant else tick
        for row in range(batch):
            # Two short loops instead of one: with fewer arrays each, the compiler can prove them free of overlap and
            # vectorise them.
            for i in range(neurons):
                syn = decay_synaptic[i] * synaptic_trace[tick, row, i] + drive[source, row, i]
                synaptic_trace[tick + 1, row, i] = syn
                membrane_trace[tick + 1, row, i] = (
                    decay_membrane[i] * membrane_trace[tick, row, i] + (one - decay_membrane[i]) * syn
                )
            for i in range(neurons):
                trace = adaptation_trace[tick, row, i]
                lowered = base_out[row, i] - decrement
                threshold = lowered + strength * trace
                above = membrane_trace[tick + 1, row, i] - threshold
                spike = one if above > zero else zero
                spikes[tick, row, i] = spike
                distance[tick, row, i] = above
                membrane_trace[tick + 1, row, i] -= spike * threshold
                adaptation_trace[tick + 1, row, i] = decay_adaptation[i] * trace + spike
                base_out[row, i] = rest if above > zero else lowered


@njit(**_OPTIONS)
def scan_backward(
    grad_spikes: np.ndarray,
    grad_synaptic: np.ndarray,
    grad_membrane: np.ndarray,
    grad_adaptation: np.ndarray,
    derivative: np.ndarray,
    synaptic_trace: np.ndarray,
    membrane_trace: np.ndarray,
    adaptation_trace: np.ndarray,
    decay_synaptic: np.ndarray,
    decay_membrane: np.ndarray,
    decay_adaptation: np.ndarray,
    adaptation_strength: float,
    grad_drive: np.ndarray,
    grad_decay_synaptic: np.ndarray,
    grad_decay_membrane: np.ndarray,
    grad_decay_adaptation: np.ndarray,
) -> None:
    """Back-propagate through every tick.

    The gradients of the state after the step (`grad_synaptic`, `grad_membrane`, `grad_adaptation`) are overwritten
    by those of the state before it. `grad_drive` and the three decay gradients must arrive zeroed; a drive of one
    tick receives the sum over ticks.
    """
    ticks, batch, neurons = grad_spikes.shape
    constant = grad_drive.shape[0] == 1
    strength = np.float32(adaptation_strength)
    one = np.float32(1.0)
    for back in range(ticks):
        tick = ticks - 1 - back
        target = 0 if constant else tick
        for row in range(batch):
            for i in range(neurons):
                g_adaptation = grad_adaptation[row, i]
                g_above = (grad_spikes[tick, row, i] + g_adaptation) * derivative[tick, row, i]
                g_membrane = grad_membrane[row, i] + g_above
                grad_decay_adaptation[i] += g_adaptation * adaptation_trace[tick, row, i]
                grad_adaptation[row, i] = decay_adaptation[i] * g_adaptation - strength * g_above
                syn = synaptic_trace[tick + 1, row, i]
                g_synaptic = grad_synaptic[row, i] + (one - decay_membrane[i]) * g_membrane
                grad_decay_membrane[i] += g_membrane * (membrane_trace[tick, row, i] - syn)
                grad_membrane[row, i] = decay_membrane[i] * g_membrane
                grad_drive[target, row, i] += g_synaptic
                grad_decay_synaptic[i] += g_synaptic * synaptic_trace[tick, row, i]
                grad_synaptic[row, i] = decay_synaptic[i] * g_synaptic
