"""Holds goals for minutes with the controller of the live graph: does the posture drift, does the hand's error grow?"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.controller import ControllerSettings
from spiking_controller.evaluation.lock_step import LockStep, over_arms
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.tasks.goals import sample_joint_position

FloatArray = NDArray[np.float64]

ARMS: Final = 8
SETTLING_TIME: Final = 5.0
"""What counts as drift begins so long after the start, s."""
WINDOW: Final = 60.0
"""Length of the first and of the last minute; if both do not fit, they are halves of the time that counts, s."""
SHORTEST: Final = 0.2
"""Least time of holding, minutes."""


class Held(NamedTuple):
    """What one arm did while it held its goal, from SETTLING_TIME on.

    Attributes:
        drift_rad: how far a controlled joint was from where it had been, at most.
        first_error_m, last_error_m: mean hand-to-goal distance in the first and the last minute.
    """

    drift_rad: float
    first_error_m: float
    last_error_m: float


def hold(checkpoint: Checkpoint, minutes: float, *, seed: int, arms: int) -> dict[str, Any]:
    """Hold a goal with each of several arms, which are simulated side by side, one on each processor.

    Args:
        checkpoint: with the networks.
        minutes: of simulated time, at least SHORTEST.
        seed: of the postures.
        arms: how many.
    Returns:
        Plain data: `minutes`, `arms`, and as lists over arms the fields of `Held`.
    """
    postures = sample_joint_position(checkpoint.task, np.random.default_rng([seed, *b"hold"]), arms)
    held = over_arms(hold_goal, [(checkpoint, posture, 60.0 * minutes) for posture in postures])
    lists = {name: [getattr(one, name) for one in held] for name in Held._fields}
    return {"minutes": minutes, "arms": arms, **lists}


def hold_goal(
    checkpoint: Checkpoint, joint_position: FloatArray, duration: float, settings: ControllerSettings | None = None
) -> Held:
    """Hold the hand where it is at the start, in lock-step, with the code of the live controller and no ROS.

    Args:
        checkpoint: with the networks.
        joint_position: at the start, at rest, rad, [n].
        duration: s of simulated time.
        settings: of the controller; by default its own.
    """
    task = checkpoint.task
    loop = LockStep.of(checkpoint, joint_position, settings)
    loop.controller.set_goal(task.arm.chain.position(joint_position)[: task.goal_dimensions])
    positions, errors = [], []
    for _ in range(round(duration / task.physics_period)):
        sample = loop.step()
        if sample is not None:
            positions.append(sample.joint_position[: task.controlled_joints])
            errors.append(loop.controller.report().tracking_error)
    settled = round(SETTLING_TIME / task.control_period)
    counted = np.array(errors[settled:])
    window = min(round(WINDOW / task.control_period), len(counted) // 2)
    moved = np.abs(np.array(positions[settled:]) - positions[settled])
    return Held(float(moved.max()), float(counted[:window].mean()), float(counted[-window:].mean()))
