"""What is turned about the arm's base is what the arm does when it starts there."""

import numpy as np
import pytest

from spiking_controller.online.symmetry import TurnedWindows
from spiking_controller.robots.kinematics import KinematicChain
from spiking_controller.robots.simulation import ArmCondition, ArmSimulation
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask, get_task
from spiking_controller.tasks.segments import Windows

STEPS = 20


def recorded(task: ReachTask, turn: float) -> np.ndarray:
    """Observations [STEPS + 1, observation] of a loaded arm that starts turned from home, under fixed torques."""
    codec = ObservationCodec(task)
    arm = ArmSimulation(task.arm, task.control_period, condition=ArmCondition(payload_mass=0.5))
    arm.data.qpos[arm.model.joint(task.arm.joint_names[0]).qposadr[0]] += turn
    found = []
    joints = np.arange(task.controlled_joints)
    torque = np.zeros(len(task.arm.joint_names))
    for step in range(STEPS + 1):
        position, velocity = arm.joint_position, arm.joint_velocity
        found.append(codec.encode(position, velocity, task.arm.chain.position(position)))
        torque[joints] = 0.1 * task.torque_scale * np.sin(0.3 * step + joints)
        arm.advance(torque)
    return np.array(found)


class OneWindow:
    """Always the same steps."""

    def __init__(self, task: ReachTask) -> None:
        observation = recorded(task, 0.0)[:, None]
        action = np.zeros((STEPS, 1, task.controlled_joints), np.float32)
        goal = observation[-1, :, -task.goal_dimensions :]
        self.window = Windows(observation.astype(np.float32), action, action, goal.astype(np.float32))

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        one = self.window
        observation, action, previous = (array.repeat(batch, axis=1) for array in one[:3])
        return Windows(observation, action, previous, one.goal.repeat(batch, axis=0))


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_turned_windows_are_what_the_turned_arm_does(name: str) -> None:
    task = get_task(name)
    source = OneWindow(task)
    windows = TurnedWindows(source, task).windows(np.random.default_rng(3), 6, STEPS)
    turn = (windows.observation[0, :, 0] - source.window.observation[0, 0, 0]) * task.position_half_range[0]
    assert np.ptp(turn) > 0.5
    for row, angle in enumerate(turn):
        np.testing.assert_allclose(windows.observation[:, row], recorded(task, angle), atol=2e-5)
    np.testing.assert_allclose(windows.goal, windows.observation[-1, :, -task.goal_dimensions :], atol=1e-6)
    np.testing.assert_array_equal(windows.action, source.windows(np.random.default_rng(), 6, STEPS).action)
    assert np.abs(windows.observation[..., 0]).max() <= 1.0 + 1e-6


def test_an_arm_that_does_not_stand_upright_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("panda_reach")
    source = OneWindow(task)
    monkeypatch.setattr(KinematicChain, "vertical_base_axis", None)
    windows = TurnedWindows(source, task).windows(np.random.default_rng(3), 2, STEPS)
    np.testing.assert_array_equal(windows.observation, source.windows(np.random.default_rng(), 2, STEPS).observation)


def test_only_a_vertical_first_axis_counts() -> None:
    chain = get_task("panda_reach").arm.chain
    assert chain.vertical_base_axis is not None
    np.testing.assert_allclose(chain.vertical_base_axis, [0.0, 0.0], atol=1e-12)
    lying = chain._rotation.copy()
    lying[0] = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) @ lying[0]
    assert KinematicChain(lying, chain._translation, chain._columns, chain.joint_count).vertical_base_axis is None
