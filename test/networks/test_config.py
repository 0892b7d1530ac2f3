"""Training configurations: the shipped ones load, and a wrong key or value is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.networks.config import config_from_dict, config_to_dict, load_config
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig


@pytest.mark.parametrize("task", ["panda_reach", "planar_reach"])
def test_the_shipped_configurations_load(task: str) -> None:
    config = load_config(share_path("config", "train", f"{task}.yaml"))
    assert config.task == task
    assert isinstance(config.forward_model, NetworkConfig)
    assert isinstance(config.policy, NetworkConfig)
    assert config.forward_model.recurrence == "step"
    assert config.policy.recurrence == "none"


def test_the_configuration_for_chips_changes_reset_and_delay_of_the_policy_alone() -> None:
    plain, chip = (
        load_config(share_path("config", "train", f"{name}.yaml")) for name in ("planar_reach", "planar_reach_chip")
    )
    assert isinstance(plain.policy, NetworkConfig)
    assert replace(plain, policy=replace(plain.policy, reset="zero", delay=1)) == chip


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: panda_reach\nlearning_rat: 1", "unknown configuration key 'learning_rat'"),
        ("task: panda_reach\npolicy: {hiden: [3]}", "unknown configuration key 'hiden'"),
        ("task: panda_reach\niterations: many", "iterations"),
        ("task: panda_reach\niterations: 0", "iterations = 0 must be at least 1"),
        ("task: panda_reach\npolicy: {neuron: izhikevich}", "neuron"),
        ("task: panda_reach\npolicy: {surrogate: boxcar}", "surrogate 'boxcar' is unknown"),
        ("task: panda_reach\npolicy: {threshold_floor: 2}", "threshold_floor = 2.0 must be finite and below 1"),
        ("task: panda_reach\npolicy: {architecture: lstm}", "architecture 'lstm' is unknown; choose one of: spiking"),
        ("task: panda_reach\npolicy: {architecture: mlp, hiden: [3]}", "unknown configuration key 'hiden'"),
        ("task: panda_reach\npolicy: {rank: many}", "policy.rank"),
        ("task: panda_reach\npolicy: {ticks: 5}", "must equal the control period"),
        ("task: panda_reach\npolicy: {recurrence: true}", "recurrence"),
        ("task: panda_reach\npolicy: {time_constants: learned}", "time_constants"),
        ("task: panda_reach\npolicy: {initialisation: zero}", "initialisation"),
        ("task: panda_reach\nfeatures: {velocity: false}", "set predicts to angles or everything"),
        ("task: panda_reach\nfeatures: {target_gains: [2, -1]}", "target_gains holds -1"),
        ("task: panda_reach\nfeatures: {speed: false}", "unknown configuration key 'speed'"),
        ("task: panda_reach\ntask_options: {damping_scale: -0.5}", "damping_scale is -0.5"),
        ("task: panda_reach\ntask_options: {gravity_convention: none}", "give one of compensated, raw"),
        ("task: panda_reach\nmodel_updates: {weight_decay: -1}", "model_updates: weight_decay = -1"),
        ("task: panda_reach\npolicy_updates: {weight_decay: .inf}", "policy_updates: weight_decay = inf"),
        ("task: panda_reach\npolicy_updates: {loss: {smoothness_start: 0}}", "smoothness_start = 0.* must both be"),
        ("task: panda_reach\ndiagnosis: {patience: 0}", "diagnosis: patience = 0 must be at least 1"),
        ("task: panda_reach\ndiagnosis: {silent_share: 0}", "silent_share = 0.* must lie in"),
        ("task: panda_reach\ndiagnosis: {gradient_factor: -1}", "gradient_factor = -1.* must be above 0"),
        ("task: panda_reach\ndiagnosis: {not_finite: ignore}", "not_finite"),
        ("task: panda_reach\npolicy_updates: {activity: {lower: -1}}", "lower = -1.0 of an activity regulariser"),
        ("task: juggling", "no task 'juggling'"),
        ("- a\n- b", "must hold a mapping"),
        ("task: [", "not valid YAML"),
        ("seed: 1", "task"),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "run.yaml", text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_configuration_says_only_where_it_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    written(tmp_path / "first.yaml", "task: planar_reach\nseed: 3\npolicy: {hidden: [9, 9], rank: 4, rate: 30}")
    written(tmp_path / "folder" / "second.yaml", "base: ../first.yaml\nseed: 4\npolicy: {hidden: [7]}")
    third = written(tmp_path / "folder" / "third.yaml", "base: second.yaml\npolicy: {rank: 2}")
    config = load_config(third)
    assert (config.task, config.seed) == ("planar_reach", 4)
    assert isinstance(config.policy, NetworkConfig)
    assert (config.policy.hidden, config.policy.rank, config.policy.rate) == ((7,), 2, 30.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml", "base 'nowhere.yaml' is not there; give a file name relative to"),
        ("base: 3", "base is 3; give the name of another configuration file"),
        ("base: run.yaml", "base 'run.yaml' leads back to itself"),
        ("base: between.yaml", "base 'run.yaml' leads back to itself"),
        ("base: whole.yaml\nsed: 1", "unknown configuration key 'sed'"),
    ],
)
def test_a_wrong_base_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    written(tmp_path / "between.yaml", "base: run.yaml")
    written(tmp_path / "whole.yaml", "task: planar_reach")
    path = written(tmp_path / "run.yaml", text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(tmp_path) in str(error.value)


def test_a_saved_configuration_reads_back_and_leaves_out_what_is_not_set() -> None:
    config = load_config(share_path("config", "train", "panda_reach.yaml"))
    plain = config_to_dict(config)
    assert config_from_dict(plain, "test") == config
    assert plain["policy"]["architecture"] == "spiking"
    assert "threshold_floor" not in plain["policy"]
    assert isinstance(config.policy, NetworkConfig)
    bounded = replace(config, policy=replace(config.policy, threshold_floor=0.5))
    assert config_to_dict(bounded)["policy"]["threshold_floor"] == 0.5
    assert config_from_dict(config_to_dict(bounded), "test") == bounded
