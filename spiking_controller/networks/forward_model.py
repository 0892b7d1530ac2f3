"""The forward model: predicts the next observation from the present one and the action."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.networks.features import (
    ALL_FEATURES,
    AnyNetworkConfig,
    ArmFeatures,
    Features,
    State,
    build_network,
)
from spiking_controller.networks.hand_position import hand_jacobian, hand_position
from spiking_controller.snn.neurons import Backend
from spiking_controller.tasks.reach import ReachTask

Predicts = Literal["velocities", "angles", "everything"]


class ForwardModel(nn.Module):
    """Predicts the next observation from the present one and the action: x̂' = x + Δx̂ (Huebotter et al. 2025).

    `velocities` (default): the network predicts the change of the joint velocities only; the angles follow by
    q' = q + dt·(q̇ + Δq̇/2), or q + dt·(q̇ + Δq̇) where velocities are differences of angles, the hand by exact
    kinematics. `angles`, where the velocities are hidden: it predicts the
    change of the joint angles only; q̇ = Δq/dt, the hand follows likewise. `everything` (the paper): it predicts every
    change of what it sees. If it sees no velocities, those of the prediction are q̇ = Δq/dt.
    """

    change_scale: Tensor

    def __init__(
        self,
        task: ReachTask,
        config: AnyNetworkConfig,
        predicts: Predicts,
        seed: int,
        backend: Backend = "fused",
        features: Features = ALL_FEATURES,
    ) -> None:
        super().__init__()
        if predicts not in get_args(Predicts):
            raise ConfigError(f"predicts '{predicts}' is unknown; choose {', '.join(get_args(Predicts))}.")
        self.arm = task.arm
        self.predicts: Predicts = predicts
        self.features = ArmFeatures(task, features)
        controlled = self.arm.controlled_joints
        outputs = self.features.observed if predicts == "everything" else controlled
        self.normalisation = features.normalisation
        inputs = self.features.size + controlled + (1 if self.normalisation else 0)
        self.network = build_network(config, inputs, outputs, seed, backend)
        self.register_buffer("change_scale", torch.ones(outputs))
        velocity = torch.tensor(np.asarray(task.velocity_scale), dtype=torch.float32)
        self.register_buffer("angle_gain", task.control_period * velocity / self.features.half_range, False)
        self._gain_of_change = 1.0 if task.velocity_source == "differences" else 0.5
        self._held = np.asarray(self.arm.home)[controlled:]

    def effective(self) -> Any:
        """What is computed from the parameters once per unroll; differentiable."""
        return self.network.effective()

    def for_inference(self) -> Any:
        """The same for steps without gradients."""
        return self.network.for_inference()

    def initial_state(self, batch: int) -> State:
        """The state at the start of an episode."""
        return self.network.initial_state(batch)

    def inputs(self, observation: Tensor, action: Tensor, previous_action: Tensor) -> Tensor:
        """The network's features, [..., features]."""
        if not self.normalisation:
            return torch.cat((*self.features(observation, previous_action), action), -1)
        moving = [*self.features.moving(observation, previous_action), action]
        return torch.cat((*self.features.still(observation), self.normalisation.normalise(moving)), -1)

    def rest_inputs(self, observation: Tensor) -> Tensor:
        """The features of an arm at rest without action, in the postures of observations [..., observation]."""
        controlled = self.features.controlled
        still = observation.clone()
        still[..., controlled : 2 * controlled] = 0.0
        zeros = torch.zeros_like(observation[..., :controlled])
        return self.inputs(still, zeros, zeros)

    def change(self, inputs: Tensor, readout: Tensor) -> Tensor:
        """The predicted change in units of `target`, [..., outputs]."""
        return readout * self.normalisation.size(inputs) if self.normalisation else readout

    def target(self, observation: Tensor, following: Tensor) -> Tensor:
        """What the readout should have been between two recorded observations, [..., outputs], normalised."""
        change = following - observation
        if self.predicts == "velocities":
            controlled = self.arm.controlled_joints
            return change[..., controlled : 2 * controlled] / self.change_scale
        if self.predicts == "angles":
            return change[..., : self.arm.controlled_joints] / self.change_scale
        return self.features.seen(change) / self.change_scale

    def fit_scale(self, observation: Tensor, following: Tensor) -> None:
        """Set the normalisation to the standard deviation of the changes in recorded data, [samples, observation]."""
        self.change_scale.fill_(1.0)
        self.change_scale.copy_(self.target(observation, following).std(0).clamp(min=1e-6))

    def pull_back_inputs(
        self, observation: Tensor, inputs: Tensor, grad: Tensor, grad_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of observation, action and previous action; arguments as of `Policy.pull_back_inputs`."""
        if not self.normalisation:
            size = self.features.size
            grad_observation, grad_previous = self.features.pull_back(observation, grad[:, :size])
            return grad_observation, grad[:, size:], grad_previous
        size, controlled = self.features.still_size, self.features.controlled
        on_moving = self.normalisation.pull_back(inputs[:, size:], grad[:, size:], grad_size)
        grad_observation = self.features.pull_back_still(observation, grad[:, :size])
        grad_previous = self.features.pull_back_moving(grad_observation, on_moving[:, :-controlled])
        return grad_observation, on_moving[:, -controlled:], grad_previous

    def advance(self, observation: Tensor, change: Tensor) -> Tensor:
        """The predicted next observation, [batch, observation], from a change in units of `target`."""
        change = change * self.change_scale
        controlled = self.arm.controlled_joints
        angle, velocity = observation[:, :controlled], observation[:, controlled : 2 * controlled]
        angle_gain: Tensor = self.angle_gain  # type: ignore[assignment]
        if self.predicts == "everything":
            if self.features.options.velocity:
                return observation + change
            turned = change[:, :controlled]
            hand = self.features.hand(observation) + change[:, controlled:]
            return torch.cat((angle + turned, turned / angle_gain, hand), -1)
        if self.predicts == "angles":
            next_angle, next_velocity = angle + change, change / angle_gain
        else:
            next_angle = angle + angle_gain * (velocity + self._gain_of_change * change)
            next_velocity = velocity + change
        position = self.features.centre + self.features.half_range * next_angle
        hand = hand_position(position, self.arm.chain, self._held)[:, : self.arm.goal_dimensions]
        return torch.cat((next_angle, next_velocity, hand), -1)

    def hand_jacobian(self, observation: Tensor) -> Tensor:
        """How the hand moves with the joints in observations [..., observation], m/rad, [..., goal, controlled]."""
        position = self.features.joint_position(observation)
        jacobian = hand_jacobian(position.flatten(0, -2), self.arm.chain, self._held)[:, : self.arm.goal_dimensions]
        return jacobian.view(*position.shape[:-1], *jacobian.shape[1:])

    def pull_back_advance(self, grad: Tensor, jacobian: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients of observation and change from that of the predicted observation, [batch, observation].

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
            if self.predicts == "angles":
                on_observation = torch.cat((on_angle, torch.zeros_like(on_velocity), torch.zeros_like(on_hand)), -1)
                return on_observation, (on_angle + on_velocity / angle_gain) * self.change_scale
            through_angle = angle_gain * on_angle
            on_observation = torch.cat((on_angle, on_velocity + through_angle, torch.zeros_like(on_hand)), -1)
            return on_observation, (on_velocity + self._gain_of_change * through_angle) * self.change_scale
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
        return self.advance(observation, self.change(features, readout)), state, spikes
