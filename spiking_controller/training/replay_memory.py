"""Replay memory: the last episodes of the arm, whole, from which training draws windows of consecutive steps."""

import numpy as np

from spiking_controller.tasks.episodes import Episodes
from spiking_controller.tasks.segments import Segment, Windows


class ReplayMemory:
    """First in, first out, in episodes of equal length."""

    def __init__(self, capacity: int, steps: int, observation: int, action: int, goal: int) -> None:
        """Allocate for `capacity` episodes of `steps` control steps with the given sizes."""
        self.capacity = capacity
        self.steps = steps
        self.observation = np.zeros((capacity, steps + 1, observation), np.float32)
        # Row 0 is the action before the first step: zero in whole episodes.
        self.action = np.zeros((capacity, steps + 1, action), np.float32)
        self.goal = np.zeros((capacity, goal), np.float32)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, episodes: Episodes) -> int:
        """Store the episodes that ran to their end; return how many were cut short by the simulation and dropped."""
        complete = np.flatnonzero(episodes.valid_steps >= self.steps)
        for index in complete:
            action = episodes.action[index]
            self.add_segment(
                Segment(episodes.observation[index], action, np.zeros_like(action[0]), episodes.goal[index])
            )
        return len(episodes.valid_steps) - len(complete)

    def add_segment(self, segment: Segment) -> None:
        """Store one segment of `steps` control steps, in place of the oldest if the memory is full."""
        self.put(self.next_slot, segment)

    @property
    def next_slot(self) -> int:
        """Where the next segment goes."""
        return self.added % self.capacity

    def put(self, slot: int, segment: Segment) -> None:
        """Store one segment in a slot that is used already, or in the next one."""
        self.observation[slot] = segment.observation
        self.action[slot, 0] = segment.previous_action
        self.action[slot, 1:] = segment.action
        self.goal[slot] = segment.goal
        self.added += 1

    def clear(self) -> None:
        """Forget everything."""
        self.added = 0

    def segment(self, slot: int) -> Segment:
        """What a slot holds, copied."""
        return Segment(
            self.observation[slot].copy(),
            self.action[slot, 1:].copy(),
            self.action[slot, 0].copy(),
            self.goal[slot].copy(),
        )

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        """Draw `batch` windows of `length` steps, uniform over episodes and starting steps."""
        episode = rng.integers(0, len(self), batch)
        return self.windows_at(episode, rng.integers(0, self.steps - length + 1, batch), length)

    def windows_at(self, episode: np.ndarray, start: np.ndarray, length: int) -> Windows:
        """The windows of `length` steps that begin at these steps of these episodes, [batch] each."""
        step = start[:, None] + np.arange(length + 1)
        observation = self.observation[episode[:, None], step].swapaxes(0, 1)
        action = self.action[episode[:, None], step].swapaxes(0, 1)
        return Windows(observation, action[1:], action[:-1], self.goal[episode])
