"""Starts and goals are possible postures of the arm."""

import dataclasses

import mujoco
import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.tasks.goals import is_hard, sample_goals, sample_joint_position, shoulder_distance
from spiking_controller.tasks.reach import ReachTask, get_task

TASKS = ["panda_reach", "planar_reach"]


@pytest.mark.parametrize("name", TASKS)
def test_starts_lie_in_the_soft_bounds_with_held_joints_at_home(name: str) -> None:
    task = get_task(name)
    m = task.controlled_joints
    position = sample_joint_position(task, np.random.default_rng(1), 500)
    lower, upper = task.soft_bounds
    assert position.shape == (500, len(task.arm.joint_names))
    assert (position[:, :m] >= lower[:m]).all()
    assert (position[:, :m] <= upper[:m]).all()
    np.testing.assert_array_equal(position[:, m:], np.broadcast_to(task.arm.home[m:], position[:, m:].shape))
    spread = position[:, :m].std(axis=0) / (task.position_half_range / np.sqrt(3))
    assert (spread > 0.6).all(), "starts should cover the range of every joint"


@pytest.mark.parametrize("name", TASKS)
def test_starts_touch_neither_the_arm_nor_the_floor(name: str) -> None:
    task = get_task(name)
    model = task.arm.load_model()
    data = mujoco.MjData(model)
    addresses = [model.joint(joint).qposadr[0] for joint in task.arm.joint_names]
    for position in sample_joint_position(task, np.random.default_rng(2), 100):
        data.qpos[addresses] = position
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


def test_panda_starts_have_the_hand_above_the_table() -> None:
    task = get_task("panda_reach")
    position = sample_joint_position(task, np.random.default_rng(3), 500)
    assert (task.arm.chain.position(position)[:, 2] > 0.05).all()


def test_panda_goals_are_above_the_table_and_within_reach() -> None:
    task = get_task("panda_reach")
    goals = sample_goals(task, np.random.default_rng(4), 1000)
    assert goals.shape == (1000, 3)
    assert (goals[:, 2] > 0.05).all()
    assert (shoulder_distance(task, goals) <= task.arm.reach).all()


def test_planar_goals_have_two_coordinates_within_reach() -> None:
    task = get_task("planar_reach")
    goals = sample_goals(task, np.random.default_rng(4), 500)
    assert goals.shape == (500, 2)
    assert (shoulder_distance(task, goals) <= 0.9 + 1e-9).all()


def _posture_towards(task: ReachTask, goal: np.ndarray, rng: np.random.Generator) -> float:
    """Smallest distance from the goal that damped least squares finds inside the soft bounds, m."""
    lower, upper = task.soft_bounds
    m, d = task.controlled_joints, task.goal_dimensions
    best = np.inf
    position = sample_joint_position(task, rng, 40)
    for _ in range(150):
        hand, jacobian = task.arm.chain.position_and_jacobian(position)
        error = goal - hand[:, :d]
        best = min(best, float(np.linalg.norm(error, axis=1).min()))
        block = jacobian[:, :d, :m]
        square = block @ block.transpose(0, 2, 1) + 1e-3 * np.eye(d)
        change = block.transpose(0, 2, 1) @ np.linalg.solve(square, error[:, :, None])
        position[:, :m] = np.clip(position[:, :m] + np.clip(change[:, :, 0], -0.2, 0.2), lower[:m], upper[:m])
    return best


@pytest.mark.parametrize("name", TASKS)
def test_inverse_kinematics_reaches_every_goal_inside_the_soft_bounds(name: str) -> None:
    task = get_task(name)
    rng = np.random.default_rng(5)
    for goal in sample_goals(task, rng, 25):
        assert _posture_towards(task, goal, rng) < 1e-3


def test_hard_fraction_sets_the_share_of_hard_goals() -> None:
    task = get_task("panda_reach")
    easy = is_hard(task, sample_goals(task, np.random.default_rng(6), 2000, hard_fraction=0.0)).mean()
    default = is_hard(task, sample_goals(task, np.random.default_rng(7), 2000)).mean()
    hard = is_hard(task, sample_goals(task, np.random.default_rng(8), 200, hard_fraction=1.0)).mean()
    assert hard == 1.0
    assert default == pytest.approx(0.25 + 0.75 * easy, abs=0.04)


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_gives_the_same_starts_and_goals(name: str) -> None:
    task = get_task(name)
    for sample in (sample_joint_position, sample_goals):
        first, again, other = (sample(task, np.random.default_rng(seed), 20) for seed in (9, 9, 10))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_no_goals_are_no_problem() -> None:
    task = get_task("panda_reach")
    assert sample_goals(task, np.random.default_rng(0), 0).shape == (0, 3)


def test_a_wrong_share_of_hard_goals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.5.*between 0 and 1"):
        sample_goals(get_task("panda_reach"), np.random.default_rng(0), 3, hard_fraction=1.5)


def test_a_task_without_possible_postures_is_refused() -> None:
    impossible = dataclasses.replace(get_task("panda_reach"), minimum_goal_height=3.0)
    with pytest.raises(ConfigError, match=r"panda_reach.*minimum_goal_height"):
        sample_joint_position(impossible, np.random.default_rng(0), 3)
