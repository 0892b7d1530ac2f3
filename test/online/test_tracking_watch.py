"""New networks are given back when the goals after them end clearly worse than those before."""

import pytest

from spiking_controller.online.tracking_watch import TrackingWatch

STEP = 20_000_000


@pytest.fixture
def watch() -> TrackingWatch:
    return TrackingWatch(factor=2.0, goals=3)


def hold(watch: TrackingWatch, errors: list[float], seconds: float = 3.0) -> list[str]:
    """Hold one goal after the other, with that error at its end; what was said as each ended."""
    said = []
    for number, error in enumerate(errors):
        for step in range(round(seconds * 50)):
            watch.step((number * 1000 + step) * STEP, 0.5 if step < round(seconds * 50) - 26 else error)
        said.append(watch.goal_ended())
    return said


def test_networks_that_track_worse_are_given_back_after_the_set_number_of_goals(watch: TrackingWatch) -> None:
    assert hold(watch, [0.01, 0.012, 0.011, 0.01]) == [""] * 4
    watch.new_networks()
    first, second, third = hold(watch, [0.05, 0.04, 0.06])
    assert (first, second) == ("", "")
    assert "0.050 m away, with the networks before it usually came within 0.011 m" in third


def test_a_goal_that_moves_is_judged_only_where_it_comes_to_rest(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 4)
    watch.new_networks()
    for _ in range(3):
        for step in range(200):
            watch.step(step * STEP, 0.5)
            watch.goal_moved()
        assert watch.goal_ended() == ""
    assert watch.on_trial
    assert "0.050 m away" in hold(watch, [0.05, 0.05, 0.05])[-1]


def test_networks_that_track_as_well_stay_and_are_not_judged_again(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 4)
    watch.new_networks()
    assert hold(watch, [0.012, 0.3, 0.012]) == [""] * 3
    assert hold(watch, [0.3] * 5) == [""] * 5


def test_where_goals_end_very_differently_three_bad_ones_prove_nothing(watch: TrackingWatch) -> None:
    hold(watch, [0.02, 0.02, 0.3, 0.02, 0.3, 0.02, 0.3, 0.02])
    watch.new_networks()
    assert hold(watch, [0.3, 0.3, 0.3]) == [""] * 3


def test_errors_that_are_all_tiny_are_equally_good(watch: TrackingWatch) -> None:
    hold(watch, [0.0005] * 4)
    watch.new_networks()
    assert hold(watch, [0.005] * 3) == [""] * 3


def test_goals_that_were_given_up_early_do_not_count(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 4)
    watch.new_networks()
    assert hold(watch, [0.3] * 10, seconds=1.0) == [""] * 10


def test_without_enough_goals_before_there_is_no_verdict(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 2)
    watch.new_networks()
    assert hold(watch, [0.3] * 3) == [""] * 3


def test_a_factor_of_zero_switches_the_watch_off() -> None:
    watch = TrackingWatch(factor=0.0, goals=3)
    hold(watch, [0.01] * 4)
    watch.new_networks()
    assert hold(watch, [0.3] * 6) == [""] * 6


def test_networks_that_have_been_given_back_are_not_judged(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 4)
    watch.new_networks()
    watch.settle()
    assert hold(watch, [0.3] * 6) == [""] * 6


def test_networks_that_run_again_settle_until_enough_goals_are_known(watch: TrackingWatch) -> None:
    assert not watch.settling
    watch.settle()
    for _ in range(3):
        assert watch.settling
        hold(watch, [0.01])
    assert not watch.settling
    watch.settle()
    hold(watch, [0.3] * 29, seconds=1.0)
    assert watch.settling
    hold(watch, [0.3], seconds=1.0)
    assert not watch.settling, "goals that are given up early are not waited for for ever"


def test_networks_whose_goals_are_always_given_up_early_stay(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 4)
    watch.new_networks()
    hold(watch, [0.3] * 29, seconds=1.0)
    assert watch.on_trial
    hold(watch, [0.3], seconds=1.0)
    assert not watch.on_trial


def test_after_going_back_the_goals_from_then_on_are_the_measure(watch: TrackingWatch) -> None:
    hold(watch, [0.01] * 4)
    watch.new_networks()
    assert hold(watch, [0.3] * 3)[-1]
    watch.settle()
    hold(watch, [0.3] * 3)
    watch.new_networks()
    assert hold(watch, [0.3] * 3) == [""] * 3
