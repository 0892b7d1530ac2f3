"""Runs the graph of `spiking_controller up` as a process of one's own, for programs that bring up, watch and end it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from spiking_controller.errors import SpikingControllerError
from spiking_controller.nodes.common.child_process import start_process
from spiking_controller.nodes.common.process import check_domain

START_LIMIT = 120.0
"""The graph must be up within this wall time, s; the first start compiles kernels."""
SILENCE_LIMIT = 15.0
"""A graph that sends no joint state for this wall time has died, s."""
STOP_LIMIT = 30.0
"""Nodes that have not ended this long after the request are killed, s."""


class GraphError(SpikingControllerError):
    """The graph did not come up, or did not stay up."""


def keep_to_ourselves() -> None:
    """Before ROS starts: a graph of its own, on this machine only, unless the user wants it elsewhere.

    Raises:
        ConfigError: the user's ROS_DOMAIN_ID is none.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    check_domain()


class Graph:
    """Bridge and controller as `spiking_controller up` starts them, with their output in a log file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start them; they end with `stop`.

        Args:
            command: that starts the nodes, as `commands/up.py` makes it.
            log: where their output goes.
        """
        self._log = log
        with log.open("wb") as output:
            self._process = start_process(command, output)

    def check(self) -> None:
        """Raise GraphError if the graph has ended."""
        if self._process.poll() is not None:
            raise GraphError(f"the graph has ended with exit code {self._process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The first line of the log that names an error, else its last line, and where the rest is."""
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["it printed nothing"]
        return f"{telling[0].rstrip('.')} ({self._log})."

    def page_address(self) -> str:
        """Where the page of `--view true` is; waits until it is there.

        Raises:
            GraphError: it does not come up.
        """
        end = time.monotonic() + START_LIMIT
        while (found := re.search(r"the page: (\S+)", self._log.read_text(errors="replace"))) is None:
            self.check()
            if time.monotonic() > end:
                raise GraphError(f"the page did not come up within {START_LIMIT:.0f} s: {self.last_words()}")
            time.sleep(0.1)
        return found.group(1)

    def stop(self) -> None:
        """Ask the nodes to end, and end them if they do not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            print(f"The graph did not stop within {STOP_LIMIT:.0f} s and is killed.", file=sys.stderr)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()
