"""Decides whether the arm may be driven, and drives it or brings its torque to zero: the controller without the graph.

Joint states come in as plain values, torques go out, and what others should hear of are events. Nothing here waits,
logs or reads a clock, so that every transition can be tested.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.activity import ActivityTracker
from spiking_controller.control.arm_state import ArmStateReader, Rejection
from spiking_controller.control.controller import Command, Controller, StepReport
from spiking_controller.control.fault import Fault
from spiking_controller.control.state_stream import StateStream
from spiking_controller.units import NANOSECONDS

RAMP_PERIOD: Final = 0.002
"""Between two torques on the way to zero, s; the rate limit is kept at this period."""
REPEATS_BEFORE_ANSWER: Final = 2
"""A joint state that is repeated so many times after our torque went out shows that the torque was lost. The first
repetition may have crossed with it, and a second answer would then be taken for that to the next state."""


class Instant(NamedTuple):
    """A moment on two clocks, s: the node's, which may be simulated and stand still, and one that never does."""

    node: float
    steady: float


class Timeouts(NamedTuple):
    """How long joint states may stay away.

    Attributes:
        node: on the node's clock, s.
        steady: on the steady clock, s.
    """

    node: float
    steady: float


class FaultBegan(NamedTuple):
    """The arm is not driven any more; `had_torque` where its torque is on the way to zero now (`Supervisor.ramp`)."""

    fault: Fault
    had_torque: bool


class FaultEnded(NamedTuple):
    """The arm is driven again, with a soft start."""


class ActivityChanged(NamedTuple):
    """`Supervisor.activity` is in another state."""


Event: TypeAlias = FaultBegan | FaultEnded | ActivityChanged

WAITING: Final = Fault("waiting", "waiting for the first joint state.")
SILENT: Final = Fault("no joint state", "no usable joint state comes; is the driver running?")


class Supervisor:
    """Inactive, driving, or faulted: what the controller does with a joint state, and with silence.

        inactive --activate--> driving --fault--> faulted --the reason is gone--> driving (soft start)
        any --deactivate--> inactive

    Attributes:
        controller: drives the arm.
        activity: what the arm is doing, as others are told it.
        is_active: whether it was activated; a faulted controller is active.
        fault: why an active controller does not drive the arm; None where it does.
        counts: what went wrong, by name.
        fresh_states: usable joint states since activation.
    """

    def __init__(
        self,
        controller: Controller,
        reader: ArmStateReader,
        stream: StateStream,
        activity: ActivityTracker,
        timeouts: Timeouts,
    ) -> None:
        """Begin inactive."""
        self.controller = controller
        self.reader = reader
        self.stream = stream
        self.activity = activity
        self.is_active = False
        self.fault: Fault | None = None
        self.counts: Counter[str] = Counter()
        self.fresh_states = 0
        self._timeouts = timeouts
        self._rejected: Fault | None = None
        self._outside: dict[str, Fault] = {}
        self._events: list[Event] = []
        self._seen_states = 0
        self._seen_at = Instant(0.0, 0.0)
        self._sent_time = self._repeats = 0

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def outside_problem(self, source: str, problem: Fault | None) -> None:
        """Tell what someone else found in the graph that forbids driving the arm, or that it is gone (None).

        Args:
            source: who found it; each has one problem at most.
            problem: the latest.
        """
        if problem is None:
            self._outside.pop(source, None)
        else:
            self._outside[source] = problem

    @property
    def problem(self) -> Fault | None:
        """Why the arm must not be driven in this graph; None if it may."""
        return self.stream.problem or next(iter(self._outside.values()), None)

    @property
    def latest_rejection(self) -> Fault | None:
        """Why the latest joint state was of no use; None where it was, or where it only was too late."""
        return self._rejected

    def activate(self, now: Instant) -> Fault | None:
        """Begin with the next joint state, at zero torque and with a soft start.

        Returns:
            Why it stays inactive instead: the latest joint states, or the graph, do not fit. None where it is active.
        """
        if refused := self._rejected or self.problem:
            return refused
        self.controller.restart()
        self.reader.forget()
        self.stream.forget()
        self.fault = None
        self.fresh_states = self._seen_states = 0
        self._seen_at = now
        self.is_active = True
        return None

    def deactivate(self) -> None:
        """Take no more joint states for control; `ramp` brings the torque to zero."""
        self.is_active = False
        self.fault = None
        self._note(self.activity.idle(self._sent_time))

    def receive(self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike) -> Command | None:
        """Take a joint state; see `ArmStateReader.read` for the arguments.

        Returns:
            The torque to send; None where there is none to send.
        """
        sample = self.reader.read(time, names, position, velocity)
        if isinstance(sample, Rejection):
            return self._after_rejection(sample)
        self._rejected = None
        self.stream.add(sample)
        self.fresh_states += 1
        if not self.is_active:
            return None
        if problem := self.problem:
            self._stop_for(problem)
            return None
        if self.fault:
            self.fault = None
            self.controller.restart()
            self._events.append(FaultEnded())
        return self._sent(self.controller.update(sample))

    def report(self) -> StepReport:
        """Sum up the last control step; call once after a command with `new_step`, when it is on its way."""
        report = self.controller.report()
        self._note(
            self.activity.step(report.time, report.tracking_error)
            if self.controller.is_reaching
            else self.activity.idle(report.time)
        )
        return report

    def set_goal(self, goal: NDArray[np.float64]) -> None:
        """Send the hand there, m, [d]; from now on or as soon as the arm may be driven."""
        self.controller.set_goal(goal)
        if self.is_active and not self.fault:
            self._note(self.activity.new_goal(self._sent_time))

    def check_silence(self, now: Instant) -> None:
        """Fault where usable joint states have stayed away for too long; call often."""
        if not self.is_active:
            return
        if self.fresh_states != self._seen_states:
            self._seen_states = self.fresh_states
            self._seen_at = now
            return
        if (
            now.steady - self._seen_at.steady > self._timeouts.steady
            or now.node - self._seen_at.node > self._timeouts.node
        ):
            if self.fresh_states:
                self.counts["stale joint states"] += self.fault is None
            self._stop_for(self._rejected or (SILENT if self.fresh_states else WAITING))

    def ramp(self) -> Command:
        """The next torque on the way to zero, RAMP_PERIOD after the last one; zero where it has arrived."""
        torque = self.controller.safety.ramp_down(RAMP_PERIOD)
        return self._sent(Command(self._sent_time + round(RAMP_PERIOD * NANOSECONDS), torque, new_step=False))

    def _after_rejection(self, rejection: Rejection) -> Command | None:
        if rejection.reason == "repeated stamp":
            # A bridge in lock-step repeats its state when our answer, or the state, was lost. If that goes on until the
            # torque is at zero, that is the answer: without one, either would wait for the other for ever.
            self._repeats += 1
            if self.is_active and not self.problem and self._repeats >= REPEATS_BEFORE_ANSWER:
                self._repeats = 0
                return Command(self._sent_time, self.controller.safety.torque, new_step=False, repeated=True)
        elif rejection.reason != "old stamp":
            self._rejected = Fault(rejection.reason, rejection.sentence)
        return None

    def _sent(self, command: Command) -> Command:
        self._sent_time, self._repeats = command.time, 0
        return command

    def _stop_for(self, fault: Fault) -> None:
        """Drive no more, for a reason that lasts; a fault of the same kind is no other one."""
        if self.fault and self.fault.kind == fault.kind:
            return
        self.fault = fault
        self._events.append(FaultBegan(fault, bool(self.controller.safety.torque.any())))
        self._note(self.activity.fault(self._sent_time, fault))

    def _note(self, is_news: bool) -> None:
        if is_news:
            self._events.append(ActivityChanged())
