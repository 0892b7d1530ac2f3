"""Predictions that take no model, to compare forward models with: persistence and constant velocity."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask


def persistence(observation: NDArray[np.floating], steps: Sequence[int]) -> NDArray[np.floating]:
    """The state stays as it is.

    Args:
        observation: [batch, observation].
        steps: how many control steps ahead, [horizons].
    Returns:
        [horizons, batch, observation].
    """
    return np.broadcast_to(observation, (len(steps), *observation.shape))


def constant_velocity(task: ReachTask, observation: NDArray[np.floating], steps: Sequence[int]) -> NDArray[np.floating]:
    """The controlled joints go on at their velocity; the others are at home, as for the forward models.

    Args:
        task: whose arm and control period.
        observation, steps: as of `persistence`.
    Returns:
        [horizons, batch, observation].
    """
    codec = ObservationCodec(task)
    velocity = codec.joint_velocity(observation)
    position = codec.joint_position(observation) + task.control_period * np.array(steps)[:, None, None] * velocity
    locked = np.asarray(task.arm.home)[task.controlled_joints :]
    every = np.concatenate((position, np.broadcast_to(locked, (*position.shape[:-1], locked.size))), axis=-1)
    hand = task.arm.chain.position(every.reshape(-1, every.shape[-1])).reshape(*every.shape[:-1], 3)
    return codec.encode(position, np.broadcast_to(velocity, position.shape), hand)
