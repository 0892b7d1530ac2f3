"""The Panda's description against the data sheet, and how it behaves in the simulation."""

import mujoco
import numpy as np
import pytest

from spiking_controller.robots.arm import Arm, get_arm


@pytest.fixture(scope="module")
def arm() -> Arm:
    return get_arm("panda")


@pytest.fixture(scope="module")
def model(arm: Arm) -> mujoco.MjModel:
    return arm.load_model()


@pytest.fixture
def data(model: mujoco.MjModel) -> mujoco.MjData:
    return mujoco.MjData(model)


def put(model: mujoco.MjModel, data: mujoco.MjData, position: np.ndarray, velocity: np.ndarray | float = 0.0) -> None:
    data.qpos[:] = position
    data.qvel[:] = velocity
    mujoco.mj_forward(model, data)


def test_joints_carry_their_usual_names_in_order(arm: Arm, model: mujoco.MjModel) -> None:
    names = tuple(f"panda_joint{i}" for i in range(1, 8))
    assert arm.joint_names == names
    assert tuple(model.joint(i).name for i in range(model.njnt)) == names


def test_flange_at_home_is_where_the_manufacturer_puts_it(arm: Arm, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    put(model, data, arm.home)
    assert data.site("flange").xpos == pytest.approx([0.3069, 0.0, 0.5903], abs=1e-4)


def test_hand_tcp_is_beyond_the_flange(arm: Arm, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    put(model, data, arm.home)
    flange = data.site("flange")
    tip = flange.xpos + flange.xmat.reshape(3, 3) @ [0.0, 0.0, 0.1034]
    assert data.site("hand_tcp").xpos == pytest.approx(tip, abs=1e-12)


def test_home_keyframe_is_the_ready_pose(arm: Arm, model: mujoco.MjModel) -> None:
    ready = [0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4]
    assert arm.home == pytest.approx(ready)
    assert model.key("home").qpos == pytest.approx(ready)


def test_joints_have_armature_damping_and_limits(arm: Arm, model: mujoco.MjModel) -> None:
    assert model.dof_armature == pytest.approx(np.full(7, 0.1))
    assert model.dof_damping == pytest.approx(np.ones(7))
    assert model.jnt_limited.all()
    assert model.jnt_range[:, 0] == pytest.approx(arm.limits.position_lower)
    assert model.jnt_range[:, 1] == pytest.approx(arm.limits.position_upper)


def test_motors_give_torque_up_to_the_data_sheet(arm: Arm, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    assert arm.limits.torque == pytest.approx([87.0] * 4 + [12.0] * 3)
    assert [int(model.actuator(i).trnid[0]) for i in range(model.nu)] == list(range(7))
    for ranges in (model.actuator_ctrlrange, model.actuator_forcerange):
        assert ranges == pytest.approx(np.stack([-arm.limits.torque, arm.limits.torque], axis=1))
    data.ctrl[:] = [1.0, -2.0, 3.0, 1e3, 4.0, -1e3, 1e3]
    mujoco.mj_forward(model, data)
    assert data.qfrc_actuator == pytest.approx([1.0, -2.0, 3.0, 87.0, 4.0, -12.0, 12.0])


def test_compensated_arm_floats_and_uncompensated_arm_needs_its_gravity_torque(arm: Arm) -> None:
    accelerations = {}
    for compensated in (True, False):
        model = arm.load_model(gravity_compensation=compensated)
        data = mujoco.MjData(model)
        put(model, data, arm.home)
        accelerations[compensated] = np.abs(data.qacc).max()
        if not compensated:
            data.ctrl[:] = data.qfrc_bias
            mujoco.mj_forward(model, data)
            assert data.qacc == pytest.approx(np.zeros(7), abs=1e-9)
    assert accelerations[True] < 1e-9
    assert accelerations[False] > 1.0


def test_model_without_visuals_moves_bit_for_bit_the_same(arm: Arm) -> None:
    models = [arm.load_model(visuals=visuals) for visuals in (True, False)]
    runs = [mujoco.MjData(model) for model in models]
    assert models[1].ngeom < models[0].ngeom / 4
    rng = np.random.default_rng(0)
    for data in runs:
        data.qpos[:] = arm.home
    for _ in range(500):
        torque = 0.3 * rng.uniform(-arm.limits.torque, arm.limits.torque)
        for model, data in zip(models, runs, strict=True):
            data.ctrl[:] = torque
            mujoco.mj_step(model, data)
    np.testing.assert_array_equal(runs[0].qpos, runs[1].qpos)
    assert np.abs(runs[0].qpos - arm.home).max() > 0.1


def test_nothing_touches_at_home(arm: Arm, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    put(model, data, arm.home)
    assert data.ncon == 0


def test_folded_arm_touches_its_base(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    put(model, data, np.array([0.0, -0.3, 0.0, -3.0, 0.0, 0.6, 0.785]))
    names = {model.body(int(model.geom_bodyid[geom])).name for contact in data.contact for geom in contact.geom}
    assert names & {"panda_link0", "panda_link1", "panda_link2"}
    assert names & {"panda_link5", "panda_link6", "panda_link7", "panda_hand"}


def test_floor_stops_the_hand(arm: Arm, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    put(model, data, np.array([0.0, 0.9, 0.0, -1.3, 0.0, 2.0, 0.785]))
    for _ in range(1000):
        data.ctrl[:] = -10.0 * data.qvel
        data.ctrl[1] += 20.0
        mujoco.mj_step(model, data)
    assert data.ncon > 0
    assert -0.02 < data.site("hand_tcp").xpos[2] < 0.1


def test_pictures_have_a_camera_and_a_goal_that_touches_nothing(
    arm: Arm, model: mujoco.MjModel, data: mujoco.MjData
) -> None:
    goal = model.body("goal")
    assert model.camera("overview").id >= 0
    assert goal.mocapid[0] >= 0
    data.mocap_pos[goal.mocapid[0]] = [0.0, 0.0, 0.2]
    put(model, data, arm.home)
    assert data.ncon == 0
    assert model.geom(int(goal.geomadr[0])).size[0] == pytest.approx(0.02)
