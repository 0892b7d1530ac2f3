"""Layers of one compiled unroll: their steps forward and back through the kernels."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.compiled.feeds import DelayedFeed, FeatureFeed, SpikeFeed, by_tick
from spiking_controller.snn.compiled.parameters import LayerParameters, UnrollOptions
from spiking_controller.snn.neurons import LIFState, kernel_neurons
from spiking_controller.snn.state import LayerState


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
        self._feed: FeatureFeed | SpikeFeed
        if before is not None:
            self._feed = SpikeFeed(steps, batch, ticks, parameters, before.fired_at)
        elif options.delay > 0:
            self._feed = DelayedFeed(steps, batch, ticks, options.delay, parameters.up_projection)
        else:
            self._feed = FeatureFeed(steps, batch, parameters.up_projection)
        self.fired_at: list[kernels.Fired] = [
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
        self._grad_spikes_by_tick = by_tick(self._grad_spikes, ticks)
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

    def hold(self, features: Tensor | None) -> None:
        """Begin with these features before the first step, [batch, features], where features come late; after `start`.

        Only the first layer has any.
        """
        assert isinstance(self._feed, FeatureFeed)
        self._feed.hold(features)

    def held(self) -> Tensor | None:
        """The features that the step after the last will need, [batch, features], copied; None without delay."""
        assert isinstance(self._feed, FeatureFeed)
        return self._feed.held()

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
    """Every tick receives the spikes of the tick before.

    Forward the kernel feeds them back, row by row, adding up the weights of the few neurons that fired. Backward a
    gradient has no zeros to skip, and each tick takes one matrix product for the whole batch.
    """

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, before: Layer | None
    ) -> None:
        super().__init__(steps, batch, options, parameters, before)
        ticks, neurons = options.ticks, self._fed_back.shape[2]
        rank = 0 if parameters.recurrent_down_projection is None else parameters.recurrent_down_projection.shape[0]
        drive, latent = (np.empty((steps, batch, ticks, width), np.float32) for width in (neurons, rank))
        self._record_at = [kernels.TickWiseRecord(*record) for record in zip(drive, latent, strict=True)]
        self._records = kernels.tick_wise_records(batch, ticks, neurons)
        self._grad_drive = torch.empty(ticks, batch, neurons)
        self._grad_latent = torch.empty(ticks, batch, rank)
        self._grad_drive_at, self._grad_latent_at = self._grad_drive.unbind(), self._grad_latent.unbind()
        self._grad_drive_np = list(self._grad_drive.numpy())
        self._mean_spikes, self._grad_mean = torch.empty(steps, batch, neurons), torch.empty(batch, neurons)
        self._mean_spikes_np, self._grad_mean_np = list(self._mean_spikes.numpy()), self._grad_mean.numpy()

    def start(self, parameters: LayerParameters, state: LayerState) -> None:
        super().start(parameters, state)
        up_projection, down_projection = parameters.recurrent_up_projection, parameters.recurrent_down_projection
        assert up_projection is not None
        self._up_projection, self._down_projection = up_projection, down_projection
        gathered = up_projection if down_projection is None else down_projection
        gather = np.ascontiguousarray(gathered.numpy().T)
        spread = gather[:0] if down_projection is None else np.ascontiguousarray(up_projection.numpy().T)
        self._recurrence = kernels.Connection(gather, spread)

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
        drive = self._record_at[step].drive
        step_gradient = kernels.StepGradient(grad_spikes, grad_currents, self._grad_mean_np, self._grad_state)
        kernels.tick_wise_again(
            drive,
            self._state_at[step],
            self._neurons,
            kernels.SURROGATE_CODES[self._options.surrogate],
            self._grad_state,
            self._records,
        )
        for tick in reversed(range(drive.shape[1])):
            kernels.tick_wise_back(
                tick,
                step_gradient,
                self._grad_fed_back_np,
                self._readout,
                self._neurons,
                self.fired_at[step],
                self._learns,
                self._records,
                self._grad_drive_np[tick],
                self._gradient,
            )
            grad_now = self._grad_drive_at[tick]
            if self._down_projection is None:
                torch.mm(grad_now, self._up_projection, out=self._grad_fed_back)
            else:
                torch.mm(grad_now, self._up_projection, out=self._grad_latent_at[tick])
                torch.mm(self._grad_latent_at[tick], self._down_projection, out=self._grad_fed_back)
        grad_fed = self._feed.fed_at[step]
        if self._feed.ticks == 1:
            torch.sum(self._grad_drive, 0, out=grad_fed)
        else:
            grad_fed.view(-1, *self._grad_drive.shape[::2]).copy_(self._grad_drive.transpose(0, 1))
        if self._learns:
            self._learn_recurrence(step)

    def _learn_recurrence(self, step: int) -> None:
        grad_gathered = self._grad_drive
        if self._down_projection is not None:
            grad_gathered = self._grad_latent
            latent = torch.from_numpy(self._record_at[step].latent).transpose(0, 1)
            self._grad_spread.addmm_(latent.flatten(0, 1).t(), self._grad_drive.flatten(0, 1))
        kernels.add_to_fed_back(self._fed_back_np[step], self.fired_at[step], grad_gathered.numpy(), self._grad_gather)

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        grad_gathered = torch.from_numpy(self._grad_gather).t()
        return (grad_gathered, None) if len(self._recurrence.spread) == 0 else (self._grad_spread.t(), grad_gathered)


_LAYERS: Final[dict[str, type[Layer]]] = {"none": Layer, "step": _StepWiseLayer, "tick": _TickWiseLayer}


def build_layer(
    steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, before: Layer | None
) -> Layer:
    """The layer behind `before`, or the first one, with the recurrence that it has."""
    is_recurrent = before is None or options.recurrent_layers == "all"
    return _LAYERS[options.recurrence if is_recurrent else "none"](steps, batch, options, parameters, before)
