"""A recording of a live run: what is measured in it, and that it survives the way to disk."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.demo.recording import Recording
from spiking_controller.evaluation.demo.report import report, summary

CONTROL_PERIOD = 0.02
TICKS = 4


@pytest.fixture
def recording() -> Recording:
    """Two goals of 4 s: the hand starts 0.5 m away, jumps to 2 cm after 1 s and to 0.5 cm after 3 s."""
    start, duration = 10.0, 4.0
    hand_time = np.arange(start, start + 2 * duration, 0.02)
    goal = np.array([[0.4, 0.1, 0.5], [-0.3, 0.2, 0.3]])
    goal_time = np.array([start, start + duration])
    index = np.where(hand_time < goal_time[1], 0, 1)
    since = hand_time - goal_time[index]
    distance = np.select([since < 1.0, since < 3.0], [0.5, 0.02], 0.005)
    hand = goal[index] + distance[:, None] * np.array([0.0, 0.0, 1.0])
    spike_time = np.arange(start, start + 2 * duration, CONTROL_PERIOD)
    silent = np.zeros((len(spike_time), TICKS, 30), dtype=np.uint8)
    busy = np.zeros((len(spike_time), TICKS, 10), dtype=np.uint8)
    busy[:, 0] = 1
    return Recording(
        joint_names=("a", "b"),
        joint_time=hand_time,
        joint_position=np.zeros((len(hand_time), 2)),
        hand_time=hand_time,
        hand_position=hand,
        goal_time=goal_time,
        goal=goal,
        goal_duration=duration,
        spike_time=spike_time,
        spikes={"policy/hidden1": busy, "forward_model/hidden1": silent},
    )


def test_final_error_is_the_mean_distance_over_the_last_half_second(recording: Recording) -> None:
    np.testing.assert_allclose(recording.final_error(), [0.005, 0.005], rtol=1e-9)


def test_final_error_of_a_goal_that_was_not_held_to_its_end_is_unknown(recording: Recording) -> None:
    seen = recording.hand_time < 17.0
    cut = dataclasses.replace(
        recording, hand_time=recording.hand_time[seen], hand_position=recording.hand_position[seen]
    )
    assert np.isfinite(cut.final_error()[0])
    assert np.isnan(cut.final_error()[1])


def test_first_reach_counts_from_the_moment_the_goal_was_sent(recording: Recording) -> None:
    assert recording.first_reach(0.03) == pytest.approx([1.0, 1.0], abs=0.021)
    assert recording.first_reach(0.01) == pytest.approx([3.0, 3.0], abs=0.021)
    assert recording.first_reach(0.001) == [None, None]


def test_distance_is_unknown_before_the_first_goal(recording: Recording) -> None:
    later = dataclasses.replace(recording, goal_time=recording.goal_time + 0.5)
    assert np.isnan(later.distance()[:25]).all()
    assert np.isfinite(later.distance()[26:]).all()


def test_firing_is_counted_per_neuron_and_second_and_weighted_by_layer_size(recording: Recording) -> None:
    rates = recording.spike_rate()
    assert rates["policy/hidden1"] == pytest.approx(1 / CONTROL_PERIOD)
    assert rates["forward_model/hidden1"] == 0.0
    assert recording.mean_spike_rate() == pytest.approx(0.25 / CONTROL_PERIOD)


def test_step_times_are_freed_of_the_jitter_of_messages(recording: Recording) -> None:
    jitter = np.random.default_rng(0).uniform(0.0, 0.006, len(recording.spike_time))
    late = dataclasses.replace(recording, spike_time=recording.spike_time + 0.007 + jitter)
    steps = np.diff(late.step_time())
    np.testing.assert_allclose(steps, late.control_period, rtol=1e-9)
    assert late.control_period == pytest.approx(CONTROL_PERIOD, rel=1e-3)


def test_missing_control_steps_are_noticed(recording: Recording) -> None:
    assert recording.control_step_fraction(CONTROL_PERIOD) == pytest.approx(1.0, abs=0.01)
    half = dataclasses.replace(recording, spike_time=recording.spike_time[::2])
    assert half.control_step_fraction(CONTROL_PERIOD) == pytest.approx(0.5, abs=0.01)


def test_recording_comes_back_from_disk_as_it_was(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "recording.npz")
    loaded = Recording.load(tmp_path / "recording.npz")
    for field in dataclasses.fields(Recording):
        was, now = getattr(recording, field.name), getattr(loaded, field.name)
        if field.name == "spikes":
            assert list(was) == list(now)
            assert all(np.array_equal(was[name], now[name]) for name in was)
        else:
            assert np.array_equal(was, now), field.name


def test_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    foreign = tmp_path / "notes.npz"
    foreign.write_text("not an archive")
    with pytest.raises(ConfigError, match=r"notes\.npz"):
        Recording.load(foreign)


def test_summary_has_the_promised_keys_and_the_report_goes_deeper(recording: Recording) -> None:
    headline = summary(recording)
    assert list(headline) == [
        "goals",
        "final_error_m",
        "median_final_error_m",
        "mean_spikes_per_neuron_per_second",
    ]
    assert headline["median_final_error_m"] == pytest.approx(0.005)
    full = report(recording)
    assert headline.items() <= full.items()
    assert full["per_goal"][1]["start_distance_m"] == pytest.approx(0.5)
    assert full["per_goal"][0]["first_reach_s"]["1cm"] == pytest.approx(3.0, abs=0.021)
