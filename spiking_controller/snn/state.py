"""State of a spiking network between two control steps: goes in and comes out, nothing is hidden in a module."""

from typing import NamedTuple

from torch import Tensor

from spiking_controller.snn.neurons import LIFState


class LayerState(NamedTuple):
    """State of a hidden layer: its neurons, and the spikes that recurrence feeds back, [batch, neurons].

    `mean_spikes` are those of the last control step on average; with tick-wise recurrence those of its last tick.
    """

    neurons: LIFState
    mean_spikes: Tensor


class NetworkState(NamedTuple):
    """State of a network: its layers, the readout's two integrators, [batch, outputs] each, and features it received.

    `readout_membrane` is the output, tanh of the membrane, where the readout leaks from that. `held_features`, [batch,
    inputs], are those of the step before, where features come late or are sent on change; None elsewhere.
    """

    layers: tuple[LayerState, ...]
    readout_synaptic: Tensor
    readout_membrane: Tensor
    held_features: Tensor | None = None

    def detach(self) -> "NetworkState":
        """The same state without its history."""
        return NetworkState(
            tuple(
                LayerState(LIFState(*(part.detach() for part in layer.neurons)), layer.mean_spikes.detach())
                for layer in self.layers
            ),
            self.readout_synaptic.detach(),
            self.readout_membrane.detach(),
            None if self.held_features is None else self.held_features.detach(),
        )
