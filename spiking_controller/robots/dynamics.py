"""Dynamics of an arm at any posture and speed, from its MuJoCo description."""

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.mujoco_model import joint_addresses

FloatArray = NDArray[np.float64]


class DynamicState(NamedTuple):
    """What forces do to an arm in one posture at one speed; n joints in the order of the arm's `joint_names`.

    Attributes:
        mass_matrix: M(q), kg·m², [n, n], armature included.
        bias: Coriolis and centrifugal torque, and the arm's weight where it does not carry it itself, N·m, [n].
        jacobian: of the hand's velocity, m/rad, [3, n].
        turning_jacobian: of the hand's angular velocity, [3, n].
        rotation: of the hand, from its axes to those of the base, [3, 3].
    """

    mass_matrix: FloatArray
    bias: FloatArray
    jacobian: FloatArray
    turning_jacobian: FloatArray
    rotation: FloatArray


class ArmDynamics:
    """Joint-space dynamics, M(q)·q̈ + bias(q, q̇) + damping·q̇ = torque; joints in the order of `joint_names`, [n].

    Attributes:
        damping: viscous joint friction of the description, N·m·s/rad, [n].
        gravity: acceleration of free fall in the base frame, m/s², [3].
    """

    def __init__(self, arm: Arm, carries_weight: bool = True) -> None:
        """Load the arm.

        Args:
            arm: which one.
            carries_weight: the arm carries its own weight, so that torques exclude it.
        Raises:
            RobotModelError: the model cannot be loaded.
        """
        self._model = arm.load_model(True, visuals=False)
        self._data = mujoco.MjData(self._model)
        self._position, self._velocity = joint_addresses(self._model, arm.joint_names)
        self._matrix = np.zeros((self._model.nv, self._model.nv))
        self._bias = np.zeros(self._model.nv)
        self._jacobians = np.zeros((2, 3, self._model.nv))
        self._hand = self._model.site(arm.hand_site).id
        self.damping: FloatArray = self._model.dof_damping[self._velocity].copy()
        self.gravity: FloatArray = self._model.opt.gravity.copy()
        if carries_weight:
            self._model.opt.gravity[:] = 0.0

    def mass_matrix(self, joint_position: ArrayLike) -> FloatArray:
        """M(q), kg·m², [n, n], armature included.

        Args:
            joint_position: rad, [n].
        """
        self._place(joint_position)
        return self._present_mass_matrix()

    def state(self, joint_position: ArrayLike, joint_velocity: ArrayLike) -> DynamicState:
        """All of it at these angles, rad, and velocities, rad/s, [n] each."""
        data, model = self._data, self._model
        self._place(joint_position)
        matrix = self._present_mass_matrix()
        data.qvel[self._velocity] = joint_velocity
        mujoco.mj_comVel(model, data)
        mujoco.mj_rne(model, data, 0, self._bias)
        linear, turning = self._jacobians
        mujoco.mj_jacSite(model, data, linear, turning, self._hand)
        return DynamicState(
            matrix,
            self._bias[self._velocity],
            linear[:, self._velocity],
            turning[:, self._velocity],
            data.site_xmat[self._hand].reshape(3, 3).copy(),
        )

    def _place(self, joint_position: ArrayLike) -> None:
        self._data.qpos[self._position] = joint_position
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)

    def _present_mass_matrix(self) -> FloatArray:
        mujoco.mj_crb(self._model, self._data)
        mujoco.mj_fullM(self._model, self._data, self._matrix)
        return self._matrix[np.ix_(self._velocity, self._velocity)]
