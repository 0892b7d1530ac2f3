"""Layers of one compiled unroll: parameters, what feeds a layer, and its steps forward and back through the kernels."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.neurons import LIFDecay, LIFState, Threshold, kernel_neurons
from spiking_controller.snn.state import LayerState


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
    """Closed form of the readout over the ticks of a step (`network.readout_response`), and its gain.

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
        recurrence: "none", "step" or "tick", see `network.NetworkConfig`.
    """

    threshold: Threshold
    surrogate: str
    ticks: int
    recurrence: str


_WIDTH: Final = 16
"""Features are padded with zeros to a multiple of this: products of other widths take half as long again."""


class _FeatureFeed:
    """Input of the first layer: the features through one full matrix, once per step.

    The first axis of a buffer, here and below, is the control step. Gradients are accumulated transposed, step by step
    while a step's arrays are in the cache; in this shape their products take two thirds of the time.
    """

    ticks: Final = 1

    def __init__(self, steps: int, batch: int, up_projection: Tensor) -> None:
        neurons, self._features = up_projection.shape
        width = -(-self._features // _WIDTH) * _WIDTH
        self._weight, self._grad_weight = torch.zeros(neurons, width), torch.empty(width, neurons)
        # Views of single steps, here and below, are made once: making one costs as much as a small product.
        self._source_at = torch.zeros(steps, batch, width).unbind()
        self.fed_at = torch.empty(steps, batch, neurons).unbind()
        self.fed_by_tick = _all_by_tick(self.fed_at, self.ticks)

    def start(self, parameters: LayerParameters) -> None:
        """Begin an unroll with these parameters."""
        self._bias = parameters.bias
        self._weight[:, : self._features].copy_(parameters.up_projection)

    def forward(self, step: int, features: Tensor) -> None:
        """Fill the input of this step, `fed_at[step]` or `fed_by_tick[step]`, from features [batch, features]."""
        source = self._source_at[step]
        source[:, : self._features].copy_(features)
        torch.addmm(self._bias, source, self._weight.t(), out=self.fed_at[step])

    def start_backward(self) -> None:
        """Set the gradients to zero."""
        self._grad_weight.zero_()

    def backward(self, step: int, learns: bool) -> tuple[Tensor, Tensor]:
        """Back through a step, from the gradient of the input, which has replaced it in `fed_at[step]`.

        Returns:
            The gradient of the source as two factors; that of the features is padded with columns of zeros.
        """
        if learns:
            self._grad_weight.addmm_(self._source_at[step].t(), self.fed_at[step])
        return self.fed_at[step], self._weight

    def gradients(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of A and B."""
        return self._grad_weight[: self._features].t().clone(), None


class _SpikeFeed:
    """Input of a later layer: the spikes of the layer before through A·B or one full matrix, in every tick.

    Its methods are those of `_FeatureFeed`.
    """

    def __init__(self, steps: int, batch: int, ticks: int, parameters: LayerParameters, before: "Layer") -> None:
        self.ticks, self._before = ticks, before
        up_projection, down_projection = parameters.up_projection, parameters.down_projection
        neurons, width = up_projection.shape
        rows = batch * ticks
        self._is_full = down_projection is None
        self._gather = torch.empty((up_projection if down_projection is None else down_projection).t().shape)
        self._grad_gather, self._grad_spread = torch.empty_like(self._gather), torch.empty(width, neurons)
        self.fed_at = torch.empty(steps, rows, neurons).unbind()
        self.fed_by_tick = _all_by_tick(self.fed_at, ticks)
        # Sums of the weights of the neurons that fired: latent values, or with a full matrix the layer's input itself.
        self._sum_at = self.fed_at if self._is_full else torch.empty(steps, rows, width).unbind()
        self._sum_by_tick = self.fed_by_tick if self._is_full else _all_by_tick(self._sum_at, ticks)
        self._grad_sum = torch.empty(0 if self._is_full else rows, width)
        self._grad_sum_by_tick = _by_tick(self._grad_sum, ticks)
        self._gather_np, self._grad_gather_np = self._gather.numpy(), self._grad_gather.numpy()

    def start(self, parameters: LayerParameters) -> None:
        self._bias = parameters.bias
        self._up_projection, self._down_projection = parameters.up_projection, parameters.down_projection
        self._gather.copy_((self._up_projection if self._down_projection is None else self._down_projection).t())

    def forward(self, step: int, features: Tensor) -> None:
        into = self._sum_at[step]
        into.copy_(self._bias) if self._is_full else into.zero_()
        kernels.add_fired(self._before.fired_at[step], self._gather_np, self._sum_by_tick[step])
        if not self._is_full:
            torch.addmm(self._bias, into, self._up_projection.t(), out=self.fed_at[step])

    def start_backward(self) -> None:
        self._grad_gather.zero_()
        self._grad_spread.zero_()

    def backward(self, step: int, learns: bool) -> tuple[Tensor, Tensor]:
        grad = grad_sum = self.fed_at[step]
        if not self._is_full:
            grad_sum = torch.mm(grad, self._up_projection, out=self._grad_sum)
            if learns:
                self._grad_spread.addmm_(self._sum_at[step].t(), grad)
        if learns:
            by_tick = self.fed_by_tick[step] if self._is_full else self._grad_sum_by_tick
            kernels.add_to_fired(self._before.fired_at[step], by_tick, self._grad_gather_np)
        return grad_sum, self._up_projection if self._down_projection is None else self._down_projection

    def gradients(self) -> tuple[Tensor, Tensor | None]:
        gathered = self._grad_gather.t().clone()
        return (gathered, None) if self._is_full else (self._grad_spread.t().clone(), gathered)


def _by_tick(rows: Tensor, ticks: int) -> np.ndarray:
    """Rows of a step, [batch × ticks, n], as the kernels take them, [batch, ticks, n]."""
    return rows.numpy().reshape(-1, ticks, rows.shape[1])


def _all_by_tick(steps: Sequence[Tensor], ticks: int) -> list[np.ndarray]:
    """`_by_tick` of every step."""
    return [_by_tick(rows, ticks) for rows in steps]


class Layer:
    """A hidden layer without recurrence: its parameters, and what its steps record for the backward pass.

    Attributes:
        fired_at: the neurons that fired, step by step.
    """

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, before: "Layer | None"
    ) -> None:
        ticks, neurons = options.ticks, parameters.bias.shape[0]
        self._options = options
        threshold = options.threshold
        self._feed = (
            _FeatureFeed(steps, batch, parameters.up_projection)
            if before is None
            else _SpikeFeed(steps, batch, ticks, parameters, before)
        )
        self.fired_at = [
            kernels.Fired(*lists) for lists in zip(*kernels.empty_lists(steps, batch, ticks, neurons), strict=True)
        ]
        fields = 4 if threshold.moves else 2
        self._state_at = list(np.empty((steps + 1, batch, fields, neurons), np.float32))
        self._grad_state = np.empty((batch, 3 if threshold.moves else 2, neurons), np.float32)
        # What recurrence feeds back after each step, the first being the state before the unroll.
        self._fed_back, self._grad_fed_back = torch.empty(steps + 1, batch, neurons), torch.empty(batch, neurons)
        self._fed_back_at = self._fed_back.unbind()
        self._fed_back_np, self._grad_fed_back_np = list(self._fed_back.numpy()), self._grad_fed_back.numpy()
        self._grad_spikes = torch.empty(batch * ticks, neurons)
        self._grad_spikes_by_tick = _by_tick(self._grad_spikes, ticks)
        self._no_grad_spikes = self._grad_spikes_by_tick[:0]

    def start(self, parameters: LayerParameters, state: LayerState) -> None:
        """Begin an unroll with these parameters in this state."""
        self._feed.start(parameters)
        self._neurons = kernel_neurons(parameters.decay, self._options.threshold)
        self._readout = parameters.readout.numpy()
        self._gather_readout = np.ascontiguousarray(self._readout.T)
        fields = self._state_at[0].shape[1]
        neurons = state.neurons
        self._state_at[0][:], self._unmoved = torch.stack(neurons[:fields], 1).numpy(), neurons[fields:]
        self._fed_back_at[0].copy_(state.mean_spikes)

    def state(self) -> LayerState:
        """The state after the last step, copied."""
        moved = torch.from_numpy(self._state_at[-1]).clone().unbind(1)
        return LayerState(LIFState(*moved, *self._unmoved), self._fed_back[-1].clone())

    def mean_spikes(self) -> Tensor:
        """Mean spikes per tick in all steps, [steps, batch, neurons], copied."""
        return self._fed_back[1:].clone()

    def forward(self, step: int, features: Tensor, currents: np.ndarray) -> None:
        """One control step.

        Args:
            step: its number.
            features: of the network, [batch, features].
            currents: of the readout, [batch, ticks, outputs]; added to.
        """
        self._feed.forward(step, features)
        self._run_ticks(step, currents)

    def _run_ticks(self, step: int, currents: np.ndarray) -> None:
        kernels.scan_forward(
            self._feed.fed_by_tick[step],
            self._state_at[step],
            self._neurons,
            self._gather_readout,
            self._result(step, self._fed_back_np[step + 1], currents),
        )

    def _result(self, step: int, mean_spikes: np.ndarray, currents: np.ndarray) -> kernels.StepResult:
        return kernels.StepResult(self.fired_at[step], self._state_at[step + 1], mean_spikes, currents)

    def start_backward(self, learns: bool) -> None:
        """Begin the backward pass; `learns` says whether `gradients` will be asked for."""
        self._learns = learns
        self._grad_state[:] = 0.0
        self._grad_fed_back.zero_()
        self._gradient = kernels.LayerGradient(
            np.zeros((4, self._readout.shape[1]), np.float32), np.zeros_like(self._gather_readout)
        )
        self._feed.start_backward()

    def backward(
        self,
        step: int,
        from_above: tuple[Tensor, Tensor] | None,
        grad_currents: np.ndarray,
        grad_mean_spikes: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Back through one control step.

        Args:
            step: its number.
            from_above: gradient of the spikes from the layer above, as two factors whose product is
                [batch × ticks, neurons]; None if there is none.
            grad_currents: gradient of the readout's currents, [batch, ticks, outputs].
            grad_mean_spikes: further gradient, of the mean spikes, [batch, neurons].
        Returns:
            The gradient of the source as two factors; that of the features is padded with columns of zeros.
        """
        grad_spikes = self._no_grad_spikes
        if from_above is not None:
            torch.mm(*from_above, out=self._grad_spikes)
            grad_spikes = self._grad_spikes_by_tick
        self._back_through_ticks(step, grad_spikes, grad_currents, grad_mean_spikes)
        return self._feed.backward(step, self._learns)

    def _back_through_ticks(
        self, step: int, grad_spikes: np.ndarray, grad_currents: np.ndarray, grad_mean_spikes: Tensor | None
    ) -> None:
        # Recurrence feeds back the mean spikes, so that both gradients add up.
        if grad_mean_spikes is not None:
            self._grad_fed_back += grad_mean_spikes
        fed = self._feed.fed_by_tick[step]
        kernels.scan_backward(
            kernels.StepGradient(grad_spikes, grad_currents, self._grad_fed_back_np, self._grad_state),
            self._readout,
            fed,
            self._state_at[step],
            self._neurons,
            self.fired_at[step],
            kernels.SURROGATE_CODES[self._options.surrogate],
            self._learns,
            fed,
            self._gradient,
        )
        self._back_through_recurrence(step)

    def _back_through_recurrence(self, step: int) -> None:
        del step
        self._grad_fed_back.zero_()

    def gradients(self) -> list[Tensor | None]:
        """Gradients in the order of the layer's parameters."""
        *grad_decay, grad_bias = torch.from_numpy(self._gradient.neurons)
        grad_readout = torch.from_numpy(self._gradient.readout).t()
        return [*grad_decay, grad_readout, grad_bias, *self._feed.gradients(), *self._recurrent_gradients()]

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        return None, None


class _StepWiseLayer(Layer):
    """Every step receives the mean spikes of the step before."""

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, before: Layer | None
    ) -> None:
        super().__init__(steps, batch, options, parameters, before)
        down_projection = parameters.recurrent_down_projection
        rank = 0 if down_projection is None else down_projection.shape[0]
        self._latent_at, self._grad_latent = torch.empty(steps, batch, rank).unbind(), torch.empty(batch, rank)

    def start(self, parameters: LayerParameters, state: LayerState) -> None:
        super().start(parameters, state)
        assert parameters.recurrent_up_projection is not None
        self._up_projection = parameters.recurrent_up_projection
        self._down_projection = parameters.recurrent_down_projection

    def _run_ticks(self, step: int, currents: np.ndarray) -> None:
        drive, source = self._feed.fed_at[step], self._fed_back_at[step]
        if self._down_projection is not None:
            source = torch.mm(source, self._down_projection.t(), out=self._latent_at[step])
        if self._feed.ticks == 1:
            drive.addmm_(source, self._up_projection.t())
        else:
            drive.view(len(source), self._feed.ticks, -1).add_((source @ self._up_projection.t()).unsqueeze(1))
        super()._run_ticks(step, currents)

    def start_backward(self, learns: bool) -> None:
        super().start_backward(learns)
        self._grad_up_projection = torch.zeros(self._up_projection.shape[::-1])
        self._grad_down_projection = None if self._down_projection is None else torch.zeros_like(self._down_projection)

    def _back_through_recurrence(self, step: int) -> None:
        grad, source = self._feed.fed_at[step], self._fed_back_at[step]
        if self._feed.ticks > 1:
            grad = grad.view(len(source), self._feed.ticks, -1).sum(1)
        if self._down_projection is None:
            torch.mm(grad, self._up_projection, out=self._grad_fed_back)
        else:
            torch.mm(grad, self._up_projection, out=self._grad_latent)
            torch.mm(self._grad_latent, self._down_projection, out=self._grad_fed_back)
        if self._learns and self._grad_down_projection is not None:
            self._grad_down_projection.addmm_(self._grad_latent.t(), source)
            source = self._latent_at[step]
        if self._learns:
            self._grad_up_projection.addmm_(source.t(), grad)

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        return self._grad_up_projection.t(), self._grad_down_projection


class _TickWiseLayer(Layer):
    """Every tick receives the spikes of the tick before; the kernels feed them back, row by row."""

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, before: Layer | None
    ) -> None:
        super().__init__(steps, batch, options, parameters, before)
        ticks, neurons = options.ticks, self._fed_back.shape[2]
        rank = 0 if parameters.recurrent_down_projection is None else parameters.recurrent_down_projection.shape[0]
        drive, latent = (np.empty((steps, batch, ticks, width), np.float32) for width in (neurons, rank))
        self._record_at = [kernels.TickWiseRecord(*record) for record in zip(drive, latent, strict=True)]
        self._grad_drive = np.empty((batch, ticks, neurons), np.float32)
        self._mean_spikes, self._grad_mean = torch.empty(steps, batch, neurons), torch.empty(batch, neurons)
        self._mean_spikes_np, self._grad_mean_np = list(self._mean_spikes.numpy()), self._grad_mean.numpy()

    def start(self, parameters: LayerParameters, state: LayerState) -> None:
        super().start(parameters, state)
        up_projection, down_projection = parameters.recurrent_up_projection, parameters.recurrent_down_projection
        assert up_projection is not None
        gathered = (up_projection if down_projection is None else down_projection).numpy()
        gather = np.ascontiguousarray(gathered.T)
        spread = gather[:0] if down_projection is None else np.ascontiguousarray(up_projection.numpy().T)
        self._recurrence = kernels.Connection(gather, spread)
        self._transposed = kernels.Connection(gathered, spread)

    def mean_spikes(self) -> Tensor:
        return self._mean_spikes.clone()

    def _run_ticks(self, step: int, currents: np.ndarray) -> None:
        kernels.tick_wise_forward(
            self._feed.fed_by_tick[step],
            self._fed_back_np[step],
            self._state_at[step],
            self._neurons,
            self._recurrence,
            self._gather_readout,
            self._result(step, self._mean_spikes_np[step], currents),
            self._fed_back_np[step + 1],
            self._record_at[step],
        )

    def start_backward(self, learns: bool) -> None:
        super().start_backward(learns)
        self._grad_gather = np.zeros_like(self._recurrence.gather)
        self._grad_spread = torch.zeros(self._recurrence.spread.shape)

    def _back_through_ticks(
        self, step: int, grad_spikes: np.ndarray, grad_currents: np.ndarray, grad_mean_spikes: Tensor | None
    ) -> None:
        if grad_mean_spikes is None:
            self._grad_mean.zero_()
        else:
            self._grad_mean.copy_(grad_mean_spikes)
        kernels.tick_wise_backward(
            kernels.StepGradient(grad_spikes, grad_currents, self._grad_mean_np, self._grad_state),
            self._grad_fed_back_np,
            self._readout,
            self._record_at[step].drive,
            self._fed_back_np[step],
            self._state_at[step],
            self._neurons,
            self._transposed,
            self.fired_at[step],
            kernels.SURROGATE_CODES[self._options.surrogate],
            self._learns,
            self._grad_drive,
            self._grad_gather,
            self._gradient,
        )
        grad_drive, grad_fed = torch.from_numpy(self._grad_drive), self._feed.fed_at[step]
        if self._feed.ticks == 1:
            torch.sum(grad_drive, 1, out=grad_fed)
        else:
            grad_fed.copy_(grad_drive.flatten(0, 1))
        if self._learns and len(self._recurrence.spread) > 0:
            latent = torch.from_numpy(self._record_at[step].latent)
            self._grad_spread.addmm_(latent.flatten(0, 1).t(), grad_drive.flatten(0, 1))

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        grad_gathered = torch.from_numpy(self._grad_gather).t()
        return (grad_gathered, None) if len(self._recurrence.spread) == 0 else (self._grad_spread.t(), grad_gathered)


LAYERS: dict[str, type[Layer]] = {"none": Layer, "step": _StepWiseLayer, "tick": _TickWiseLayer}
