"""The joint chain gives MuJoCo's hand position and Jacobian."""

import mujoco
import numpy as np
import pytest

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.kinematics import KinematicChain

SKEWED = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body pos="0.1 -0.2 0.3" euler="0.3 0.2 -0.5">
      <joint name="first" axis="1 2 -1" pos="0.05 0.02 -0.1" ref="0.4"/>
      <joint name="second" axis="0 0 -1"/>
      <geom size="0.1"/>
      <body pos="0 0.3 0.1" euler="1 -0.4 0.2">
        <joint name="third" axis="-1 0.3 0" pos="0 0.1 0"/>
        <geom size="0.1"/>
        <site name="tip" pos="0.2 0.1 -0.3" euler="0.1 0.2 0.3"/>
        <body pos="0 0 0.2">
          <joint name="beyond" axis="0 1 0"/>
          <geom size="0.1"/>
        </body>
      </body>
    </body>
    <body pos="1 0 0">
      <joint name="elsewhere" axis="0 1 0"/>
      <geom size="0.1"/>
    </body>
    <body>
      <joint name="rail" type="slide"/>
      <geom size="0.1"/>
      <site name="carriage"/>
    </body>
  </worldbody>
</mujoco>
"""


def simulated(
    model: mujoco.MjModel, joint_names: tuple[str, ...], site: str, joint_position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """MuJoCo's position [batch, 3] and Jacobian [batch, 3, joints]."""
    data = mujoco.MjData(model)
    full = np.zeros((3, model.nv))
    positions, jacobians = [], []
    for q in joint_position:
        data.qpos[:] = model.qpos0
        for name, angle in zip(joint_names, q, strict=True):
            data.qpos[model.joint(name).qposadr[0]] = angle
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, full, None, model.site(site).id)
        positions.append(data.site(site).xpos.copy())
        jacobians.append(full[:, [model.joint(name).dofadr[0] for name in joint_names]])
    return np.array(positions), np.array(jacobians)


@pytest.mark.parametrize("name", ["panda", "planar_arm"])
def test_position_and_jacobian_are_those_of_the_simulator(name: str) -> None:
    arm = get_arm(name)
    q = np.random.default_rng(0).uniform(arm.limits.position_lower, arm.limits.position_upper, (300, arm.home.size))
    expected_position, expected_jacobian = simulated(arm.load_model(), arm.joint_names, arm.hand_site, q)
    position, jacobian = arm.chain.position_and_jacobian(q)
    np.testing.assert_allclose(position, expected_position, rtol=0, atol=1e-9)
    np.testing.assert_allclose(arm.chain.position(q), expected_position, rtol=0, atol=1e-9)
    np.testing.assert_allclose(jacobian, expected_jacobian, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "joint_names",
    [("first", "second", "third"), ("elsewhere", "third", "first", "beyond", "second")],
)
def test_skewed_axes_anchors_and_references_are_followed_in_any_joint_order(joint_names: tuple[str, ...]) -> None:
    model = mujoco.MjModel.from_xml_string(SKEWED)
    chain = KinematicChain.from_model(model, joint_names, "tip")
    q = np.random.default_rng(1).uniform(-3.0, 3.0, (50, len(joint_names)))
    expected_position, expected_jacobian = simulated(model, joint_names, "tip", q)
    position, jacobian = chain.position_and_jacobian(q)
    np.testing.assert_allclose(position, expected_position, rtol=0, atol=1e-9)
    np.testing.assert_allclose(chain.position(q), expected_position, rtol=0, atol=1e-9)
    np.testing.assert_allclose(jacobian, expected_jacobian, rtol=0, atol=1e-9)
    for name in {"elsewhere", "beyond"} & set(joint_names):
        assert not jacobian[:, :, joint_names.index(name)].any()


def test_one_posture_gives_one_position() -> None:
    arm = get_arm("panda")
    position, jacobian = arm.chain.position_and_jacobian(arm.home)
    assert arm.chain.position(arm.home).shape == position.shape == (3,)
    assert jacobian.shape == (3, 7)
    np.testing.assert_array_equal(arm.chain.position(arm.home[None]), arm.chain.position(arm.home)[None])


def test_single_precision_and_strided_input_are_taken() -> None:
    chain = get_arm("panda").chain
    q = np.random.default_rng(2).uniform(-1.0, 1.0, (6, 14))
    strided = q[::2, ::2]
    np.testing.assert_array_equal(chain.position(strided), chain.position(strided.copy()))
    np.testing.assert_allclose(chain.position(strided.astype(np.float32)), chain.position(strided), atol=1e-6)
    assert chain.position(np.empty((0, 7))).shape == (0, 3)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 2, 7), ()])
def test_wrong_number_of_joints_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RobotModelError, match="this chain takes"):
        get_arm("panda").chain.position(np.zeros(shape))


@pytest.mark.parametrize(
    ("joint_names", "site", "sentence"),
    [
        (("first", "fourth"), "tip", "no joint 'fourth'"),
        (("first", "second", "third"), "top", "no site 'top'"),
        (("first", "third"), "tip", "'second' moves 'tip'"),
        (("rail",), "carriage", "'rail' is not a hinge"),
    ],
)
def test_chain_that_cannot_be_built_is_refused(joint_names: tuple[str, ...], site: str, sentence: str) -> None:
    with pytest.raises(RobotModelError, match=sentence):
        KinematicChain.from_model(mujoco.MjModel.from_xml_string(SKEWED), joint_names, site)


def test_an_approach_ends_at_a_reachable_point_inside_the_bounds() -> None:
    arm = get_arm("panda")
    lower, upper = arm.limits.soft_bounds(0.8)
    rng = np.random.default_rng(4)
    goals = arm.chain.position(rng.uniform(lower, upper, (20, 7)))
    postures = np.array([arm.chain.approach(arm.home, goal, lower, upper) for goal in goals])
    assert ((postures >= lower) & (postures <= upper)).all()
    miss = np.linalg.norm(arm.chain.position(postures) - goals, axis=1)
    assert np.median(miss) < 1e-4
    assert (miss <= np.linalg.norm(arm.chain.position(arm.home) - goals, axis=1)).all()


def test_an_approach_moves_no_joint_whose_bounds_are_equal() -> None:
    arm = get_arm("panda")
    lower, upper = arm.limits.soft_bounds(0.8)
    lower[2], upper[2] = 0.3, 0.3
    posture = arm.chain.approach(arm.home, (0.4, 0.3, 0.5), lower, upper)
    assert posture[2] == 0.3
    np.testing.assert_allclose(arm.chain.position(posture), (0.4, 0.3, 0.5), atol=1e-4)


def test_an_approach_in_the_plane_ignores_the_height() -> None:
    arm = get_arm("planar_arm")
    lower, upper = arm.limits.soft_bounds(0.8)
    posture = arm.chain.approach(arm.home, (0.3, 0.4, 9.0), lower, upper, dimensions=2)
    np.testing.assert_allclose(arm.chain.position(posture)[:2], (0.3, 0.4), atol=1e-4)
