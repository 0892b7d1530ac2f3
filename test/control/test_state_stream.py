"""The stream of joint states is measured by its stamps, and what forbids control is said in one sentence."""

import numpy as np
import pytest

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.state_stream import StateStream
from spiking_controller.robots.arm import get_arm
from spiking_controller.units import NANOSECONDS

ARM = get_arm("panda")


@pytest.fixture
def stream() -> StateStream:
    return StateStream(ARM.joint_names, ARM.limits, control_period=0.02, rate_limit_period=0.002)


def sample(time: float, position: np.ndarray = ARM.home, continues: bool = True) -> ArmSample:
    return ArmSample(round(time * NANOSECONDS), 0.002, continues, position, np.zeros(7))


def feed(stream: StateStream, period: float, duration: float = 2.0, start: float = 0.0) -> None:
    for index in range(round(duration / period)):
        stream.add(sample(start + index * period, continues=index > 0))


def sentence(stream: StateStream) -> str:
    return stream.problem.sentence if stream.problem else ""


def test_the_period_is_measured_from_the_stamps(stream: StateStream) -> None:
    assert stream.period is None
    feed(stream, 0.002)
    assert stream.period == pytest.approx(0.002)
    assert (stream.problem, stream.warning, stream.late) == (None, "", 0)


def test_states_that_are_slower_than_the_control_period_forbid_control(stream: StateStream) -> None:
    feed(stream, 0.04)
    assert "every 40.0 ms" in sentence(stream)
    assert "control period of 20 ms" in sentence(stream)


def test_even_states_that_are_too_rare_to_continue_each_other_are_judged(stream: StateStream) -> None:
    for index in range(10):
        stream.add(sample(0.5 * index, continues=False))
    assert "every 500.0 ms" in sentence(stream)


def test_control_is_allowed_again_once_the_driver_is_quick_enough(stream: StateStream) -> None:
    feed(stream, 0.04)
    feed(stream, 0.002, start=10.0)
    assert stream.problem is None


def test_a_rate_limit_period_that_does_not_fit_is_warned_of(stream: StateStream) -> None:
    feed(stream, 0.01)
    assert stream.problem is None
    assert "set rate_limit_period to 0.0100" in stream.warning


def test_states_that_were_lost_on_the_way_are_late_and_do_not_make_the_driver_slow(stream: StateStream) -> None:
    for index in range(1000):
        if index % 3 == 0 or index % 20 < 4:
            stream.add(sample(index * 0.008, continues=index > 0))
    assert stream.period == pytest.approx(0.008)
    assert stream.problem is None
    assert stream.late > 200


def test_states_after_a_gap_count_as_late(stream: StateStream) -> None:
    feed(stream, 0.002, duration=0.2)
    stream.add(sample(0.21))
    stream.add(sample(0.212))
    assert stream.late == 1


def test_time_that_jumps_back_is_neither_late_nor_a_period(stream: StateStream) -> None:
    feed(stream, 0.002, duration=0.2)
    feed(stream, 0.002, duration=0.2)
    assert stream.late == 0
    assert stream.period == pytest.approx(0.002)


def test_a_joint_beyond_the_limits_of_the_contract_is_named_until_it_is_back(stream: StateStream) -> None:
    outside = ARM.home.copy()
    outside[3] = 0.5
    stream.add(sample(0.0, outside, continues=False))
    assert "panda_joint4 at 0.500 rad" in sentence(stream)
    stream.add(sample(0.002, outside))
    assert stream.problem
    stream.add(sample(0.004))
    assert stream.problem is None


def test_forgetting_measures_anew_but_keeps_the_count(stream: StateStream) -> None:
    feed(stream, 0.002, duration=0.2)
    stream.add(sample(0.3))
    stream.forget()
    assert stream.period is None
    assert stream.late == 1
