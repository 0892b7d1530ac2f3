"""Draws what disturbs arms in training episodes: loads, pushes, friction and weak motors."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.tasks.reach import FloatArray, ReachTask

HEAVIEST_LOAD: Final = 1 / 3
"""Weight of the heaviest load, and"""
STRONGEST_PUSH: Final = 1 / 6
"""the strongest push, as shares of the force that the arm's strongest motor exerts at full reach; Panda: 3 kg, 15 N."""
SHORTEST_PUSH: Final = 0.1
"""s."""
MOST_FRICTION: Final = 4.0
"""Times the description's."""
WEAKEST_MOTOR: Final = 0.6
"""Share of its torque that a weak motor gives."""
_GRAVITY: Final = 9.81


class Hindrance(NamedTuple):
    """What hinders an arm in an episode, and nobody tells it of.

    Attributes:
        condition: of the arm.
        push: force on its hand, in the base frame, N, [3],
        begin, end: in this time, s.
    """

    condition: ArmCondition
    push: tuple[float, ...] = (0.0, 0.0, 0.0)
    begin: float = 0.0
    end: float = math.inf


def sample_hindrances(task: ReachTask, rng: np.random.Generator, count: int) -> list[Hindrance]:
    """What hinders the arms of so many episodes: in the share `task.disturbances` of them one of four, drawn evenly.

    A load, friction and a weak motor, in a joint that the network drives, are there from the start. Their sizes are
    uniform; a push begins at any time and lasts from SHORTEST_PUSH to a whole episode, with uniform logarithm.
    """
    kinds: tuple[Callable[[ReachTask, np.random.Generator], Hindrance], ...] = (_load, _push, _friction, _weak_motor)
    return [
        kinds[rng.integers(len(kinds))](task, rng) if rng.random() < task.disturbances else Hindrance(ArmCondition())
        for _ in range(count)
    ]


def _force(task: ReachTask) -> float:
    """Of the strongest motor at full reach, N."""
    return float(max(task.arm.limits.torque) / task.arm.reach)


def _load(task: ReachTask, rng: np.random.Generator) -> Hindrance:
    return Hindrance(ArmCondition(payload_mass=HEAVIEST_LOAD * _force(task) / _GRAVITY * rng.random()))


def _push(task: ReachTask, rng: np.random.Generator) -> Hindrance:
    force: FloatArray = np.zeros(3)
    way = rng.standard_normal(task.goal_dimensions)
    force[: task.goal_dimensions] = STRONGEST_PUSH * _force(task) * rng.random() * way / np.linalg.norm(way)
    begin = rng.uniform(0.0, task.episode_duration)
    duration = SHORTEST_PUSH * (task.episode_duration / SHORTEST_PUSH) ** rng.random()
    return Hindrance(ArmCondition(), tuple(force.tolist()), begin, begin + duration)


def _friction(task: ReachTask, rng: np.random.Generator) -> Hindrance:
    del task
    return Hindrance(ArmCondition(friction_factor=(rng.uniform(1.0, MOST_FRICTION),)))


def _weak_motor(task: ReachTask, rng: np.random.Generator) -> Hindrance:
    strength = np.ones(len(task.arm.joint_names))
    strength[rng.integers(task.controlled_joints)] = rng.uniform(WEAKEST_MOTOR, 1.0)
    return Hindrance(ArmCondition(motor_strength=tuple(strength.tolist())))
