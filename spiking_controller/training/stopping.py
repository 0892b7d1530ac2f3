"""A clean stop: Ctrl-C is remembered until the work under way can be saved."""

import signal
import sys
from types import FrameType, TracebackType
from typing import Self


class InterruptCatcher:
    """Within its `with` block, remembers the first Ctrl-C (or SIGTERM), so that the iteration under way can be saved.

    The second one raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nStopping after this iteration, then saving; once more to stop at once.",
            file=sys.stderr,
            flush=True,
        )
