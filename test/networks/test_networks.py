"""Forward model and policy: explicit state, exact kinematics, gradients that agree with finite differences."""

import numpy as np
import pytest
import torch

from spiking_controller.networks.agent import ExploringAgent, SpikingAgent
from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.hand_position import hand_position
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import get_task


@pytest.mark.parametrize("task_name", ["panda_reach", "planar_reach"])
def test_the_kinematics_gradient_equals_finite_differences(task_name: str) -> None:
    task = get_task(task_name)
    m = task.controlled_joints
    held = task.arm.home[m:]
    generator = torch.Generator().manual_seed(1)
    angles = torch.as_tensor(task.position_centre) + 0.8 * torch.as_tensor(task.position_half_range) * (
        2 * torch.rand(5, m, generator=generator, dtype=torch.float64) - 1
    )
    assert torch.autograd.gradcheck(
        lambda q: hand_position(q, task.arm.chain, held), (angles.requires_grad_(),), eps=1e-6, atol=1e-6
    )


def test_two_networks_in_one_process_do_not_share_state(small_config: TrainingConfig) -> None:
    policy, _ = build_networks(small_config)
    codec = ObservationCodec(get_task(small_config.task))
    rng = np.random.default_rng(1)
    observations, goal = rng.normal(size=(30, 1, codec.size)) * 0.3, rng.normal(size=(1, 2)) * 0.3

    undisturbed = SpikingAgent(policy)
    expected = [undisturbed.act(observation, goal) for observation in observations]
    assert np.std(expected) > 0

    agent, other = SpikingAgent(policy), SpikingAgent(policy)
    actual = []
    for index, observation in enumerate(observations):
        actual.append(agent.act(observation, goal))
        other.act(-observation, -goal)
        if index % 7 == 0:
            other.reset(3)
            other.act(np.zeros((3, codec.size)), np.zeros((3, 2)))
            other.reset(1)
    np.testing.assert_array_equal(actual, expected)


def test_reset_makes_an_agent_repeat_itself(small_config: TrainingConfig) -> None:
    agent = SpikingAgent(*build_networks(small_config))
    observation, goal = np.full((2, 6), 0.2), np.full((2, 2), 0.1)

    def run() -> list[np.ndarray]:
        agent.reset(2)
        return [np.concatenate((agent.act(observation, goal), agent.predict(observation)), 1) for _ in range(10)]

    first = run()
    assert not np.array_equal(first[0], first[-1])
    np.testing.assert_array_equal(first, run())


def test_a_batch_of_arms_equals_each_arm_alone(small_config: TrainingConfig) -> None:
    policy, _ = build_networks(small_config)
    rng = np.random.default_rng(2)
    observations, goals = rng.normal(size=(20, 3, 6)) * 0.3, rng.normal(size=(3, 2)) * 0.3
    together = SpikingAgent(policy)
    together.reset(3)
    batch = np.array([together.act(observation, goals) for observation in observations])
    for arm in range(3):
        alone = SpikingAgent(policy)
        single = [alone.act(observation[arm : arm + 1], goals[arm : arm + 1])[0] for observation in observations]
        np.testing.assert_allclose(batch[:, arm], single, atol=1e-5)


def test_spikes_are_reported_layer_by_layer(small_config: TrainingConfig) -> None:
    agent = SpikingAgent(*build_networks(small_config))
    for _ in range(20):
        agent.act(np.full((1, 6), 0.5), np.full((1, 2), 0.5))
        agent.predict(np.full((1, 6), 0.5))
    shapes = {name: spikes.shape for name, spikes in agent.spikes.items()}
    assert shapes == {"policy/hidden1": (4, 16), "policy/hidden2": (4, 12), "forward_model/hidden1": (4, 16)}
    assert sum(int(spikes.sum()) for spikes in agent.spikes.values()) > 0
    assert all(set(np.unique(spikes)) <= {0, 1} for spikes in agent.spikes.values())


@pytest.mark.parametrize("task_name", ["panda_reach", "planar_reach"])
def test_velocity_predictions_integrate_to_consistent_angles_and_hand(task_name: str) -> None:
    task = get_task(task_name)
    codec, m = ObservationCodec(task), task.controlled_joints
    model = ForwardModel(task, NetworkConfig(hidden=(8,), recurrence="step", rank=0), "velocities", seed=1)
    model.change_scale.fill_(0.1)
    q = np.tile(task.arm.home, (4, 1))
    v = np.random.default_rng(3).normal(size=q.shape)
    observation = codec.encode(q, v, task.arm.chain.position(q)).astype(np.float32)
    change = np.random.default_rng(4).normal(size=(4, m)).astype(np.float32)
    with torch.no_grad():
        predicted = model.advance(torch.from_numpy(observation), torch.from_numpy(change)).numpy()
    dv = 0.1 * change * task.velocity_scale
    expected = q.copy()
    expected[:, :m] += task.control_period * (v[:, :m] + dv / 2)
    np.testing.assert_allclose(codec.joint_velocity(predicted), v[:, :m] + dv, atol=1e-5)
    np.testing.assert_allclose(codec.joint_position(predicted), expected[:, :m], atol=1e-5)
    hand = task.arm.chain.position(expected)[:, : task.goal_dimensions]
    np.testing.assert_allclose(codec.hand_position(predicted), hand, atol=1e-5)


def test_the_model_can_predict_everything_as_in_the_paper() -> None:
    task = get_task("planar_reach")
    model = ForwardModel(task, NetworkConfig(hidden=(8,), recurrence="step", rank=0), "everything", seed=1)
    recorded = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    following = recorded + 0.01 * torch.randn(200, 6, generator=torch.Generator().manual_seed(2))
    model.fit_scale(recorded, following)
    target = model.target(recorded, following)
    torch.testing.assert_close(target.std(0), torch.ones(6))
    torch.testing.assert_close(model.advance(recorded, target), following)


def test_exploration_noise_has_the_asked_for_size_and_is_known_to_the_network(small_config: TrainingConfig) -> None:
    noise = ExploringAgent(None, 2, 0.4, 0.9, np.random.default_rng(1))
    noise.reset(500)
    actions = np.array([noise.act(np.zeros((500, 6)), np.zeros((500, 2))) for _ in range(100)])
    assert 0.36 < actions[-1].std() < 0.42
    correlation = np.corrcoef(actions[50].ravel(), actions[51].ravel())[0, 1]
    assert 0.8 < correlation < 0.95

    policy, _ = build_networks(small_config)
    quiet, noisy = SpikingAgent(policy), SpikingAgent(policy)
    exploring = ExploringAgent(noisy, 2, 0.5, 0.9, np.random.default_rng(1))
    exploring.reset(1)
    observation, goal = np.full((1, 6), 0.3), np.full((1, 2), 0.3)
    for _ in range(5):
        quiet.replace_action(exploring.act(observation, goal) * 0 + quiet.act(observation, goal))
    assert not np.array_equal(noisy.act(observation, goal), quiet.act(observation, goal))
