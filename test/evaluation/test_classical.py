"""The classical reference solves both tasks: it reaches, comes to rest, and stays within what the arm may do."""

import numpy as np
import pytest

from spiking_controller.evaluation.classical import ClassicalAgent
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.tasks.metrics import reach_metrics, summarise

TASKS = ["panda_reach", "planar_reach"]


@pytest.mark.parametrize("name", TASKS)
def test_it_reaches_the_goals_from_random_starts_and_rests_there(name: str) -> None:
    env = ReachVectorEnv(name, 24)
    metrics = reach_metrics(run_episodes(env, ClassicalAgent(env.task), seed=0), env.task)
    summary = summarise(metrics)
    assert np.median(metrics["final_error_m"]) < 0.001
    assert np.mean(metrics["final_error_m"] < 0.01) > 0.9
    assert np.median(metrics["rms_final_joint_speed"]) < 0.005
    assert summary["ended_early_share"] == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_it_keeps_within_soft_bounds_speed_and_torque_rate(name: str) -> None:
    env = ReachVectorEnv(name, 24)
    episodes = run_episodes(env, ClassicalAgent(env.task), seed=1)
    m = env.task.controlled_joints
    assert np.abs(episodes.observation[..., :m]).max() < 1.1
    assert np.abs(episodes.observation[..., m : 2 * m]).max() < 1.15
    assert np.abs(episodes.action).max() <= 1.0
    assert episodes.intervened.mean() < 0.08


def test_a_new_goal_and_a_reset_start_a_new_plan() -> None:
    env = ReachVectorEnv("planar_reach", 2, seed=0)
    seen, _ = env.reset(options={"start": "home", "goals": np.array([[0.3, 0.5], [0.3, 0.5]])})
    agent = ClassicalAgent(env.task)
    agent.reset(2)
    there = agent.act(seen["observation"], seen["goal"])
    elsewhere = np.array([[0.3, 0.5], [-0.4, 0.4]])
    agent.reset(2)
    np.testing.assert_array_equal(agent.act(seen["observation"], seen["goal"]), there)
    again = agent.act(seen["observation"], elsewhere)
    assert np.array_equal(np.sign(again[0]), np.sign(there[0]))
    assert not np.allclose(again[1], again[0])
