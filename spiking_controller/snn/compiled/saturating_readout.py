"""Compiled kernels of the readout that leaks from its own bounded output, see `readout.saturating_read_out`."""

import math
from typing import Any, Final

import numpy as np

from spiking_controller.compilation import compiled
from spiking_controller.snn.compiled.kernels import Integrators, Readout

_OPTIONS: Any = {"fastmath": True, "error_model": "numpy", "nogil": True}
_ONE: Final = np.float32(1.0)


@compiled(**_OPTIONS)
def saturating_forward(
    currents: np.ndarray, before: Integrators, readout: Readout, after: Integrators, membrane: np.ndarray
) -> None:
    """The readout over the ticks of a step, tick by tick.

    Args:
        currents: without the gain, [batch, ticks, outputs].
        before: synaptic current and output before the step.
        readout: its coefficients over one tick, of which `synaptic_keep`, `membrane_keep`, `membrane_gain` and
            `output_gain` count.
        after: receives synaptic current and output after the step.
        membrane: receives the membrane in the last tick, [batch, outputs].
    """
    batch, ticks, outputs = currents.shape
    for row in range(batch):
        for o in range(outputs):
            syn, out, mem = before.synaptic[row, o], before.membrane[row, o], before.membrane[row, o]
            keep, gain = readout.membrane_keep[o], readout.membrane_gain[0, o]
            for tick in range(ticks):
                syn = readout.synaptic_keep[o] * syn + readout.output_gain[o] * currents[row, tick, o]
                mem = keep * out + gain * syn
                out = math.tanh(mem)
            after.synaptic[row, o] = syn
            after.membrane[row, o] = out
            membrane[row, o] = mem


@compiled(**_OPTIONS)
def saturating_backward(
    grad_membrane: np.ndarray,
    grad: Integrators,
    currents: np.ndarray,
    before: Integrators,
    readout: Readout,
    grad_currents: np.ndarray,
    grad_readout: Readout,
) -> None:
    """Back-propagate through `saturating_forward`, whose ticks are run once more.

    Args:
        grad_membrane: of the membrane in the last tick, [batch, outputs].
        grad: of the state after the step; overwritten by that of the state before it.
        currents, before, readout: see `saturating_forward`.
        grad_currents: receives the gradient of the currents.
        grad_readout: of the coefficients; added to.
    """
    batch, ticks, outputs = currents.shape
    synaptic, output = np.empty(ticks + 1, np.float32), np.empty(ticks + 1, np.float32)
    for row in range(batch):
        for o in range(outputs):
            keep_synaptic, keep, gain = readout.synaptic_keep[o], readout.membrane_keep[o], readout.membrane_gain[0, o]
            scale = readout.output_gain[o]
            synaptic[0], output[0] = before.synaptic[row, o], before.membrane[row, o]
            for tick in range(ticks):
                synaptic[tick + 1] = keep_synaptic * synaptic[tick] + scale * currents[row, tick, o]
                output[tick + 1] = math.tanh(keep * output[tick] + gain * synaptic[tick + 1])
            g_syn, g_out, direct = grad.synaptic[row, o], grad.membrane[row, o], grad_membrane[row, o]
            for tick in range(ticks - 1, -1, -1):
                g_mem = g_out * (_ONE - output[tick + 1] * output[tick + 1]) + direct
                direct = np.float32(0.0)
                g_syn += g_mem * gain
                grad_readout.membrane_keep[o] += g_mem * output[tick]
                grad_readout.membrane_gain[0, o] += g_mem * synaptic[tick + 1]
                grad_readout.synaptic_keep[o] += g_syn * synaptic[tick]
                grad_readout.output_gain[o] += g_syn * currents[row, tick, o]
                grad_currents[row, tick, o] = g_syn * scale
                g_syn *= keep_synaptic
                g_out = g_mem * keep
            grad.synaptic[row, o] = g_syn
            grad.membrane[row, o] = g_out
