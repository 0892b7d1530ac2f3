"""The filter is the textbook's, and its model of a load is what the simulated arm feels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiking_controller.control.disturbance_filter import FORCE, MASS, PLACE, correct, let_pass, load_response, solve
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.robots.simulation import ArmCondition, ArmSimulation

PERIOD = 0.02
PANDA = get_arm("panda")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_one_measurement_after_the_other_gives_what_all_at_once_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, root = rng.standard_normal(12), rng.standard_normal((12, 12))
    covariance = root @ root.T + 0.1 * np.eye(12)
    response, measured = rng.standard_normal((6, 12)), rng.standard_normal(6)
    variance = rng.uniform(0.1, 2.0, 6)
    spread = response @ covariance @ response.T + np.diag(variance)
    innovation = measured - response @ state
    gain = covariance @ response.T @ np.linalg.inv(spread)
    expected = state + gain @ innovation, covariance - gain @ response @ covariance
    surprise = correct(state, covariance, response, measured, variance)
    np.testing.assert_allclose(state, expected[0], atol=1e-8)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-8)
    assert surprise == pytest.approx(innovation @ np.linalg.solve(spread, innovation), rel=1e-6)


def test_what_nothing_renews_is_forgotten() -> None:
    state, covariance = np.array([1.0, 2.0]), np.diag([4.0, 9.0])
    let_pass(state, covariance, np.array([1.0, 0.5]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(state, [1.0, 1.0])
    np.testing.assert_allclose(covariance, np.diag([4.0, 9.0 * 0.25 + 1.0]))


@pytest.mark.parametrize(
    ("condition", "push", "entry", "value"),
    [
        (ArmCondition(payload_mass=2.0), None, MASS, 2.0),
        (ArmCondition(), (0.0, 15.0, 0.0), FORCE.start + 1, 15.0),
        (ArmCondition(), (-10.0, 0.0, 0.0), FORCE.start, -10.0),
    ],
)
def test_a_load_or_a_push_changes_velocities_as_the_response_says(
    condition: ArmCondition, push: tuple[float, float, float] | None, entry: int, value: float
) -> None:
    velocities = []
    start = np.asarray(PANDA.home) + 0.3
    moving = np.array([0.5, -0.4, 0.3, 0.6, -0.5, 0.4, 0.0])
    for disturbed in (False, True):
        arm = ArmSimulation(PANDA, 0.002, condition=condition if disturbed else None)
        arm.place(start, moving)
        if disturbed and push:
            arm.push(push)
        for _ in range(10):
            arm.advance(np.zeros(7))
        velocities.append(arm.joint_velocity.copy())
    alone, seen = velocities
    dynamics = ArmDynamics(PANDA)
    before, now = dynamics.state(start, moving), dynamics.state(arm.joint_position, seen)
    hand_before = np.concatenate((before.jacobian @ moving, before.turning_jacobian @ moving))
    hand = np.concatenate((now.jacobian @ seen, now.turning_jacobian @ seen))
    acceleration = (hand - hand_before) / PERIOD
    response = np.zeros((7, 13))
    load_response(
        now.jacobian,
        now.turning_jacobian,
        now.rotation,
        dynamics.gravity - acceleration[:3],
        hand[3:],
        acceleration[3:],
        response,
    )
    state = np.zeros(13)
    state[entry] = value
    inertia = 0.5 * (before.mass_matrix + now.mass_matrix) / PERIOD + 0.5 * np.diag(dynamics.damping)
    expected = np.linalg.solve(inertia, response @ state)
    np.testing.assert_allclose(expected, seen - alone, atol=0.06 * np.abs(seen - alone).max())


def test_a_load_beside_the_tool_point_turns_the_hand() -> None:
    """A mass at c pulls as one at the tool point does, and with the moment mc x g."""
    state = ArmDynamics(PANDA).state(PANDA.home, np.zeros(7))
    response = np.zeros((7, 13))
    gravity, zero = np.array([0.0, 0.0, -9.81]), np.zeros(3)
    load_response(state.jacobian, state.turning_jacobian, state.rotation, gravity, zero, zero, response)
    place = np.array([0.05, -0.02, 0.1])
    load = np.zeros(13)
    load[MASS], load[PLACE] = 2.0, 2.0 * place
    force = 2.0 * gravity
    moment = np.cross(state.rotation @ place, force)
    np.testing.assert_allclose(response @ load, state.jacobian.T @ force + state.turning_jacobian.T @ moment, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_systems_are_solved_as_lapack_solves_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((6, 6))
    matrix, right = root @ root.T + 0.1 * np.eye(6), rng.standard_normal((6, 4))
    np.testing.assert_allclose(solve(matrix, right), np.linalg.solve(matrix, right), atol=1e-8)


def test_no_positive_matrix_gives_no_number() -> None:
    assert np.isnan(solve(-np.eye(2), np.ones((2, 1)))).all()
