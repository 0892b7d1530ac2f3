"""An arm's file is read with its description; what is missing or wrong is said in a sentence with the fix."""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pinocchio
import pytest
import yaml

from spiking_controller.errors import RobotModelError
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import Arm, get_arm
from spiking_controller.robots.arm_identity import arm_hash
from spiking_controller.robots.link_frames import LinkFrames
from spiking_controller.robots.urdf import hand_frame, urdf
from spiking_controller.tasks.goals import is_free, sample_goals
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import get_task

UR5_URDF = (
    Path(str(distribution("example-robot-data").locate_file("cmeel.prefix/share/example-robot-data")))
    / "robots/ur_description/urdf/ur5_robot.urdf"
)
UR5: dict[str, Any] = {
    "description": str(UR5_URDF),
    "joints": [f"{name}_joint" for name in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")],
    "hand": "tool0",
    "home": [0.0, -1.57, 1.57, -1.57, -1.57, 0.0],
    "limits": {"position_lower": -3.14, "position_upper": 3.14},
    "armature": 0.1,
    "damping": 1.0,
}
PANDA: dict[str, Any] = yaml.safe_load(share_path("config", "arms", "panda.yaml").read_text()) | {
    "description": str(share_path("models", "panda.xml")),
    "checkpoint": "",
}


def arm_from(folder: Path, values: dict[str, Any], name: str = "ur5") -> Arm:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return get_arm(str(path))


@pytest.fixture
def ur5(tmp_path: Path) -> Arm:
    return arm_from(tmp_path, UR5)


def test_a_six_joint_arm_of_a_urdf_has_all_joints_driven_and_the_urdfs_limits(ur5: Arm) -> None:
    assert (ur5.name, ur5.base_frame, ur5.controlled_joints, ur5.goal_dimensions) == ("ur5", "base_link", 6, 3)
    assert ur5.locked_stiffness.size == 0
    assert ur5.limits.torque == pytest.approx([150.0] * 3 + [28.0] * 3)
    assert ur5.limits.velocity == pytest.approx([3.15] * 3 + [3.2] * 3)
    assert ur5.limits.position_upper == pytest.approx([3.14] * 6)
    assert ur5.shoulder == pytest.approx([0.0, 0.0, 0.089159])


def test_kinematics_gravity_and_inertia_of_a_urdf_are_those_that_pinocchio_reads(ur5: Arm) -> None:
    reference = pinocchio.buildModelFromUrdf(str(UR5_URDF))
    model = ur5.load_model()
    data, other = mujoco.MjData(model), reference.createData()
    matrix = np.zeros((6, 6))
    for posture in np.random.default_rng(1).uniform(-3.0, 3.0, (30, 6)):
        data.qpos[:] = posture
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, matrix)
        pinocchio.framesForwardKinematics(reference, other, posture)
        tool = other.oMf[reference.getFrameId("tool0")]
        assert ur5.chain.position(posture) == pytest.approx(tool.translation, abs=1e-9)
        upper = np.triu(pinocchio.crba(reference, other, posture))
        theirs = upper + np.triu(upper, 1).T
        np.testing.assert_allclose(matrix - 0.1 * np.eye(6), theirs, atol=1e-6)
        gravity = pinocchio.computeGeneralizedGravity(reference, other, posture)
        np.testing.assert_allclose(data.qfrc_bias, gravity, atol=1e-5)
        np.testing.assert_allclose(data.qfrc_gravcomp, gravity, atol=1e-5)


def test_frames_and_description_of_a_urdf_are_its_own(ur5: Arm) -> None:
    assert urdf(ur5).strip() == UR5_URDF.read_text().strip()
    assert hand_frame(ur5) == "tool0"
    frames = LinkFrames(ur5)
    links = {link.child for link in [*frames.fixed, *frames.moving(ur5.home)]}
    expected = {"shoulder_link", "upper_arm_link", "forearm_link", "wrist_1_link", "wrist_2_link", "wrist_3_link"}
    assert links == expected | {"ee_link", "tool0", "base"}


def test_goals_of_a_derived_task_can_be_reached_and_touch_nothing(tmp_path: Path, ur5: Arm) -> None:
    task = get_task(ur5.source)
    assert task.name == "ur5_reach"
    assert ObservationCodec(task).size == 15
    assert is_free(task, ur5.home[None]).all()
    goals = sample_goals(task, np.random.default_rng(0), 20)
    distance = np.linalg.norm(goals - ur5.shoulder, axis=1)
    assert (distance <= ur5.reach).all()
    assert (goals[:, 2] > 0.05).all()


def test_a_redundant_arm_may_be_driven_with_all_its_joints(tmp_path: Path) -> None:
    arm = arm_from(tmp_path, {key: value for key, value in PANDA.items() if key != "locked"}, "panda7")
    assert (arm.controlled_joints, arm.locked_stiffness.size) == (7, 0)
    task = get_task(arm.source)
    assert task.torque_scale.shape == task.damping.shape == (7,)
    assert arm_hash(arm) != arm_hash(get_arm("panda")), "what the networks drive is part of the arm"


def test_locked_joints_may_be_anywhere_on_the_chain_if_they_come_last_in_the_command(tmp_path: Path) -> None:
    names = [name for name in PANDA["joints"] if name != "panda_joint3"] + ["panda_joint3"]
    values = PANDA | {"joints": names, "locked": {"panda_joint3": {"stiffness": 50.0, "damping": 5.0}}}
    arm, panda = arm_from(tmp_path, values, "panda3"), get_arm("panda")
    assert arm.controlled_joints == 6
    posture = panda.limits.soft_bounds(0.5)[1]
    order = [panda.joint_names.index(name) for name in names]
    assert arm.chain.position(posture[order]) == pytest.approx(panda.chain.position(posture))
    assert arm.home == pytest.approx(panda.home[order])
    with pytest.raises(RobotModelError, match="'panda_joint3' is locked, but stands before joints that are not"):
        arm_from(tmp_path, values | {"joints": PANDA["joints"]}, "wrong_order")


def test_joints_that_are_not_the_arms_become_rigid(tmp_path: Path) -> None:
    gripper = UR5_URDF.parents[2] / "panda_description/urdf/panda.urdf"
    values = {
        "description": str(gripper),
        "joints": [f"panda_joint{i}" for i in range(1, 8)],
        "locked": {"panda_joint7": {"stiffness": 10, "damping": 2}},
        "hand": "panda_hand_tcp",
        "home": get_arm("panda").home.tolist(),
    }
    arm = arm_from(tmp_path, values, "published_panda")
    model = arm.load_model()
    assert (model.nq, model.nu) == (7, 7)
    assert arm.chain.position(arm.home) == pytest.approx(get_arm("panda").chain.position(arm.home), abs=1e-9)
    assert arm.shoulder == pytest.approx(get_arm("panda").shoulder)
    assert arm.reach == pytest.approx(get_arm("panda").reach, abs=0.002)


def test_the_hash_is_that_of_the_arm_and_not_of_the_file(tmp_path: Path, ur5: Arm) -> None:
    renamed = arm_from(tmp_path, UR5 | {"name": "other", "never_touch": [["base_link", "forearm_link"]]}, "renamed")
    heavier = arm_from(tmp_path, UR5 | {"armature": 0.2}, "heavier")
    assert arm_hash(renamed) == arm_hash(ur5) != arm_hash(heavier)
    assert arm_hash(arm_from(tmp_path, PANDA, "panda_again")) == arm_hash(get_arm("panda"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hand": "gripper"}, r"no site or link 'gripper' for the hand; give one of base, base_link, .*tool0"),
        ({"joints": ["elbow"]}, r"no joint 'elbow'; the description's joints are shoulder_pan_joint, "),
        ({"home": None}, r"home is missing, .*; give the 6 angles"),
        ({"home": [0.0]}, r"home is \[0.0\]; give one finite number for each of the 6 joints"),
        ({"limits": {"velocity": [1.0, 2.0]}}, r"limits.velocity is \[1.0, 2.0\]; give one finite number for each"),
        ({"limits": {"torque": -1.0}}, r"torque is \[-1.0, .*above zero"),
        ({"base": "wrist_1_link"}, r"base is 'wrist_1_link', which is no root of the description; give one of base_l"),
        ({"locked": {"elbow": {"stiffness": 1.0, "damping": 1.0}}}, r"locked names 'elbow', which is not among joints"),
        ({"locked": {"elbow_joint": {"stiffness": 0.0, "damping": 1.0}}}, r"stiffness 0.0 must be above zero"),
        ({"never_touch": [["base_link"]]}, r"never_touch has \['base_link'\]; give pairs of links"),
        ({"hand_offset": [0.1]}, r"hand_offset is \[0.1\]; give x, y and z in metres"),
        ({"speed": 3.0}, r"unknown key 'speed'; the known keys are description, joints, hand"),
        ({"description": "nowhere.urdf"}, r"nowhere.urdf cannot be loaded \(No such file or directory\)"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_file_and_the_fix(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(RobotModelError, match=sentence) as caught:
        arm_from(tmp_path, {key: value for key, value in (UR5 | changes).items() if value is not None}, "wrong")
    assert "wrong.yaml" in str(caught.value) or "ur5_robot.urdf" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_mjcf_without_motors_and_speeds_needs_both_from_the_file(tmp_path: Path) -> None:
    described = share_path("models", "planar_arm.xml").read_text()
    bare = tmp_path / "bare.xml"
    bare.write_text(described[: described.index("  <actuator>")] + "</mujoco>\n")
    values = {"description": "bare.xml", "joints": ["planar_joint1", "planar_joint2"], "hand": "hand_tcp"}
    with pytest.raises(RobotModelError, match=r"does not say limits.velocity and limits.torque .* And 1 more: "):
        arm_from(tmp_path, values, "bare")
    given = values | {"home": [0.6, 1.2], "limits": {"velocity": 1.5707963267948966, "torque": 20}}
    arm = arm_from(tmp_path, given, "complete")
    assert arm_hash(arm) == arm_hash(get_arm("planar_arm"))
    assert (arm.goal_dimensions, arm.reach, arm.base_frame) == (2, 0.9, "planar_base")


def test_meshes_in_a_package_that_is_not_above_the_urdf_are_found_where_the_file_says(tmp_path: Path) -> None:
    moved = tmp_path / "ur5.urdf"
    moved.write_text(UR5_URDF.read_text())
    with pytest.raises(RobotModelError, match=r"package 'example-robot-data' .* say where it is with packages"):
        arm_from(tmp_path, UR5 | {"description": "ur5.urdf"}, "moved")
    packages = {"example-robot-data": str(UR5_URDF.parents[3])}
    assert arm_from(tmp_path, UR5 | {"description": "ur5.urdf", "packages": packages}, "found").reach > 0.9
