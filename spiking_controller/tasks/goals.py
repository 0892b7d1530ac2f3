"""Draws starting postures and goals that the arm can reach: every goal is the hand of a possible posture.

A posture counts as possible when its joints lie in the soft position bounds, nothing touches itself or the
floor, and the hand is above the table.
"""

from collections.abc import Callable
from functools import cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.mujoco_model import joint_addresses
from spiking_controller.tasks.reach import FloatArray, ReachTask

_MOST_ROUNDS = 1000


@cache
def _model(arm_name: str) -> mujoco.MjModel:
    return get_arm(arm_name).load_model()


def contact_data(task: ReachTask) -> mujoco.MjData:
    """Memory for `is_free`, for whoever asks often: making it takes longer than looking at a posture."""
    return mujoco.MjData(_model(task.arm_name))


def is_free(task: ReachTask, joint_position: FloatArray, data: mujoco.MjData | None = None) -> NDArray[np.bool_]:
    """Whether nothing is in contact at each posture.

    Args:
        task: with the arm.
        joint_position: rad, [batch, n].
        data: of `contact_data`; by default new.
    Returns:
        bool, [batch].
    """
    model = _model(task.arm_name)
    data = contact_data(task) if data is None else data
    addresses = joint_addresses(model, task.arm.joint_names).position
    free = np.empty(len(joint_position), dtype=bool)
    for index, position in enumerate(joint_position):
        data.qpos[addresses] = position
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        free[index] = data.ncon == 0
    return free


def shoulder_distance(task: ReachTask, hand_position: FloatArray) -> FloatArray:
    """Distance of points [..., d] from the arm's shoulder, m, [...]."""
    offset = hand_position - np.asarray(task.arm.shoulder)[: hand_position.shape[-1]]
    return np.asarray(np.linalg.norm(offset, axis=-1))


def is_hard(task: ReachTask, goal: FloatArray) -> NDArray[np.bool_]:
    """Whether goals [..., d] are hard: close to the shoulder or nearly out of reach; bool [...]."""
    distance = shoulder_distance(task, goal)
    return (distance < task.hard_goal_near) | (distance > task.hard_goal_far)


def _draw(
    task: ReachTask,
    rng: np.random.Generator,
    count: int,
    accepts: Callable[[FloatArray], NDArray[np.bool_]] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """`count` possible postures [count, n] whose hand `accepts`, and their hands [count, 3]."""
    m = task.controlled_joints
    lower, upper = task.soft_bounds
    home = np.asarray(task.arm.home, dtype=np.float64)
    postures = [np.empty((0, home.size))]
    hands = [np.empty((0, 3))]
    missing = count
    for _ in range(_MOST_ROUNDS):
        if missing == 0:
            break
        candidates = np.tile(home, (max(2 * missing, 32), 1))
        candidates[:, :m] = rng.uniform(lower[:m], upper[:m], (len(candidates), m))
        hand = task.arm.chain.position(candidates)
        keep = np.ones(len(candidates), dtype=bool)
        if task.minimum_goal_height is not None:
            keep &= hand[:, 2] > task.minimum_goal_height
        if accepts is not None:
            keep &= accepts(hand)
        candidates, hand = candidates[keep], hand[keep]
        free = is_free(task, candidates)
        postures.append(candidates[free][:missing])
        hands.append(hand[free][:missing])
        missing -= len(postures[-1])
    if missing:
        raise ConfigError(
            f"task {task.name!r}: {_MOST_ROUNDS} rounds of random postures gave only {count - missing} of "
            f"{count} that are allowed; widen soft_limit_fraction, minimum_goal_height or the hard distances."
        )
    return np.concatenate(postures), np.concatenate(hands)


def sample_joint_position(task: ReachTask, rng: np.random.Generator, count: int) -> FloatArray:
    """Random possible postures.

    Args:
        rng: the only source of randomness.
        count: how many.
    Returns:
        joint positions, uniform in the soft bounds where possible, held joints at home, rad, [count, n].
    Raises:
        ConfigError: the task's limits leave (nearly) no posture.
    """
    return _draw(task, rng, count)[0]


def sample_goals(
    task: ReachTask, rng: np.random.Generator, count: int, hard_fraction: float | None = None
) -> FloatArray:
    """Random reachable goals: hands of random possible postures.

    Args:
        rng: the only source of randomness.
        count: how many.
        hard_fraction: probability that a goal is drawn from the hard set (see `is_hard`) instead of from
            everywhere; by default the task's.
    Returns:
        goals in the base frame, m, [count, d], in random order.
    Raises:
        ConfigError: the task's limits leave (nearly) no posture, or `hard_fraction` is not in [0, 1].
    """
    fraction = task.hard_goal_fraction if hard_fraction is None else hard_fraction
    if not 0.0 <= fraction <= 1.0:
        raise ConfigError(f"hard_fraction is {fraction!r}; give a share between 0 and 1.")
    d = task.goal_dimensions
    hard = rng.random(count) < fraction
    goals = np.empty((count, d))
    hard_count = int(hard.sum())
    goals[~hard] = _draw(task, rng, count - hard_count)[1][:, :d]
    goals[hard] = _draw(task, rng, hard_count, lambda hand: is_hard(task, hand[:, :d]))[1][:, :d]
    return goals
