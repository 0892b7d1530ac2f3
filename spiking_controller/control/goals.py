"""Decides which goals the arm is sent to; a refusal says why in one sentence."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.errors import GoalError
from spiking_controller.tasks.reach import ReachTask


def checked_goal(task: ReachTask, point: ArrayLike, frame: str = "") -> NDArray[np.float64]:
    """The goal that a point asks for.

    Args:
        task: what the networks were trained for.
        point: x, y, z, m. Where the arm moves in a plane, z is ignored.
        frame: of the point; empty stands for the arm's base frame.
    Returns:
        goal in the base frame, m, [d].
    Raises:
        GoalError: another frame, NaN or infinity, out of reach, or too low; names the value and the mend.
    """
    arm = task.arm
    coordinates = np.asarray(point, dtype=np.float64)
    text = f"the goal ({', '.join(f'{value:.3f}' for value in coordinates)})"
    if frame.removeprefix("/") not in ("", arm.base_frame):
        raise GoalError(f"{text} is in the frame '{frame}'; give it in '{arm.base_frame}' or with an empty frame_id.")
    goal = coordinates[: task.goal_dimensions]
    if not np.isfinite(goal).all():
        raise GoalError(f"{text} is not finite; give three numbers in metres.")
    shoulder = np.asarray(arm.shoulder)[: task.goal_dimensions]
    distance = float(np.linalg.norm(goal - shoulder))
    if distance > arm.reach:
        raise GoalError(
            f"{text} is {distance:.2f} m from the shoulder at ({', '.join(f'{value:g}' for value in shoulder)}), "
            f"beyond the arm's reach of {arm.reach:.2f} m; give a point closer to it."
        )
    if task.minimum_goal_height is not None and goal[2] < task.minimum_goal_height:
        raise GoalError(f"{text} is lower than the arm may go; give z of at least {task.minimum_goal_height:g} m.")
    return goal.copy()
