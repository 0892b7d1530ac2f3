"""Keeps the times of the latest updates, so that /diagnostics can tell whether the controller keeps up."""

import numpy as np


class UpdateTimes:
    """Times of updates on the wall clock, in memory that does not grow.

    Attributes:
        count: of all updates.
        overruns: updates that took longer than joint states are apart.
    """

    def __init__(self, kept: int = 1000) -> None:
        """Quantiles are taken over the latest `kept` updates."""
        self._times = np.zeros(kept)
        self.count = 0
        self.overruns = 0

    def add(self, duration: float, allowed: float | None) -> None:
        """Note an update of `duration` seconds that should have taken less than `allowed` (None: not known yet)."""
        self._times[self.count % self._times.size] = duration
        self.count += 1
        if allowed is not None and duration > allowed:
            self.overruns += 1

    def quantile(self, share: float) -> float | None:
        """Update time, s, that this share of the latest updates did not exceed; None before the first."""
        latest = self._times[: min(self.count, self._times.size)]
        return float(np.quantile(latest, share)) if latest.size else None
