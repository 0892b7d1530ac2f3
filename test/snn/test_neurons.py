"""The neuron equations: against plain NumPy, and the compiled kernel against the PyTorch reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiking_controller.snn.neurons import (
    Backend,
    LIFDecay,
    LIFState,
    Threshold,
    adaptive_lif_step,
    initial_state,
    scan,
)

ADAPTIVE = Threshold(rest=1.0, decrement=0.05, adaptation_strength=0.05)
FLOORED = ADAPTIVE._replace(floor=0.8)
PLAIN = Threshold()
CLEARING = Threshold(clears=True)
THRESHOLDS = [ADAPTIVE, FLOORED, PLAIN, CLEARING, FLOORED._replace(clears=True)]
BACKENDS: tuple[Backend, ...] = ("torch", "fused")


def random_layer(seed: int, batch: int, neurons: int, dtype: torch.dtype) -> tuple[LIFState, LIFDecay]:
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    state = LIFState(
        uniform(-1, 1, batch, neurons),
        uniform(-1, 1, batch, neurons),
        uniform(0, 2, batch, neurons),
        uniform(0.5, 1, batch, neurons),
    )
    return state, LIFDecay(*(uniform(0.2, 0.95, neurons) for _ in range(3)))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_one_tick_equals_a_plain_numpy_step(threshold: Threshold) -> None:
    state, decay = random_layer(1, 8, 32, torch.float64)
    drive = torch.randn(8, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2
    spikes, after = adaptive_lif_step(drive, state, decay, threshold, "gaussian")

    syn, mem, ada, base = (tensor.numpy() for tensor in state)
    moves = threshold.moves
    beta_syn, beta_mem, beta_ada = (tensor.numpy() for tensor in decay)
    syn = beta_syn * syn + drive.numpy()
    mem = beta_mem * mem + (1 - beta_mem) * syn
    lowered = np.maximum(base - threshold.decrement, threshold.floor)
    level = lowered + threshold.adaptation_strength * ada if moves else np.full_like(base, threshold.rest)
    fired = (mem > level).astype(float)
    np.testing.assert_allclose(spikes.numpy(), fired, atol=1e-6)
    assert 0 < fired.sum() < fired.size
    np.testing.assert_allclose(after.synaptic_current.numpy(), syn, atol=1e-6)
    reset = np.where(fired > 0, 0.0, mem) if threshold.clears else mem - level * fired
    np.testing.assert_allclose(after.membrane.numpy(), reset, atol=1e-6)
    base = np.where(fired > 0, threshold.rest, lowered) if moves else base
    np.testing.assert_allclose(after.adaptation.numpy(), beta_ada * ada + fired if moves else ada, atol=1e-6)
    np.testing.assert_allclose(after.threshold_base.numpy(), base, atol=1e-6)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("constant_drive", [True, False])
def test_the_compiled_kernel_equals_the_reference(threshold: Threshold, constant_drive: bool) -> None:
    ticks, batch, neurons = 5, 6, 24
    state, decay = random_layer(4, batch, neurons, torch.float32)
    drive = torch.randn(1 if constant_drive else ticks, batch, neurons, generator=torch.Generator().manual_seed(5))
    spikes, after = scan(drive, state, decay, threshold, ticks=ticks, backend="fused")
    expected, expected_after = scan(drive, state, decay, threshold, ticks=ticks, backend="torch")
    assert expected.sum() > 10
    assert torch.equal(spikes, expected)
    for part, expected_part in zip(after, expected_after, strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-4, atol=2e-5)


def test_a_gradient_flows_through_a_step_whatever_the_backend() -> None:
    gradients = []
    for backend in BACKENDS:
        state, decay = random_layer(4, 6, 24, torch.float32)
        drive = torch.randn(5, 6, 24, generator=torch.Generator().manual_seed(5)).requires_grad_()
        spikes, _ = scan(drive, state, decay, ADAPTIVE, ticks=5, backend=backend)
        spikes.square().sum().backward()
        assert drive.grad is not None
        gradients.append(drive.grad)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


def test_state_carries_over_so_two_steps_equal_one_long_step() -> None:
    state, decay = random_layer(6, 3, 10, torch.float32)
    drive = torch.randn(8, 3, 10, generator=torch.Generator().manual_seed(7))
    whole, end = scan(drive, state, decay, ADAPTIVE, ticks=8)
    first, middle = scan(drive[:4], state, decay, ADAPTIVE, ticks=4)
    second, end_of_second = scan(drive[4:], middle, decay, ADAPTIVE, ticks=4)
    assert torch.equal(whole, torch.cat((first, second)))
    for left, right in zip(end, end_of_second, strict=True):
        assert torch.equal(left, right)


def test_a_silent_neuron_lowers_its_threshold_until_it_fires() -> None:
    threshold = Threshold(rest=1.0, decrement=0.1, adaptation_strength=0.0)
    state = initial_state(1, 1, threshold, torch.zeros(1))
    decay = LIFDecay(*(torch.full((1,), 0.5) for _ in range(3)))
    spikes, _ = scan(torch.full((1, 1, 1), 0.25), state, decay, threshold, ticks=20)
    assert 0 < spikes.sum() < 20
    silent, _ = scan(torch.full((1, 1, 1), 0.25), state, decay, PLAIN, ticks=20)
    assert silent.sum() == 0


@given(
    rest=st.floats(0.5, 2.0),
    decrement=st.floats(0.0, 0.5, width=32, allow_subnormal=False),
    strength=st.floats(0.0, 0.5, width=32, allow_subnormal=False),
    floor=st.one_of(st.just(-math.inf), st.floats(-2.0, 1.9)),
    clears=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_base_never_falls_below_its_floor_and_the_kernel_equals_the_reference(
    rest: float, decrement: float, strength: float, floor: float, clears: bool, seed: int
) -> None:
    threshold = Threshold(rest, decrement, strength, min(floor, rest), clears)
    state, decay = random_layer(seed, 3, 20, torch.float32)
    state = state._replace(threshold_base=torch.full((3, 20), rest))
    drive = torch.randn(12, 3, 20, generator=torch.Generator().manual_seed(seed))
    spikes, after = scan(drive, state, decay, threshold, ticks=12, backend="fused")
    expected, expected_after = scan(drive, state, decay, threshold, ticks=12, backend="torch")
    assert float(after.threshold_base.min()) >= np.float32(threshold.floor)
    # A membrane within rounding of the threshold may fire in one and not in the other.
    same = (spikes == expected).all(0)
    assert float(same.float().mean()) > 0.9
    for part, expected_part in zip(after, expected_after, strict=True):
        torch.testing.assert_close(part[same], expected_part[same], rtol=1e-3, atol=1e-4)


def test_no_gradient_flows_through_the_base_whether_clamped_or_not() -> None:
    for threshold in (ADAPTIVE, FLOORED):
        state, decay = random_layer(4, 6, 24, torch.float32)
        drive = torch.randn(5, 6, 24, generator=torch.Generator().manual_seed(5)).requires_grad_()
        _, after = scan(drive, state, decay, threshold, ticks=5)
        assert after.membrane.requires_grad
        assert not after.threshold_base.requires_grad


@pytest.mark.parametrize(("threshold", "expected"), [(PLAIN, 0.25), (CLEARING, 0.0)])
def test_a_spike_subtracts_the_threshold_or_clears_the_membrane(threshold: Threshold, expected: float) -> None:
    """A drive of 2.5 charges the membrane to 1.25 in one tick; of the membrane, a cleared one passes no gradient on."""
    decay = LIFDecay(*(torch.full((1,), 0.5) for _ in range(3)))
    for backend in BACKENDS:
        state = initial_state(1, 1, threshold, torch.zeros(1))
        spikes, after = scan(torch.full((1, 1, 1), 2.5), state, decay, threshold, ticks=1, backend=backend)
        assert (float(spikes), float(after.membrane)) == (1.0, expected)
    drive = torch.full((1, 1, 1), 2.5, requires_grad=True)
    _, after = scan(drive, initial_state(1, 1, threshold, torch.zeros(1)), decay, threshold, ticks=1)
    (grad,) = torch.autograd.grad(after.membrane.sum(), drive)
    assert float(grad) == (0.0 if threshold.clears else 0.5)
