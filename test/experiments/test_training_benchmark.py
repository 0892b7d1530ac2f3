"""`spiking_controller benchmark train`: what ours is measured against computes the same; the command says how."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spiking_controller.cli import main
from spiking_controller.commands.benchmark_train import table
from spiking_controller.experiments.benchmarks.snntorch_network import SnntorchNetwork
from spiking_controller.experiments.benchmarks.training_benchmark import (
    CONTROL_STEPS,
    Size,
    UpdateTimes,
    benchmark_config,
    with_snntorch_modules,
)
from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import ModelUpdates, PolicyUpdates, TrainingConfig
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.training.replay_memory import ReplayMemory
from spiking_controller.training.updates import Updater

PAPER = NetworkConfig(
    hidden=(24, 20),
    neuron="lif",
    rank=0,
    recurrence="tick",
    recurrent_layers="first",
    readout_layers="last",
    readout_leak="output",
    delay=3,
    input_gains="per_input",
)


@pytest.mark.parametrize("tuned", [False, True], ids=["as-written", "tuned"])
@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(hidden=(24, 20), neuron="lif", rank=6, ticks=7, tick=0.003),
        NetworkConfig(hidden=(24, 20), neuron="lif", rank=6, recurrence="step"),
        NetworkConfig(hidden=(24, 20), neuron="lif", rank=0, recurrence="step"),
        NetworkConfig(hidden=(24, 20), neuron="lif", rank=6, recurrence="tick"),
        PAPER,
        NetworkConfig(hidden=(24, 20), neuron="lif", reset="zero", rank=6, delay=1),
    ],
    ids=["feed-forward", "recurrent", "full-rank", "tick-wise", "paper", "chip"],
)
def test_plain_neurons_of_both_networks_fire_the_same_spikes(config: NetworkConfig, tuned: bool) -> None:
    ours = SpikingNetwork(config, 9, 3, seed=1, backend="torch")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for log_tau in (*ours.log_tau, ours.readout_log_tau):
            log_tau.add_(0.3 * torch.randn(log_tau.shape, generator=generator))
        # A steady drive with small fluctuations, so that one reset always brings the membrane below threshold.
        for weight in (ours.input_weight, *ours.expand, *ours.recurrent_expand):
            weight.mul_(0.3)
        for bias in ours.bias:
            bias.mul_(0.3).add_(0.6)
    theirs = SnntorchNetwork(ours, tuned=tuned)
    effective, state, other = ours.effective(), ours.initial_state(5), theirs.initial_state(5)
    fired = torch.zeros(2)
    with torch.no_grad():
        for features in torch.randn(15, 5, 9, generator=generator):
            readout, state, spikes = ours.step(features, state, effective)
            other_readout, other, other_spikes = theirs.step(features, other, None)
            for layer, other_layer in zip(spikes, other_spikes, strict=True):
                assert torch.equal(layer, other_layer)
            torch.testing.assert_close(other_readout, readout, rtol=1e-4, atol=1e-5)
            fired += torch.stack([layer.mean() for layer in spikes]) / 15
    assert (fired > 0.02).all()
    assert (fired < 0.6).all()


def test_membranes_of_both_networks_rest_at_the_same_potentials() -> None:
    ours = SpikingNetwork(NetworkConfig(hidden=(24, 20), neuron="lif", rank=6), 9, 3, seed=1)
    theirs = SnntorchNetwork(ours, tuned=True)
    features = torch.randn(5, 9, generator=torch.Generator().manual_seed(2))
    for resting, other in zip(
        ours.resting_potential(features, ours.effective()), theirs.resting_potential(features, None), strict=True
    ):
        torch.testing.assert_close(other, resting, rtol=1e-4, atol=1e-5)


def test_they_fire_differently_only_where_one_reset_leaves_the_membrane_above_threshold() -> None:
    ours = SpikingNetwork(NetworkConfig(hidden=(24,), neuron="lif", ticks=1, tick=0.02), 9, 3, seed=1, backend="torch")
    theirs = SnntorchNetwork(ours, tuned=True)
    effective, state, other = ours.effective(), ours.initial_state(5), theirs.initial_state(5)
    share = 1.0 - effective.decays[0].membrane
    differences = 0
    with torch.no_grad():
        for features in 3 * torch.randn(100, 5, 9, generator=torch.Generator().manual_seed(2)):
            above = state.layers[0].neurons.membrane > 1.0
            _, state, (spikes,) = ours.step(features, state, effective)
            _, other, (other_spikes,) = theirs.step(features, other, None)
            different = spikes[0] != other_spikes[0]
            assert above[different].all()
            differences += int(different.sum())
            neurons = state.layers[0].neurons
            other = other._replace(synaptic=(share * neurons.synaptic_current,), membrane=(neurons.membrane,))
    assert differences > 0


@pytest.mark.parametrize("tuned", [False, True], ids=["as-written", "tuned"])
@pytest.mark.parametrize("config", [NetworkConfig(hidden=(24, 20), recurrence="step", rank=6), PAPER])
def test_an_unroll_is_its_steps(config: NetworkConfig, tuned: bool) -> None:
    network = SnntorchNetwork(SpikingNetwork(config, 9, 3, seed=1), tuned=tuned)
    features = torch.randn(6, 5, 9, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        readout, activity, after = network.unroll(features, network.initial_state(5), None)
        state = network.initial_state(5)
        for index, now in enumerate(features):
            expected, state, spikes = network.step(now, state, None)
            torch.testing.assert_close(readout[index], expected)
            for layer, layer_spikes in zip(activity, spikes, strict=True):
                torch.testing.assert_close(layer[index], layer_spikes.mean(0))
    torch.testing.assert_close(after.membrane, state.membrane)


def test_both_networks_learn_the_same_numbers_but_for_gains_and_adaptation() -> None:
    config = benchmark_config(Size(hidden=40, batch=2))
    for learner in build_networks(config):
        ours = learner.network
        assert isinstance(ours, SpikingNetwork)
        theirs = SnntorchNetwork(ours, tuned=True)
        without = sum(ours.config.hidden) + 1 + ours.outputs
        assert _learnable(theirs) == _learnable(ours) - without


def _learnable(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("tuned", [False, True], ids=["as-written", "tuned"])
def test_an_update_of_snntorch_modules_reaches_every_parameter(tuned: bool) -> None:
    network = NetworkConfig(hidden=(16, 16), rank=4)
    config = TrainingConfig(
        task="planar_reach",
        policy=network,
        forward_model=NetworkConfig(hidden=(16,), recurrence="step", rank=4),
        model_updates=ModelUpdates(batch=8, warm_up=2, unroll=6),
        policy_updates=PolicyUpdates(batch=8, warm_up=2, unroll=6),
    )
    policy, model = with_snntorch_modules(*build_networks(config), tuned=tuned)
    rng = np.random.default_rng(3)
    memory = ReplayMemory(4, 20, 6, 2, 2)
    memory.observation[:] = 0.3 * rng.standard_normal(memory.observation.shape)
    memory.action[:] = rng.uniform(-1, 1, memory.action.shape)
    memory.goal[:] = 0.3 * rng.standard_normal(memory.goal.shape)
    memory.added = 4
    updater = Updater(config, policy, model, memory.goal)

    before = {name: p.clone() for learner in (policy, model) for name, p in _named(learner)}
    updater.update_model(memory, rng, 0.0)
    for name, parameter in _named(model):
        assert not torch.equal(parameter, before[name]), name
    learnt = {name: p.clone() for name, p in _named(model)}
    updater.update_policy(memory, rng, 0.0)
    for name, parameter in _named(policy):
        assert not torch.equal(parameter, before[name]), name
    for name, parameter in _named(model):
        assert torch.equal(parameter, learnt[name]), name


def _named(learner: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    kind = type(learner).__name__
    return [(f"{kind}.{name}", parameter) for name, parameter in learner.named_parameters()]


def test_decay_factors_of_snntorch_modules_come_back_into_their_bounds() -> None:
    config = NetworkConfig(hidden=(6,))
    network = SnntorchNetwork(SpikingNetwork(config, 4, 2, seed=4), tuned=True)
    for neuron in (*network.neurons, network.readout_neuron):
        with torch.no_grad():
            neuron.alpha[0], neuron.beta[0], neuron.beta[1] = 1.5, 0.9999, -0.1
    network.limit_time_constants()
    for neuron, longest in zip((*network.neurons, network.readout_neuron), (0.3, 0.1), strict=True):
        for decay in (neuron.alpha, neuron.beta):
            assert decay[0].item() == pytest.approx(np.exp(-config.tick / longest))
        assert neuron.beta[1].item() == 0.0


def test_both_updates_run_through_45_control_steps_of_7_ticks() -> None:
    config = benchmark_config(Size(hidden=512, batch=256))
    assert config.model_updates.warm_up + config.model_updates.unroll == CONTROL_STEPS == 45
    assert config.policy_updates.unroll == 45
    assert config.model_updates.batch == config.policy_updates.batch == 256
    assert config.policy.hidden == (512, 512)
    assert config.forward_model.hidden == (512,)
    assert config.policy.ticks == config.forward_model.ticks == 7


def test_the_networks_of_the_paper_are_measured_on_request() -> None:
    config = benchmark_config(Size(hidden=512, batch=256), "paper")
    assert config.policy.hidden == config.forward_model.hidden == (512, 512)
    assert isinstance(config.forward_model, NetworkConfig)
    assert isinstance(config.policy, NetworkConfig)
    assert [config.forward_model.is_recurrent(layer) for layer in (0, 1)] == [True, False]
    assert (config.policy.readout_leak, config.forward_model.readout_leak) == ("output", "membrane")
    assert config.policy.rank == config.forward_model.rank == 0


def test_the_ratio_is_that_of_the_medians() -> None:
    times = UpdateTimes(Size(1, 1), "policy", ours=(1.0, 2.0, 90.0), snntorch=(8.0, 0.1, 9.0), tuned=(6.0,) * 3)
    assert times.ratio == 4.0
    assert times.tuned_ratio == 3.0


@pytest.mark.parametrize(("share", "said"), [(0.99, False), (0.4, True)])
def test_a_busy_machine_is_mentioned(share: float, said: bool) -> None:
    report = {
        "repeats": 1,
        "control_steps": 45,
        "ticks": 7,
        "threads": 1,
        "networks": "shipped",
        "clock": "wall",
        "processor": "a processor",
        "cores": 2,
        "processor_share": share,
        "versions": {"torch": "2"},
        "results": [],
    }
    assert ("had a core for 40 % of the time" in table(report)) == said


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    options = ["--sizes", "8x4", "--repeats", "1", "--networks", "paper", "--clock", "processor"]
    assert main(["benchmark", "train", *options, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(file.read_text())
    assert (figures["threads"], figures["networks"], figures["clock"]) == (1, "paper", "processor")
    assert f"torch {torch.__version__}" in printed
    assert [(row["hidden"], row["batch"], row["update"]) for row in figures["results"]] == [
        (8, 4, "forward model"),
        (8, 4, "policy"),
    ]
    for row in figures["results"]:
        assert len(row["seconds"]) == len(row["snntorch_seconds"]) == len(row["tuned_seconds"]) == 1
        assert min(row["seconds"]) > 0
        assert row["ratio"] == pytest.approx(row["snntorch_seconds_median"] / row["seconds_median"])
        assert row["tuned_ratio"] == pytest.approx(row["tuned_seconds_median"] / row["seconds_median"])
        line = next(line for line in printed.splitlines() if row["update"] in line and line.split()[0] == "8")
        assert line.split()[-1] == f"{row['tuned_ratio']:.2f}"
        assert line.split()[-4] == f"{row['ratio']:.2f}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repeats", "0"], "--repeats 0 and --threads 1 must be at least 1"),
        (["--threads", "-2"], "--threads -2 must be at least 1"),
        (["--sizes", "8x4", "large"], "--sizes large: is not HIDDENxBATCH"),
        (["--sizes", "0x4"], "--sizes 0x4: is not HIDDENxBATCH"),
    ],
)
def test_wrong_options_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "train", *arguments]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert len(message.splitlines()) == 1
