"""A replay memory in a file of fixed size: it survives the end of the process, however that comes about."""

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from spiking_controller.errors import ConfigError
from spiking_controller.tasks.segments import Segment
from spiking_controller.training.replay_memory import ReplayMemory


class SegmentStore(ReplayMemory):
    """Segments in a memory-mapped .npy file of one record each; what is not complete is found out and left out.

    A record is (sequence, checksum, observation, action, goal). Its sequence number is zero while it is being written.
    A process that is killed thus loses at most the segment that it was writing; what a crash of the whole machine
    leaves half-written does not fit its checksum.
    """

    def __init__(self, path: Path, capacity: int, steps: int, observation: int, action: int, goal: int) -> None:
        """Open a file, or make one.

        Args:
            path: of the file; its folder exists.
            capacity: most segments. In a file with another capacity the latest are kept.
            steps, observation, action, goal: sizes, as of `ReplayMemory`.
        Raises:
            ConfigError: the file cannot be used, or holds segments of other sizes.
        """
        self.capacity = capacity
        self.steps = steps
        self._kind = np.dtype(
            [
                ("sequence", "<u8"),
                ("checksum", "<u4"),
                ("observation", "<f4", (steps + 1, observation)),
                ("action", "<f4", (steps + 1, action)),
                ("goal", "<f4", (goal,)),
            ]
        )
        try:
            records, rebuilt = self._open(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be used ({error.strerror}); give another folder.") from None
        self.rebuilt = rebuilt
        """Whether the file was written anew, without what was damaged or too much."""
        self._sequence: np.ndarray = np.asarray(records["sequence"])
        self._checksum: np.ndarray = np.asarray(records["checksum"])
        self.observation = np.asarray(records["observation"])
        self.action = np.asarray(records["action"])
        self.goal = np.asarray(records["goal"])
        self.added = int(self._sequence.max(initial=0))

    def put(self, slot: int, segment: Segment) -> None:
        """See `ReplayMemory.put`."""
        self._sequence[slot] = 0
        super().put(slot, segment)
        self._checksum[slot] = _checksum(self.observation[slot], self.action[slot], self.goal[slot])
        self._sequence[slot] = self.added

    def clear(self) -> None:
        """See `ReplayMemory.clear`."""
        self._sequence[:] = 0
        super().clear()

    def _open(self, path: Path) -> tuple[np.ndarray, bool]:
        if not path.exists():
            return self._new_file(path, np.zeros(0, self._kind)), False
        try:
            records: np.ndarray = np.lib.format.open_memmap(path, mode="r+")
        except ValueError as error:
            raise ConfigError(f"{path}: is no memory of segments ({error}); move it away.") from None
        if records.dtype != self._kind or records.ndim != 1:
            raise ConfigError(
                f"{path}: holds segments of another arm or length ({records.dtype}); give another folder, or the "
                "same segment_steps and arm as before."
            )
        whole = [
            slot
            for slot in np.argsort(records["sequence"], kind="stable")
            if records["sequence"][slot] and records["checksum"][slot] == _checksum(*_content(records[slot]))
        ]
        in_order = len(records) == self.capacity and sorted(whole) == list(range(len(whole)))
        expected = min(int(records["sequence"].max(initial=0)), self.capacity)
        if in_order and len(whole) == expected:
            return records, False
        return self._new_file(path, np.array(records[whole[-self.capacity :]])), True

    def _new_file(self, path: Path, records: np.ndarray) -> np.ndarray:
        """Write a file with these records first, so that a crash leaves the old one or the new one."""
        temporary = path.with_name(f".{path.name}.new")
        new: Any = np.lib.format.open_memmap(temporary, "w+", self._kind, (self.capacity,))
        new[: len(records)] = records
        new["sequence"][: len(records)] = np.arange(1, len(records) + 1)
        new.flush()
        os.replace(temporary, path)
        records_of_file: np.ndarray = new
        return records_of_file


def _content(record: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return record["observation"], record["action"], record["goal"]


def _checksum(*parts: np.ndarray) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(np.ascontiguousarray(part).tobytes(), value)
    return value
