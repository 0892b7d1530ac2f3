"""Lets a policy that was trained on resting goals follow one that moves: it is shown the arm as the goal sees it."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.moving_goal import GoalMotion
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.tasks.reach import ReachTask

FloatArray = NDArray[np.float64]

SINGULARITY_DAMPING: Final = 0.01
"""Of the inverse Jacobian, m: near a stretched arm the joints follow as far as they can."""
LARGEST_FRACTION: Final = 0.5
"""Of the joints' velocity limits; a faster motion is followed more slowly."""


class FeedForward(NamedTuple):
    """What keeps the hand beside a moving goal; arrays are [m].

    Attributes:
        joint_velocity: with which the hand moves as the goal does, rad/s.
        action: that holds this motion.
    """

    joint_velocity: FloatArray
    action: FloatArray


class GoalFeedForward:
    """The joint motion that goes with a goal, and the action that it takes:

        q̇_goal = J⁺ v,    u_goal = ((D + F) q̇_goal + M(q) J⁺ a) / torque_scale

    with the damped inverse J⁺ of the hand's Jacobian, the damping D of the torque law, the joints' friction F and the
    mass matrix M of the description. The policy sees q̇ - q̇_goal and its own last action, without u_goal: an arm that
    moves with the goal looks to it like one that rests, so that it corrects what is left as it does at a resting goal.
    """

    def __init__(self, task: ReachTask) -> None:
        """Prepare the task's arm."""
        self._task = task
        self._dynamics = ArmDynamics(task.arm)
        self._joints = task.controlled_joints
        self._damping = task.damping + self._dynamics.damping[: self._joints]
        self._fastest = LARGEST_FRACTION * task.velocity_scale

    def of(self, motion: GoalMotion, joint_position: FloatArray) -> FeedForward:
        """What a goal's motion asks for at these angles, rad, [n]."""
        m, d = self._joints, self._task.goal_dimensions
        _, whole = self._task.arm.chain.position_and_jacobian(joint_position)
        jacobian = whole[:d, :m]
        gram = jacobian @ jacobian.T + SINGULARITY_DAMPING**2 * np.eye(d)
        wanted = jacobian.T @ np.linalg.solve(gram, np.stack((motion.velocity, motion.acceleration), axis=1))
        wanted /= max(1.0, float((np.abs(wanted[:, 0]) / self._fastest).max()))
        velocity, acceleration = wanted.T
        inertia = self._dynamics.mass_matrix(joint_position)[:m, :m]
        return FeedForward(velocity, (self._damping * velocity + inertia @ acceleration) / self._task.torque_scale)
