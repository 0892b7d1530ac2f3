"""Samples what the running graph tells, now and then, as curves of the last seconds."""

import math
import time
from collections import deque

import numpy as np

from spiking_controller.streams.moments import CURVES, Curves

SPACING = 0.2
"""Between two samples of a curve, s (wall clock)."""
SHOWN = 20.0
"""Length of the curves, s."""


class SampledCurves:
    """The latest samples of each of CURVES."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._now = dict.fromkeys(CURVES, math.nan)
        self._samples: deque[tuple[float, dict[str, float]]] = deque(maxlen=round(SHOWN / SPACING))
        self._sampled_at = -math.inf
        self._spikes, self._counted_since = 0, time.monotonic()

    def tell(self, name: str, value: float) -> None:
        """The latest value of a curve."""
        self._now[name] = value

    def count_spikes(self, spikes: int) -> None:
        """So many more."""
        self._spikes += spikes

    def sample(self) -> None:
        """Take a sample, if it is time for one."""
        now = time.monotonic()
        if now - self._sampled_at < SPACING:
            return
        self._now["spikes"] = self._spikes / max(now - self._counted_since, 1e-3)
        self._spikes, self._counted_since, self._sampled_at = 0, now, now
        self._samples.append((now, dict(self._now)))

    def clear(self) -> None:
        """Forget what was heard."""
        self._now = dict.fromkeys(CURVES, math.nan)
        self._samples.clear()
        self._spikes, self._counted_since = 0, time.monotonic()

    def curves(self) -> Curves:
        """The latest samples; the newest is at time zero."""
        if not self._samples:
            return Curves(np.zeros(1), {name: np.full(1, np.nan) for name in CURVES})
        end = self._samples[-1][0]
        times = np.array([moment - end for moment, _ in self._samples])
        return Curves(times, {name: np.array([values[name] for _, values in self._samples]) for name in CURVES})
