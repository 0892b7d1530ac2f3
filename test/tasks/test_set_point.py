"""The set-point integral removes a small static offset and can never run away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spiking_controller.errors import ConfigError
from spiking_controller.tasks.set_point import SetPointIntegral

POINTS = arrays(np.float64, (20, 3), elements=st.floats(-1.0, 1.0, allow_subnormal=False))


def test_a_hand_that_stops_short_by_a_constant_offset_arrives() -> None:
    integral = SetPointIntegral(period=0.02)
    goal, offset = np.array([0.4, 0.1, 0.5]), np.array([0.006, -0.004, 0.002])
    hand = goal - offset
    for _ in range(1000):
        hand = integral.shift(goal, hand) - offset
    np.testing.assert_allclose(hand, goal, atol=1e-5)


def test_nothing_integrates_beyond_the_zone() -> None:
    integral = SetPointIntegral(period=0.02, gain=1.0, zone=0.03)
    goal = np.array([[0.4, 0.1, 0.5], [0.4, 0.1, 0.5]])
    hand = goal - [[0.029, 0.0, 0.0], [0.031, 0.0, 0.0]]
    np.testing.assert_array_equal(integral.shift(goal, hand), goal)  # how fast the hand is is not known yet
    shifted = integral.shift(goal, hand)
    np.testing.assert_allclose(shifted[0] - goal[0], [0.02 * 0.029, 0.0, 0.0])
    np.testing.assert_array_equal(shifted[1], goal[1])


def test_a_hand_that_closes_in_by_itself_is_left_alone_at_any_distance() -> None:
    goal = np.array([0.4, 0.1, 0.5])
    for distance in (0.05, 0.0005):
        shifts = []
        for share_per_second in (0.0, 1.0, 5.0):
            integral = SetPointIntegral(period=0.02, gain=1.0, clamp=1.0)
            ways = [[distance, share_per_second * distance * 0.02 * step, 0.0] for step in range(-100, 1)]
            *_, before, after = (integral.shift(goal, goal - way)[0] for way in ways)
            shifts.append((after - before) / distance)
        assert shifts[0] == pytest.approx(0.02)
        assert shifts[0] > 2.0 * shifts[1] > 100.0 * shifts[2]


@settings(max_examples=50, deadline=None)
@given(hands=POINTS, gain=st.floats(0.0, 100.0), clamp=st.floats(0.0, 0.1))
def test_the_goal_never_shifts_by_more_than_the_clamp(hands: np.ndarray, gain: float, clamp: float) -> None:
    integral = SetPointIntegral(period=0.02, gain=gain, zone=10.0, clamp=clamp)
    for hand in hands:
        assert np.linalg.norm(integral.shift(np.zeros(3), hand)) <= clamp + 1e-12


def test_reset_forgets_the_offset() -> None:
    integral = SetPointIntegral(period=0.02)
    goal = np.array([0.4, 0.1, 0.5])
    first = [integral.shift(goal, goal - 0.01) for _ in range(3)]
    integral.reset()
    np.testing.assert_array_equal([integral.shift(goal, goal - 0.01) for _ in range(3)], first)


@pytest.mark.parametrize("field", ["gain", "zone", "clamp", "patience", "period"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_wrong_value_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        SetPointIntegral(**{"period": 0.02, field: value})


def test_a_period_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"period is 0.0; give a number above 0"):
        SetPointIntegral(period=0.0)


def test_nothing_integrates_while_it_is_held_and_what_was_stays() -> None:
    integral = SetPointIntegral(period=0.02)
    goal = np.array([0.4, 0.1, 0.5])
    hand = goal - [0.01, 0.0, 0.0]
    for _ in range(11):
        shifted = integral.shift(goal, hand)
    for _ in range(5):
        np.testing.assert_array_equal(integral.shift(goal, hand, is_held=True), shifted)
    assert integral.shift(goal, hand)[0] > shifted[0]
