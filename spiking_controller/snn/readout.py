"""The readout: leaky integrators of spikes without a threshold, over the ticks of a control step."""

from typing import NamedTuple

import torch
from torch import Tensor

from spiking_controller.snn.fixed_point import FixedPoint


class ReadoutResponse(NamedTuple):
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


def readout_response(beta_synaptic: Tensor, beta_membrane: Tensor, ticks: int) -> ReadoutResponse:
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
    return ReadoutResponse(
        beta_synaptic**ticks,
        torch.stack(gains_synaptic[::-1]).unsqueeze(1),
        beta_membrane**ticks,
        from_synaptic,
        torch.stack(gains_membrane[::-1]).unsqueeze(1),
    )


def read_out(currents: Tensor, synaptic: Tensor, membrane: Tensor, response: ReadoutResponse) -> tuple[Tensor, Tensor]:
    """Synaptic current and membrane after a step, [batch, outputs] each.

    Args:
        currents: of every tick, [ticks, batch, outputs].
        synaptic, membrane: before the step, [batch, outputs].
        response: to the ticks of a step.
    """
    return (
        response.synaptic_keep * synaptic + (response.synaptic_gain * currents).sum(0),
        response.membrane_keep * membrane
        + response.membrane_from_synaptic * synaptic
        + (response.membrane_gain * currents).sum(0),
    )


def saturating_read_out(
    currents: Tensor, synaptic: Tensor, output: Tensor, response: ReadoutResponse
) -> tuple[Tensor, Tensor, Tensor]:
    """The readout of Huebotter et al.'s policy, whose membrane leaks from its own bounded output:

        syn <- β_s·syn + c;  mem = β_m·out + (1 - β_m)·syn;  out <- tanh(mem)

    Args:
        currents: of every tick, gain included, [ticks, batch, outputs].
        synaptic, output: before the step, [batch, outputs].
        response: to one tick.
    Returns:
        The membrane in the last tick, then synaptic current and output after the step.
    """
    membrane = output
    for current in currents:
        synaptic = response.synaptic_keep * synaptic + current
        membrane = response.membrane_keep * output + response.membrane_gain[0] * synaptic
        output = torch.tanh(membrane)
    return membrane, synaptic, output


def rounded_read_out(
    currents: Tensor, synaptic: Tensor, membrane: Tensor, response: ReadoutResponse, fixed_point: FixedPoint
) -> tuple[Tensor, Tensor]:
    """`read_out` tick by tick, with both values rounded whenever they are written; `response` is that to one tick."""
    for current in currents:
        synaptic = fixed_point.round(response.synaptic_keep * synaptic + current)
        membrane = fixed_point.round(response.membrane_keep * membrane + response.membrane_gain[0] * synaptic)
    return synaptic, membrane
