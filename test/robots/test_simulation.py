"""The simulated arm: as described by default, and worn, loaded, noisy or pushed where it is told to be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import Arm, get_arm
from spiking_controller.robots.simulation import ArmCondition, ArmSimulation

PANDA = get_arm("panda")
GRAVITY = 9.81
NO_TORQUE = np.zeros(7)
TORQUES = np.random.default_rng(3).uniform(-10.0, 10.0, (200, 7))


def run(simulation: ArmSimulation, torques: NDArray[np.float64] = TORQUES) -> NDArray[np.float64]:
    """True joint positions, [steps, n]."""
    positions = []
    for torque in torques:
        simulation.advance(torque)
        positions.append(simulation.joint_position)
    return np.array(positions)


def panda(**condition: Any) -> ArmSimulation:
    return ArmSimulation(PANDA, condition=ArmCondition(**condition))


def acceleration(simulation: ArmSimulation, torque: NDArray[np.float64] = NO_TORQUE) -> NDArray[np.float64]:
    """Of the joints in the next period, rad/s²."""
    before = simulation.joint_velocity
    simulation.advance(torque)
    return (simulation.joint_velocity - before) / 0.002


@pytest.mark.parametrize("gravity_compensation", [True, False])
@pytest.mark.parametrize("name", ["panda", "planar_arm"])
def test_an_arm_in_good_condition_moves_bit_for_bit_as_described(name: str, gravity_compensation: bool) -> None:
    arm = get_arm(name)
    simulation = ArmSimulation(arm, gravity_compensation=gravity_compensation)
    model = arm.load_model(gravity_compensation)
    data = mujoco.MjData(model)
    data.qpos[:] = arm.home
    for torque in TORQUES[:, : len(arm.joint_names)]:
        simulation.advance(torque)
        data.ctrl[:] = torque
        mujoco.mj_step(model, data)
        assert (simulation.joint_position == data.qpos).all()
        assert (simulation.joint_velocity == data.qvel).all()
        assert (simulation.reading.position == simulation.joint_position).all()
    assert simulation.time == len(TORQUES) * 2_000_000


def test_the_period_is_kept_by_several_physics_steps() -> None:
    slow, fast = ArmSimulation(PANDA, period=0.01), ArmSimulation(PANDA)
    slow.advance(TORQUES[0])
    run(fast, np.tile(TORQUES[0], (5, 1)))
    assert slow.time == fast.time
    assert (slow.joint_position == fast.joint_position).all()


def test_an_explosion_brings_the_arm_home_and_time_goes_on() -> None:
    simulation = panda()
    run(simulation)
    simulation.data.qvel[:] = np.nan
    simulation.advance(NO_TORQUE)
    assert simulation.explosions == 1
    assert (simulation.joint_position == PANDA.home).all()
    assert (simulation.reading.position == PANDA.home).all()
    assert simulation.time == 201 * 2_000_000


def test_an_explosion_leaves_no_log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulation = panda()
    simulation.data.qvel[:] = np.nan
    simulation.advance(NO_TORQUE)
    assert simulation.explosions == 1
    assert not list(tmp_path.iterdir())


def test_a_payload_that_the_arm_does_not_know_of_pulls_with_its_weight() -> None:
    simulation = panda(payload_mass=2.0)
    jacobian = np.zeros((3, 7))
    mujoco.mj_jacSite(simulation.model, simulation.data, jacobian, None, simulation.model.site("hand_tcp").id)
    weight = jacobian.T @ [0.0, 0.0, -2.0 * GRAVITY]
    np.testing.assert_allclose(-simulation.data.qfrc_bias + simulation.data.qfrc_gravcomp, weight, atol=1e-9)
    run(simulation, np.zeros((100, 7)))
    assert simulation.hand_pose.position[2] < 0.4869 - 0.01


def test_a_payload_that_the_arm_knows_of_only_makes_it_slower_to_move() -> None:
    simulation = panda(payload_mass=2.0, payload_compensated=True)
    np.testing.assert_allclose(acceleration(simulation), 0.0, atol=1e-9)
    torque = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0])
    assert 0.0 < acceleration(simulation, torque)[5] < 0.75 * acceleration(panda(), torque)[5]


def test_without_gravity_compensation_nothing_carries_the_payload() -> None:
    both = [
        ArmSimulation(
            PANDA, gravity_compensation=False, condition=ArmCondition(payload_mass=2.0, payload_compensated=c)
        )
        for c in (True, False)
    ]
    first, second = (run(simulation) for simulation in both)
    assert (first == second).all()


def test_what_is_taken_back_leaves_no_trace() -> None:
    simulation = panda()
    simulation.apply(ArmCondition(payload_mass=2.0, friction_factor=(3.0,), dry_friction=(1.0,), motor_strength=(0.7,)))
    run(simulation)
    simulation.apply(ArmCondition())
    simulation.reset()
    assert (run(simulation) == run(panda())).all()


def test_a_condition_changes_while_the_arm_moves_on() -> None:
    simulation = panda()
    run(simulation)
    position, velocity, time = simulation.joint_position, simulation.joint_velocity, simulation.time
    simulation.apply(ArmCondition(payload_mass=2.0, motor_strength=(0.5,), observation_delay=0.01))
    assert (simulation.joint_position == position).all()
    assert (simulation.joint_velocity == velocity).all()
    assert simulation.time == time


def test_a_weak_motor_gives_its_share_of_the_torque_and_says_so() -> None:
    strength = (1.0, 1.0, 1.0, 0.7, 1.0, 1.0, 1.0)
    simulation = panda(motor_strength=strength)
    torque = np.array([5.0, 4.0, 3.0, 20.0, 1.0, 1.0, 1.0])
    simulation.advance(torque)
    np.testing.assert_allclose(simulation.joint_effort, torque * strength)
    other = panda()
    other.advance(torque * strength)
    np.testing.assert_allclose(simulation.joint_position, other.joint_position, atol=1e-12)
    simulation.advance(np.full(7, 1e6))
    np.testing.assert_allclose(simulation.joint_effort, np.multiply(PANDA.limits.torque, strength))


def test_friction_slows_by_its_factor() -> None:
    def braking(factor: float) -> float:
        simulation = panda(friction_factor=(factor,))
        simulation.data.qvel[:] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        return acceleration(simulation)[6]

    # MuJoCo integrates damping implicitly, so that the ratio is a little below three.
    assert 2.7 < braking(3.0) / braking(1.0) < 3.0


def test_dry_friction_holds_what_is_weaker_and_lets_go_of_what_is_stronger() -> None:
    simulation = panda(dry_friction=(0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0))
    weak, strong = np.zeros(7), np.zeros(7)
    weak[3], strong[3] = 2.0, 15.0
    run(simulation, np.tile(weak, (250, 1)))
    assert abs(simulation.joint_position[3] - PANDA.home[3]) < 0.01
    run(simulation, np.tile(strong, (250, 1)))
    assert abs(simulation.joint_position[3] - PANDA.home[3]) > 0.1


def test_noise_is_on_the_sensors_only_has_the_given_size_and_repeats_after_a_reset() -> None:
    simulation = panda(position_noise=0.01, velocity_noise=0.1, effort_noise=0.5)

    def errors() -> NDArray[np.float64]:
        rows = []
        for torque in TORQUES:
            simulation.advance(torque)
            truth = simulation.joint_position, simulation.joint_velocity, simulation.joint_effort
            rows.append(np.subtract(simulation.reading, truth))
        return np.array(rows)

    first = errors()
    np.testing.assert_allclose(first.std(axis=(0, 2)), [0.01, 0.1, 0.5], rtol=0.1)
    assert (np.abs(first.mean(axis=(0, 2))) < [0.001, 0.01, 0.05]).all()
    moved = simulation.joint_position
    assert (moved == run(panda())[-1]).all()
    simulation.reset()
    assert (errors() == first).all()
    other = ArmSimulation(PANDA, condition=simulation.condition, seed=1)
    assert not np.allclose(other.reading.position, first[0, 0] + PANDA.home)


def test_what_the_sensors_tell_is_as_old_as_the_delay() -> None:
    simulation, truth = panda(observation_delay=0.02), run(panda())
    told = []
    for torque in TORQUES:
        simulation.advance(torque)
        told.append(simulation.reading.position)
    assert (np.array(told[:10]) == PANDA.home).all()
    assert (np.array(told[10:]) == truth[:-10]).all()
    simulation.apply(ArmCondition())
    simulation.advance(NO_TORQUE)
    assert (simulation.reading.position == simulation.joint_position).all()


def test_a_delay_that_begins_goes_on_from_the_last_reading() -> None:
    simulation = panda()
    truth = run(simulation)
    simulation.apply(ArmCondition(observation_delay=0.006))
    told = []
    for _ in range(5):
        simulation.advance(NO_TORQUE)
        told.append(simulation.reading.position)
    assert (np.array(told[:3]) == truth[-1]).all()
    assert not (told[4] == truth[-1]).all()


def test_a_push_on_the_hand_is_force_times_lever_for_its_duration() -> None:
    simulation = panda()
    jacobian = np.zeros((3, 7))
    mujoco.mj_jacSite(simulation.model, simulation.data, jacobian, None, simulation.model.site("hand_tcp").id)
    simulation.push([10.0, -5.0, 2.0], duration=0.1)
    simulation.advance(NO_TORQUE)
    np.testing.assert_allclose(simulation.data.qfrc_applied, jacobian.T @ [10.0, -5.0, 2.0], atol=1e-9)
    run(simulation, np.zeros((49, 7)))
    assert simulation.data.qfrc_applied.any()
    assert simulation.hand_pose.position[0] > 0.3069
    simulation.advance(NO_TORQUE)
    assert not simulation.data.qfrc_applied.any()


def test_a_push_in_a_links_frame_acts_at_its_origin_along_its_axes() -> None:
    simulation = panda()
    force, torque = np.array([0.0, 0.0, 7.0]), np.array([1.0, 0.0, 0.0])
    link = simulation.model.body("panda_link4").id
    translation, rotation = np.zeros((3, 7)), np.zeros((3, 7))
    mujoco.mj_jacBody(simulation.model, simulation.data, translation, rotation, link)
    axes = simulation.data.xmat[link].reshape(3, 3).copy()
    simulation.push(force, torque, "panda_link4")
    simulation.advance(NO_TORQUE)
    expected = translation.T @ axes @ force + rotation.T @ axes @ torque
    np.testing.assert_allclose(simulation.data.qfrc_applied, expected, atol=1e-9)
    assert not simulation.data.qfrc_applied[4:].any()


def test_a_new_push_takes_the_place_of_the_last_and_nothing_or_a_reset_ends_it() -> None:
    simulation = panda()
    for end in (lambda: simulation.push([0.0, 0.0, 0.0]), simulation.reset):
        simulation.push([50.0, 0.0, 0.0], duration=10.0)
        simulation.advance(NO_TORQUE)
        simulation.push([-50.0, 0.0, 0.0], duration=10.0)
        first = simulation.data.qfrc_applied.copy()
        simulation.advance(NO_TORQUE)
        assert np.dot(first, simulation.data.qfrc_applied) < 0.0
        end()
        simulation.advance(NO_TORQUE)
        assert not simulation.data.qfrc_applied.any()


@pytest.mark.parametrize(
    ("push", "mend"),
    [
        ({"force": [np.nan, 0.0, 0.0]}, "give finite numbers"),
        ({"force": [1.0, 0.0, 0.0], "torque": [np.inf, 0.0, 0.0]}, "give finite numbers"),
        ({"force": [1.0, 0.0, 0.0], "duration": np.inf}, "give finite numbers"),
        ({"force": [1.0, 0.0, 0.0], "frame": "goal"}, "give panda_link0 or one of the links panda_link1,"),
    ],
)
def test_a_push_that_cannot_be_is_refused_with_a_sentence(push: dict[str, Any], mend: str) -> None:
    simulation = panda()
    with pytest.raises(ConfigError, match=mend):
        simulation.push(**push)
    np.testing.assert_allclose(acceleration(simulation), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("payload_mass", -1.0, "not below zero"),
        ("payload_mass", np.nan, "finite"),
        ("motor_strength", (1.0, -0.5), "not below zero"),
        ("friction_factor", (1.0, 2.0), "one for all joints, or 7"),
        ("dry_friction", (), "one for all joints, or 7"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_with_a_sentence(name: str, value: Any, mend: str) -> None:
    simulation = panda()
    with pytest.raises(ConfigError, match=mend) as error:
        simulation.apply(ArmCondition(**{name: value}))
    assert name in str(error.value)
    assert simulation.condition == ArmCondition()


@pytest.mark.parametrize("name", ["panda", "planar_arm"])
def test_home_is_the_models_keyframe(name: str) -> None:
    arm: Arm = get_arm(name)
    keyframe = arm.load_model().key("home")
    simulation = ArmSimulation(arm)
    assert (simulation.joint_position == keyframe.qpos).all()
    assert not keyframe.ctrl.any()


def test_a_joint_without_a_motor_gets_one_and_so_does_one_with_a_position_servo(tmp_path: Path) -> None:
    arm = get_arm("planar_arm")
    mjcf = tmp_path / "servo.xml"
    described = arm.description.path.read_text(encoding="utf-8")
    motors = described[described.index("<actuator>") : described.index("</actuator>")]
    mjcf.write_text(described.replace(motors, '<actuator><position joint="planar_joint1" kp="100"/>'), encoding="utf-8")
    changed = replace(arm, description=replace(arm.description, path=mjcf))
    ours, theirs = ArmSimulation(changed), ArmSimulation(arm)
    for _ in range(50):
        ours.advance([25.0, -3.0])
        theirs.advance([25.0, -3.0])
    assert (ours.joint_position == theirs.joint_position).all()
    assert ours.reading.effort == pytest.approx([20.0, -3.0])
