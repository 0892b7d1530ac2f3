"""Figures of rest: right on policies, models and episodes made by hand, sensible for the shipped planar networks."""

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import build_networks, load_checkpoint
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.policy import Policy
from spiking_controller.networks.rest import firing_rates, frozen_metrics, rest_errors, rest_metrics
from spiking_controller.resources import share_path
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import get_task

TASK = get_task("planar_reach")
STEPS = TASK.steps_per_episode
TICKS, NEURONS = 4, (3, 5)


class PlayedPolicy:
    """Plays actions [steps, 2] back, whatever it sees; every neuron fires in every tick while the goal is far away."""

    network = SimpleNamespace(config=SimpleNamespace(hidden=NEURONS))

    def __init__(self, actions: np.ndarray) -> None:
        self._actions = torch.from_numpy(actions.astype(np.float32))

    def for_inference(self) -> None:
        """Nothing."""

    def initial_state(self, batch: int) -> int:
        return 0

    def step(
        self, observation: Tensor, previous: Tensor, goal: Tensor, state: int, effective: None
    ) -> tuple[Tensor, Tensor, int, tuple[Tensor, ...]]:
        action = self._actions[state].expand(len(goal), -1)
        far = ((goal - observation[:, 4:]).norm(dim=1) > 0.05).float()
        layers = tuple(far[None, :, None].expand(TICKS, -1, neurons) for neurons in NEURONS)
        return action, action, state + 1, layers


def played(actions: np.ndarray) -> Policy:
    return cast(Policy, PlayedPolicy(actions))


def episodes_of(position: np.ndarray, velocity: np.ndarray, goal: np.ndarray) -> Episodes:
    """Episodes of two-joint positions and velocities [B, T + 1, 2] towards goals [B, 2]."""
    hand = TASK.arm.chain.position(position.reshape(-1, 2)).reshape(*position.shape[:2], 3)
    batch, steps = len(position), position.shape[1] - 1
    return Episodes(
        observation=ObservationCodec(TASK).encode(position, velocity, hand).astype(np.float32),
        action=np.zeros((batch, steps, 2), np.float32),
        goal=goal.astype(np.float32),
        distance=np.linalg.norm(hand[..., :2] - goal[:, None], axis=-1),
        torque=np.zeros((batch, steps, 2), np.float32),
        torque_rate=np.zeros((batch, steps), np.float32),
        intervened=np.zeros((batch, steps), np.float32),
        valid_steps=np.full(batch, steps),
    )


def settling_episodes() -> Episodes:
    """Two arms that swing to their goals as exp(-t / 0.3 s); the velocity is the exact one."""
    time = TASK.control_period * np.arange(STEPS + 1)[:, None]
    end = np.array([[0.3, 0.8], [-0.5, 1.2]])
    away = np.array([[0.6, -0.4], [0.2, 0.3]])
    decay = np.exp(-time / 0.3)
    goal = TASK.arm.chain.position(end)[:, :2]
    return episodes_of(end[:, None] + away[:, None] * decay, -away[:, None] * decay / 0.3, goal)


def test_a_steady_action_has_no_noise_and_a_swinging_one_that_of_its_swing() -> None:
    actions = np.zeros((300, 2))
    actions[:, 1] = 0.4
    assert frozen_metrics(played(actions), TASK)["rest_action_noise"] == 0.0
    actions[:, 0] = 0.1 * (-1.0) ** np.arange(300)
    assert frozen_metrics(played(actions), TASK)["rest_action_noise"] == pytest.approx(0.1 / math.sqrt(2))
    actions[100:, 0] = 0.0
    assert frozen_metrics(played(actions), TASK)["rest_action_noise"] == 0.0


def test_a_network_that_fires_is_noisy_and_a_silent_one_is_not(small_config: TrainingConfig) -> None:
    policy, _ = build_networks(small_config)
    assert isinstance(policy.network, SpikingNetwork)
    firing = frozen_metrics(policy, TASK)
    noise, rate = firing["rest_action_noise"], firing["frozen_rate_hz"]
    assert noise is not None
    assert rate is not None
    assert noise > 1e-4
    assert 1.0 < rate < 250.0
    with torch.no_grad():
        policy.network.input_weight.zero_()
        for bias in policy.network.bias:
            bias.fill_(-1e3)
    assert frozen_metrics(policy, TASK) == {"rest_action_noise": 0.0, "frozen_rate_hz": 0.0}


def test_rates_count_spikes_per_neuron_and_second_at_rest_and_on_the_way() -> None:
    episodes = settling_episodes()
    rates = firing_rates(played(np.zeros((STEPS, 2))), episodes, TASK)
    assert rates == {"rest_rate_hz": 0.0, "moving_rate_hz": pytest.approx(TICKS / TASK.control_period)}


def test_an_arm_that_does_not_hold_its_goal_has_no_rate_at_rest() -> None:
    episodes = settling_episodes()
    episodes.distance[:, STEPS - 30] = 0.021
    assert firing_rates(played(np.zeros((STEPS, 2))), episodes, TASK)["rest_rate_hz"] is None


def test_a_perfect_model_has_the_ratio_0_and_persistence_1() -> None:
    episodes = settling_episodes()
    perfect = rest_errors(episodes.observation[:, 1:], episodes, TASK)
    assert perfect["model_rest_error_ratio"] == 0.0
    assert perfect["model_rest_bias_rad_s"] == 0.0
    persistence = rest_errors(episodes.observation[:, :-1], episodes, TASK)
    assert persistence["model_rest_error_ratio"] == pytest.approx(1.0)
    assert persistence["model_rest_error_rad_s"] == persistence["model_rest_change_rad_s"]


def test_a_bias_that_differs_from_episode_to_episode_does_not_cancel() -> None:
    episodes = settling_episodes()
    predicted = episodes.observation[:, 1:].copy()
    predicted[:, :, 2:4] += (np.array([[[0.003]], [[-0.003]]]) / TASK.velocity_scale).astype(np.float32)
    errors = rest_errors(predicted, episodes, TASK)
    assert errors["model_rest_bias_rad_s"] == pytest.approx(0.003, rel=1e-3)
    assert errors["model_rest_error_rad_s"] == pytest.approx(0.003, rel=1e-3)


def test_a_still_arm_and_a_distant_one_say_nothing_about_the_model() -> None:
    still = episodes_of(np.zeros((1, STEPS + 1, 2)) + 0.5, np.zeros((1, STEPS + 1, 2)), np.array([[0.3, 0.3]]))
    still.distance[:] = 0.0
    assert set(rest_errors(still.observation[:, 1:] + 1.0, still, TASK).values()) == {None}
    distant = settling_episodes()
    distant.distance[:] = 0.1
    assert set(rest_errors(distant.observation[:, 1:], distant, TASK).values()) == {None}


def test_the_shipped_planar_networks_follow_their_own_episodes() -> None:
    checkpoint = load_checkpoint(share_path("models", "planar_reach.safetensors"))
    policy, model = checkpoint.policy, checkpoint.forward_model
    episodes = run_episodes(ReachVectorEnv(checkpoint.task, 12), SpikingAgent(policy), seed=5)
    metrics = rest_metrics(policy, model, episodes, checkpoint.task)
    numbers = {name: value for name, value in metrics.items() if value is not None}
    assert numbers.keys() == metrics.keys()
    assert 0.0 <= numbers["rest_action_noise"] < 0.001
    assert 0.0 < numbers["rest_rate_hz"] < numbers["moving_rate_hz"] < 200.0
    assert numbers["model_rest_error_ratio"] < 1.0
    assert numbers["model_rest_bias_rad_s"] < numbers["model_rest_error_rad_s"]
    with torch.no_grad():
        model.change_scale.zero_()
    silenced = rest_metrics(policy, model, episodes, checkpoint.task)
    assert silenced["model_rest_error_ratio"] == pytest.approx(1.0)
