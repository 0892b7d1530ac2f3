"""Notices when new networks bring the hand less close to its goals than those before them."""

from collections import deque
from typing import Final

import numpy as np

from spiking_controller.units import NANOSECONDS

LAST_PART: Final = round(0.5 * NANOSECONDS)
"""The error of a goal is the mean distance over this last part of the time that it was held, ns."""
SHORTEST_HOLD: Final = 2 * NANOSECONDS
"""A goal that was held for less time tells nothing about how well it can be reached, ns."""
BEFORE: Final = 10
"""Goals that the networks before are judged by."""
USUAL_FRACTION: Final = 0.75
"""This share of the goals before ended closer than what new networks are measured against."""
LONGEST_TRIAL: Final = 30
"""Networks whose goals are all given up early are not waited for any longer after this many of them."""
FINEST: Final = 0.005
"""Errors below this are equally good, m."""


class TrackingWatch:
    """Compares the errors of the goals since a change of networks with those before it.

    Attributes:
        on_trial: whether the networks that run are still to be judged.
        settling: whether earlier networks run again and how well they do is not yet known; others would not be judged.
    """

    def __init__(self, factor: float, goals: int) -> None:
        """Judge new networks.

        Args:
            factor: tracking has worsened if the median error is this many times what was usual before; 0: never.
            goals: number of goals after which new networks are judged.
        """
        self._factor = factor
        self._goals = goals
        self._before: deque[float] = deque(maxlen=BEFORE)
        self._since: list[float] = []
        self.on_trial = False
        self.settling = False
        self._unjudged = 0
        self._steps: deque[tuple[int, float]] = deque()
        self._goal_since: int | None = None

    def new_networks(self) -> None:
        """Other networks run from now on, and are on trial."""
        self._end_trial()
        self.on_trial = self._factor > 0.0

    def settle(self) -> None:
        """Earlier networks run again and are not on trial. What counts as "before" is how well they do from now on.

        The arm itself may have changed; then the next networks must not be compared with better times.
        """
        self._end_trial()
        self._before.clear()
        self.settling = self._factor > 0.0

    def _end_trial(self) -> None:
        self.on_trial = False
        self._since.clear()
        self._unjudged = 0

    def step(self, time: int, distance: float) -> None:
        """A control step at stamp `time` (ns) with the hand `distance` (m) away from its goal."""
        if self._steps and time <= self._steps[-1][0]:
            self._forget_goal()
        if self._goal_since is None:
            self._goal_since = time
        self._steps.append((time, distance))
        while time - self._steps[0][0] > LAST_PART:
            self._steps.popleft()

    def goal_moved(self) -> None:
        """The goal is one of a stream and lies elsewhere now: how well it is held is measured from when it rests."""
        self._forget_goal()

    def goal_ended(self) -> str:
        """The goal is given up for another one.

        Returns:
            Why the networks before should run again, one sentence; empty if they need not.
        """
        steps, since = list(self._steps), self._goal_since
        self._forget_goal()
        if not steps or since is None or steps[-1][0] - since < SHORTEST_HOLD:
            self._unjudged += self.on_trial or self.settling
            if self._unjudged >= LONGEST_TRIAL:
                self._end_trial()
                self.settling = False
            return ""
        error = float(np.mean([distance for _, distance in steps]))
        if not self.on_trial:
            self._before.append(error)
            self.settling = self.settling and len(self._before) < self._goals
            return ""
        self._since.append(error)
        return self._judge() if len(self._since) >= self._goals else ""

    def _judge(self) -> str:
        now = float(np.median(self._since))
        if len(self._before) >= self._goals:
            # Not the median: where goals end very differently, three of them are easily twice as far away.
            before = float(np.quantile(self._before, USUAL_FRACTION))
            if now > self._factor * max(before, FINEST):
                return (
                    f"over the last {self._goals} goals the hand stayed {now:.3f} m away, with the networks before it "
                    f"usually came within {before:.3f} m."
                )
        self._before.extend(self._since)
        self._end_trial()
        return ""

    def _forget_goal(self) -> None:
        self._steps.clear()
        self._goal_since = None
