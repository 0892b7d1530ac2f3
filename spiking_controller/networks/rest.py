"""How still networks are where the arm should rest: for the training log and for evaluation."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.networks.prediction import one_step_predictions
from spiking_controller.tasks.episodes import Episodes
from spiking_controller.tasks.goals import sample_joint_position
from spiking_controller.tasks.metrics import hold_steps, holds_goal
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Windows

Metrics = dict[str, float | None]

_POSTURES: Final = 32
_FROZEN_STEPS: Final = 300
_SETTLING_STEPS: Final = 100
MOVING_DISTANCE: Final = 0.05
"""The hand is on its way while it is farther from its goal than this, m."""
RESTING_DISTANCE: Final = 0.03
"""The arm comes to rest while its hand is closer to the goal than this, m,"""
RESTING_SPEED: Final = (0.002, 0.1)
"""and the norm of its joint velocities lies between these, rad/s. Below, nothing changes that could be predicted."""


def rest_metrics(policy: Policy, model: ForwardModel, episodes: Episodes, task: ReachTask) -> Metrics:
    """What both networks do at rest; None where the episodes do not come to rest or the policy does not spike.

        rest_action_noise, frozen_rate_hz     see `frozen_metrics`
        rest_rate_hz               spikes of the policy per neuron and second over the last second of the episodes in
                                   which the hand holds its goal then (`tasks.metrics.holds_goal`), Hz
        moving_rate_hz             the same over all control steps in which the hand is on its way, Hz
        model_rest_error_rad_s     error of the joint velocity that the forward model predicts one control step ahead,
                                   root mean square over joints and the control steps in which the arm comes to rest:
                                   near the goal, slow, but not yet still; rad/s
        model_rest_change_rad_s    the same of the real change of the joint velocity: the error of "nothing moves"
        model_rest_error_ratio     the first divided by the second; above 1 the model is worse than "nothing moves"
        model_rest_bias_rad_s      the part of the error that stays the same within an episode: its mean there, and of
                                   that the root mean square over joints and the same control steps, rad/s

    The networks follow what was recorded: observations and actions are those of the episodes.

    Args:
        policy, model: the networks.
        episodes: of this policy, without noise.
        task: of the episodes.
    """
    predicted = one_step_predictions(model, _whole(episodes)).swapaxes(0, 1)
    return {
        **frozen_metrics(policy, task),
        **firing_rates(policy, episodes, task),
        **rest_errors(predicted, episodes, task),
    }


def frozen_metrics(policy: Policy, task: ReachTask, seed: int = 0) -> Metrics:
    """What the policy does while nothing changes that it sees but its own last action.

    The observation is that of an arm at rest with its hand at the goal, held for 300 control steps, in 32 random
    postures; the first 100 steps are for settling.

        rest_action_noise  of each joint's action the standard deviation over time; of these the root mean square over
                           joints; of these the median over postures
        frozen_rate_hz     spikes per neuron and second, Hz; None of a policy that does not spike

    Args:
        policy: any.
        task: says which postures are possible.
        seed: of the postures.
    """
    position = sample_joint_position(task, np.random.default_rng(seed), _POSTURES)
    hand = task.arm.chain.position(position)
    seen = ObservationCodec(task).encode(position, np.zeros_like(position), hand)
    observation = torch.from_numpy(seen.astype(np.float32))
    goal = torch.from_numpy(hand[:, : task.goal_dimensions].astype(np.float32))
    actions, fired = [], []
    with torch.inference_mode():
        effective, state = policy.for_inference(), policy.initial_state(_POSTURES)
        action = torch.zeros(_POSTURES, task.controlled_joints)
        for _ in range(_FROZEN_STEPS):
            action, _, state, layers = policy.step(observation, action, goal, state, effective)
            actions.append(action.numpy())
            fired.append(sum(float(layer.sum()) for layer in layers))
    variance = np.var(np.array(actions[_SETTLING_STEPS:], dtype=np.float64), axis=0)
    neuron_seconds = _POSTURES * sum(policy.network.config.hidden) * task.control_period
    return {
        "rest_action_noise": float(np.median(np.sqrt(variance.mean(axis=-1)))),
        "frozen_rate_hz": float(np.mean(fired[_SETTLING_STEPS:]) / neuron_seconds) if layers else None,
    }


def firing_rates(policy: Policy, episodes: Episodes, task: ReachTask) -> Metrics:
    """Spikes of the policy per neuron and second at rest and on the way, Hz; see `rest_metrics`."""
    windows = _whole(episodes)
    observation, previous = torch.from_numpy(windows.observation), torch.from_numpy(windows.previous_action)
    goal = torch.from_numpy(windows.goal)
    batch, length, _ = episodes.action.shape
    fired = np.zeros((batch, length))
    spiking = False
    with torch.inference_mode():
        effective, state = policy.for_inference(), policy.initial_state(batch)
        for step in range(length):
            _, _, state, layers = policy.step(observation[step], previous[step], goal, state, effective)
            spiking = bool(layers)
            for layer in layers:
                fired[:, step] += layer.sum((0, 2)).numpy()
    rate = fired / (sum(policy.network.config.hidden) * task.control_period)
    steps = np.arange(length)
    resting = holds_goal(episodes, task)[:, None] & (steps >= len(steps) - hold_steps(episodes, task))
    moving = (episodes.distance[:, :-1] > MOVING_DISTANCE) & (steps < episodes.valid_steps[:, None])
    return {
        name: float(rate[where].mean()) if spiking and where.any() else None
        for name, where in (("rest_rate_hz", resting), ("moving_rate_hz", moving))
    }


def rest_errors(predicted: NDArray[np.floating], episodes: Episodes, task: ReachTask) -> Metrics:
    """Errors of one-step predictions while the arm comes to rest; see `rest_metrics`.

    Args:
        predicted: the observation expected after each control step, [B, T, observation].
        episodes: the recorded ones.
        task: of the episodes.
    """
    codec = ObservationCodec(task)
    velocity = codec.joint_velocity(episodes.observation)
    speed = np.linalg.norm(velocity[:, :-1], axis=-1)
    slowest, fastest = RESTING_SPEED
    resting = (episodes.distance[:, :-1] < RESTING_DISTANCE) & (speed > slowest) & (speed < fastest)
    resting &= np.arange(speed.shape[1]) < episodes.valid_steps[:, None]
    names = ("model_rest_error_rad_s", "model_rest_change_rad_s", "model_rest_error_ratio", "model_rest_bias_rad_s")
    if not resting.any():
        return dict.fromkeys(names)
    error = codec.joint_velocity(predicted) - velocity[:, 1:]
    change = velocity[:, 1:] - velocity[:, :-1]
    counted = np.where(resting[..., None], error, 0.0).sum(axis=1, keepdims=True)
    bias = np.broadcast_to(counted / np.maximum(resting.sum(axis=1), 1)[:, None, None], error.shape)
    rms_error, rms_change, rms_bias = (
        float(np.sqrt(np.mean(np.square(part[resting])))) for part in (error, change, bias)
    )
    ratio = rms_error / rms_change if rms_change else None
    return dict(zip(names, (rms_error, rms_change, ratio, rms_bias), strict=True))


def _whole(episodes: Episodes) -> Windows:
    """The episodes from their first to their last control step."""
    parts = (episodes.observation, episodes.action)
    observation, action = (np.ascontiguousarray(part.swapaxes(0, 1)) for part in parts)
    previous = np.concatenate((np.zeros_like(action[:1]), action[:-1]))
    return Windows(observation, action, previous, episodes.goal)
