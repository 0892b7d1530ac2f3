"""Legal commands pass the watch bit-equal; whatever else comes, the torque stays legal and ends at zero."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spiking_controller.control.supervisor import FaultBegan, FaultEnded, Instant, Timeouts
from spiking_controller.control.torque_watch import Torque, TorqueWatch
from spiking_controller.robots.arm import get_arm

LIMITS = get_arm("panda").limits
PERIOD = 0.002
STEP = LIMITS.torque_rate * PERIOD
TIMEOUT, WALL_TIMEOUT = 0.1, 2.0
NONE = np.zeros(7)

COMMANDS = st.one_of(
    arrays(np.float64, 7, elements=st.floats()),
    arrays(np.float64, 7, elements=st.floats(-90.0, 90.0)),
    arrays(np.float64, 7, elements=st.floats(-5.0, 5.0)),
    st.lists(st.floats(), max_size=9),
)
ACTIONS = st.one_of(COMMANDS, st.sampled_from(["silence", "ramp", "pause"]))


def watch_at(torque: np.ndarray) -> TorqueWatch:
    """A watch that has passed this torque on at time zero."""
    watch = TorqueWatch(LIMITS, PERIOD, Timeouts(TIMEOUT, WALL_TIMEOUT))
    watch.torque = tuple(torque)
    watch.receive(torque, 0.0)
    watch.check_silence(at(0.0))
    assert watch.fault is None
    return watch


def at(time: float) -> Instant:
    """A moment that both clocks agree on, s."""
    return Instant(time, time)


def ramped_down(watch: TorqueWatch) -> int:
    """Ramp until the torque is zero; how many steps it took."""
    steps = 0
    while any(watch.torque):
        watch.ramp()
        steps += 1
    return steps


@given(st.lists(ACTIONS, min_size=1, max_size=30))
def test_whatever_comes_the_torque_is_finite_and_keeps_its_limits(actions: list[Any]) -> None:
    watch = TorqueWatch(LIMITS, PERIOD, Timeouts(TIMEOUT, WALL_TIMEOUT))
    time = 0.0
    for action in actions:
        before = np.array(watch.torque)
        time += 1.0 if isinstance(action, str) and action == "pause" else PERIOD
        sent: Torque | None = None
        if isinstance(action, str):
            watch.check_silence(at(time))
            sent = watch.ramp() if action == "ramp" else None
        else:
            sent = watch.receive(action, time)
        assert sent is None or sent is watch.torque
        assert sent is not None or np.array_equal(watch.torque, before), "what is not sent does not count"
        assert len(watch.torque) == 7
        assert np.isfinite(watch.torque).all()
        assert (np.abs(watch.torque) <= LIMITS.torque).all()
        assert (np.abs(watch.torque - before) <= STEP * (1 + 1e-12)).all()


@given(
    start=arrays(np.float64, 7, elements=st.floats(-12.0, 12.0)),
    shares=st.lists(arrays(np.float64, 7, elements=st.floats(-1.0, 1.0)), min_size=1, max_size=20),
)
def test_a_legal_stream_of_commands_passes_bit_equal(start: np.ndarray, shares: list[np.ndarray]) -> None:
    watch = watch_at(start)
    command = start
    for number, share in enumerate(shares, start=1):
        # As the controller limits its torque.
        wanted = np.clip(command + 3.0 * share, -LIMITS.torque, LIMITS.torque)
        command = np.minimum(np.maximum(wanted, command - STEP), command + STEP)
        sent = watch.receive(command, number * PERIOD)
        assert sent is not None
        assert np.array(sent).tobytes() == command.tobytes()
    assert not watch.take_events()


def test_negative_zero_passes_bit_equal() -> None:
    sent = watch_at(STEP).receive(-NONE, PERIOD)
    assert sent is not None
    assert np.signbit(sent).all()


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("wrong length", [10.0] * 6),
        ("wrong length", []),
        ("not finite", [10.0] * 6 + [np.nan]),
        ("not finite", [-np.inf] + [10.0] * 6),
        ("torque limit", [10.0] * 6 + [12.01]),
        ("torque limit", [-87.01] + [10.0] * 6),
        ("torque rate limit", [10.0] * 6 + [7.9]),
        ("torque rate limit", [12.1] + [10.0] * 6),
    ],
)
def test_a_wrong_command_ramps_the_torque_to_zero_at_once(kind: str, command: list[float]) -> None:
    watch = watch_at(np.full(7, 10.0))
    sent = watch.receive(command, PERIOD)
    assert sent == pytest.approx([8.0] * 7)
    assert watch.fault is not None
    assert watch.fault.kind == kind
    assert watch.fault.sentence.endswith(".")
    assert watch.take_events() == [FaultBegan(watch.fault, has_torque=True)]
    assert watch.counts[kind] == 1
    assert ramped_down(watch) == 4


def test_a_changed_torque_is_named_with_its_joint_and_limit() -> None:
    watch = watch_at(np.full(7, 10.0))
    watch.receive([10.0, 10.0, 30.0, 10.0, 10.0, 10.0, 10.0], PERIOD)
    assert watch.fault is not None
    assert "joint 3 by 20 N·m; the rate limit allows 2 N·m" in watch.fault.sentence
    watch.receive([10.0, 90.0, 30.0, 10.0, 10.0, 10.0, 10.0], 2 * PERIOD)
    assert "joint 2 for 90 N·m; its limit is 87" in watch.fault.sentence


def test_commands_that_stay_away_ramp_the_torque_to_zero() -> None:
    watch = watch_at(np.full(7, 10.0))
    watch.check_silence(at(TIMEOUT - 0.001))
    assert watch.fault is None
    watch.check_silence(at(TIMEOUT + 0.001))
    assert watch.fault is not None
    assert watch.take_events() == [FaultBegan(watch.fault, has_torque=True)]
    assert ramped_down(watch) == 5
    watch.check_silence(at(1.0))
    assert not watch.take_events(), "once is enough"


def test_simulated_time_that_stands_still_is_silence_after_the_wall_timeout() -> None:
    watch = watch_at(np.full(7, 10.0))
    watch.check_silence(Instant(node=0.0, steady=WALL_TIMEOUT - 0.1))
    assert watch.fault is None
    watch.check_silence(Instant(node=0.0, steady=WALL_TIMEOUT + 0.1))
    assert watch.fault is not None


def test_simulated_time_that_was_reset_is_no_silence_but_is_measured_anew() -> None:
    watch = watch_at(np.full(7, 10.0))
    watch.receive(np.full(7, 10.0), PERIOD)
    watch.check_silence(Instant(node=50.0, steady=PERIOD))
    watch.check_silence(Instant(node=0.0, steady=2 * PERIOD))
    assert watch.fault is None
    watch.check_silence(Instant(node=TIMEOUT + 0.01, steady=TIMEOUT + 0.01))
    assert watch.fault is not None


def test_a_controller_that_stops_in_order_is_no_fault() -> None:
    watch = watch_at(STEP)
    watch.receive(NONE, PERIOD)
    assert not watch.is_quiet
    watch.check_silence(at(PERIOD))
    watch.check_silence(at(5.0))
    assert watch.is_quiet
    assert not watch.take_events()


def test_after_silence_the_torque_follows_from_zero_at_the_rate_limit() -> None:
    watch = watch_at(np.full(7, 10.0))
    watch.check_silence(at(1.0))
    ramped_down(watch)
    command = np.full(7, 9.0)
    sent = [watch.receive(command, 2.0 + number * PERIOD) for number in range(6)]
    assert [torque[0] for torque in sent if torque is not None] == [2.0, 4.0, 6.0, 8.0, 9.0, 9.0]
    assert watch.fault is None
    assert [type(event) for event in watch.take_events()] == [FaultBegan, FaultEnded]


def test_right_commands_are_held_back_until_the_torque_is_zero() -> None:
    watch = watch_at(np.full(7, 5.0))
    watch.receive(np.full(7, np.nan), PERIOD)
    assert watch.receive(np.full(7, 5.0), 2 * PERIOD) is None
    assert watch.receive(np.full(7, 50.0), 3 * PERIOD) is None, "nor does another wrong one jump"
    assert ramped_down(watch) == 2


def test_a_wrong_command_without_torque_is_answered_with_zero() -> None:
    watch = TorqueWatch(LIMITS, PERIOD, Timeouts(TIMEOUT, WALL_TIMEOUT))
    for number in range(3):
        sent = watch.receive([np.nan] * 7, number * PERIOD)
        assert sent is not None
        assert not any(sent)
    assert watch.fault is not None
    assert watch.take_events() == [FaultBegan(watch.fault, has_torque=False)]


def test_a_change_is_judged_by_the_periods_that_have_passed_since_messages_can_be_lost() -> None:
    watch = watch_at(np.full(7, 10.0))
    # Two commands on the way are lost; the third comes somewhat early.
    sent = watch.receive(np.full(7, 4.0), 2.6 * PERIOD)
    assert sent == pytest.approx([8.0] * 7)
    assert watch.fault is None
    assert watch.receive(np.full(7, 3.0), 3.6 * PERIOD) == pytest.approx([6.0] * 7)
    watch.receive(np.full(7, 6.0), 4.6 * PERIOD)
    assert watch.fault is not None
