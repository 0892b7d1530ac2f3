"""One control step of one network at a time, as the live controller takes it: compiled, and without PyTorch in between.

At batch 1 a step is some ten thousand multiplications, which take less time than starting the dozens of tensor
operations that `SpikingNetwork.step` consists of. That function stays the reference that this is tested against.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.compiled.layers import LayerParameters, UnrollOptions, UnrollParameters, UnrollState
from spiking_controller.snn.neurons import LIFState

FloatArray = NDArray[np.float32]


def _transposed(weight: Tensor | None, columns: int) -> FloatArray:
    """The transpose of a matrix, or an array of no rows in its place."""
    if weight is None:
        return np.empty((0, columns), np.float32)
    return weight.detach().t().contiguous().numpy()


class _LayerWeights:
    """Weights of one layer, laid out for `kernels.layer_step`."""

    def __init__(self, parameters: LayerParameters, is_first: bool) -> None:
        neurons = parameters.bias.shape[0]
        self.bias: FloatArray = parameters.bias.detach().numpy().copy()
        self.decay: FloatArray = torch.stack([part.detach() for part in parameters.decay]).numpy()
        self.readout = _transposed(parameters.readout, 0)
        none = np.empty((0, neurons), np.float32)
        self.input, self.gather, self.spread = none, none, none
        if is_first:
            self.input = parameters.expand.detach().numpy().copy()
        elif parameters.compress is None:
            self.gather = _transposed(parameters.expand, neurons)
        else:
            self.gather, self.spread = _transposed(parameters.compress, 0), _transposed(parameters.expand, neurons)
        self.own_gather, self.own_spread = none, none
        if parameters.recurrent_compress is not None:
            self.own_gather = _transposed(parameters.recurrent_compress, 0)
            self.own_spread = _transposed(parameters.recurrent_expand, neurons)
        elif parameters.recurrent_expand is not None:
            self.own_gather = _transposed(parameters.recurrent_expand, neurons)


class SingleStep:
    """The steps of a network whose parameters stay as they are, one copy of it at a time, without gradients."""

    def __init__(self, parameters: UnrollParameters, options: UnrollOptions) -> None:
        """Copy the parameters.

        Args:
            parameters: of the network.
            options: recurrence "none" or "step".
        """
        self._ticks = options.ticks
        threshold = options.threshold
        self._levels = threshold.rest, threshold.decrement, threshold.adaptation_strength
        self._layers = [_LayerWeights(layer, index == 0) for index, layer in enumerate(parameters.layers)]
        self._readout = tuple(part.detach().contiguous().numpy().copy() for part in parameters.readout)
        self._outputs = len(parameters.readout.output_gain)

    def step(self, features: Tensor, state: UnrollState) -> tuple[Tensor, UnrollState, tuple[Tensor, ...]]:
        """One control step; see `SpikingNetwork.step`.

        Args:
            features: [1, inputs].
            state: before the step.
        Returns:
            The readout [1, outputs], the state after the step, and the spikes of each layer, [ticks, 1, neurons].
        """
        ticks, outputs = self._ticks, self._outputs
        currents = np.zeros((1, ticks, outputs), np.float32)
        lists = [kernels.empty_lists(0, ticks, 0)]
        layers_after = []
        for index, (weights, (neurons, fed_back)) in enumerate(zip(self._layers, state.layers, strict=True)):
            fed = weights.bias + weights.input @ features[0].detach().numpy() if index == 0 else weights.bias
            size = len(weights.bias)
            after, mean = np.empty((1, 4, size), np.float32), np.empty((1, size), np.float32)
            fired = kernels.empty_lists(1, ticks, size)
            kernels.layer_step(
                fed,
                *lists[-1],
                weights.gather,
                weights.spread,
                fed_back[0].numpy(),
                weights.own_gather,
                weights.own_spread,
                torch.stack(tuple(neurons), 1).numpy(),
                weights.decay,
                self._levels,
                weights.readout,
                *fired,
                after,
                mean,
                currents,
            )
            lists.append(fired)
            layers_after.append((LIFState(*torch.from_numpy(after).unbind(1)), torch.from_numpy(mean)))
        output, synaptic, membrane = (np.empty((1, outputs), np.float32) for _ in range(3))
        kernels.readout_forward(
            currents,
            state.readout_synaptic.numpy(),
            state.readout_membrane.numpy(),
            *self._readout,
            synaptic,
            membrane,
            output,
        )
        return (
            torch.from_numpy(output),
            UnrollState(tuple(layers_after), torch.from_numpy(synaptic), torch.from_numpy(membrane)),
            tuple(
                self._spikes(*fired, len(weights.bias)) for fired, weights in zip(lists[1:], self._layers, strict=True)
            ),
        )

    def _spikes(self, fired: NDArray[np.int32], ends: NDArray[np.int32], neurons: int) -> Tensor:
        spikes = np.empty((self._ticks, 1, neurons), np.float32)
        kernels.write_spikes(fired, ends, spikes)
        return torch.from_numpy(spikes)
