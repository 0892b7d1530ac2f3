"""The two gradient steps of the method: the forward model on recorded windows, the policy on imagined roll-outs."""

import copy
import itertools
import math
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from spiking_controller.networks.config import (
    ModelUpdates,
    PolicyUpdates,
    TrainingConfig,
)
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.regularisers import Activity
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.postures import NearestPosture
from spiking_controller.tasks.segments import Windows
from spiking_controller.training.losses import (
    Exercise,
    PolicyPenalties,
    forward_model_loss,
    imagined_goals,
    policy_loss,
)

NetworkName = Literal["policy", "forward_model"]
NETWORKS: tuple[NetworkName, ...] = ("policy", "forward_model")


class WindowSource(Protocol):
    """Where updates draw recorded steps from; see `replay_memory.ReplayMemory`."""

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        """`batch` windows of `length` steps."""


class NotFiniteError(RuntimeError):
    """A loss or its gradient holds NaN or infinity; the network was left as it is."""


class ModelUpdate(NamedTuple):
    """What one gradient step of the forward model saw: as `ModelLossTerms`, and the gradient's norm before clipping."""

    error: float
    persistence_error: float
    gradient_norm: float
    activity: Activity


class PolicyUpdate(NamedTuple):
    """What one gradient step of the policy saw: as `PolicyLossTerms`, and the gradient's norm before clipping."""

    loss: float
    terms: dict[str, float]
    distance: float
    action_change: float
    gradient_norm: float
    activity: Activity


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

    def set_rate(self, name: NetworkName, fraction: float) -> None:
        """Learn at a share of a network's configured learning rates."""
        for group in self.learners[name][1].param_groups:
            group["full_rate"] = fraction * group["configured_rate"]

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

    def _rate_fraction(self, progress: float) -> float:
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
        fraction = self._rate_fraction(progress)
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * fraction
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
        terms = forward_model_loss(self.model, windows, options.warm_up, options.error, options.activity)
        norm = self._descend(self.model_optimizer, terms.total, progress)
        self.model.network.limit_time_constants()
        return ModelUpdate(terms.error, terms.persistence_error, norm, terms.activity)

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
        exercise = Exercise(windows, goal, posture, options.unroll)
        penalties = PolicyPenalties(options.loss, options.loss.smoothness(progress), options.activity)
        model = model or self.model
        model.requires_grad_(False)
        try:
            terms = policy_loss(self.policy, model, exercise, penalties)
            norm = self._descend(self.policy_optimizer, terms.total, progress)
            self.policy.network.limit_time_constants()
        finally:
            model.requires_grad_(True)
        return PolicyUpdate(
            float(terms.total.detach()), terms.terms, terms.distance, terms.action_change, norm, terms.activity
        )
