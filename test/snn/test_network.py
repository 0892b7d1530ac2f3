"""Layered networks: initialisation, readout, state, bounds; the compiled path against the reference through time."""

import math
from dataclasses import replace

import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.snn import initialisation
from spiking_controller.snn.config import NetworkConfig, Recurrence
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.neurons import Backend, adaptive_lif_step
from spiking_controller.snn.readout import readout_response

RECURRENT = NetworkConfig(hidden=(24, 20), recurrence="step", rank=6)
TICK_WISE = replace(RECURRENT, recurrence="tick", ticks=5, tick=0.004, feed_forward_variance=0.5)
PAPER = replace(
    TICK_WISE,
    rank=0,
    recurrent_layers="first",
    readout_layers="last",
    readout_leak="output",
    delay=3,
    input_gains="per_input",
)
FLOORED = replace(RECURRENT, threshold_floor=0.9)
CLEARING = replace(RECURRENT, neuron="lif", reset="zero")
BACKENDS: tuple[Backend, ...] = ("torch", "fused")
KINDS = ["fluctuation", "kaiming", "uniform"]


def features(steps: int, batch: int, inputs: int, seed: int) -> torch.Tensor:
    return torch.randn(steps, batch, inputs, generator=torch.Generator().manual_seed(seed)) * 2


def unroll(network: SpikingNetwork, inputs: torch.Tensor) -> torch.Tensor:
    """The readouts over control steps, from a fresh state."""
    effective, state = network.effective(), network.initial_state(inputs.shape[1])
    outputs = []
    for step in inputs:
        output, state, _ = network.step(step, state, effective)
        outputs.append(output)
    return torch.stack(outputs)


@pytest.mark.parametrize(
    "config",
    [
        RECURRENT,
        NetworkConfig(hidden=(24,), neuron="lif", rank=0),
        TICK_WISE,
        replace(TICK_WISE, rank=0),
        PAPER,
        CLEARING,
        replace(TICK_WISE, reset="zero"),
    ],
)
def test_compiled_steps_without_gradients_equal_the_reference(config: NetworkConfig) -> None:
    with torch.no_grad():
        reference, compiled = (
            unroll(SpikingNetwork(config, 9, 3, seed=2, backend=backend), features(12, 5, 9, seed=1))
            for backend in BACKENDS
        )
    assert reference.abs().max() > 0.01
    torch.testing.assert_close(compiled, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        RECURRENT,
        replace(RECURRENT, rank=0),
        replace(RECURRENT, hidden=(24,), ticks=1),
        replace(RECURRENT, recurrence="none", hidden=(24, 20, 16)),
        FLOORED,
        NetworkConfig(hidden=(24, 20), neuron="lif", rank=0),
        TICK_WISE,
        CLEARING,
        replace(FLOORED, reset="zero"),
    ],
)
def test_steps_of_one_network_equal_the_reference_in_readout_spikes_and_state(config: NetworkConfig) -> None:
    inputs = features(40, 1, 9, seed=1)
    runs = []
    for backend in BACKENDS:
        network = SpikingNetwork(config, 9, 3, seed=2, backend=backend)
        with torch.no_grad():
            effective, state = network.for_inference(), network.initial_state(1)
            steps = []
            for step in inputs:
                output, state, spikes = network.step(step, state, effective)
                steps.append((output, spikes))
        assert (effective.single is not None) == (backend == "fused" and config.recurrence != "tick")
        runs.append((steps, state))
    (reference, state), (compiled, compiled_state) = runs
    assert max(float(output.abs().max()) for output, _ in reference) > 0.01
    for (expected, expected_spikes), (output, spikes) in zip(reference, compiled, strict=True):
        torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(spikes, expected_spikes, rtol=0.0, atol=0.0)
    torch.testing.assert_close(compiled_state, state, rtol=1e-3, atol=1e-4)


def test_a_step_of_one_network_leaves_the_state_before_it_as_it_was() -> None:
    network = SpikingNetwork(RECURRENT, 9, 3, seed=2)
    with torch.no_grad():
        effective = network.for_inference()
        _, state, _ = network.step(features(1, 1, 9, seed=1)[0], network.initial_state(1), effective)
        first, after, _ = network.step(features(1, 1, 9, seed=3)[0], state, effective)
        again, same, _ = network.step(features(1, 1, 9, seed=3)[0], state, effective)
    assert torch.equal(first, again)
    torch.testing.assert_close(after, same, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("recurrence", ["step", "tick"])
def test_a_floor_changes_what_adaptive_neurons_do(recurrence: Recurrence) -> None:
    inputs = features(20, 5, 9, seed=1)
    with torch.no_grad():
        bounded, free = (
            unroll(SpikingNetwork(replace(config, recurrence=recurrence), 9, 3, seed=2), inputs)
            for config in (FLOORED, RECURRENT)
        )
    assert not torch.allclose(bounded, free, atol=1e-3)


def test_a_step_with_gradients_takes_the_reference_whatever_its_batch() -> None:
    network = SpikingNetwork(RECURRENT, 9, 3, seed=2)
    effective = network.effective()
    output, _, _ = network.step(features(1, 1, 9, seed=1)[0], network.initial_state(1), effective)
    output.sum().backward()
    assert effective.single is None
    assert network.input_weight.grad is not None


@pytest.mark.parametrize(
    "config",
    [
        RECURRENT,
        replace(RECURRENT, rank=0),
        replace(RECURRENT, time_constants="per_layer"),
        replace(RECURRENT, time_constants="fixed"),
        *(replace(RECURRENT, surrogate=name) for name in ("gaussian", "superspike", "sigmoid")),
        TICK_WISE,
        replace(TICK_WISE, rank=0),
        replace(TICK_WISE, neuron="lif"),
        replace(TICK_WISE, neuron="lif", rank=0),
        FLOORED,
        replace(FLOORED, recurrence="tick"),
        replace(TICK_WISE, hidden=(24, 20, 16), time_constants="fixed"),
        replace(TICK_WISE, hidden=(24,), ticks=1),
        PAPER,
        replace(PAPER, recurrence="step", rank=6),
        replace(PAPER, recurrence="none", recurrent_layers="all", delay=5),
        replace(TICK_WISE, delay=1),
        replace(RECURRENT, recurrent_layers="first", input_gains="per_input"),
        replace(RECURRENT, readout_layers="last"),
        replace(RECURRENT, readout_leak="output", ticks=1),
        *(replace(TICK_WISE, surrogate=name) for name in ("gaussian", "superspike", "sigmoid")),
        NetworkConfig(hidden=(24, 20, 16), rank=6),
        NetworkConfig(hidden=(24,), neuron="lif", rank=0),
        CLEARING,
        replace(CLEARING, hidden=(24, 300), delay=1),
        replace(CLEARING, surrogate="superspike"),
        replace(FLOORED, reset="zero"),
        replace(TICK_WISE, neuron="lif", reset="zero"),
        replace(PAPER, reset="zero"),
    ],
)
def test_a_compiled_unroll_equals_the_reference_in_values_and_gradients(config: NetworkConfig) -> None:
    recorded = torch.randn(12, 5, 9, generator=torch.Generator().manual_seed(1)) * 2
    results: list[list[torch.Tensor]] = []
    for backend in BACKENDS:
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
        state_after = [part for layer in after.layers for part in (*layer.neurons, layer.mean_spikes)]
        held = [] if after.held_features is None else [after.held_features]
        results.append([output, *activity, after.readout_membrane, *held, *state_after, features.grad, *gradients])
    assert results[0][0].abs().max() > 0.01
    assert len(results[0]) == len(results[1])
    for reference, compiled in zip(*results, strict=True):
        # Rounding grows with the gradients on their way through 60 ticks.
        scale = max(1.0, float(reference.detach().abs().max()))
        torch.testing.assert_close(compiled, reference, rtol=1e-3, atol=1e-4 * scale)


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


@pytest.mark.parametrize("kind", KINDS)
def test_weights_have_the_deviation_of_their_initialisation(kind: initialisation.Initialisation) -> None:
    weight = initialisation.weights(kind, 300, 200, 0.3, torch.Generator().manual_seed(5))
    expected = {"fluctuation": 0.3, "kaiming": math.sqrt(2 / 200), "uniform": 1 / math.sqrt(3 * 200)}[kind]
    assert float(weight.std()) == pytest.approx(expected, rel=0.02)
    if kind == "uniform":
        assert float(weight.abs().max()) == pytest.approx(1 / math.sqrt(200), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_low_rank_weights_have_the_deviation_of_full_ones_and_the_asked_for_rank(
    kind: initialisation.Initialisation,
) -> None:
    expand, compress = initialisation.low_rank_weights(kind, 300, 200, 16, 0.3, torch.Generator().manual_seed(5))
    full = initialisation.weights(kind, 300, 200, 0.3, torch.Generator().manual_seed(5))
    weight = expand @ compress
    assert float(weight.std()) == pytest.approx(float(full.std()), rel=0.05)
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


def test_the_initialisation_reaches_every_weight_of_a_network() -> None:
    config = replace(TICK_WISE, hidden=(200, 150), rank=0)
    networks = {
        kind: SpikingNetwork(replace(config, initialisation=kind), 100, 50, seed=1)  # type: ignore[arg-type]
        for kind in KINDS
    }
    for name, weight in networks["kaiming"].named_parameters():
        if weight.dim() < 2 or "log_tau" in name:
            continue
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / weight.shape[1]), rel=0.05), name
        uniform = networks["uniform"].get_parameter(name)
        assert 0.95 < float(uniform.abs().max()) * math.sqrt(weight.shape[1]) <= 1.0, name
        assert not torch.equal(networks["fluctuation"].get_parameter(name), weight), name


def test_shared_time_constants_are_one_per_layer_and_act_on_every_neuron() -> None:
    shared = SpikingNetwork(replace(TICK_WISE, time_constants="per_layer"), 9, 3, seed=2)
    own = SpikingNetwork(TICK_WISE, 9, 3, seed=2)
    assert [tuple(log_tau.shape) for log_tau in shared.log_tau] == [(3, 1), (3, 1)]
    assert tuple(shared.readout_log_tau.shape) == (2, 1)
    inputs = features(12, 5, 9, seed=1)
    outputs, expected = unroll(shared, inputs), unroll(own, inputs)
    assert torch.equal(outputs, expected)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    for one, each in zip(shared.log_tau, own.log_tau, strict=True):
        assert one.grad is not None
        assert each.grad is not None
        torch.testing.assert_close(one.grad, each.grad.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_fixed_time_constants_are_saved_but_not_trained() -> None:
    config = replace(TICK_WISE, time_constants="fixed", tau_membrane=0.5)
    network = SpikingNetwork(config, 9, 3, seed=2)
    assert not [name for name, _ in network.named_parameters() if "log_tau" in name]
    assert {"log_tau.0", "log_tau.1", "readout_log_tau"} <= network.state_dict().keys()
    network.requires_grad_(True)
    unroll(network, features(12, 5, 9, seed=1)).square().sum().backward()
    network.limit_time_constants()
    expected = torch.tensor([[config.tau_synaptic], [config.tau_membrane], [config.tau_adaptation]])
    for log_tau in network.log_tau:
        assert log_tau.grad is None
        torch.testing.assert_close(log_tau.exp(), expected)


def test_tick_wise_recurrence_feeds_every_tick_the_spikes_of_the_tick_before() -> None:
    config = replace(TICK_WISE, hidden=(24,))
    network = SpikingNetwork(config, 9, 3, seed=3)
    effective, state = network.effective(), network.initial_state(5)
    neurons, fired = state.layers[0].neurons, torch.zeros(5, 24)
    recurrent = network.recurrent_expand[0] @ network.recurrent_compress[0]
    without = SpikingNetwork(config, 9, 3, seed=3)
    with torch.no_grad():
        without.recurrent_expand[0].zero_()
    with torch.no_grad():
        for step in features(6, 5, 9, seed=4):
            _, state, (spikes,) = network.step(step, state, effective)
            drive = network.input_drive(step, effective)
            for tick in spikes:
                fired, neurons = adaptive_lif_step(
                    drive + fired @ recurrent.t(), neurons, effective.decays[0], config.threshold, "gaussian"
                )
                assert torch.equal(tick, fired)
            torch.testing.assert_close(state.layers[0].neurons.membrane, neurons.membrane, rtol=1e-4, atol=1e-5)
        inputs = features(6, 5, 9, seed=4)
        assert not torch.allclose(unroll(network, inputs), unroll(without, inputs))


def test_a_delay_of_every_connection_is_one_of_the_features() -> None:
    """The paper's network, connection by connection: each receives what its source sent a tick ago."""
    config = replace(PAPER, neuron="lif")
    network = SpikingNetwork(config, 9, 3, seed=3)
    with torch.no_grad():
        for bias in network.bias:
            bias.zero_()
        network.log_input_gain.copy_(torch.linspace(-1.0, 0.5, 9))
        effective, state = network.effective(), network.initial_state(5)
        (first, second), (between,), (readout,) = effective.decays, network.expand, network.readout_weight
        like = network.input_weight
        neurons = [state.layers[0].neurons, state.layers[1].neurons]
        sent, spikes_1, spikes_2 = like.new_zeros(5, 9), like.new_zeros(5, 24), like.new_zeros(5, 20)
        synaptic, output = like.new_zeros(5, 3), like.new_zeros(5, 3)
        decays = effective.readout.synaptic_keep, effective.readout.membrane_keep
        for step in features(8, 5, 9, seed=4):
            readout_after, state, _ = network.step(step, state, effective)
            for _ in range(config.ticks):
                drive = sent @ network.input_weight.t() + spikes_1 @ network.recurrent_expand[0].t()
                current = (spikes_2 @ readout.t()) * effective.output_gain
                drive_2 = spikes_1 @ between.t()
                sent = step * network.log_input_gain.exp()
                spikes_1, neurons[0] = adaptive_lif_step(drive, neurons[0], first, config.threshold, "gaussian")
                spikes_2, neurons[1] = adaptive_lif_step(drive_2, neurons[1], second, config.threshold, "gaussian")
                synaptic = decays[0] * synaptic + current
                membrane = decays[1] * output + (1.0 - decays[1]) * synaptic
                output = torch.tanh(membrane)
            torch.testing.assert_close(readout_after, membrane, rtol=1e-4, atol=1e-5)
    assert membrane.abs().max() > 0.01


def test_a_readout_that_leaks_from_its_output_cannot_wind_up() -> None:
    config = replace(RECURRENT, tau_readout_membrane=10.0, tau_readout_synaptic=0.005)
    inputs = features(1, 5, 9, seed=5).expand(200, -1, -1)
    with torch.no_grad():
        bounded, free = (
            unroll(SpikingNetwork(replace(config, readout_leak=leak), 9, 3, seed=6), inputs)
            for leak in ("output", "membrane")
        )
    assert bounded.abs().max() < 1.5
    assert free.abs().max() > 3.0 * bounded.abs().max()


def test_inputs_taken_for_spikes_give_larger_weights() -> None:
    config = replace(PAPER, tick=0.002, tau_membrane=0.01, tau_synaptic=0.005, feed_forward_variance=0.9)
    spiking, analogue = (
        SpikingNetwork(replace(config, input_weights=kind), 100, 3, seed=7).input_weight.std()
        for kind in ("spiking", "analogue")
    )
    expected = math.sqrt(0.9 / (100 * 50 * 0.002 * initialisation.psp_energy(0.005, 0.01, 0.002)))
    assert float(spiking) == pytest.approx(expected, rel=0.05)
    assert spiking > 3 * analogue


def test_with_one_tick_per_step_both_recurrences_are_the_same() -> None:
    config = replace(RECURRENT, ticks=1, tick=0.02)
    inputs = features(8, 5, 9, seed=5)
    step = unroll(SpikingNetwork(config, 9, 3, seed=6), inputs)
    tick = unroll(SpikingNetwork(replace(config, recurrence="tick"), 9, 3, seed=6), inputs)
    none = unroll(SpikingNetwork(replace(config, recurrence="none"), 9, 3, seed=6), inputs)
    torch.testing.assert_close(tick, step)
    assert not torch.allclose(none, step)


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
        ({"neuron": "izhikevich"}, "neuron 'izhikevich' is unknown; choose one of: adaptive_lif, lif"),
        ({"reset": "hold"}, "reset 'hold' is unknown; choose one of: subtract, zero"),
        ({"recurrence": "always"}, "recurrence 'always' is unknown; choose one of: none, step, tick"),
        ({"initialisation": "zero"}, "initialisation 'zero' is unknown"),
        ({"time_constants": "learned"}, "time_constants 'learned' is unknown"),
        ({"rank": -1}, "rank = -1"),
        ({"ticks": 32}, "ticks = 32 at least 1 and at most 31"),
        ({"threshold_floor": 1.0}, "threshold_floor = 1.0 must be finite and below 1"),
        ({"threshold_floor": -math.inf}, "threshold_floor = -inf must be finite"),
        ({"tau_membrane": 0.0}, "tau_membrane = 0.0 must be above 0"),
        ({"feed_forward_variance": 1.5}, "feed_forward_variance = 1.5"),
        ({"surrogate": "boxcar"}, "surrogate 'boxcar' is unknown"),
        ({"delay": 5}, "delay = 5 must be at least 0 and at most ticks = 4"),
        ({"recurrent_layers": "second"}, "recurrent_layers 'second' is unknown; choose one of: all, first"),
        ({"readout_layers": "none"}, "readout_layers 'none' is unknown; choose one of: all, last"),
        ({"readout_leak": "tanh"}, "readout_leak 'tanh' is unknown; choose one of: membrane, output"),
        ({"input_gains": "many"}, "input_gains 'many' is unknown"),
        ({"input_weights": "digital"}, "input_weights 'digital' is unknown"),
        ({"readout_leak": "output", "state_bits": 16, "state_fraction_bits": 10}, "leave one out"),
    ],
)
def test_a_wrong_size_or_name_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NetworkConfig(**options)  # type: ignore[arg-type]
