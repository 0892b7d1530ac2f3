"""Notices when new networks bring the hand less close to its goals than those before them."""

from collections import deque
from typing import Final

import numpy as np

from spiking_controller.control.arm_state import NANOSECONDS

LAST_PART: Final = round(0.5 * NANOSECONDS)
"""The error of a goal is the mean distance over this last part of the time that it was held, ns."""
SHORTEST_HOLD: Final = 2 * NANOSECONDS
"""A goal that was held for less time tells nothing about how well it can be reached, ns."""
BEFORE: Final = 10
"""Goals that the networks before are judged by."""
FINEST: Final = 0.005
"""Errors below this are equally good, m."""


class TrackingWatch:
    """Compares the errors of the goals since a change of networks with those before it."""

    def __init__(self, factor: float, goals: int) -> None:
        """Judge new networks.

        Args:
            factor: tracking has worsened if the median error is this many times larger; 0: never.
            goals: number of goals after which new networks are judged.
        """
        self._factor = factor
        self._goals = goals
        self._before: deque[float] = deque(maxlen=BEFORE)
        self._since: list[float] = []
        self._on_trial = False
        self._steps: deque[tuple[int, float]] = deque()
        self._goal_since: int | None = None

    def new_networks(self) -> None:
        """Other networks run from now on, and are on trial."""
        self._since.clear()
        self._on_trial = True

    def settle(self) -> None:
        """The networks that run are not on trial, such as after going back to earlier ones."""
        self._since.clear()
        self._on_trial = False

    def step(self, time: int, distance: float) -> None:
        """A control step at stamp `time` (ns) with the hand `distance` (m) away from its goal."""
        if self._steps and time <= self._steps[-1][0]:
            self._forget_goal()
        if self._goal_since is None:
            self._goal_since = time
        self._steps.append((time, distance))
        while time - self._steps[0][0] > LAST_PART:
            self._steps.popleft()

    def goal_ended(self) -> str:
        """The goal is given up for another one.

        Returns:
            Why the networks before should run again, one sentence; empty if they need not.
        """
        steps, since = list(self._steps), self._goal_since
        self._forget_goal()
        if not steps or since is None or steps[-1][0] - since < SHORTEST_HOLD:
            return ""
        error = float(np.mean([distance for _, distance in steps]))
        if not self._on_trial:
            self._before.append(error)
            return ""
        self._since.append(error)
        if len(self._since) < self._goals:
            return ""
        return self._judge()

    def _judge(self) -> str:
        if not self._factor or len(self._before) < self._goals:
            worse = False
        else:
            before, now = float(np.median(self._before)), float(np.median(self._since))
            worse = now > self._factor * max(before, FINEST)
        if worse:
            return (
                f"over the last {self._goals} goals the hand stayed {now:.3f} m away, with the networks before "
                f"{before:.3f} m."
            )
        self._before.extend(self._since)
        self.settle()
        return ""

    def _forget_goal(self) -> None:
        self._steps.clear()
        self._goal_since = None
