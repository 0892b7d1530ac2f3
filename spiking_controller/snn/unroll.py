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
            matrix as `expand`; the first layer has none.
        recurrent_expand, recurrent_compress: the same of the recurrence.
    """

    decay: LIFDecay
    readout: Tensor
    bias: Tensor
    expand: Tensor | None
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
    """Everything that a network's steps depend on besides its state and its features.

    Attributes:
        input_weight: [neurons, features], gain included.
        layers: the hidden layers.
        readout: the readout.
    """

    input_weight: Tensor
    layers: tuple[LayerParameters, ...]
    readout: ReadoutParameters

    def flatten(self) -> list[Tensor | None]:
        """All tensors in a fixed order, for autograd."""
        flat: list[Tensor | None] = [self.input_weight, *self.readout]
        for layer in self.layers:
            flat += [*layer.decay, *layer[1:]]
        return flat

    @staticmethod
    def unflatten(flat: Sequence[Any]) -> "UnrollParameters":
        """The inverse of `flatten`."""
        readout, size = 1 + len(ReadoutParameters._fields), 2 + len(LayerParameters._fields)
        parts = (flat[i : i + size] for i in range(readout, len(flat), size))
        layers = tuple(LayerParameters(LIFDecay(*part[:3]), *part[3:]) for part in parts)
        return UnrollParameters(flat[0], layers, ReadoutParameters(*flat[1:readout]))


class UnrollState(NamedTuple):
    """State of a network between two steps: per layer its neurons and mean spikes, then the readout's integrators."""

    layers: tuple[tuple[LIFState, Tensor], ...]
    readout_synaptic: Tensor
    readout_membrane: Tensor


class UnrollOptions(NamedTuple):
    """What the ticks need to know besides tensors."""

    threshold: Threshold
    surrogate: str
    ticks: int


class _LayerBuffers:
    """What one layer's steps leave for the backward pass. First axis: control step; rows: ticks × batch."""

    def __init__(self, steps: int, batch: int, options: UnrollOptions, layer: LayerParameters, outputs: int) -> None:
        ticks, neurons = options.ticks, layer.bias.shape[0]
        driven = 1 if layer.expand is None else ticks
        rank = neurons if layer.compress is None else layer.compress.shape[0]
        before = 0 if layer.expand is None else layer.expand.shape[1] if layer.compress is None else rank
        recurrent = 0 if layer.recurrent_expand is None else layer.recurrent_expand.shape[1]
        empty = torch.empty
        self.drive = empty(steps, driven * batch, neurons)
        self.grad_drive = empty(steps, driven * batch, neurons)
        self.spikes = empty(steps, ticks * batch, neurons)
        self.grad_spikes = empty(ticks * batch, neurons)
        self.state = empty(steps + 1, 4, batch, neurons)
        self.mean_spikes = empty(steps + 1, batch, neurons)
        self.grad_state = empty(3, batch, neurons)
        self.grad_mean_spikes = empty(batch, neurons)
        self.latent = empty(steps, ticks * batch, before) if layer.compress is not None else None
        self.grad_latent = empty(steps, ticks * batch, before) if layer.compress is not None else None
        compressed = layer.recurrent_compress is not None
        self.recurrent_latent = empty(steps, batch, recurrent) if compressed else None
        self.grad_recurrent_latent = empty(steps, batch, recurrent) if compressed else None
        # Views of single steps, made once: making them costs as much as a small product.
        self.drive_at, self.grad_drive_at = self.drive.unbind(), self.grad_drive.unbind()
        self.spikes_at, self.mean_at = self.spikes.unbind(), self.mean_spikes.unbind()
        shape = (steps, driven, batch, neurons)
        self.drive_np = self.drive.numpy().reshape(shape)
        self.grad_drive_np = self.grad_drive.numpy().reshape(shape)
        self.spikes_np = self.spikes.numpy().reshape(steps, ticks, batch, neurons)
        self.grad_spikes_np = self.grad_spikes.numpy().reshape(ticks, batch, neurons)
        self.state_np, self.mean_np = self.state.numpy(), self.mean_spikes.numpy()
        self.grad_state_np, self.grad_mean_np = self.grad_state.numpy(), self.grad_mean_spikes.numpy()


class _Buffers:
    """Buffers of one unroll of a network."""

    def __init__(self, steps: int, batch: int, options: UnrollOptions, parameters: UnrollParameters) -> None:
        ticks, (outputs, _) = options.ticks, parameters.layers[0].readout.shape
        self.features = torch.empty(steps, batch, parameters.input_weight.shape[1])
        self.grad_features = torch.empty(steps, batch, parameters.input_weight.shape[1])
        self.layers = [_LayerBuffers(steps, batch, options, layer, outputs) for layer in parameters.layers]
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
        self._p = UnrollParameters.unflatten(
            [None if tensor is None else tensor.detach().contiguous() for tensor in parameters.flatten()]
        )
        self._options, self._steps, self._batch = options, steps, batch
        shapes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in self._p.flatten())
        self._key = (steps, batch, options.ticks, shapes)
        stock = _free.get(self._key)
        self._b = stock.pop() if stock else _Buffers(steps, batch, options, self._p)
        for buffers, (neurons, mean) in zip(self._b.layers, state.layers, strict=True):
            for into, part in zip(buffers.state[0], neurons, strict=True):
                into.copy_(part)
            buffers.mean_at[0].copy_(mean)
        self._b.integrators[0, 0].copy_(state.readout_synaptic)
        self._b.integrators[0, 1].copy_(state.readout_membrane)
        self._readout = [part.numpy() for part in self._p.readout]
        self._decays = [tuple(part.numpy() for part in layer.decay) for layer in self._p.layers]
        threshold = options.threshold
        self._threshold = threshold.rest, threshold.decrement, threshold.adaptation_strength

    @property
    def layers(self) -> int:
        """Number of hidden layers."""
        return len(self._p.layers)

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
        b, p, ticks = self._b, self._p, self._options.ticks
        b.features_at[step].copy_(features)
        currents = b.currents_at[step]
        before: Tensor | None = None
        for index, (layer, own, decay) in enumerate(zip(p.layers, b.layers, self._decays, strict=True)):
            drive = own.drive_at[step]
            if before is None:
                torch.addmm(layer.bias, b.features_at[step], p.input_weight.t(), out=drive)
            else:
                assert layer.expand is not None
                latent = before
                if layer.compress is not None:
                    assert own.latent is not None
                    latent = torch.mm(before, layer.compress.t(), out=own.latent[step])
                torch.addmm(layer.bias, latent, layer.expand.t(), out=drive)
            if layer.recurrent_expand is not None:
                latent = own.mean_at[step]
                if layer.recurrent_compress is not None:
                    assert own.recurrent_latent is not None
                    latent = torch.mm(latent, layer.recurrent_compress.t(), out=own.recurrent_latent[step])
                if before is None:
                    drive.addmm_(latent, layer.recurrent_expand.t())
                else:
                    drive.view(ticks, self._batch, -1).add_(latent @ layer.recurrent_expand.t())
            kernels.scan_forward(
                own.drive_np[step],
                *own.state_np[step],
                *decay,
                *self._threshold,
                own.spikes_np[step],
                *own.state_np[step + 1],
                own.mean_np[step + 1],
            )
            before = own.spikes_at[step]
            if index == 0:
                torch.mm(before, layer.readout.t(), out=currents)
            else:
                currents.addmm_(before, layer.readout.t())
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
        layers = tuple(
            (LIFState(*own.state[self._steps].clone().unbind()), own.mean_at[self._steps].clone())
            for own in self._b.layers
        )
        return UnrollState(layers, *self._b.integrators[self._steps].clone().unbind())

    def output(self) -> Tensor:
        """The readout of all steps, [steps, batch, outputs], copied."""
        return self._b.output.clone()

    def mean_spikes(self) -> list[Tensor]:
        """Mean spikes per tick of every layer in all steps, [steps, batch, neurons] each, copied."""
        return [own.mean_spikes[1:].clone() for own in self._b.layers]

    def start_backward(self, learns: bool) -> None:
        """Begin the backward pass.

        Args:
            learns: whether `gradients` will be asked for.
        """
        self._learns = learns
        for own in self._b.layers:
            own.grad_state.zero_()
            own.grad_mean_spikes.zero_()
        self._b.grad_integrators.zero_()
        self._grad_decay = [np.zeros((3, layer.bias.shape[0]), np.float32) for layer in self._p.layers]
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
        b, p, ticks = self._b, self._p, self._options.ticks
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
        grad_currents = b.grad_currents_at[step]
        upper: LayerParameters | None = None
        grad_upper = grad_currents
        for index in reversed(range(len(b.layers))):
            layer, own = p.layers[index], b.layers[index]
            torch.mm(grad_currents, layer.readout, out=own.grad_spikes)
            if upper is not None:
                assert upper.expand is not None
                own.grad_spikes.addmm_(grad_upper, upper.expand if upper.compress is None else upper.compress)
            extra = grad_mean_spikes[index]
            if extra is not None:
                own.grad_mean_spikes += extra
            kernels.scan_backward(
                own.grad_spikes_np,
                own.grad_mean_np,
                *own.grad_state_np,
                own.drive_np[step],
                *own.state_np[step],
                *self._decays[index],
                *self._threshold,
                kernels.SURROGATE_CODES[self._options.surrogate],
                self._learns,
                own.grad_drive_np[step],
                *self._grad_decay[index],
            )
            grad_drive = own.grad_drive_at[step]
            if layer.recurrent_expand is not None:
                once = grad_drive if index == 0 else grad_drive.view(ticks, self._batch, -1).sum(0)
                latent = once
                if layer.recurrent_compress is not None:
                    assert own.grad_recurrent_latent is not None
                    latent = torch.mm(once, layer.recurrent_expand, out=own.grad_recurrent_latent[step])
                weight = layer.recurrent_expand if layer.recurrent_compress is None else layer.recurrent_compress
                torch.mm(latent, weight, out=own.grad_mean_spikes)
            else:
                own.grad_mean_spikes.zero_()
            if layer.expand is not None:
                grad_upper = grad_drive
                if layer.compress is not None:
                    assert own.grad_latent is not None
                    grad_upper = torch.mm(grad_drive, layer.expand, out=own.grad_latent[step])
            upper = layer
        return torch.mm(b.layers[0].grad_drive_at[step], p.input_weight, out=b.grad_features_at[step])

    def gradients(self) -> list[Tensor | None]:
        """Gradients of all parameters in the order of `UnrollParameters.flatten`, after the whole backward pass."""
        b, p = self._b, self._p
        first = b.layers[0].grad_drive.flatten(0, 1)
        result: list[Tensor | None] = [first.t() @ b.features.flatten(0, 1)]
        result += [torch.from_numpy(grad) for grad in self._grad_readout]
        grad_currents = b.grad_currents.flatten(0, 1)
        for index, (layer, own) in enumerate(zip(p.layers, b.layers, strict=True)):
            grad_drive = own.grad_drive.flatten(0, 1)
            connection: list[Tensor | None] = [None] * 4
            if layer.expand is not None:
                source = b.layers[index - 1].spikes.flatten(0, 1)
                if own.latent is None or own.grad_latent is None:
                    connection[0] = grad_drive.t() @ source
                else:
                    connection[0] = grad_drive.t() @ own.latent.flatten(0, 1)
                    connection[1] = own.grad_latent.flatten(0, 1).t() @ source
            if layer.recurrent_expand is not None:
                once = own.grad_drive.view(self._steps, -1, self._batch, grad_drive.shape[1]).sum(1).flatten(0, 1)
                source = own.mean_spikes[:-1].flatten(0, 1)
                if own.recurrent_latent is None or own.grad_recurrent_latent is None:
                    connection[2] = once.t() @ source
                else:
                    connection[2] = once.t() @ own.recurrent_latent.flatten(0, 1)
                    connection[3] = own.grad_recurrent_latent.flatten(0, 1).t() @ source
            result += [
                *torch.from_numpy(self._grad_decay[index]),
                grad_currents.t() @ own.spikes.flatten(0, 1),
                grad_drive.sum(0),
                *connection,
            ]
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
