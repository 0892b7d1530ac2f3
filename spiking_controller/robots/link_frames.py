"""Where the links of an arm lie in their parents, for /tf, and where its joints are."""

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.limits import FloatArray
from spiking_controller.robots.mujoco_model import joint_addresses
from spiking_controller.robots.urdf import hand_frame


class LinkPose(NamedTuple):
    """A frame in its parent.

    Attributes:
        parent, child: names of the links.
        position: m, [3].
        orientation: quaternion x, y, z, w, [4].
    """

    parent: str
    child: str
    position: FloatArray
    orientation: FloatArray


class LinkFrames:
    """The links of an arm, by the names of its URDF.

    Attributes:
        fixed: those that do not move in their parent, the point that is brought to goals among them.
    """

    def __init__(self, arm: Arm) -> None:
        """Read the arm's model."""
        model = arm.load_model(visuals=False)
        base = model.body(arm.base_frame).id
        self.fixed: list[LinkPose] = []
        self._moving: list[tuple[LinkPose, int, FloatArray]] = []
        for body in range(model.nbody):
            if model.body_rootid[body] != base or body == base:
                continue
            parent = model.body(int(model.body_parentid[body])).name
            orientation = np.roll(model.body_quat[body], -1)
            link = LinkPose(parent, model.body(body).name, model.body_pos[body].copy(), orientation)
            if model.body_jntnum[body]:
                joint = int(model.body_jntadr[body])
                column = arm.joint_names.index(model.joint(joint).name)
                self._moving.append((link, column, model.jnt_axis[joint].copy()))
            else:
                self.fixed.append(link)
        site = model.site(arm.hand_site)
        parent = model.body(int(model.site_bodyid[site.id])).name
        if parent == hand_frame(arm):  # a link of the arm's own
            return
        self.fixed.append(LinkPose(parent, hand_frame(arm), site.pos.copy(), np.roll(site.quat, -1)))

    def moving(self, joint_position: ArrayLike) -> list[LinkPose]:
        """Those behind a joint, at joint angles [n], rad."""
        angle = np.asarray(joint_position, dtype=np.float64)
        return [
            link._replace(orientation=_turned(link.orientation, axis, float(angle[column])))
            for link, column, axis in self._moving
        ]


def _turned(orientation: FloatArray, axis: FloatArray, angle: float) -> FloatArray:
    """Quaternion (x, y, z, w) times the turn by an angle about an axis."""
    vector, scalar = orientation[:3], orientation[3]
    turn, cosine = np.sin(angle / 2.0) * axis, np.cos(angle / 2.0)
    return np.append(scalar * turn + cosine * vector + np.cross(vector, turn), scalar * cosine - vector @ turn)


class JointAxes:
    """Where the joints of an arm are."""

    def __init__(self, arm: Arm) -> None:
        """Read the arm's model."""
        self._model = arm.load_model(visuals=False)
        self._data = mujoco.MjData(self._model)
        self._position = joint_addresses(self._model, arm.joint_names).position
        self._joints = [self._model.joint(name).id for name in arm.joint_names]

    def origins(self, joint_position: ArrayLike) -> FloatArray:
        """Points on the joints' axes in the base frame, m, [n, 3], at joint angles [n], rad."""
        self._data.qpos[self._position] = joint_position
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.xanchor[self._joints].copy()
