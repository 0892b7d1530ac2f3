"""Single control steps at batch 1, as the live controller takes them: compiled, with almost no PyTorch in between.

At batch 1 a step is some ten thousand multiplications, which take less time than launching the dozens of tensor
operations of `SpikingNetwork.step`. That function stays the reference that this is tested against.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.compiled.parameters import LayerParameters, UnrollOptions, UnrollParameters
from spiking_controller.snn.neurons import LIFState, kernel_neurons
from spiking_controller.snn.state import LayerState, NetworkState

FloatArray = NDArray[np.float32]


def _transposed(weight: Tensor | None, columns: int) -> FloatArray:
    """The transpose of a matrix, or an array of no rows in its place."""
    if weight is None:
        return np.empty((0, columns), np.float32)
    return weight.detach().t().contiguous().numpy()


def _connection(up_projection: Tensor | None, down_projection: Tensor | None, neurons: int) -> kernels.Connection:
    """Weights as the kernels take them."""
    if down_projection is None:
        return kernels.Connection(_transposed(up_projection, neurons), np.empty((0, neurons), np.float32))
    return kernels.Connection(_transposed(down_projection, 0), _transposed(up_projection, neurons))


class _Layer(NamedTuple):
    """Parameters of one layer.

    Attributes:
        bias: [neurons].
        weights: for `kernels.layer_step`.
        fired: the neurons that fired in the last step; overwritten by every step.
    """

    bias: FloatArray
    weights: kernels.LayerWeights
    fired: kernels.Fired

    @classmethod
    def of(cls, parameters: LayerParameters, options: UnrollOptions, is_first: bool) -> "_Layer":
        """Copy the parameters."""
        neurons = parameters.bias.shape[0]
        weights = kernels.LayerWeights(
            _connection(None if is_first else parameters.up_projection, parameters.down_projection, neurons),
            _connection(parameters.recurrent_up_projection, parameters.recurrent_down_projection, neurons),
            kernel_neurons(parameters.decay, options.threshold, options.fixed_point),
            _transposed(parameters.readout, 0),
        )
        fired = kernels.empty_lists(1, options.ticks, neurons)
        return cls(parameters.bias.detach().numpy().copy(), weights, fired)


class SingleStep:
    """The steps of a network at batch 1, without gradients, with the parameters that it had at the start."""

    def __init__(self, parameters: UnrollParameters, options: UnrollOptions) -> None:
        """Copy the parameters.

        Args:
            parameters: of the network.
            options: recurrence "none" or "step".
        """
        self._ticks = options.ticks
        self._input: FloatArray = parameters.layers[0].up_projection.detach().numpy().copy()
        self._layers = [_Layer.of(layer, options, index == 0) for index, layer in enumerate(parameters.layers)]
        self._readout = kernels.Readout(*(part.detach().contiguous().numpy().copy() for part in parameters.readout))
        self._outputs = len(parameters.readout.output_gain)
        self._rounding = self._layers[0].weights.neurons.rounding
        self._nothing = kernels.empty_lists(0, options.ticks, 0)

    def step(self, features: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState, tuple[Tensor, ...]]:
        """One control step; see `SpikingNetwork.step`.

        Args:
            features: [1, inputs], without gradient, as the state.
            state: before the step.
        Returns:
            The readout [1, outputs], the state after the step, and the spikes of each layer, [ticks, 1, neurons].
        """
        ticks, outputs = self._ticks, self._outputs
        currents = np.zeros((1, ticks, outputs), np.float32)
        source, drive = self._nothing, self._input @ features.numpy()[0]
        layers_after, all_spikes = [], []
        for layer, (neurons, fed_back) in zip(self._layers, state.layers, strict=True):
            size = len(layer.bias)
            after, mean = np.empty((1, 4, size), np.float32), np.empty((1, size), np.float32)
            spikes = np.empty((ticks, 1, size), np.float32)
            kernels.layer_step(
                layer.bias + drive if source is self._nothing else layer.bias,
                source,
                fed_back.numpy()[0],
                torch.stack(tuple(neurons), 1).numpy(),
                layer.weights,
                kernels.StepResult(layer.fired, after, mean, currents),
                spikes,
            )
            layers_after.append(LayerState(LIFState(*torch.from_numpy(after).unbind(1)), torch.from_numpy(mean)))
            all_spikes.append(torch.from_numpy(spikes))
            source = layer.fired
        output, synaptic, membrane = (np.empty((1, outputs), np.float32) for _ in range(3))
        before = kernels.Integrators(state.readout_synaptic.numpy(), state.readout_membrane.numpy())
        after_readout = kernels.Integrators(synaptic, membrane)
        if self._rounding.quantum > 0.0:
            kernels.rounded_readout(currents, before, self._readout, self._rounding, after_readout, output)
        else:
            kernels.readout_forward(currents, before, self._readout, after_readout, output)
        after_step = NetworkState(tuple(layers_after), torch.from_numpy(synaptic), torch.from_numpy(membrane))
        return torch.from_numpy(output), after_step, tuple(all_spikes)
