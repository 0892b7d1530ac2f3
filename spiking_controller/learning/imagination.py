"""Imagined roll-outs: the policy acts on what the forward model predicts, step after step, with gradients.

Two ways to the same values and gradients. The reference records every operation with autograd. The compiled way is one
autograd function for the whole roll-out: both networks go through their hand-written steps (`snn.unroll`), and only the
arm's few operations between them (features, kinematics) are recorded, step by step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spiking_controller.learning.networks import ControlNetwork, ForwardModel, Policy, State
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.unroll import Unroll


class Imagined(NamedTuple):
    """What was imagined, control step by control step.

    Attributes:
        observation: after each step, [steps, batch, observation].
        action: taken in each step, [steps, batch, controlled].
        readout: the policy's readout behind it, [steps, batch, controlled].
        policy_activity, model_activity: mean spikes per tick of each layer, [steps, batch, neurons].
    """

    observation: Tensor
    action: Tensor
    readout: Tensor
    policy_activity: tuple[Tensor, ...]
    model_activity: tuple[Tensor, ...]


class Beginning(NamedTuple):
    """Where a roll-out starts; no gradient flows into it.

    Attributes:
        observation: [batch, observation].
        last_action: the action before, [batch, controlled].
        goal: [batch, goal], m.
        policy_state, model_state: of the networks.
    """

    observation: Tensor
    last_action: Tensor
    goal: Tensor
    policy_state: State
    model_state: State


def imagine(policy: Policy, model: ForwardModel, beginning: Beginning, steps: int) -> Imagined:
    """Roll the policy out through the forward model.

    Args:
        policy: gets the gradient.
        model: predicts; its parameters must not require gradients.
        beginning: where to start.
        steps: control steps.
    """
    effective = policy.effective()
    if policy.network.backend == "fused" and model.network.backend == "fused":
        flat = _spiking(policy.network).unroll_parameters(effective).flatten()
        outputs = _ImaginedRollout.apply(policy, model, beginning, steps, *flat)
        layers = len(policy.network.config.hidden)
        return Imagined(*outputs[:3], outputs[3 : 3 + layers], outputs[3 + layers :])
    observation, last, goal, policy_state, model_state = beginning
    with torch.no_grad():
        model_effective = model.effective()
    observations, actions, readouts, policy_spikes, model_spikes = [], [], [], [], []
    for _ in range(steps):
        action, readout, policy_state, spikes = policy.step(observation, last, goal, policy_state, effective)
        policy_spikes.append(spikes)
        observation, model_state, spikes = model.step(observation, action, last, model_state, model_effective)
        model_spikes.append(spikes)
        observations.append(observation)
        actions.append(action)
        readouts.append(readout)
        last = action
    return Imagined(
        torch.stack(observations),
        torch.stack(actions),
        torch.stack(readouts),
        _activity(policy_spikes),
        _activity(model_spikes),
    )


def _activity(spikes: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Mean spikes per tick of each layer, [steps, batch, neurons], from the spikes [ticks, batch, neurons] of steps."""
    return tuple(torch.stack([layer.mean(0) for layer in layers]) for layers in zip(*spikes, strict=True))


class _Step(NamedTuple):
    """The recorded operations of the arm in one step: leaves, and what was computed from them."""

    observation: Tensor
    last: Tensor
    action: Tensor
    model_readout: Tensor
    policy_features: Tensor
    model_features: Tensor
    following: Tensor


class _ImaginedRollout(torch.autograd.Function):
    """The compiled way of `imagine`: gradients for the policy's parameters."""

    @staticmethod
    def forward(
        ctx: Any, policy: Policy, model: ForwardModel, beginning: Beginning, steps: int, *flat: Tensor | None
    ) -> tuple[Tensor, ...]:
        observation, last, goal, policy_state, model_state = beginning
        batch = len(goal)
        policy_run = _spiking(policy.network).start_unroll(policy.effective(), policy_state, steps, batch)
        model_run = _spiking(model.network).start_unroll(model.effective(), model_state, steps, batch)
        recorded: list[_Step] = []
        for step in range(steps):
            with torch.enable_grad():
                observation, last = _leaf(observation), _leaf(last)
                policy_features = policy.inputs(observation, last, goal)
                action = _leaf(torch.tanh(policy_run.forward(step, policy_features.detach())))
                model_features = model.inputs(observation, action, last)
                model_readout = _leaf(model_run.forward(step, model_features.detach()).clone())
                following = model.advance(observation, model_readout)
            recorded.append(_Step(observation, last, action, model_readout, policy_features, model_features, following))
            observation, last = following, action
        ctx.recorded, ctx.policy_run, ctx.model_run = recorded, policy_run, model_run
        ctx.set_materialize_grads(False)
        return (
            torch.stack([step.following.detach() for step in recorded]),
            torch.stack([step.action.detach() for step in recorded]),
            policy_run.output(),
            *policy_run.mean_spikes(),
            *model_run.mean_spikes(),
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        policy_run: Unroll = ctx.policy_run
        model_run: Unroll = ctx.model_run
        policy_run.start_backward(learns=True)
        model_run.start_backward(learns=False)
        on_observation, on_action, on_readout = grads[:3]
        on_policy, on_model = grads[3 : 3 + policy_run.layers], grads[3 + policy_run.layers :]
        recorded: list[_Step] = ctx.recorded
        grad_following = torch.zeros_like(recorded[-1].following)
        grad_action = torch.zeros_like(recorded[-1].action)
        for step in reversed(range(len(recorded))):
            now = recorded[step]
            if on_observation is not None:
                grad_following = grad_following + on_observation[step]
            if on_action is not None:
                grad_action = grad_action + on_action[step]
            grad_observation, grad_readout = torch.autograd.grad(
                now.following, (now.observation, now.model_readout), grad_following
            )
            activity = [None if grad is None else grad[step] for grad in on_model]
            through_model = torch.autograd.grad(
                now.model_features,
                (now.observation, now.action, now.last),
                model_run.backward(step, grad_readout.contiguous(), activity),
            )
            action = now.action.detach()
            grad_readout = (grad_action + through_model[1]) * (1.0 - action * action)
            if on_readout is not None:
                grad_readout = grad_readout + on_readout[step]
            activity = [None if grad is None else grad[step] for grad in on_policy]
            through_policy = torch.autograd.grad(
                now.policy_features, (now.observation, now.last), policy_run.backward(step, grad_readout, activity)
            )
            grad_following = grad_observation + through_model[0] + through_policy[0]
            grad_action = through_model[2] + through_policy[1]
        gradients = policy_run.gradients()
        policy_run.release()
        model_run.release()
        return None, None, None, None, *gradients


def _spiking(network: ControlNetwork) -> SpikingNetwork:
    """The network, of which the "fused" backend says that it is spiking."""
    assert isinstance(network, SpikingNetwork)
    return network


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()
