"""`spiking_controller deploy`: what a chip would run, as a checkpoint that everything takes, and what that changes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spiking_controller.cli import main
from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.complexity import footprint, measure_complexity
from spiking_controller.evaluation.deployment import multiply_out_where_it_pays, paired_difference
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.baselines import MLPConfig
from spiking_controller.networks.checkpoint import (
    Checkpoint,
    build_networks,
    check_same_contract,
    dump_checkpoint,
    load_checkpoint,
    parse_checkpoint,
)
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.deployment import Precision, deployed, latent_networks
from spiking_controller.networks.imagination import Beginning, imagine
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes

PLANAR = share_path("models", "planar_reach.safetensors")
PANDA = share_path("models", "panda_reach.safetensors")
ON_CHIP = Precision(weight_bits=8, state_bits=16, state_fraction_bits=8, delta=1e-3)
Report = tuple[Path, dict[str, Any]]
CONFIG = TrainingConfig(
    "planar_reach",
    forward_model=NetworkConfig(hidden=(32,), recurrence="step", rank=4),
    policy=NetworkConfig(hidden=(32, 24), neuron="lif", rank=4, ticks=16, tick=0.00125),
)


def checkpoint_of(config: TrainingConfig) -> Checkpoint:
    """Untrained networks."""
    return parse_checkpoint(dump_checkpoint(*build_networks(config), config), "untrained")


def episodes_of(checkpoint: Checkpoint, goals: int = 3) -> Episodes:
    return run_episodes(ReachVectorEnv(checkpoint.task, goals), SpikingAgent(checkpoint.policy), seed=1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The file that the command wrote for the planar checkpoint, and its report."""
    folder = tmp_path_factory.mktemp("deploy")
    output, figures = folder / "chip.safetensors", folder / "chip.json"
    assert main(["deploy", str(PLANAR), "--output", str(output), "--goals", "20", "--json", str(figures)]) == 0
    return output, json.loads(figures.read_text())


def test_the_file_says_what_it_holds_and_loads_as_any_checkpoint(report: Report) -> None:
    original, chip = load_checkpoint(PLANAR), load_checkpoint(report[0])
    check_same_contract(chip.contract, original.contract, str(report[0]))
    assert chip.metadata["parent"] == original.metadata["sha256"]
    assert chip.metadata["evaluation"]["seconds"] == original.metadata["evaluation"]["seconds"]
    for before, after in ((original.policy, chip.policy), (original.forward_model, chip.forward_model)):
        network, trained = after.network, before.network
        assert isinstance(network, SpikingNetwork)
        assert isinstance(trained, SpikingNetwork)
        assert (network.config.weight_bits, network.config.fixed_point, network.config.delta) == (8, (16, 10), 0.01)
        for row in (*network.input_weight, *(row for weight in network.readout_weight for row in weight)):
            step = 2.0 ** torch.ceil(torch.log2(row.abs().max() / 127))
            assert torch.equal(row / step, (row / step).round())
        gained = trained.input_weight * trained.log_input_gain.exp()
        torch.testing.assert_close(network.input_weight, gained, rtol=0.0, atol=gained.abs().max().item() / 100)
        weights = sum(p.numel() for name, p in network.named_parameters() if p.dim() == 2 and "log_tau" not in name)
        assert footprint(trained) - footprint(network) > 2.9 * weights


def test_the_report_holds_costs_and_paired_differences(report: Report) -> None:
    figures = report[1]
    complexity = figures["complexity"]
    for part in ("policy", "forward_model"):
        before, after = complexity["before"][part], complexity["after"][part]
        assert after["footprint_bytes"] < 0.4 * before["footprint_bytes"]
        assert after["effective_macs"] < before["effective_macs"]
        assert after["energy_45nm_j"] < before["energy_45nm_j"]
        assert after["energy_45nm_with_neurons_j"] > after["energy_45nm_j"]
    assert figures["multiplied_out"] == []
    for loop in ("network_alone", "with_integral"):
        error = figures[loop]["final_error_m"]
        difference, noise = error["paired_difference"], error["noise_floor"]
        assert difference["low"] <= difference["median"] <= difference["high"]
        assert difference["absolute_p90"] > 0
        assert abs(noise["median"]) < 1e-3
        assert error["after"] < error["before"] + 2e-3


@pytest.mark.parametrize("command", ["evaluate", "compare", "deploy"])
def test_commands_take_it(command: str, report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", str(tmp_path / "again.safetensors")] if command == "deploy" else []
    assert main([command, str(report[0]), "--goals", "3", *options]) == 0
    assert "final error" in capsys.readouterr().out


def test_a_bag_is_judged_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chip.safetensors"
    chip = deployed(load_checkpoint(PANDA), ON_CHIP, ("policy",))
    path.write_bytes(dump_checkpoint(chip.policy, chip.forward_model, chip.config))
    bag = Path(__file__).parents[1] / "data" / "panda_three_goals"
    assert main(["replay", str(bag), "--model", str(path)]) == 0
    assert "forward model" in capsys.readouterr().out


def test_without_rounding_multiplied_out_networks_do_the_same() -> None:
    checkpoint = checkpoint_of(CONFIG)
    full = deployed(checkpoint, Precision(), latent_networks(checkpoint))
    assert latent_networks(checkpoint) == ("policy", "forward_model")
    assert latent_networks(full) == ()
    with torch.no_grad():
        for before, after in ((checkpoint.policy, full.policy), (checkpoint.forward_model, full.forward_model)):
            features = torch.randn(20, 4, before.network.inputs, generator=torch.Generator().manual_seed(1))
            first, second = (
                part.network.unroll(features, part.initial_state(4), part.effective())[0] for part in (before, after)
            )
            assert first.abs().max() > 0.01
            torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-4)


def test_latent_weights_are_multiplied_out_where_that_saves_energy() -> None:
    checkpoint = checkpoint_of(CONFIG)
    episodes = episodes_of(checkpoint, 2)
    # Spikes through a full matrix are accumulates, latent values MACs; mean spikes are MACs either way.
    assert multiply_out_where_it_pays(checkpoint, episodes) == ("policy",)
    full = measure_complexity(deployed(checkpoint, Precision(), ("policy", "forward_model")), episodes)
    latent = measure_complexity(checkpoint, episodes)
    assert full["policy"]["energy_45nm_j"] < 0.7 * latent["policy"]["energy_45nm_j"]
    assert full["forward_model"]["energy_45nm_j"] > latent["forward_model"]["energy_45nm_j"]
    assert full["policy"]["activation_sparsity"] == pytest.approx(latent["policy"]["activation_sparsity"], abs=1e-4)


def test_a_deployed_policy_learns_on_through_a_deployed_model() -> None:
    checkpoint = deployed(checkpoint_of(CONFIG), ON_CHIP)
    policy, model = checkpoint.policy, checkpoint.forward_model
    model.requires_grad_(False)
    episodes = episodes_of(checkpoint)
    observation, action = torch.from_numpy(episodes.observation[:, 9]), torch.from_numpy(episodes.action[:, 8])
    goal = torch.from_numpy(episodes.goal)
    beginning = Beginning(observation, action, goal, policy.initial_state(3), model.initial_state(3))
    imagined = imagine(policy, model, beginning, 5)
    imagined.observation.square().sum().backward()
    gradients = {name: p.grad for name, p in policy.network.named_parameters()}  # type: ignore[attr-defined]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients.values())
    assert any(bool(grad.any()) for grad in gradients.values() if grad is not None)


def test_paired_differences_are_medians_with_their_interval() -> None:
    rng = np.random.default_rng(1)
    reference = rng.exponential(1.0, 400)
    shifted = paired_difference(reference + 0.1 + 0.02 * rng.standard_normal(400), reference)
    assert shifted["low"] < shifted["median"] < shifted["high"]
    assert shifted["median"] == pytest.approx(0.1, abs=0.005)
    assert shifted["high"] - shifted["low"] < 0.01
    assert shifted["absolute_p90"] == pytest.approx(0.1 + 1.28 * 0.02, abs=0.005)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--goals", "1"], "--goals 1 must be at least 2"),
        (["--weight-bits", "1"], "weight_bits = 1"),
        (["--state-bits", "9"], "state_bits = 9"),
        (["--output", str(PLANAR)], "is the checkpoint itself"),
    ],
)
def test_wrong_options_end_in_one_sentence(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", str(PLANAR), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_networks_without_spikes_are_refused() -> None:
    checkpoint = checkpoint_of(replace(CONFIG, policy=MLPConfig(hidden=(8,))))
    with pytest.raises(ConfigError, match="the policy is not spiking"):
        deployed(checkpoint, ON_CHIP)
