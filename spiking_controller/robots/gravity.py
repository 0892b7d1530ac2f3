"""The torque that holds an arm against gravity, to tell whether recorded efforts include it, and to take it out."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.mujoco_model import joint_addresses

FloatArray = NDArray[np.float64]


class GravityModel:
    """An arm's weight, as its description has it: no payload, no tool."""

    def __init__(self, arm: Arm) -> None:
        """Load the arm without its gravity compensation."""
        self._model = arm.load_model(gravity_compensation=False, visuals=False)
        self._data = mujoco.MjData(self._model)
        self._position, self._velocity = joint_addresses(self._model, arm.joint_names)

    def torque(self, joint_position: FloatArray) -> FloatArray:
        """What the motors must give to hold the arm still, N·m, [n], at joint angles, rad, [n]."""
        self._data.qpos[self._position] = joint_position
        mujoco.mj_forward(self._model, self._data)
        # At rest, the bias force is gravity alone.
        return self._data.qfrc_bias[self._velocity].copy()
