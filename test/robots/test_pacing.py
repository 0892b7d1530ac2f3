"""The simulation's pace, without ROS and on a clock that the tests turn."""

import pytest

from spiking_controller.robots.pacing import LONGEST_WAIT, Pacer, Step

PERIOD = 0.002


def pacer(lock_step: bool = False, real_time_factor: float = 1.0) -> Pacer:
    made = Pacer(PERIOD, lock_step, real_time_factor, lock_step_timeout=1.0)
    made.restart(10.0)
    return made


def periods(paced: Pacer, start: float, seconds: float, look_every: float = 0.0005) -> int:
    """How many periods begin in that time of the wall clock."""
    begun = 0
    for look in range(round(seconds / look_every)):
        now = start + look * look_every
        if paced.next_step(now) is Step.ADVANCE:
            paced.advanced(now)
            begun += 1
    return begun


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_simulated_time_keeps_to_the_wall_clock_times_the_factor(factor: float) -> None:
    assert periods(pacer(real_time_factor=factor), 10.0, 1.0) == pytest.approx(factor * 500, abs=2)


def test_the_factor_can_change_on_the_way() -> None:
    paced = pacer()
    periods(paced, 10.0, 1.0)
    paced.real_time_factor = 0.1
    assert periods(paced, 11.0, 1.0) == pytest.approx(50, abs=2)


def test_a_short_delay_is_caught_up_at_no_more_than_twice_the_speed() -> None:
    paced = pacer()
    periods(paced, 10.0, 0.1)
    assert periods(paced, 10.14, 0.02, look_every=0.0001) == pytest.approx(20, abs=1)
    assert periods(paced, 10.16, 0.84) == pytest.approx(500 - 50 - 20, abs=2)
    assert paced.slipped == 0.0


def test_a_long_delay_is_given_up_and_counted() -> None:
    paced = pacer()
    periods(paced, 10.0, 0.1)
    assert periods(paced, 15.0, 1.0) == pytest.approx(500, abs=2)
    assert paced.slipped == pytest.approx(4.9, abs=0.01)


def test_a_pause_does_not_count_as_delay() -> None:
    paced = pacer()
    paced.pause(True, 10.1)
    assert periods(paced, 10.1, 5.0) == 0
    assert paced.sleep(15.1) == LONGEST_WAIT
    paced.pause(False, 15.1)
    assert periods(paced, 15.1, 1.0) == pytest.approx(500, abs=2)
    assert paced.slipped == 0.0


def test_lock_step_begins_one_period_per_command_as_fast_as_they_come() -> None:
    paced = pacer(lock_step=True, real_time_factor=0.0)
    for step in range(100):
        now = 10.0 + 1e-4 * step
        assert paced.next_step(now) is Step.WAIT
        assert not paced.answer()
        assert paced.next_step(now) is Step.ADVANCE
        paced.advanced(now)


def test_lock_step_can_be_held_to_real_time() -> None:
    paced = pacer(lock_step=True)
    begun = 0
    for look in range(1000):
        now = 10.0 + 1e-4 * look
        paced.answer()
        if paced.next_step(now) is Step.ADVANCE:
            paced.advanced(now)
            begun += 1
    assert begun == pytest.approx(50, abs=2)


def test_lock_step_repeats_a_state_that_is_not_answered_and_waits_for_the_first_commander_without_end() -> None:
    paced = pacer(lock_step=True, real_time_factor=0.0)
    steps = [paced.next_step(10.0 + 0.02 * look) for look in range(500)]
    assert set(steps) == {Step.WAIT, Step.REPEAT}
    assert steps.count(Step.REPEAT) == pytest.approx(10.0 / 0.06, abs=2)


def test_lock_step_gives_a_silent_commander_up_goes_on_in_real_time_and_takes_it_back() -> None:
    paced = pacer(lock_step=True, real_time_factor=0.0)
    paced.answer()
    assert paced.next_step(10.0) is Step.ADVANCE
    paced.advanced(10.0)
    assert paced.next_step(10.99) is not Step.GIVE_UP
    assert paced.next_step(11.01) is Step.GIVE_UP
    assert paced.silent
    assert periods(paced, 11.01, 1.0) == pytest.approx(500, abs=2)
    assert paced.answer()
    assert not paced.silent
    assert paced.next_step(13.0) is Step.ADVANCE
    paced.advanced(13.0)
    assert paced.next_step(13.04) is Step.WAIT


def test_a_pause_does_not_count_as_silence() -> None:
    paced = pacer(lock_step=True, real_time_factor=0.0)
    paced.answer()
    paced.advanced(10.0)
    paced.pause(True, 10.1)
    paced.pause(False, 60.0)
    assert paced.next_step(60.5) is not Step.GIVE_UP
    assert paced.next_step(61.1) is Step.GIVE_UP


def test_a_restart_forgets_the_commander() -> None:
    paced = pacer(lock_step=True, real_time_factor=0.0)
    paced.answer()
    paced.restart(20.0)
    assert paced.next_step(20.0) is Step.WAIT
    assert paced.next_step(90.0) is Step.REPEAT
