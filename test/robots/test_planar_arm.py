"""The planar arm has the lengths, limits and acceleration that the planar task counts on."""

import mujoco
import numpy as np
import pytest

from spiking_controller.robots.arm import Arm, get_arm


@pytest.fixture(scope="module")
def arm() -> Arm:
    return get_arm("planar_arm")


@pytest.fixture(scope="module")
def model(arm: Arm) -> mujoco.MjModel:
    return arm.load_model()


def test_hand_is_where_two_links_of_50_and_40_cm_put_it(arm: Arm) -> None:
    q = np.random.default_rng(0).uniform(arm.limits.position_lower, arm.limits.position_upper, (100, 2))
    shoulder, both = q[:, 0], q.sum(axis=1)
    expected = np.zeros((100, 3))
    expected[:, 0] = 0.5 * np.cos(shoulder) + 0.4 * np.cos(both)
    expected[:, 1] = 0.5 * np.sin(shoulder) + 0.4 * np.sin(both)
    np.testing.assert_allclose(arm.chain.position(q), expected, atol=1e-12)


def test_joints_motors_and_limits_match_the_model(arm: Arm, model: mujoco.MjModel) -> None:
    assert tuple(model.joint(i).name for i in range(model.njnt)) == arm.joint_names
    assert model.jnt_range[:, 0] == pytest.approx(arm.limits.position_lower)
    assert model.jnt_range[:, 1] == pytest.approx(arm.limits.position_upper)
    assert model.actuator_ctrlrange == pytest.approx(np.array([[-20.0, 20.0]] * 2))
    assert model.actuator_forcerange == pytest.approx(np.array([[-20.0, 20.0]] * 2))
    assert model.key("home").qpos == pytest.approx(arm.home)


@pytest.mark.parametrize("joint", [0, 1])
def test_full_torque_accelerates_by_about_20_rad_per_s2(model: mujoco.MjModel, joint: int) -> None:
    data = mujoco.MjData(model)
    for elbow in (-2.0, -1.0, 0.0, 1.0, 2.0):
        data.qpos[:] = [0.3, elbow]
        data.ctrl[:] = 0.0
        data.ctrl[joint] = 20.0
        mujoco.mj_forward(model, data)
        assert 14.0 < data.qacc[joint] < 20.5


def test_arm_folds_over_itself_without_contact(arm: Arm, model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    for elbow in (-2.8, 0.0, 2.8):
        data.qpos[:] = [0.0, elbow]
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


@pytest.mark.parametrize("gravity_compensation", [True, False])
def test_gravity_does_not_move_a_horizontal_arm(arm: Arm, gravity_compensation: bool) -> None:
    model = arm.load_model(gravity_compensation=gravity_compensation)
    data = mujoco.MjData(model)
    data.qpos[:] = arm.home
    mujoco.mj_forward(model, data)
    assert data.qacc == pytest.approx(np.zeros(2), abs=1e-12)
