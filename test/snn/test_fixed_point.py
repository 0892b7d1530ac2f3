"""State in fixed point, weights as small integers, features sent on change: the same in every way to run a network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiking_controller.errors import ConfigError
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.fixed_point import FixedPoint, round_rows
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.neurons import LIFDecay, LIFState, Threshold, scan
from spiking_controller.snn.state import NetworkState

SIXTEEN = FixedPoint(16, 8)
ADAPTIVE = Threshold(rest=1.0, decrement=0.05, adaptation_strength=0.05)
ON_CHIP = NetworkConfig(
    hidden=(24, 20), rank=0, weight_bits=8, state_bits=16, state_fraction_bits=8, delta=0.5, ticks=8, tick=0.0025
)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coarse_features(steps: int, batch: int) -> torch.Tensor:
    """Features whose products with 8-bit weights add up exactly, in whatever order."""
    return (noise(steps, batch, 9) * 16).round() / 8


@given(bits=st.integers(2, 24), data=st.data(), seed=st.integers(0, 1000))
def test_fixed_point_numbers_are_the_nearest_within_the_bounds(bits: int, data: st.DataObject, seed: int) -> None:
    fixed_point = FixedPoint(bits, data.draw(st.integers(0, bits - 1)))
    values = noise(200, seed=seed) * 2.0 ** (bits - fixed_point.fraction_bits - 2)
    whole = np.rint(values.numpy().astype(np.float64) * 2.0**fixed_point.fraction_bits)
    expected = np.clip(whole, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) / 2.0**fixed_point.fraction_bits
    assert np.array_equal(fixed_point.round(values).numpy(), expected.astype(np.float32))


@given(bits=st.integers(2, 16), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
def test_rounded_rows_are_integers_times_the_finest_power_of_two(bits: int, scale: float, seed: int) -> None:
    weight = noise(6, 11, seed=seed) * scale
    weight[2] = 0.0
    rounded, largest = round_rows(weight, bits), 2 ** (bits - 1) - 1
    for row, before in zip(rounded.double(), weight.double(), strict=True):
        if not before.any():
            assert not row.any()
            continue
        step = 2.0 ** np.ceil(np.log2(float(before.abs().max()) / largest))
        integers = row / step
        assert torch.equal(integers, integers.round())
        assert float(integers.abs().max()) <= largest
        assert float((row - before).abs().max()) <= step / 2
    assert torch.equal(round_rows(rounded, bits), rounded)


def test_the_gradient_goes_straight_through_the_rounding() -> None:
    weight = noise(3, 4).requires_grad_()
    round_rows(weight, 4).square().sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, 2.0 * round_rows(weight.detach(), 4))


@pytest.mark.parametrize(
    "threshold",
    [
        ADAPTIVE,
        ADAPTIVE._replace(floor=0.8),
        ADAPTIVE._replace(clears=True),
        Threshold(),
        Threshold(clears=True),
    ],
)
@pytest.mark.parametrize("ticks", [5, 16, 31])
@pytest.mark.parametrize("fixed_point", [SIXTEEN, FixedPoint(6, 4), FixedPoint(24, 12)])
def test_the_kernel_equals_the_reference_bit_for_bit(threshold: Threshold, ticks: int, fixed_point: FixedPoint) -> None:
    batch, neurons = 7, 300
    state = LIFState(*(fixed_point.round(noise(batch, neurons, seed=seed).abs()) for seed in range(4)))
    decay = LIFDecay(*(0.2 + 0.75 * torch.rand(neurons, generator=torch.Generator().manual_seed(9)) for _ in range(3)))
    for drive in (noise(1, batch, neurons), noise(ticks, batch, neurons) * 2):
        runs = [
            scan(drive, state, decay, threshold, ticks=ticks, backend=backend, fixed_point=fixed_point)
            for backend in ("fused", "torch")
        ]
        (spikes, after), (expected, expected_after) = runs
        assert 0.01 < float(expected.mean()) < 0.99
        assert torch.equal(spikes, expected)
        for part, expected_part in zip(after, expected_after, strict=True):
            assert torch.equal(part, expected_part)
            assert torch.equal(part, fixed_point.round(part))


def test_a_membrane_saturates_instead_of_overflowing() -> None:
    narrow, zeros = FixedPoint(6, 3), torch.zeros(1, 1)
    state = LIFState(zeros, zeros, zeros, torch.ones(1, 1))
    decay = LIFDecay(*(torch.full((1,), 0.5) for _ in range(3)))
    for backend in ("fused", "torch"):
        _, after = scan(
            torch.full((1, 1, 1), -50.0), state, decay, Threshold(), ticks=9, backend=backend, fixed_point=narrow
        )
        assert float(after.membrane) == float(after.synaptic_current) == -4.0


def run(network: SpikingNetwork, inputs: torch.Tensor) -> tuple[torch.Tensor, NetworkState, list[torch.Tensor]]:
    """Readouts and last state of control steps, and the spikes of the last layer."""
    with torch.no_grad():
        effective, state = network.for_inference(), network.initial_state(inputs.shape[1])
        readouts, spikes = [], []
        for step in inputs:
            readout, state, fired = network.step(step, state, effective)
            readouts.append(readout)
            spikes.append(fired[-1])
    return torch.stack(readouts), state, spikes


@pytest.mark.parametrize(
    "config",
    [
        ON_CHIP,
        replace(ON_CHIP, neuron="lif"),
        replace(ON_CHIP, neuron="lif", recurrence="step"),
        replace(ON_CHIP, neuron="lif", reset="zero"),
        replace(ON_CHIP, recurrence="tick"),
        replace(ON_CHIP, ticks=16, tick=0.00125, hidden=(24,)),
    ],
)
def test_every_way_to_run_a_network_gives_the_same_bits(config: NetworkConfig) -> None:
    inputs = coarse_features(40, 5)
    networks = [SpikingNetwork(replace(config, input_gain=1.0), 9, 3, seed=2, backend=b) for b in ("torch", "fused")]
    (readout, state, spikes), (batch_readout, batch_state, batch_spikes) = (run(each, inputs) for each in networks)
    alone_readout, alone_state, alone_spikes = run(networks[1], inputs[:, :1])
    unrolled, activity, _ = networks[1].unroll(inputs, networks[1].initial_state(5), networks[1].effective())
    assert readout.abs().max() > 0.01
    assert 0.01 < float(torch.stack(spikes).mean()) < 0.9
    assert torch.equal(batch_readout, readout)
    assert torch.equal(unrolled, readout)
    assert torch.equal(alone_readout, readout[:, :1])
    assert torch.equal(torch.stack(batch_spikes), torch.stack(spikes))
    assert torch.equal(torch.stack(alone_spikes), torch.stack(spikes)[:, :, :1])
    assert torch.equal(activity[-1], torch.stack(spikes).mean(1))
    for single, batch, reference in zip(alone_state.layers, batch_state.layers, state.layers, strict=True):
        for part in range(4):
            assert torch.equal(batch.neurons[part], reference.neurons[part])
            assert torch.equal(single.neurons[part], reference.neurons[part][:1])
    for held in (alone_state.held_features, batch_state.held_features):
        assert held is not None
        assert state.held_features is not None
        assert torch.equal(held, state.held_features[: len(held)])


def test_a_feature_is_sent_when_it_has_left_the_value_that_was_sent_last() -> None:
    network = SpikingNetwork(NetworkConfig(hidden=(4,), rank=0, delta=0.1), 3, 1, seed=1)
    state, effective = network.initial_state(1), network.for_inference()
    held = []
    for features in ([0.05, 0.2, -0.5], [0.09, 0.25, -0.5], [0.11, 0.29, -0.45], [0.05, 0.31, -0.35]):
        _, state, _ = network.step(torch.tensor([features]), state, effective)
        assert state.held_features is not None
        held.append(state.held_features[0].tolist())
    expected = [[0.0, 0.2, -0.5], [0.0, 0.2, -0.5], [0.11, 0.2, -0.5], [0.11, 0.31, -0.35]]
    assert held == [pytest.approx(row) for row in expected]


def test_a_network_with_all_options_trains_through_its_rounding() -> None:
    network = SpikingNetwork(ON_CHIP, 9, 3, seed=2)
    assert not network.compiled
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        readout, _, _ = network.unroll(noise(8, 16, 9), network.initial_state(16), network.effective())
        loss = (readout - 0.5).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_compiled_unroll_takes_rounded_weights_as_the_reference_does() -> None:
    config = NetworkConfig(hidden=(24, 20), recurrence="step", rank=6, weight_bits=4)
    outputs = []
    for backend in ("torch", "fused"):
        network = SpikingNetwork(config, 9, 3, seed=2, backend=backend)
        outputs.append(network.unroll(noise(10, 5, 9), network.initial_state(5), network.effective())[0])
    assert network.compiled
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)
    plain = SpikingNetwork(replace(config, weight_bits=None), 9, 3, seed=2)
    assert not torch.allclose(
        plain.unroll(noise(10, 5, 9), plain.initial_state(5), plain.effective())[0], outputs[0], atol=1e-2
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weight_bits": 1}, "weight_bits = 1 must lie between 2 and 16"),
        ({"state_bits": 16}, "go together"),
        ({"state_bits": 16, "state_fraction_bits": 15}, "for the sign and the threshold"),
        ({"state_bits": 32, "state_fraction_bits": 8}, "at most 24"),
        ({"delta": -0.1}, "delta = -0.1 must be a finite number"),
    ],
)
def test_a_precision_that_cannot_be_is_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        NetworkConfig(**options)  # type: ignore[arg-type]
