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

    Besides the arm's features it sees the goal and tanh(k·(goal - hand)) for every k of `Features.target_gains`.
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
        inputs = self.features.size + dimensions * (1 + len(gains))
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
        return torch.cat((*self.features(observation, previous_action), goal, precise), -1)

    def pull_back_inputs(self, observation: Tensor, inputs: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of observation and previous action from those of `inputs`, [batch, features]."""
        size, dimensions = self.features.size, self.features.goal_dimensions
        grad_observation, grad_previous = self.features.pull_back(observation, grad[:, :size])
        precise = inputs[:, size + dimensions :]
        on_error = grad[:, size + dimensions :] * (1.0 - precise * precise) * self.gains
        on_hand = on_error.view(len(grad), -1, dimensions).sum(1)
        grad_observation[:, 2 * self.features.controlled :] -= on_hand
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
            The action [batch, controlled] in [-1, 1], the readout before the tanh, the state after the step, and the
            layers' spikes.
        """
        readout, state, spikes = self.network.step(self.inputs(observation, previous_action, goal), state, effective)
        return torch.tanh(readout), readout, state, spikes
