"""The dynamics of an arm predict what its simulation does."""

import numpy as np
import pytest

from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.robots.simulation import ArmSimulation


@pytest.mark.parametrize("name", ["panda", "planar_arm"])
def test_a_torque_accelerates_the_arm_as_the_dynamics_say(name: str) -> None:
    arm = get_arm(name)
    dynamics = ArmDynamics(arm)
    simulation = ArmSimulation(arm, 0.0005)
    rng = np.random.default_rng(1)
    joints = len(arm.joint_names)
    velocity, torque = rng.uniform(-1.0, 1.0, joints), rng.uniform(-3.0, 3.0, joints)
    simulation.place(arm.home, velocity)
    state = dynamics.state(arm.home, velocity)
    simulation.advance(torque)
    seen = (simulation.joint_velocity - velocity) / 0.0005
    expected = np.linalg.solve(state.mass_matrix, torque - state.bias - dynamics.damping * velocity)
    np.testing.assert_allclose(seen, expected, rtol=0.05, atol=0.3)
    np.testing.assert_array_equal(state.mass_matrix, dynamics.mass_matrix(arm.home))


def test_the_bias_is_the_weight_where_the_arm_does_not_carry_it() -> None:
    arm = get_arm("panda")
    at_rest = np.zeros(7)
    assert np.abs(ArmDynamics(arm).state(arm.home, at_rest).bias).max() < 1e-9
    simulation = ArmSimulation(arm, gravity_compensation=False)
    np.testing.assert_allclose(
        ArmDynamics(arm, carries_weight=False).state(arm.home, at_rest).bias, simulation.data.qfrc_bias[:7], atol=1e-9
    )


def test_the_jacobians_and_the_rotation_are_those_of_the_hand() -> None:
    arm = get_arm("panda")
    state = ArmDynamics(arm).state(arm.home, np.zeros(7))
    _, jacobian = arm.chain.position_and_jacobian(np.asarray(arm.home))
    np.testing.assert_allclose(state.jacobian, jacobian, atol=1e-9)
    np.testing.assert_allclose(state.rotation @ state.rotation.T, np.eye(3), atol=1e-9)
    # In the home posture the hand looks down, and the last joint turns it about its axis.
    np.testing.assert_allclose(state.turning_jacobian[:, 6], [0.0, 0.0, -1.0], atol=1e-6)
