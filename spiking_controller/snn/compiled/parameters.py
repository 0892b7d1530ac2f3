"""What one compiled unroll works with: parameters of the layers and the readout, and options of the ticks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from spiking_controller.snn.fixed_point import FixedPoint
from spiking_controller.snn.neurons import LIFDecay, Threshold


class LayerParameters(NamedTuple):
    """Parameters of one hidden layer; None where the layer has no such part.

    Attributes:
        decay: decay factors per tick, [neurons] each.
        readout: weights to the readout, [outputs, neurons].
        bias: [neurons].
        up_projection, down_projection: A [neurons, rank] and B [rank, before] of the connection from the layer before,
            or the full matrix as `up_projection`; for the first layer the full matrix from the features,
            [neurons, features], gain included.
        recurrent_up_projection, recurrent_down_projection: the same of the recurrence.
    """

    decay: LIFDecay
    readout: Tensor
    bias: Tensor
    up_projection: Tensor
    down_projection: Tensor | None
    recurrent_up_projection: Tensor | None
    recurrent_down_projection: Tensor | None


class ReadoutParameters(NamedTuple):
    """Closed form of the readout over the ticks of a step (`readout.readout_response`), and its gain.

    `synaptic_gain` and `membrane_gain` are [ticks, outputs], the rest [outputs].
    """

    synaptic_keep: Tensor
    synaptic_gain: Tensor
    membrane_keep: Tensor
    membrane_from_synaptic: Tensor
    membrane_gain: Tensor
    output_gain: Tensor


class UnrollParameters(NamedTuple):
    """Everything that a network's steps depend on besides its state and its features: hidden layers and readout."""

    layers: tuple[LayerParameters, ...]
    readout: ReadoutParameters

    def flatten(self) -> list[Tensor | None]:
        """All tensors in a fixed order, for autograd."""
        flat: list[Tensor | None] = [*self.readout]
        for layer in self.layers:
            flat += [*layer.decay, *layer[1:]]
        return flat

    @staticmethod
    def unflatten(flat: Sequence[Any]) -> "UnrollParameters":
        """The inverse of `flatten`."""
        readout, size = len(ReadoutParameters._fields), 2 + len(LayerParameters._fields)
        parts = (flat[i : i + size] for i in range(readout, len(flat), size))
        layers = tuple(LayerParameters(LIFDecay(*part[:3]), *part[3:]) for part in parts)
        return UnrollParameters(layers, ReadoutParameters(*flat[:readout]))


class UnrollOptions(NamedTuple):
    """Options of the ticks besides tensors.

    Attributes:
        threshold: how it moves.
        surrogate: name of the surrogate derivative.
        ticks: per control step.
        recurrence: "none", "step" or "tick", see `config.NetworkConfig`, as the following three.
        recurrent_layers: "all" or "first".
        readout_leak: "membrane" or "output".
        delay: ticks.
        fixed_point: the numbers that hold the state; None for float32. Only `SingleStep` knows others.
    """

    threshold: Threshold
    surrogate: str
    ticks: int
    recurrence: str
    recurrent_layers: str
    readout_leak: str
    delay: int
    fixed_point: FixedPoint | None
