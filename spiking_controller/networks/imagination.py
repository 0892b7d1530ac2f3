"""Imagined roll-outs: the policy acts on what the forward model predicts, step after step, with gradients.

There are two ways to the same values and gradients. The reference records every operation with autograd. The compiled
way is one autograd function for the whole roll-out: both networks go through their hand-written steps
(`snn.compiled.unroll`), and the gradients of the arm's few operations between them (features, kinematics) are written
by hand beside these operations, in `features.py`, `policy.py` and `forward_model.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spiking_controller.networks.features import ControlNetwork, State
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.compiled.unroll import Unroll
from spiking_controller.snn.network import SpikingNetwork


class Imagined(NamedTuple):
    """What was imagined, control step by control step.

    Attributes:
        observation: after each step, [steps, batch, observation].
        action: taken in each step, [steps, batch, controlled].
        drive: what the action is the tanh of, [steps, batch, controlled].
        policy_activity: mean spikes per tick of each layer of the policy, [steps, batch, neurons].
    """

    observation: Tensor
    action: Tensor
    drive: Tensor
    policy_activity: tuple[Tensor, ...]


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
    if policy.network.compiled and model.network.compiled:
        flat = _spiking(policy.network).unroll_parameters(effective).flatten()
        outputs = _ImaginedRollout.apply(policy, model, beginning, steps, *flat)
        observation, action, drive, *activity = outputs
        return Imagined(observation, action, drive, tuple(activity))
    observation, last, goal, policy_state, model_state = beginning
    with torch.no_grad():
        model_effective = model.effective()
    observations, actions, drives, policy_spikes = [], [], [], []
    for _ in range(steps):
        action, drive, policy_state, spikes = policy.step(observation, last, goal, policy_state, effective)
        policy_spikes.append(spikes)
        observation, model_state, _ = model.step(observation, action, last, model_state, model_effective)
        observations.append(observation)
        actions.append(action)
        drives.append(drive)
        last = action
    return Imagined(
        torch.stack(observations),
        torch.stack(actions),
        torch.stack(drives),
        _activity(policy_spikes),
    )


def _activity(spikes: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Mean spikes per tick of each layer, [steps, batch, neurons], from the spikes [ticks, batch, neurons] of steps."""
    return tuple(torch.stack([layer.mean(0) for layer in layers]) for layers in zip(*spikes, strict=True))


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
        seen, following, actions, drives = [], [], [], []
        policy_inputs, policy_readouts, model_inputs, model_readouts = [], [], [], []
        for step in range(steps):
            seen.append(observation)
            policy_inputs.append(policy.inputs(observation, last, goal))
            policy_readouts.append(policy_run.forward(step, policy_inputs[-1]))
            drives.append(policy.drive(policy_inputs[-1], policy_readouts[-1]))
            actions.append(torch.tanh(drives[-1]))
            model_inputs.append(model.inputs(observation, actions[-1], last))
            model_readouts.append(model_run.forward(step, model_inputs[-1]))
            change = model.change(model_inputs[-1], model_readouts[-1])
            observation, last = model.advance(observation, change), actions[-1]
            following.append(observation)
        ctx.policy, ctx.model, ctx.policy_run, ctx.model_run, ctx.seen = policy, model, policy_run, model_run, seen
        ctx.policy_inputs, ctx.policy_readouts = policy_inputs, policy_readouts
        ctx.model_inputs, ctx.model_readouts = model_inputs, model_readouts
        result = torch.stack(following), torch.stack(actions)
        ctx.save_for_backward(*result)
        ctx.set_materialize_grads(False)
        return *result, torch.stack(drives), *policy_run.mean_spikes()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        policy: Policy = ctx.policy
        model: ForwardModel = ctx.model
        policy_run: Unroll = ctx.policy_run
        model_run: Unroll = ctx.model_run
        policy_run.start_backward(learns=True)
        model_run.start_backward(learns=False)
        on_observation, on_action, on_drive, *on_activity = grads
        no_activity = [None] * model_run.layers
        following, action = ctx.saved_tensors
        jacobian = model.hand_jacobian(following) if model.predicts != "everything" else None
        slope = 1.0 - action * action
        grad_following, grad_action = torch.zeros_like(following[0]), torch.zeros_like(action[0])
        for step in reversed(range(len(following))):
            if on_observation is not None:
                grad_following = grad_following + on_observation[step]
            if on_action is not None:
                grad_action = grad_action + on_action[step]
            seen = ctx.seen[step]
            through_advance, grad_change = model.pull_back_advance(
                grad_following, None if jacobian is None else jacobian[step]
            )
            inputs = ctx.model_inputs[step]
            grad_readout, grad_size = _pull_back_scaling(model, inputs, ctx.model_readouts[step], grad_change)
            model_run.backward(step, grad_readout.contiguous(), no_activity)
            through_model, grad_now, model_last = model.pull_back_inputs(
                seen, inputs, model_run.grad_features(), grad_size
            )
            grad_drive = (grad_action + grad_now) * slope[step]
            if on_drive is not None:
                grad_drive += on_drive[step]
            inputs = ctx.policy_inputs[step]
            grad_readout, grad_size = _pull_back_scaling(policy, inputs, ctx.policy_readouts[step], grad_drive)
            policy_run.backward(step, grad_readout, _of_step(on_activity, step))
            through_policy, policy_last = policy.pull_back_inputs(seen, inputs, policy_run.grad_features(), grad_size)
            grad_following = through_policy.add_(through_model).add_(through_advance)
            grad_action = policy_last + model_last
        gradients = policy_run.gradients()
        policy_run.release()
        model_run.release()
        return None, None, None, None, *gradients


def _spiking(network: ControlNetwork) -> SpikingNetwork:
    """Narrows the type: only spiking networks have a compiled path."""
    assert isinstance(network, SpikingNetwork)
    return network


def _pull_back_scaling(
    part: Policy | ForwardModel, inputs: Tensor, readout: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a readout and of the size that scales it, from that of the product, [batch, outputs]."""
    if not part.normalisation:
        return grad, grad[:, :0]
    return grad * part.normalisation.size(inputs), (grad * readout).sum(-1, keepdim=True)


def _of_step(grads: Sequence[Tensor | None], step: int) -> list[Tensor | None]:
    return [None if grad is None else grad[step] for grad in grads]


def warmed_up(
    policy: Policy, model: ForwardModel, observed: Tensor, action: Tensor, previous: Tensor, target: Tensor
) -> tuple[State, State]:
    """States of both networks after the recorded steps; arrays are [steps, batch, ...], `target` is [batch, goal]."""
    length, batch, _ = action.shape
    goals = target.expand(length, -1, -1)
    policy_features = policy.inputs(observed[:length], previous, goals)
    model_features = model.inputs(observed[:length], action, previous)
    _, _, policy_state = policy.network.unroll(policy_features, policy.initial_state(batch), policy.effective())
    _, _, model_state = model.network.unroll(model_features, model.initial_state(batch), model.effective())
    return policy_state, model_state
