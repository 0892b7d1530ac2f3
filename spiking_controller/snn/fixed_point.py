"""Numbers as a chip holds them: state in fixed point, weights as small integers times a power of two for each row.

Values stay float32 tensors, which hold all these numbers exactly. The gradient goes straight through the rounding
(Bengio, Léonard, Courville 2013).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class FixedPoint(NamedTuple):
    """Signed fixed-point numbers, which saturate at their bounds.

    Attributes:
        bits: in all, one of them for the sign; at most 24, which float32 holds exactly.
        fraction_bits: of them, behind the point.
    """

    bits: int
    fraction_bits: int

    @property
    def quantum(self) -> float:
        """The smallest number above zero."""
        return float(2.0**-self.fraction_bits)

    @property
    def lowest(self) -> int:
        """The lowest number, in quanta."""
        return -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """The highest number, in quanta."""
        return int(2 ** (self.bits - 1) - 1)

    def round(self, values: Tensor) -> Tensor:
        """The nearest of these numbers, to even from the middle between two."""
        return torch.fake_quantize_per_tensor_affine(values, self.quantum, 0, self.lowest, self.highest)


def round_rows(weight: Tensor, bits: int) -> Tensor:
    """Weights as signed integers of so many bits times a power of two for each row: the finest without overflow.

    With powers of two, which cost a chip shifts, sums of weights are exact in float32 whatever their order. What is
    rounded already stays as it is.

    Args:
        weight: [outputs, inputs].
        bits: at least 2; the integers lie in ±(2^(bits - 1) - 1).
    """
    largest = 2 ** (bits - 1) - 1
    peak = weight.detach().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny * largest)
    mantissa, exponent = torch.frexp(peak / largest)
    scale = torch.ldexp(torch.ones_like(peak), exponent - (mantissa == 0.5).int())
    zero_point = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -largest, largest)
