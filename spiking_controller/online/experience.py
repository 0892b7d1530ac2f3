"""What the arm has done, for learning while it works: recent steps, a sample of older ones, and some held back."""

import fcntl
import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.online.segment_store import SegmentStore
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Segment, Windows
from spiking_controller.training.replay_memory import ReplayMemory

FEWEST_SEGMENTS: Final = 3
"""A goal that was given up sooner says nothing about how close the hand comes."""
_GOALS_REMEMBERED: Final = 10
LONGEST_GOAL: Final = 8
"""So many segments in a row count as on the way to one goal, at most."""


@dataclass(frozen=True)
class ExperienceSettings:
    """How much is kept, and what is learnt from it.

    Attributes:
        segment_steps: control steps of a segment.
        recent_segments: the latest segments that are learnt from, since the arm has last changed.
        old_segments: kept of those before; a new one takes the place of a random one, so that old times fade slowly.
        old_share: share of old segments in what is learnt from.
        held_back_segments: the latest segments that are only judged on.
        hold_back_every: of so many goals, the segments on the way to one are held back: to have learnt is to do better
            on the way to another goal, not between two segments that were learnt from. A goal that is held for long
            counts as several.
    """

    segment_steps: int = 32
    recent_segments: int = 1000
    old_segments: int = 4000
    old_share: float = 0.1
    held_back_segments: int = 36
    hold_back_every: int = 4

    def __post_init__(self) -> None:
        for name in ("segment_steps", "recent_segments", "old_segments", "held_back_segments"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.hold_back_every < 2:
            raise ConfigError(f"hold_back_every = {self.hold_back_every} must be at least 2.")
        if not 0.0 <= self.old_share < 1.0:
            raise ConfigError(f"old_share = {self.old_share} must lie in [0, 1).")


class Experience:
    """Segments in memory, or in a folder, where they survive a restart.

    Attributes:
        recent: the latest since `start_anew`; first in, first out.
        old: a sample of what was in `recent` before.
        held_back: never learnt from; first in, first out.
        final_distances: from hand to goal at the end of the latest goals, m; of those that took `FEWEST_SEGMENTS`.
    """

    def __init__(
        self, task: ReachTask, settings: ExperienceSettings, rng: np.random.Generator, directory: Path | None = None
    ) -> None:
        """Begin, or go on with what the folder holds.

        Args:
            task: whose arm is recorded.
            settings: how much is kept.
            rng: decides which old segments give way.
            directory: where to keep everything; None: in memory only.
        Raises:
            ConfigError: the folder cannot be used, is in use by another process, or holds another task's segments.
        """
        self.settings = settings
        self._rng = rng
        self._task = task
        self._codec = ObservationCodec(task)
        self._directory = directory
        self._goal: NDArray[np.float64] | None = None
        self._goals = 0
        self._of_goal = 0
        self._distance = 0.0
        self.final_distances: deque[float] = deque(maxlen=_GOALS_REMEMBERED)
        if directory is not None:
            self._claim(directory)
        self.recent = self._memory("recent", settings.recent_segments)
        self.old = self._memory("old", settings.old_segments)
        self.held_back = self._memory("held_back", settings.held_back_segments)

    def _memory(self, name: str, capacity: int) -> ReplayMemory:
        task = self._task
        sizes = self.settings.segment_steps, self._codec.size, task.controlled_joints, task.goal_dimensions
        if self._directory is None:
            return ReplayMemory(capacity, *sizes)
        return SegmentStore(self._directory / f"{name}.npy", capacity, *sizes)

    def _claim(self, directory: Path) -> None:
        """Keep other processes out of the folder, and check that what it holds is of this task."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            described = directory / "task.json"
            mine = json.loads(json.dumps(_description(self._task)))
            if not described.exists():
                described.write_text(json.dumps(mine, indent=1))
                return
            found: Mapping[str, Any] = json.loads(described.read_text())
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(
                f"{directory}: another process learns from this folder; end that one, or give another folder."
            ) from None
        except OSError as error:
            raise ConfigError(f"{directory}: cannot be used ({error.strerror}); give another folder.") from None
        except ValueError as error:
            raise ConfigError(f"{directory}/task.json: is not JSON ({error}); give another folder.") from None
        for name, value in mine.items():
            if found.get(name) != value:
                raise ConfigError(
                    f"{directory}: {name} is {found.get(name)!r} there, but {value!r} here; give another folder."
                )

    def close(self) -> None:
        """Give the folder free. Everything is in its files already."""
        if self._directory is not None:
            os.close(self._lock)

    def add(self, segment: Segment) -> None:
        """Keep a segment, to learn from or to judge on."""
        if self._goal is None or self._of_goal == LONGEST_GOAL or not np.array_equal(segment.goal, self._goal):
            if self._of_goal >= FEWEST_SEGMENTS:
                self.final_distances.append(self._distance)
            self._goal = np.array(segment.goal)
            self._goals += 1
            self._of_goal = 0
        self._of_goal += 1
        hand = self._codec.hand_position(segment.observation[-1])
        self._distance = float(np.linalg.norm(segment.goal - hand))
        if self._goals % self.settings.hold_back_every == 0:
            self.held_back.add_segment(segment)
            return
        if len(self.recent) == self.recent.capacity:
            self._keep_as_old(self.recent.next_slot)
        self.recent.add_segment(segment)

    def start_anew(self, keep: int = 0) -> None:
        """The arm has changed: what is recent now counts as old from here on; the latest `keep` segments as both."""
        recent = self.recent
        first = max(recent.added - min(keep, len(recent)), 0)
        latest = [recent.segment(number % recent.capacity) for number in range(first, recent.added)]
        for slot in range(len(recent)):
            self._keep_as_old(slot)
        recent.clear()
        for segment in latest:
            recent.add_segment(segment)

    def _keep_as_old(self, slot: int) -> None:
        old = self.old
        full = len(old) == old.capacity
        old.put(int(self._rng.integers(old.capacity)) if full else old.next_slot, self.recent.segment(slot))

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        """`batch` windows of `length` steps to learn from, `old_share` of them old where there are any."""
        from_old = round(batch * self.settings.old_share) if len(self.old) else 0
        parts = [self.recent.windows(rng, batch - from_old, length)]
        if from_old:
            parts.append(self.old.windows(rng, from_old, length))
        return Windows(
            np.concatenate([part.observation for part in parts], axis=1),
            np.concatenate([part.action for part in parts], axis=1),
            np.concatenate([part.previous_action for part in parts], axis=1),
            np.concatenate([part.goal for part in parts]),
        )

    @property
    def bytes_on_disk(self) -> int:
        """Size of the files, which does not grow; 0 without a folder."""
        if self._directory is None:
            return 0
        return sum(file.stat().st_size for file in self._directory.glob("*.npy"))


def _description(task: ReachTask) -> dict[str, Any]:
    """What must be the same for segments to mean the same."""
    return {
        "arm": task.arm.name,
        "control_period": task.control_period,
        "torque_scale": task.torque_scale.tolist(),
        "damping": task.damping.tolist(),
        "gravity_convention": task.gravity_convention,
    }
