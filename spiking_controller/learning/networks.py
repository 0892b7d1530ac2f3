"""The two networks of the method: a forward model that predicts the arm and a policy that moves it.

Both are spiking networks, or baselines in their place, with a task's observation around them: which features go in,
what the readout means.
Observations are those of `tasks.observation.ObservationCodec`, as float32 tensors [batch, observation].
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.learning.baselines import GRUNetwork, MLPNetwork
from spiking_controller.learning.kinematics import hand_jacobian, hand_position
from spiking_controller.snn.network import NetworkConfig, SpikingNetwork
from spiking_controller.snn.neurons import Backend
from spiking_controller.tasks.reach import ReachTask

Predicts = Literal["velocities", "everything"]


@dataclass(frozen=True)
class Features:
    """What the networks see besides joint angles, hand and goal. The observation itself is always recorded whole.

    Attributes:
        velocity: the joint velocities. Without them the forward model must predict "everything" that is left.
        trigonometric: sine and cosine of the joint angles.
        previous_action: the action of the control step before.
        target_gains: k of tanh(k·(goal - hand)), 1/m, seen by the policy; the high gains resolve the last millimetres.
    """

    velocity: bool = True
    trigonometric: bool = True
    previous_action: bool = True
    target_gains: tuple[float, ...] = (2.0, 10.0, 40.0)

    def __post_init__(self) -> None:
        for gain in self.target_gains:
            if not 0.0 < gain < math.inf:
                raise ConfigError(f"target_gains holds {gain}; give finite gains above 0, or none at all.")


ALL_FEATURES: Final = Features()


State: TypeAlias = Any
"""What a network carries from one control step to the next; which kind is the network's own business."""


class ControlNetwork(Protocol):
    """What forward model and policy need of the network inside them; see `snn.network.SpikingNetwork`."""

    config: NetworkConfig
    inputs: int
    outputs: int
    backend: Backend

    @property
    def compiled(self) -> bool:
        """Whether unrolls take the compiled way of `snn.unroll`; only spiking networks can."""

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
    """What both networks see of the arm, see `Features`.

    Attributes:
        observed: number of observation entries that the networks see.
        size: number of features.
    """

    centre: Tensor
    half_range: Tensor
    velocity_scale: Tensor

    def __init__(self, task: ReachTask, options: Features) -> None:
        super().__init__()
        self.options = options
        self.controlled = task.arm.controlled_joints
        self.goal_dimensions = task.arm.goal_dimensions
        self.observed = (2 if options.velocity else 1) * self.controlled + task.arm.goal_dimensions
        self.size = self.observed + self.controlled * (2 * options.trigonometric + options.previous_action)
        velocity_scale = torch.tensor(np.asarray(task.velocity_scale), dtype=torch.float32)
        self.register_buffer("velocity_scale", velocity_scale, False)
        self.register_buffer("centre", torch.tensor(np.asarray(task.position_centre), dtype=torch.float32), False)
        self.register_buffer(
            "half_range", torch.tensor(np.asarray(task.position_half_range), dtype=torch.float32), False
        )

    def joint_position(self, observation: Tensor) -> Tensor:
        """Angles of the controlled joints, rad."""
        return self.centre + self.half_range * observation[..., : self.controlled]

    def joint_velocity(self, observation: Tensor) -> Tensor:
        """Velocities of the controlled joints, rad/s."""
        return self.velocity_scale * observation[..., self.controlled : 2 * self.controlled]

    def hand(self, observation: Tensor) -> Tensor:
        """Hand position, m."""
        return observation[..., 2 * self.controlled :]

    def seen(self, observation: Tensor) -> Tensor:
        """The entries of an observation (or of a difference of two) that the networks see, [..., observed]."""
        if self.options.velocity:
            return observation
        return torch.cat((observation[..., : self.controlled], self.hand(observation)), -1)

    def forward(self, observation: Tensor, previous_action: Tensor) -> list[Tensor]:
        features = [self.seen(observation)]
        if self.options.trigonometric:
            angle = self.joint_position(observation)
            features += [torch.sin(angle), torch.cos(angle)]
        if self.options.previous_action:
            features.append(previous_action)
        return features

    def pull_back(self, observation: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of observation and previous action from those of the features, [batch, size]: `forward` transposed.

        Written out because recording these few operations in every step of a roll-out costs more than a network's step.
        """
        controlled, observed = self.controlled, self.observed
        grad_observation = torch.zeros_like(observation)
        if self.options.velocity:
            grad_observation.copy_(grad[:, :observed])
        else:
            grad_observation[:, :controlled] = grad[:, :controlled]
            grad_observation[:, 2 * controlled :] = grad[:, controlled:observed]
        place = observed
        if self.options.trigonometric:
            angle = self.joint_position(observation)
            on_sin, on_cos = grad[:, place : place + controlled], grad[:, place + controlled : place + 2 * controlled]
            on_angle = on_sin * torch.cos(angle) - on_cos * torch.sin(angle)
            grad_observation[:, :controlled].addcmul_(on_angle, self.half_range)
            place += 2 * controlled
        if self.options.previous_action:
            return grad_observation, grad[:, place:]
        return grad_observation, grad.new_zeros(len(grad), controlled)


class ForwardModel(nn.Module):
    """Predicts the next observation from the present one and the action: x̂' = x + Δx̂ (Huebotter et al. 2025).

    `velocities` (default): the network predicts the change of the joint velocities only; the angles follow by
    q' = q + dt·(q̇ + Δq̇/2), the hand by exact kinematics. `everything` (the paper): the network predicts every change
    of what it sees. If it sees no velocities, those of the prediction are q̇ = Δq/dt.
    """

    change_scale: Tensor

    def __init__(
        self,
        task: ReachTask,
        config: NetworkConfig,
        predicts: Predicts,
        seed: int,
        backend: Backend = "fused",
        features: Features = ALL_FEATURES,
    ) -> None:
        super().__init__()
        if predicts not in ("velocities", "everything"):
            raise ConfigError(f"predicts '{predicts}' is unknown; choose velocities or everything.")
        self.arm = task.arm
        self.predicts: Predicts = predicts
        self.features = _ArmFeatures(task, features)
        controlled = self.arm.controlled_joints
        outputs = controlled if predicts == "velocities" else self.features.observed
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
            return change[..., controlled : 2 * controlled] / self.change_scale
        return self.features.seen(change) / self.change_scale

    def fit_scale(self, observation: Tensor, following: Tensor) -> None:
        """Set the normalisation to the standard deviation of the changes in recorded data, [samples, observation]."""
        self.change_scale.fill_(1.0)
        self.change_scale.copy_(self.target(observation, following).std(0).clamp(min=1e-6))

    def pull_back_inputs(self, observation: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of observation, action and previous action from those of `inputs`, [batch, features]."""
        size = self.features.size
        grad_observation, grad_previous = self.features.pull_back(observation, grad[:, :size])
        return grad_observation, grad[:, size:], grad_previous

    def advance(self, observation: Tensor, readout: Tensor) -> Tensor:
        """The predicted next observation, [batch, observation]."""
        change = readout * self.change_scale
        controlled = self.arm.controlled_joints
        angle, velocity = observation[:, :controlled], observation[:, controlled : 2 * controlled]
        angle_gain: Tensor = self.angle_gain  # type: ignore[assignment]
        if self.predicts == "everything":
            if self.features.options.velocity:
                return observation + change
            turned = change[:, :controlled]
            hand = self.features.hand(observation) + change[:, controlled:]
            return torch.cat((angle + turned, turned / angle_gain, hand), -1)
        next_angle = angle + angle_gain * (velocity + 0.5 * change)
        position = self.features.centre + self.features.half_range * next_angle
        hand = hand_position(position, self.arm.chain, self._held)[:, : self.arm.goal_dimensions]
        return torch.cat((next_angle, velocity + change, hand), -1)

    def hand_jacobian(self, observation: Tensor) -> Tensor:
        """How the hand moves with the joints in observations [..., observation], m/rad, [..., goal, controlled]."""
        position = self.features.joint_position(observation)
        jacobian = hand_jacobian(position.flatten(0, -2), self.arm.chain, self._held)[:, : self.arm.goal_dimensions]
        return jacobian.view(*position.shape[:-1], *jacobian.shape[1:])

    def pull_back_advance(self, grad: Tensor, jacobian: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients of observation and readout from that of the predicted observation, [batch, observation].

        Args:
            grad: of what `advance` returned.
            jacobian: `hand_jacobian` there; None if the network predicts the hand itself.
        """
        controlled = self.arm.controlled_joints
        angle_gain: Tensor = self.angle_gain  # type: ignore[assignment]
        on_angle, on_velocity = grad[:, :controlled], grad[:, controlled : 2 * controlled]
        on_hand = grad[:, 2 * controlled :]
        if jacobian is not None:
            on_angle = on_angle + torch.bmm(on_hand.unsqueeze(1), jacobian).squeeze(1) * self.features.half_range
            through_angle = angle_gain * on_angle
            on_observation = torch.cat((on_angle, on_velocity + through_angle, torch.zeros_like(on_hand)), -1)
            return on_observation, (on_velocity + 0.5 * through_angle) * self.change_scale
        if self.features.options.velocity:
            return grad, grad * self.change_scale
        on_change = torch.cat((on_angle + on_velocity / angle_gain, on_hand), -1)
        on_observation = torch.cat((on_angle, torch.zeros_like(on_velocity), on_hand), -1)
        return on_observation, on_change * self.change_scale

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

    Besides the arm's features it sees the goal and tanh(k·(goal - hand)) for every k of `Features.target_gains`.
    """

    gains: Tensor

    def __init__(
        self,
        task: ReachTask,
        config: NetworkConfig,
        seed: int,
        backend: Backend = "fused",
        features: Features = ALL_FEATURES,
    ) -> None:
        super().__init__()
        self.features = _ArmFeatures(task, features)
        gains, dimensions = features.target_gains, task.arm.goal_dimensions
        self.register_buffer("gains", torch.tensor(gains).repeat_interleave(dimensions), False)
        inputs = self.features.size + dimensions * (1 + len(gains))
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
