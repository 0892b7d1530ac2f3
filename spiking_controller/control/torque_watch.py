"""Stands between a controller and an arm: passes legal torques on, and brings the torque to zero if they go wrong.

A command is judged by the arm's limits alone, so that nothing of the controller need be trusted. Plain numbers instead
of arrays: for so few joints they take a third of the time, and each command waits for it.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeAlias

from spiking_controller.control.fault import Fault
from spiking_controller.control.supervisor import FaultBegan, FaultEnded, Instant, Timeouts
from spiking_controller.robots.limits import JointLimits

Torque: TypeAlias = tuple[float, ...]
"""Of all joints, base to hand, N·m."""

ROUNDING: Final = 1e-9
"""A change that is larger than the rate limit by less is legal, N·m."""
SILENT: Final = Fault("silence", "no command comes; is the controller running?")


class TorqueWatch:
    """Passing commands on, or faulted: what becomes of a command, and of silence.

        passing --a command is wrong, or none comes--> faulted: the torque ramps to zero at the rate limit
        faulted --the torque is zero and a command is right--> passing, towards the commands at the rate limit

    A command is wrong if it has another length, is not finite, is beyond the torque limits, or differs from the one
    before by more than the rate limit allows in the rate limit period, or in the whole periods that have passed between
    the two if that is more, since messages can be lost. Whatever comes, the torque is finite and within the torque
    limits, and changes by at most the rate limit times the rate limit period.

    Attributes:
        torque: sent last.
        fault: why no commands are passed on; None where they are.
        counts: commands passed on, limited and held back, and what was wrong, by name.
    """

    def __init__(self, limits: JointLimits, rate_limit_period: float, timeouts: Timeouts) -> None:
        """Begin with zero torque, and wait for the first command.

        Args:
            limits: of the arm.
            rate_limit_period: the torque changes by at most what the rate limit allows in this time, s.
            timeouts: how long commands may stay away.
        """
        self._limits: Torque = tuple(limits.torque.tolist())
        self._period = rate_limit_period
        self._steps: Torque = tuple((limits.torque_rate * rate_limit_period).tolist())
        self._timeouts = timeouts
        self._events: list[FaultBegan | FaultEnded] = []
        self._previous: Torque | None = None
        self._previous_at = 0.0
        self._received = self._seen = 0
        self._seen_at: Instant | None = None
        self.torque: Torque = (0.0,) * limits.joints
        self.fault: Fault | None = None
        self.counts: Counter[str] = Counter()

    @property
    def is_quiet(self) -> bool:
        """Whether no commands come, and none need to, since the torque is zero."""
        return self._seen_at is None and self._received == self._seen and self.fault is None

    def take_events(self) -> list[FaultBegan | FaultEnded]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def receive(self, command: Iterable[float], time: float) -> Torque | None:
        """Take a command.

        Args:
            command: torques, N·m, as many as came.
            time: when it came, on a steady clock, s.
        Returns:
            The torque to send now, bit-equal to a legal command; None while the torque ramps to zero.
        """
        wanted = tuple(map(float, command))
        self._received += 1
        was_ramping = self.fault is not None and any(self.torque)
        if wrong := self._judge(wanted, time):
            self.counts[wrong.kind] += 1
            self._begin(wrong)
            return None if was_ramping else self.ramp()
        if was_ramping:
            self.counts["held back"] += 1
            return None
        if self.fault:
            self.fault = None
            self._events.append(FaultEnded())
        # In this order of arguments a legal zero keeps its sign.
        self.torque = tuple(
            min(max(value, sent - step), sent + step)
            for value, sent, step in zip(wanted, self.torque, self._steps, strict=True)
        )
        self.counts["passed on" if self.torque == wanted else "limited"] += 1
        return self.torque

    def check_silence(self, now: Instant) -> None:
        """Fault where commands have stayed away for too long while there was torque; call often."""
        if self._received != self._seen:
            self._seen, self._seen_at = self._received, now
            return
        if self._seen_at is None:
            return
        if now.node < self._seen_at.node:
            # Simulated time was reset.
            self._seen_at = self._seen_at._replace(node=now.node)
        if (
            now.node - self._seen_at.node <= self._timeouts.node
            and now.steady - self._seen_at.steady <= self._timeouts.steady
        ):
            return
        self._seen_at = self._previous = None
        if self.fault or any(self.torque):
            self.counts[SILENT.kind] += 1
            self._begin(SILENT)

    def ramp(self) -> Torque:
        """The next torque on the way to zero; call once per rate limit period while there is torque."""
        self.torque = tuple(
            sent - min(max(sent, -step), step) for sent, step in zip(self.torque, self._steps, strict=True)
        )
        return self.torque

    def _judge(self, wanted: Torque, time: float) -> Fault | None:
        """What is wrong with a command; remembers it for the next one."""
        previous, since = self._previous, time - self._previous_at
        self._previous, self._previous_at = None, time
        if len(wanted) != len(self._limits):
            return Fault("wrong length", f"a command has {len(wanted)} torques; the arm takes {len(self._limits)}.")
        if not all(map(math.isfinite, wanted)):
            return Fault("not finite", f"a command is not finite: {list(wanted)}.")
        for joint, (value, limit) in enumerate(zip(wanted, self._limits, strict=True), start=1):
            if abs(value) > limit:
                return Fault(
                    "torque limit", f"a command asks joint {joint} for {value:.4g} N·m; its limit is {limit:g} N·m."
                )
        self._previous = wanted
        if previous is None:
            return None
        periods = max(1, round(since / self._period))
        for joint, (value, before, step) in enumerate(zip(wanted, previous, self._steps, strict=True), start=1):
            if abs(value - before) > periods * step + ROUNDING:
                return Fault(
                    "torque rate limit",
                    f"a command changes the torque of joint {joint} by {abs(value - before):.4g} N·m; the rate limit "
                    f"allows {periods * step:.4g} N·m.",
                )
        return None

    def _begin(self, fault: Fault) -> None:
        """Pass no more commands on; a fault of the same kind is no other one."""
        if self.fault is None or self.fault.kind != fault.kind:
            self.fault = fault
            self._events.append(FaultBegan(fault, any(self.torque)))
