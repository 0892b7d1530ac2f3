"""Notices that a figure has risen above what is usual, and says how fast to learn since then."""

import math
from typing import Final

USUAL_FRACTION: Final = 0.03
"""Of the latest figure in the usual one, a running mean; the first ones count more."""


class ChangeDetector:
    """Learning rates jump when a figure has risen far above the usual one, and fall again as half a cosine.

    These are warm restarts (Loshchilov, Hutter 2017) whose time is not set beforehand.

    Attributes:
        rate_fraction: of the largest learning rate, from `usual_rate` to 1.
    """

    def __init__(self, factor: float, smallest: float, annealing: int, usual_rate: float) -> None:
        """Nothing has changed yet.

        Args:
            factor: a change is a figure of so many times the usual one.
            smallest: figures below this are equally good.
            annealing: figures in which the rate falls to the usual one.
            usual_rate: share of the largest learning rate.
        """
        self._factor = factor
        self._smallest = smallest
        self._annealing = annealing
        self._usual_rate = usual_rate
        self._since = annealing
        self._usual = 0.0
        self._seen = 0
        self.rate_fraction = usual_rate

    def see(self, figure: float) -> bool:
        """Take the next figure.

        Returns:
            Whether a change begins, after a time without one.
        """
        figure = max(figure, self._smallest)
        self._seen += 1
        changed = self._seen > 1 and figure > self._factor * self._usual
        begins = changed and self._since >= self._annealing
        self._since = 0 if changed else min(self._since + 1, self._annealing)
        # What has changed once changes again only if it rises farther.
        fraction = 1.0 if changed else max(USUAL_FRACTION, 1.0 / self._seen)
        self._usual += fraction * (figure - self._usual)
        fallen = 0.5 - 0.5 * math.cos(math.pi * self._since / self._annealing)
        self.rate_fraction = 1.0 - fallen * (1.0 - self._usual_rate)
        return begins
