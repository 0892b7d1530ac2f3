"""Joints that do not feel each other: the arm of Huebotter et al.'s planar task, without MuJoCo.

Has the part of `mujoco.batch.Batch`'s interface that `tasks.environment` uses.
"""

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from spiking_controller.tasks.reach import FloatArray, ReachTask

REST_FRACTION = 0.01
"""A joint slower than this share of its velocity limit stands still."""


class JointAccelerations:
    """Arms of which each joint is a unit inertia, q̈ = τ / (1 kg·m²), in explicit Euler steps:

        q <- q + dt·q̇
        q̇ <- clip(q̇ + dt·τ, ± velocity limit), and 0 if slower than REST_FRACTION of it

    There are no position limits; all arrays are [arms, joints].
    """

    def __init__(self, task: ReachTask, arms: int) -> None:
        """Arms of a task at joint angles of zero."""
        shape = (arms, len(task.arm.joint_names))
        self._period = task.physics_period
        self._fastest = np.asarray(task.arm.limits.velocity, dtype=np.float64)
        self._arrays = {name: np.zeros(shape) for name in ("qpos", "qvel", "ctrl")}
        self.warning: NDArray[np.int32] = np.zeros((arms, mujoco.mjtWarning.mjNWARNING, 2), np.int32)
        """Nothing here can go wrong: there are never any."""

    def bind(self, name: str) -> FloatArray:
        """Joint angles "qpos", rad, velocities "qvel", rad/s, or torques "ctrl", N·m, to read and to write."""
        return self._arrays[name]

    def step(self) -> None:
        """One physics period."""
        position, velocity, torque = self._arrays.values()
        position += self._period * velocity
        velocity += self._period * torque
        np.clip(velocity, -self._fastest, self._fastest, out=velocity)
        velocity[np.abs(velocity) < REST_FRACTION * self._fastest] = 0.0

    def reset(self, mask: NDArray[np.bool_], **stage: Any) -> None:
        """Put the arms in the mask [arms] at rest at zero; `stage` is MuJoCo's and means nothing here."""
        del stage
        for values in self._arrays.values():
            values[mask] = 0.0
