"""What disturbs arms in training episodes: drawn as asked for, and the same physics as on the live graph's arm."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.robots.limits import TorqueLimiter
from spiking_controller.robots.simulation import ArmCondition, ArmSimulation
from spiking_controller.tasks.disturbances import Hindrance, sample_hindrances
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.torque import TorqueLaw

TASK = dataclasses.replace(get_task("panda_reach"), disturbances=0.5)
STEPS = 40


def test_half_of_the_episodes_are_disturbed_evenly_in_four_ways() -> None:
    drawn = sample_hindrances(TASK, np.random.default_rng(0), 4000)
    loads = [one.condition.payload_mass for one in drawn if one.condition.payload_mass]
    forces = [float(np.linalg.norm(one.push)) for one in drawn if any(one.push)]
    frictions = [one.condition.friction_factor[0] for one in drawn if one.condition.friction_factor != (1.0,)]
    motors = [min(one.condition.motor_strength) for one in drawn if one.condition.motor_strength != (1.0,)]
    assert all(450 < len(kind) < 550 for kind in (loads, forces, frictions, motors))
    assert drawn.count(Hindrance(ArmCondition())) == 4000 - sum(map(len, (loads, forces, frictions, motors)))
    assert 3.0 < max(loads) < 3.2
    assert 15.0 < max(forces) < 15.5
    assert min(frictions) > 1.0
    assert 3.9 < max(frictions) <= 4.0
    assert 0.6 <= min(motors) < 0.61
    assert max(motors) < 1.0
    lengths = [one.end - one.begin for one in drawn if any(one.push)]
    assert 0.1 <= min(lengths) < 0.12
    assert 3.5 < max(lengths) <= TASK.episode_duration


def test_the_same_generator_gives_the_same_hindrances_and_none_where_none_are_wanted() -> None:
    first, second = (sample_hindrances(TASK, np.random.default_rng(3), 50) for _ in range(2))
    assert first == second
    calm = sample_hindrances(get_task("panda_reach"), np.random.default_rng(3), 50)
    assert calm == [Hindrance(ArmCondition())] * 50


HINDRANCES = [
    Hindrance(ArmCondition()),
    Hindrance(ArmCondition(payload_mass=2.0)),
    Hindrance(ArmCondition(friction_factor=(3.0,))),
    Hindrance(ArmCondition(motor_strength=(1.0, 0.7, *[1.0] * 5))),
    Hindrance(ArmCondition(), (5.0, -10.0, 8.0), 0.2, 0.5),
]


def test_hindered_arms_move_as_the_simulation_of_the_live_graph() -> None:
    task = TASK
    env = ReachVectorEnv(task, len(HINDRANCES))
    env.reset(seed=5, options={"start": "home", "hindrances": HINDRANCES})
    action = 0.3 * np.random.default_rng(6).uniform(-1, 1, env.action_space.shape)
    for _ in range(STEPS):
        env.step(action)
    law, limiter = TorqueLaw(task), TorqueLimiter(task.arm.limits, task.soft_limit_fraction)
    ends = []
    for number, hindrance in enumerate(HINDRANCES):
        arm = ArmSimulation(task.arm, task.physics_period, condition=hindrance.condition)
        previous = np.zeros(len(task.arm.joint_names))
        for step in range(STEPS * task.substeps):
            if step == round(hindrance.begin / task.physics_period) and any(hindrance.push):
                arm.push(hindrance.push, duration=hindrance.end - hindrance.begin)
            position, velocity = arm.joint_position.copy(), arm.joint_velocity.copy()
            wanted = law.torque(action[number], position, velocity)
            torque = limiter.limit(wanted, previous, position, velocity, task.physics_period)
            arm.advance(previous)  # one physics step late
            previous = torque
        np.testing.assert_allclose(env.joint_position[number], arm.joint_position, atol=1e-9)
        ends.append(arm.joint_position.copy())
    for other in ends[1:]:
        assert np.abs(other - ends[0]).max() > 0.01, "each hindrance shows"


def test_the_next_episode_begins_without_what_hindered_the_last() -> None:
    env = ReachVectorEnv(TASK, len(HINDRANCES))
    action = np.full((len(HINDRANCES), TASK.controlled_joints), 0.2)

    def end(**options: Any) -> np.ndarray:
        env.reset(seed=1, options={"start": "home", **options})
        for _ in range(STEPS):
            env.step(action)
        return env.joint_position

    before = end()
    hindered = end(hindrances=HINDRANCES)
    assert np.abs(hindered[1:] - before[1:]).max(axis=1).min() > 0.01
    np.testing.assert_array_equal(end(), before)


def test_a_mask_leaves_the_other_arms_hindered() -> None:
    env = ReachVectorEnv(TASK, 2)
    heavy = Hindrance(ArmCondition(payload_mass=2.0))
    env.reset(seed=1, options={"start": "home", "hindrances": [heavy, heavy]})
    env.reset(options={"start": "home", "reset_mask": np.array([True, False])})
    for _ in range(STEPS):
        env.step(np.zeros((2, 6)))
    height = env.hand_position[:, 2]
    assert height[1] < height[0] - 0.02


@pytest.mark.parametrize(
    ("task", "hindrances", "says"),
    [
        (get_task("panda_reach"), HINDRANCES[:2], "disturbances are 0"),
        (TASK, HINDRANCES[:3], "there are 3 hindrances; give one for each of the 2 arms"),
        (TASK, [Hindrance(ArmCondition(friction_factor=(1.0, 2.0)))] * 2, "friction_factor has 2 numbers"),
    ],
)
def test_wrong_hindrances_are_refused(task: Any, hindrances: list[Hindrance], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ReachVectorEnv(task, 2).reset(options={"hindrances": hindrances})


@pytest.mark.parametrize(
    ("name", "share", "says"),
    [
        ("panda_reach", 1.5, "disturbances is 1.5; give a share"),
        ("panda_reach", float("nan"), "disturbances is nan; give a share"),
        ("planar_reach_paper", 0.5, "with physics 'accelerations' nothing can disturb the arm"),
        ("panda_reach_paper", 0.5, "with physics 'bare_arm' nothing can disturb the arm"),
    ],
)
def test_shares_that_cannot_be_are_refused(name: str, share: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(get_task(name), disturbances=share)
