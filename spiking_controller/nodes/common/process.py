"""Runs a node as a process: starts ROS, ends cleanly on Ctrl-C or SIGTERM, and prints errors as sentences."""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, TypeVar

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from spiking_controller.errors import ConfigError, SpikingControllerError

AnyNode = TypeVar("AnyNode", bound=Node)

FAILED = 2
"""Exit code of a process that a user's mistake has stopped."""

HIGHEST_DOMAIN = 232
"""Of DDS: ports end there."""

LONGEST_DRAIN = 1.0
"""What has arrived before the stop is still taken, for at most this time, s."""

LONGEST_PAUSE = 0.1
"""Where for so long nothing is taken then, there is nothing left, s."""


BYSTANDER_NICENESS = 10
"""Nodes that show what goes on make way for those that control."""


class StopRequest:
    """Set by Ctrl-C or SIGTERM. The node then stops in order, with ROS still running, so that torque can ramp down."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Ask for the end; takes the arguments of a signal handler."""
        self._event.set()


@contextmanager
def caught_signals() -> Iterator[StopRequest]:
    """Inside, Ctrl-C and SIGTERM set the request instead of breaking off whatever runs."""
    stop = StopRequest()
    before = {number: signal.signal(number, stop.set) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_domain() -> None:
    """Middlewares end the process, or take another domain, where ROS_DOMAIN_ID is none.

    Raises:
        ConfigError: it is none.
    """
    domain = os.environ.get("ROS_DOMAIN_ID", "").strip()
    if domain and not (domain.isdecimal() and int(domain) <= HIGHEST_DOMAIN):
        raise ConfigError(
            f"ROS_DOMAIN_ID is '{domain}'; set it to a whole number from 0 to {HIGHEST_DOMAIN}, or unset it."
        )


def start_ros(args: list[str] | None) -> None:
    """Start ROS in this process and leave signals alone; `rclpy.try_shutdown` ends it.

    Args:
        args: command line, ROS arguments among them; by default that of the process.
    Raises:
        ConfigError: the environment or a ROS argument cannot be used.
    """
    check_domain()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        # Such as a parameter file that does not exist.
        raise ConfigError(str(error).splitlines()[0]) from error


def run_process(body: Callable[[StopRequest], int], args: list[str] | None) -> int:
    """Run `body` between start and end of ROS.

    Args:
        body: the node's life; returns the exit code soon after its argument is set.
        args: command line, ROS arguments among them; by default that of the process.
    Returns:
        The exit code: what `body` returned, FAILED after an error that a user can fix (it is printed as one sentence).
    """
    # A second signal, while the middleware is being left, changes nothing: whoever sends it waits for a clean end.
    with caught_signals() as stop:
        try:
            start_ros(args)
            return body(stop)
        except SpikingControllerError as error:
            print(f"error: {error}", file=sys.stderr)
            return FAILED
        except ExternalShutdownException:
            return 0
        finally:
            rclpy.try_shutdown()


class Bystander(Protocol):
    """A node that shows what goes on and has no part in control."""

    def run(self, stop: StopRequest) -> None:
        """Work until asked to stop."""

    def destroy_node(self) -> None:
        """Leave the graph."""


def run_bystander(make: Callable[[], Bystander], args: list[str] | None) -> int:
    """The life of such a node as a process: behind whatever controls the arm, until Ctrl-C or SIGTERM.

    Args:
        make: makes the node, ROS being started.
        args: as in `run_process`.
    """

    def live(stop: StopRequest) -> int:
        step_back_to(BYSTANDER_NICENESS)
        node = make()
        try:
            node.run(stop)
        finally:
            node.destroy_node()
        return 0

    return run_process(live, args)


def keep_from_garbage_collector() -> None:
    """Collect garbage now, and never look at again what is left.

    A node's set-up leaves some 300 000 objects behind, most of them of PyTorch and Numba. Looking through them stops
    the process for 10 to 170 ms, at any time. What callbacks allocate goes by itself.
    """
    gc.collect()
    gc.freeze()


def step_back(niceness: int) -> None:
    """Let other work go first: this thread steps back, with those that it starts.

    Args:
        niceness: as of `nice`. A real-time priority that the process was started with is given up.
    """
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(niceness)


def step_back_to(niceness: int) -> None:
    """The same as `step_back`, but no further back than this niceness: the process may have been started with one."""
    step_back(max(0, niceness - os.nice(0)))


def spin_until_stopped(executor: Executor, stop: StopRequest, received: Callable[[], int]) -> None:
    """Run callbacks until asked to stop, then those for what has arrived by then.

    Args:
        executor: of the node.
        stop: ends it.
        received: how many messages have been taken.
    """
    while not stop:
        executor.spin_once(timeout_sec=0.1)
    now = time.monotonic()
    end, quiet = now + LONGEST_DRAIN, now + LONGEST_PAUSE
    while now < min(end, quiet):
        before = received()
        executor.spin_once(timeout_sec=0.01)
        now = time.monotonic()
        if received() > before:
            quiet = now + LONGEST_PAUSE


def repeat_until_stopped(
    node: Node, stop: StopRequest, period: Callable[[], float], action: Callable[[], None]
) -> None:
    """Do something again and again, and run the node's callbacks in between.

    Args:
        node: whose callbacks.
        stop: ends it.
        period: from one time to the next, s of the wall clock, asked each time. Times that were missed are left out.
        action: what is done.
    """
    executor = create_executor(node.context)
    executor.add_node(node)
    due = time.monotonic()
    try:
        while not stop:
            wait = due - time.monotonic()
            if wait > 0.0:
                executor.spin_once(timeout_sec=wait)
                continue
            due = max(due + period(), time.monotonic())
            action()
    finally:
        executor.shutdown()


def create_executor(context: Context | None = None) -> Executor:
    """A single-threaded executor, by default in the process's own context.

    The event-driven one takes less than half the processor time of the other at 500 Hz; early releases of ROS 2
    Jazzy do not have it yet.
    """
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor(context=context)
    return EventsExecutor(context=context)


@contextmanager
def executed(create: Callable[[Executor], AnyNode]) -> Iterator[tuple[AnyNode, Executor]]:
    """A node in an executor of its own; both are given up at the end.

    Args:
        create: makes the node.
    """
    executor = create_executor()
    node = create(executor)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
