"""How good networks are on recorded steps, in physical units: for evaluation and for the gate of online learning."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.imagination import warmed_up
from spiking_controller.networks.policy import Policy
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.segments import Windows

FINAL_STEPS = 5
"""The imagined final distance is the mean over this many last steps."""
FINEST = 0.001
"""Imagined distances below this are equally good, m."""


class PredictionError(NamedTuple):
    """Mean absolute error of the joint angles, rad, and mean error of the hand position, m."""

    joint_rad: float
    hand_m: float


def open_loop_predictions(model: ForwardModel, windows: Windows, warm_up: int) -> NDArray[np.float32]:
    """What the model predicts along recorded actions when it is left to its own predictions.

    Args:
        model: the forward model.
        windows: recorded steps.
        warm_up: first steps, in which the model follows the recorded observations.
    Returns:
        The predicted observations 1, 2, ... steps after warm-up, [length - warm_up, batch, observation].
    """
    observation = torch.from_numpy(np.ascontiguousarray(windows.observation))
    action = torch.from_numpy(np.ascontiguousarray(windows.action))
    previous = torch.from_numpy(np.ascontiguousarray(windows.previous_action))
    length, batch, _ = action.shape
    predicted = []
    with torch.inference_mode():
        effective, state = model.for_inference(), model.initial_state(batch)
        now = observation[0]
        for step in range(length):
            now, state, _ = model.step(now, action[step], previous[step], state, effective)
            if step < warm_up:
                now = observation[step + 1]
            else:
                predicted.append(now.numpy())
    return np.stack(predicted)


def one_step_predictions(model: ForwardModel, windows: Windows) -> NDArray[np.float32]:
    """What the model predicts for the next control step while it follows the recorded observations.

    Args:
        model: the forward model.
        windows: recorded steps.
    Returns:
        The predicted observations 1, 2, ... steps after the first, [length, batch, observation].
    """
    observation, action, previous = (torch.from_numpy(np.ascontiguousarray(part)) for part in windows[:3])
    predicted = []
    with torch.inference_mode():
        effective, state = model.for_inference(), model.initial_state(action.shape[1])
        for seen, now, before in zip(observation[:-1], action, previous, strict=True):
            following, state, _ = model.step(seen, now, before, state, effective)
            predicted.append(following.numpy())
    return np.stack(predicted)


def prediction_error(
    codec: ObservationCodec, predicted: NDArray[np.floating], measured: NDArray[np.floating]
) -> PredictionError:
    """Compare predicted with measured observations, [..., observation] each."""
    joints = np.abs(codec.joint_position(predicted) - codec.joint_position(measured))
    hand = np.linalg.norm(codec.hand_position(predicted) - codec.hand_position(measured), axis=-1)
    return PredictionError(float(joints.mean()), float(hand.mean()))


def policy_actions(policy: Policy, windows: Windows) -> NDArray[np.float32]:
    """What the policy wants in recorded states on the way to the recorded goals, [length, batch, controlled]."""
    observation = torch.from_numpy(np.ascontiguousarray(windows.observation[:-1]))
    previous = torch.from_numpy(np.ascontiguousarray(windows.previous_action))
    length, batch, _ = previous.shape
    goal = torch.from_numpy(np.ascontiguousarray(windows.goal)).expand(length, -1, -1)
    with torch.inference_mode():
        features = policy.inputs(observation, previous, goal)
        readout, _, _ = policy.network.unroll(features, policy.initial_state(batch), policy.effective())
        return np.asarray(torch.tanh(policy.drive(features, readout)).numpy())


def imagined_final_distance(
    policy: Policy, model: ForwardModel, windows: Windows, goal: NDArray[np.floating], unroll: int
) -> float:
    """Typical hand-to-goal distance at the end of imagined roll-outs that start where recorded steps end, m.

    The geometric mean over the roll-outs, of distances no smaller than FINEST: a millimetre less where the hand
    comes close counts as much as a decimetre less where it stays away, and goals that no policy reaches hide nothing.

    Args:
        policy, model: the networks.
        windows: recorded steps that set the neurons' state.
        goal: [batch, goal], m.
        unroll: imagined steps, at least FINAL_STEPS.
    """
    observed = torch.from_numpy(np.ascontiguousarray(windows.observation))
    action = torch.from_numpy(np.ascontiguousarray(windows.action))
    previous = torch.from_numpy(np.ascontiguousarray(windows.previous_action))
    target = torch.from_numpy(np.ascontiguousarray(goal, dtype=np.float32))
    distances = []
    with torch.inference_mode():
        policy_state, model_state = warmed_up(policy, model, observed, action, previous, target)
        policy_effective, model_effective = policy.for_inference(), model.for_inference()
        observation, last = observed[-1], action[-1]
        for _ in range(unroll):
            now, _, policy_state, _ = policy.step(observation, last, target, policy_state, policy_effective)
            observation, model_state, _ = model.step(observation, now, last, model_state, model_effective)
            last = now
            distances.append((model.features.hand(observation) - target).norm(dim=-1).numpy())
    final = np.mean(distances[-FINAL_STEPS:], axis=0)
    return float(np.exp(np.log(np.maximum(final, FINEST)).mean()))
