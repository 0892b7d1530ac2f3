"""The losses of forward model and policy."""

import functools
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiking_controller.networks.config import ErrorMeasure, GoalMix, PolicyLoss
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.imagination import Beginning, imagine, warmed_up
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.regularisers import Activity, ActivityRegulariser, mean_activity
from spiking_controller.tasks.segments import Windows

LEAST_ERROR: Final = 0.01
"""Below this an absolute error counts as its square, in units of the normalised change."""


class ModelLossTerms(NamedTuple):
    """Parts of one loss of the forward model.

    Attributes:
        total: what is minimised, a scalar with its gradient graph.
        error: mean squared error of the normalised change.
        persistence_error: the same error of persistence, the prediction that nothing changes.
        activity: of the model's layers over the steps that count.
    """

    total: Tensor
    error: float
    persistence_error: float
    activity: Activity


POLICY_LOSS_TERMS: Final = (
    "squared_distance",
    "distance",
    "action",
    "smoothness",
    "limit_soft",
    "limit_near",
    "velocity",
    "saturation",
    "precision",
    "rest",
    "self_motion",
    "guidance",
    "activity",
)
"""Names of the terms of the policy's loss, in the order in which they are added up."""


class PolicyLossTerms(NamedTuple):
    """Parts of one loss of the policy.

    Attributes:
        total: what is minimised, a scalar with its gradient graph.
        terms: weighted mean of each term that is switched on, by its name in `POLICY_LOSS_TERMS`; they sum to `total`.
        distance: mean hand-to-goal distance, m.
        action_change: mean |Δaction| per joint.
        activity: of the policy's layers over the imagined steps.
    """

    total: Tensor
    terms: dict[str, float]
    distance: float
    action_change: float
    activity: Activity


class RollOut(NamedTuple):
    """What the terms of the policy's loss are computed from; every tensor is [steps, batch, ...].

    Attributes:
        observation: predicted, [..., observation].
        action, change: the action and its change from the step before, [..., controlled].
        drive: what the action is the tanh of, [..., controlled].
        squared_distance: of hand and goal, m², [steps, batch].
        distance: of hand and goal, smooth at 0, m, [steps, batch].
    """

    observation: Tensor
    action: Tensor
    change: Tensor
    drive: Tensor
    squared_distance: Tensor
    distance: Tensor

    @property
    def angle(self) -> Tensor:
        """|q| scaled to 1 at the soft bounds, [..., controlled]."""
        return self.observation[..., : self.action.shape[-1]].abs()

    @property
    def velocity(self) -> Tensor:
        """q̇ scaled by the limits, [..., controlled]."""
        controlled = self.action.shape[-1]
        return self.observation[..., controlled : 2 * controlled]

    def near(self, zone: float) -> Tensor:
        """exp(-(e/zone)²) without gradient: 1 at the goal, 0 far from it, [steps, batch]."""
        return torch.exp(-self.squared_distance.detach() / zone**2)


def squared_excess(values: Tensor, bound: float) -> Tensor:
    """Σ max(0, x - bound)² over the last dimension: the penalty on limits, speed and saturation."""
    return torch.relu(values - bound).square().sum(-1)


def precision_term(steps: RollOut, scale: float) -> Tensor:
    """log(1 + (e/scale)²), steepest in the last millimetres."""
    return torch.log1p(steps.squared_distance / scale**2)


def rest_term(steps: RollOut, weight: float, zone: float) -> Tensor:
    """weight · near · sqrt(|q̇|² + 1e-4): the arm should be still at the goal."""
    return weight * steps.near(zone) * torch.sqrt(steps.velocity.square().sum(-1) + 1e-4)


def self_motion_term(steps: RollOut, model: ForwardModel, weight: float, zone: float) -> Tensor:
    """weight · near · sqrt(|q̇₀|² + 1e-4), with q̇₀ the joint velocity that does not move the hand."""
    motion = self_motion(model, steps.observation)
    return weight * steps.near(zone) * torch.sqrt(motion.square().sum(-1) + 1e-4)


def guidance_term(steps: RollOut, model: ForwardModel, posture: np.ndarray, weight: float, zone: float) -> Tensor:
    """weight · (1 - near) · (sqrt(1 + |q - q*|²) - 1): leads to a posture that reaches the goal while it is far."""
    far = 1.0 - steps.near(zone)
    away = model.features.joint_position(steps.observation) - _torch(posture)
    return weight * far * (torch.sqrt(1.0 + away.square().sum(-1)) - 1.0)


def weighted_terms(
    steps: RollOut, model: ForwardModel, posture: np.ndarray | None, weights: PolicyLoss, smoothness: float
) -> dict[str, Tensor]:
    """The weighted terms that are switched on, [steps, batch] each, in the order of `POLICY_LOSS_TERMS`."""
    terms = {
        "squared_distance": steps.squared_distance,
        "distance": weights.distance * steps.distance,
        "action": weights.action * steps.action.square().sum(-1),
        "smoothness": smoothness * steps.change.square().sum(-1),
        "limit_soft": weights.limit_soft * squared_excess(steps.angle, 1.0),
        "limit_near": weights.limit_near * squared_excess(steps.angle, 0.95),
        "velocity": weights.velocity * squared_excess(steps.velocity.abs(), 0.9),
        "saturation": weights.saturation * squared_excess(steps.drive.abs(), 3.0),
    }
    if weights.precision > 0:
        terms["precision"] = weights.precision * precision_term(steps, weights.precision_scale)
    if weights.rest > 0:
        terms["rest"] = rest_term(steps, weights.rest, weights.rest_zone)
    if weights.self_motion > 0:
        terms["self_motion"] = self_motion_term(steps, model, weights.self_motion, weights.self_motion_zone)
    if posture is not None:
        terms["guidance"] = guidance_term(steps, model, posture, weights.guidance, weights.guidance_zone)
    return terms


def _torch(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def forward_model_loss(
    model: ForwardModel, windows: Windows, warm_up: int, measure: ErrorMeasure, regulariser: ActivityRegulariser
) -> ModelLossTerms:
    """Mean error of the normalised change over the steps after warm-up, with teacher forcing.

    Args:
        model: the forward model.
        windows: recorded steps.
        warm_up: first steps that set the neurons' state and do not count.
        measure: how large errors count, see `ModelUpdates.error`.
        regulariser: bounds on the model's activity.
    """
    observation, action = _torch(windows.observation), _torch(windows.action)
    features = model.inputs(observation[:-1], action, _torch(windows.previous_action))
    effective = model.effective()
    readout, spikes, _ = model.network.unroll(features, model.initial_state(action.shape[1]), effective)
    target = model.target(observation[:-1], observation[1:])[warm_up:]
    squared = (model.change(features, readout)[warm_up:] - target).square()
    error = squared.mean()
    activity = mean_activity([layer[warm_up:] for layer in spikes])
    loss = error if measure == "squared" else torch.sqrt(squared + LEAST_ERROR**2).mean()
    total = regulariser.add_penalty(loss, activity, model.network.config.tick)
    if regulariser.silence > 0:
        rest = model.network.resting_potential(model.rest_inputs(observation[-1]), effective)
        total = total + regulariser.silence_penalty(rest)
    return ModelLossTerms(
        total,
        float(error.detach()),
        float(target.square().mean()),
        tuple(layer.detach() for layer in activity),
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


class Exercise(NamedTuple):
    """What a policy is to do in imagination.

    Attributes:
        windows: recorded steps to start from, their last observation being where imagination begins.
        goal: [batch, goal], m.
        posture: q*, the nearest posture that reaches the goal, rad, [batch, controlled]; None without guidance.
        unroll: imagined steps.
    """

    windows: Windows
    goal: np.ndarray
    posture: np.ndarray | None
    unroll: int


class PolicyPenalties(NamedTuple):
    """How the policy's loss weighs what it does on the way to a goal.

    Attributes:
        weights: of the terms.
        smoothness: weight of |Δa|² at this point of the run.
        regulariser: bounds on the policy's activity.
    """

    weights: PolicyLoss
    smoothness: float
    regulariser: ActivityRegulariser


def policy_loss(policy: Policy, model: ForwardModel, exercise: Exercise, penalties: PolicyPenalties) -> PolicyLossTerms:
    """Loss of an imagined roll-out through the forward model (Huebotter et al. 2025), with its gradient graph.

    Both networks' states are set on the recorded window without gradient; then the policy acts on what the model
    predicts. The loss is the mean over all steps of the sum of `weighted_terms`, and the penalty on activity.

    Args:
        policy, model: the networks.
        exercise: where the roll-out starts, and where it should lead.
        penalties: on what the policy does.
    """
    windows = exercise.windows
    observed, action = _torch(windows.observation), _torch(windows.action)
    target = _torch(exercise.goal)
    with torch.no_grad():
        states = warmed_up(policy, model, observed, action, _torch(windows.previous_action), target)
    imagined = imagine(policy, model, Beginning(observed[-1], action[-1], target, *states), exercise.unroll)
    observation = imagined.observation
    squared = (model.features.hand(observation) - target).square().sum(-1)
    distance = torch.sqrt(squared + 1e-5)
    change = imagined.action - torch.cat((action[-1:], imagined.action[:-1]))
    steps = RollOut(observation, imagined.action, change, imagined.drive, squared, distance)
    weighted = weighted_terms(steps, model, exercise.posture, penalties.weights, penalties.smoothness)
    loss = functools.reduce(torch.add, weighted.values()).mean()
    activity = mean_activity(imagined.policy_activity)
    total = penalties.regulariser.add_penalty(loss, activity, policy.network.config.tick)
    if penalties.regulariser.silence > 0:
        rest = policy.network.resting_potential(policy.rest_inputs(observed[-1]), policy.effective())
        total = total + penalties.regulariser.silence_penalty(rest)
    terms = {name: float(term.detach().mean()) for name, term in weighted.items()}
    terms["activity"] = float((total - loss).detach())
    return PolicyLossTerms(
        total,
        terms,
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
