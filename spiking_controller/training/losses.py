"""The losses of forward model and policy."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiking_controller.networks.config import (
    GoalMix,
    PolicyLoss,
)
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.imagination import Beginning, imagine, warmed_up
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.regularisers import Activity, ActivityRegulariser, mean_activity
from spiking_controller.tasks.segments import Windows


class ModelLossTerms(NamedTuple):
    """Parts of one loss of the forward model.

    Attributes:
        total: what is minimised, a scalar with its gradient graph.
        error: mean squared error of the normalised change.
        nothing_moves: the same error of the prediction that nothing changes.
        activity: of the model's layers over the steps that count.
    """

    total: Tensor
    error: float
    nothing_moves: float
    activity: Activity


class PolicyLossTerms(NamedTuple):
    """Parts of one loss of the policy.

    Attributes:
        total: what is minimised, a scalar with its gradient graph.
        distance: mean hand-to-goal distance, m.
        action_change: mean |Δaction| per joint.
        activity: of the policy's layers over the imagined steps.
    """

    total: Tensor
    distance: float
    action_change: float
    activity: Activity


def _torch(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def forward_model_loss(
    model: ForwardModel, windows: Windows, warm_up: int, regulariser: ActivityRegulariser
) -> ModelLossTerms:
    """Mean squared error of the normalised change over the steps after warm-up, with teacher forcing.

    Args:
        model: the forward model.
        windows: recorded steps.
        warm_up: first steps that set the neurons' state and do not count.
        regulariser: bounds on the model's activity.
    """
    observation, action = _torch(windows.observation), _torch(windows.action)
    features = model.inputs(observation[:-1], action, _torch(windows.previous_action))
    readout, spikes, _ = model.network.unroll(features, model.initial_state(action.shape[1]), model.effective())
    target = model.target(observation[:-1], observation[1:])[warm_up:]
    error = (readout[warm_up:] - target).square().mean()
    activity = mean_activity([layer[warm_up:] for layer in spikes])
    total = regulariser.add_penalty(error, activity, model.network.config.tick)
    return ModelLossTerms(
        total, float(error.detach()), float(target.square().mean()), tuple(layer.detach() for layer in activity)
    )


def imagined_goals(
    mix: GoalMix, windows: Windows, hand: np.ndarray, reachable: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Goals of imagined roll-outs, [batch, goal], m: recorded ones, fresh reachable ones, and ones near the hand.

    Args:
        mix: shares.
        windows: the recorded steps that the roll-outs start from.
        hand: present hand positions, [batch, goal].
        reachable: pool of reachable goals, [pool, goal].
        rng: random numbers.
    """
    batch, dimensions = windows.goal.shape
    kind = rng.random((batch, 1))
    spread = mix.near_deviation * 2.0 * rng.random((batch, 1))
    near = hand + spread * rng.standard_normal((batch, dimensions))
    fresh = reachable[rng.integers(0, len(reachable), batch)]
    return np.where(kind < mix.recorded, windows.goal, np.where(kind < mix.recorded + mix.reachable, fresh, near))


def policy_loss(
    policy: Policy,
    model: ForwardModel,
    windows: Windows,
    goal: np.ndarray,
    posture: np.ndarray | None,
    unroll: int,
    weights: PolicyLoss,
    smoothness: float,
    regulariser: ActivityRegulariser,
) -> PolicyLossTerms:
    """Loss of an imagined roll-out through the forward model (Huebotter et al. 2025), with its gradient graph.

    Both networks' states are set on the recorded window without gradient; then the policy acts on what the model
    predicts. Per step, with e the hand-to-goal distance:

        e² + sqrt(e² + 1e-5) + action·|a|² + smoothness·|Δa|²
        + precision·log(1 + (e/scale)²)
        + guidance·(sqrt(1 + |q - q*|²) - 1)·(1 - near) + rest·|q̇|·near + self_motion·|q̇₀|·near
        + penalties on joint angles near or beyond the soft bounds, on joint speed, and on saturated readouts

    where near = exp(-(e/zone)²) has a zone of its own in each, and q̇₀ is the part of the joint velocity that does not
    move the hand.

    Args:
        policy, model: the networks.
        windows: recorded steps to start from, their last observation being where imagination begins.
        goal: [batch, goal], m.
        posture: q*, the nearest posture that reaches the goal, rad, [batch, controlled]; None without guidance.
        unroll: imagined steps.
        weights: of the terms.
        smoothness: weight of |Δa|² at this point of the run.
        regulariser: bounds on the policy's activity.
    """
    observed, action = _torch(windows.observation), _torch(windows.action)
    target = _torch(goal)
    controlled = action.shape[-1]
    with torch.no_grad():
        states = warmed_up(policy, model, observed, action, _torch(windows.previous_action), target)
    imagined = imagine(policy, model, Beginning(observed[-1], action[-1], target, *states), unroll)
    observation = imagined.observation
    squared = (model.features.hand(observation) - target).square().sum(-1)
    distance = torch.sqrt(squared + 1e-5)
    angle = observation[..., :controlled].abs()
    velocity = observation[..., controlled : 2 * controlled]
    change = imagined.action - torch.cat((action[-1:], imagined.action[:-1]))
    loss = (
        squared
        + distance
        + weights.action * imagined.action.square().sum(-1)
        + smoothness * change.square().sum(-1)
        + weights.limit_soft * torch.relu(angle - 1.0).square().sum(-1)
        + weights.limit_near * torch.relu(angle - 0.95).square().sum(-1)
        + weights.velocity * torch.relu(velocity.abs() - 0.9).square().sum(-1)
        + weights.saturation * torch.relu(imagined.readout.abs() - 3.0).square().sum(-1)
    )
    if weights.precision > 0:
        loss = loss + weights.precision * torch.log1p(squared / weights.precision_scale**2)
    if weights.rest > 0:
        near = torch.exp(-squared.detach() / weights.rest_zone**2)
        loss = loss + weights.rest * near * torch.sqrt(velocity.square().sum(-1) + 1e-4)
    if weights.self_motion > 0:
        near = torch.exp(-squared.detach() / weights.self_motion_zone**2)
        loss = loss + weights.self_motion * near * torch.sqrt(self_motion(model, observation).square().sum(-1) + 1e-4)
    if posture is not None:
        far = 1.0 - torch.exp(-squared.detach() / weights.guidance_zone**2)
        away = model.features.joint_position(observation) - _torch(posture)
        loss = loss + weights.guidance * far * (torch.sqrt(1.0 + away.square().sum(-1)) - 1.0)
    activity = mean_activity(imagined.policy_activity)
    return PolicyLossTerms(
        regulariser.add_penalty(loss.mean(), activity, policy.network.config.tick),
        float(distance.detach().mean()),
        float(change.detach().abs().mean()),
        tuple(layer.detach() for layer in activity),
    )


def self_motion(model: ForwardModel, observation: Tensor) -> Tensor:
    """The part of the joint velocity that does not move the hand, (I - J⁺J)·q̇, rad/s, [..., controlled].

    The Jacobian counts as a constant.
    """
    jacobian = model.hand_jacobian(observation.detach())
    velocity = model.features.joint_velocity(observation).unsqueeze(-1)
    moved = torch.linalg.solve(jacobian @ jacobian.mT + 1e-6 * torch.eye(jacobian.shape[-2]), jacobian @ velocity)
    return (velocity - jacobian.mT @ moved).squeeze(-1)
