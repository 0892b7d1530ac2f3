"""Judges candidate networks on held-back steps before they may drive the arm."""

from typing import NamedTuple

import numpy as np

from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.prediction import (
    PredictionError,
    open_loop_predictions,
    prediction_error,
)
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.segments import Windows
from spiking_controller.training.replay_memory import ReplayMemory

_STARTS_PER_SEGMENT = 3


class Judgement(NamedTuple):
    """Figures of networks on held-back segments.

    Attributes:
        joint_rad, hand_m: error of the forward model `PREDICTED_STEPS` steps ahead in open loop.
        relative_error: `joint_rad` as a share of that of the prediction that nothing moves, which depends less on
            where the arm was sent.
        final_distance_m: at the end of imagined roll-outs of the policy.
        torque_change: mean difference to the running policy's torque, as a share of the torque scale.
    """

    joint_rad: float
    hand_m: float
    relative_error: float
    final_distance_m: float
    torque_change: float


class _Verdict(NamedTuple):
    """What becomes of one network: let out, learning on, or discarded."""

    accepted: bool
    discarded: bool
    reason: str


PREDICTED_STEPS = 10
"""The gate judges the forward model this many control steps ahead."""


IMAGINED_STEPS = 100
"""The gate judges the policy at the end of this many imagined control steps: where it ends, not how fast it starts."""


def held_back_windows(memory: ReplayMemory, warm_up: int) -> Windows:
    """Windows from all segments of a memory, a few from each, long enough to warm up and predict PREDICTED_STEPS."""
    length = warm_up + PREDICTED_STEPS
    starts = np.linspace(0, memory.steps - length, _STARTS_PER_SEGMENT).astype(int)
    grid = np.meshgrid(np.arange(len(memory)), starts, indexing="ij")
    segment, start = (values.reshape(-1) for values in grid)
    return memory.windows_at(segment, start, length)


def ten_step_error(codec: ObservationCodec, model: ForwardModel, windows: Windows, warm_up: int) -> PredictionError:
    """Error of a forward model PREDICTED_STEPS steps after the warm-up, in open loop along the recorded actions."""
    predicted = open_loop_predictions(model, windows, warm_up)[PREDICTED_STEPS - 1]
    return prediction_error(codec, predicted, windows.observation[warm_up + PREDICTED_STEPS])


def _last_steps(windows: Windows, steps: int) -> Windows:
    """The last steps of windows."""
    return Windows(
        windows.observation[-steps - 1 :], windows.action[-steps:], windows.previous_action[-steps:], windows.goal
    )
