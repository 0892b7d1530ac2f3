"""Measures a checkpoint on held-out goals: task metrics, the forward model's predictions, what the networks cost."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.evaluation.complexity import measure_complexity
from spiking_controller.evaluation.untrained_predictions import constant_velocity, persistence
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.prediction import open_loop_predictions, prediction_error
from spiking_controller.networks.rest import rest_metrics
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Agent, Episodes, run_episodes
from spiking_controller.tasks.metrics import reach_metrics, summarise
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.segments import Windows
from spiking_controller.tasks.set_point import SetPointIntegral

HELD_OUT_SEED = 987_654_321
"""Seed of the held-out starts and goals. Training draws its seeds below 2**31 from generators keyed by (run seed,
iteration, purpose); that one of a run's few hundred draws is this number has a chance of about one in ten million."""

PREDICTION_STEPS = (1, 10, 50)

FloatArray = NDArray[np.floating]


class IntegralAgent:
    """The agent as the live controller runs it: with the bounded set-point integral on the goal it is given."""

    def __init__(self, agent: Agent, integral: SetPointIntegral, codec: ObservationCodec) -> None:
        self._agent = agent
        self._integral = integral
        self._codec = codec

    def reset(self, batch: int) -> None:
        """Start of an episode."""
        self._agent.reset(batch)
        self._integral.reset()

    def act(self, observation: FloatArray, goal: FloatArray) -> FloatArray:
        """Actions for the shifted goal."""
        return self._agent.act(observation, self._integral.shift(goal, self._codec.hand_position(observation)))


def prediction_errors(checkpoint: Checkpoint, episodes: Episodes, warm_up: int = 10) -> dict[str, float]:
    """Error of the forward model k control steps ahead, along recorded actions, beside two that take no model.

    From 12 points of every episode the model follows the recorded observations for `warm_up` steps and then its own
    predictions. "state_stays" is persistence, "linear" is constant velocity; see `untrained_predictions`.

    Returns:
        For k = 1, 10, 50: mean absolute error of the joint angles in rad and mean error of the hand in m, as
        `{predictor}_{k}_joint_rad` and `{predictor}_{k}_hand_m`.
    """
    task = checkpoint.task
    codec = ObservationCodec(task)
    longest = max(PREDICTION_STEPS)
    complete = np.flatnonzero(episodes.valid_steps >= episodes.action.shape[1])
    starts = np.linspace(0, episodes.action.shape[1] - longest - warm_up, 12).astype(int)
    row, start = (grid.reshape(-1) for grid in np.meshgrid(complete, starts, indexing="ij"))
    step = start[:, None] + np.arange(warm_up + longest + 1)
    observation = episodes.observation[row[:, None], step].swapaxes(0, 1)
    padded = np.concatenate((np.zeros_like(episodes.action[:, :1]), episodes.action), axis=1)
    action = padded[row[:, None], step[:, 1:]].swapaxes(0, 1)
    previous = padded[row[:, None], step[:, :-1]].swapaxes(0, 1)

    windows = Windows(observation, action, previous, episodes.goal[row])
    followed = open_loop_predictions(checkpoint.forward_model, windows, warm_up)
    last_seen = observation[warm_up]
    errors: dict[str, float] = {}
    for name, predictions in (
        ("forward_model", followed[[k - 1 for k in PREDICTION_STEPS]]),
        ("state_stays", persistence(last_seen, PREDICTION_STEPS)),
        ("linear", constant_velocity(task, last_seen, PREDICTION_STEPS)),
    ):
        for k, predicted in zip(PREDICTION_STEPS, predictions, strict=True):
            error = prediction_error(codec, predicted, observation[warm_up + k])
            errors[f"{name}_{k}_joint_rad"] = error.joint_rad
            errors[f"{name}_{k}_hand_m"] = error.hand_m
    return errors


def evaluate_checkpoint(
    checkpoint: Checkpoint, *, goals: int = 200, seed: int = HELD_OUT_SEED, start: str = "random"
) -> dict[str, Any]:
    """Run the policy on held-out starts and goals, alone and with the set-point integral of the live controller.

    Args:
        checkpoint: what to measure.
        goals: number of episodes, one goal each.
        seed: of starts and goals.
        start: "random" or "home".
    Returns:
        Plain data: the setting, `network_alone` and `with_integral` (task metrics, see `tasks.metrics`), `complexity`
        (see `evaluation.complexity`), `forward_model` (prediction errors on the same episodes) and `rest` (see
        `networks.rest`, likewise).
    """
    task = checkpoint.task
    env = ReachVectorEnv(task, goals)
    alone = run_episodes(env, SpikingAgent(checkpoint.policy), start=start, seed=seed)
    integral = SetPointIntegral(period=task.control_period)
    helped = run_episodes(
        env, IntegralAgent(SpikingAgent(checkpoint.policy), integral, env.codec), start=start, seed=seed
    )
    return {
        "checkpoint": checkpoint.source,
        "sha256": checkpoint.metadata["sha256"],
        "task": task.name,
        "goals": goals,
        "seed": seed,
        "start": start,
        "network_alone": summarise(reach_metrics(alone, task)),
        "with_integral": summarise(reach_metrics(helped, task)),
        "complexity": measure_complexity(checkpoint, alone),
        "forward_model": prediction_errors(checkpoint, alone),
        "rest": rest_metrics(checkpoint.policy, checkpoint.forward_model, alone, task),
    }
