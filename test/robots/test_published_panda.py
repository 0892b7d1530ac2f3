"""The Panda's description against the published model: the manufacturer's URDF from the package example-robot-data.

Pinocchio reads that URDF. Ours is compared twice: as MuJoCo simulates it, and as Pinocchio reads the same file.
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
import pinocchio
import pytest

from spiking_controller.robots.arm import Arm, get_arm

TOLERANCE = 0.01
"""Share by which our model may differ from the published one."""

FINGER_OPENING = 0.02
"""Where our model fixes each finger, m."""


class PublishedPanda(NamedTuple):
    """The seven-joint arm with its fingers fixed, half open, and its collision meshes."""

    model: pinocchio.Model
    geometry: pinocchio.GeometryModel


@cache
def published_panda(finger_opening: float = FINGER_OPENING) -> PublishedPanda:
    """The published model with both fingers fixed at `finger_opening`, m."""
    share = Path(str(distribution("example-robot-data").locate_file("cmeel.prefix/share")))
    urdf = share / "example-robot-data/robots/panda_description/urdf/panda.urdf"
    with_fingers = pinocchio.buildModelFromUrdf(str(urdf))
    meshes = pinocchio.buildGeomFromUrdf(
        with_fingers, str(urdf), pinocchio.GeometryType.COLLISION, package_dirs=[str(share)]
    )
    fingers = [with_fingers.getJointId(f"panda_finger_joint{i}") for i in (1, 2)]
    posture = pinocchio.neutral(with_fingers)
    for finger in fingers:
        posture[with_fingers.joints[finger].idx_q] = finger_opening
    return PublishedPanda(*pinocchio.buildReducedModel(with_fingers, meshes, fingers, posture))


def mass_matrix(model: pinocchio.Model, joint_position: np.ndarray) -> np.ndarray:
    """Mass matrix without armature, kg·m², [7, 7]."""
    bare = pinocchio.Model(model)
    bare.armature = np.zeros(bare.nv)
    matrix = np.array(pinocchio.crba(bare, bare.createData(), joint_position))
    return np.triu(matrix) + np.triu(matrix, 1).T


def bias_torque(model: pinocchio.Model, joint_position: np.ndarray, joint_velocity: np.ndarray) -> np.ndarray:
    """Torque of gravity, Coriolis and centrifugal forces, N·m, [7]."""
    return np.array(pinocchio.nonLinearEffects(model, model.createData(), joint_position, joint_velocity))


def frame_placement(model: pinocchio.Model, frame: str, joint_position: np.ndarray) -> pinocchio.SE3:
    """Placement of a frame in the base."""
    data = model.createData()
    pinocchio.framesForwardKinematics(model, data, joint_position)
    return data.oMf[model.getFrameId(frame)]


def random_postures(arm: Arm, count: int, fraction: float = 1.0, seed: int = 0) -> np.ndarray:
    lower, upper = arm.limits.soft_bounds(fraction)
    return np.random.default_rng(seed).uniform(lower, upper, (count, lower.size))


def mass_matrix_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of two entries, as a share of the geometric mean of the two joints' own inertia."""
    own = np.sqrt(np.diag(theirs))
    return float(np.abs((ours - theirs) / np.outer(own, own)).max())


def torque_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


class SimulatedMechanics:
    """What MuJoCo makes of our description."""

    def __init__(self, arm: Arm) -> None:
        self.model = arm.load_model()
        self.data = mujoco.MjData(self.model)

    def _put(self, position: np.ndarray, velocity: np.ndarray | float = 0.0) -> None:
        self.data.qpos[:] = position
        self.data.qvel[:] = velocity
        mujoco.mj_forward(self.model, self.data)

    def mass_matrix(self, position: np.ndarray) -> np.ndarray:
        self._put(position)
        matrix = np.zeros((self.model.nv, self.model.nv))
        mujoco.mj_fullM(self.model, self.data, matrix)
        return matrix - np.diag(self.model.dof_armature)

    def bias_torque(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        self._put(position, velocity)
        return np.array(self.data.qfrc_bias)

    def placement(self, site: str, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._put(position)
        return np.array(self.data.site(site).xpos), self.data.site(site).xmat.reshape(3, 3).copy()


class ReadMechanics:
    """What an independent reader, Pinocchio, makes of our description."""

    def __init__(self, arm: Arm) -> None:
        self.model = pinocchio.buildModelFromMJCF(str(arm.description.path))

    def mass_matrix(self, position: np.ndarray) -> np.ndarray:
        return mass_matrix(self.model, position)

    def bias_torque(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return bias_torque(self.model, position, velocity)

    def placement(self, site: str, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        placement = frame_placement(self.model, site, position)
        return placement.translation, placement.rotation


Mechanics = SimulatedMechanics | ReadMechanics


@pytest.fixture(scope="module")
def arm() -> Arm:
    return get_arm("panda")


@pytest.fixture(scope="module", params=[SimulatedMechanics, ReadMechanics])
def mechanics(request: pytest.FixtureRequest, arm: Arm) -> Mechanics:
    made: Mechanics = request.param(arm)
    return made


def test_limits_are_the_published_ones(arm: Arm) -> None:
    reference = published_panda().model
    assert arm.limits.position_lower == pytest.approx(reference.lowerPositionLimit)
    assert arm.limits.position_upper == pytest.approx(reference.upperPositionLimit)
    assert arm.limits.velocity == pytest.approx(reference.upperVelocityLimit)
    assert arm.limits.torque == pytest.approx(reference.upperEffortLimit)


def test_mass_matrix_without_armature_is_the_published_one(arm: Arm, mechanics: Mechanics) -> None:
    reference = published_panda().model
    for position in random_postures(arm, 200):
        theirs = mass_matrix(reference, position)
        assert mass_matrix_error(mechanics.mass_matrix(position), theirs) < 1e-4


def test_mass_matrix_stays_within_tolerance_for_closed_and_open_fingers(arm: Arm, mechanics: Mechanics) -> None:
    for opening in (0.0, 0.04):
        reference = published_panda(opening).model
        for position in random_postures(arm, 50):
            theirs = mass_matrix(reference, position)
            assert mass_matrix_error(mechanics.mass_matrix(position), theirs) < TOLERANCE


def test_gravity_torque_is_the_published_one(arm: Arm, mechanics: Mechanics) -> None:
    reference = published_panda().model
    rest = np.zeros(7)
    for position in random_postures(arm, 200):
        theirs = bias_torque(reference, position, rest)
        assert torque_error(mechanics.bias_torque(position, rest), theirs) < 1e-4


def test_velocity_dependent_torque_is_the_published_one(arm: Arm, mechanics: Mechanics) -> None:
    reference = published_panda().model
    rng = np.random.default_rng(1)
    for position in random_postures(arm, 200):
        velocity = rng.uniform(-arm.limits.velocity, arm.limits.velocity)
        theirs = bias_torque(reference, position, velocity)
        assert torque_error(mechanics.bias_torque(position, velocity), theirs) < 1e-4


@pytest.mark.parametrize(("site", "frame"), [("flange", "panda_link8"), ("hand_tcp", "panda_hand_tcp")])
def test_kinematics_are_the_published_ones(arm: Arm, mechanics: Mechanics, site: str, frame: str) -> None:
    reference = published_panda().model
    for position in random_postures(arm, 200):
        place, rotation = mechanics.placement(site, position)
        theirs = frame_placement(reference, frame, position)
        assert place == pytest.approx(theirs.translation, abs=1e-9)
        assert rotation == pytest.approx(theirs.rotation, abs=1e-9)


def self_contacts(arm: Arm, postures: np.ndarray) -> Iterator[bool]:
    """Whether our arm touches itself, for each posture."""
    model = arm.load_model()
    data = mujoco.MjData(model)
    for position in postures:
        data.qpos[:] = position
        mujoco.mj_fwdPosition(model, data)
        yield any(0 not in model.geom_bodyid[contact.geom] for contact in data.contact)


def mesh_collisions(postures: np.ndarray) -> Iterator[bool]:
    """Whether the manufacturer's collision meshes of two links touch, for each posture.

    Left out are neighbours, the hand's own parts, and the pairs of the forearm (link 5) with what follows it: its mesh
    is a convex hull that fills the hollow into which the wrist folds.
    """
    model, complete = published_panda()
    geometry = complete.copy()
    order = [f"panda_link{i}" for i in range(8)] + ["panda_hand", "panda_leftfinger", "panda_rightfinger"]
    links = [order.index(shape.name.rsplit("_", 1)[0]) for shape in geometry.geometryObjects]
    for first in range(len(links)):
        for second in range(first + 1, len(links)):
            near, far = sorted((links[first], links[second]))
            if near <= 4 and far - near >= 2:
                geometry.addCollisionPair(pinocchio.CollisionPair(first, second))
    data, geometry_data = model.createData(), geometry.createData()
    for position in postures:
        yield pinocchio.computeCollisions(model, data, geometry, geometry_data, position, True)


def test_arm_touches_itself_where_the_real_one_does(arm: Arm) -> None:
    postures = random_postures(arm, 2000, fraction=0.8)
    ours = np.array(list(self_contacts(arm, postures)))
    theirs = np.array(list(mesh_collisions(postures)))
    assert 0.002 < theirs.mean() < 0.02
    assert np.mean(ours & ~theirs) < 0.002
    assert np.mean(theirs & ~ours) < 0.005
