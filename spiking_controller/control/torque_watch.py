"""Stands between a controller and an arm: passes legal torques on, and brings the torque to zero if they go wrong.

What a torque is judged by are the arm's limits alone, so that nothing of the controller need be trusted.
"""

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.fault import Fault
from spiking_controller.control.supervisor import FaultBegan, FaultEnded, Instant, Timeouts
from spiking_controller.robots.limits import JointLimits

FloatArray = NDArray[np.float64]

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
        torque: sent last, N·m, [n].
        fault: why no commands are passed on; None where they are.
        counts: commands passed on, limited and held back, and what was wrong, by name.
    """

    def __init__(self, limits: JointLimits, rate_limit_period: float, timeouts: Timeouts) -> None:
        """Begin with zero torque, and wait for the first command.

        Args:
            limits: of the arm, [n] joints.
            rate_limit_period: the torque changes by at most what the rate limit allows in this time, s.
            timeouts: how long commands may stay away.
        """
        self._limits = limits
        self._period = rate_limit_period
        self._step = limits.torque_rate * rate_limit_period
        self._timeouts = timeouts
        self._events: list[FaultBegan | FaultEnded] = []
        self._heard_at: Instant | None = None
        self._previous: FloatArray | None = None
        self.torque: FloatArray = np.zeros(limits.joints)
        self.fault: Fault | None = None
        self.counts: Counter[str] = Counter()

    @property
    def is_quiet(self) -> bool:
        """Whether no commands come, and none need to, since the torque is zero."""
        return self._heard_at is None and self.fault is None

    def take_events(self) -> list[FaultBegan | FaultEnded]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def receive(self, command: ArrayLike, now: Instant) -> FloatArray | None:
        """Take a command.

        Args:
            command: torques, N·m; whatever came.
            now: when it came.
        Returns:
            The torque to send now, N·m, [n], bit-equal to a legal command; None while the torque ramps to zero.
        """
        torque = np.array(command, dtype=np.float64)
        was_ramping = self.fault is not None and bool(self.torque.any())
        if wrong := self._judge(torque, now):
            self.counts[wrong.kind] += 1
            self._begin(wrong)
            return None if was_ramping else self.ramp()
        if was_ramping:
            self.counts["held back"] += 1
            return None
        if self.fault:
            self.fault = None
            self._events.append(FaultEnded())
        within_reach = np.minimum(np.maximum(torque, self.torque - self._step), self.torque + self._step)
        is_legal = np.array_equal(within_reach, torque)
        self.counts["passed on" if is_legal else "limited"] += 1
        self.torque = torque if is_legal else within_reach
        return self.torque

    def check_silence(self, now: Instant) -> None:
        """Fault where commands have stayed away for too long while there was torque; call often."""
        if self._heard_at is None:
            return
        if now.node < self._heard_at.node:
            # Simulated time was reset.
            self._heard_at = self._heard_at._replace(node=now.node)
        if (
            now.node - self._heard_at.node <= self._timeouts.node
            and now.steady - self._heard_at.steady <= self._timeouts.steady
        ):
            return
        self._heard_at = self._previous = None
        if self.fault or self.torque.any():
            self.counts[SILENT.kind] += 1
            self._begin(SILENT)

    def ramp(self) -> FloatArray:
        """The next torque on the way to zero, N·m, [n]; call once per rate limit period while there is torque."""
        self.torque = self.torque - np.clip(self.torque, -self._step, self._step)
        return self.torque

    def _judge(self, torque: FloatArray, now: Instant) -> Fault | None:
        """What is wrong with a command; remembers it for the next one."""
        before, heard_at = self._previous, self._heard_at
        self._previous, self._heard_at = None, now
        limits = self._limits
        if torque.shape != (limits.joints,):
            return Fault("wrong length", f"a command has {torque.size} torques; the arm takes {limits.joints}.")
        if not np.isfinite(torque).all():
            return Fault("not finite", f"a command is not finite: {torque.tolist()}.")
        beyond = np.abs(torque) - limits.torque
        if (beyond > 0.0).any():
            joint = int(np.argmax(beyond))
            return Fault(
                "torque limit",
                f"a command asks joint {joint + 1} for {torque[joint]:.4g} N·m; its limit is {limits.torque[joint]:g}.",
            )
        self._previous = torque
        if before is None or heard_at is None:
            return None
        periods = max(1, round((now.steady - heard_at.steady) / self._period))
        change = np.abs(torque - before)
        too_quick = change - periods * self._step
        if (too_quick > ROUNDING).any():
            joint = int(np.argmax(too_quick))
            return Fault(
                "torque rate limit",
                f"a command changes the torque of joint {joint + 1} by {change[joint]:.4g} N·m; the rate limit allows "
                f"{periods * self._step[joint]:.4g} N·m.",
            )
        return None

    def _begin(self, fault: Fault) -> None:
        """Pass no more commands on; a fault of the same kind is no other one."""
        if self.fault is None or self.fault.kind != fault.kind:
            self.fault = fault
            self._events.append(FaultBegan(fault, bool(self.torque.any())))
