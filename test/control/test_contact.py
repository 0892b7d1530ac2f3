"""Pushes are noticed within 60 ms, what lasts is none, and the arm answers as it was told to."""

import numpy as np
import pytest

from spiking_controller.control.contact import ContactDetector
from spiking_controller.control.controller import ControllerSettings
from spiking_controller.control.supervisor import CONTACT
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmCondition
from test.control.lying_driver import LivingArm

GOAL, OTHER = np.array([0.4, 0.3, 0.5]), np.array([0.5, -0.3, 0.35])
LOAD = np.zeros((7, 4))
PUSH = (0.0, 10.0, 0.0)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "panda_reach.safetensors"))


def at_its_goal(checkpoint: Checkpoint, settings: ControllerSettings | None = None) -> LivingArm:
    arm = LivingArm(checkpoint, settings)
    arm.supervisor.set_goal(GOAL)
    arm.run(2.5)
    assert arm.supervisor.counts["contact"] == 0
    return arm


def test_a_push_is_noticed_within_60_ms_at_rest_and_in_motion(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    arm.arm.push(PUSH)
    arm.run(0.062)
    assert arm.supervisor.counts["contact"] == 1
    arm.run(2.0)
    arm.supervisor.set_goal(OTHER)
    arm.run(0.4)
    before = arm.supervisor.counts["contact"]
    arm.arm.push(PUSH)
    arm.run(0.062)
    assert arm.supervisor.counts["contact"] == before + 1


def test_reaching_alone_is_no_contact(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    arm.supervisor.set_goal(OTHER)
    arm.run(3.0)
    assert arm.supervisor.counts["contact"] == 0


def test_a_hand_that_is_touched_stays_where_it_is_if_asked_to(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint, ControllerSettings(contact_reaction="hold"))
    arm.supervisor.set_goal(OTHER)
    arm.run(0.4)
    arm.arm.push(PUSH)
    arm.run(0.1)
    assert not arm.supervisor.controller.is_reaching
    arm.run(2.0)
    assert np.linalg.norm(arm.hand() - OTHER) > 0.1
    assert not arm.faults


def test_the_torque_of_an_arm_that_is_touched_ramps_to_zero_until_a_goal_comes_if_asked_to(
    checkpoint: Checkpoint,
) -> None:
    arm = at_its_goal(checkpoint, ControllerSettings(contact_reaction="ramp"))
    arm.arm.push(PUSH)
    arm.run(2.0)
    assert [began.fault.kind for began in arm.faults] == [CONTACT]
    assert "send a goal to go on" in arm.faults[0].fault.sentence
    assert not arm.torque.any()
    arm.supervisor.set_goal(OTHER)
    arm.run(5.0)
    assert arm.supervisor.fault is None
    assert np.linalg.norm(arm.hand() - OTHER) < 0.01


@pytest.mark.parametrize("reaction", ["hold", "ramp"])
def test_the_rest_of_a_stream_of_goals_does_not_move_an_arm_that_was_touched(
    checkpoint: Checkpoint, reaction: str
) -> None:
    arm = at_its_goal(checkpoint, ControllerSettings(contact_reaction=reaction))
    place = GOAL.copy()

    def stream(seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            place[2] += 0.001
            arm.supervisor.set_goal(place.copy())
            arm.run(0.02)

    stream(0.4)
    assert arm.supervisor.counts["contact"] == 0
    arm.arm.push((0.0, 30.0, 0.0))
    stream(0.6)
    assert not arm.supervisor.controller.is_reaching or arm.supervisor.fault is not None
    arm.run(0.5)
    arm.supervisor.set_goal(OTHER)
    arm.run(3.0)
    assert np.linalg.norm(arm.hand() - OTHER) < 0.02


def test_the_force_of_a_contact_is_that_of_the_push() -> None:
    jacobian = np.hstack((np.eye(3), 0.5 * np.eye(3), np.zeros((3, 1))))
    detector = ContactDetector(7, 0.02)
    inertia = np.eye(7) / 0.02
    nothing = np.zeros(7)
    for _ in range(50):
        assert detector.observe(nothing, inertia, jacobian, LOAD, 0.0) is None
    force = np.array([8.0, -6.0, 2.0])
    contact = detector.observe(jacobian.T @ force, inertia, jacobian, LOAD, 0.0)
    assert contact is not None
    np.testing.assert_allclose(contact.force, force, rtol=0.01)
    np.testing.assert_allclose(contact.torque, jacobian.T @ force)


def test_what_lasts_is_one_contact_and_then_none() -> None:
    jacobian = np.hstack((np.eye(3), 0.5 * np.eye(3), np.zeros((3, 1))))
    detector = ContactDetector(7, 0.02)
    inertia = np.eye(7) / 0.02
    steady = jacobian.T @ np.array([10.0, 0.0, 0.0])
    detector.observe(np.zeros(7), inertia, jacobian, LOAD, 0.0)
    contacts = [detector.observe(steady, inertia, jacobian, LOAD, 0.0) for _ in range(300)]
    assert contacts[0] is not None
    assert not any(contacts[1:])
    assert not detector.is_touched


def test_a_load_that_is_carried_is_no_contact(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    arm.arm.apply(ArmCondition(payload_mass=1.0))
    arm.run(2.0)
    carried = arm.supervisor.counts["contact"]
    assert carried == 1, "picking it up is one"
    arm.supervisor.set_goal(OTHER)
    arm.run(3.0)
    assert arm.supervisor.counts["contact"] == carried
