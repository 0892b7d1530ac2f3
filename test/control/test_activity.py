"""Other nodes hear when the arm begins to reach, has reached, holds still or cannot move."""

import pytest

from spiking_controller.control.activity import FAULT, IDLE, REACHED, REACHING, ActivityTracker
from spiking_controller.control.fault import Fault

MS = 1_000_000


@pytest.fixture
def tracker() -> ActivityTracker:
    return ActivityTracker(reached_distance=0.02)


def follow(tracker: ActivityTracker, distances: list[float], start: int = 0) -> list[str]:
    """One control step every 20 ms; the states that were news."""
    return [
        tracker.now.state for index, distance in enumerate(distances) if tracker.step(start + 20 * MS * index, distance)
    ]


def test_a_goal_is_reached_once_the_hand_has_stayed_near_it(tracker: ActivityTracker) -> None:
    tracker.new_goal(0)
    assert follow(tracker, [0.3, 0.1] + [0.01] * 20) == [REACHED]
    assert tracker.now.since == 40 * MS
    assert tracker.now.distance == 0.01


def test_passing_by_is_not_reaching(tracker: ActivityTracker) -> None:
    tracker.new_goal(0)
    assert follow(tracker, [0.1, 0.01, 0.01, 0.1] * 10) == []
    assert tracker.now.state == REACHING


def test_a_hand_that_trembles_at_the_border_stays_at_its_goal_until_it_is_pushed_away(tracker: ActivityTracker) -> None:
    tracker.new_goal(0)
    assert follow(tracker, [0.01] * 20 + [0.021, 0.019] * 10 + [0.05]) == [REACHED, REACHING]


def test_a_new_goal_is_always_news_and_counts_from_then(tracker: ActivityTracker) -> None:
    follow(tracker, [0.01] * 20)
    assert tracker.new_goal(500 * MS)
    assert (tracker.now.state, tracker.now.since, tracker.now.distance) == (REACHING, 500 * MS, None)


def test_a_fault_says_why_and_ends_with_the_next_step(tracker: ActivityTracker) -> None:
    follow(tracker, [0.01] * 20)
    assert tracker.fault(400 * MS, Fault("no joint states.", "no joint states."))
    assert not tracker.fault(500 * MS, Fault("no joint states.", "no joint states for 3 s."))
    assert tracker.fault(600 * MS, Fault("another reason.", "another reason."))
    assert (tracker.now.state, tracker.now.reason, tracker.now.since) == (FAULT, "another reason.", 600 * MS)
    assert follow(tracker, [0.01] * 20, start=700 * MS) == [REACHING, REACHED]


def test_without_a_goal_the_arm_is_idle(tracker: ActivityTracker) -> None:
    follow(tracker, [0.1])
    assert tracker.idle(20 * MS)
    assert not tracker.idle(40 * MS)
    assert (tracker.now.state, tracker.now.since) == (IDLE, 20 * MS)


def test_a_distance_that_is_no_number_is_not_reached(tracker: ActivityTracker) -> None:
    follow(tracker, [float("nan")] * 30)
    assert tracker.now.state == REACHING
