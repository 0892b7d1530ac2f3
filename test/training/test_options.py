"""The options of a run: each changes what it says; all of them go through training, checkpoints and online learning."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from spiking_controller.networks.agent import ExploringAgent
from spiking_controller.networks.checkpoint import (
    Contract,
    build_networks,
    dump_checkpoint,
    load_checkpoint,
    parse_checkpoint,
)
from spiking_controller.networks.config import TaskOptions, TrainingConfig, load_config
from spiking_controller.networks.features import Features
from spiking_controller.online.experience import Experience, ExperienceSettings
from spiking_controller.online.learner import OnlineLearner, OnlineSettings
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.regularisers import ActivityRegulariser
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.segments import Segment
from spiking_controller.training.losses import forward_model_loss
from spiking_controller.training.replay_memory import ReplayMemory
from spiking_controller.training.training_run import TrainingRun
from spiking_controller.training.updates import Updater

BLIND = Features(velocity=False, trigonometric=False, previous_action=False, target_gains=())


@pytest.fixture
def unusual_config(small_config: TrainingConfig) -> TrainingConfig:
    """A run in which no option has its default."""
    model, policy = small_config.forward_model, small_config.policy
    assert isinstance(model, NetworkConfig)
    assert isinstance(policy, NetworkConfig)
    return replace(
        small_config,
        predicts="everything",
        features=BLIND,
        task_options=TaskOptions(action_scale=0.8, damping_scale=0.5, gravity_convention="raw", delay_steps=0),
        forward_model=replace(
            model, recurrence="tick", time_constants="per_layer", initialisation="kaiming", surrogate="gaussian"
        ),
        policy=replace(
            policy,
            recurrence="step",
            rank=0,
            time_constants="fixed",
            initialisation="uniform",
            surrogate="superspike",
            neuron="lif",
            ticks=5,
            tick=0.004,
        ),
        model_updates=replace(small_config.model_updates, weight_decay=0.01),
        policy_updates=replace(small_config.policy_updates, weight_decay=0.02),
    )


def random_episodes(config: TrainingConfig, count: int = 8) -> Episodes:
    env = ReachVectorEnv(config.reach_task, count, threads=1)
    joints = config.reach_task.controlled_joints
    return run_episodes(env, ExploringAgent(None, joints, 0.4, 0.9, np.random.default_rng(5)), seed=5)


def memory_of(config: TrainingConfig) -> ReplayMemory:
    task = config.reach_task
    memory = ReplayMemory(
        8, task.steps_per_episode, ObservationCodec(task).size, task.controlled_joints, task.goal_dimensions
    )
    memory.add(random_episodes(config))
    return memory


def updater_of(config: TrainingConfig) -> Updater:
    policy, model = build_networks(config)
    return Updater(config, policy, model, np.zeros((10, config.reach_task.goal_dimensions)))


def observations(config: TrainingConfig, batch: int = 4) -> torch.Tensor:
    size = ObservationCodec(config.reach_task).size
    return 0.5 * torch.randn(batch, size, generator=torch.Generator().manual_seed(1))


def test_networks_that_see_no_velocities_do_not_depend_on_them(small_config: TrainingConfig) -> None:
    joints = small_config.reach_task.controlled_joints
    observation = observations(small_config)
    faster = observation.clone()
    faster[:, joints : 2 * joints] += 1.0
    action, goal = torch.full((4, joints), 0.3), torch.full((4, 2), 0.2)
    for features, alike in ((Features(velocity=False), True), (Features(), False)):
        policy, model = build_networks(replace(small_config, predicts="everything", features=features))
        for one, other in (
            (policy.inputs(observation, action, goal), policy.inputs(faster, action, goal)),
            (model.inputs(observation, action, action), model.inputs(faster, action, action)),
        ):
            assert torch.equal(one, other) is alike
        seen = joints if alike else 2 * joints
        assert model.network.outputs == seen + 2
        assert model.target(observation, faster).shape == (4, seen + 2)


def test_without_velocities_the_model_learns_and_predicts_angles_and_hand(small_config: TrainingConfig) -> None:
    config = replace(small_config, predicts="everything", features=Features(velocity=False))
    _, model = build_networks(config)
    task, joints = config.reach_task, config.reach_task.controlled_joints
    codec = ObservationCodec(task)
    recorded = observations(config, 200)
    following = recorded + 0.01 * torch.randn(recorded.shape, generator=torch.Generator().manual_seed(2))
    model.fit_scale(recorded, following)
    target = model.target(recorded, following)
    torch.testing.assert_close(target.std(0), torch.ones(joints + 2))
    predicted = model.advance(recorded, target)
    torch.testing.assert_close(predicted[:, :joints], following[:, :joints])
    torch.testing.assert_close(predicted[:, 2 * joints :], following[:, 2 * joints :])
    turned = codec.joint_position(predicted.numpy()) - codec.joint_position(recorded.numpy())
    np.testing.assert_allclose(codec.joint_velocity(predicted.numpy()), turned / task.control_period, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "policy_loses", "model_loses"),
    [
        ({"trigonometric": False}, 4, 4),
        ({"previous_action": False}, 2, 2),
        ({"target_gains": (10.0,)}, 4, 0),
        ({"target_gains": ()}, 6, 0),
    ],
)
def test_a_feature_that_is_switched_off_is_gone_from_the_inputs(
    small_config: TrainingConfig, change: dict[str, object], policy_loses: int, model_loses: int
) -> None:
    full_policy, full_model = build_networks(small_config)
    policy, model = build_networks(replace(small_config, features=replace(Features(), **change)))  # type: ignore[arg-type]
    assert full_policy.network.inputs - policy.network.inputs == policy_loses
    assert full_model.network.inputs - model.network.inputs == model_loses
    observation, zeros = observations(small_config), torch.zeros(4, 2)
    assert policy.inputs(observation, zeros, zeros).shape == (4, policy.network.inputs)
    assert model.inputs(observation, zeros, zeros).shape == (4, model.network.inputs)
    sees_previous = not torch.equal(
        policy.inputs(observation, zeros + 1, zeros), policy.inputs(observation, zeros, zeros)
    )
    assert sees_previous is change.get("previous_action", True)


def test_without_weight_decay_an_update_is_one_of_adam(small_config: TrainingConfig) -> None:
    memory = memory_of(small_config)
    updater = updater_of(small_config)
    _, model = build_networks(small_config)
    slow = [p for name, p in model.named_parameters() if "log_tau" in name]
    fast = [p for name, p in model.named_parameters() if "log_tau" not in name]
    adam = torch.optim.Adam(
        [
            {"params": fast, "lr": small_config.model_updates.learning_rate},
            {"params": slow, "lr": small_config.time_constant_learning_rate},
        ],
        fused=True,
    )
    rng, same_rng = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(3):
        updater.update_model(memory, rng, 0.0)
        windows = memory.windows(same_rng, 8, 5)
        adam.zero_grad()
        forward_model_loss(model, windows, 2, "squared", ActivityRegulariser()).total.backward()
        torch.nn.utils.clip_grad_norm_([*fast, *slow], small_config.gradient_norm)
        adam.step()
        model.network.limit_time_constants()
    for name, parameter in model.named_parameters():
        assert torch.equal(updater.model.get_parameter(name), parameter), name


def test_weight_decay_shrinks_weights_but_no_biases_gains_or_time_constants(small_config: TrainingConfig) -> None:
    memory = memory_of(small_config)
    decayed_config = replace(
        small_config,
        model_updates=replace(small_config.model_updates, weight_decay=0.5),
        policy_updates=replace(small_config.policy_updates, weight_decay=0.25),
    )
    plain, decayed, fresh = updater_of(small_config), updater_of(decayed_config), updater_of(small_config)
    for updater in (plain, decayed):
        updater.update_policy(memory, np.random.default_rng(1), 0.0)
        updater.update_model(memory, np.random.default_rng(1), 0.0)
    for network, rate in (("model", 0.5 * 3e-3), ("policy", 0.25 * 2e-3)):
        for name, start in getattr(fresh, network).named_parameters():
            without, with_decay = (getattr(u, network).get_parameter(name) for u in (plain, decayed))
            if any(part in name for part in ("bias", "gain", "log_tau")):
                assert torch.equal(with_decay, without), name
            else:
                torch.testing.assert_close(without - with_decay, rate * start, rtol=1e-3, atol=1e-7)


def test_fixed_time_constants_stay_and_shared_ones_stay_shared(unusual_config: TrainingConfig, tmp_path: Path) -> None:
    before_policy, before_model = build_networks(unusual_config)
    run = TrainingRun(unusual_config, tmp_path)
    run.run(lambda progress: None, lambda: True)
    loaded = load_checkpoint(run.checkpoint)
    fixed, same = before_policy.network, loaded.policy.network
    shared, learned = before_model.network, loaded.forward_model.network
    assert isinstance(fixed, SpikingNetwork)
    assert isinstance(same, SpikingNetwork)
    assert isinstance(shared, SpikingNetwork)
    assert isinstance(learned, SpikingNetwork)
    for before, after in zip(fixed.log_tau, same.log_tau, strict=True):
        assert torch.equal(before, after)
    assert torch.equal(fixed.readout_log_tau, same.readout_log_tau)
    for before, after in zip(shared.log_tau, learned.log_tau, strict=True):
        assert after.shape == (3, 1)
        assert not torch.equal(before, after)


def test_a_run_with_every_option_resumes_exactly_and_its_checkpoint_goes_round(
    unusual_config: TrainingConfig, tmp_path: Path
) -> None:
    TrainingRun(unusual_config, tmp_path / "whole").run(lambda progress: None, lambda: False)
    stops = iter([False, False, True])
    TrainingRun(unusual_config, tmp_path / "parts").run(lambda progress: None, lambda: next(stops))
    TrainingRun(unusual_config, tmp_path / "parts", resume=True).run(lambda progress: None, lambda: False)
    whole, parts = (load_checkpoint(tmp_path / name / "planar_reach.safetensors") for name in ("whole", "parts"))
    for network in ("policy", "forward_model"):
        for name, tensor in getattr(whole, network).state_dict().items():
            assert torch.equal(getattr(parts, network).state_dict()[name], tensor), name
    assert whole.config == unusual_config
    again = parse_checkpoint(dump_checkpoint(whole.policy, whole.forward_model, whole.config), "again")
    assert again.config == unusual_config
    assert again.contract == Contract.of(unusual_config)


def test_the_task_options_reach_the_arm_and_the_contract(small_config: TrainingConfig) -> None:
    options = TaskOptions(action_scale=1.0, damping_scale=0.0, gravity_convention="raw")
    config = replace(small_config, task="panda_reach", task_options=options)
    task = config.reach_task
    np.testing.assert_array_equal(task.torque_scale, task.arm.limits.torque[:6])
    contract = Contract.of(config)
    assert contract.gravity_convention == "raw"
    assert contract.damping == [0.0] * 6
    assert contract.action_scale == 1.0
    shares = (0.25, 0.25, 0.25, 0.25, 0.5, 0.5)
    of_each = Contract.of(replace(config, task_options=replace(options, action_scale=shares)))
    assert of_each.action_scale == list(shares)
    fall = []
    for each in (task, replace(config, task_options=replace(options, gravity_convention="compensated")).reach_task):
        env = ReachVectorEnv(each, 1)
        env.reset(options={"start": "home"})
        height = env.hand_position[0, 2]
        for _ in range(10):
            env.step(np.zeros((1, 6)))
        fall.append(height - env.hand_position[0, 2])
    assert fall[0] > 0.05
    assert abs(fall[1]) < 1e-3


def test_online_learning_works_with_every_option(unusual_config: TrainingConfig) -> None:
    policy, model = build_networks(unusual_config)
    episodes = random_episodes(unusual_config)
    seen = torch.from_numpy(episodes.observation)
    model.fit_scale(seen[:, :-1].flatten(0, 1), seen[:, 1:].flatten(0, 1))
    checkpoint = parse_checkpoint(dump_checkpoint(policy, model, unusual_config), "untrained")
    settings = OnlineSettings(
        minimum_segments=16,
        minimum_held_back=4,
        model_updates=60,
        policy_updates=2,
        model_learning_rate=1e-1,
        policy_learning_rate=1e-2,
        largest_move=10.0,
    )
    kept = Experience(checkpoint.task, ExperienceSettings(segment_steps=50), np.random.default_rng(0))
    learner = OnlineLearner(checkpoint, kept, settings)
    for row in range(8):
        for start in range(50, 200, 50):
            kept.add(
                Segment(
                    episodes.observation[row, start : start + 51],
                    episodes.action[row, start : start + 50],
                    episodes.action[row, start - 1],
                    episodes.goal[row],
                )
            )
    first = learner.update()
    for _ in range(7):
        last = learner.update()
    assert last.model_loss < first.model_loss
    assert np.isfinite(last.imagined_distance_m)
    assert "prediction error" in learner.propose().reason


def test_the_papers_setting_is_what_it_says_and_trains(tmp_path: Path) -> None:
    path = share_path("config", "train", "panda_reach_paper.yaml")
    config = load_config(path)
    task = config.reach_task
    assert task.name == "panda_reach_paper"
    assert task.gravity_convention == "raw"
    assert task.action_scale == 1.0
    np.testing.assert_array_equal(task.damping, 0.0)
    assert config.predicts == "everything"
    assert config.features == BLIND
    model_network, policy_network = config.forward_model, config.policy
    assert isinstance(model_network, NetworkConfig)
    assert isinstance(policy_network, NetworkConfig)
    assert (model_network.recurrence, model_network.recurrent_layers) == ("tick", "first")
    assert (model_network.readout_leak, policy_network.readout_leak) == ("membrane", "output")
    for network in (model_network, policy_network):
        assert (network.delay, network.rank, network.readout_layers, network.input_gains) == (3, 0, "last", "per_input")
    assert (config.model_updates.targets, config.exploration.first) == ("raw", "policy")
    assert config.policy_updates.loss.distance == 0.0
    assert policy_network.recurrence == "none"
    assert model_network.ticks == policy_network.ticks == 7
    assert model_network.surrogate == policy_network.surrogate == "multi_gaussian"
    _, model = build_networks(config)
    assert model.network.inputs == 6 + 3 + 6
    assert model.network.outputs == 6 + 3

    small = {"hidden": [16, 16]}
    values = yaml.safe_load(path.read_text())
    values.update(iterations=2, random_episodes=4, episodes_per_iteration=2, evaluate_every=2, evaluation_episodes=2)
    values["forward_model"].update(small)
    values["policy"].update(small)
    values["model_updates"].update(first=2, per_iteration=2, batch=4, unroll=5)
    values["policy_updates"].update(per_iteration=2, batch=4, unroll=5)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "spiking_controller.cli", "train", "panda_reach_paper"]
    command += ["--config", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checkpoint = load_checkpoint(tmp_path / "run" / "panda_reach_paper.safetensors")
    np.testing.assert_array_equal(checkpoint.forward_model.change_scale, 1.0)
    assert checkpoint.contract.gravity_convention == "raw"
    assert checkpoint.metadata["evaluation"]["iteration"] == 2


def test_a_shipped_configuration_is_found_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spiking_controller.cli import main

    (tmp_path / "log.csv").touch()
    assert main(["train", "panda_reach", "--config", "panda_reach_gru", "--out", str(tmp_path)]) == 2
    assert "already holds a training run" in capsys.readouterr().err
    assert main(["train", "planar_reach", "--config", "panda_reach_gru", "--out", str(tmp_path)]) == 2
    assert "panda_reach_gru.yaml: is a configuration for task 'panda_reach'" in capsys.readouterr().err
    assert main(["train", "panda_reach", "--config", "nowhere", "--out", str(tmp_path)]) == 2
    assert "nowhere.yaml: cannot be read" in capsys.readouterr().err
