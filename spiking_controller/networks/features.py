"""Turns an observation into features, and builds the network that receives them."""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from spiking_controller.errors import ConfigError
from spiking_controller.networks.baselines import BaselineConfig, GRUConfig, GRUNetwork, MLPConfig, MLPNetwork
from spiking_controller.networks.normalisation import Normalisation
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.neurons import Backend
from spiking_controller.tasks.reach import ReachTask


@dataclass(frozen=True)
class Features:
    """Selects what the networks see besides joint angles, hand and goal. The whole observation is recorded in any case.

    Attributes:
        angles: the scaled joint angles themselves. Without them the networks see the sines and cosines only, which
            suits joints that turn without end.
        velocity: the joint velocities. Without them the forward model must predict "everything".
        trigonometric: sine and cosine of the joint angles.
        previous_action: the action of the control step before.
        target_gains: k of the policy's inputs tanh(k·(goal - hand)), 1/m; high gains resolve the last millimetres.
        normalisation: how velocities, actions and the way to the goal are normalised; None leaves them as they are.
    """

    angles: bool = True
    velocity: bool = True
    trigonometric: bool = True
    previous_action: bool = True
    target_gains: tuple[float, ...] = (2.0, 10.0, 40.0)
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        for gain in self.target_gains:
            if not 0.0 < gain < math.inf:
                raise ConfigError(f"target_gains holds {gain}; give finite gains above 0, or none at all.")
        if not self.angles and not self.trigonometric:
            raise ConfigError(
                "angles = false and trigonometric = false hide the joint angles; set one of them to true."
            )


ALL_FEATURES: Final = Features()


AnyNetworkConfig: TypeAlias = NetworkConfig | BaselineConfig
"""Sizes of a network; which class it is decides the architecture."""
ARCHITECTURES: Final = MappingProxyType({"spiking": NetworkConfig, "gru": GRUConfig, "mlp": MLPConfig})
"""Configuration classes by the value of the key `architecture` in YAML files and checkpoints."""


def architecture_of(config: AnyNetworkConfig) -> str:
    """The name of a configuration's architecture."""
    return next(name for name, kind in ARCHITECTURES.items() if isinstance(config, kind))


State: TypeAlias = Any
"""What a network carries from one control step to the next; its type is up to the network."""


class ControlNetwork(Protocol):
    """What forward model and policy need of the network inside them; see `snn.network.SpikingNetwork`."""

    @property
    def config(self) -> AnyNetworkConfig:
        """Its sizes."""

    inputs: int
    outputs: int
    backend: Backend

    @property
    def compiled(self) -> bool:
        """Whether unrolls take the compiled way of `snn.compiled.unroll`; only spiking networks can."""

    def effective(self) -> Any:
        """What is computed from the parameters once per unroll; differentiable."""

    def for_inference(self) -> Any:
        """The same for steps without gradients."""

    def limit_time_constants(self) -> None:
        """Bring the time constants back into their bounds."""

    def resting_potential(self, features: Tensor, effective: Any) -> tuple[Tensor, ...]:
        """Where the membranes of each layer settle while no neuron fires; see `SpikingNetwork`."""

    def initial_state(self, batch: int) -> State:
        """The state at the start of an episode."""

    def step(self, features: Tensor, state: State, effective: Any) -> tuple[Tensor, State, tuple[Tensor, ...]]:
        """One control step: readout, state after it, spikes of each layer."""

    def unroll(self, features: Tensor, state: State, effective: Any) -> tuple[Tensor, tuple[Tensor, ...], State]:
        """Many control steps: readouts, mean spikes of each layer, state after them."""


def build_network(config: AnyNetworkConfig, inputs: int, outputs: int, seed: int, backend: Backend) -> ControlNetwork:
    """A freshly initialised network of the configuration's architecture.

    Args:
        config: sizes.
        inputs, outputs: number of features and of readout values.
        seed: of the initial weights.
        backend: of a spiking network, see `snn.neurons.scan`.
    """
    match config:
        case NetworkConfig():
            return SpikingNetwork(config, inputs, outputs, seed, backend)
        case GRUConfig():
            return GRUNetwork(config, inputs, outputs, seed)
        case MLPConfig():
            return MLPNetwork(config, inputs, outputs, seed)
        case _:
            raise TypeError(f"there is no network for a {type(config).__name__}.")


class ArmFeatures(nn.Module):
    """The features of the arm that both networks receive, see `Features`.

    Attributes:
        observed: number of observation entries that the networks see, the angles counted also where only their sines
            and cosines are features.
        size: number of features; those of `still` and of `moving` together.
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
        self.angles_seen = self.controlled if options.angles else 0
        posture = self.angles_seen + self.controlled * 2 * options.trigonometric
        self.still_size = posture + task.arm.goal_dimensions
        self.size = self.still_size + self.controlled * (options.velocity + options.previous_action)
        self.moving_size = self.size - self.still_size
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
        """The features, in parts that are concatenated to [..., size].

        Args:
            observation: [..., observation].
            previous_action: [..., controlled].
        """
        features = [self.seen(observation)[..., self.controlled - self.angles_seen :]]
        if self.options.trigonometric:
            angle = self.joint_position(observation)
            features += [torch.sin(angle), torch.cos(angle)]
        if self.options.previous_action:
            features.append(previous_action)
        return features

    def still(self, observation: Tensor) -> list[Tensor]:
        """The features of the posture, in parts, from observations [..., observation]."""
        features = [observation[..., : self.angles_seen], self.hand(observation)]
        if self.options.trigonometric:
            angle = self.joint_position(observation)
            features += [torch.sin(angle), torch.cos(angle)]
        return features

    def moving(self, observation: Tensor, previous_action: Tensor) -> list[Tensor]:
        """The features that vanish at rest, in parts; arguments as of `forward`."""
        features = []
        if self.options.velocity:
            features.append(observation[..., self.controlled : 2 * self.controlled])
        if self.options.previous_action:
            features.append(previous_action)
        return features

    def pull_back_still(self, observation: Tensor, grad: Tensor) -> Tensor:
        """`still` transposed: gradient of the observation from that of the features, [batch, features]."""
        controlled, dimensions, angles = self.controlled, self.goal_dimensions, self.angles_seen
        grad_observation = torch.zeros_like(observation)
        grad_observation[:, :angles] = grad[:, :angles]
        grad_observation[:, 2 * controlled :] = grad[:, angles : angles + dimensions]
        if self.options.trigonometric:
            angle = self.joint_position(observation)
            on_sin, on_cos = grad[:, angles + dimensions :].chunk(2, -1)
            on_angle = on_sin * torch.cos(angle) - on_cos * torch.sin(angle)
            grad_observation[:, :controlled].addcmul_(on_angle, self.half_range)
        return grad_observation

    def pull_back_moving(self, grad_observation: Tensor, grad: Tensor) -> Tensor:
        """`moving` transposed: adds to the gradient of the observation, returns that of the previous action.

        Args:
            grad_observation: [batch, observation].
            grad: of the features, [batch, features].
        """
        controlled = self.controlled
        if self.options.velocity:
            grad_observation[:, controlled : 2 * controlled] += grad[:, :controlled]
        if self.options.previous_action:
            return grad[:, -controlled:]
        return grad.new_zeros(len(grad), controlled)

    def pull_back(self, observation: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of observation and previous action from those of the features, [batch, size]: `forward` transposed.

        Written by hand: in a roll-out, recording these few operations with autograd costs more than a network's step.
        """
        controlled, angles = self.controlled, self.angles_seen
        grad_observation = torch.zeros_like(observation)
        place = angles + (controlled if self.options.velocity else 0) + self.goal_dimensions
        seen = grad[:, :place]
        grad_observation[:, :angles] = seen[:, :angles]
        grad_observation[:, 2 * controlled :] = seen[:, -self.goal_dimensions :]
        if self.options.velocity:
            grad_observation[:, controlled : 2 * controlled] = seen[:, angles : angles + controlled]
        if self.options.trigonometric:
            angle = self.joint_position(observation)
            on_sin, on_cos = grad[:, place : place + controlled], grad[:, place + controlled : place + 2 * controlled]
            on_angle = on_sin * torch.cos(angle) - on_cos * torch.sin(angle)
            grad_observation[:, :controlled].addcmul_(on_angle, self.half_range)
            place += 2 * controlled
        if self.options.previous_action:
            return grad_observation, grad[:, place:]
        return grad_observation, grad.new_zeros(len(grad), controlled)
