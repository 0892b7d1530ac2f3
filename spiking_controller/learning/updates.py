"""The two gradient steps of the method: the forward model on recorded windows, the policy on imagined roll-outs."""

import copy
import itertools
import math
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from spiking_controller.networks.config import (
    GoalMix,
    ModelUpdates,
    PolicyLoss,
    PolicyUpdates,
    TrainingConfig,
)
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.imagination import Beginning, imagine, warmed_up
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.regularisers import Activity, ActivityRegulariser, mean_activity
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.postures import NearestPosture
from spiking_controller.tasks.segments import Windows

NetworkName = Literal["policy", "forward_model"]
NETWORKS: tuple[NetworkName, ...] = ("policy", "forward_model")


class WindowSource(Protocol):
    """Where updates draw recorded steps from; see `replay.ReplayMemory`."""

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        """`batch` windows of `length` steps."""


class NotFiniteError(RuntimeError):
    """A loss or its gradient holds NaN or infinity; the network was left as it is."""


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


class ModelUpdate(NamedTuple):
    """What one gradient step of the forward model saw: as `ModelLossTerms`, and the gradient's norm before clipping."""

    error: float
    nothing_moves: float
    gradient_norm: float
    activity: Activity


class PolicyUpdate(NamedTuple):
    """What one gradient step of the policy saw: as `PolicyLossTerms`, and the gradient's norm before clipping."""

    loss: float
    distance: float
    action_change: float
    gradient_norm: float
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


class Updater:
    """Holds the optimisers and carries out single updates; the schedule is handed in as `progress` in [0, 1]."""

    def __init__(self, config: TrainingConfig, policy: Policy, model: ForwardModel, reachable: np.ndarray) -> None:
        """Prepare AdamW for both networks; without weight decay it is Adam.

        Args:
            config: of the run.
            policy, model: the networks, updated in place.
            reachable: pool of reachable goals, [pool, goal], m.
        """
        self._config = config
        self.policy = policy
        self.model = model
        self._reachable = reachable
        self._codec = ObservationCodec(config.reach_task)
        self._postures: NearestPosture | None = None
        if config.policy_updates.loss.guidance > 0:
            self._postures = NearestPosture(config.reach_task, np.random.default_rng([config.seed, *b"postures"]))
        self.policy_optimizer = self._adamw(policy, config.policy_updates)
        self.model_optimizer = self._adamw(model, config.model_updates)

    @property
    def learners(self) -> dict[NetworkName, tuple[Policy | ForwardModel, torch.optim.AdamW]]:
        """Both networks with their optimisers."""
        return {"policy": (self.policy, self.policy_optimizer), "forward_model": (self.model, self.model_optimizer)}

    def snapshot(self) -> dict[NetworkName, Any]:
        """A copy of both networks and optimisers, for `restore`."""
        states = {name: (network.state_dict(), adam.state_dict()) for name, (network, adam) in self.learners.items()}
        return copy.deepcopy(states)

    def restore(self, snapshot: dict[NetworkName, Any]) -> None:
        """Go back to a snapshot, apart from the learning rates."""
        for name, (network, optimizer) in self.learners.items():
            weights, state = copy.deepcopy(snapshot[name])
            network.load_state_dict(weights)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["state"]})

    def set_rate(self, name: NetworkName, share: float) -> None:
        """Learn at a share of a network's configured learning rates."""
        for group in self.learners[name][1].param_groups:
            group["full_rate"] = share * group["configured_rate"]

    def slow_down(self, name: NetworkName, factor: float) -> None:
        """Multiply a network's learning rates by a factor, for good."""
        for group in self.learners[name][1].param_groups:
            group["full_rate"] *= factor

    def _adamw(self, network: nn.Module, options: ModelUpdates | PolicyUpdates) -> torch.optim.AdamW:
        def settings(named: tuple[str, nn.Parameter]) -> tuple[float, float]:
            """Learning rate and weight decay of a parameter; biases and gains are no matrices."""
            name, parameter = named
            if "log_tau" in name:
                return self._config.time_constant_learning_rate, 0.0
            return options.learning_rate, options.weight_decay if parameter.dim() > 1 else 0.0

        # Time constants last; runs of parameters with the same settings share a group.
        named = sorted(network.named_parameters(), key=lambda item: "log_tau" in item[0])
        groups = [
            {
                "params": [parameter for _, parameter in run],
                "configured_rate": rate,
                "full_rate": rate,
                "weight_decay": decay,
            }
            for (rate, decay), run in itertools.groupby(named, settings)
        ]
        return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)

    def _rate_share(self, progress: float) -> float:
        constant, final = self._config.constant_share, self._config.final_rate
        if progress <= constant:
            return 1.0
        cosine = 0.5 * (1.0 + np.cos(np.pi * min(1.0, (progress - constant) / max(1e-9, 1.0 - constant))))
        return float(final + (1.0 - final) * cosine)

    def _descend(self, optimizer: torch.optim.AdamW, loss: Tensor, progress: float) -> float:
        """One clipped step; returns the gradient's norm before clipping.

        Raises:
            NotFiniteError: the loss or its gradient is not finite; nothing was changed.
        """
        share = self._rate_share(progress)
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * share
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm, value = float(nn.utils.clip_grad_norm_(parameters, self._config.gradient_norm)), float(loss.detach())
        if not (math.isfinite(norm) and math.isfinite(value)):
            raise NotFiniteError(f"non-finite update, loss {value:.4g}, gradient norm {norm:.4g}")
        optimizer.step()
        return norm

    def update_model(self, memory: WindowSource, rng: np.random.Generator, progress: float) -> ModelUpdate:
        """One gradient step of the forward model.

        Raises:
            NotFiniteError: the loss or its gradient is not finite; nothing was changed.
        """
        options: ModelUpdates = self._config.model_updates
        windows = memory.windows(rng, options.batch, options.warm_up + options.unroll)
        terms = forward_model_loss(self.model, windows, options.warm_up, options.activity)
        norm = self._descend(self.model_optimizer, terms.total, progress)
        self.model.network.limit_time_constants()
        return ModelUpdate(terms.error, terms.nothing_moves, norm, terms.activity)

    def update_policy(
        self, memory: WindowSource, rng: np.random.Generator, progress: float, model: ForwardModel | None = None
    ) -> PolicyUpdate:
        """One gradient step of the policy through a forward model, by default the one that is trained.

        Raises:
            NotFiniteError: the loss or its gradient is not finite; nothing was changed.
        """
        options: PolicyUpdates = self._config.policy_updates
        windows = memory.windows(rng, options.batch, options.warm_up)
        hand = windows.observation[-1][:, -windows.goal.shape[1] :]
        goal = imagined_goals(options.goals, windows, hand, self._reachable, rng)
        posture = None
        if self._postures is not None:
            posture = self._postures.find(self._codec.joint_position(windows.observation[-1]), goal)
        weights = options.loss
        smoothness = weights.smoothness(progress)
        model = model or self.model
        model.requires_grad_(False)
        try:
            terms = policy_loss(
                self.policy, model, windows, goal, posture, options.unroll, weights, smoothness, options.activity
            )
            norm = self._descend(self.policy_optimizer, terms.total, progress)
            self.policy.network.limit_time_constants()
        finally:
            model.requires_grad_(True)
        return PolicyUpdate(float(terms.total.detach()), terms.distance, terms.action_change, norm, terms.activity)
