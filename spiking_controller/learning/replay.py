"""Replay memory: the last episodes of the arm, whole, from which training draws windows of consecutive steps."""

from typing import NamedTuple

import numpy as np

from spiking_controller.tasks.episodes import Episodes


class Windows(NamedTuple):
    """Consecutive control steps of several episodes, time first, float32.

    Attributes:
        observation: [length + 1, batch, observation].
        action: [length, batch, controlled], the action taken from `observation[t]`.
        previous_action: [length, batch, controlled]; zero before an episode's first step.
        goal: [batch, goal], of the episode.
    """

    observation: np.ndarray
    action: np.ndarray
    previous_action: np.ndarray
    goal: np.ndarray


class ReplayMemory:
    """First in, first out, in episodes of equal length."""

    def __init__(self, capacity: int, steps: int, observation: int, action: int, goal: int) -> None:
        """Allocate for `capacity` episodes of `steps` control steps with the given sizes."""
        self.capacity = capacity
        self.steps = steps
        self.observation = np.zeros((capacity, steps + 1, observation), np.float32)
        # Row 0 is the action before the first step, always zero.
        self.action = np.zeros((capacity, steps + 1, action), np.float32)
        self.goal = np.zeros((capacity, goal), np.float32)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, episodes: Episodes) -> int:
        """Store the episodes that ran to their end; return how many were cut short by the simulation and dropped."""
        complete = np.flatnonzero(episodes.valid_steps >= self.steps)
        for index in complete:
            slot = self.added % self.capacity
            self.observation[slot] = episodes.observation[index]
            self.action[slot, 1:] = episodes.action[index]
            self.goal[slot] = episodes.goal[index]
            self.added += 1
        return len(episodes.valid_steps) - len(complete)

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        """Draw `batch` windows of `length` steps, uniform over episodes and starting steps."""
        episode = rng.integers(0, len(self), batch)
        start = rng.integers(0, self.steps - length + 1, batch)
        step = start[:, None] + np.arange(length + 1)
        observation = self.observation[episode[:, None], step].swapaxes(0, 1)
        action = self.action[episode[:, None], step].swapaxes(0, 1)
        return Windows(observation, action[1:], action[:-1], self.goal[episode])
