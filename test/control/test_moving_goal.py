"""A stream of goals is one goal that moves; how, is known to within its noise; single goals rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spiking_controller.control.moving_goal import GoalTrack

MS = 1_000_000
START = np.array([0.4, 0.0, 0.5])


def circle(time: float, radius: float = 0.15, speed: float = 0.2) -> NDArray[np.float64]:
    angle = speed * time / radius
    return START + radius * np.array([0.0, np.cos(angle), np.sin(angle)])


@pytest.mark.parametrize("rate", [20, 50, 100])
def test_place_and_motion_of_a_goal_on_a_circle_are_known(rate: int) -> None:
    track = GoalTrack()
    for index in range(2 * rate):
        track.add(index * 1000 * MS // rate, circle(index / rate))
    time = 2.0 - 1 / rate
    motion = track.at(round((time + 0.02) * 1e9))
    assert motion is not None
    np.testing.assert_allclose(motion.position, circle(time + 0.02), atol=0.001)
    velocity = (circle(time + 0.021) - circle(time + 0.019)) / 0.002
    np.testing.assert_allclose(motion.velocity, velocity, atol=0.02)
    acceleration = -(0.2**2 / 0.15**2) * (circle(time + 0.02) - START)
    np.testing.assert_allclose(motion.acceleration, acceleration, atol=0.08)


@given(
    velocity=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    interval=st.integers(2, 150),
    latency=st.floats(0.0, 0.2),
)
def test_a_goal_of_constant_velocity_is_led_exactly(velocity: list[float], interval: int, latency: float) -> None:
    track = GoalTrack()
    for index in range(8):
        continues = track.add(index * interval * MS, START + 0.001 * index * interval * np.array(velocity))
        assert continues == (index > 0)
    motion = track.at(8 * interval * MS, latency)
    expected = START + (0.008 * interval + latency) * np.array(velocity)
    if np.linalg.norm(velocity) > 1e-3:
        assert motion is not None
    if motion is not None:
        np.testing.assert_allclose(motion.position, expected, atol=1e-6)
        np.testing.assert_allclose(motion.velocity, velocity, atol=1e-5)


def test_a_goal_that_is_repeated_rests() -> None:
    track = GoalTrack()
    for index in range(50):
        track.add(20 * index * MS, START)
        assert track.at(20 * index * MS, 0.1) is None
        assert not track.is_moving(20 * index * MS)


def test_noise_is_taken_for_no_motion() -> None:
    rng = np.random.default_rng(0)
    track, speeds = GoalTrack(), []
    for index in range(300):
        track.add(33 * index * MS, START + 0.001 * rng.normal(size=3))
        motion = track.at(33 * index * MS)
        speeds.append(0.0 if motion is None else np.linalg.norm(motion.velocity))
    assert np.mean(np.array(speeds) < 0.001) > 0.75


def test_a_jump_a_pause_and_a_jump_of_time_start_anew() -> None:
    track = GoalTrack()
    for index in range(10):
        track.add(50 * index * MS, circle(0.05 * index))
    assert track.at(450 * MS) is not None
    assert not track.add(500 * MS, circle(0.5) + 0.1)
    assert track.at(500 * MS) is None
    assert track.add(550 * MS, circle(0.5) + 0.1)
    assert not track.add(900 * MS, circle(0.5) + 0.1)
    assert not track.add(100 * MS, circle(0.5) + 0.1)
    assert not track.add(150 * MS, np.full(3, np.nan))


def test_a_goal_that_is_late_is_believed_to_move_less_and_less() -> None:
    track, velocity = GoalTrack(), np.array([0.2, 0.0, 0.0])
    for index in range(10):
        track.add(50 * index * MS, START + 0.05 * index * velocity)
    last = START + 0.45 * velocity
    for age, fraction in ((50, 1.0), (60, 1.0), (80, 0.5), (90, 0.25)):
        motion = track.at((450 + age) * MS)
        assert motion is not None
        np.testing.assert_allclose(motion.velocity, fraction * velocity, atol=1e-6)
        np.testing.assert_allclose(motion.position, last + fraction * 0.001 * age * velocity, atol=1e-6)


def test_a_goal_of_which_no_more_is_heard_stops() -> None:
    track = GoalTrack()
    for index in range(10):
        track.add(50 * index * MS, circle(0.05 * index))
    assert track.at(540 * MS) is not None
    assert track.at(560 * MS) is None
