"""The policy: maps observation and goal to an action.

Observations are those of `tasks.observation.ObservationCodec`, as float32 tensors [batch, observation].
"""

from typing import Any

import torch
from torch import Tensor, nn

from spiking_controller.networks.features import (
    ALL_FEATURES,
    AnyNetworkConfig,
    ArmFeatures,
    Features,
    State,
    build_network,
)
from spiking_controller.snn.neurons import Backend
from spiking_controller.tasks.reach import ReachTask


class Policy(nn.Module):
    """Maps observation and goal to an action in [-1, 1]: u = tanh(readout).

    Besides the arm's features it sees the goal and tanh(k·(goal - hand)) for every k of `Features.target_gains`. With
    `Features.normalisation` the way to the goal is normalised together with velocities and previous action, and
    u = tanh(s·readout), with their size s.
    """

    gains: Tensor

    def __init__(
        self,
        task: ReachTask,
        config: AnyNetworkConfig,
        seed: int,
        backend: Backend = "fused",
        features: Features = ALL_FEATURES,
    ) -> None:
        super().__init__()
        self.features = ArmFeatures(task, features)
        gains, dimensions = features.target_gains, task.arm.goal_dimensions
        self.register_buffer("gains", torch.tensor(gains).repeat_interleave(dimensions), False)
        self.normalisation = features.normalisation
        inputs = self.features.size + dimensions * (1 + len(gains))
        if self.normalisation:
            inputs += dimensions + 1
        self.network = build_network(config, inputs, task.arm.controlled_joints, seed, backend)

    def effective(self) -> Any:
        """What is computed from the parameters once per unroll; differentiable."""
        return self.network.effective()

    def for_inference(self) -> Any:
        """The same for steps without gradients."""
        return self.network.for_inference()

    def initial_state(self, batch: int) -> State:
        """The state at the start of an episode."""
        return self.network.initial_state(batch)

    def inputs(self, observation: Tensor, previous_action: Tensor, goal: Tensor) -> Tensor:
        """The network's features, [..., features]."""
        error = goal - self.features.hand(observation)
        gains = self.features.options.target_gains
        precise = torch.tanh(torch.cat([error] * len(gains), -1) * self.gains) if gains else error[..., :0]
        if not self.normalisation:
            return torch.cat((*self.features(observation, previous_action), goal, precise), -1)
        moving = [
            *self.features.moving(observation, previous_action),
            torch.tanh(self.normalisation.error_gain * error),
        ]
        return torch.cat((*self.features.still(observation), goal, precise, self.normalisation.normalise(moving)), -1)

    def rest_inputs(self, observation: Tensor) -> Tensor:
        """The features of an arm at rest at its goal, in the postures of observations [..., observation]."""
        controlled = self.features.controlled
        still = observation.clone()
        still[..., controlled : 2 * controlled] = 0.0
        return self.inputs(still, torch.zeros_like(observation[..., :controlled]), self.features.hand(observation))

    def drive(self, inputs: Tensor, readout: Tensor) -> Tensor:
        """What the action is the tanh of, [..., controlled]."""
        return readout * self.normalisation.size(inputs) if self.normalisation else readout

    def pull_back_inputs(
        self, observation: Tensor, inputs: Tensor, grad: Tensor, grad_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of observation and previous action.

        Args:
            observation: [batch, observation].
            inputs: of the network there, [batch, features].
            grad: of `inputs`, [batch, features].
            grad_size: of s, [batch, 1]; without normalisation it means nothing.
        """
        dimensions = self.features.goal_dimensions
        size = self.features.still_size if self.normalisation else self.features.size
        place = slice(size + dimensions, size + dimensions + len(self.gains))
        precise = inputs[:, place]
        on_error = (grad[:, place] * (1.0 - precise * precise) * self.gains).view(len(grad), -1, dimensions).sum(1)
        if not self.normalisation:
            grad_observation, grad_previous = self.features.pull_back(observation, grad[:, :size])
        else:
            normalised = inputs[:, place.stop :]
            on_moving = self.normalisation.pull_back(normalised, grad[:, place.stop :], grad_size)
            grad_observation = self.features.pull_back_still(observation, grad[:, :size])
            grad_previous = self.features.pull_back_moving(grad_observation, on_moving[:, :-dimensions])
            way = normalised[:, -dimensions - 1 : -1] * self.normalisation.size(normalised)
            on_error = on_error + on_moving[:, -dimensions:] * (1.0 - way * way) * self.normalisation.error_gain
        grad_observation[:, 2 * self.features.controlled :] -= on_error
        return grad_observation, grad_previous

    def step(
        self,
        observation: Tensor,
        previous_action: Tensor,
        goal: Tensor,
        state: State,
        effective: Any,
    ) -> tuple[Tensor, Tensor, State, tuple[Tensor, ...]]:
        """One control step.

        Returns:
            The action [batch, controlled] in [-1, 1], what it is the tanh of, the state after the step, and the layers'
            spikes.
        """
        inputs = self.inputs(observation, previous_action, goal)
        readout, state, spikes = self.network.step(inputs, state, effective)
        drive = self.drive(inputs, readout)
        return torch.tanh(drive), drive, state, spikes
