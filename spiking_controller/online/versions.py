"""Which networks drive the arm, which wait for their turn, and which ran before: swapping and going back.

Plain Python, so that the controller node and a simulated closed loop use the same rules.
"""

from collections import Counter, deque
from typing import Final, Generic, Protocol, TypeVar

from spiking_controller.control.controller import Controller, Networks
from spiking_controller.online.tracking_watch import TrackingWatch

REMEMBERED: Final = 100
"""So many versions that were rolled back are refused when they are offered again."""


class RunnableVersion(Protocol):
    """Networks that are ready to run; see `online.model_update.Version`."""

    @property
    def agent(self) -> Networks:
        """The networks."""

    @property
    def sha256(self) -> str:
        """Of their checkpoint."""

    @property
    def parent(self) -> str | None:
        """sha256 of the checkpoint that they were trained on from; None if from nothing."""

    @property
    def policy_digest(self) -> str:
        """Equal for versions whose policies are equal: they differ in what they predict."""


AnyVersion = TypeVar("AnyVersion", bound=RunnableVersion)


class VersionChain(Generic[AnyVersion]):
    """Keeps the version that runs, the one that waits and the one before.

    A version is taken only if it was trained on from the one that runs or waits. It takes over between two ticks: when
    no goal is being reached, or as the goal changes, but not while the running one is still on trial. A version on
    trial that tracks its goals worse than the one before gives way to that one again, for good; then no other policy
    takes over until it is known how well that one does now. A version with the same policy as the one before it needs
    no trial while the disturbance observer is off: it moves the arm in the same way. With it, what the forward model
    does not expect becomes torque.

    Attributes:
        running: the version that drives the arm.
        waiting: takes over next; None if nothing waits.
        previous: to go back to; None if there is none.
        counts: how many versions took over and were rolled back.
        last_rollback: why the last one was, one sentence; empty if none was.
    """

    def __init__(self, controller: Controller, running: AnyVersion, watch: TrackingWatch) -> None:
        """Start with the version whose networks the controller already has.

        Args:
            controller: whose networks are replaced.
            running: what it runs.
            watch: judges versions on trial.
        """
        self.running = running
        self.waiting: AnyVersion | None = None
        self.previous: AnyVersion | None = None
        self.counts: Counter[str] = Counter()
        self.last_rollback = ""
        self._controller = controller
        self._watch = watch
        self._given_up: deque[str] = deque(maxlen=REMEMBERED)

    @property
    def tip(self) -> str:
        """sha256 of the version that others must be trained on from: the one that waits, or else the one that runs."""
        return (self.waiting or self.running).sha256

    @property
    def is_settled(self) -> bool:
        """Whether another policy may take over: it is known how well the running one does."""
        return not self._watch.on_trial and not self._watch.settling

    def offer(self, version: AnyVersion) -> str:
        """Let a version wait for its turn, in place of one that waits already.

        Returns:
            Why it is refused, one sentence; empty if it is not.
        """
        if version.sha256 == self.running.sha256 or (self.waiting and version.sha256 == self.waiting.sha256):
            return ""
        problem = ""
        if version.sha256 in self._given_up:
            problem = f"{version.sha256} was rolled back before; send other networks."
        elif version.parent not in (known := [v.sha256 for v in (self.running, self.waiting) if v]):
            problem = (
                f"{version.sha256} was trained on from {version.parent}, but {known[-1]} "
                f"{'waits' if self.waiting else 'runs'}; train on from that one."
            )
        else:
            self.waiting = version
        return problem

    def step(self, time: int, distance: float) -> None:
        """A control step on the way to a goal: its stamp (ns) and the hand's distance to the goal (m)."""
        self._watch.step(time, distance)

    def goal_changes(self) -> str:
        """One goal ends and another begins: judge a version on trial, and let the waiting one take over.

        Returns:
            Why the version was rolled back, one sentence; empty if it was not.
        """
        reason = self._watch.goal_ended()
        if reason and not self.go_back(reason):
            reason = ""
        self.take_over()
        return reason

    def goal_moved(self) -> None:
        """A streamed goal has moved: see `TrackingWatch.goal_moved`."""
        self._watch.goal_moved()

    def take_over(self) -> bool:
        """Let the waiting version run, if there is one and the running one is not on trial; whether it does."""
        if self.waiting is None or self._watch.on_trial:
            return False
        same_policy = self.waiting.policy_digest == self.running.policy_digest
        acts_differently = not same_policy or self._controller.settings.disturbance_gain > 0.0
        if acts_differently and self._watch.settling:
            return False
        self.previous = self.running
        self._run(self.waiting)
        self.waiting = None
        if acts_differently:
            self._watch.new_networks()
        self.counts["model update"] += 1
        return True

    def go_back(self, reason: str) -> bool:
        """Run the version before again, and none that was trained on from the one that is given up.

        Args:
            reason: one sentence.
        Returns:
            Whether there was a version to go back to.
        """
        if self.previous is None:
            return False
        self._given_up.append(self.running.sha256)
        self._run(self.previous)
        self.previous = self.waiting = None
        self._watch.settle()
        self.counts["rollback"] += 1
        self.last_rollback = reason
        return True

    def _run(self, version: AnyVersion) -> None:
        self._controller.replace_networks(version.agent)
        self.running = version
