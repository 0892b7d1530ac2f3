"""Looks joints and motors up in MuJoCo models by name, and says which of MuJoCo's warnings mean an unstable arm."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from spiking_controller.robots.arm import Arm

UNSTABLE: Final = [
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]
"""The warnings after which MuJoCo has reset a simulation or dropped its controls."""


def _log_to_no_file() -> None:
    """Warnings are counted in the data and reported by us; MuJoCo would also append them to a file in the cwd."""
    config = mujoco.MjLogConfig.get()
    config.logto_file = False
    config.set()


_log_to_no_file()


class JointAddresses(NamedTuple):
    """Where joints stand in a model's arrays, each [joints].

    Attributes:
        position: in `qpos`.
        velocity: in `qvel` and all that has its length.
    """

    position: NDArray[np.intp]
    velocity: NDArray[np.intp]


def joint_addresses(model: mujoco.MjModel, joint_names: Sequence[str]) -> JointAddresses:
    """Addresses of joints of one degree of freedom, in the order of their names."""
    joints = [model.joint(name) for name in joint_names]
    return JointAddresses(
        np.array([joint.qposadr[0] for joint in joints], dtype=np.intp),
        np.array([joint.dofadr[0] for joint in joints], dtype=np.intp),
    )


def motors(model: mujoco.MjModel, arm: Arm) -> NDArray[np.intp]:
    """Numbers of the motors that drive an arm's joints in its model, [joints]."""
    return np.array([_motor_of(model, name) for name in arm.joint_names], dtype=np.intp)


def _motor_of(model: mujoco.MjModel, joint_name: str) -> int:
    drives = model.actuator_trnid[:, 0] == model.joint(joint_name).id
    drives &= model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
    return int(np.flatnonzero(drives)[0])
