"""The torque limiter passes what is legal bit for bit, and what it returns is legal, for all inputs."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.limits import JointLimits, TorqueLimiter

PERIOD = 0.002
LIMITS = get_arm("panda").limits
LIMITER = TorqueLimiter(LIMITS)
SOFT_LOWER, SOFT_UPPER = LIMITS.soft_bounds(0.8)
STEP = LIMITS.torque_rate * PERIOD
ROUNDING = 4.0 * np.spacing(LIMITS.torque)


class Situation(NamedTuple):
    """Arguments of `limit`, each [batch, joints]."""

    torque: np.ndarray
    previous_torque: np.ndarray
    joint_position: np.ndarray
    joint_velocity: np.ndarray


def within(draw: st.DrawFn, lower: np.ndarray, upper: np.ndarray, batch: int) -> np.ndarray:
    """Numbers between two bounds, the bounds themselves often among them."""
    share = draw(hnp.arrays(np.float64, (batch, lower.size), elements=st.floats(0.0, 1.0)))
    return np.clip(lower + share * (upper - lower), lower, upper)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Any torque, position and velocity, far outside the limits too; the previous torque is a legal one."""
    batch = draw(st.integers(1, 3))
    wild = hnp.arrays(np.float64, (batch, 7), elements=st.floats(-1e6, 1e6))
    return Situation(
        torque=draw(wild) if draw(st.booleans()) else within(draw, -1.2 * LIMITS.torque, 1.2 * LIMITS.torque, batch),
        previous_torque=within(draw, -LIMITS.torque, LIMITS.torque, batch),
        joint_position=within(draw, LIMITS.position_lower - 0.2, LIMITS.position_upper + 0.2, batch),
        joint_velocity=within(draw, -1.5 * LIMITS.velocity, 1.5 * LIMITS.velocity, batch),
    )


@st.composite
def legal_situations(draw: st.DrawFn) -> Situation:
    """Torque within torque and rate limit, joints inside the soft bounds and below the velocity limit."""
    batch = draw(st.integers(1, 3))
    previous = within(draw, -LIMITS.torque, LIMITS.torque, batch)
    inner = 1.0 - 1e-9
    return Situation(
        torque=np.clip(previous + inner * within(draw, -STEP, STEP, batch), -LIMITS.torque, LIMITS.torque),
        previous_torque=previous,
        joint_position=within(draw, SOFT_LOWER + 1e-9, SOFT_UPPER - 1e-9, batch),
        joint_velocity=within(draw, -inner * LIMITS.velocity, inner * LIMITS.velocity, batch),
    )


@given(legal_situations())
def test_limiter_passes_legal_torque_unchanged(situation: Situation) -> None:
    np.testing.assert_array_equal(LIMITER.limit(*situation, PERIOD), situation.torque)


@given(situations())
def test_torque_is_always_within_the_torque_limits(situation: Situation) -> None:
    assert np.all(np.abs(LIMITER.limit(*situation, PERIOD)) <= LIMITS.torque)


@given(situations(), st.floats(0.0, 0.05))
def test_torque_never_changes_faster_than_the_rate_limit(situation: Situation, period: float) -> None:
    change = np.abs(LIMITER.limit(*situation, period) - situation.previous_torque)
    assert np.all(change <= LIMITS.torque_rate * period + ROUNDING)


@given(situations())
def test_outward_torque_at_a_soft_bound_is_led_to_zero(situation: Situation) -> None:
    torque = LIMITER.limit(*situation, PERIOD)
    ramp = np.sign(situation.previous_torque) * np.maximum(np.abs(situation.previous_torque) - STEP, 0.0)
    outward_up = (situation.joint_position >= SOFT_UPPER) & (torque > 0.0)
    outward_down = (situation.joint_position <= SOFT_LOWER) & (torque < 0.0)
    outward = outward_up | outward_down
    np.testing.assert_allclose(torque[outward], ramp[outward], rtol=0, atol=ROUNDING.max())


@given(situations())
def test_accelerating_torque_beyond_the_velocity_limit_is_led_to_zero(situation: Situation) -> None:
    torque = LIMITER.limit(*situation, PERIOD)
    ramp = np.sign(situation.previous_torque) * np.maximum(np.abs(situation.previous_torque) - STEP, 0.0)
    accelerates = (np.abs(situation.joint_velocity) >= LIMITS.velocity) & (situation.joint_velocity * torque > 0.0)
    np.testing.assert_allclose(torque[accelerates], ramp[accelerates], rtol=0, atol=ROUNDING.max())


@given(situations())
def test_torque_moves_towards_the_wanted_one_and_never_past_it(situation: Situation) -> None:
    torque = LIMITER.limit(*situation, PERIOD)
    nearest = np.minimum(np.minimum(situation.torque, situation.previous_torque), 0.0)
    farthest = np.maximum(np.maximum(situation.torque, situation.previous_torque), 0.0)
    assert np.all((nearest <= torque) & (torque <= farthest))


@given(situations())
def test_each_row_and_joint_is_limited_on_its_own(situation: Situation) -> None:
    together = LIMITER.limit(*situation, PERIOD)
    for row in range(together.shape[0]):
        alone = LIMITER.limit(*Situation(*(values[row] for values in situation)), PERIOD)
        np.testing.assert_array_equal(together[row], alone)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (2, 3, 7)])
def test_shape_is_kept_and_input_is_not_written_to(shape: tuple[int, ...]) -> None:
    wanted = np.full(shape, 100.0)
    zero = np.zeros(shape)
    torque = LIMITER.limit(wanted, zero, zero + get_arm("panda").home, zero, PERIOD)
    assert torque.shape == shape
    assert torque == pytest.approx(np.full(shape, 2.0))
    assert np.all(wanted == 100.0)
    assert np.all(zero == 0.0)


def test_torque_back_inside_passes_at_a_soft_bound() -> None:
    position = np.where(np.arange(7) % 2, SOFT_UPPER + 0.01, SOFT_LOWER - 0.01)
    inward = np.where(np.arange(7) % 2, -1.5, 1.5)
    at_rest = np.zeros(7)
    np.testing.assert_array_equal(LIMITER.limit(inward, at_rest, position, at_rest, PERIOD), inward)
    np.testing.assert_array_equal(LIMITER.limit(-inward, at_rest, position, at_rest, PERIOD), at_rest)


def test_braking_torque_passes_beyond_the_velocity_limit() -> None:
    home, at_rest = get_arm("panda").home, np.zeros(7)
    braking = np.full(7, -1.5)
    np.testing.assert_array_equal(LIMITER.limit(braking, at_rest, home, 1.1 * LIMITS.velocity, PERIOD), braking)
    np.testing.assert_array_equal(LIMITER.limit(-braking, at_rest, home, 1.1 * LIMITS.velocity, PERIOD), at_rest)


def test_illegal_previous_torque_still_gives_a_legal_one() -> None:
    home, at_rest = get_arm("panda").home, np.zeros(7)
    torque = LIMITER.limit(at_rest, np.full(7, 500.0), home, at_rest, PERIOD)
    assert torque == pytest.approx(LIMITS.torque - STEP)


def test_negative_period_holds_the_previous_torque() -> None:
    home, at_rest = get_arm("panda").home, np.zeros(7)
    previous = 0.5 * LIMITS.torque
    np.testing.assert_array_equal(LIMITER.limit(at_rest, previous, home, at_rest, -1.0), previous)


@given(st.floats(0.01, 1.0))
def test_soft_bounds_keep_the_centre_and_scale_the_range(fraction: float) -> None:
    lower, upper = LIMITS.soft_bounds(fraction)
    full = LIMITS.position_upper - LIMITS.position_lower
    np.testing.assert_allclose(lower + upper, LIMITS.position_lower + LIMITS.position_upper, atol=1e-12)
    np.testing.assert_allclose(upper - lower, fraction * full, rtol=1e-12)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_soft_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(RobotModelError, match="soft limit fraction"):
        TorqueLimiter(LIMITS, fraction)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"torque": [87.0, 12.0]}, "torque has the shape"),
        ({"velocity": [1.0, float("inf"), 1.0]}, "finite numbers"),
        ({"torque_rate": [1000.0, 0.0, 1000.0]}, "above zero"),
        ({"position_upper": [1.0, -1.0, 1.0]}, "below its upper bound"),
    ],
)
def test_limits_that_make_no_sense_are_refused(change: dict[str, list[float]], sentence: str) -> None:
    values = {
        "position_lower": [-1.0, -1.0, -1.0],
        "position_upper": [1.0, 1.0, 1.0],
        "velocity": [2.0, 2.0, 2.0],
        "torque": [10.0, 10.0, 10.0],
        "torque_rate": [1000.0, 1000.0, 1000.0],
    }
    with pytest.raises(RobotModelError, match=sentence):
        JointLimits(**{name: np.array(numbers) for name, numbers in (values | change).items()})


def test_limits_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="read-only"):
        LIMITS.torque[0] = 1000.0
