"""Judges candidate networks on held-back steps before they may drive the arm."""

from typing import NamedTuple, Protocol

import numpy as np

from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.networks.prediction import (
    PredictionError,
    imagined_final_distance,
    open_loop_predictions,
    policy_actions,
    prediction_error,
)
from spiking_controller.robots.limits import TorqueLimiter
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Windows
from spiking_controller.tasks.torque import TorqueLaw
from spiking_controller.training.replay_memory import ReplayMemory
from spiking_controller.training.updates import NetworkName

PREDICTED_STEPS = 10
"""The gate judges the forward model this many control steps ahead."""
IMAGINED_STEPS = 100
"""The gate judges the policy at the end of this many imagined control steps: where it ends, not how fast it starts."""
MOVING = 0.02
"""From so much motion of the joints on (mean over joints, in PREDICTED_STEPS) an arm moves, rad."""
_STARTS_PER_SEGMENT = 3


class GateSettings(Protocol):
    """What the gate lets through; see `learner.OnlineSettings`."""

    @property
    def margin(self) -> float:
        """A network is let out if it is better by this fraction."""

    @property
    def discard_margin(self) -> float:
        """A network is discarded if it is worse by this fraction."""

    @property
    def largest_torque_change(self) -> float:
        """Mean change of the torque by a new policy, as a fraction of the torque scale."""


class NetworkPair(NamedTuple):
    """A policy and the forward model beside it."""

    policy: Policy
    forward_model: ForwardModel


class Judgement(NamedTuple):
    """Figures of networks on held-back segments.

    Attributes:
        joint_rad, hand_m: error of the forward model `PREDICTED_STEPS` steps ahead in open loop.
        relative_error: the same where the arm moves, as a share of how far, which depends less on where it was sent.
            At rest a load shows that the disturbance observer knows to within little, in motion hardly.
        final_distance_m: at the end of imagined roll-outs of the policy.
        torque_change: mean difference to the running policy's torque, as a share of the torque scale.
    """

    joint_rad: float
    hand_m: float
    relative_error: float
    final_distance_m: float
    torque_change: float


class Verdict(NamedTuple):
    """What becomes of one network: let out, learning on, or discarded."""

    accepted: bool
    discarded: bool
    reason: str


class Gate:
    """Compares candidate networks with the running ones on the same held-back windows and goals."""

    def __init__(self, task: ReachTask, reachable: np.ndarray, warm_up: int, settings: GateSettings) -> None:
        """Prepare for the networks of a task.

        Args:
            task: of the networks.
            reachable: pool of reachable goals, [pool, goal], m.
            warm_up: first steps of a window, which set the neurons' state and do not count.
            settings: what is let through.
        """
        self._task = task
        self._reachable = reachable
        self._warm_up = warm_up
        self._settings = settings
        self._codec = ObservationCodec(task)
        self._law = TorqueLaw(task)
        self._limiter = TorqueLimiter(task.arm.limits, task.soft_limit_fraction)

    def judge(self, memory: ReplayMemory, running: NetworkPair, candidate: NetworkPair) -> tuple[Judgement, Judgement]:
        """Metrics of the running networks and of the candidate.

        The policies are compared by their imagined roll-outs through the better one of the two forward models.

        Args:
            memory: held-back segments.
            running, candidate: the networks.
        """
        windows = held_back_windows(memory, self._warm_up)
        batch = len(windows.goal)
        pairs = running, candidate
        errors = [ten_step_error(self._codec, pair.forward_model, windows, self._warm_up) for pair in pairs]
        relative = [relative_error(self._codec, pair.forward_model, windows, self._warm_up) for pair in pairs]
        better = (candidate if errors[1].joint_rad < errors[0].joint_rad else running).forward_model
        # Half of the roll-outs hold or reach what was asked for, half go somewhere else; the same in every judgement.
        number = np.arange(batch)
        goal = np.where((number % 2 == 0)[:, None], windows.goal, self._reachable[number % len(self._reachable)])
        starts = _last_steps(windows, self._warm_up)
        distances = [imagined_final_distance(pair.policy, better, starts, goal, IMAGINED_STEPS) for pair in pairs]
        torques = [self._safe_torque(pair.policy, windows) for pair in pairs]
        change = float(np.abs(torques[1] - torques[0]).mean())
        of_running, of_candidate = (
            Judgement(*error, share, distance, difference)
            for error, share, distance, difference in zip(errors, relative, distances, (0.0, change), strict=True)
        )
        return of_running, of_candidate

    def verdicts(self, running: Judgement, candidate: Judgement) -> dict[NetworkName, Verdict]:
        """What becomes of either network of the candidate."""
        verdicts: dict[NetworkName, Verdict] = {
            "forward_model": self._compare("10-step prediction error", "rad", candidate.joint_rad, running.joint_rad),
            "policy": self._compare(
                "imagined final distance", "m", candidate.final_distance_m, running.final_distance_m
            ),
        }
        largest = self._settings.largest_torque_change
        if candidate.torque_change > largest:
            reason = (
                f"changes the torque by {candidate.torque_change:.3f} of its scale, more than {largest:g}, and is "
                "discarded"
            )
            verdicts["policy"] = Verdict(False, True, reason)
        return verdicts

    def _compare(self, metric: str, unit: str, new: float, old: float) -> Verdict:
        gain = 1.0 - new / max(old, 1e-9)
        text = f"{metric} {new:.5f} {unit}, running {old:.5f}"
        if gain >= self._settings.margin:
            return Verdict(True, False, f"better ({text})")
        if gain < -self._settings.discard_margin:
            return Verdict(False, True, f"worse and discarded ({text})")
        return Verdict(False, False, f"not better by {self._settings.margin:.0%}, learns on ({text})")

    def _safe_torque(self, policy: Policy, windows: Windows) -> np.ndarray:
        """What the limiter lets through of a policy's torque in recorded states, as a fraction of its scale."""
        task = self._task
        joints = task.controlled_joints
        observation = windows.observation[self._warm_up : -1].reshape(-1, self._codec.size)
        action = policy_actions(policy, windows)[self._warm_up :].reshape(-1, joints)
        position = np.tile(np.asarray(task.arm.home, dtype=np.float64), (len(observation), 1))
        velocity = np.zeros_like(position)
        position[:, :joints] = self._codec.joint_position(observation)
        velocity[:, :joints] = self._codec.joint_velocity(observation)
        lowest, highest = self._limiter.bounds(position, velocity)
        torque = np.clip(self._law.torque(action, position, velocity), lowest, highest)
        return np.asarray(torque[:, :joints] / task.torque_scale)


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


def relative_error(codec: ObservationCodec, model: ForwardModel, windows: Windows, warm_up: int) -> float:
    """The joints' `ten_step_error` in windows in which the arm moves, as a share of how far it moves in them.

    Where it moves in none, all of them count.
    """
    angle = codec.joint_position(windows.observation[[warm_up, warm_up + PREDICTED_STEPS]])
    motion = np.abs(angle[1] - angle[0]).mean(axis=-1)
    moves = motion > MOVING if (motion > MOVING).any() else np.full(motion.shape, True)
    chosen = Windows(
        windows.observation[:, moves], windows.action[:, moves], windows.previous_action[:, moves], windows.goal[moves]
    )
    return ten_step_error(codec, model, chosen, warm_up).joint_rad / max(float(motion[moves].mean()), 1e-9)


def _last_steps(windows: Windows, steps: int) -> Windows:
    """The last steps of windows."""
    return Windows(
        windows.observation[-steps - 1 :], windows.action[-steps:], windows.previous_action[-steps:], windows.goal
    )
