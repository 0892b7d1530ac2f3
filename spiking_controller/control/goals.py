"""Decides which goals the arm is sent to; a refusal says why, and where the hand could go instead."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.errors import GoalError
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.reachability import TOLERANCE, ReachableSpace


class GoalChecker:
    """Checks one goal after the other; a check takes less than a millisecond."""

    def __init__(self, task: ReachTask) -> None:
        """Check goals of this task; prepares the search for reachable points."""
        self._task = task
        self._space = ReachableSpace(task)

    def check(self, point: ArrayLike) -> NDArray[np.float64]:
        """The goal that a point asks for.

        Args:
            point: x, y, z in the arm's base frame, m. Where the arm moves in a plane, z is ignored.
        Returns:
            goal, m, [d].
        Raises:
            GoalError: NaN or infinity, too low, or not to be reached; names the value, the reason and the fix.
        """
        coordinates = np.asarray(point, dtype=np.float64)
        text = f"the goal {_text(coordinates)}"
        goal = coordinates[: self._task.goal_dimensions]
        if not np.isfinite(goal).all():
            raise GoalError(f"{text} is not finite; give three numbers in metres.")
        found = self._space.nearest(goal)
        lowest = self._task.minimum_goal_height
        too_low = lowest is not None and goal[2] < lowest
        if found.miss < TOLERANCE and not too_low:
            return goal.copy()
        fix = f"the nearest reachable point is {_text(found.point)}."
        arm = self._task.arm
        distance = float(np.linalg.norm(goal - arm.shoulder[: goal.size]))
        if too_low:
            raise GoalError(f"{text} is lower than the arm may go, which is z of {lowest:g} m; {fix}")
        if distance > arm.reach:
            raise GoalError(
                f"{text} is {distance:.2f} m from the shoulder at {_text(arm.shoulder[: goal.size])}, beyond the arm's "
                f"reach of {arm.reach:.2f} m; {fix}"
            )
        raise GoalError(
            f"{text} has no posture inside the soft joint bounds in which nothing touches: the hand misses it by "
            f"{found.miss:.3f} m; {fix}"
        )


def _text(point: NDArray[np.float64]) -> str:
    # Adding zero turns -0.0 into 0.0.
    return f"({', '.join(f'{round(float(value), 3) + 0.0:.3f}' for value in point)})"
