"""Starts processes that end with this one."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

_SET_PARENT_DEATH_SIGNAL = 1


def start_process(
    command: Sequence[str], output: IO[bytes] | None = None, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process that gets a SIGTERM if this one dies.

    Args:
        command: program and arguments.
        output: takes what it prints; by default that goes where ours goes.
        pass_fds: open file descriptors that it inherits.
    """
    parent, c_library = os.getpid(), ctypes.CDLL(None)

    def die_with_parent() -> None:
        if sys.platform == "linux":
            c_library.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    # A session of its own, so that Ctrl-C in the terminal reaches only us and we end the nodes in order.
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=die_with_parent,
        pass_fds=pass_fds,
    )
