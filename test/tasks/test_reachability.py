"""The hand's nearest point to any point is really reachable, and no possible posture known from elsewhere is nearer."""

import numpy as np
import pytest

from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.reachability import TOLERANCE, ReachableSpace


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_goals_that_training_draws_are_reachable(name: str) -> None:
    task = get_task(name)
    space = ReachableSpace(task)
    for goal in sample_goals(task, np.random.default_rng(1), 100):
        found = space.nearest(goal)
        assert found.miss < TOLERANCE
        assert np.linalg.norm(found.point - goal) == pytest.approx(found.miss)


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_no_random_posture_comes_much_nearer_to_a_point_out_of_reach(name: str) -> None:
    task = get_task(name)
    space = ReachableSpace(task)
    rng = np.random.default_rng(2)
    hands = sample_goals(task, rng, 1000)
    lowest = task.minimum_goal_height
    for point in rng.uniform(-1.2, 1.2, (60, task.goal_dimensions)):
        if lowest is not None:
            point[2] = max(point[2], lowest)
        assert space.nearest(point).miss < np.linalg.norm(hands - point, axis=1).min() + TOLERANCE


def test_the_same_point_gets_the_same_answer() -> None:
    task = get_task("panda_reach")
    point = np.array([0.9, 0.5, 0.9])
    np.testing.assert_array_equal(ReachableSpace(task).nearest(point).point, ReachableSpace(task).nearest(point).point)
