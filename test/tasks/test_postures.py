"""The nearest posture at a goal: it reaches the goal, stays in the soft bounds and is nearly the nearest there is."""

import numpy as np
import pytest
from scipy.optimize import minimize

from spiking_controller.tasks.goals import sample_goals, sample_joint_position
from spiking_controller.tasks.postures import NearestPosture
from spiking_controller.tasks.reach import ReachTask, get_task


def hands(task: ReachTask, posture: np.ndarray) -> np.ndarray:
    full = np.tile(task.arm.home, (len(posture), 1))
    full[:, : task.controlled_joints] = posture
    return task.arm.chain.position(full)[:, : task.goal_dimensions]


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_the_posture_reaches_the_goal_within_the_soft_bounds(name: str) -> None:
    task, rng = get_task(name), np.random.default_rng(1)
    m = task.controlled_joints
    present, goal = sample_joint_position(task, rng, 200)[:, :m], sample_goals(task, rng, 200)
    posture = NearestPosture(task, rng).find(present, goal)
    lower, upper = task.soft_bounds
    assert (posture >= lower[:m]).all()
    assert (posture <= upper[:m]).all()
    miss = np.linalg.norm(hands(task, posture) - goal, axis=1)
    assert np.quantile(miss, 0.98) < 1e-3


def test_a_general_optimiser_rarely_finds_a_nearer_posture() -> None:
    task, rng = get_task("panda_reach"), np.random.default_rng(2)
    m = task.controlled_joints
    present, goal = sample_joint_position(task, rng, 12)[:, :m], sample_goals(task, rng, 12)
    posture = NearestPosture(task, rng).find(present, goal)
    lower, upper = task.soft_bounds
    excess = []
    for q, g, found in zip(present, goal, posture, strict=True):
        solutions = (
            minimize(
                lambda x, q=q: float(np.square(x - q).sum()),
                start,
                constraints={"type": "eq", "fun": lambda x, g=g: hands(task, x[None])[0] - g},
                bounds=list(zip(lower[:m], upper[:m], strict=True)),
                method="SLSQP",
            )
            for start in (q, *sample_joint_position(task, rng, 6)[:, :m])
        )
        nearest = min(float(np.sqrt(s.fun)) for s in solutions if s.success)
        excess.append(np.linalg.norm(found - q) / nearest - 1.0)
    assert np.quantile(excess, 0.8) < 0.02
    assert max(excess) < 0.6


def test_a_posture_that_is_already_at_the_goal_is_its_own_answer() -> None:
    task, rng = get_task("panda_reach"), np.random.default_rng(3)
    finder = NearestPosture(task, rng)
    present, goal = sample_joint_position(task, rng, 50)[:, :6], sample_goals(task, rng, 50)
    at_goal = finder.find(present, goal)
    np.testing.assert_allclose(finder.find(at_goal, hands(task, at_goal)), at_goal, atol=0.05)


def test_a_goal_out_of_reach_gets_a_posture_that_points_there() -> None:
    task, rng = get_task("planar_reach"), np.random.default_rng(4)
    posture = NearestPosture(task, rng).find(np.array([[0.3, 0.5]]), np.array([[1.2, 0.0]]))
    np.testing.assert_allclose(hands(task, posture), [[0.9, 0.0]], atol=0.1)
