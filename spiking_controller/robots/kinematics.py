"""Hand position and Jacobian of a joint chain, quick for batches, so that training needs no simulator."""

from collections.abc import Sequence
from typing import Self

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.compilation import compiled
from spiking_controller.errors import RobotModelError

FloatArray = NDArray[np.float64]


class KinematicChain:
    """Forward kinematics of a site on a chain of hinge joints, in the world frame of its model.

    Every joint turns about the z axis of its own frame. Segment i is the fixed transform from the frame of
    joint i - 1 (the world for i = 0) to that of joint i, and the last segment leads to the site:

        T(q) = S_0 · R_z(q_0) · S_1 · R_z(q_1) · ... · S_k

    A joint's column of the Jacobian is z × (site - origin), with its axis z and its origin.
    """

    def __init__(self, rotation: ArrayLike, translation: ArrayLike, columns: ArrayLike, joint_count: int) -> None:
        """Take the segments of a chain; `from_model` finds them.

        Args:
            rotation: rotation matrix of each segment, [chain joints + 1, 3, 3].
            translation: displacement of each segment, m, [chain joints + 1, 3].
            columns: column of the joint vector that each joint of the chain reads, [chain joints].
            joint_count: length of the joint vector.
        """
        self._rotation = np.ascontiguousarray(rotation, dtype=np.float64)
        self._translation = np.ascontiguousarray(translation, dtype=np.float64)
        self._columns = np.ascontiguousarray(columns, dtype=np.int64)
        self.joint_count = joint_count

    @classmethod
    def from_model(cls, model: mujoco.MjModel, joint_names: Sequence[str], site: str) -> Self:
        """The chain from the world to a site of a MuJoCo model.

        Joints that do not move the site keep zero columns in the Jacobian.

        Args:
            model: the robot.
            joint_names: order of the joint vector.
            site: name of the site.
        Raises:
            RobotModelError: a joint or the site does not exist, or the chain holds a joint that is not a
                hinge or not in `joint_names`.
        """
        column_of_joint: dict[int, int] = {}
        for column, name in enumerate(joint_names):
            joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
            if joint < 0:
                known = ", ".join(model.joint(i).name for i in range(model.njnt))
                raise RobotModelError(f"there is no joint {name!r}; the model's joints are {known}.")
            column_of_joint[joint] = column
        site_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, site)
        if site_id < 0:
            known = ", ".join(model.site(i).name for i in range(model.nsite))
            raise RobotModelError(f"there is no site {site!r}; the model's sites are {known}.")

        bodies = []
        body = int(model.site_bodyid[site_id])
        while body != 0:
            bodies.append(body)
            body = int(model.body_parentid[body])

        rotations, translations, columns = [], [], []
        rotation, translation = np.eye(3), np.zeros(3)
        for body in reversed(bodies):
            translation = translation + rotation @ model.body_pos[body]
            rotation = rotation @ _rotation_matrix(model.body_quat[body])
            first = int(model.body_jntadr[body])
            for joint in range(first, first + int(model.body_jntnum[body])):
                name = model.joint(joint).name
                if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                    raise RobotModelError(f"joint {name!r} is not a hinge; the chain to {site!r} takes only hinges.")
                if joint not in column_of_joint:
                    raise RobotModelError(
                        f"joint {name!r} moves {site!r} but is not among {', '.join(joint_names)}; add it."
                    )
                anchor = model.jnt_pos[joint]
                to_axis = _rotation_to_axis(model.jnt_axis[joint])
                at_zero = _rotation_about_z(-float(model.qpos0[model.jnt_qposadr[joint]]))
                rotations.append(rotation @ to_axis @ at_zero)
                translations.append(translation + rotation @ anchor)
                columns.append(column_of_joint[joint])
                rotation, translation = to_axis.T, -to_axis.T @ anchor
        translations.append(translation + rotation @ model.site_pos[site_id])
        rotations.append(rotation @ _rotation_matrix(model.site_quat[site_id]))
        return cls(np.array(rotations), np.array(translations), columns, len(joint_names))

    @property
    def links(self) -> tuple[FloatArray, FloatArray, tuple[int, ...]]:
        """Fixed rotation [joints, 3, 3] and translation [joints + 1, 3], m, before each turn about z, and its joint."""
        return self._rotation.copy(), self._translation.copy(), tuple(int(column) for column in self._columns)

    @property
    def vertical_base_axis(self) -> FloatArray | None:
        """x and y of the vertical axis about which the first entry of the joint vector turns the whole chain, m.

        None if that joint is not the chain's first, or turns about another axis.
        """
        upright = np.allclose(self._rotation[0, :, 2], (0.0, 0.0, 1.0))
        if not upright or self._columns[0] != 0:
            return None
        return self._translation[0, :2].copy()

    def position(self, joint_position: ArrayLike) -> FloatArray:
        """Position of the site.

        Args:
            joint_position: rad, [batch, joints] or [joints].
        Returns:
            m, [batch, 3] or [3].
        Raises:
            RobotModelError: another number of joints.
        """
        q = self._checked(joint_position)
        position: FloatArray = _positions(np.atleast_2d(q), self._rotation, self._translation, self._columns)
        return position if q.ndim == 2 else position[0]

    def position_and_jacobian(self, joint_position: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Position of the site and its derivative by the joint angles.

        Args:
            joint_position: rad, [batch, joints] or [joints].
        Returns:
            Position, m, [batch, 3] or [3], and Jacobian, m/rad, [batch, 3, joints] or [3, joints].
        Raises:
            RobotModelError: another number of joints.
        """
        q = self._checked(joint_position)
        position, jacobian = _positions_and_jacobians(
            np.atleast_2d(q), self._rotation, self._translation, self._columns
        )
        return (position, jacobian) if q.ndim == 2 else (position[0], jacobian[0])

    def approach(
        self, joint_position: ArrayLike, target: ArrayLike, lower: ArrayLike, upper: ArrayLike, dimensions: int = 3
    ) -> FloatArray:
        """Bring the site as near to a point as it comes from this posture, by Levenberg-Marquardt inside a box.

        Compiled apart from the batched steps of `tasks.postures.NearestPosture`, since a goal is checked between two
        torques of the live controller: with those, a check out of reach takes 18 ms instead of 1.4 ms.

        Args:
            joint_position: start, rad, [joints].
            target: m, [3].
            lower, upper: bounds of the joints, rad, [joints]; a joint whose bounds are equal stays.
            dimensions: how many coordinates of the point count, from x.
        Returns:
            Posture inside the bounds, rad, [joints].
        Raises:
            RobotModelError: another number of joints.
        """
        q, low, high = self._checked(joint_position), self._checked(lower), self._checked(upper)
        point = np.ascontiguousarray(target, dtype=np.float64)
        start = np.clip(q, low, high)[None]
        posture: FloatArray = _approach(
            start, point, low, high, dimensions, self._rotation, self._translation, self._columns
        )
        return posture[0]

    def _checked(self, joint_position: ArrayLike) -> FloatArray:
        q = np.ascontiguousarray(joint_position, dtype=np.float64)
        if q.ndim not in (1, 2) or q.shape[-1] != self.joint_count:
            raise RobotModelError(
                f"joint positions have the shape {q.shape}; this chain takes [batch, {self.joint_count}] or "
                f"[{self.joint_count}]."
            )
        return q


def _rotation_matrix(quaternion: FloatArray) -> FloatArray:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _rotation_to_axis(axis: FloatArray) -> FloatArray:
    """A rotation that carries the z axis to `axis`."""
    quaternion = np.empty(4)
    mujoco.mju_quatZ2Vec(quaternion, axis)
    return _rotation_matrix(quaternion)


def _rotation_about_z(angle: float) -> FloatArray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


@compiled()
def _positions(q, rotation, translation, columns):  # type: ignore[no-untyped-def]
    """Positions [batch, 3] of the chain's end for the joint angles q [batch, joints]."""
    batch, joints = q.shape[0], columns.shape[0]
    position = np.empty((batch, 3))
    for b in range(batch):
        # From the end towards the base only a point has to be carried, not a frame.
        x, y, z = translation[joints, 0], translation[joints, 1], translation[joints, 2]
        for i in range(joints - 1, -1, -1):
            angle = q[b, columns[i]]
            cosine, sine = np.cos(angle), np.sin(angle)
            x, y = cosine * x - sine * y, sine * x + cosine * y
            r, t = rotation[i], translation[i]
            x, y, z = (
                r[0, 0] * x + r[0, 1] * y + r[0, 2] * z + t[0],
                r[1, 0] * x + r[1, 1] * y + r[1, 2] * z + t[1],
                r[2, 0] * x + r[2, 1] * y + r[2, 2] * z + t[2],
            )
        position[b, 0], position[b, 1], position[b, 2] = x, y, z
    return position


@compiled()
def _positions_and_jacobians(q, rotation, translation, columns):  # type: ignore[no-untyped-def]
    """Positions [batch, 3] and Jacobians [batch, 3, joints] of the chain's end for q [batch, joints]."""
    batch, joints = q.shape[0], columns.shape[0]
    position = np.empty((batch, 3))
    jacobian = np.zeros((batch, 3, q.shape[1]))
    frame = np.empty((3, 3))
    axis = np.empty((joints, 3))
    origin = np.empty((joints, 3))
    point = np.empty(3)
    for b in range(batch):
        frame[:] = 0.0
        for k in range(3):
            frame[k, k] = 1.0
            point[k] = 0.0
        for i in range(joints):
            r, t = rotation[i], translation[i]
            angle = q[b, columns[i]]
            cosine, sine = np.cos(angle), np.sin(angle)
            for k in range(3):
                a0, a1, a2 = frame[k, 0], frame[k, 1], frame[k, 2]
                point[k] += a0 * t[0] + a1 * t[1] + a2 * t[2]
                x = a0 * r[0, 0] + a1 * r[1, 0] + a2 * r[2, 0]
                y = a0 * r[0, 1] + a1 * r[1, 1] + a2 * r[2, 1]
                z = a0 * r[0, 2] + a1 * r[1, 2] + a2 * r[2, 2]
                frame[k, 0] = cosine * x + sine * y
                frame[k, 1] = cosine * y - sine * x
                frame[k, 2] = z
                axis[i, k] = z
                origin[i, k] = point[k]
        t = translation[joints]
        for k in range(3):
            point[k] += frame[k, 0] * t[0] + frame[k, 1] * t[1] + frame[k, 2] * t[2]
            position[b, k] = point[k]
        for i in range(joints):
            x, y, z = point[0] - origin[i, 0], point[1] - origin[i, 1], point[2] - origin[i, 2]
            column = columns[i]
            jacobian[b, 0, column] = axis[i, 1] * z - axis[i, 2] * y
            jacobian[b, 1, column] = axis[i, 2] * x - axis[i, 0] * z
            jacobian[b, 2, column] = axis[i, 0] * y - axis[i, 1] * x
    return position, jacobian


_APPROACH_ROUNDS = 60
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-6, 1e3
_SMALLEST_GAIN = 1e-6
"""An approach that comes nearer by less than this in a round is over, m."""


# In plain loops: they compile several times faster than array expressions.
@compiled()
def _approach(q, target, lower, upper, dimensions, rotation, translation, columns):  # type: ignore[no-untyped-def]
    """Posture [1, joints] whose chain's end is near the target [3]; see `KinematicChain.approach`."""
    joints = q.shape[1]
    trial = q.copy()
    gram = np.empty((3, 3))
    error = np.empty(3)
    damping = _FIRST_DAMPING
    place, jacobian = _positions_and_jacobians(q, rotation, translation, columns)
    squared = _miss(place, target, dimensions, error)
    for _ in range(_APPROACH_ROUNDS):
        # A joint that its bound holds back takes no part in this round.
        for j in range(joints):
            pull = 0.0
            for k in range(dimensions):
                pull += jacobian[0, k, j] * error[k]
            held = (q[0, j] <= lower[j] and pull <= 0.0) or (q[0, j] >= upper[j] and pull >= 0.0)
            for k in range(3):
                if held or k >= dimensions:
                    jacobian[0, k, j] = 0.0
        before = squared
        while damping < _MOST_DAMPING and squared == before:
            for i in range(3):
                for k in range(3):
                    gram[i, k] = damping if i == k else 0.0
                    for j in range(joints):
                        gram[i, k] += jacobian[0, i, j] * jacobian[0, k, j]
            x, y, z = _solved(gram, error)
            for j in range(joints):
                step = jacobian[0, 0, j] * x + jacobian[0, 1, j] * y + jacobian[0, 2, j] * z
                trial[0, j] = min(max(q[0, j] + step, lower[j]), upper[j])
            place, next_jacobian = _positions_and_jacobians(trial, rotation, translation, columns)
            trial_squared = _miss(place, target, dimensions, gram[0])
            if trial_squared < squared:
                squared = _miss(place, target, dimensions, error)
                jacobian = next_jacobian
                damping = max(0.2 * damping, _LEAST_DAMPING)
                for j in range(joints):
                    q[0, j] = trial[0, j]
            else:
                damping *= 5.0
        if before**0.5 - squared**0.5 < _SMALLEST_GAIN:
            break
    return q


@compiled()
def _miss(place, target, dimensions, error):  # type: ignore[no-untyped-def]
    """Squared distance of place [1, 3] from target [3] in the dimensions that count; writes the difference to error."""
    squared = 0.0
    for k in range(3):
        error[k] = target[k] - place[0, k] if k < dimensions else 0.0
        squared += error[k] * error[k]
    return squared


@compiled()
def _solved(matrix, values):  # type: ignore[no-untyped-def]
    """x, y, z of matrix · (x, y, z) = values for a symmetric positive definite matrix [3, 3], by Cramer's rule."""
    a, b, c = matrix[0, 0], matrix[1, 1], matrix[2, 2]
    d, e, f = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    aa, bb, cc = b * c - f * f, a * c - e * e, a * b - d * d
    dd, ee, ff = e * f - d * c, d * f - e * b, d * e - a * f
    determinant = a * aa + d * dd + e * ee
    x = (aa * values[0] + dd * values[1] + ee * values[2]) / determinant
    y = (dd * values[0] + bb * values[1] + ff * values[2]) / determinant
    z = (ee * values[0] + ff * values[1] + cc * values[2]) / determinant
    return x, y, z
