"""Mass matrix of an arm at any posture, from its MuJoCo description."""

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.mujoco_model import joint_addresses

FloatArray = NDArray[np.float64]


class ArmDynamics:
    """Joint-space dynamics, M(q)·q̈ + damping·q̇ + ... = torque; joints in the order of the arm's `joint_names`, [n].

    Attributes:
        damping: viscous joint friction of the description, N·m·s/rad, [n].
    """

    def __init__(self, arm: Arm) -> None:
        """Load the arm.

        Raises:
            RobotModelError: the model cannot be loaded.
        """
        self._model = arm.load_model(True)
        self._data = mujoco.MjData(self._model)
        self._position, self._velocity = joint_addresses(self._model, arm.joint_names)
        self._matrix = np.zeros((self._model.nv, self._model.nv))
        self.damping: FloatArray = self._model.dof_damping[self._velocity].copy()

    def mass_matrix(self, joint_position: ArrayLike) -> FloatArray:
        """M(q), kg·m², [n, n], armature included.

        Args:
            joint_position: rad, [n].
        """
        self._data.qpos[self._position] = joint_position
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_crb(self._model, self._data)
        mujoco.mj_fullM(self._model, self._data, self._matrix)
        return self._matrix[np.ix_(self._velocity, self._velocity)].copy()
