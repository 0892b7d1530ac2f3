"""Tracks whether the arm is idle, reaching, at its goal or faulted."""

from typing import Final, NamedTuple

from spiking_controller.control.fault import Fault

IDLE: Final = "idle"
REACHING: Final = "reaching"
REACHED: Final = "reached"
FAULT: Final = "fault"

DWELL: Final = 200_000_000
"""The hand has reached its goal once it has stayed near it for this time, ns; passing by is not reaching."""
LEAVE: Final = 2.0
"""It has left the goal again when it is this many times farther away than what counts as reached."""


class Activity(NamedTuple):
    """The arm's state, as other nodes are told it.

    Attributes:
        state: IDLE, REACHING, REACHED or FAULT.
        since: stamp from which on it has been so, ns.
        distance: from hand to goal, m; None where there is no goal or no hand to tell.
        fault: what is wrong, where the arm is faulted.
    """

    state: str
    since: int
    distance: float | None = None
    fault: Fault | None = None

    @property
    def reason(self) -> str:
        """Of a fault, one sentence; empty where there is none."""
        return self.fault.sentence if self.fault else ""


class ActivityTracker:
    """Follows the arm from control step to control step.

    Attributes:
        now: the latest activity.
    """

    def __init__(self, reached_distance: float) -> None:
        """A goal counts as reached within this distance, m."""
        self.reached_distance = reached_distance
        self.now = Activity(IDLE, 0)
        self._near_since: int | None = None

    def fault(self, time: int, fault: Fault) -> bool:
        """The arm cannot move; whether that is news, which the same fault with other numbers is not."""
        self._near_since = None
        return self._become(Activity(FAULT, time, None, fault))

    def idle(self, time: int) -> bool:
        """There is no goal to go to; whether that is news."""
        self._near_since = None
        return self._become(Activity(IDLE, time))

    def new_goal(self, time: int) -> bool:
        """There is another goal from now on; always news."""
        self._near_since = None
        self.now = Activity(REACHING, time)
        return True

    def step(self, time: int, distance: float) -> bool:
        """A control step on the way to a goal.

        Args:
            time: stamp, ns.
            distance: from hand to goal, m.
        Returns:
            Whether the state is another one than before.
        """
        farthest = self.reached_distance * (LEAVE if self.now.state == REACHED else 1.0)
        if not distance <= farthest:
            self._near_since = None
            return self._become(Activity(REACHING, time, distance))
        if self._near_since is None or time < self._near_since:
            self._near_since = time
        if time - self._near_since < DWELL:
            return self._become(Activity(REACHING, time, distance))
        return self._become(Activity(REACHED, self._near_since, distance))

    def _become(self, activity: Activity) -> bool:
        kinds = (each.fault.kind if each.fault else "" for each in (activity, self.now))
        is_news = activity.state != self.now.state or len(set(kinds)) > 1
        self.now = activity if is_news else activity._replace(since=self.now.since)
        return is_news
