"""The URDF files are those of the MJCF: kinematics, inertia, limits, shapes; so are the frames that go out on /tf."""

import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np
import pinocchio
import pytest
from scipy.spatial.transform import Rotation

from spiking_controller.resources import share_path
from spiking_controller.robots.arm import Arm, get_arm, shipped_arms
from spiking_controller.robots.link_frames import LinkFrames
from spiking_controller.robots.mujoco_model import joint_addresses
from spiking_controller.robots.urdf import hand_frame, urdf

ARMS = shipped_arms()
POSTURES = 20


@pytest.fixture(params=ARMS)
def arm(request: pytest.FixtureRequest) -> Arm:
    return get_arm(request.param)


@pytest.fixture
def from_urdf(arm: Arm) -> pinocchio.Model:
    return pinocchio.buildModelFromUrdf(str(share_path("models", f"{arm.name}.urdf")))


def postures(arm: Arm) -> np.ndarray:
    lower, upper = arm.limits.position_lower, arm.limits.position_upper
    return np.random.default_rng(1).uniform(lower, upper, (POSTURES, lower.size))


def test_the_committed_files_are_those_that_the_command_writes(arm: Arm) -> None:
    written = share_path("models", f"{arm.name}.urdf").read_text()
    assert written == urdf(arm), f"run `spiking_controller urdf {arm.name} --out models/{arm.name}.urdf`"


def test_every_link_lies_where_it_lies_in_mujoco(arm: Arm, from_urdf: pinocchio.Model) -> None:
    model = arm.load_model()
    data, other = mujoco.MjData(model), from_urdf.createData()
    names = [
        model.body(body).name for body in range(model.nbody) if model.body(body).name.startswith(arm.base_frame[:5])
    ]
    assert len(names) >= arm.controlled_joints
    for posture in postures(arm):
        data.qpos[joint_addresses(model, arm.joint_names).position] = posture
        mujoco.mj_kinematics(model, data)
        pinocchio.framesForwardKinematics(from_urdf, other, posture)
        for name in names:
            placement = other.oMf[from_urdf.getFrameId(name)]
            np.testing.assert_allclose(placement.translation, data.body(name).xpos, atol=1e-6)
            np.testing.assert_allclose(placement.rotation.ravel(), data.body(name).xmat, atol=1e-6)
        hand = other.oMf[from_urdf.getFrameId(hand_frame(arm))].translation
        np.testing.assert_allclose(hand, data.site(arm.hand_site).xpos, atol=1e-6)


def test_masses_and_inertia_are_mujocos(arm: Arm, from_urdf: pinocchio.Model) -> None:
    model = arm.load_model()
    armature = model.dof_armature.copy()
    model.dof_armature[:] = 0.0
    data, other = mujoco.MjData(model), from_urdf.createData()
    assert armature.all(), "URDF has no place for it"
    dofs = joint_addresses(model, arm.joint_names).velocity
    for posture in postures(arm):
        data.qpos[joint_addresses(model, arm.joint_names).position] = posture
        mujoco.mj_forward(model, data)
        full = np.empty((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        ours = np.array(pinocchio.crba(from_urdf, other, posture))
        ours = np.triu(ours) + np.triu(ours, 1).T
        own = np.sqrt(np.diag(full))[dofs]
        assert np.abs((ours - full[np.ix_(dofs, dofs)]) / np.outer(own, own)).max() < 0.01
        gravity = pinocchio.computeGeneralizedGravity(from_urdf, other, posture)
        bias = data.qfrc_bias[dofs]
        np.testing.assert_allclose(gravity, bias, atol=0.01 * max(1.0, float(np.abs(bias).max())))


def test_limits_are_the_arms(arm: Arm, from_urdf: pinocchio.Model) -> None:
    assert [name for name in from_urdf.names if name != "universe"] == list(arm.joint_names)
    np.testing.assert_allclose(from_urdf.lowerPositionLimit, arm.limits.position_lower, rtol=1e-6)
    np.testing.assert_allclose(from_urdf.upperPositionLimit, arm.limits.position_upper, rtol=1e-6)
    np.testing.assert_allclose(from_urdf.velocityLimit, arm.limits.velocity, rtol=1e-6)
    np.testing.assert_allclose(np.abs(from_urdf.upperEffortLimit), arm.limits.torque, rtol=1e-6)


def test_shapes_need_no_mesh_and_fill_the_same_room(arm: Arm) -> None:
    """Each link's shapes reach as far along each axis as in the MJCF, within 5 mm."""
    model = arm.load_model()
    root = ElementTree.fromstring(urdf(arm))
    assert not list(root.iter("mesh"))
    for link in root.iter("link"):
        corners = []
        for shape in link.findall("visual"):
            origin, geometry = shape.find("origin"), shape.find("geometry")
            assert origin is not None
            assert geometry is not None
            corners += _reach(origin, geometry[0])
        if not corners:
            continue
        body = model.body(link.attrib["name"]).id
        geoms = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == body and model.geom_group[geom] == 2]
        theirs = []
        for geom in geoms:
            turn = Rotation.from_quat(np.roll(model.geom_quat[geom], -1)).as_matrix()
            half = _half_extent(model, geom, turn)
            theirs += [model.geom_pos[geom] + half, model.geom_pos[geom] - half]
        np.testing.assert_allclose(np.max(corners, 0), np.max(theirs, 0), atol=0.005)
        np.testing.assert_allclose(np.min(corners, 0), np.min(theirs, 0), atol=0.005)


def _half_extent(model: mujoco.MjModel, geom: int, turn: np.ndarray) -> np.ndarray:
    """Of a geom along the link's axes, m, [3]."""
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return np.abs(turn) @ size
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        return np.sqrt(np.square(turn) @ np.square(size))
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return size[0] + np.abs(turn[:, 2]) * size[1]
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return size[0] * np.sqrt(1.0 - np.square(turn[:, 2]).clip(max=1.0)) + np.abs(turn[:, 2]) * size[1]
    return np.full(3, size[0])


def _reach(origin: ElementTree.Element, shape: ElementTree.Element) -> list[np.ndarray]:
    """Two opposite corners of the box around a URDF shape, along the link's axes."""
    place = np.array(origin.attrib["xyz"].split(), dtype=float)
    turn = Rotation.from_euler("xyz", np.array(origin.attrib["rpy"].split(), dtype=float)).as_matrix()
    if shape.tag == "box":
        half = np.abs(turn) @ (np.array(shape.attrib["size"].split(), dtype=float) / 2.0)
    elif shape.tag == "sphere":
        half = np.full(3, float(shape.attrib["radius"]))
    else:
        across = np.sqrt(1.0 - np.square(turn[:, 2]).clip(max=1.0))
        half = float(shape.attrib["radius"]) * across + np.abs(turn[:, 2]) * float(shape.attrib["length"]) / 2.0
    return [place + half, place - half]


def test_the_frames_of_tf_chain_up_to_mujocos(arm: Arm) -> None:
    model = arm.load_model()
    data, frames = mujoco.MjData(model), LinkFrames(arm)
    for posture in postures(arm):
        data.qpos[joint_addresses(model, arm.joint_names).position] = posture
        mujoco.mj_kinematics(model, data)
        found = {arm.base_frame: (np.zeros(3), Rotation.identity())}
        waiting = [*frames.moving(posture), *frames.fixed]
        while waiting:
            link = next(each for each in waiting if each.parent in found)
            waiting.remove(link)
            place, turn = found[link.parent]
            found[link.child] = place + turn.apply(link.position), turn * Rotation.from_quat(link.orientation)
        np.testing.assert_allclose(found[hand_frame(arm)][0], data.site(arm.hand_site).xpos, atol=1e-9)
        for name, (place, turn) in found.items():
            if name != hand_frame(arm):
                np.testing.assert_allclose(place, data.body(name).xpos, atol=1e-9)
                np.testing.assert_allclose(turn.as_matrix().ravel(), data.body(name).xmat, atol=1e-9)
