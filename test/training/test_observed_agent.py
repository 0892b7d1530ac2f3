"""Training episodes with the disturbance observer beside the networks, as the live controller has it."""

from dataclasses import replace

import numpy as np
import pytest

from spiking_controller.networks.agent import ExploringAgent, SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, build_networks, load_checkpoint
from spiking_controller.networks.config import TaskOptions, TrainingConfig
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.tasks.disturbances import Hindrance
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes
from spiking_controller.training.collection import InlineCollector, ProcessCollector
from spiking_controller.training.observed_agent import ObservedAgent, Observers

GOALS = np.array([[0.5, -0.3, 0.35], [0.5, -0.3, 0.35]])
HINDRANCES = [Hindrance(ArmCondition()), Hindrance(ArmCondition(payload_mass=2.0))]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "panda_reach.safetensors"))


def episodes(checkpoint: Checkpoint, observed: bool) -> Episodes:
    """Two arms on the way from home to the same goal; the second one has 2 kg in its hand."""
    env = ReachVectorEnv(replace(checkpoint.task, disturbances=0.5), 2)
    networks = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
    exploring = ExploringAgent(networks, 6, 0.0, 0.9, np.random.default_rng(0))
    agent = ObservedAgent(exploring, networks, Observers(env)) if observed else exploring
    return run_episodes(env, agent, start="home", goals=GOALS, hindrances=HINDRANCES, seed=1)


def test_observers_take_a_load_off_and_leave_an_unhindered_arm_alone(checkpoint: Checkpoint) -> None:
    alone, observed = (episodes(checkpoint, observed) for observed in (False, True))
    np.testing.assert_array_equal(observed.torque[0], alone.torque[0])
    np.testing.assert_array_equal(observed.observation[0], alone.observation[0])
    assert alone.distance[1, -1] > 0.03
    assert observed.distance[1, -1] < 0.003
    # The networks are told their own action: at the goal it is small, though the torque carries 2 kg.
    assert np.abs(observed.action[1, -20:]).max() < 0.05
    assert np.abs(observed.torque[1, -1]).max() > 5.0


def test_both_collectors_give_the_same_disturbed_episodes(small_config: TrainingConfig) -> None:
    config = replace(small_config, task_options=TaskOptions(disturbances=1.0))
    networks = build_networks(config)
    collected = []
    for collector in (InlineCollector(config), ProcessCollector(config)):
        try:
            collector.start(*networks, 1)
            collected.append(collector.episodes())
        finally:
            collector.close()
    first, second = collected
    for name in ("observation", "action", "torque", "goal"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    calm = InlineCollector(replace(config, task_options=TaskOptions(disturbances=1e-9)))
    calm.start(*networks, 1)
    np.testing.assert_array_equal(calm.episodes().goal, first.goal)
    assert (calm.episodes().torque != first.torque).any()
