"""The FR3 has the frames, limits, masses and inertia that Franka Robotics publishes in franka_description."""

import mujoco
import numpy as np
import pytest

from spiking_controller.robots.arm import Arm, get_arm

ORIGINS = (
    (0.0, 0.0, 0.333, 0.0),
    (0.0, 0.0, 0.0, -np.pi / 2),
    (0.0, -0.316, 0.0, np.pi / 2),
    (0.0825, 0.0, 0.0, np.pi / 2),
    (-0.0825, 0.384, 0.0, -np.pi / 2),
    (0.0, 0.0, 0.0, np.pi / 2),
    (0.088, 0.0, 0.0, np.pi / 2),
)
"""robots/fr3/kinematics.yaml: x, y, z, m, and roll, rad, of each joint in the link before it."""
FLANGE, HAND_YAW, TOOL = 0.107, -np.pi / 4, 0.1034
LIMITS = (
    (-2.7437, 2.7437, 2.62, 87.0),
    (-1.7837, 1.7837, 2.62, 87.0),
    (-2.9007, 2.9007, 2.62, 87.0),
    (-3.0421, -0.1518, 2.62, 87.0),
    (-2.8065, 2.8065, 5.26, 12.0),
    (0.5445, 4.5169, 4.18, 12.0),
    (-3.0159, 3.0159, 5.26, 12.0),
)
"""robots/fr3/joint_limits.yaml: lower, upper, rad, velocity, rad/s, effort, N·m."""
MASSES = (2.3966, 2.9274653454, 2.9355370338, 2.2449013699, 2.6155955791, 2.3271207594, 1.8170376524, 0.6271432862)
HAND_MASSES = (0.6544, 0.0291, 0.0291)
"""robots/fr3/inertials.yaml from link 0 on; end_effectors/franka_hand/inertials.yaml: hand and fingers, kg."""


@pytest.fixture(scope="module")
def arm() -> Arm:
    return get_arm("fr3")


@pytest.fixture(scope="module")
def model(arm: Arm) -> mujoco.MjModel:
    return arm.load_model()


def transform(x: float, y: float, z: float, roll: float, yaw: float) -> np.ndarray:
    """A translation, then a turn about x, then one about z."""
    cosine, sine = np.cos(roll), np.sin(roll)
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    cosine, sine = np.cos(yaw), np.sin(yaw)
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = about_x @ about_z, (x, y, z)
    return result


def test_the_hand_is_where_the_published_frames_put_it(arm: Arm) -> None:
    rng = np.random.default_rng(0)
    for posture in rng.uniform(arm.limits.position_lower, arm.limits.position_upper, (50, 7)):
        place = np.eye(4)
        for origin, angle in zip(ORIGINS, posture, strict=True):
            place = place @ transform(*origin, angle)
        place = place @ transform(0.0, 0.0, FLANGE, 0.0, HAND_YAW) @ transform(0.0, 0.0, TOOL, 0.0, 0.0)
        assert arm.chain.position(posture) == pytest.approx(place[:3, 3], abs=1e-9)


def test_limits_are_the_published_ones(arm: Arm) -> None:
    limits = arm.limits
    ours = np.stack([limits.position_lower, limits.position_upper, limits.velocity, limits.torque], axis=1)
    assert ours == pytest.approx(np.array(LIMITS))
    assert limits.torque_rate == pytest.approx([1000.0] * 7)


def test_masses_are_the_published_ones(model: mujoco.MjModel) -> None:
    links = [f"fr3_link{i}" for i in range(8)]
    hand = ["fr3_hand", "fr3_leftfinger", "fr3_rightfinger"]
    assert [model.body(name).mass[0] for name in links + hand] == pytest.approx([*MASSES, *HAND_MASSES])


def test_inertia_of_the_forearm_is_the_published_tensor(model: mujoco.MjModel) -> None:
    body = model.body("fr3_link5")
    turned = np.empty(9)
    mujoco.mju_quat2Mat(turned, body.iquat)
    tensor = turned.reshape(3, 3) @ np.diag(body.inertia) @ turned.reshape(3, 3).T
    published = (0.051610278, 0.047877297, 0.016423626, -0.005715173, -0.003567317, 0.010673985)
    assert tensor[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] == pytest.approx(published, abs=1e-8)


def test_joint_6_turns_less_far_down_and_farther_up_than_the_pandas(arm: Arm) -> None:
    panda = get_arm("panda").limits
    assert arm.limits.position_lower[5] > panda.position_lower[5] + 0.5
    assert arm.limits.position_upper[5] > panda.position_upper[5] + 0.5
