"""Runs trained networks step by step: observation and goal in, action out; state and torch stay inside."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.networks.features import State
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.tasks.action_noise import OrnsteinUhlenbeckNoise

FloatArray = NDArray[np.floating]

_POLICY: Final = "policy"
_MODEL: Final = "forward_model"


class SpikingAgent:
    """A policy and, beside it, a forward model that predicts what the policy's action does.

    Follows `tasks.episodes.Agent`. Several independent arms run as one batch.
    """

    def __init__(self, policy: Policy, forward_model: ForwardModel | None = None) -> None:
        """Run these networks; without a forward model there are no predictions."""
        self._policy = policy
        self._model = forward_model
        self._policy_effective = policy.for_inference()
        self._model_effective = forward_model.for_inference() if forward_model else None
        self._spikes: dict[str, torch.Tensor] = {}
        self.reset(1)

    def reset(self, batch: int = 1) -> None:
        """Start an episode from the initial state, for `batch` arms."""
        self._policy_state: State = self._policy.initial_state(batch)
        self._model_state = self._model.initial_state(batch) if self._model else None
        self._previous_action = torch.zeros(batch, self._policy.network.outputs)
        self._taken = self._taken_before = self._previous_action
        self._spikes = {}

    def act(self, observation: FloatArray, goal: FloatArray) -> NDArray[np.float64]:
        """The policy's action for the next control period.

        Args:
            observation: [batch, observation], see `tasks.observation.ObservationCodec`.
            goal: [batch, goal], m in the base frame.
        Returns:
            Action in [-1, 1], [batch, controlled joints].
        """
        with torch.inference_mode():
            action, _, self._policy_state, spikes = self._policy.step(
                _tensor(observation),
                self._previous_action,
                _tensor(goal),
                self._policy_state,
                self._policy_effective,
            )
        for index, layer in enumerate(spikes):
            self._spikes[f"{_POLICY}/hidden{index + 1}"] = layer
        self._previous_action = action
        self._taken_before, self._taken = self._taken, action
        return action.numpy().astype(np.float64)

    def replace_action(self, action: FloatArray, remembered: FloatArray | None = None) -> None:
        """Tell the networks that another action is taken than the last `act` returned, [batch, controlled joints].

        Args:
            action: what the arm gets, and the forward model predicts from.
            remembered: what the policy remembers as its own; by default the same.
        """
        self._taken = _tensor(action)
        self._previous_action = self._taken if remembered is None else _tensor(remembered)

    def predict(self, observation: FloatArray) -> NDArray[np.float64]:
        """The observation at the next control step that the forward model expects after the last `act`.

        Call at most once per control step: the forward model's own state advances.

        Args:
            observation: the one that `act` saw, [batch, observation].
        Returns:
            [batch, observation].
        """
        assert self._model is not None
        assert self._model_state is not None
        with torch.inference_mode():
            predicted, self._model_state, spikes = self._model.step(
                _tensor(observation),
                self._taken,
                self._taken_before,
                self._model_state,
                self._model_effective,
            )
        for index, layer in enumerate(spikes):
            self._spikes[f"{_MODEL}/hidden{index + 1}"] = layer
        return predicted.numpy().astype(np.float64)

    @property
    def spikes(self) -> dict[str, NDArray[np.uint8]]:
        """Spikes of the first arm in the last control step by layer, [ticks, neurons]."""
        return {name: layer[:, 0].numpy().astype(np.uint8) for name, layer in self._spikes.items()}


class ExploringAgent:
    """Ornstein-Uhlenbeck noise on the actions of a policy, or on no action at all, for collecting training data."""

    def __init__(
        self,
        agent: SpikingAgent | None,
        outputs: int,
        deviation: float,
        correlation: float,
        rng: np.random.Generator,
    ) -> None:
        """Explore around an agent, or around the zero action if there is none.

        Args:
            agent: acts below the noise.
            outputs: number of controlled joints.
            deviation: stationary standard deviation of the noise.
            correlation: ρ of the noise from step to step.
            rng: source of the noise.
        """
        self._agent = agent
        self._outputs = outputs
        self._noise = OrnsteinUhlenbeckNoise((1, outputs), deviation, correlation, rng)

    def reset(self, batch: int = 1) -> None:
        """Start of an episode."""
        self._noise.draw((batch, self._outputs))
        if self._agent is not None:
            self._agent.reset(batch)

    def act(self, observation: FloatArray, goal: FloatArray) -> NDArray[np.float64]:
        """The agent's action plus noise, clipped to [-1, 1]."""
        wanted = self._agent.act(observation, goal) if self._agent is not None else 0.0
        action = np.clip(wanted + self._noise.value, -1.0, 1.0)
        if self._agent is not None:
            self._agent.replace_action(action)
        self._noise.advance()
        return action


def _tensor(values: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
