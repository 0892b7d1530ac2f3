"""The baselines fit where the spiking networks do: state, gradients, checkpoints, training, control without spikes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError, ModelContractError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.baselines import GRUConfig, GRUNetwork, MLPConfig, MLPNetwork
from spiking_controller.networks.checkpoint import (
    build_networks,
    check_same_contract,
    load_checkpoint,
    save_checkpoint,
)
from spiking_controller.networks.config import (
    TrainingConfig,
    config_from_dict,
    config_to_dict,
    load_config,
    merged,
)
from spiking_controller.networks.features import AnyNetworkConfig, ControlNetwork, architecture_of, build_network
from spiking_controller.resources import share_path
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.training.training_run import TrainingRun

ARCHITECTURES = ["gru", "mlp"]
FILES = [f"{task}_{architecture}" for task in ("panda_reach", "planar_reach") for architecture in ARCHITECTURES]


def with_baselines(config: TrainingConfig, model: str, policy: str) -> TrainingConfig:
    changes = {"forward_model": {"architecture": model}, "policy": {"architecture": policy}}
    return config_from_dict(merged(config_to_dict(config), changes), "test")


def unroll(network: ControlNetwork, sequence: Tensor) -> Tensor:
    state, outputs = network.initial_state(sequence.shape[1]), []
    for features in sequence:
        output, state, _ = network.step(features, state, None)
        outputs.append(output)
    return torch.stack(outputs)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_gru_carries_its_state_and_an_mlp_has_none() -> None:
    now = noise(1, 2, 5)
    past, other_past = 3.0 * noise(10, 2, 5), -3.0 * noise(10, 2, 5)
    gru = GRUNetwork(GRUConfig(hidden=(8, 6)), 5, 3, seed=1)
    mlp = MLPNetwork(MLPConfig(hidden=(8, 6)), 5, 3, seed=1)
    with torch.no_grad():
        after = [
            unroll(network, torch.cat((history, now)))[-1] for network in (gru, mlp) for history in (past, other_past)
        ]
    assert not torch.allclose(after[0], after[1], atol=1e-3)
    assert torch.equal(after[2], after[3])


def test_a_gru_step_equals_pytorch_own_gru_over_a_sequence() -> None:
    network = GRUNetwork(GRUConfig(hidden=(8, 8)), 5, 3, seed=1)
    reference = torch.nn.GRU(5, 8, num_layers=2)
    with torch.no_grad():
        for index, cell in enumerate(network.cells):
            for name, parameter in cell.named_parameters():
                getattr(reference, f"{name}_l{index}").copy_(parameter)
        sequence = noise(12, 4, 5)
        expected = network.readout(reference(sequence)[0])
        torch.testing.assert_close(unroll(network, sequence), expected)


def test_the_gradient_of_a_late_output_reaches_the_first_features_through_the_state() -> None:
    network = GRUNetwork(GRUConfig(hidden=(8,)), 5, 3, seed=1)
    sequence = noise(6, 2, 5).requires_grad_()
    unroll(network, sequence)[-1].square().sum().backward()
    assert sequence.grad is not None
    assert float(sequence.grad[0].abs().max()) > 0
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in network.parameters())


def test_a_detached_state_has_no_history() -> None:
    network = GRUNetwork(GRUConfig(hidden=(8,)), 5, 3, seed=1)
    features = noise(2, 5).requires_grad_()
    _, state, _ = network.step(features, network.initial_state(2), None)
    assert state.hidden[0].requires_grad
    assert not state.detach().hidden[0].requires_grad
    assert torch.equal(state.detach().hidden[0], state.hidden[0])


@pytest.mark.parametrize("config", [GRUConfig(hidden=(4,)), MLPConfig(hidden=(4,))])
def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone(config: AnyNetworkConfig) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (build_network(config, 3, 2, seed, "torch") for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = []
    for network in (first, again, other):
        assert isinstance(network, nn.Module)
        weights.append(torch.cat([p.reshape(-1) for p in network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_configuration_chooses_the_network(small_config: TrainingConfig) -> None:
    policy, model = build_networks(with_baselines(small_config, "gru", "mlp"))
    assert isinstance(policy.network, MLPNetwork)
    assert isinstance(model.network, GRUNetwork)
    policy, model = build_networks(small_config)
    assert isinstance(policy.network, SpikingNetwork)
    assert isinstance(model.network, SpikingNetwork)
    with pytest.raises(ConfigError, match="architecture 'lstm' is unknown; choose one of: spiking, gru, mlp"):
        with_baselines(small_config, "lstm", "mlp")


def test_a_baseline_ignores_keys_of_spiking_networks_but_no_unknown_ones() -> None:
    values = {"task": "planar_reach", "policy": {"architecture": "mlp", "hidden": [8], "rank": 4, "recurrence": "step"}}
    config = config_from_dict(values, "test")
    assert config.policy == MLPConfig(hidden=(8,))
    assert config_to_dict(config)["policy"] == {"architecture": "mlp", "hidden": [8], "ticks": 4, "tick": 0.005}
    with pytest.raises(ConfigError, match="unknown configuration key 'rnak'"):
        config_from_dict(merged(values, {"policy": {"rnak": 4}}), "test")


@pytest.mark.parametrize(("changes", "message"), [({"hidden": ()}, "at least one layer"), ({"ticks": 0}, "ticks = 0")])
def test_a_wrong_size_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MLPConfig(**changes)


def test_a_checkpoint_that_holds_keys_of_spiking_networks_for_a_baseline_loads(
    small_config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a baseline had the configuration of a spiking network."""
    config = with_baselines(small_config, "gru", "mlp")
    spiking = config_to_dict(small_config)
    old = merged(spiking, {"forward_model": {"architecture": "gru"}, "policy": {"architecture": "mlp"}})
    path = tmp_path / "old.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("spiking_controller.networks.checkpoint.config_to_dict", lambda _: old)
        save_checkpoint(path, *build_networks(config), config)
    assert load_checkpoint(path).config == config


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_a_checkpoint_of_baselines_comes_back_and_acts_without_spikes(
    model: str, small_config: TrainingConfig, tmp_path: Path
) -> None:
    config = with_baselines(small_config, model, "mlp")
    policy, forward_model = build_networks(config)
    save_checkpoint(tmp_path / "baseline.safetensors", policy, forward_model, config)
    loaded = load_checkpoint(tmp_path / "baseline.safetensors")
    assert loaded.config == config
    agents = [SpikingAgent(policy, forward_model), SpikingAgent(loaded.policy, loaded.forward_model)]
    rng = np.random.default_rng(1)
    for _ in range(5):
        observation, goal = rng.normal(size=(2, 1, 6)) * 0.3, rng.normal(size=(2, 1, 2)) * 0.3
        actions = [agent.act(observation[0], goal[0]) for agent in agents]
        np.testing.assert_array_equal(actions[0], actions[1])
        predictions = [agent.predict(observation[0]) for agent in agents]
        np.testing.assert_array_equal(predictions[0], predictions[1])
        assert agents[0].spikes == {}


def test_networks_of_another_architecture_do_not_take_over(small_config: TrainingConfig, tmp_path: Path) -> None:
    loaded = []
    for architecture in ("spiking", "mlp"):
        config = with_baselines(small_config, architecture, architecture)
        path = tmp_path / f"{architecture}.safetensors"
        save_checkpoint(path, *build_networks(config), config)
        loaded.append(load_checkpoint(path).contract)
    with pytest.raises(ModelContractError, match=r"network is .*'policy': 'mlp'"):
        check_same_contract(loaded[1], loaded[0], "update")


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_the_same_training_teaches_them(model: str, small_config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(with_baselines(small_config, model, "mlp"), iterations=2)
    before = [p.clone() for network in build_networks(config) for p in network.parameters()]
    run = TrainingRun(config, tmp_path / "run")
    run.run(lambda progress: None, lambda: False)
    checkpoint = load_checkpoint(run.checkpoint)
    after = [p for network in (checkpoint.policy, checkpoint.forward_model) for p in network.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert checkpoint.metadata["evaluation"]["final_error_m_median"] > 0
    assert TrainingRun(config, tmp_path / "run", resume=True).iteration == 2


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_baseline_differs_from_the_spiking_configuration_in_nothing_but_the_networks(name: str) -> None:
    task, architecture = name.rsplit("_", 1)
    spiking = load_config(share_path("config", "train", f"{task}.yaml"))
    baseline = load_config(share_path("config", "train", f"{name}.yaml"))
    assert architecture_of(baseline.forward_model) == architecture
    assert architecture_of(baseline.policy) == "mlp"
    assert baseline.policy.hidden == spiking.policy.hidden
    assert set(baseline.forward_model.hidden) == set(spiking.forward_model.hidden)
    assert replace(baseline, forward_model=spiking.forward_model, policy=spiking.policy) == spiking
