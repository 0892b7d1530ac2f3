"""What was seen of a live graph while it was sent to goals, and the figures of merit that follow from it.

Plain arrays, so that a demo, a bag file or a test can fill it alike.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError

FloatArray = NDArray[np.float64]

FINAL_WINDOW = 0.5
"""Length of the window at the end of each goal over which `final_error_m` is averaged, s."""


@dataclass(frozen=True)
class Recording:
    """A run through a list of goals. All times are stamps in seconds, increasing.

    Attributes:
        joint_names: the joints of `joint_position`, in column order.
        joint_time: stamps of the joint states, [samples].
        joint_position: rad, [samples, joints].
        hand_time: stamps of the hand's true poses, [poses].
        hand_position: m in the base frame, [poses, 3].
        goal_time: when each goal was sent, [goals].
        goal: m in the base frame, [goals, 3].
        goal_duration: how long each goal was held, s.
        spike_time: stamp of the joint state before each control step's spikes, [steps].
        spikes: by layer, 0 or 1, uint8 [steps, ticks, neurons].
    """

    joint_names: tuple[str, ...]
    joint_time: FloatArray
    joint_position: FloatArray
    hand_time: FloatArray
    hand_position: FloatArray
    goal_time: FloatArray
    goal: FloatArray
    goal_duration: float
    spike_time: FloatArray
    spikes: dict[str, NDArray[np.uint8]]

    def save(self, path: Path) -> None:
        """Write everything as one compressed NumPy archive."""
        layers: dict[str, Any] = {
            f"spikes/{name}": np.packbits(spikes, axis=-1) for name, spikes in self.spikes.items()
        }
        neurons: dict[str, Any] = {
            f"neurons/{name}": np.array(spikes.shape[-1]) for name, spikes in self.spikes.items()
        }
        np.savez_compressed(
            path,
            joint_names=np.array(self.joint_names),
            joint_time=self.joint_time,
            joint_position=self.joint_position,
            hand_time=self.hand_time,
            hand_position=self.hand_position,
            goal_time=self.goal_time,
            goal=self.goal,
            goal_duration=np.array(self.goal_duration),
            spike_time=self.spike_time,
            **layers,
            **neurons,
        )

    @staticmethod
    def load(path: Path) -> "Recording":
        """Read what `save` wrote.

        Raises:
            ConfigError: the file is missing or is not such an archive.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = [key.partition("/")[2] for key in archive.files if key.startswith("spikes/")]
                return Recording(
                    joint_names=tuple(str(name) for name in archive["joint_names"]),
                    joint_time=archive["joint_time"],
                    joint_position=archive["joint_position"],
                    hand_time=archive["hand_time"],
                    hand_position=archive["hand_position"],
                    goal_time=archive["goal_time"],
                    goal=archive["goal"],
                    goal_duration=float(archive["goal_duration"]),
                    spike_time=archive["spike_time"],
                    spikes={
                        name: np.unpackbits(archive[f"spikes/{name}"], axis=-1, count=int(archive[f"neurons/{name}"]))
                        for name in names
                    },
                )
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(f"{path} is not a recording that the demo wrote: {error}.") from error

    def active_goal(self, time: FloatArray) -> NDArray[np.intp]:
        """Index of the goal that is pursued at each time [samples]; -1 before the first goal."""
        return np.searchsorted(self.goal_time, time, side="right") - 1

    def distance(self) -> FloatArray:
        """Distance of the hand from the active goal at each `hand_time`, m, [poses]; NaN before any goal."""
        index = self.active_goal(self.hand_time)
        distance = np.linalg.norm(self.hand_position - self.goal[index], axis=-1)
        return np.where(index >= 0, distance, np.nan)

    def elapsed(self) -> FloatArray:
        """Time since the active goal was sent at each `hand_time`, s, [poses]; NaN before any goal."""
        index = self.active_goal(self.hand_time)
        return np.where(index >= 0, self.hand_time - self.goal_time[index], np.nan)

    def final_error(self) -> FloatArray:
        """Mean distance over the last 0.5 s of each goal, m, [goals]; NaN for a goal not seen to its end."""
        index, distance, elapsed = self.active_goal(self.hand_time), self.distance(), self.elapsed()
        in_window = (elapsed > self.goal_duration - FINAL_WINDOW) & (elapsed <= self.goal_duration)
        result = np.full(len(self.goal_time), np.nan)
        for goal in range(len(result)):
            chosen = distance[in_window & (index == goal)]
            if chosen.size:
                result[goal] = chosen.mean()
        return result

    def first_reach(self, threshold: float) -> list[float | None]:
        """Seconds until the hand was first within `threshold` (m) of each goal; None where it never was."""
        index, distance, elapsed = self.active_goal(self.hand_time), self.distance(), self.elapsed()
        near = (distance < threshold) & (elapsed <= self.goal_duration)
        times = [elapsed[near & (index == goal)] for goal in range(len(self.goal_time))]
        return [float(found[0]) if found.size else None for found in times]

    @property
    def control_period(self) -> float:
        """Stamped time between two control steps, s; NaN when fewer than two were seen."""
        return self._step_grid()[0]

    def step_time(self) -> FloatArray:
        """When each control step began, s, [steps]: `spike_time` without the jitter of messages, on a regular grid."""
        period, start = self._step_grid()
        return np.asarray(start + period * np.round((self.spike_time - start) / period))

    def _step_grid(self) -> tuple[float, float]:
        """Period and first time of the regular grid that fits `spike_time` best, s."""
        if len(self.spike_time) < 2:
            return float("nan"), float("nan")
        difference = np.diff(self.spike_time)
        steps = np.append(0.0, np.cumsum(np.round(difference / np.median(difference))))
        period, start = np.polyfit(steps, self.spike_time, 1)
        return float(period), float(start)

    def control_step_fraction(self, control_period: float) -> float:
        """Share of the control steps that were due, one each `control_period` (s), whose spikes were seen.

        Well below 1 where the machine was too busy for real time.
        """
        due = (self.joint_time[-1] - self.joint_time[0]) / control_period
        return min(float(len(self.spike_time) / due), 1.0)

    def spike_rate(self) -> dict[str, float]:
        """Mean spikes per neuron and second, by layer."""
        return {
            name: float(spikes.mean(axis=(0, 2)).sum() / self.control_period) for name, spikes in self.spikes.items()
        }

    def mean_spike_rate(self) -> float:
        """Mean spikes per neuron and second over all neurons of all layers; 0 for networks without spikes."""
        if not self.spikes:
            return 0.0
        neurons = [spikes.shape[-1] for spikes in self.spikes.values()]
        return float(np.average(list(self.spike_rate().values()), weights=neurons))
