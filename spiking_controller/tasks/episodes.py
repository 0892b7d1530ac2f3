"""Lets an agent act through whole episodes and records them, for training, evaluation and tests alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.tasks.disturbances import Hindrance
from spiking_controller.tasks.environment import ReachVectorEnv

Array = NDArray[np.floating]


class Agent(Protocol):
    """Whatever maps observations and goals to actions and may remember things within an episode."""

    def reset(self, batch: int) -> None:
        """Forget everything: `batch` new episodes begin."""

    def act(self, observation: Array, goal: Array) -> Array:
        """Actions [batch, m] for observations [batch, 2m + d] and goals [batch, d]."""


@dataclass
class Episodes:
    """B recorded episodes of T control steps; step t leads from observation t to observation t + 1."""

    observation: NDArray[np.float32]
    """[B, T + 1, 2m + d], see ObservationCodec."""
    action: NDArray[np.float32]
    """[B, T, m], as carried out: with noise, clipped to [-1, 1]."""
    goal: NDArray[np.float32]
    """[B, d], m."""
    distance: NDArray[np.float64]
    """Hand-to-goal distance, [B, T + 1], m."""
    torque: NDArray[np.float32]
    """Torque on all joints at the end of each step, [B, T, n], N·m."""
    torque_rate: NDArray[np.float32]
    """Mean absolute rate of the controlled joints' torque within each step, [B, T], N·m/s."""
    intervened: NDArray[np.float32]
    """Share of each step's torques that the limiter changed, [B, T]."""
    valid_steps: NDArray[np.int64]
    """Steps before the episode broke off, T if it did not, [B]; later entries show an arm parked at home."""
    hand: NDArray[np.float32] | None = None
    """Where the hand truly was, [B, T + 1, d], m; None: where it was observed."""

    def first(self, count: int) -> "Episodes":
        """The first episodes, at most `count`."""
        return Episodes(**{name: values[:count] for name, values in vars(self).items() if values is not None})


def run_episodes(
    env: ReachVectorEnv,
    agent: Agent,
    *,
    noise: Callable[[int], Array] | None = None,
    start: ArrayLike | str | None = None,
    goals: ArrayLike | None = None,
    hindrances: Sequence[Hindrance] | None = None,
    seed: int | None = None,
) -> Episodes:
    """One whole episode of every arm of `env`.

    Args:
        agent: is reset, then asked once per control step.
        noise: exploration noise [B, m] of control step t, added to the agent's action before clipping.
        start: joint positions [B, n], "home" or "random"; by default as the environment does.
        goals: [B, d], m; random by default.
        hindrances: what hinders each arm, B of them; nothing by default.
        seed: starts the environment's random numbers anew.
    Returns:
        the episodes, B = env.num_envs.
    """
    task, batch, steps = env.task, env.num_envs, env.task.steps_per_episode
    m, n = task.controlled_joints, len(task.arm.joint_names)
    given: dict[str, Any] = {"start": start, "goals": goals, "hindrances": hindrances}
    options = {name: value for name, value in given.items() if value is not None}
    seen, info = env.reset(seed=seed, options=options)
    agent.reset(batch)

    episodes = Episodes(
        observation=np.empty((batch, steps + 1, env.codec.size), dtype=np.float32),
        action=np.empty((batch, steps, m), dtype=np.float32),
        goal=seen["goal"],
        distance=np.empty((batch, steps + 1)),
        torque=np.empty((batch, steps, n), dtype=np.float32),
        torque_rate=np.empty((batch, steps), dtype=np.float32),
        intervened=np.empty((batch, steps), dtype=np.float32),
        valid_steps=np.zeros(batch, dtype=np.int64),
    )
    hand = np.empty((batch, steps + 1, task.goal_dimensions), dtype=np.float32)
    hand[:, 0] = info["hand"]
    episodes.observation[:, 0] = seen["observation"]
    episodes.distance[:, 0] = info["distance"]
    for t in range(steps):
        action = agent.act(seen["observation"], seen["goal"])
        if noise is not None:
            action = action + noise(t)
        seen, _, terminated, _, info = env.step(action)
        episodes.observation[:, t + 1] = seen["observation"]
        episodes.distance[:, t + 1] = info["distance"]
        episodes.action[:, t] = info["action"]
        episodes.torque[:, t] = info["torque"]
        episodes.torque_rate[:, t] = info["torque_rate"]
        episodes.intervened[:, t] = info["filter_intervened"]
        episodes.valid_steps += ~terminated
        hand[:, t + 1] = info["hand"]
    episodes.hand = hand
    return episodes
