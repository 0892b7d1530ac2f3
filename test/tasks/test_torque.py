"""The torque law is the formula of its docstring."""

from dataclasses import replace

import numpy as np
import pytest

from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.torque import TorqueLaw


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_torque_is_scaled_action_minus_damping(name: str) -> None:
    task = get_task(name)
    m, n = task.controlled_joints, len(task.arm.joint_names)
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (5, m))
    position, velocity = rng.normal(size=(5, n)), rng.normal(size=(5, n))

    torque = TorqueLaw(task).torque(action, position, velocity)

    limit, fastest = task.arm.limits.torque, task.arm.limits.velocity
    for joint in range(m):
        gain = task.action_scale * limit[joint]
        expected = gain * action[:, joint] - gain / fastest[joint] * velocity[:, joint]
        np.testing.assert_allclose(torque[:, joint], expected)
    for held, joint in enumerate(range(m, n)):
        expected = task.arm.locked_stiffness[held] * (task.arm.home[joint] - position[:, joint])
        expected -= task.arm.locked_damping[held] * velocity[:, joint]
        np.testing.assert_allclose(torque[:, joint], expected)


def test_the_full_action_may_be_another_share_of_each_joints_limit() -> None:
    shares = np.array([0.25, 0.25, 0.25, 0.25, 0.5, 0.5])
    task = replace(get_task("panda_reach"), action_scale=tuple(shares))
    torque = TorqueLaw(task).torque(np.ones(6), task.arm.home, np.zeros(7))
    np.testing.assert_allclose(torque[:6], shares * task.arm.limits.torque[:6])


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_full_action_gives_no_torque_at_the_velocity_limit(name: str) -> None:
    task = get_task(name)
    m = task.controlled_joints
    torque = TorqueLaw(task).torque(np.ones(m), task.arm.home, task.arm.limits.velocity)
    np.testing.assert_allclose(torque[:m], 0.0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_the_damping_can_be_scaled_down_to_none(scale: float) -> None:
    task = get_task("panda_reach")
    action, home, velocity = np.full(6, 0.3), task.arm.home, task.arm.limits.velocity
    torque = TorqueLaw(replace(task, damping_scale=scale)).torque(action, home, velocity)
    np.testing.assert_allclose(torque[:6], task.torque_scale * (0.3 - scale))


def test_panda_at_rest_at_home_gets_no_torque_without_action() -> None:
    task = get_task("panda_reach")
    torque = TorqueLaw(task).torque(np.zeros((2, 6)), np.tile(task.arm.home, (2, 1)), np.zeros((2, 7)))
    np.testing.assert_array_equal(torque, np.zeros((2, 7)))
