"""Many control steps of a network with a hand-written backward pass, for training on the CPU (float32).

The mathematics is that of `SpikingNetwork.step`, which stays the reference that this is tested against. There an unroll
of thirty control steps is some thousand small tensor operations for autograd to record; here a step is a few matrix
products into buffers that are used again and again, around the compiled ticks of each layer (`kernels.py`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.compiled.layers import Layer, build_layer
from spiking_controller.snn.compiled.parameters import UnrollOptions, UnrollParameters
from spiking_controller.snn.compiled.saturating_readout import saturating_backward, saturating_forward
from spiking_controller.snn.neurons import LIFState
from spiking_controller.snn.state import LayerState, NetworkState


class _Buffers:
    """Buffers of one unroll of a network."""

    def __init__(self, steps: int, batch: int, options: UnrollOptions, parameters: UnrollParameters) -> None:
        ticks, (outputs, _) = options.ticks, parameters.layers[0].readout.shape
        self.layers: list[Layer] = []
        for layer in parameters.layers:
            before = self.layers[-1] if self.layers else None
            self.layers.append(build_layer(steps, batch, options, layer, before))
        self.currents = torch.empty(steps, batch, ticks, outputs)
        self.grad_currents = torch.empty(batch, ticks, outputs)
        self.integrators = torch.empty(steps + 1, 2, batch, outputs)
        self.grad_integrators = torch.empty(2, batch, outputs)
        self.output = torch.empty(steps, batch, outputs)
        self.currents_np, self.grad_currents_np = list(self.currents.numpy()), self.grad_currents.numpy()
        self.output_np = list(self.output.numpy())
        self.integrators_at = [kernels.Integrators(*both) for both in self.integrators.numpy()]
        self.grad_integrators_np = kernels.Integrators(*self.grad_integrators.numpy())
        self.currents_at, self.output_at = self.currents.unbind(), self.output.unbind()


_free: dict[tuple[Any, ...], list[_Buffers]] = {}
"""Buffers of finished unrolls by size. Mapping the pages of new ones would take longer than the unroll itself."""


class ReleasedError(RuntimeError):
    """An unroll was used after its buffers had been released."""


class Unroll:
    """One unroll of one network: `forward` step by step in time, then `backward` step by step back, then `gradients`.

    The buffers belong to the unroll until `release` hands them on to the next one of that size.
    """

    def __init__(
        self, parameters: UnrollParameters, options: UnrollOptions, state: NetworkState, steps: int, batch: int
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
        try:
            # A pop, and not a look first: another thread may take the last one.
            self._owned: _Buffers | None = _free[self._key].pop()
        except (KeyError, IndexError):
            self._owned = _Buffers(steps, batch, options, own)
        self._layers = len(self._b.layers)
        for layer, layer_parameters, layer_state in zip(self._b.layers, own.layers, state.layers, strict=True):
            layer.start(layer_parameters, layer_state)
        self._b.layers[0].hold(state.held_features)
        self._saturates = options.readout_leak == "output"
        self._b.integrators[0, 0].copy_(state.readout_synaptic)
        self._b.integrators[0, 1].copy_(state.readout_membrane)
        self._readout = kernels.Readout(*(part.numpy() for part in own.readout))
        self._features = own.layers[0].up_projection.shape[1]

    @property
    def layers(self) -> int:
        """Number of hidden layers."""
        return self._layers

    @property
    def _b(self) -> _Buffers:
        if self._owned is None:
            raise ReleasedError(
                "the buffers of this unroll were handed on after its backward pass; run it forward again for a second "
                "one (retain_graph keeps nothing here)."
            )
        return self._owned

    def release(self) -> None:
        """Hand the buffers on; whatever is asked of this unroll afterwards raises `ReleasedError`."""
        buffers, self._owned = self._b, None
        _free.setdefault(self._key, []).append(buffers)

    def forward(self, step: int, features: Tensor) -> Tensor:
        """One control step; steps must come in order.

        Args:
            step: its number from 0.
            features: [batch, features].
        Returns:
            The readout, [batch, outputs]; a buffer that the next unroll will overwrite.
        """
        b = self._b
        b.currents_at[step].zero_()
        for layer in b.layers:
            layer.forward(step, features, b.currents_np[step])
        forward = saturating_forward if self._saturates else kernels.readout_forward
        forward(
            b.currents_np[step], b.integrators_at[step], self._readout, b.integrators_at[step + 1], b.output_np[step]
        )
        return b.output_at[step]

    def state(self) -> NetworkState:
        """The state after the last step, copied."""
        layers = tuple(layer.state() for layer in self._b.layers)
        synaptic, membrane = self._b.integrators[-1].clone()
        return NetworkState(layers, synaptic, membrane, self._b.layers[0].held())

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
        self._grad_readout = kernels.Readout(*map(np.zeros_like, self._readout))

    def backward(self, step: int, grad_output: Tensor, grad_mean_spikes: Sequence[Tensor | None]) -> None:
        """Back through one control step; steps must come in reverse order.

        Args:
            step: its number.
            grad_output: gradient of the step's readout, [batch, outputs], contiguous.
            grad_mean_spikes: gradient of each layer's mean spikes in this step, [batch, neurons], or None.
        """
        b = self._b
        self._back_through_readout(step, grad_output)
        from_above: tuple[Tensor, Tensor] | None = None
        for layer, grad_mean in zip(reversed(b.layers), reversed(grad_mean_spikes), strict=True):
            from_above = layer.backward(step, from_above, b.grad_currents_np, grad_mean)
        assert from_above is not None
        self._feature_factors = from_above

    def _back_through_readout(self, step: int, grad_output: Tensor) -> None:
        b = self._b
        before, after = b.integrators_at[step : step + 2]
        gradients = b.grad_currents_np, self._grad_readout
        grad, currents = grad_output.numpy(), b.currents_np[step]
        if self._saturates:
            saturating_backward(grad, b.grad_integrators_np, currents, before, self._readout, *gradients)
        else:
            kernels.readout_backward(
                grad, b.grad_integrators_np, currents, before, after.membrane, self._readout, *gradients
            )

    def grad_features(self) -> Tensor:
        """The gradient of the features of the step that `backward` went through last, [batch, features]."""
        return torch.mm(*self._feature_factors)[:, : self._features]

    def gradients(self) -> list[Tensor | None]:
        """Gradients of all parameters in the order of `UnrollParameters.flatten`, after the whole backward pass."""
        result: list[Tensor | None] = [torch.from_numpy(grad) for grad in self._grad_readout]
        for layer in self._b.layers:
            result += layer.gradients()
        return result


class _Sequence(torch.autograd.Function):
    """An unroll over features that are known beforehand."""

    @staticmethod
    def forward(
        ctx: Any, options: UnrollOptions, state: NetworkState, features: Tensor, *flat: Tensor | None
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
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        run: Unroll = ctx.run
        run.start_backward(any(ctx.needs_input_grad[3:]))
        assert grad_output is not None
        grad_output = grad_output.contiguous()
        grad_mean = grads[: run.layers]
        collected = []
        for step in reversed(range(len(grad_output))):
            run.backward(step, grad_output[step], [None if grad is None else grad[step] for grad in grad_mean])
            if ctx.needs_input_grad[2]:
                collected.append(run.grad_features())
        grad_features = torch.stack(collected[::-1]) if collected else None
        parameters = run.gradients() if any(ctx.needs_input_grad[3:]) else [None] * len(ctx.needs_input_grad[3:])
        run.release()
        return None, None, grad_features, *parameters


def _state_tensors(state: NetworkState) -> list[Tensor]:
    layers = [tensor for neurons, mean in state.layers for tensor in (*neurons, mean)]
    held = [] if state.held_features is None else [state.held_features]
    return [*layers, state.readout_synaptic, state.readout_membrane, *held]


def unroll(
    parameters: UnrollParameters, options: UnrollOptions, state: NetworkState, features: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], NetworkState]:
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
    layers = tuple(LayerState(LIFState(*after[5 * i : 5 * i + 4]), after[5 * i + 4]) for i in range(count))
    return output, tuple(rest[:count]), NetworkState(layers, *after[5 * count :])
