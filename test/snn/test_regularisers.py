"""Activity regularisers: what they cost, whom they concern, and that training under them changes the rates."""

import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.neurons import Backend
from spiking_controller.snn.regularisers import ActivityRegulariser, mean_activity

TICK = 0.005


def spikes_per_tick(*rates: float) -> torch.Tensor:
    return torch.tensor(rates) * TICK


def penalty(regulariser: ActivityRegulariser, *layers: torch.Tensor) -> float:
    return float(regulariser.add_penalty(torch.zeros(()), layers, TICK))


def test_the_lower_bound_concerns_every_neuron_by_itself() -> None:
    regulariser = ActivityRegulariser(lower=10.0, weight_lower=0.1)
    assert penalty(regulariser, spikes_per_tick(0.0, 6.0, 80.0)) == pytest.approx(0.1 * (100.0 + 16.0) / 3)
    assert penalty(regulariser, spikes_per_tick(10.0, 11.0)) == pytest.approx(0.0, abs=1e-9)


def test_the_upper_bound_concerns_the_mean_of_a_layer() -> None:
    regulariser = ActivityRegulariser(upper=40.0, weight_upper=0.1)
    assert penalty(regulariser, spikes_per_tick(0.0, 100.0)) == pytest.approx(0.1 * 10.0**2)
    assert penalty(regulariser, spikes_per_tick(0.0, 0.0, 100.0)) == 0.0


def test_layers_add_up() -> None:
    regulariser = ActivityRegulariser(lower=10.0, weight_lower=1.0, upper=40.0, weight_upper=1.0)
    assert penalty(regulariser, spikes_per_tick(7.0), spikes_per_tick(42.0)) == pytest.approx(9.0 + 4.0)


def test_nothing_is_computed_where_no_bound_is_set() -> None:
    loss = torch.ones((), requires_grad=True)
    assert ActivityRegulariser().add_penalty(loss, (spikes_per_tick(0.0, 200.0),), TICK) is loss


def test_a_network_without_spikes_costs_nothing() -> None:
    assert penalty(ActivityRegulariser(lower=10.0, upper=20.0)) == 0.0


@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize(
    "regulariser",
    [ActivityRegulariser(lower=60.0, upper=200.0), ActivityRegulariser(upper=5.0)],
    ids=["raises", "lowers"],
)
def test_training_on_the_penalty_alone_moves_the_rates_to_the_bounds(
    regulariser: ActivityRegulariser, backend: Backend
) -> None:
    network = SpikingNetwork(NetworkConfig(hidden=(20, 16), rank=4), 6, 2, seed=1, backend=backend)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    features = torch.randn(8, 12, 6, generator=torch.Generator().manual_seed(0))
    penalties, rates = [], []
    for _ in range(40):
        readout, spikes, _ = network.unroll(features, network.initial_state(12), network.effective())
        activity = mean_activity(spikes)
        assert [layer.shape for layer in activity] == [(20,), (16,)]
        loss = regulariser.add_penalty(0.0 * readout.sum(), activity, TICK)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        penalties.append(float(loss.detach()))
        rates.append(float(torch.cat(activity).detach().mean()) / TICK)
    assert penalties[-1] < 0.5 * penalties[0]
    assert rates[-1] > 1.2 * rates[0] if regulariser.lower else rates[-1] < 0.8 * rates[0]


def test_the_resting_potential_is_where_membranes_settle_without_spikes() -> None:
    network = SpikingNetwork(NetworkConfig(hidden=(20, 16), neuron="lif", rank=0), 6, 2, seed=1)
    features = 1e-3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for bias in network.bias:
            bias.mul_(0.1)
        effective = network.effective()
        state = network.initial_state(4)
        for _ in range(200):
            _, state, spikes = network.step(features, state, effective)
            assert not any(layer.any() for layer in spikes)
        resting = network.resting_potential(features, effective)
    for layer, expected in zip(state.layers, resting, strict=True):
        torch.testing.assert_close(layer.neurons.membrane, expected.expand(4, -1), rtol=1e-4, atol=1e-5)


def test_a_network_trained_to_be_silent_rests_without_spikes() -> None:
    network = SpikingNetwork(NetworkConfig(hidden=(20, 16), neuron="lif", rank=4), 6, 2, seed=1)
    regulariser = ActivityRegulariser(silence=1.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    features = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))

    def spikes_at_rest() -> int:
        with torch.no_grad():
            _, activity, _ = network.unroll(features.expand(20, -1, -1), network.initial_state(12), network.effective())
        return sum(int((layer > 0).sum()) for layer in activity)

    assert spikes_at_rest() > 0
    for _ in range(200):
        loss = regulariser.silence_penalty(network.resting_potential(features, network.effective()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert spikes_at_rest() == 0
    assert float(regulariser.silence_penalty(())) == 0.0


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lower": -1.0}, "lower = -1.0 of an activity regulariser must be at least 0"),
        ({"weight_upper": -0.5}, "weight_upper = -0.5"),
        ({"silence": -0.1}, "silence = -0.1"),
        ({"lower": 20.0, "upper": 10.0}, "upper = 10.0 Hz .* must not be below lower = 20.0 Hz"),
    ],
)
def test_impossible_bounds_are_refused(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ActivityRegulariser(**bounds)
