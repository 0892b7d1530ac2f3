"""`train --from`: a run starts with the weights of a checkpoint, under another configuration that fits them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spiking_controller.cli import main
from spiking_controller.errors import ConfigError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, build_networks, load_checkpoint, save_checkpoint
from spiking_controller.networks.config import TrainingConfig, config_from_dict, config_to_dict, merged
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.tasks.metrics import reach_metrics
from spiking_controller.training.fine_tuning import check_fits, start_from
from spiking_controller.training.training_run import Progress, TrainingRun

PLANAR = share_path("models", "planar_reach.safetensors")


def ignore(progress: Progress) -> None:
    """A report that nobody reads."""


@pytest.fixture
def trained(small_config: TrainingConfig, tmp_path: Path) -> Checkpoint:
    """A checkpoint with a scale of its own."""
    policy, model = build_networks(replace(small_config, seed=8))
    model.change_scale.fill_(0.125)
    save_checkpoint(tmp_path / "trained.safetensors", policy, model, small_config)
    return load_checkpoint(tmp_path / "trained.safetensors")


def changed(config: TrainingConfig, changes: dict[str, Any]) -> TrainingConfig:
    return config_from_dict(merged(config_to_dict(config), changes), "test")


def test_a_run_starts_with_the_weights_and_the_scale_of_the_checkpoint(
    small_config: TrainingConfig, trained: Checkpoint, tmp_path: Path
) -> None:
    changes = {
        "model_updates": {"first": 0, "per_iteration": 0},
        "policy_updates": {"per_iteration": 0, "learning_rate": 1e-4, "loss": {"rest": 0.5}},
        "task_options": {"action_scale": 0.5},
        "iterations": 1,
    }
    run = TrainingRun(changed(small_config, changes), tmp_path / "run", source=trained)
    run.run(ignore, lambda: False)
    after = load_checkpoint(run.checkpoint)
    for before, now in ((trained.policy, after.policy), (trained.forward_model, after.forward_model)):
        for name, tensor in before.state_dict().items():
            assert torch.equal(now.state_dict()[name], tensor), name
    assert after.metadata["parent"] == trained.metadata["sha256"]
    assert after.metadata["evaluation"]["iteration"] == 1


def test_a_tuned_run_learns_and_resumes_exactly(
    small_config: TrainingConfig, trained: Checkpoint, tmp_path: Path
) -> None:
    TrainingRun(small_config, tmp_path / "whole", source=trained).run(ignore, lambda: False)
    stops = iter([False, False, True])
    TrainingRun(small_config, tmp_path / "parts", source=trained).run(ignore, lambda: next(stops))
    TrainingRun(small_config, tmp_path / "parts", resume=True).run(ignore, lambda: False)
    whole, parts = (load_checkpoint(tmp_path / name / "planar_reach.safetensors") for name in ("whole", "parts"))
    assert whole.metadata["parent"] == parts.metadata["parent"] == trained.metadata["sha256"]
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(parts.policy.state_dict()[name], tensor), name
    assert any(
        not torch.equal(tensor, trained.policy.state_dict()[name]) for name, tensor in whole.policy.state_dict().items()
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "panda_reach"}, "arm is 'planar_arm', but the run's configuration has 'panda'"),
        ({"predicts": "everything"}, "predicts is 'velocities', but the run's configuration has 'everything'"),
        ({"features": {"target_gains": [2.0]}}, r"features.target_gains is \[2.0, 10.0, 40.0\], .* has \[2.0\]"),
        ({"policy": {"hidden": [16]}}, r"policy.hidden is \[16, 12\], but the run's configuration has \[16\]"),
        ({"policy": {"architecture": "mlp"}}, "policy.architecture is 'spiking', .* has 'mlp'"),
        ({"policy": {"neuron": "lif"}}, "policy.neuron is 'adaptive_lif', .* has 'lif'"),
        ({"policy": {"rank": 3}}, "policy.rank is 4, .* has 3"),
        ({"forward_model": {"recurrence": "tick"}}, "forward_model.recurrence is 'step', .* has 'tick'"),
        ({"forward_model": {"time_constants": "per_layer"}}, "time_constants is 'per_neuron', .* has 'per_layer'"),
    ],
)
def test_what_the_weights_do_not_fit_is_refused_with_both_values(
    small_config: TrainingConfig, trained: Checkpoint, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TrainingRun(changed(small_config, changes), tmp_path / "run", source=trained)
    assert not (tmp_path / "run").exists()


def test_what_does_not_change_the_weights_may_differ(small_config: TrainingConfig, trained: Checkpoint) -> None:
    network = {"ticks": 8, "tick": 0.0025, "surrogate": "superspike", "output_gain": 2.0, "threshold_floor": -5.0}
    check_fits(trained, changed(small_config, {"seed": 5, "policy": network, "task_options": {"damping_scale": 0.5}}))


def test_networks_go_on_working_with_ticks_of_another_length() -> None:
    checkpoint = load_checkpoint(PLANAR)
    task = checkpoint.task
    assert isinstance(checkpoint.config.policy, NetworkConfig)

    def median_error(ticks: int) -> float:
        network = replace(checkpoint.config.policy, ticks=ticks, tick=task.control_period / ticks)
        config = replace(checkpoint.config, policy=network)
        policy, model = build_networks(config)
        start_from(checkpoint, config, policy, model)
        episodes = run_episodes(ReachVectorEnv(task, 24), SpikingAgent(policy), seed=1)
        return float(np.median(reach_metrics(episodes, task)["final_error_m"]))

    assert median_error(4) < 0.004
    assert median_error(16) < 0.01


def test_converted_weights_keep_the_mean_current_of_constant_features_and_rates() -> None:
    """One neuron in each of two layers, whose time constants are short beside the longer ticks."""
    config = NetworkConfig(hidden=(1, 1), neuron="lif", ticks=2, tick=0.01, tau_synaptic=0.004)
    coarse = SpikingNetwork(config, 1, 1, seed=1, backend="torch")
    fine = SpikingNetwork(replace(config, ticks=8, tick=0.0025), 1, 1, seed=2, backend="torch")
    with torch.no_grad():
        coarse.input_weight.fill_(20.0)  # Fires in every tick.
    fine.load_state_dict(coarse.state_dict())
    fine.convert_ticks(config.tick)
    currents, weights_per_second = [], []
    for network in (coarse, fine):
        with torch.no_grad():
            effective, state = network.effective(), network.initial_state(1)
            for _ in range(20):
                _, state, spikes = network.step(torch.ones(1, 1), state, effective)
            from_bias = float(network.bias[1] / (1.0 - effective.decays[1].synaptic))
        first, second = (layer.neurons.synaptic_current.item() for layer in state.layers)
        rate = float(spikes[0].mean()) / network.config.tick
        currents.append(first)
        weights_per_second.append((second - from_bias) / rate)
    assert currents[1] == pytest.approx(currents[0], rel=1e-5)
    assert weights_per_second[1] == pytest.approx(weights_per_second[0], rel=1e-5)


def test_ticks_of_the_same_length_change_no_weight(trained: Checkpoint) -> None:
    policy, model = build_networks(trained.config)
    start_from(trained, trained.config, policy, model)
    for name, tensor in trained.policy.state_dict().items():
        assert torch.equal(policy.state_dict()[name], tensor), name


def test_the_command_takes_the_checkpoints_own_configuration(
    trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "planar_reach", "--from", trained.source, "--one-process", "--seed", "4"]
    assert main(arguments) == 0
    tuned = load_checkpoint(tmp_path / "runs" / "planar_reach-tuned-seed4" / "planar_reach.safetensors")
    assert tuned.config == replace(trained.config, seed=4)
    assert tuned.metadata["parent"] == trained.metadata["sha256"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["planar_reach", "--from", str(PLANAR), "--resume"], "--from counts only at the start of a run"),
        (["panda_reach", "--from", str(PLANAR)], "is a configuration for task 'planar_reach'"),
        (["panda_reach", "--from", str(PLANAR), "--config", "panda_reach"], "arm is 'planar_arm'"),
        (["planar_reach", "--from", "nowhere.safetensors"], "nowhere.safetensors: there is no such checkpoint"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
