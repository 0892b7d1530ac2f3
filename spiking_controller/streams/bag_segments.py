"""Recorded runs as training data: whole stretches of control steps out of bags, for the forward model to learn from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.errors import ConfigError
from spiking_controller.streams.bag_reader import opened
from spiking_controller.streams.bag_stream import find_stream
from spiking_controller.streams.control_steps import Outcome
from spiking_controller.streams.segments import SegmentCutter
from spiking_controller.streams.step_stream import StepStream, StreamSettings
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Segment

_SUFFIXES = (".mcap", ".db3")


class BagSegments(NamedTuple):
    """What a bag gives.

    Attributes:
        path: of the bag.
        segments: whole ones.
        dropped: what was not used, by reason.
        notes: what was guessed, a sentence each.
    """

    path: Path
    segments: list[Segment]
    dropped: dict[str, int]
    notes: list[str]


class SegmentCollector(StepStream):
    """Cuts stretches of control steps with torques into segments as long as an episode, one after the other.

    Each segment's goal is where the hand is at its end.
    """

    def __init__(self, task: ReachTask, settings: StreamSettings) -> None:
        """Cut segments for networks of this task."""
        super().__init__(task, settings)
        self.segments: list[Segment] = []
        self._codec = ObservationCodec(task)
        self._cutter = SegmentCutter(task, task.steps_per_episode, needs_previous=False)

    def _on_sample(self, sample: ArmSample, outcome: Outcome) -> None:
        for step in outcome.steps:
            if not step.continues or step.torque is None or step.unsettled:
                self._break_off()
            self.counts["control step with a disturbance just noticed"] += step.unsettled
            if step.torque is None or step.unsettled:
                continue
            segment = self._cutter.add(step, self._codec.hand_position(step.following))
            if segment is not None:
                self.segments.append(segment)

    def _break_off(self) -> None:
        unused = self._cutter.break_off()
        if unused:
            self.counts["control step in a stretch that is too short"] += unused

    def finish(self) -> None:
        """See `StepStream.finish`."""
        super().finish()
        self._break_off()


def find_bags(folders: Sequence[Path]) -> list[Path]:
    """Bags in folders and all below them, in order of their names; a bag or one of its files may be named itself.

    Raises:
        ConfigError: a folder does not exist or holds no bag.
    """
    bags: list[Path] = []
    for folder in folders:
        if folder.is_file():
            bags.append(folder)
            continue
        inside = {path.parent for path in folder.rglob("metadata.yaml")}
        loose = {path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.parent not in inside}
        if not inside | loose:
            raise ConfigError(f"{folder} holds no bag; give a folder with rosbag2 folders, .mcap or .db3 files.")
        bags += sorted(inside | loose)
    return bags


def read_segments(path: Path, task: ReachTask) -> BagSegments:
    """All that a bag gives for training.

    Args:
        path: of the bag.
        task: of the networks; the arm must be in the bag, with efforts or commanded torques.
    Raises:
        ConfigError: the bag cannot be read or the arm is not in it.
    """
    with opened(path) as bag:
        stream = find_stream(bag, task.arm)
        collector = SegmentCollector(
            task, StreamSettings(stream.joint_names, stream.measured_torque, stream.includes_gravity)
        )
        stream.feed(bag, collector)
    collector.finish()
    return BagSegments(path, collector.segments, dict(sorted(collector.dropped.items())), stream.notes)
