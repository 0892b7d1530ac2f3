"""Whatever comes in, the filter's torque is finite, inside every limit and no jump; legal torques pass untouched."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spiking_controller.control.safety import SafetyFilter
from spiking_controller.robots.arm import get_arm

ARM = get_arm("panda")
LIMITS = ARM.limits
SOFT_LOWER, SOFT_UPPER = LIMITS.soft_bounds(0.8)
PERIOD = 0.002
STEP = LIMITS.torque_rate * PERIOD
REST = np.zeros(7)
MIDDLE = 0.5 * (SOFT_LOWER + SOFT_UPPER)


def vectors(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, 7, elements=st.floats(low, high))


ANYTHING = st.one_of(
    arrays(np.float64, 7, elements=st.floats()),
    vectors(-200, 200),
    st.lists(st.floats(), max_size=9),
    st.none(),
    st.text(max_size=3),
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(ANYTHING, ANYTHING, ANYTHING, st.one_of(st.floats(), st.just(PERIOD))), min_size=1, max_size=10)
)
def test_any_input_gives_finite_torque_inside_torque_and_rate_limits(inputs: list[tuple[Any, Any, Any, float]]) -> None:
    safety = SafetyFilter(LIMITS)
    for torque, position, velocity, period in inputs:
        before = safety.torque
        after = safety.filter(torque, position, velocity, period)
        assert after.shape == (7,)
        assert np.isfinite(after).all()
        assert (np.abs(after) <= LIMITS.torque).all()
        assert (np.abs(after - before) <= STEP * (1 + 1e-12)).all()


@settings(deadline=None)
@given(
    torque=vectors(-11.9, 11.9),
    difference=vectors(-1.9, 1.9),
    position=vectors(0.01, 0.99),
    velocity=vectors(-0.99, 0.99),
)
def test_a_torque_inside_all_limits_passes_bit_equal(
    torque: np.ndarray, difference: np.ndarray, position: np.ndarray, velocity: np.ndarray
) -> None:
    safety = SafetyFilter(LIMITS)
    safety.torque = np.clip(torque + difference, -LIMITS.torque, LIMITS.torque)
    joint_position = SOFT_LOWER + position * (SOFT_UPPER - SOFT_LOWER)
    out = safety.filter(torque, joint_position, velocity * LIMITS.velocity, PERIOD)
    assert out.tobytes() == torque.tobytes()
    assert not safety.interventions


@settings(deadline=None)
@given(torque=vectors(-100, 100), position=vectors(-4, 4), velocity=vectors(-5, 5))
def test_no_torque_that_pushes_outward_or_accelerates_too_fast_a_joint_lasts(
    torque: np.ndarray, position: np.ndarray, velocity: np.ndarray
) -> None:
    safety = SafetyFilter(LIMITS)
    for _ in range(60):
        out = safety.filter(torque, position, velocity, PERIOD)
    calm = np.abs(velocity) < LIMITS.velocity
    assert not (out[calm & (position >= SOFT_UPPER)] > 0).any()
    assert not (out[calm & (position <= SOFT_LOWER)] < 0).any()
    assert not (out[velocity >= LIMITS.velocity] > 0).any()
    assert not (out[velocity <= -LIMITS.velocity] < 0).any()


@pytest.mark.parametrize(
    ("torque", "position", "velocity", "reason"),
    [
        (np.full(7, np.nan), MIDDLE, REST, "non-finite torque"),
        (np.zeros(6), MIDDLE, REST, "non-finite torque"),
        (REST, np.full(7, np.inf), REST, "non-finite joint state"),
        (REST, MIDDLE, None, "non-finite joint state"),
        (np.full(7, 100.0), MIDDLE, REST, "torque limit"),
        (np.full(7, 1.0), SOFT_UPPER, REST, "position limit"),
        (np.full(7, -1.0), SOFT_LOWER, REST, "position limit"),
        (REST, 0.5 * (SOFT_UPPER + LIMITS.position_upper), np.full(7, 0.5), "position limit"),
        (np.full(7, 1.0), MIDDLE, LIMITS.velocity, "velocity limit"),
        (REST, MIDDLE, -1.1 * LIMITS.velocity, "velocity limit"),
        (np.full(7, 3.0), MIDDLE, REST, "torque rate limit"),
    ],
)
def test_interventions_are_counted_by_reason(torque: Any, position: Any, velocity: Any, reason: str) -> None:
    safety = SafetyFilter(LIMITS)
    safety.filter(torque, position, velocity, PERIOD)
    assert safety.interventions[reason] == 1


@given(start=vectors(-1, 1))
def test_the_ramp_ends_at_exactly_zero_at_the_rate_limit(start: np.ndarray) -> None:
    safety = SafetyFilter(LIMITS)
    safety.torque = start * LIMITS.torque
    for _ in range(44):
        before = safety.torque
        after = safety.ramp_down(PERIOD)
        assert (np.abs(after) <= np.abs(before)).all()
        assert (np.abs(after - before) <= STEP * (1 + 1e-12)).all()
    assert not safety.torque.any()


def test_a_broken_torque_ramps_down_instead_of_stopping_dead() -> None:
    safety = SafetyFilter(LIMITS)
    safety.torque = np.full(7, 10.0)
    np.testing.assert_allclose(safety.filter(np.full(7, np.nan), MIDDLE, REST, PERIOD), 8.0)


def test_after_a_long_silence_the_torque_still_does_not_jump() -> None:
    safety = SafetyFilter(LIMITS)
    out = safety.filter(np.full(7, 10.0), MIDDLE, REST, period=5.0)
    np.testing.assert_allclose(out, STEP)
