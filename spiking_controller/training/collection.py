"""Collects training episodes with the present policy, in the training process or in one that runs beside it."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Protocol

import numpy as np
import torch

from spiking_controller.errors import SimulationStoppedError
from spiking_controller.networks.agent import ExploringAgent, SpikingAgent
from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.policy import Policy
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.training.seeds import Purpose, environment_seed, generator

Weights = dict[str, np.ndarray]


def first_episodes(config: TrainingConfig, policy: Policy) -> Episodes:
    """The first episodes of a run: noise on no action at all, or the untrained policy without noise."""
    env = ReachVectorEnv(config.reach_task, config.random_episodes)
    if config.exploration.first == "policy":
        agent = _exploring(config, SpikingAgent(policy), 0.0, 0)
    else:
        agent = _exploring(config, None, config.exploration.random_deviation, 0)
    return run_episodes(env, agent, seed=environment_seed(config.seed, Purpose.RANDOM_EPISODES, 0))


def policy_episodes(config: TrainingConfig, env: ReachVectorEnv, policy: Policy, iteration: int) -> Episodes:
    """One episode of every arm of `env` with the policy; its noise fades with the iterations."""
    progress = (iteration - 1) / config.iterations
    agent = _exploring(config, SpikingAgent(policy), config.exploration.policy_deviation * (1.0 - progress), iteration)
    rng = generator(config.seed, Purpose.GOALS, iteration)
    goals = sample_goals(config.reach_task, rng, env.num_envs, config.policy_updates.goals.hard)
    return run_episodes(env, agent, goals=goals, seed=environment_seed(config.seed, Purpose.POLICY_EPISODES, iteration))


def _exploring(config: TrainingConfig, agent: SpikingAgent | None, deviation: float, iteration: int) -> ExploringAgent:
    rng = generator(config.seed, Purpose.NOISE, iteration)
    return ExploringAgent(agent, config.reach_task.controlled_joints, deviation, config.exploration.correlation, rng)


class Collector(Protocol):
    """Collects an iteration's episodes from the policy as it is at `start`."""

    def start(self, policy: Policy, iteration: int) -> None:
        """Begin; the policy may be trained on at once."""

    def episodes(self) -> Episodes:
        """Wait for the episodes of the last `start`."""

    def close(self) -> None:
        """Give back what was reserved."""


class InlineCollector:
    """Simulates in this process, before training goes on."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._env = ReachVectorEnv(config.reach_task, config.episodes_per_iteration)

    def start(self, policy: Policy, iteration: int) -> None:
        """See `Collector`."""
        self._episodes = policy_episodes(self._config, self._env, policy, iteration)

    def episodes(self) -> Episodes:
        """See `Collector`."""
        return self._episodes

    def close(self) -> None:
        """See `Collector`."""


class ProcessCollector:
    """Simulates in a process of its own, on all processors, while this one trains; the same episodes as inline."""

    def __init__(self, config: TrainingConfig) -> None:
        # Spawned, not forked: PyTorch and Numba hold threads and locks that do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(config,))
        self._future: Future[Episodes] | None = None

    def start(self, policy: Policy, iteration: int) -> None:
        """See `Collector`."""
        weights = {name: tensor.detach().numpy().copy() for name, tensor in policy.state_dict().items()}
        try:
            self._future = self._pool.submit(_collect, weights, iteration)
        except BrokenProcessPool as error:
            self._future = Future()
            self._future.set_exception(error)

    def episodes(self) -> Episodes:
        """See `Collector`.

        Raises:
            SimulationStoppedError: the process was killed.
        """
        assert self._future is not None
        try:
            return self._future.result()
        except BrokenProcessPool:
            raise SimulationStoppedError(
                "the process that simulates the episodes was killed (out of memory?); continue with --resume, or with "
                "--resume --one-process to do without it."
            ) from None

    def close(self) -> None:
        """See `Collector`."""
        self._pool.shutdown(cancel_futures=True)


class _Workplace:
    """What the collecting process keeps from one iteration to the next."""

    config: TrainingConfig
    env: ReachVectorEnv
    policy: Policy


def _prepare(config: TrainingConfig) -> None:
    """Set the collecting process up: it stops when the training process does, and only then."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def leave_with_parent() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _Workplace.config = config
    _Workplace.env = ReachVectorEnv(config.reach_task, config.episodes_per_iteration)
    _Workplace.policy, _ = build_networks(config)


def _collect(weights: Weights, iteration: int) -> Episodes:
    policy = _Workplace.policy
    policy.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return policy_episodes(_Workplace.config, _Workplace.env, policy, iteration)
