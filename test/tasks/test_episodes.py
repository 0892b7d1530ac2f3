"""Whole episodes are recorded as they happened."""

import numpy as np
import pytest

from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.tasks.metrics import reach_metrics
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask

TASKS = ["panda_reach", "planar_reach"]


class SteadyAgent:
    """Always the same action, NaN for one arm from a given step on; remembers that it was reset."""

    def __init__(self, task: ReachTask, action: float, nan_from: int | None = None) -> None:
        self._joints = task.controlled_joints
        self._action = action
        self._nan_from = nan_from
        self._step = -1

    def reset(self, batch: int) -> None:
        self._step = 0

    def act(self, observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        assert self._step >= 0, "act() came before reset()"
        action = np.full((len(observation), self._joints), self._action)
        if self._nan_from is not None and self._step >= self._nan_from:
            action[0] = np.nan
        self._step += 1
        return action


@pytest.mark.parametrize("name", TASKS)
def test_records_have_the_documented_shapes(name: str) -> None:
    env = ReachVectorEnv(name, 3, seed=0)
    task = env.task
    m, n, d = task.controlled_joints, len(task.arm.joint_names), task.goal_dimensions
    episodes = run_episodes(env, SteadyAgent(task, 0.1))
    assert episodes.observation.shape == (3, 201, 2 * m + d)
    assert episodes.action.shape == (3, 200, m)
    assert episodes.goal.shape == (3, d)
    assert episodes.distance.shape == (3, 201)
    assert episodes.torque.shape == (3, 200, n)
    assert episodes.torque_rate.shape == episodes.intervened.shape == (3, 200)
    assert episodes.valid_steps.tolist() == [200, 200, 200]
    assert episodes.observation.dtype == episodes.action.dtype == np.float32
    hand = ObservationCodec(task).hand_position(episodes.observation)
    np.testing.assert_allclose(np.linalg.norm(hand - episodes.goal[:, None], axis=-1), episodes.distance, atol=1e-6)


def test_noise_is_added_before_clipping_and_recorded_as_carried_out() -> None:
    env = ReachVectorEnv("planar_reach", 2, seed=0)
    episodes = run_episodes(env, SteadyAgent(env.task, 0.5), noise=lambda t: np.full((2, 2), 0.01 * t))
    expected = np.minimum(0.5 + 0.01 * np.arange(200), 1.0)
    np.testing.assert_allclose(episodes.action[1, :, 0], expected, atol=1e-6)


def test_seed_start_and_goals_reach_the_environment() -> None:
    env = ReachVectorEnv("panda_reach", 2)
    goals = np.array([[0.4, 0.1, 0.5], [0.5, -0.1, 0.3]])
    home = run_episodes(env, SteadyAgent(env.task, 0.0), start="home", goals=goals)
    np.testing.assert_allclose(home.goal, goals, atol=1e-6)
    np.testing.assert_array_equal(home.observation[0, 0], home.observation[1, 0])
    first, again = (run_episodes(env, SteadyAgent(env.task, 0.3), seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.observation, again.observation)


def test_an_episode_that_breaks_off_is_finite_and_marked() -> None:
    env = ReachVectorEnv("panda_reach", 3, seed=0)
    episodes = run_episodes(env, SteadyAgent(env.task, 0.05, nan_from=30))
    assert episodes.valid_steps.tolist() == [30, 200, 200]
    for field in ("observation", "action", "distance", "torque", "torque_rate", "intervened"):
        assert np.isfinite(getattr(episodes, field)).all(), field
    metrics = reach_metrics(episodes, env.task)
    assert metrics["ended_early"].tolist() == [1.0, 0.0, 0.0]
    undefined = ("first_reach", "first_on_target", "posture_drift")
    assert all(np.isfinite(values).all() for name, values in metrics.items() if not name.startswith(undefined))
