"""A goal is taken or refused with one sentence that names the value, the reason and where the hand could go instead."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiking_controller.control.goals import GoalChecker
from spiking_controller.errors import GoalError
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.reach import get_task

PANDA = get_task("panda_reach")
CHECKER = GoalChecker(PANDA)
PLANAR_CHECKER = GoalChecker(get_task("planar_reach"))


def refusal(point: tuple[float, float, float]) -> str:
    with pytest.raises(GoalError) as refused:
        CHECKER.check(point)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def offered(sentence: str) -> tuple[float, float, float]:
    x, y, z = re.search(r"nearest reachable point is \((.*)\)", sentence).group(1).split(", ")  # type: ignore[union-attr]
    return float(x), float(y), float(z)


def test_every_goal_that_training_draws_is_taken() -> None:
    for goal in sample_goals(PANDA, np.random.default_rng(3), 200):
        np.testing.assert_array_equal(CHECKER.check(goal), goal)


def test_in_the_plane_the_height_is_ignored() -> None:
    np.testing.assert_array_equal(PLANAR_CHECKER.check((0.4, -0.1, 7.0)), [0.4, -0.1])


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ((np.nan, 0.0, 0.5), ["nan", "not finite"]),
        ((0.4, np.inf, 0.5), ["inf", "not finite"]),
        ((3.0, 0.0, 0.333), ["3.00 m", "reach", "0.95", "nearest reachable point"]),
        ((0.4, 0.0, 0.01), ["0.010", "0.05", "nearest reachable point"]),
        ((0.0, 0.0, 0.1), ["no posture", "nearest reachable point"]),
    ],
)
def test_a_bad_goal_is_refused_in_one_sentence(point: tuple[float, float, float], words: list[str]) -> None:
    sentence = refusal(point)
    assert all(word in sentence for word in words)


@settings(deadline=None, max_examples=50)
@given(*[st.floats(-2.0, 2.0)] * 3)
def test_what_is_offered_instead_is_taken(x: float, y: float, z: float) -> None:
    try:
        CHECKER.check((x, y, z))
    except GoalError as error:
        CHECKER.check(offered(str(error)))


@pytest.mark.parametrize("height", [-0.5, 0.0, 0.04])
def test_a_point_that_is_too_low_is_offered_the_allowed_height_above_it(height: float) -> None:
    assert offered(refusal((0.5, 0.1, height))) == pytest.approx((0.5, 0.1, 0.051), abs=0.002)
