"""Who owns the buffers of an unroll, and for how long."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from spiking_controller.snn.compiled.unroll import ReleasedError
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork

FEATURES = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(1))


def network(seed: int = 2) -> SpikingNetwork:
    return SpikingNetwork(NetworkConfig(hidden=(24, 20), recurrence="step", rank=6), 5, 2, seed=seed)


def loss_of(net: SpikingNetwork) -> torch.Tensor:
    readout, _, _ = net.unroll(FEATURES, net.initial_state(3), net.effective())
    return readout.square().mean()


def gradient_of(net: SpikingNetwork) -> torch.Tensor:
    loss_of(net).backward()
    assert net.input_weight.grad is not None
    return net.input_weight.grad


def test_a_second_backward_pass_ends_in_a_sentence_instead_of_reading_memory_of_others() -> None:
    net = network()
    loss = loss_of(net)
    loss.backward(retain_graph=True)
    loss_of(net)  # takes over the buffers
    with pytest.raises(ReleasedError, match="run it forward again"):
        loss.backward()


def test_a_gradient_of_the_gradient_is_refused() -> None:
    net = network()
    (gradient,) = torch.autograd.grad(loss_of(net), net.input_weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_two_unrolls_under_way_keep_their_own_buffers() -> None:
    expected = gradient_of(network())
    first, second = network(), network(seed=3)
    loss = loss_of(first)
    loss_of(second).backward()
    loss.backward()
    assert first.input_weight.grad is not None
    assert torch.equal(first.input_weight.grad, expected)


def test_unrolls_in_several_threads_do_not_share_buffers() -> None:
    expected = gradient_of(network())
    with ThreadPoolExecutor(4) as pool:
        for gradient in pool.map(lambda _: gradient_of(network()), range(32)):
            assert torch.equal(gradient, expected)
