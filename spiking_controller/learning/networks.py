"""The two networks of the method: a forward model that predicts the arm and a policy that moves it.

Both are spiking networks, or baselines in their place, with a task's observation around them: which features go in,
what the readout means.
Observations are those of `tasks.observation.ObservationCodec`, as float32 tensors [batch, observation].
"""

from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.learning.baselines import GRUNetwork, MLPNetwork
from spiking_controller.learning.kinematics import hand_position
from spiking_controller.snn.network import NetworkConfig, SpikingNetwork
from spiking_controller.snn.neurons import Backend
from spiking_controller.tasks.reach import ReachTask

Predicts = Literal["velocities", "everything"]

_TARGET_GAINS = (2.0, 10.0, 40.0)


State: TypeAlias = Any
"""What a network carries from one control step to the next; which kind is the network's own business."""


class ControlNetwork(Protocol):
    """What forward model and policy need of the network inside them; see `snn.network.SpikingNetwork`."""

    config: NetworkConfig
    inputs: int
    outputs: int
    backend: Backend

    def effective(self) -> Any:
        """What the parameters amount to, for a whole unroll."""

    def limit_time_constants(self) -> None:
        """Bring the time constants back into their bounds."""

    def initial_state(self, batch: int) -> State:
        """The state at the start of an episode."""

    def step(self, features: Tensor, state: State, effective: Any) -> tuple[Tensor, State, tuple[Tensor, ...]]:
        """One control step: readout, state after it, spikes of each layer."""

    def unroll(self, features: Tensor, state: State, effective: Any) -> tuple[Tensor, tuple[Tensor, ...], State]:
        """Many control steps: readouts, mean spikes of each layer, state after them."""


def _build_network(config: NetworkConfig, inputs: int, outputs: int, seed: int, backend: Backend) -> ControlNetwork:
    if config.architecture == "gru":
        return GRUNetwork(config, inputs, outputs, seed)
    if config.architecture == "mlp":
        return MLPNetwork(config, inputs, outputs, seed)
    return SpikingNetwork(config, inputs, outputs, seed, backend)


class _ArmFeatures(nn.Module):
    """What both networks see of the arm: observation, sine and cosine of the joint angles, previous action."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, task: ReachTask) -> None:
        super().__init__()
        self.controlled = task.arm.controlled_joints
        self.goal_dimensions = task.arm.goal_dimensions
        self.size = 4 * self.controlled + self.goal_dimensions + self.controlled
        self.register_buffer("centre", torch.tensor(np.asarray(task.position_centre), dtype=torch.float32), False)
        self.register_buffer(
            "half_range", torch.tensor(np.asarray(task.position_half_range), dtype=torch.float32), False
        )

    def joint_position(self, observation: Tensor) -> Tensor:
        """Angles of the controlled joints, rad."""
        return self.centre + self.half_range * observation[..., : self.controlled]

    def hand(self, observation: Tensor) -> Tensor:
        """Hand position, m."""
        return observation[..., 2 * self.controlled :]

    def forward(self, observation: Tensor, previous_action: Tensor) -> list[Tensor]:
        angle = self.joint_position(observation)
        return [observation, torch.sin(angle), torch.cos(angle), previous_action]


class ForwardModel(nn.Module):
    """Predicts the next observation from the present one and the action: x̂' = x + Δx̂ (Huebotter et al. 2025).

    `velocities` (default): the network predicts the change of the joint velocities only; the angles follow by
    q' = q + dt·(q̇ + Δq̇/2), the hand by exact kinematics. `everything` (the paper): the network predicts every change.
    """

    change_scale: Tensor

    def __init__(
        self,
        task: ReachTask,
        config: NetworkConfig,
        predicts: Predicts,
        seed: int,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        if predicts not in ("velocities", "everything"):
            raise ConfigError(f"predicts '{predicts}' is unknown; choose velocities or everything.")
        self.arm = task.arm
        self.predicts: Predicts = predicts
        self.features = _ArmFeatures(task)
        controlled = self.arm.controlled_joints
        outputs = controlled if predicts == "velocities" else 2 * controlled + self.arm.goal_dimensions
        self.network = _build_network(config, self.features.size + controlled, outputs, seed, backend)
        self.register_buffer("change_scale", torch.ones(outputs))
        velocity = torch.tensor(np.asarray(task.velocity_scale), dtype=torch.float32)
        self.register_buffer("angle_gain", task.control_period * velocity / self.features.half_range, False)
        self._held = np.asarray(self.arm.home)[controlled:]

    def effective(self) -> Any:
        """What the parameters amount to; compute once per unroll."""
        return self.network.effective()

    def initial_state(self, batch: int) -> State:
        """The state at the start of an episode."""
        return self.network.initial_state(batch)

    def inputs(self, observation: Tensor, action: Tensor, previous_action: Tensor) -> Tensor:
        """The network's features, [..., features]."""
        return torch.cat((*self.features(observation, previous_action), action), -1)

    def target(self, observation: Tensor, following: Tensor) -> Tensor:
        """What the readout should have been between two recorded observations, [..., outputs], normalised."""
        change = following - observation
        if self.predicts == "velocities":
            controlled = self.arm.controlled_joints
            change = change[..., controlled : 2 * controlled]
        return change / self.change_scale

    def fit_scale(self, observation: Tensor, following: Tensor) -> None:
        """Set the normalisation to the standard deviation of the changes in recorded data, [samples, observation]."""
        self.change_scale.fill_(1.0)
        self.change_scale.copy_(self.target(observation, following).std(0).clamp(min=1e-6))

    def advance(self, observation: Tensor, readout: Tensor) -> Tensor:
        """The predicted next observation, [batch, observation]."""
        change = readout * self.change_scale
        if self.predicts == "everything":
            return observation + change
        controlled = self.arm.controlled_joints
        angle, velocity = observation[:, :controlled], observation[:, controlled : 2 * controlled]
        angle_gain: Tensor = self.angle_gain  # type: ignore[assignment]
        next_angle = angle + angle_gain * (velocity + 0.5 * change)
        position = self.features.centre + self.features.half_range * next_angle
        hand = hand_position(position, self.arm.chain, self._held)[:, : self.arm.goal_dimensions]
        return torch.cat((next_angle, velocity + change, hand), -1)

    def step(
        self,
        observation: Tensor,
        action: Tensor,
        previous_action: Tensor,
        state: State,
        effective: Any,
    ) -> tuple[Tensor, State, tuple[Tensor, ...]]:
        """One imagined control step.

        Returns:
            The predicted next observation [batch, observation], the state after the step, and the layers' spikes.
        """
        features = self.inputs(observation, action, previous_action)
        readout, state, spikes = self.network.step(features, state, effective)
        return self.advance(observation, readout), state, spikes


class Policy(nn.Module):
    """Maps observation and goal to an action in [-1, 1]: u = tanh(readout).

    Besides the arm's features it sees the goal and tanh(k·(goal - hand)) for k = 2, 10, 40 per metre: the high gains
    resolve the last millimetres.
    """

    gains: Tensor

    def __init__(self, task: ReachTask, config: NetworkConfig, seed: int, backend: Backend = "fused") -> None:
        super().__init__()
        self.features = _ArmFeatures(task)
        self.register_buffer("gains", torch.tensor(_TARGET_GAINS).repeat_interleave(task.arm.goal_dimensions), False)
        inputs = self.features.size + task.arm.goal_dimensions * (1 + len(_TARGET_GAINS))
        self.network = _build_network(config, inputs, task.arm.controlled_joints, seed, backend)

    def effective(self) -> Any:
        """What the parameters amount to; compute once per unroll."""
        return self.network.effective()

    def initial_state(self, batch: int) -> State:
        """The state at the start of an episode."""
        return self.network.initial_state(batch)

    def inputs(self, observation: Tensor, previous_action: Tensor, goal: Tensor) -> Tensor:
        """The network's features, [..., features]."""
        error = goal - self.features.hand(observation)
        precise = torch.tanh(torch.cat([error] * len(_TARGET_GAINS), -1) * self.gains)
        return torch.cat((*self.features(observation, previous_action), goal, precise), -1)

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
