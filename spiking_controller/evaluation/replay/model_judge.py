"""Judges forward models on recorded control steps: do they still predict this arm?"""

from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.evaluation.complexity import CostMeter
from spiking_controller.evaluation.untrained_predictions import constant_velocity, persistence
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.prediction import open_loop_predictions
from spiking_controller.streams.control_steps import ControlStep
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Windows
from spiking_controller.tasks.torque import TorqueLaw

FloatArray = NDArray[np.float64]

HORIZONS: Final = (1, 10, 50)
"""Control steps ahead that tables show."""
LONGEST_HORIZON: Final = HORIZONS[-1]
STRIDE: Final = 10
"""Control steps from the start of one window to that of the next."""
BATCH: Final = 32
"""Windows that are predicted at once. Fixed, since rounding depends on it and a spike more or less on rounding."""
FOLLOWED: Final = 50
"""Control steps after which a network that follows the stream is judged."""


class RecordedWindows(NamedTuple):
    """Consecutive control steps as recorded, for whichever networks.

    Attributes:
        time: of the first predicted step's start, ns, [batch].
        observation: [length + 1, batch, observation].
        torque, velocity: of each step and the one before the first, N·m and rad/s, [length + 1, batch, n]; NaN where
            the first has none before it.
    """

    time: NDArray[np.int64]
    observation: FloatArray
    torque: FloatArray
    velocity: FloatArray


class WindowCutter:
    """Cuts a stream of control steps into windows: first steps that set the neurons' state, then steps to predict."""

    def __init__(self, warm_up: int, joints: int) -> None:
        """Cut windows of `warm_up` and `LONGEST_HORIZON` steps; an arm with so many joints."""
        self.warm_up = warm_up
        self._joints = joints
        # One step more, whose action is the one before the window.
        self._steps: deque[ControlStep] = deque(maxlen=warm_up + LONGEST_HORIZON + 1)
        self._until_next = 0
        self._waiting: list[list[ControlStep | None]] = []

    def add(self, step: ControlStep) -> RecordedWindows | None:
        """The next step; windows as soon as there are BATCH."""
        if not step.continues or step.torque is None:
            self._steps.clear()
            self._until_next = self.warm_up + LONGEST_HORIZON
        if step.torque is None:
            return None
        self._steps.append(step)
        self._until_next -= 1
        if self._until_next > 0:
            return None
        self._until_next = STRIDE
        length = self.warm_up + LONGEST_HORIZON
        recorded = list(self._steps)
        before = recorded[-length - 1] if len(recorded) > length else None
        self._waiting.append([before, *recorded[-length:]])
        return self.take() if len(self._waiting) == BATCH else None

    def take(self) -> RecordedWindows | None:
        """The windows that wait, if there are any."""
        if not self._waiting:
            return None
        windows, self._waiting = self._waiting, []
        none = np.full(self._joints, np.nan)
        steps = [[step for step in window[1:] if step is not None] for window in windows]
        observation = [[step.observation for step in window] + [window[-1].following] for window in steps]
        torque = [[none if step is None else step.torque for step in window] for window in windows]
        velocity = [[none if step is None else step.velocity for step in window] for window in windows]
        return RecordedWindows(
            np.array([window[self.warm_up].time for window in steps]),
            np.array(observation).swapaxes(0, 1),
            np.array(torque, dtype=np.float64).swapaxes(0, 1),
            np.array(velocity).swapaxes(0, 1),
        )


class HorizonErrors:
    """Errors of predictions 1 to LONGEST_HORIZON control steps ahead, over windows.

    Attributes:
        windows: how many.
        joint_rad: sum over the windows of the absolute error, [horizon, m].
        hand_m: sum over the windows of the hand's distance, [horizon].
        of_windows: for each window the errors at HORIZONS: mean over the joints, rad, and hand, m, [2 · horizons].
    """

    def __init__(self, task: ReachTask, keep_series: bool) -> None:
        self._codec = ObservationCodec(task)
        self._keep_series = keep_series
        self.windows = 0
        self.joint_rad = np.zeros((LONGEST_HORIZON, task.controlled_joints))
        self.hand_m = np.zeros(LONGEST_HORIZON)
        self.of_windows: list[FloatArray] = []

    def add(self, predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> None:
        """Windows of observations, [horizon, batch, observation] each."""
        codec = self._codec
        joints = np.abs(codec.joint_position(predicted) - codec.joint_position(measured)).astype(np.float64)
        hand = np.linalg.norm(codec.hand_position(predicted) - codec.hand_position(measured), axis=-1)
        self.windows += predicted.shape[1]
        self.joint_rad += joints.sum(axis=1)
        self.hand_m += hand.sum(axis=1)
        if self._keep_series:
            chosen = [horizon - 1 for horizon in HORIZONS]
            self.of_windows += list(np.concatenate((joints[chosen].mean(axis=-1), hand[chosen])).T)

    def metrics(self) -> dict[str, Any]:
        """Mean errors by horizon: `joint_rad` (mean over the joints), `joints_rad` (each) and `hand_m`."""
        if not self.windows:
            return {}
        return {
            str(horizon): {
                "joint_rad": float(self.joint_rad[horizon - 1].mean() / self.windows),
                "joints_rad": (self.joint_rad[horizon - 1] / self.windows).tolist(),
                "hand_m": float(self.hand_m[horizon - 1] / self.windows),
            }
            for horizon in HORIZONS
        }


class UntrainedErrors:
    """Errors of what it takes no model to predict, see `untrained_predictions`."""

    def __init__(self, task: ReachTask, keep_series: bool) -> None:
        self._task = task
        self.persistence = HorizonErrors(task, keep_series)
        self.constant_velocity = HorizonErrors(task, keep_series)

    def add(self, windows: RecordedWindows, warm_up: int) -> None:
        """Predict along windows."""
        start, measured = windows.observation[warm_up], windows.observation[warm_up + 1 :]
        steps = range(1, LONGEST_HORIZON + 1)
        self.persistence.add(persistence(start, steps), measured)
        self.constant_velocity.add(constant_velocity(self._task, start, steps), measured)


class ModelJudge:
    """One checkpoint's forward model.

    Besides the windows it follows the whole stream, step after step with its state going on, as the controller lets it;
    the error of that is what the controller publishes.

    Attributes:
        horizons: errors over the windows.
        meter: what its steps cost, FOLLOWED of them at a time.
        errors: with their times, ns: of one step ahead while following the stream, rad.
    """

    def __init__(self, checkpoint: Checkpoint, keep_series: bool) -> None:
        self._model = checkpoint.forward_model
        self._law = TorqueLaw(checkpoint.task)
        self._codec = ObservationCodec(checkpoint.task)
        self._keep_series = keep_series
        self.horizons = HorizonErrors(checkpoint.task, keep_series)
        self.meter = CostMeter(checkpoint.forward_model)
        self.errors: list[tuple[int, float]] = []
        self._waiting: list[ControlStep] = []
        self._sum, self._count = 0.0, 0
        self._reported_sum, self._reported_count = 0.0, 0
        self._effective = self._model.for_inference()
        self._restart()

    def _restart(self) -> None:
        self._state = self._model.initial_state(1)
        self._last_action = np.zeros(self._model.arm.controlled_joints)

    def add(self, step: ControlStep) -> None:
        """Follow the stream."""
        if not step.continues or step.torque is None:
            self.follow()
            self._restart()
        if step.torque is not None:
            self._waiting.append(step)
        if len(self._waiting) == FOLLOWED:
            self.follow()

    def follow(self) -> None:
        """Let the network make the steps that wait; all but the network itself runs for all of them at once."""
        steps, self._waiting = self._waiting, []
        if not steps:
            return
        observation = _tensor(np.array([step.observation for step in steps]))
        torque, velocity = (np.array([getattr(step, name) for step in steps]) for name in ("torque", "velocity"))
        action = self._law.action(torque, velocity)
        previous = np.concatenate((self._last_action[None], action[:-1]))
        self._last_action = action[-1]
        readouts, states, spikes = [], [], []
        with torch.inference_mode():
            features = self._model.inputs(observation, _tensor(action), _tensor(previous))
            for row in features:
                states.append(self._state)
                readout, self._state, fired = self._model.network.step(row[None], self._state, self._effective)
                readouts.append(readout)
                spikes.append(fired)
            change = self._model.change(features, torch.cat(readouts))
            predicted = self._model.advance(observation, change).numpy().astype(np.float64)
        self.meter.add_singles(features, states, spikes)
        following = np.array([step.following for step in steps])
        missed = self._codec.joint_position(following) - self._codec.joint_position(predicted)
        errors = np.sqrt(np.mean(np.square(missed), axis=-1))
        reported = np.array([step.reported for step in steps])
        self._sum += float(errors.sum())
        self._count += len(steps)
        self._reported_sum += float(errors[reported].sum())
        self._reported_count += int(reported.sum())
        if self._keep_series:
            self.errors += zip([step.time for step in steps], errors.tolist(), strict=True)

    def add_windows(self, recorded: RecordedWindows, warm_up: int) -> None:
        """Predict along windows."""
        action = self._law.action(recorded.torque, recorded.velocity)
        action = np.where(np.isnan(action), 0.0, action).astype(np.float32)
        observation = recorded.observation.astype(np.float32)
        no_goal = np.empty((observation.shape[1], 0), np.float32)
        windows = Windows(observation, action[1:], action[:-1], no_goal)
        predicted = open_loop_predictions(self._model, windows, warm_up)
        self.horizons.add(predicted, recorded.observation[warm_up + 1 :])

    def metrics(self) -> dict[str, Any]:
        """Errors, see `evaluator.ReplayEvaluator.metrics`."""
        reported = self._reported_sum / self._reported_count if self._reported_count else None
        return {
            "horizons": self.horizons.metrics(),
            "following_rad": self._sum / self._count if self._count else None,
            "following_steps": self._count,
            "following_reported_rad": reported,
            "following_reported_steps": self._reported_count,
        }


def _tensor(values: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
