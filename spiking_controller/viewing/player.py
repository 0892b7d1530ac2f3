"""Plays a recorded run, and finds the recordings that a page may open."""

import time
from pathlib import Path

from spiking_controller.streams.bag_moments import RecordedRun


class Player:
    """Plays a recorded run.

    Attributes:
        run: the recording.
        moment: where it is, s.
        playing: whether time passes.
        speed: recorded seconds per second.
    """

    def __init__(self, run: RecordedRun) -> None:
        """At the start, playing."""
        self.run = run
        self.moment = 0.0
        self.playing = True
        self.speed = 1.0
        self._last = time.monotonic()

    def advance(self) -> None:
        """Let time pass; it stops at the end."""
        now = time.monotonic()
        if self.playing:
            self.moment = min(self.moment + self.speed * (now - self._last), self.run.duration)
            self.playing = self.moment < self.run.duration
        self._last = now

    def toggle(self) -> None:
        """Pause or go on; at the end, from the start."""
        if self.moment >= self.run.duration:
            self.moment = 0.0
        self.playing = not self.playing

    def seek(self, moment: float) -> None:
        """Pause there, s."""
        self.moment, self.playing = min(moment, self.run.duration), False


def bags_below(folder: str) -> dict[str, Path]:
    """Bags in a folder, or the folder itself, by the names that the page shows; none where the folder is empty text."""
    if not folder:
        return {}
    root = Path(folder)
    found = {path.parent for path in sorted(root.glob("**/metadata.yaml"))}
    return {path.name if path == root else path.relative_to(root).as_posix(): path for path in sorted(found)}
