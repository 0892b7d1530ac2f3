"""Many control steps of a network with a hand-written backward pass, for training on the CPU (float32).

The mathematics is that of `SpikingNetwork.step`, which stays the reference that this is tested against. There an unroll
of thirty control steps is some thousand small tensor operations for autograd to record; here a step is a few matrix
products into buffers that are used again and again, around the compiled ticks of each layer (`kernels.py`), and each
weight's gradient is one large product over all steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiking_controller.snn import kernels
from spiking_controller.snn.neurons import LIFDecay, LIFState, Threshold


class LayerParameters(NamedTuple):
    """Parameters of one hidden layer; None where the layer has no such part.

    Attributes:
        decay: decay factors per tick, [neurons] each.
        readout: weights to the readout, [outputs, neurons].
        bias: [neurons].
        expand, compress: A [neurons, rank] and B [rank, before] of the connection from the layer before, or the full
            matrix as `expand`, for the first layer that from the features, [neurons, features], gain included.
        recurrent_expand, recurrent_compress: the same of the recurrence.
    """

    decay: LIFDecay
    readout: Tensor
    bias: Tensor
    expand: Tensor
    compress: Tensor | None
    recurrent_expand: Tensor | None
    recurrent_compress: Tensor | None


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


class UnrollState(NamedTuple):
    """State of a network between two steps: per layer its neurons and what recurrence feeds back (the mean spikes of
    the last step, or the last tick's spikes), then the readout's integrators.
    """

    layers: tuple[tuple[LIFState, Tensor], ...]
    readout_synaptic: Tensor
    readout_membrane: Tensor


class UnrollOptions(NamedTuple):
    """What the ticks need to know besides tensors.

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


class _Connection:
    """Weights A·B, or one full matrix, and what each of many products with them leaves for the gradients."""

    def __init__(self, products: int, rows: int, compress: Tensor | None) -> None:
        rank = 0 if compress is None else compress.shape[0]
        self._latent = torch.empty(products, rows, rank)
        self._grad_latent = torch.empty(products, rows, rank)
        # Views of single products, here and below, made once: making them costs as much as a small product.
        self._latent_at, self._grad_latent_at = self._latent.unbind(), self._grad_latent.unbind()

    def start(self, expand: Tensor, compress: Tensor | None) -> None:
        """Use these weights from now on."""
        self.expand, self.compress = expand, compress

    def latent(self, product: int, source: Tensor) -> Tensor:
        """What `expand` is to be multiplied with, [rows, rank], from a source [rows, before]."""
        if self.compress is None:
            return source
        return torch.mm(source, self.compress.t(), out=self._latent_at[product])

    def back(self, product: int, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the source as two factors, from that of the product, [rows, neurons]."""
        if self.compress is None:
            return grad, self.expand
        return torch.mm(grad, self.expand, out=self._grad_latent_at[product]), self.compress

    def gradients(self, grad: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of A and B from the gradients and the sources of all products, [products × rows, ...]."""
        if self.compress is None:
            return grad.t() @ source, None
        return grad.t() @ self._latent.flatten(0, 1), self._grad_latent.flatten(0, 1).t() @ source


class _Layer:
    """A hidden layer without recurrence: its parameters, and what its steps leave for the backward pass.

    First axis of a buffer: control step; rows: ticks × batch. `fed` is what comes from the layer before, or from the
    features, which do so once per step.
    """

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, fed_ticks: int
    ) -> None:
        ticks, neurons = options.ticks, parameters.bias.shape[0]
        self._options, self._batch, self._fed_ticks = options, batch, fed_ticks
        threshold = options.threshold
        self._threshold = threshold.rest, threshold.decrement, threshold.adaptation_strength
        empty = torch.empty
        self._feed_forward = _Connection(steps, fed_ticks * batch, parameters.compress)
        self._fed = empty(steps, fed_ticks * batch, neurons)
        self._grad_fed = empty(steps, fed_ticks * batch, neurons)
        self.spikes, self._fed_back = self._spike_buffers(steps, batch, neurons)
        self.grad_spikes = empty(ticks * batch, neurons)
        self._state = empty(steps + 1, 4, batch, neurons)
        self._grad_state = empty(3, batch, neurons)
        self._grad_fed_back = empty(batch, neurons)
        self._fed_at, self._grad_fed_at = self._fed.unbind(), self._grad_fed.unbind()
        self.spikes_at, self._fed_back_at = self.spikes.unbind(), self._fed_back.unbind()
        shape = (steps, fed_ticks, batch, neurons)
        self._fed_np, self._grad_fed_np = self._fed.numpy().reshape(shape), self._grad_fed.numpy().reshape(shape)
        self._spikes_np = self.spikes.numpy().reshape(steps, ticks, batch, neurons)
        self._grad_spikes_np = self.grad_spikes.numpy().reshape(ticks, batch, neurons)
        self._state_np, self._fed_back_np = self._state.numpy(), self._fed_back.numpy()
        self._grad_state_np, self._grad_fed_back_np = self._grad_state.numpy(), self._grad_fed_back.numpy()

    def _spike_buffers(self, steps: int, batch: int, neurons: int) -> tuple[Tensor, Tensor]:
        """Spikes [steps, rows, neurons], and what recurrence feeds back; its first is the state before the unroll."""
        return torch.empty(steps, self._options.ticks * batch, neurons), torch.empty(steps + 1, batch, neurons)

    def start(self, parameters: LayerParameters, neurons: LIFState, fed_back: Tensor) -> None:
        """Begin an unroll with these parameters in this state."""
        self.parameters = parameters
        self._decay = tuple(part.numpy() for part in parameters.decay)
        self._feed_forward.start(parameters.expand, parameters.compress)
        for into, part in zip(self._state[0], neurons, strict=True):
            into.copy_(part)
        self._fed_back_at[0].copy_(fed_back)

    def state(self) -> tuple[LIFState, Tensor]:
        """Neurons and what recurrence feeds back after the last step, copied."""
        return LIFState(*self._state[-1].clone().unbind()), self._fed_back[-1].clone()

    def mean_spikes(self) -> Tensor:
        """Mean spikes per tick in all steps, [steps, batch, neurons], copied."""
        return self._fed_back[1:].clone()

    def forward(self, step: int, source: Tensor) -> None:
        """One control step; `source` is what the layer receives, [rows or batch, before]."""
        latent = self._feed_forward.latent(step, source)
        torch.addmm(self.parameters.bias, latent, self._feed_forward.expand.t(), out=self._fed_at[step])
        self._run_ticks(step)

    def _run_ticks(self, step: int) -> None:
        kernels.scan_forward(
            self._fed_np[step],
            *self._state_np[step],
            *self._decay,
            *self._threshold,
            self._spikes_np[step],
            *self._state_np[step + 1],
            self._fed_back_np[step + 1],
        )

    def start_backward(self, learns: bool) -> None:
        """Begin the backward pass; `learns` says whether `gradients` will be asked for."""
        self._learns = learns
        self._grad_state.zero_()
        self._grad_fed_back.zero_()
        self._grad_decay = np.zeros((3, self._grad_fed_back.shape[1]), np.float32)

    def backward(self, step: int, grad_mean_spikes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Back through one control step, whose gradient of the spikes stands in `grad_spikes`.

        Args:
            step: its number.
            grad_mean_spikes: further gradient, of the mean spikes, [batch, neurons].
        Returns:
            The gradient of the step's source as two factors.
        """
        self._back_through_ticks(step, grad_mean_spikes)
        return self._feed_forward.back(step, self._grad_fed_at[step])

    def _back_through_ticks(self, step: int, grad_mean_spikes: Tensor | None) -> None:
        # What is fed back are the mean spikes, so that both gradients are one.
        if grad_mean_spikes is not None:
            self._grad_fed_back += grad_mean_spikes
        kernels.scan_backward(
            self._grad_spikes_np,
            self._grad_fed_back_np,
            *self._grad_state_np,
            self._fed_np[step],
            *self._state_np[step],
            *self._decay,
            *self._threshold,
            kernels.SURROGATE_CODES[self._options.surrogate],
            self._learns,
            self._grad_fed_np[step],
            *self._grad_decay,
        )
        self._back_through_recurrence(step)

    def _back_through_recurrence(self, step: int) -> None:
        del step
        self._grad_fed_back.zero_()

    def gradients(self, source: Tensor, grad_currents: Tensor) -> list[Tensor | None]:
        """Gradients in the order of the layer's parameters.

        Args:
            source: what the layer received in all steps, [steps × rows or batch, before].
            grad_currents: gradient of the readout's currents, [steps × rows, outputs].
        """
        grad_fed = self._grad_fed.flatten(0, 1)
        return [
            *torch.from_numpy(self._grad_decay),
            grad_currents.t() @ self.spikes.flatten(0, 1),
            grad_fed.sum(0),
            *self._feed_forward.gradients(grad_fed, source),
            *self._recurrent_gradients(),
        ]

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        return None, None


class _StepWiseLayer(_Layer):
    """Every step receives the mean spikes of the step before."""

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, fed_ticks: int
    ) -> None:
        super().__init__(steps, batch, options, parameters, fed_ticks)
        self._recurrence = _Connection(steps, batch, parameters.recurrent_compress)

    def start(self, parameters: LayerParameters, neurons: LIFState, fed_back: Tensor) -> None:
        super().start(parameters, neurons, fed_back)
        assert parameters.recurrent_expand is not None
        self._recurrence.start(parameters.recurrent_expand, parameters.recurrent_compress)

    def _run_ticks(self, step: int) -> None:
        drive, weight = self._fed_at[step], self._recurrence.expand.t()
        latent = self._recurrence.latent(step, self._fed_back_at[step])
        if self._fed_ticks == 1:
            drive.addmm_(latent, weight)
        else:
            drive.view(self._fed_ticks, self._batch, -1).add_(latent @ weight)
        super()._run_ticks(step)

    def _back_through_recurrence(self, step: int) -> None:
        grad_drive = self._grad_fed_at[step]
        once = grad_drive if self._fed_ticks == 1 else grad_drive.view(self._fed_ticks, self._batch, -1).sum(0)
        torch.mm(*self._recurrence.back(step, once), out=self._grad_fed_back)

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        steps, _, neurons = self._grad_fed.shape
        once = self._grad_fed.view(steps, self._fed_ticks, self._batch, neurons).sum(1).flatten(0, 1)
        return self._recurrence.gradients(once, self._fed_back[:-1].flatten(0, 1))


class _TickWiseLayer(_Layer):
    """Every tick receives the spikes of the tick before; the kernels see to it, row by row."""

    def __init__(
        self, steps: int, batch: int, options: UnrollOptions, parameters: LayerParameters, fed_ticks: int
    ) -> None:
        super().__init__(steps, batch, options, parameters, fed_ticks)
        ticks, neurons = options.ticks, parameters.bias.shape[0]
        rank = 0 if parameters.recurrent_compress is None else parameters.recurrent_compress.shape[0]
        by_tick = (steps, ticks, batch, neurons)
        # Where every tick is fed by a layer before, recurrence adds to that in place.
        self._is_fed_once = fed_ticks < ticks
        self._drive = torch.empty(by_tick) if self._is_fed_once else self._fed.view(by_tick)
        self._grad_drive = torch.empty(by_tick) if self._is_fed_once else self._grad_fed.view(by_tick)
        self._latent = torch.empty(steps, ticks, batch, rank)
        self._drive_np, self._grad_drive_np = self._drive.numpy(), self._grad_drive.numpy()
        self._latent_np = self._latent.numpy()
        self._grad_mean_np = np.zeros((batch, neurons), np.float32)

    def _spike_buffers(self, steps: int, batch: int, neurons: int) -> tuple[Tensor, Tensor]:
        ticks = self._options.ticks
        fed_back = torch.empty(1 + steps * ticks, batch, neurons)
        return fed_back[1:].view(steps, ticks * batch, neurons), fed_back

    def _spikes_and_before(self, step: int) -> np.ndarray:
        """Spikes of the step's ticks after those of the tick before, [1 + ticks, batch, neurons]."""
        ticks = self._options.ticks
        return self._fed_back_np[step * ticks : (step + 1) * ticks + 1]

    def start(self, parameters: LayerParameters, neurons: LIFState, fed_back: Tensor) -> None:
        super().start(parameters, neurons, fed_back)
        expand, compress = parameters.recurrent_expand, parameters.recurrent_compress
        assert expand is not None
        self._gathered = (expand if compress is None else compress).numpy()
        self._gather = np.ascontiguousarray(self._gathered.T)
        self._spread = self._gather[:0] if compress is None else np.ascontiguousarray(expand.numpy().T)

    def mean_spikes(self) -> Tensor:
        return self.spikes.view_as(self._drive).mean(1)

    def _run_ticks(self, step: int) -> None:
        kernels.tick_wise_forward(
            self._fed_np[step],
            *self._state_np[step],
            *self._decay,
            *self._threshold,
            self._gather,
            self._spread,
            self._spikes_and_before(step),
            self._latent_np[step],
            self._drive_np[step],
            *self._state_np[step + 1],
        )

    def start_backward(self, learns: bool) -> None:
        super().start_backward(learns)
        self._grad_gather = np.zeros_like(self._gather)

    def _back_through_ticks(self, step: int, grad_mean_spikes: Tensor | None) -> None:
        self._grad_mean_np[:] = 0.0 if grad_mean_spikes is None else grad_mean_spikes.numpy()
        kernels.tick_wise_backward(
            self._grad_spikes_np,
            self._grad_mean_np,
            self._grad_fed_back_np,
            *self._grad_state_np,
            self._drive_np[step],
            self._spikes_and_before(step),
            *self._state_np[step],
            *self._decay,
            *self._threshold,
            self._gathered,
            self._spread,
            kernels.SURROGATE_CODES[self._options.surrogate],
            self._learns,
            self._grad_drive_np[step],
            self._grad_gather,
            *self._grad_decay,
        )
        if self._is_fed_once:
            torch.sum(self._grad_drive[step], 0, out=self._grad_fed_at[step])

    def _recurrent_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        grad_gathered = torch.from_numpy(self._grad_gather).t()
        if len(self._spread) == 0:
            return grad_gathered, None
        return self._grad_drive.flatten(0, 2).t() @ self._latent.flatten(0, 2), grad_gathered


_LAYERS: dict[str, type[_Layer]] = {"none": _Layer, "step": _StepWiseLayer, "tick": _TickWiseLayer}


class _Buffers:
    """Buffers of one unroll of a network."""

    def __init__(self, steps: int, batch: int, options: UnrollOptions, parameters: UnrollParameters) -> None:
        ticks, (outputs, _) = options.ticks, parameters.layers[0].readout.shape
        self.features = torch.empty(steps, batch, parameters.layers[0].expand.shape[1])
        self.grad_features = torch.empty_like(self.features)
        kind = _LAYERS[options.recurrence]
        self.layers = [
            kind(steps, batch, options, layer, fed_ticks=ticks if index > 0 else 1)
            for index, layer in enumerate(parameters.layers)
        ]
        self.currents = torch.empty(steps, ticks * batch, outputs)
        self.grad_currents = torch.empty(steps, ticks * batch, outputs)
        self.integrators = torch.empty(steps + 1, 2, batch, outputs)
        self.grad_integrators = torch.empty(2, batch, outputs)
        self.output = torch.empty(steps, batch, outputs)
        self.currents_np = self.currents.numpy().reshape(steps, ticks, batch, outputs)
        self.grad_currents_np = self.grad_currents.numpy().reshape(steps, ticks, batch, outputs)
        self.integrators_np, self.output_np = self.integrators.numpy(), self.output.numpy()
        self.grad_integrators_np = self.grad_integrators.numpy()
        self.features_at, self.grad_features_at = self.features.unbind(), self.grad_features.unbind()
        self.currents_at, self.grad_currents_at = self.currents.unbind(), self.grad_currents.unbind()
        self.output_at = self.output.unbind()


_free: dict[tuple[Any, ...], list[_Buffers]] = {}
"""Buffers of finished unrolls by size. Fresh ones cost more than the work: every page of them must first be mapped."""


class Unroll:
    """One unroll of one network: `forward` step by step in time, then `backward` step by step back, then `gradients`.

    `release` hands the buffers on to the next unroll of that size; nothing may be asked of this one afterwards.
    """

    def __init__(
        self, parameters: UnrollParameters, options: UnrollOptions, state: UnrollState, steps: int, batch: int
    ) -> None:
        """Start from a state, into which no gradient flows.

        Args:
            parameters, options: of the network.
            state: before the first step, [batch, ...].
            steps: how many steps there will be.
            batch: copies of the network that run side by side.
        """
        own = UnrollParameters.unflatten(
            [None if tensor is None else tensor.detach().contiguous() for tensor in parameters.flatten()]
        )
        shapes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in own.flatten())
        self._key = (steps, batch, options, shapes)
        stock = _free.get(self._key)
        self._b = stock.pop() if stock else _Buffers(steps, batch, options, own)
        for layer, layer_parameters, layer_state in zip(self._b.layers, own.layers, state.layers, strict=True):
            layer.start(layer_parameters, *layer_state)
        self._b.integrators[0, 0].copy_(state.readout_synaptic)
        self._b.integrators[0, 1].copy_(state.readout_membrane)
        self._readout = [part.numpy() for part in own.readout]

    @property
    def layers(self) -> int:
        """Number of hidden layers."""
        return len(self._b.layers)

    def release(self) -> None:
        """Hand the buffers on."""
        _free.setdefault(self._key, []).append(self._b)

    def forward(self, step: int, features: Tensor) -> Tensor:
        """One control step; steps must come in order.

        Args:
            step: its number from 0.
            features: [batch, features].
        Returns:
            The readout, [batch, outputs]; a buffer that the next unroll will overwrite.
        """
        b = self._b
        currents, source = b.currents_at[step], b.features_at[step].copy_(features)
        for index, layer in enumerate(b.layers):
            layer.forward(step, source)
            source = layer.spikes_at[step]
            if index == 0:
                torch.mm(source, layer.parameters.readout.t(), out=currents)
            else:
                currents.addmm_(source, layer.parameters.readout.t())
        kernels.readout_forward(
            b.currents_np[step],
            *b.integrators_np[step],
            *self._readout,
            *b.integrators_np[step + 1],
            b.output_np[step],
        )
        return b.output_at[step]

    def state(self) -> UnrollState:
        """The state after the last step, copied."""
        layers = tuple(layer.state() for layer in self._b.layers)
        return UnrollState(layers, *self._b.integrators[-1].clone().unbind())

    def output(self) -> Tensor:
        """The readout of all steps, [steps, batch, outputs], copied."""
        return self._b.output.clone()

    def mean_spikes(self) -> list[Tensor]:
        """Mean spikes per tick of every layer in all steps, [steps, batch, neurons] each, copied."""
        return [layer.mean_spikes() for layer in self._b.layers]

    def start_backward(self, learns: bool) -> None:
        """Begin the backward pass.

        Args:
            learns: whether `gradients` will be asked for.
        """
        for layer in self._b.layers:
            layer.start_backward(learns)
        self._b.grad_integrators.zero_()
        self._grad_readout = [np.zeros_like(part) for part in self._readout]

    def backward(self, step: int, grad_output: Tensor, grad_mean_spikes: Sequence[Tensor | None]) -> Tensor:
        """Back through one control step; steps must come in reverse order.

        Args:
            step: its number.
            grad_output: gradient of the step's readout, [batch, outputs], contiguous.
            grad_mean_spikes: gradient of each layer's mean spikes in this step, [batch, neurons], or None.
        Returns:
            The gradient of the step's features, [batch, features]; a buffer.
        """
        b = self._b
        kernels.readout_backward(
            grad_output.numpy(),
            *b.grad_integrators_np,
            b.currents_np[step],
            *b.integrators_np[step],
            b.integrators_np[step + 1, 1],
            *self._readout,
            b.grad_currents_np[step],
            *self._grad_readout,
        )
        from_above: tuple[Tensor, Tensor] | None = None
        for layer, grad_mean in zip(reversed(b.layers), reversed(grad_mean_spikes), strict=True):
            torch.mm(b.grad_currents_at[step], layer.parameters.readout, out=layer.grad_spikes)
            if from_above is not None:
                layer.grad_spikes.addmm_(*from_above)
            from_above = layer.backward(step, grad_mean)
        assert from_above is not None
        return torch.mm(*from_above, out=b.grad_features_at[step])

    def gradients(self) -> list[Tensor | None]:
        """Gradients of all parameters in the order of `UnrollParameters.flatten`, after the whole backward pass."""
        b = self._b
        result: list[Tensor | None] = [torch.from_numpy(grad) for grad in self._grad_readout]
        source, grad_currents = b.features.flatten(0, 1), b.grad_currents.flatten(0, 1)
        for layer in b.layers:
            result += layer.gradients(source, grad_currents)
            source = layer.spikes.flatten(0, 1)
        return result


class _Sequence(torch.autograd.Function):
    """An unroll over features that are known beforehand."""

    @staticmethod
    def forward(
        ctx: Any, options: UnrollOptions, state: UnrollState, features: Tensor, *flat: Tensor | None
    ) -> tuple[Tensor, ...]:
        steps, batch, _ = features.shape
        run = Unroll(UnrollParameters.unflatten(flat), options, state, steps, batch)
        for step in range(steps):
            run.forward(step, features[step])
        after = run.state()
        output, mean_spikes, last = run.output(), run.mean_spikes(), _state_tensors(after)
        if any(ctx.needs_input_grad):
            ctx.run = run
            ctx.set_materialize_grads(False)
        else:
            run.release()
        ctx.mark_non_differentiable(*last)
        return output, *mean_spikes, *last

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        run: Unroll = ctx.run
        run.start_backward(any(ctx.needs_input_grad[3:]))
        assert grad_output is not None
        grad_output = grad_output.contiguous()
        grad_mean = grads[: run.layers]
        collected = []
        for step in reversed(range(len(grad_output))):
            into = run.backward(step, grad_output[step], [None if grad is None else grad[step] for grad in grad_mean])
            if ctx.needs_input_grad[2]:
                collected.append(into.clone())
        grad_features = torch.stack(collected[::-1]) if collected else None
        parameters = run.gradients() if any(ctx.needs_input_grad[3:]) else [None] * len(ctx.needs_input_grad[3:])
        run.release()
        return None, None, grad_features, *parameters


def _state_tensors(state: UnrollState) -> list[Tensor]:
    layers = [tensor for neurons, mean in state.layers for tensor in (*neurons, mean)]
    return [*layers, state.readout_synaptic, state.readout_membrane]


def unroll(
    parameters: UnrollParameters, options: UnrollOptions, state: UnrollState, features: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], UnrollState]:
    """Run a network over a sequence of features.

    Args:
        parameters, options: of the network.
        state: before the first step; no gradient flows into it.
        features: [steps, batch, features].
    Returns:
        The readout [steps, batch, outputs], each layer's mean spikes per tick [steps, batch, neurons], and the state
        after the last step, from which no gradient flows.
    """
    count = len(parameters.layers)
    output, *rest = _Sequence.apply(options, state, features, *parameters.flatten())
    after = rest[count:]
    layers = tuple((LIFState(*after[5 * i : 5 * i + 4]), after[5 * i + 4]) for i in range(count))
    return output, tuple(rest[:count]), UnrollState(layers, after[-2], after[-1])
