"""Surrogate derivatives of the spike: what back-propagation sees in place of the step function's zero gradient."""

from collections.abc import Callable
from typing import Final

import torch
from snntorch.surrogate import custom_surrogate, fast_sigmoid
from snntorch.surrogate import sigmoid as snntorch_sigmoid
from torch import Tensor

from spiking_controller.errors import ConfigError
from spiking_controller.snn.compiled.kernels import (
    GAUSSIAN_SHARPNESS,
    MULTI_GAUSSIAN_PEAK,
    SIDE_LOBE_HEIGHT,
    SIDE_LOBE_WIDTH,
    SIGMOID_SLOPE,
    SUPERSPIKE_SLOPE,
)

SurrogateDerivative = Callable[[Tensor], Tensor]


def _bell(scaled: Tensor) -> Tensor:
    """exp(-x²/2), cut where it would become denormal: arithmetic on such numbers is ten times slower."""
    return scaled.square().mul_(-0.5).clamp_(min=-80.0).exp_()


def gaussian(distance: Tensor) -> Tensor:
    """exp(-(s·x)² / 2) with sharpness s = 16 and peak 1 (Huebotter et al. 2025).

    Args:
        distance: membrane minus threshold, any shape.
    Returns:
        The derivative, same shape.
    """
    return _bell(distance * GAUSSIAN_SHARPNESS)


def multi_gaussian(distance: Tensor) -> Tensor:
    """A Gaussian with two shallow negative side lobes (Yin, Corradi, Bohté 2021, eq. 5), scaled to peak 1.

        (1 + h)·N(x; 0, σ) - h·N(x; σ, sσ) - h·N(x; -σ, sσ),  σ = 1/16, h = 0.15, s = 6

    Neurons far from threshold receive a small gradient of the other sign, which keeps them from falling silent.

    Args:
        distance: membrane minus threshold, any shape.
    Returns:
        The derivative, same shape.
    """
    scaled = distance * GAUSSIAN_SHARPNESS
    result = _bell(scaled).mul_((1.0 + SIDE_LOBE_HEIGHT) / MULTI_GAUSSIAN_PEAK)
    lobe = -SIDE_LOBE_HEIGHT / SIDE_LOBE_WIDTH / MULTI_GAUSSIAN_PEAK
    for centre in (-1.0, 1.0):
        result.add_(_bell((scaled - centre).div_(SIDE_LOBE_WIDTH)), alpha=lobe)
    return result


def superspike(distance: Tensor) -> Tensor:
    """1 / (1 + s·|x|)² with slope s = 25, snntorch's `fast_sigmoid` (SuperSpike: Zenke, Ganguli 2018).

    Args:
        distance: membrane minus threshold, any shape.
    Returns:
        The derivative, same shape.
    """
    return _derivative_of(fast_sigmoid(slope=SUPERSPIKE_SLOPE), distance)


def sigmoid(distance: Tensor) -> Tensor:
    """s·σ(s·x)·(1 - σ(s·x)) with slope s = 25, snntorch's `sigmoid` (Zenke, Ganguli 2018).

    snntorch's own overflows to NaN at x below -3.5, where the derivative is zero in float32; so x is clamped to ±3.

    Args:
        distance: membrane minus threshold, any shape.
    Returns:
        The derivative, same shape.
    """
    return _derivative_of(snntorch_sigmoid(slope=SIGMOID_SLOPE), distance.clamp(-3.0, 3.0))


def _derivative_of(spike: Callable[[Tensor], Tensor], distance: Tensor) -> Tensor:
    """What snntorch's spike function passes back at each distance."""
    with torch.enable_grad():
        leaf = distance.detach().clone().requires_grad_()
        return torch.autograd.grad(spike(leaf).sum(), leaf)[0]


SURROGATES: Final[dict[str, SurrogateDerivative]] = {
    "gaussian": gaussian,
    "multi_gaussian": multi_gaussian,
    "superspike": superspike,
    "sigmoid": sigmoid,
}


def surrogate_derivative(name: str) -> SurrogateDerivative:
    """The derivative of that name.

    Raises:
        ConfigError: the name is not one of `SURROGATES`.
    """
    try:
        return SURROGATES[name]
    except KeyError:
        known = ", ".join(sorted(SURROGATES))
        raise ConfigError(f"surrogate '{name}' is unknown; choose one of: {known}.") from None


def spike_function(name: str) -> Callable[[Tensor], Tensor]:
    """A step function H(membrane - threshold) whose gradient is the named surrogate, on snntorch's machinery."""
    derivative = surrogate_derivative(name)

    def chain(distance: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
        del spikes
        return grad * derivative(distance)

    apply: Callable[[Tensor], Tensor] = custom_surrogate(chain)
    return apply
