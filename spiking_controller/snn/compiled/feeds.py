"""What feeds a layer in one compiled unroll: the features, at once or late, or the spikes of the layer before."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.compiled.parameters import LayerParameters

_WIDTH: Final = 16
"""Features are padded with zeros to a multiple of this: products of other widths take half as long again."""


class FeatureFeed:
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
        self.fed_by_tick = all_by_tick(self.fed_at, self.ticks)

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

    def hold(self, features: Tensor | None) -> None:
        """Receive the features of the step before the first, [batch, features]; only delays need them."""

    def held(self) -> Tensor | None:
        """The features that the next step needs, copied."""
        return None


class DelayedFeed(FeatureFeed):
    """Features that come some ticks late: until then a step receives those of the step before.

    `fed_at` has a row for every tick, so that a step's input is copied; the products are those of `FeatureFeed`.
    """

    def __init__(self, steps: int, batch: int, ticks: int, delay: int, up_projection: Tensor) -> None:
        super().__init__(steps, batch, up_projection)
        neurons = up_projection.shape[0]
        self.ticks, self._delay = ticks, delay  # type: ignore[misc]  # here it is not that of the class
        # Drives of all steps; the first is that of the features before them.
        self._drive_at = torch.empty(steps + 1, batch, neurons).unbind()
        self._first_source = torch.zeros_like(self._source_at[0])
        self.fed_at = torch.empty(steps, batch * ticks, neurons).unbind()
        self.fed_by_tick = all_by_tick(self.fed_at, ticks)
        self._grad_drive, self._grad_before = torch.empty(batch, neurons), torch.empty(batch, neurons)

    def hold(self, features: Tensor | None) -> None:
        """See `FeatureFeed`."""
        assert features is not None
        self._first_source[:, : self._features].copy_(features)
        torch.addmm(self._bias, self._first_source, self._weight.t(), out=self._drive_at[0])

    def held(self) -> Tensor:
        """See `FeatureFeed`."""
        return self._source_at[-1][:, : self._features].clone()

    def forward(self, step: int, features: Tensor) -> None:
        """See `FeatureFeed`."""
        source, drive = self._source_at[step], self._drive_at[step + 1]
        source[:, : self._features].copy_(features)
        torch.addmm(self._bias, source, self._weight.t(), out=drive)
        fed = self.fed_at[step].view(len(source), self.ticks, -1)
        fed[:, : self._delay] = self._drive_at[step].unsqueeze(1)
        fed[:, self._delay :] = drive.unsqueeze(1)

    def start_backward(self) -> None:
        """See `FeatureFeed`."""
        super().start_backward()
        self._grad_before.zero_()

    def backward(self, step: int, learns: bool) -> tuple[Tensor, Tensor]:
        """See `FeatureFeed`."""
        grad = self.fed_at[step].view(len(self._grad_drive), self.ticks, -1)
        torch.sum(grad[:, self._delay :], 1, out=self._grad_drive)
        # What this step's features have caused in the step after, which has been gone through already.
        self._grad_drive += self._grad_before
        torch.sum(grad[:, : self._delay], 1, out=self._grad_before)
        if learns:
            self._grad_weight.addmm_(self._source_at[step].t(), self._grad_drive)
        if learns and step == 0:
            self._grad_weight.addmm_(self._first_source.t(), self._grad_before)
        return self._grad_drive, self._weight


class SpikeFeed:
    """Input of a later layer: the spikes of the layer before through A·B or one full matrix, in every tick.

    Its methods are those of `FeatureFeed`.
    """

    def __init__(
        self, steps: int, batch: int, ticks: int, parameters: LayerParameters, fired_at: Sequence[kernels.Fired]
    ) -> None:
        self.ticks, self._fired_at = ticks, fired_at
        up_projection, down_projection = parameters.up_projection, parameters.down_projection
        neurons, width = up_projection.shape
        rows = batch * ticks
        self._is_full = down_projection is None
        self._gather = torch.empty((up_projection if down_projection is None else down_projection).t().shape)
        self._grad_gather, self._grad_spread = torch.empty_like(self._gather), torch.empty(width, neurons)
        self.fed_at = torch.empty(steps, rows, neurons).unbind()
        self.fed_by_tick = all_by_tick(self.fed_at, ticks)
        # Sums of the weights of the neurons that fired: latent values, or with a full matrix the layer's input itself.
        self._sum_at = self.fed_at if self._is_full else torch.empty(steps, rows, width).unbind()
        self._sum_by_tick = self.fed_by_tick if self._is_full else all_by_tick(self._sum_at, ticks)
        self._grad_sum = torch.empty(0 if self._is_full else rows, width)
        self._grad_sum_by_tick = by_tick(self._grad_sum, ticks)
        self._gather_np, self._grad_gather_np = self._gather.numpy(), self._grad_gather.numpy()

    def start(self, parameters: LayerParameters) -> None:
        """See `FeatureFeed`."""
        self._bias = parameters.bias
        self._up_projection, self._down_projection = parameters.up_projection, parameters.down_projection
        self._gather.copy_((self._up_projection if self._down_projection is None else self._down_projection).t())

    def forward(self, step: int, features: Tensor) -> None:
        """See `FeatureFeed`."""
        into = self._sum_at[step]
        into.copy_(self._bias) if self._is_full else into.zero_()
        kernels.add_fired(self._fired_at[step], self._gather_np, self._sum_by_tick[step])
        if not self._is_full:
            torch.addmm(self._bias, into, self._up_projection.t(), out=self.fed_at[step])

    def start_backward(self) -> None:
        """See `FeatureFeed`."""
        self._grad_gather.zero_()
        self._grad_spread.zero_()

    def backward(self, step: int, learns: bool) -> tuple[Tensor, Tensor]:
        """See `FeatureFeed`."""
        grad = grad_sum = self.fed_at[step]
        if not self._is_full:
            grad_sum = torch.mm(grad, self._up_projection, out=self._grad_sum)
            if learns:
                self._grad_spread.addmm_(self._sum_at[step].t(), grad)
        if learns:
            grads = self.fed_by_tick[step] if self._is_full else self._grad_sum_by_tick
            kernels.add_to_fired(self._fired_at[step], grads, self._grad_gather_np)
        return grad_sum, self._up_projection if self._down_projection is None else self._down_projection

    def gradients(self) -> tuple[Tensor, Tensor | None]:
        """See `FeatureFeed`."""
        gathered = self._grad_gather.t().clone()
        return (gathered, None) if self._is_full else (self._grad_spread.t().clone(), gathered)


def by_tick(rows: Tensor, ticks: int) -> np.ndarray:
    """Rows of a step, [batch × ticks, n], as the kernels take them, [batch, ticks, n]."""
    return rows.numpy().reshape(-1, ticks, rows.shape[1])


def all_by_tick(steps: Sequence[Tensor], ticks: int) -> list[np.ndarray]:
    """`by_tick` of every step."""
    return [by_tick(rows, ticks) for rows in steps]
