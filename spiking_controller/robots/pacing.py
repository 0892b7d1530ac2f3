"""Decides when the simulation's next period begins: by the wall clock, or in lock-step with a commander."""

from enum import Enum

REPEAT_PERIOD = 0.05
"""In lock-step, a joint state that nobody has answered is sent again after this time, s."""
LONGEST_WAIT = 0.1
"""The loop looks at least this often whether it shall stop, s."""
LONGEST_CATCH_UP = 0.05
"""A delay behind real time beyond this is not made up for, s."""


class Step(Enum):
    """What the simulation shall do now."""

    WAIT = "wait"
    ADVANCE = "begin the next period"
    REPEAT = "send the last state again: it or its answer may be lost"
    GIVE_UP = "go on without the commander, who has not answered in time, and without torque"


class Pacer:
    """Paces one simulation. All times are of one steady wall clock, s; the caller reads it.

    Attributes:
        real_time_factor: simulated seconds per second; in lock-step, 0 is as fast as the commands come.
        lock_step_timeout: a commander that stays silent longer is gone, s. The first one is waited for without end.
        silent: the commander is gone; until a command comes, the simulation goes on in real time.
        slipped: how much simulated time stays behind the wall clock because the machine was too slow, s.
    """

    def __init__(self, period: float, lock_step: bool, real_time_factor: float, lock_step_timeout: float) -> None:
        """Set the pace; `restart` begins.

        Args:
            period: one step of the simulation, s of simulated time.
            lock_step: wait for one command per period.
            real_time_factor: see above; above 0 unless in lock-step.
            lock_step_timeout: see above.
        """
        self.period = period
        self.lock_step = lock_step
        self.real_time_factor = real_time_factor
        self.lock_step_timeout = lock_step_timeout
        self.paused = False
        self.slipped = 0.0
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """A state of a new run was published now; there is no commander yet."""
        self.silent = False
        self._answered = False
        self._has_commander = False
        self._scheduled = self._due = self._waiting_since = self._published_at = now

    def pause(self, paused: bool, now: float) -> None:
        """Stop or go on; the time between does not count."""
        self.paused = paused
        self._scheduled = self._due = self._waiting_since = now

    def next_step(self, now: float) -> Step:
        """What to do now. Call `advanced` after ADVANCE."""
        if self.paused or now < self._due:
            return Step.WAIT
        if not self._waits():
            return Step.ADVANCE
        if self._has_commander and now - self._waiting_since > self.lock_step_timeout:
            self.silent = True
            self._scheduled = self._due = now
            return Step.GIVE_UP
        if now - self._published_at > REPEAT_PERIOD:
            self._published_at = now
            return Step.REPEAT
        return Step.WAIT

    def advanced(self, now: float) -> None:
        """A period has begun and its state was published.

        A small delay is caught up at twice the speed at most: in a quicker burst, whoever is subscribed would lose all
        but the last state. A long one is given up: simulated time slips.
        """
        period = self.period / self.real_time_factor if self.real_time_factor else 0.0
        if self.silent:
            # Without a commander, "as fast as the commands come" has no meaning.
            period = period or self.period
        self._scheduled += period
        if now - self._scheduled > LONGEST_CATCH_UP:
            if not self.lock_step:
                self.slipped += now - self._scheduled
            self._scheduled = now
        self._due = max(self._scheduled, now + 0.5 * period)
        self._answered = False
        self._waiting_since = self._published_at = now

    def answer(self) -> bool:
        """A command came; whether it ends a silence."""
        ends_silence = self.silent
        self.silent = False
        self._answered = self._has_commander = True
        return ends_silence

    def sleep(self, now: float) -> float:
        """How long nothing is to be done if no message comes, s."""
        if self.paused:
            return LONGEST_WAIT
        look = max(self._due, self._published_at + REPEAT_PERIOD) if self._waits() else self._due
        return min(max(look - now, 0.0), LONGEST_WAIT)

    def _waits(self) -> bool:
        """Whether the next period needs a command that has not come."""
        return self.lock_step and not self._answered and not self.silent
