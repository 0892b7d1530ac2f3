"""A goal is taken or refused with one sentence that names the value and the mend."""

import numpy as np
import pytest

from spiking_controller.control.goals import checked_goal
from spiking_controller.errors import GoalError
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.reach import get_task

PANDA = get_task("panda_reach")
PLANAR = get_task("planar_reach")


@pytest.mark.parametrize("frame", ["", "panda_link0", "/panda_link0"])
def test_a_reachable_goal_is_taken_in_the_base_frame(frame: str) -> None:
    np.testing.assert_array_equal(checked_goal(PANDA, (0.4, -0.1, 0.5), frame), [0.4, -0.1, 0.5])


def test_every_goal_that_training_draws_is_taken() -> None:
    for goal in sample_goals(PANDA, np.random.default_rng(3), 50):
        np.testing.assert_array_equal(checked_goal(PANDA, goal), goal)


def test_in_the_plane_the_height_is_ignored() -> None:
    np.testing.assert_array_equal(checked_goal(PLANAR, (0.4, -0.1, 7.0)), [0.4, -0.1])


@pytest.mark.parametrize(
    ("point", "frame", "words"),
    [
        ((np.nan, 0.0, 0.5), "", ["nan", "not finite"]),
        ((0.4, np.inf, 0.5), "", ["inf", "not finite"]),
        ((3.0, 0.0, 0.333), "", ["3.00 m", "reach", "0.95"]),
        ((0.4, 0.0, 0.01), "", ["0.010", "0.05"]),
        ((0.4, 0.0, 0.5), "map", ["'map'", "panda_link0"]),
    ],
)
def test_a_bad_goal_is_refused_in_one_sentence(point: tuple[float, float, float], frame: str, words: list[str]) -> None:
    with pytest.raises(GoalError) as refusal:
        checked_goal(PANDA, point, frame)
    assert all(word in str(refusal.value) for word in words)
    assert "\n" not in str(refusal.value)
