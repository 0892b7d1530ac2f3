"""Tells by a hash whether an arm is the one that networks were trained on."""

import hashlib
import json
from functools import cache
from typing import Any, Final

import mujoco
import numpy as np

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.limits import FloatArray

_DECIMALS: Final = 9
"""What is compared: other versions of MuJoCo may round differently in the last digits."""


@cache
def arm_hash(arm: Arm) -> str:
    """sha256 over what decides how the arm moves and where its hand is, whatever the file is called or says beside it.

    That is, of all bodies from the base on: frames, masses, inertias, and shapes that touch (of meshes their number);
    of the joints: axes, limits, armature and friction; the hand, the home posture and the locked joints' springs.
    """
    model = arm.load_model(visuals=False)
    bodies = [_body(model, body) for body in _bodies(model, arm)]
    site = model.site(arm.hand_site)
    limits = arm.limits
    content = {
        "joints": list(arm.joint_names),
        "controlled_joints": arm.controlled_joints,
        "bodies": bodies,
        "hand": [model.body(int(model.site_bodyid[site.id])).name, _plain(site.pos), _rotation(site.quat)],
        "home": _plain(arm.home),
        "limits": {name: _plain(getattr(limits, name)) for name in vars(limits)},
        "locked": [_plain(arm.locked_stiffness), _plain(arm.locked_damping)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _bodies(model: mujoco.MjModel, arm: Arm) -> list[int]:
    base = model.body(arm.base_frame).id
    return [body for body in range(model.nbody) if model.body_rootid[body] == base]


def _body(model: mujoco.MjModel, body: int) -> dict[str, Any]:
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    geoms = int(model.body_geomadr[body])
    turned = _matrix(model.body_iquat[body])
    return {
        "name": model.body(body).name,
        "parent": model.body(int(model.body_parentid[body])).name,
        "frame": [_plain(model.body_pos[body]), _rotation(model.body_quat[body])],
        "mass": _plain(model.body_mass[body]),
        "centre": _plain(model.body_ipos[body]) if model.body_mass[body] else None,
        # The tensor: its axes are not unique.
        "inertia": _plain(turned @ np.diag(model.body_inertia[body]) @ turned.T),
        "joints": [_joint(model, joint) for joint in range(first, first + count)],
        "shapes": [
            _shape(model, geom)
            for geom in range(geoms, geoms + int(model.body_geomnum[body]))
            if model.geom_contype[geom] or model.geom_conaffinity[geom]
        ],
    }


def _joint(model: mujoco.MjModel, joint: int) -> dict[str, Any]:
    dof = int(model.jnt_dofadr[joint])
    return {
        "name": model.joint(joint).name,
        "axis": _plain(model.jnt_axis[joint]),
        "anchor": _plain(model.jnt_pos[joint]),
        "zero": _plain(model.qpos0[model.jnt_qposadr[joint]]),
        "armature": _plain(model.dof_armature[dof]),
        "damping": _plain(np.ravel(model.dof_damping[dof])),
        "dry_friction": _plain(model.dof_frictionloss[dof]),
        "stiffness": _plain(np.ravel(model.jnt_stiffness[joint])),
    }


def _shape(model: mujoco.MjModel, geom: int) -> list[Any]:
    kind = int(model.geom_type[geom])
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        return [kind]
    # Fitted shapes come out of an eigenvalue problem: to a tenth of a millimetre.
    place = np.round(model.geom_pos[geom], 4), np.round(model.geom_size[geom], 4)
    return [kind, *map(_plain, place), int(model.geom_contype[geom]), int(model.geom_conaffinity[geom])]


def _matrix(quaternion: FloatArray) -> FloatArray:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, dtype=np.float64))
    return matrix.reshape(3, 3)


def _rotation(quaternion: FloatArray) -> list[Any]:
    """As a matrix: q and -q are the same rotation."""
    plain: list[Any] = _plain(_matrix(quaternion))
    return plain


def _plain(values: Any) -> Any:
    return (np.round(np.asarray(values, dtype=np.float64), _DECIMALS) + 0.0).tolist()
