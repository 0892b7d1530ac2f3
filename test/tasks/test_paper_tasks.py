"""The tasks of Huebotter et al. 2025: their dynamics, what is observed, and what counts as on target."""

import dataclasses

import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes
from spiking_controller.tasks.metrics import reach_metrics, summarise
from spiking_controller.tasks.reach import get_task

PLANAR = get_task("planar_reach_paper")
PANDA = get_task("panda_reach_paper")


class Still:
    """Commands nothing."""

    def __init__(self, joints: int) -> None:
        self._joints = joints

    def reset(self, batch: int) -> None:
        """Nothing to forget."""

    def act(self, observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.zeros((len(observation), self._joints))


def test_both_have_64_episodes_of_200_steps_of_20_ms_without_the_live_arms_limits() -> None:
    for task in (PLANAR, PANDA):
        assert (task.evaluation_goals, task.steps_per_episode, task.control_period) == (64, 200, 0.02)
        assert (task.gravity_convention, task.delay_steps, task.has_rate_limit) == ("raw", 0, False)
    np.testing.assert_allclose(PANDA.torque_scale, [87.0] * 4 + [12.0] * 2)
    assert PANDA.damping.tolist() == [0.0] * 6


def test_planar_joints_follow_the_authors_equations() -> None:
    """Explicit Euler of q̈ = 20·u - 5·q̇, speeds clipped at π/2, and 0 below a hundredth of that."""
    env = ReachVectorEnv(PLANAR, 3, seed=1)
    env.reset(options={"start": np.array([[0.5, -2.0], [3.0, 3.0], [-1.0, 0.1]])})
    rng = np.random.default_rng(2)
    angle, velocity = env.joint_position, np.zeros((3, 2))
    rested = clipped = 0
    for step in range(200):
        # Random, full, and none: the arm comes to rest in between.
        action = (rng.uniform(-1, 1, (3, 2)), np.ones((3, 2)), np.zeros((3, 2)))[step // 50 % 3]
        env.step(action)
        angle = angle + 0.02 * velocity
        velocity = np.clip(velocity + 0.02 * (20.0 * action - 5.0 * velocity), -np.pi / 2, np.pi / 2)
        velocity[np.abs(velocity) < 0.01 * np.pi / 2] = 0.0
        rested += int((velocity == 0.0).sum())
        clipped += int((np.abs(velocity) == np.pi / 2).sum())
        np.testing.assert_allclose(env.joint_position, angle, atol=1e-12)
        np.testing.assert_allclose(env.joint_velocity, velocity, atol=1e-12)
    assert rested > 10
    assert clipped > 10


def test_planar_joints_turn_on_without_end() -> None:
    env = ReachVectorEnv(PLANAR, 2, seed=1)
    env.reset(options={"start": np.array([3.0, 3.0])})
    for _ in range(150):
        env.step(np.ones((2, 2)))
    assert (env.joint_position > 3.0 + 1.5 * np.pi / 2).all()
    np.testing.assert_allclose(env.joint_velocity, np.pi / 2)


def test_planar_starts_and_goals_come_from_whole_turns() -> None:
    env = ReachVectorEnv(PLANAR, 400, seed=3)
    env.reset()
    assert (np.abs(env.joint_position) <= np.pi).all()
    assert (np.abs(env.joint_position).max(axis=0) > 0.95 * np.pi).all()
    assert np.linalg.norm(env.goal, axis=1).min() < 0.15


def test_planar_observations_are_noisy_and_the_distance_is_not() -> None:
    env = ReachVectorEnv(PLANAR, 500, seed=4)
    seen, info = env.reset()
    angle = env.codec.joint_position(seen["observation"].astype(np.float64))
    hand = env.codec.hand_position(seen["observation"])
    assert (angle - env.joint_position).std() == pytest.approx(0.01, rel=0.1)
    assert (hand - env.hand_position[:, :2]).std() == pytest.approx(0.009, rel=0.1)
    np.testing.assert_allclose(info["distance"], np.linalg.norm(env.hand_position[:, :2] - env.goal, axis=1))
    np.testing.assert_allclose(info["hand"], env.hand_position[:, :2])


def test_panda_joints_are_bare_and_their_speed_is_clipped() -> None:
    env = ReachVectorEnv(PANDA, 2, seed=5)
    model = env._model()
    assert model.dof_armature[:6].tolist() == model.dof_damping[:6].tolist() == [0.0] * 6
    assert model.dof_armature[6] > 0.0
    env.reset(options={"start": "home"})
    for _ in range(20):
        env.step(np.ones((2, 6)))
        assert (np.abs(env.joint_velocity) <= PANDA.arm.limits.velocity).all()
    assert (np.abs(env.joint_velocity[:, :6]) > 0.99 * PANDA.velocity_scale).any()


def test_panda_carries_its_own_weight_and_no_torque_pushes_outward_beyond_the_soft_bounds() -> None:
    env = ReachVectorEnv(PANDA, 1, seed=6)
    env.reset(options={"start": "home"})
    height = env.hand_position[0, 2]
    for _ in range(15):
        env.step(np.zeros((1, 6)))
    assert env.hand_position[0, 2] < height - 0.05
    _, upper = PANDA.soft_bounds
    start = np.asarray(PANDA.arm.home).copy()
    start[0] = upper[0] + 0.02
    env.reset(options={"start": start})
    _, _, _, _, info = env.step(np.eye(1, 6))
    assert info["torque"][0, 0] == 0.0
    _, _, _, _, info = env.step(-np.eye(1, 6))
    assert info["torque"][0, 0] == -87.0


def test_differences_of_observed_angles_take_the_place_of_measured_velocities() -> None:
    task = dataclasses.replace(PANDA, velocity_source="differences")
    env = ReachVectorEnv(task, 3, seed=7)
    episodes = run_episodes(env, Still(6))
    angle = env.codec.joint_position(episodes.observation.astype(np.float64))
    velocity = env.codec.joint_velocity(episodes.observation)
    np.testing.assert_allclose(velocity[:, 1:], np.diff(angle, axis=1) / 0.02, atol=1e-4)
    assert (velocity[:, 0] == 0.0).all()


def _episodes(hand: np.ndarray) -> Episodes:
    """Planar episodes with the goal at zero and these true hands, [B, T + 1, 2], which the observations do not tell."""
    batch, steps = hand.shape[0], hand.shape[1] - 1
    return Episodes(
        observation=np.zeros((batch, steps + 1, 6), np.float32),
        action=np.zeros((batch, steps, 2), np.float32),
        goal=np.zeros((batch, 2), np.float32),
        distance=np.linalg.norm(hand, axis=-1),
        torque=np.zeros((batch, steps, 2), np.float32),
        torque_rate=np.zeros((batch, steps), np.float32),
        intervened=np.zeros((batch, steps), np.float32),
        valid_steps=np.full(batch, steps),
        hand=hand.astype(np.float32),
    )


def test_on_target_in_the_plane_is_each_coordinate_within_a_twentieth_of_the_reach() -> None:
    hand = np.full((2, 201, 2), 0.5)
    hand[0, 150:] = (0.044, -0.044)  # 6.2 cm away, but on target
    hand[1, 50:60] = (0.046, 0.0)  # 4.6 cm away, but not
    metrics = reach_metrics(_episodes(hand), PLANAR)
    assert metrics["on_target_share"].tolist() == [51 / 201, 0.0]
    assert metrics["on_target_final_share"].tolist() == [1.0, 0.0]
    assert metrics["first_on_target_s"].tolist() == [3.0, np.inf]
    assert metrics["final_error_m"][0] == pytest.approx(np.hypot(0.044, 0.044))
    summary = summarise(metrics)
    assert (summary["share_reached_target"], summary["on_target_final_share_mean"]) == (0.5, 0.5)
    assert summary["joint_limit_margin_median"] is None


def test_on_target_for_the_panda_is_12_3_cm_from_the_goal() -> None:
    episodes = run_episodes(ReachVectorEnv(PANDA, 4, seed=8), Still(6))
    metrics = reach_metrics(episodes, PANDA)
    np.testing.assert_array_equal(metrics["on_target_share"], metrics["share_on_target_12.3cm"])


def test_the_same_seed_gives_the_same_noise() -> None:
    first, again = (run_episodes(ReachVectorEnv(PLANAR, 3), Still(2), seed=9).observation for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"physics": "physx"}, "physics is 'physx'; give one of arm, bare_arm, accelerations"),
        ({"braking": "soft"}, "braking is 'soft'; give one of full, outward, none"),
        ({"velocity_source": "guessed"}, "velocity_source is 'guessed'; give one of measured, differences"),
        ({"observation_noise": -0.1}, "observation_noise is -0.1"),
    ],
)
def test_values_that_mean_nothing_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(PLANAR, **change)  # type: ignore[arg-type]
