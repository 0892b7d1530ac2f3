"""The classical reference: inverse kinematics by damped least squares and a PD controller in joint space.

It knows the arm's exact kinematics and learns nothing. It acts through the same interface as the networks, so that the
torque law, limits, delay and goals are the same.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.postures import NearestPosture
from spiking_controller.tasks.reach import FloatArray, ReachTask

SEED: Final = 1
"""Of the postures from which the inverse kinematics starts its search."""


class ClassicalAgent:
    """Follows `tasks.episodes.Agent`: the nearest posture that reaches the goal, then straight to it in joint space.

    Inverse kinematics (`tasks.postures.NearestPosture`, damped least squares with a null-space pull towards the present
    posture) gives q* once per goal. A PD controller whose speed saturates leads there. With D the damping that the
    torque law brings along and v the velocity limit,

        q̇*     = stiffness·(q* - q), each joint at most speed·v
        torque = damping·D·(q̇* - q̇)        by the action        u = (damping·(q̇* - q̇) + q̇) / v

    u changes only so much from step to step, which keeps the torque within its rate limit. The soft bounds are a box
    that holds both q and q*, so that the way leads through no bound.
    """

    def __init__(
        self,
        task: ReachTask,
        stiffness: float = 4.0,
        damping: float = 2.5,
        speed: float = 0.95,
        largest_change: float = 0.1,
    ) -> None:
        """Prepare the inverse kinematics.

        Args:
            task: whose arm, torque law and soft bounds.
            stiffness: joint speed per joint error, 1/s.
            damping: of the controller in units of the torque law's; at 4 the wrist begins to shake.
            speed: largest wanted speed as a share of the velocity limit.
            largest_change: of an action in one control step.
        """
        self._codec = ObservationCodec(task)
        self._postures = NearestPosture(task, np.random.default_rng(SEED))
        self._velocity_limit = task.velocity_scale
        self._stiffness = stiffness
        self._damping = damping
        self._speed = speed
        self._largest_change = largest_change
        self.reset(1)

    def reset(self, batch: int) -> None:
        """Start of an episode: forget goal, posture and action of `batch` arms."""
        self._goal: NDArray[np.floating] | None = None
        self._posture: FloatArray = np.empty(0)
        self._action: FloatArray = np.zeros((batch, self._velocity_limit.size))

    def act(self, observation: NDArray[np.floating], goal: NDArray[np.floating]) -> FloatArray:
        """Actions [batch, m] in [-1, 1] for observations [batch, 2m + d] and goals [batch, d]."""
        position = self._codec.joint_position(observation)
        if self._goal is None or not np.array_equal(self._goal, goal):
            self._goal = np.array(goal)
            self._posture = self._postures.find(position, goal)
        velocity = self._codec.joint_velocity(observation) / self._velocity_limit
        wanted = self._stiffness * (self._posture - position) / self._velocity_limit
        wanted = np.clip(wanted, -self._speed, self._speed)
        action = np.clip(self._damping * (wanted - velocity) + velocity, -1.0, 1.0)
        self._action = self._action + np.clip(action - self._action, -self._largest_change, self._largest_change)
        return self._action
