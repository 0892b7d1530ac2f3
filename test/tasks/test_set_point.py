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
    for _ in range(500):
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


def test_a_moving_hand_integrates_less() -> None:
    goal, speeds = np.array([0.4, 0.1, 0.5]), [0.0, 0.03, 0.3]
    shifts = []
    for speed in speeds:
        integral = SetPointIntegral(period=0.02, gain=1.0, slow=0.03)
        integral.shift(goal, goal - [0.02, 0.02 * speed, 0.0])
        shifts.append(integral.shift(goal, goal - [0.02, 0.0, 0.0])[0] - goal[0])
    np.testing.assert_allclose(shifts, 0.02 * 0.02 * np.array([1.0, np.exp(-1.0), 0.0]), atol=1e-12)


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


@pytest.mark.parametrize("field", ["gain", "zone", "clamp", "slow"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_wrong_value_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        SetPointIntegral(period=0.02, **{field: value})


@pytest.mark.parametrize("field", ["period", "slow"])
def test_zero_is_refused_where_it_is_divided_by(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 0.0; give a number above 0"):
        SetPointIntegral(**{"period": 0.02, field: 0.0})
