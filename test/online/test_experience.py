"""What is recorded stays within its bounds, survives a restart, and recent and old steps are mixed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.online.experience import LONGEST_GOAL, Experience, ExperienceSettings
from spiking_controller.online.segment_store import SegmentStore
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.segments import Segment

STEPS = 4
TASK = get_task("planar_reach")
SMALL = ExperienceSettings(
    segment_steps=STEPS, recent_segments=8, old_segments=12, old_share=0.25, held_back_segments=3, hold_back_every=5
)


def segment(number: int) -> Segment:
    """A segment whose every entry is its number."""
    return Segment(
        np.full((STEPS + 1, 6), number, np.float32),
        np.full((STEPS, 2), number, np.float32),
        np.full(2, number, np.float32),
        np.full(2, number, np.float32),
    )


def experience(directory: Path | None = None, settings: ExperienceSettings = SMALL) -> Experience:
    return Experience(TASK, settings, np.random.default_rng(0), directory)


def store(path: Path, capacity: int = 5) -> SegmentStore:
    return SegmentStore(path, capacity, STEPS, 6, 2, 2)


def numbers(memory: object) -> list[int]:
    return sorted(int(goal[0]) for goal in memory.goal[: len(memory)])  # type: ignore[attr-defined, arg-type]


def test_memory_is_bounded_and_part_of_the_segments_is_held_back() -> None:
    kept = experience()
    for number in range(1, 101):
        kept.add(segment(number))
    assert (len(kept.recent), len(kept.old), len(kept.held_back)) == (8, 12, 3)
    assert numbers(kept.held_back) == [90, 95, 100]
    assert numbers(kept.recent) == [91, 92, 93, 94, 96, 97, 98, 99]
    assert max(numbers(kept.old)) <= 89
    assert all(number % 5 for number in numbers(kept.old)), "held-back segments are never learnt from"


def test_whole_goals_are_held_back_and_a_long_one_counts_as_several() -> None:
    kept = experience(settings=replace(SMALL, recent_segments=100, held_back_segments=100))
    one, other = segment(1), segment(2)
    for number in range(1, 11):
        for _ in range(3):
            kept.add(segment(number))
    assert numbers(kept.held_back) == [5] * 3 + [10] * 3
    held_back = len(kept.held_back)
    for _ in range(10 * LONGEST_GOAL):
        kept.add(one)
    assert len(kept.held_back) - held_back == 2 * LONGEST_GOAL
    kept.add(other)
    assert numbers(kept.recent)[-1] == 9, "the next goal is on its own"


def test_the_latest_segments_may_count_as_old_and_recent() -> None:
    kept = experience()
    for number in range(1, 60):
        kept.add(segment(number))
    latest = sorted(numbers(kept.recent))[-2:]
    kept.start_anew(keep=2)
    assert numbers(kept.recent) == latest
    assert set(latest) <= set(numbers(kept.old))
    kept.start_anew(keep=100)
    assert numbers(kept.recent) == latest


@pytest.mark.parametrize("on_disk", [False, True])
def test_after_a_change_of_the_arm_everything_before_is_old(on_disk: bool, tmp_path: Path) -> None:
    folder = tmp_path if on_disk else None
    kept = experience(folder)
    for number in range(1, 5):
        kept.add(segment(number))
    kept.start_anew()
    assert (len(kept.recent), numbers(kept.old)) == (0, [1, 2, 3, 4])
    kept.add(segment(6))
    assert numbers(kept.recent) == [6] or numbers(kept.held_back) == [6]
    for number in range(7, 10):
        kept.add(segment(number))
    kept.close()
    again = experience(folder) if on_disk else kept
    assert numbers(again.old) == [1, 2, 3, 4]
    assert sorted(numbers(again.recent) + numbers(again.held_back)) == [6, 7, 8, 9]


def test_old_times_fade_out_slowly() -> None:
    kept = experience()
    for number in range(1, 60):
        kept.add(segment(number))
    assert min(numbers(kept.old)) < 30
    assert len(set(numbers(kept.old))) == 12


def test_the_share_of_old_steps_is_kept_in_every_draw() -> None:
    kept = experience()
    for number in range(1, 101):
        kept.add(segment(number))
    windows = kept.windows(np.random.default_rng(1), 16, 3)
    assert windows.observation.shape == (4, 16, 6)
    assert windows.action.shape == (3, 16, 2)
    assert windows.goal.shape == (16, 2)
    assert int((windows.goal[:, 0] < 91).sum()) == 4
    assert (windows.observation[0, :, 0] == windows.goal[:, 0]).all()


def test_without_old_segments_everything_is_recent() -> None:
    kept = experience()
    for number in range(1, 6):
        kept.add(segment(number))
    assert kept.windows(np.random.default_rng(1), 16, 3).goal.shape == (16, 2)


def test_a_restart_loses_no_segment(tmp_path: Path) -> None:
    before = experience(tmp_path)
    for number in range(1, 31):
        before.add(segment(number))
    found = [numbers(memory) for memory in (before.recent, before.old, before.held_back)]
    before.close()
    after = experience(tmp_path)
    assert [numbers(memory) for memory in (after.recent, after.old, after.held_back)] == found
    after.add(segment(31))
    assert 31 in numbers(after.recent)
    assert min(found[0]) not in numbers(after.recent), "the oldest gives way, as before the restart"


def test_the_files_do_not_grow(tmp_path: Path) -> None:
    kept = experience(tmp_path)
    size = kept.bytes_on_disk
    for number in range(1, 101):
        kept.add(segment(number))
    assert kept.bytes_on_disk == size > 0


def test_two_processes_cannot_use_one_folder(tmp_path: Path) -> None:
    first = experience(tmp_path)
    with pytest.raises(ConfigError, match="another process learns from this folder"):
        experience(tmp_path)
    first.close()
    experience(tmp_path).close()


def test_segments_of_another_task_are_refused(tmp_path: Path) -> None:
    experience(tmp_path).close()
    with pytest.raises(ConfigError, match="arm is 'planar_arm' there, but 'panda' here"):
        Experience(get_task("panda_reach"), SMALL, np.random.default_rng(0), tmp_path)


def test_segments_of_another_length_are_refused(tmp_path: Path) -> None:
    store(tmp_path / "recent.npy")
    with pytest.raises(ConfigError, match="segments of another arm or length"):
        SegmentStore(tmp_path / "recent.npy", 5, STEPS + 1, 6, 2, 2)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recent.npy").write_text("no segments")
    with pytest.raises(ConfigError, match="is no memory of segments"):
        store(tmp_path / "recent.npy")


@pytest.mark.parametrize("damaged", [0, 2, 4])
def test_a_segment_that_was_cut_off_while_it_was_written_is_left_out(tmp_path: Path, damaged: int) -> None:
    path = tmp_path / "recent.npy"
    first = store(path)
    for number in range(1, 6):
        first.add_segment(segment(number))
    first.observation[damaged, 2, 0] = 99.0
    after = store(path)
    assert after.rebuilt
    assert numbers(after) == [number for number in range(1, 6) if number != damaged + 1]
    assert not store(path).rebuilt
    after.add_segment(segment(6))
    assert 6 in numbers(after)


def test_a_segment_under_way_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "recent.npy"
    first = store(path)
    for number in range(1, 8):
        first.add_segment(segment(number))
    first._sequence[1] = 0  # as while slot 1 is written
    assert numbers(store(path)) == [3, 4, 5, 6]


def test_with_less_room_the_latest_stay(tmp_path: Path) -> None:
    path = tmp_path / "recent.npy"
    first = store(path)
    for number in range(1, 8):
        first.add_segment(segment(number))
    assert numbers(store(path, capacity=2)) == [6, 7]
    larger = store(path, capacity=4)
    larger.add_segment(segment(8))
    assert numbers(larger) == [6, 7, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old_share": 1.0}, "old_share"),
        ({"hold_back_every": 1}, "hold_back_every"),
        ({"recent_segments": 0}, "recent_segments"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExperienceSettings(**change)  # type: ignore[arg-type]
