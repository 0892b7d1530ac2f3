"""Whatever the driver says, the true joints stay legal, and control resumes once it tells the truth."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spiking_controller.control.controller import ControllerSettings
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmCondition
from test.control.lying_driver import PERIOD, LivingArm, Told, lies

GOALS = np.array([(0.4, 0.3, 0.5), (0.55, -0.3, 0.25), (0.3, -0.45, 0.6), (-0.3, 0.4, 0.5)])
LIES = {name: joints for name in lies(0, np.random.default_rng(0)) for joints in [(0, 1, 3) if "one" in name else (0,)]}
FOUND_AS = {
    "zero velocities": "",
    "frozen": "frozen",
    "frozen at zero velocity": "frozen",
    "velocities in turns": "",
    "one joint stuck": "stuck joint",
    "one position stuck": "stuck joint",
    "one joint offset": "jump",
    "mixed joints": "jump",
}
"""What a lie is found to be, where that is always the same; empty where velocities are estimated instead of a fault."""


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "panda_reach.safetensors"))


def in_mid_motion(checkpoint: Checkpoint, seconds: float) -> LivingArm:
    """An arm that set out for its second goal so long ago."""
    arm = LivingArm(checkpoint)
    arm.run(0.2)
    arm.supervisor.set_goal(GOALS[2])
    arm.run(1.8)
    arm.supervisor.set_goal(GOALS[0])
    arm.run(seconds)
    assert not arm.faults
    return arm


@pytest.mark.parametrize(("name", "joint"), [(name, joint) for name, joints in LIES.items() for joint in joints])
def test_true_joints_stay_legal_under_a_lie_in_mid_motion(checkpoint: Checkpoint, name: str, joint: int) -> None:
    arm = in_mid_motion(checkpoint, 0.25)
    arm.driver.lie = lies(joint, np.random.default_rng(1))[name]
    arm.run(1.5)
    arm.driver.lie = None
    told = [began.fault.kind for began in arm.faults]
    if name in FOUND_AS:
        assert told[:1] == [FOUND_AS[name]] if FOUND_AS[name] else arm.supervisor.check.contradictions == 1
    arm.supervisor.set_goal(GOALS[1])
    for _ in range(16):
        arm.run(0.5)
        if np.linalg.norm(arm.hand() - GOALS[1]) < 0.03:
            break
    assert (arm.fastest < 1.1).all(), told
    assert arm.outside <= 0.0
    assert np.linalg.norm(arm.hand() - GOALS[1]) < 0.03, arm.supervisor.fault


# A delay that begins as the arm sets out is found only after 0.13 s, at 1.3 times the limit.
@pytest.mark.parametrize(
    ("name", "onset"),
    [
        *(("zero velocities", onset) for onset in (0.02, 0.06, 0.1, 0.2, 0.4)),
        *(("delayed 50 ms", onset) for onset in (0.02, 0.06, 0.1, 0.2, 0.4)),
        *(("delayed 100 ms", onset) for onset in (0.1, 0.2, 0.4)),
    ],
)
def test_it_does_not_matter_when_the_lie_begins(checkpoint: Checkpoint, name: str, onset: float) -> None:
    arm = in_mid_motion(checkpoint, onset)
    arm.driver.lie = lies(0, np.random.default_rng(1))[name]
    arm.run(2.0)
    most = 1.3 if name.startswith("delayed") else 1.1
    assert (arm.fastest < most).all(), [began.fault for began in arm.faults]
    assert arm.outside <= 0.0


@pytest.mark.parametrize("late", [1, 10, 50])
def test_a_controller_kept_from_running_still_stops_an_arm_it_cannot_see(checkpoint: Checkpoint, late: int) -> None:
    arm = in_mid_motion(checkpoint, 0.15)
    arm.late = late
    arm.driver.lie = lambda told, before: []
    arm.run(0.3)
    arm.driver.lie = None
    arm.run(4.0)
    assert [began.fault.kind for began in arm.faults] == ["no joint state"], "and control resumes at once"
    assert arm.outside == 0.0
    assert arm.fastest.max() < 1.6
    assert np.linalg.norm(arm.hand() - GOALS[0]) < 0.01


def test_an_arm_that_was_carried_off_unseen_is_braked_and_rests_before_it_is_driven(checkpoint: Checkpoint) -> None:
    arm = in_mid_motion(checkpoint, 0.15)
    arm.driver.lie = lambda told, before: []
    arm.run(0.3)
    arm.arm.place(arm.arm.joint_position + 1.2 * np.eye(7)[0], 1.5 * np.eye(7)[0])
    arm.driver.lie = None
    arm.run(0.01)
    assert arm.faults[-1].fault.kind == "jump over a gap"
    assert arm.faults[-1].has_torque
    arm.run(0.5)
    assert np.abs(arm.arm.joint_velocity).max() < 0.1
    assert arm.supervisor.fault is not None
    arm.run(5.0)
    assert arm.supervisor.fault is None
    assert np.linalg.norm(arm.hand() - GOALS[0]) < 0.01


@pytest.mark.parametrize("name", ["zero velocities", "velocity signs", "velocities in turns", "mixed velocities"])
def test_velocities_that_contradict_the_angles_are_found_within_a_tenth_of_a_second(
    checkpoint: Checkpoint, name: str
) -> None:
    arm = in_mid_motion(checkpoint, 0.2)
    arm.driver.lie = lies(0, np.random.default_rng(1))[name]
    arm.run(0.1)
    check = arm.supervisor.check
    sentence = check.contradiction or arm.faults[0].fault.sentence
    assert "rad/s of panda_joint" in sentence
    assert "whose angle moves at" in sentence


def test_zero_velocities_from_the_start_do_not_keep_the_hand_from_its_goal(checkpoint: Checkpoint) -> None:
    arm = LivingArm(checkpoint)
    arm.driver.lie = lies(0, np.random.default_rng(1))["zero velocities"]
    for goal in GOALS[:2]:
        arm.supervisor.set_goal(goal)
        arm.run(4.0)
        assert np.linalg.norm(arm.hand() - goal) < 0.02
    assert (arm.fastest < 1.1).all()
    assert not arm.faults


class HonestDriver:
    """Tells what sensors of real arms tell."""

    def __init__(
        self,
        publish: float = PERIOD,
        renew: float = 0.0,
        quantum: float = 0.0,
        noise: float = 0.0,
        filtered: float = 0.0,
    ) -> None:
        """Periods of messages and values, s; step and noise of angles, rad; time constant of velocities, s."""
        self._publish, self._renew = publish, renew
        self._quantum, self._noise, self._filtered = quantum, noise, filtered
        self._rng = np.random.default_rng(0)
        self._next = self._fresh = 0
        self._kept: Told | None = None

    def __call__(self, told: Told, before: list[Told]) -> list[Told]:
        if told.time < self._next:
            return []
        self._next = told.time + round(1e9 * self._publish)
        if self._kept is None or told.time >= self._fresh:
            self._fresh = told.time + round(1e9 * self._renew)
            position = told.position + self._noise * self._rng.standard_normal(7)
            if self._quantum:
                position = np.round(position / self._quantum) * self._quantum
            velocity = told.velocity + 20.0 * self._noise * self._rng.standard_normal(7)
            if self._filtered and self._kept is not None:
                passed = 1.0 - np.exp(-self._publish / self._filtered)
                velocity = self._kept.velocity + passed * (velocity - self._kept.velocity)
            self._kept = Told(told.time, position, velocity)
        return [Told(told.time, self._kept.position, self._kept.velocity)]


@pytest.mark.parametrize(
    "driver",
    [
        {},
        {"publish": 0.01},
        {"publish": 0.02},
        {"quantum": 5e-4},
        {"noise": 1e-3},
        {"quantum": 5e-4, "noise": 2e-4},
        {"renew": 0.034},
        {"renew": 0.034, "publish": 0.02},
        {"filtered": 0.01},
    ],
    ids=str,
)
def test_honest_sensors_raise_no_alarm(checkpoint: Checkpoint, driver: dict[str, Any]) -> None:
    assert_no_alarm(checkpoint, HonestDriver(**driver), ArmCondition())


@pytest.mark.parametrize(
    "condition",
    [
        ArmCondition(payload_mass=2.0),
        ArmCondition(payload_mass=3.0),
        ArmCondition(friction_factor=(3.0,), dry_friction=(1.0,)),
        ArmCondition(motor_strength=(0.6,)),
        ArmCondition(observation_delay=0.02),
    ],
    ids=str,
)
def test_a_worn_or_loaded_arm_raises_no_alarm(checkpoint: Checkpoint, condition: ArmCondition) -> None:
    assert_no_alarm(checkpoint, HonestDriver(), condition)


def test_somebody_who_pushes_the_arm_raises_no_alarm(checkpoint: Checkpoint) -> None:
    def push(arm: LivingArm, number: int) -> None:
        arm.arm.push((15.0 * (-1) ** number, 10.0, 0.0), duration=1.0)

    assert_no_alarm(checkpoint, HonestDriver(), ArmCondition(), push)


def assert_no_alarm(
    checkpoint: Checkpoint,
    driver: HonestDriver,
    condition: ArmCondition,
    meanwhile: Callable[[LivingArm, int], None] = lambda arm, number: None,
) -> None:
    arm = LivingArm(checkpoint)
    arm.arm.apply(condition)
    arm.driver.lie = driver
    for number, goal in enumerate(GOALS):
        arm.supervisor.set_goal(goal)
        meanwhile(arm, number)
        arm.run(1.6)
    assert [began.fault.sentence for began in arm.faults] == []
    assert (arm.supervisor.check.contradictions, arm.supervisor.check.outliers) == (0, 0)


@pytest.mark.parametrize("start", [-2.1, 2.37])
def test_a_locked_joint_stays_where_it_is(checkpoint: Checkpoint, start: float) -> None:
    arm = LivingArm(checkpoint, ControllerSettings(torque_scale=0.1))
    position = arm.arm.joint_position.copy()
    position[6] = start
    arm.arm.place(position, np.zeros(7))
    arm.run(3.0)
    np.testing.assert_allclose(arm.arm.joint_position[6], start, atol=0.01)
    assert arm.fastest[6] < 0.02


@pytest.mark.parametrize(
    ("goal", "gaps"), [(None, False), ((0.4, 0.3, 0.5), True)], ids=["no goal", "a goal, and gaps of 0.3 s"]
)
def test_the_posture_stays_while_the_hand_holds(checkpoint: Checkpoint, goal: Any, gaps: bool) -> None:
    arm = LivingArm(checkpoint)
    if goal is not None:
        arm.supervisor.set_goal(np.array(goal))
    arm.run(5.0)
    if gaps:
        arm.driver.lie = lambda told, before: [] if told.time % 1_000_000_000 < 300_000_000 else [told]
    arm.run(5.0)
    posture, hold = arm.arm.joint_position.copy(), arm.supervisor.controller.goal
    assert hold is not None
    arm.run(25.0)
    np.testing.assert_allclose(arm.arm.joint_position, posture, atol=0.02)
    assert np.linalg.norm(arm.hand() - hold) < 0.005
