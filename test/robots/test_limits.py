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
from spiking_controller.robots.simulation import ArmSimulation

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


def ramp_to(target: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """One period's way from the previous torque to another."""
    return np.clip(target, previous - STEP, previous + STEP)


@given(situations())
def test_outward_torque_at_a_soft_bound_is_led_to_zero_or_to_braking(situation: Situation) -> None:
    torque = LIMITER.limit(*situation, PERIOD)
    zero = ramp_to(np.zeros_like(torque), situation.previous_torque)
    at_upper, at_lower = situation.joint_position >= SOFT_UPPER, situation.joint_position <= SOFT_LOWER
    calm = np.abs(situation.joint_velocity) < LIMITS.velocity
    assert np.all((torque <= zero + ROUNDING) | ~(at_upper & calm))
    assert np.all((torque >= zero - ROUNDING) | ~(at_lower & calm))


@given(situations())
def test_a_joint_above_its_allowed_speed_is_braked_in_proportion(situation: Situation) -> None:
    torque = LIMITER.limit(*situation, PERIOD)
    for side, hard, soft in ((1.0, LIMITS.position_upper, SOFT_UPPER), (-1.0, LIMITS.position_lower, SOFT_LOWER)):
        speed = side * situation.joint_velocity
        left = np.clip(1.0 - (situation.joint_position - soft) / (0.5 * (hard - soft)), 0.0, 1.0)
        excess = (speed - left * LIMITS.velocity) / LIMITS.velocity
        braking = -LIMITS.torque * np.clip(excess, 0.0, 1.0)
        largest = ramp_to(braking, side * situation.previous_torque)
        assert np.all((side * torque <= largest + ROUNDING + 1e-6) | (excess <= 0.0))


@given(situations())
def test_braking_never_pushes_a_joint_that_stands_or_returns_slowly(situation: Situation) -> None:
    still = Situation(
        np.zeros_like(situation.torque),
        np.zeros_like(situation.torque),
        situation.joint_position,
        np.clip(situation.joint_velocity, 0.0, 0.0),
    )
    assert not LIMITER.limit(*still, PERIOD).any()


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


def test_a_joint_beyond_its_velocity_limit_may_brake_harder_and_may_not_accelerate() -> None:
    home, at_rest = get_arm("panda").home, np.zeros(7)
    velocity = 1.01 * LIMITS.velocity
    braking, least = np.full(7, -1.5), -0.01 * LIMITS.torque
    np.testing.assert_array_equal(LIMITER.limit(braking, at_rest, home, velocity, PERIOD), braking)
    np.testing.assert_allclose(LIMITER.limit(-braking, at_rest, home, velocity, PERIOD), least)


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_joint_that_is_driven_outward_with_half_its_torque_stops_before_its_hard_bound(
    joint: int, side: float
) -> None:
    arm = get_arm("panda")
    simulation = ArmSimulation(arm, PERIOD)
    limited = np.zeros(7)
    queue = [limited, limited]
    for _ in range(1500):
        position, velocity = simulation.joint_position, simulation.joint_velocity
        wanted = 30.0 * (arm.home - position) - 5.0 * velocity
        wanted[joint] = side * 0.5 * LIMITS.torque[joint]
        limited = LIMITER.limit(wanted, limited, position, velocity, PERIOD)
        queue.append(limited)
        simulation.advance(queue.pop(0))
        assert np.all(simulation.joint_position < LIMITS.position_upper)
        assert np.all(simulation.joint_position > LIMITS.position_lower)


@given(situations())
def test_with_outward_braking_a_torque_is_only_clipped_or_cut_to_zero(situation: Situation) -> None:
    limiter = TorqueLimiter(LIMITS, 0.8, "outward", has_rate_limit=False)
    position, torque = situation.joint_position, situation.torque
    legal = limiter.limit(torque, situation.previous_torque, position, situation.joint_velocity, 0.002)
    is_outward = ((position >= SOFT_UPPER) & (torque > 0)) | ((position <= SOFT_LOWER) & (torque < 0))
    expected = np.where(is_outward, 0.0, np.clip(torque, -LIMITS.torque, LIMITS.torque))
    np.testing.assert_array_equal(legal, expected)


@given(situations())
def test_without_braking_and_rate_limit_a_torque_stays_as_it_is(situation: Situation) -> None:
    limiter = TorqueLimiter(LIMITS, 0.8, "none", has_rate_limit=False)
    legal = limiter.limit(
        situation.torque, situation.previous_torque, situation.joint_position, situation.joint_velocity, 0.002
    )
    np.testing.assert_array_equal(legal, situation.torque)


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
