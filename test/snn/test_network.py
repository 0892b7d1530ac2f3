"""Layered networks: initialisation, readout, state, bounds; the compiled path against the reference through time."""

import math

import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.snn import initialisation
from spiking_controller.snn.network import NetworkConfig, SpikingNetwork, readout_response
from spiking_controller.snn.neurons import Backend

RECURRENT = NetworkConfig(hidden=(24, 20), recurrent=True, rank=6)


@pytest.mark.parametrize("config", [RECURRENT, NetworkConfig(hidden=(24,), neuron="lif", rank=0)])
def test_an_unroll_has_the_same_values_and_gradients_in_both_backends(config: NetworkConfig) -> None:
    features = torch.randn(12, 5, 9, generator=torch.Generator().manual_seed(1)) * 2
    results = []
    for backend in ("torch", "fused"):
        network = SpikingNetwork(config, 9, 3, seed=2, backend=backend)
        effective, state = network.effective(), network.initial_state(5)
        outputs = []
        for step in features:
            output, state, _ = network.step(step, state, effective)
            outputs.append(output)
        torch.stack(outputs).square().sum().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        results.append([torch.stack(outputs), *gradients])
    assert results[0][0].abs().max() > 0.01
    assert len(results[0]) == len(results[1])
    for reference, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        RECURRENT,
        NetworkConfig(hidden=(24, 20), recurrent=True, rank=0),
        NetworkConfig(hidden=(24, 20, 16), rank=6),
        NetworkConfig(hidden=(24,), neuron="lif", rank=0),
    ],
)
def test_a_compiled_unroll_equals_the_reference_in_values_and_gradients(config: NetworkConfig) -> None:
    recorded = torch.randn(12, 5, 9, generator=torch.Generator().manual_seed(1)) * 2
    results: list[list[torch.Tensor]] = []
    backends: tuple[Backend, ...] = ("torch", "fused")
    for backend in backends:
        network = SpikingNetwork(config, 9, 3, seed=2, backend=backend)
        effective, state = network.effective(), network.initial_state(5)
        features = recorded.clone().requires_grad_()
        _, state, _ = network.step(recorded[0], state, effective)
        output, activity, after = network.unroll(features, state.detach(), effective)
        assert activity[0].shape == (12, 5, 24)
        weights = [torch.linspace(-1.0, 1.0, layer.shape[-1]) for layer in activity]
        pull = sum(((layer * weight).sum() for layer, weight in zip(activity, weights, strict=True)), torch.zeros(()))
        (output.square().sum() + pull).backward()
        assert features.grad is not None
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        results.append([output, *activity, after.readout_membrane, *after.layers[0].neurons, features.grad, *gradients])
    assert results[0][0].abs().max() > 0.01
    assert len(results[0]) == len(results[1])
    for reference, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-3, atol=1e-4)


def test_two_unrolls_at_once_keep_their_own_buffers() -> None:
    network = SpikingNetwork(RECURRENT, 9, 3, seed=2)
    features = torch.randn(2, 4, 5, 9, generator=torch.Generator().manual_seed(1))

    def gradient(*losses: torch.Tensor) -> list[torch.Tensor]:
        return [part for loss in losses for part in torch.autograd.grad(loss, list(network.bias))]

    def loss(index: int) -> torch.Tensor:
        output, _, _ = network.unroll(features[index], network.initial_state(5), network.effective())
        return output.square().sum()

    one_after_the_other = gradient(loss(0)) + gradient(loss(1))
    first, second = loss(0), loss(1)
    for alone, together in zip(one_after_the_other, gradient(first, second), strict=True):
        assert torch.equal(alone, together)


def test_the_readout_in_closed_form_equals_its_ticks() -> None:
    ticks, batch, outputs = 5, 4, 3
    generator = torch.Generator().manual_seed(3)
    currents = torch.randn(ticks, batch, outputs, generator=generator)
    synaptic, membrane = torch.randn(2, batch, outputs, generator=generator)
    beta_synaptic, beta_membrane = torch.rand(2, outputs, generator=generator)
    response = readout_response(beta_synaptic, beta_membrane, ticks)
    closed = (
        response.membrane_keep * membrane
        + response.membrane_from_synaptic * synaptic
        + (response.membrane_gain * currents).sum(0)
    )
    closed_synaptic = response.synaptic_keep * synaptic + (response.synaptic_gain * currents).sum(0)
    for current in currents:
        synaptic = beta_synaptic * synaptic + current
        membrane = beta_membrane * membrane + (1 - beta_membrane) * synaptic
    torch.testing.assert_close(closed, membrane)
    torch.testing.assert_close(closed_synaptic, synaptic)


def test_fluctuation_driven_weights_bring_the_membrane_to_threshold() -> None:
    inputs, neurons, rate, tick = 200, 400, 50.0, 0.005
    tau_synaptic, tau_membrane = 0.005, 0.01
    generator = torch.Generator().manual_seed(4)
    deviation = initialisation.spike_weight_deviation(inputs, rate, tau_synaptic, tau_membrane, tick)
    weight = initialisation.normal((neurons, inputs), deviation, generator)
    synaptic, membrane, samples = torch.zeros(neurons), torch.zeros(neurons), []
    for step in range(600):
        spikes = (torch.rand(inputs, generator=generator) < rate * tick).float()
        synaptic = math.exp(-tick / tau_synaptic) * synaptic + weight @ spikes
        beta = math.exp(-tick / tau_membrane)
        membrane = beta * membrane + (1 - beta) * synaptic
        if step > 20:
            samples.append(membrane)
    # Every neuron's mean differs from zero since spikes are never negative; over neurons the second moment is the
    # fluctuation's plus that of the mean, (rate·tick·ε̄)²·inputs·deviation².
    fluctuation = torch.stack(samples).std(0).square().mean().sqrt()
    assert abs(float(fluctuation) / math.sqrt(1 - rate * tick) - 1.0) < 0.05


def test_low_rank_weights_have_the_asked_for_deviation_and_rank() -> None:
    expand, compress = initialisation.low_rank(300, 200, 16, 0.3, torch.Generator().manual_seed(5))
    weight = expand @ compress
    assert float(weight.std()) == pytest.approx(0.3, rel=0.05)
    assert int(torch.linalg.matrix_rank(weight)) == 16
    torch.testing.assert_close(compress @ compress.t(), torch.eye(16), atol=1e-5, rtol=0)


def test_a_fresh_network_is_neither_silent_nor_saturated() -> None:
    network = SpikingNetwork(NetworkConfig(), 40, 6, seed=6)
    effective, state = network.effective(), network.initial_state(16)
    features = torch.randn(16, 40, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        for _ in range(20):
            output, state, spikes = network.step(features, state, effective)
    for layer in spikes:
        assert 0.02 < float(layer.mean()) < 0.5
    assert 0.02 < float(output.std()) < 2.0


def test_time_constants_come_back_into_their_bounds() -> None:
    network = SpikingNetwork(RECURRENT, 4, 2, seed=8)
    with torch.no_grad():
        for parameter in (*network.log_tau, network.readout_log_tau):
            parameter[:, 0] = 5.0
            parameter[:, 1] = -20.0
    network.limit_time_constants()
    for log_tau in network.log_tau:
        assert float(log_tau.exp().max()) == pytest.approx(RECURRENT.longest_tau)
        assert float(log_tau.exp().min()) == pytest.approx(1e-3)
    assert float(network.readout_log_tau.exp().max()) == pytest.approx(RECURRENT.longest_readout_tau)


def test_a_step_does_not_change_the_state_it_was_given() -> None:
    network = SpikingNetwork(RECURRENT, 9, 3, seed=9)
    effective, state = network.effective(), network.initial_state(2)
    features = torch.randn(2, 9, generator=torch.Generator().manual_seed(10))
    with torch.no_grad():
        first, _, _ = network.step(features, state, effective)
        again, _, _ = network.step(features, state, effective)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "at least one layer"),
        ({"neuron": "izhikevich"}, "neuron 'izhikevich' is unknown"),
        ({"rank": -1}, "rank = -1"),
        ({"tau_membrane": 0.0}, "tau_membrane = 0.0 must be above 0"),
        ({"feed_forward_variance": 1.5}, "feed_forward_variance = 1.5"),
        ({"surrogate": "boxcar"}, "surrogate 'boxcar' is unknown"),
    ],
)
def test_a_wrong_size_or_name_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NetworkConfig(**options)  # type: ignore[arg-type]
