"""Turns the network's action into joint torques; the same rule runs in training and on the live arm.

The rule runs at the physics rate on fresh velocities while the action is held for a control period: a fast
local damping loop below the network.
"""

import numpy as np
from numpy.typing import NDArray

from spiking_controller.tasks.reach import FloatArray, ReachTask


class TorqueLaw:
    """Torque of the controlled and the locked joints.

    controlled:  tau = torque_scale * u - damping * q̇        (by default u = ±1 settles at the velocity limit)
    locked:      tau = stiffness * (locked_position - q) - damping * q̇

    Attributes:
        locked_position: where the locked joints are held, rad, [n - m]; at first home, as in training.
        locked_fraction: of the locked joints' stiffness that is used, 0 to 1.
    """

    def __init__(self, task: ReachTask) -> None:
        arm = task.arm
        self._joints = task.controlled_joints
        self._torque_scale = task.torque_scale
        self._damping = task.damping
        self.locked_position: FloatArray = np.asarray(arm.home, dtype=np.float64)[self._joints :]
        self.locked_fraction = 1.0
        self._locked_stiffness = np.asarray(arm.locked_stiffness, dtype=np.float64)
        self._locked_damping = np.asarray(arm.locked_damping, dtype=np.float64)

    @property
    def joint_damping(self) -> FloatArray:
        """Damping of all joints, N·m·s/rad, [n]."""
        return np.concatenate((self._damping, np.broadcast_to(self._locked_damping, self.locked_position.shape)))

    def torque(
        self,
        action: NDArray[np.floating],
        joint_position: NDArray[np.floating],
        joint_velocity: NDArray[np.floating],
    ) -> FloatArray:
        """The torque that the action asks for, before any limit.

        Args:
            action: in [-1, 1], [..., m].
            joint_position: rad, [..., n].
            joint_velocity: rad/s, [..., n].
        Returns:
            torque, N·m, [..., n].
        """
        m = self._joints
        torque = np.empty(joint_position.shape)
        torque[..., :m] = self._torque_scale * action - self._damping * joint_velocity[..., :m]
        if m < joint_position.shape[-1]:
            torque[..., m:] = (
                self.locked_fraction * self._locked_stiffness * (self.locked_position - joint_position[..., m:])
                - self._locked_damping * joint_velocity[..., m:]
            )
        return torque

    def action(self, torque: NDArray[np.floating], joint_velocity: NDArray[np.floating]) -> FloatArray:
        """The action that a torque amounts to: `torque` inverted, and clipped to [-1, 1], [..., m].

        Args:
            torque: N·m, [..., n].
            joint_velocity: rad/s at the same time, [..., n].
        """
        m = self._joints
        action = (torque[..., :m] + self._damping * joint_velocity[..., :m]) / self._torque_scale
        return np.asarray(np.clip(action, -1.0, 1.0))
