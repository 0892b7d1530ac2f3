"""One simulated arm that takes torques and gives joint states, in steps of a fixed period."""

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import Arm

FloatArray = NDArray[np.float64]

LARGEST_TIMESTEP = 0.002
"""Of the physics, s; what the tasks are trained with."""


class HandPose(NamedTuple):
    """Position, m, [3], and orientation as quaternion x, y, z, w, [4], in the arm's base frame."""

    position: FloatArray
    orientation: FloatArray


class ArmSimulation:
    """An arm in MuJoCo that starts at home. Joint arrays are in the order of the arm's `joint_names`, [n]."""

    def __init__(self, arm: Arm, period: float = LARGEST_TIMESTEP, gravity_compensation: bool = True) -> None:
        """Load the arm.

        Args:
            arm: which one.
            period: of `advance`, s; longer ones are made of several physics steps.
            gravity_compensation: the arm carries its own weight.
        Raises:
            RobotModelError: the model cannot be loaded, or a joint has no motor.
        """
        self.arm = arm
        self.model = arm.load_model(gravity_compensation)
        self.data = mujoco.MjData(self.model)
        self._substeps = max(1, round(np.ceil(period / LARGEST_TIMESTEP - 1e-9)))
        self.model.opt.timestep = period / self._substeps
        self._period = round(period * 1e9)
        joints = [self.model.joint(name) for name in arm.joint_names]
        self._position = np.array([joint.qposadr[0] for joint in joints])
        self._velocity = np.array([joint.dofadr[0] for joint in joints])
        self._motors = np.array([self._motor_of(joint.id, joint.name) for joint in joints])
        self._hand = self.model.site(arm.hand_site).id
        self.explosions = 0
        self.reset()

    def _motor_of(self, joint: int, name: str) -> int:
        drives = (self.model.actuator_trnid[:, 0] == joint) & (self.model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT)
        if not drives.any():
            raise RobotModelError(f"{self.arm.mjcf}: the joint '{name}' has no motor; add one to the model.")
        return int(np.flatnonzero(drives)[0])

    def reset(self) -> None:
        """At rest at home, time zero."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._position] = self.arm.home
        mujoco.mj_forward(self.model, self.data)
        self.time = 0
        """Simulated time, ns."""

    def advance(self, torque: ArrayLike) -> None:
        """Let one period pass under a constant torque, N·m, [n]; the model clips it to the motors' range.

        A simulation that explodes starts again at home, at its present time, and `explosions` counts it.
        """
        self.data.ctrl[self._motors] = torque
        mujoco.mj_step(self.model, self.data, self._substeps)
        self.time += self._period
        if self._exploded():
            self.explosions += 1
            time = self.time
            self.reset()
            self.time = time

    def _exploded(self) -> bool:
        """Whether MuJoCo found the state unusable and restarted it (from a posture that is not home)."""
        return any(self.data.warning[int(kind)].number for kind in _UNSTABLE)

    @property
    def joint_position(self) -> FloatArray:
        """Angles, rad."""
        return np.asarray(self.data.qpos[self._position])

    @property
    def joint_velocity(self) -> FloatArray:
        """Velocities, rad/s."""
        return np.asarray(self.data.qvel[self._velocity])

    @property
    def joint_effort(self) -> FloatArray:
        """Torques of the motors in the last period, without gravity compensation, N·m."""
        return np.asarray(self.data.qfrc_actuator[self._velocity])

    @property
    def hand_pose(self) -> HandPose:
        """Where the hand is."""
        mujoco.mj_kinematics(self.model, self.data)
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self._hand])
        return HandPose(self.data.site_xpos[self._hand].copy(), np.roll(quaternion, -1))


_UNSTABLE = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
    mujoco.mjtWarning.mjWARN_BADCTRL,
)
