"""Surrogate derivatives of the spike: what back-propagation sees in place of the step function's zero gradient."""

import math
from collections.abc import Callable
from typing import Final

from snntorch.surrogate import custom_surrogate
from torch import Tensor

from spiking_controller.errors import ConfigError

SurrogateDerivative = Callable[[Tensor], Tensor]

_SHARPNESS: Final = 16.0
_SIDE_LOBE_HEIGHT: Final = 0.15
_SIDE_LOBE_WIDTH: Final = 6.0


def _bell(scaled: Tensor) -> Tensor:
    """exp(-x²/2), cut where it would become denormal: arithmetic on such numbers is ten times slower."""
    return scaled.square().mul_(-0.5).clamp_(min=-80.0).exp_()


def gaussian(distance: Tensor) -> Tensor:
    """exp(-(s·x)² / 2) with sharpness s = 16 and peak 1 (Huebotter et al. 2025; DESIGN section 7).

    Args:
        distance: membrane minus threshold, any shape.
    Returns:
        The derivative, same shape.
    """
    return _bell(distance * _SHARPNESS)


def multi_gaussian(distance: Tensor) -> Tensor:
    """A Gaussian with two shallow negative side lobes (Yin, Corradi, Bohté 2021, eq. 5), scaled to peak 1.

        (1 + h)·N(x; 0, σ) - h·N(x; σ, sσ) - h·N(x; -σ, sσ),  σ = 1/16, h = 0.15, s = 6

    Neurons far from threshold receive a small gradient of the other sign, which keeps them from falling silent.

    Args:
        distance: membrane minus threshold, any shape.
    Returns:
        The derivative, same shape.
    """
    scaled = distance * _SHARPNESS
    lobe = _SIDE_LOBE_HEIGHT / _SIDE_LOBE_WIDTH
    width = 0.5 / _SIDE_LOBE_WIDTH**2
    peak = 1.0 + _SIDE_LOBE_HEIGHT - 2.0 * lobe * math.exp(-width)
    result = _bell(scaled).mul_((1.0 + _SIDE_LOBE_HEIGHT) / peak)
    for centre in (-1.0, 1.0):
        result.add_(_bell((scaled - centre).div_(_SIDE_LOBE_WIDTH)), alpha=-lobe / peak)
    return result


SURROGATES: Final[dict[str, SurrogateDerivative]] = {"gaussian": gaussian, "multi_gaussian": multi_gaussian}


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
