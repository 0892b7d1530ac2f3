"""The reader takes one arm out of whatever a driver sends, and says why when it cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiking_controller.control.arm_state import ArmSample, ArmStateReader, Rejection
from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import get_arm

ARM = get_arm("panda")
NAMES = list(ARM.joint_names)
MS = 1_000_000
REST = [0.0] * 7
JUNK: st.SearchStrategy[list[float]] = st.one_of(
    st.lists(st.floats(), max_size=9), st.lists(st.floats(-4, 4), min_size=7, max_size=9), st.just([]), st.just(REST)
)


@pytest.fixture
def reader() -> ArmStateReader:
    return ArmStateReader(NAMES, ARM.limits)


def accepted(outcome: ArmSample | Rejection) -> ArmSample:
    assert isinstance(outcome, ArmSample), outcome
    return outcome


def refused(outcome: ArmSample | Rejection) -> str:
    assert isinstance(outcome, Rejection), outcome
    return outcome.reason


def test_joints_are_found_by_name_in_any_order_and_among_others(reader: ArmStateReader) -> None:
    position = dict(zip(NAMES, ARM.home, strict=True))
    velocity = {name: 0.1 * index for index, name in enumerate(NAMES)}
    names = ["panda_finger_joint1", *reversed(NAMES), "panda_finger_joint2"]
    sample = accepted(
        reader.read(
            5 * MS, names, [position.get(name, 0.04) for name in names], [velocity.get(name, np.nan) for name in names]
        )
    )
    np.testing.assert_array_equal(sample.joint_position, ARM.home)
    np.testing.assert_array_equal(sample.joint_velocity, [velocity[name] for name in NAMES])


def test_a_new_list_of_names_is_noticed(reader: ArmStateReader) -> None:
    accepted(reader.read(0, NAMES, ARM.home, REST))
    sample = accepted(reader.read(2 * MS, NAMES[::-1], ARM.home[::-1], REST))
    np.testing.assert_array_equal(sample.joint_position, ARM.home)


def test_missing_joints_are_named(reader: ArmStateReader) -> None:
    outcome = reader.read(0, ["fr3_joint1", *NAMES[1:]], ARM.home, REST)
    assert refused(outcome) == "missing joints"
    assert isinstance(outcome, Rejection)
    assert "panda_joint1" in outcome.sentence
    assert "fr3_joint1" in outcome.sentence
    assert "joint_names" in outcome.sentence


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ([np.nan, *ARM.home[1:]], "non-finite position"),
        ([np.inf, *ARM.home[1:]], "non-finite position"),
        (ARM.home[:6], "incomplete positions"),
        ([], "incomplete positions"),
        (np.rad2deg(ARM.home), "absurd position"),
    ],
)
def test_unusable_positions_are_rejected_and_counted(
    reader: ArmStateReader, position: list[float], reason: str
) -> None:
    assert refused(reader.read(0, NAMES, position, REST)) == reason
    assert reader.rejections == {reason: 1}


def test_absurd_velocities_are_not_believed(reader: ArmStateReader) -> None:
    sample = accepted(reader.read(0, NAMES, ARM.home, [0.5] * 6 + [100.0]))
    np.testing.assert_array_equal(sample.joint_velocity, [0.5] * 6 + [0.0])
    assert reader.estimated_velocities == 1


@pytest.mark.parametrize("velocity", [[], [np.nan] * 7, [0.0] * 3])
def test_missing_velocities_are_estimated_from_positions(reader: ArmStateReader, velocity: list[float]) -> None:
    speed = np.linspace(-0.6, 0.6, 7)
    for step in range(100):
        sample = accepted(reader.read(step * 2 * MS, NAMES, ARM.home + speed * step * 0.002, velocity))
    np.testing.assert_allclose(sample.joint_velocity, speed, atol=1e-3)
    assert reader.estimated_velocities == 100


def test_a_single_nan_velocity_leaves_the_others_as_measured(reader: ArmStateReader) -> None:
    accepted(reader.read(0, NAMES, ARM.home, REST))
    sample = accepted(reader.read(2 * MS, NAMES, ARM.home, [np.nan, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(sample.joint_velocity, [0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0])


def test_samples_continue_each_other_with_their_period(reader: ArmStateReader) -> None:
    first = accepted(reader.read(0, NAMES, ARM.home, REST))
    second = accepted(reader.read(2 * MS, NAMES, ARM.home, REST))
    assert (first.continues, first.period) == (False, 0.0)
    assert (second.continues, second.period) == (True, pytest.approx(0.002))


def test_a_repeated_stamp_is_dropped(reader: ArmStateReader) -> None:
    accepted(reader.read(2 * MS, NAMES, ARM.home, REST))
    assert refused(reader.read(2 * MS, NAMES, ARM.home, REST)) == "repeated stamp"
    assert accepted(reader.read(4 * MS, NAMES, ARM.home, REST)).continues


def test_a_message_that_was_overtaken_is_dropped(reader: ArmStateReader) -> None:
    accepted(reader.read(10 * MS, NAMES, ARM.home, REST))
    assert refused(reader.read(8 * MS, NAMES, ARM.home, REST)) == "old stamp"
    assert accepted(reader.read(12 * MS, NAMES, ARM.home, REST)).continues


def test_time_that_jumps_back_far_starts_anew_at_once(reader: ArmStateReader) -> None:
    accepted(reader.read(5000 * MS, NAMES, ARM.home, REST))
    sample = accepted(reader.read(0, NAMES, ARM.home, REST))
    assert (sample.continues, sample.period) == (False, 0.0)
    assert accepted(reader.read(2 * MS, NAMES, ARM.home, REST)).continues


def test_time_that_jumps_back_a_little_starts_anew_at_the_second_message(reader: ArmStateReader) -> None:
    accepted(reader.read(50 * MS, NAMES, ARM.home, REST))
    assert refused(reader.read(0, NAMES, ARM.home, REST)) == "old stamp"
    assert not accepted(reader.read(0, NAMES, ARM.home, REST)).continues
    assert accepted(reader.read(2 * MS, NAMES, ARM.home, REST)).continues


def test_a_gap_is_no_continuation(reader: ArmStateReader) -> None:
    accepted(reader.read(0, NAMES, ARM.home, REST))
    assert not accepted(reader.read(500 * MS, NAMES, ARM.home, REST)).continues


@pytest.mark.parametrize("names", [NAMES[:6], [*NAMES[:6], NAMES[0]], [*NAMES[:6], ""], [*NAMES, "panda_joint8"]])
def test_a_wrong_list_of_names_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="joint_names"):
        ArmStateReader(names, ARM.limits)


@settings(deadline=None)
@given(
    messages=st.lists(
        st.tuples(
            st.integers(0, 10**10),
            st.one_of(st.just(NAMES), st.permutations(NAMES), st.lists(st.sampled_from(NAMES), max_size=9)),
            JUNK,
            JUNK,
        ),
        max_size=8,
    )
)
def test_whatever_comes_in_what_comes_out_is_finite_and_plausible(
    messages: list[tuple[int, list[str], list[float], list[float]]],
) -> None:
    reader = ArmStateReader(NAMES, ARM.limits)
    for message in messages:
        outcome = reader.read(*message)
        if isinstance(outcome, ArmSample):
            assert np.isfinite(outcome.joint_position).all()
            assert np.isfinite(outcome.joint_velocity).all()
            assert (np.abs(outcome.joint_velocity) <= 10 * ARM.limits.velocity).all()
            assert 0.0 <= outcome.period <= reader.longest_gap
    assert sum(reader.rejections.values()) <= len(messages)
