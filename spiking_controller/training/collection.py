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
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.tasks.disturbances import sample_hindrances
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes, run_episodes
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.training.observed_agent import ObservedAgent, Observers
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


class PolicyEpisodes:
    """The arms of a run, one for each episode of an iteration; kept from one iteration to the next."""

    def __init__(self, config: TrainingConfig) -> None:
        """Reserve the simulations; where something disturbs the arms, with the live controller's observers."""
        self._config = config
        self._env = ReachVectorEnv(config.reach_task, config.episodes_per_iteration)
        self._observers = Observers(self._env) if config.reach_task.disturbances > 0.0 else None

    def collect(self, policy: Policy, model: ForwardModel, iteration: int) -> Episodes:
        """One episode of every arm with the policy; its noise fades with the iterations.

        Args:
            policy: acts.
            model: tells the observers what it expects.
            iteration: of the run, from 1 on.
        """
        config, env, observers = self._config, self._env, self._observers
        progress = (iteration - 1) / config.iterations
        networks = SpikingAgent(policy) if observers is None else SpikingAgent(policy, model)
        exploring = _exploring(config, networks, config.exploration.policy_deviation * (1.0 - progress), iteration)
        goals = sample_goals(
            config.reach_task,
            generator(config.seed, Purpose.GOALS, iteration),
            env.num_envs,
            config.policy_updates.goals.hard,
        )
        seed = environment_seed(config.seed, Purpose.POLICY_EPISODES, iteration)
        if observers is None:
            return run_episodes(env, exploring, goals=goals, seed=seed)
        rng = generator(config.seed, Purpose.DISTURBANCES, iteration)
        hindrances = sample_hindrances(config.reach_task, rng, env.num_envs)
        agent = ObservedAgent(exploring, networks, observers)
        return run_episodes(env, agent, goals=goals, hindrances=hindrances, seed=seed)


def _exploring(config: TrainingConfig, agent: SpikingAgent | None, deviation: float, iteration: int) -> ExploringAgent:
    rng = generator(config.seed, Purpose.NOISE, iteration)
    return ExploringAgent(agent, config.reach_task.controlled_joints, deviation, config.exploration.correlation, rng)


class Collector(Protocol):
    """Collects an iteration's episodes from the networks as they are at `start`."""

    def start(self, policy: Policy, model: ForwardModel, iteration: int) -> None:
        """Begin; the networks may be trained on at once."""

    def episodes(self) -> Episodes:
        """Wait for the episodes of the last `start`."""

    def close(self) -> None:
        """Give back what was reserved."""


class InlineCollector:
    """Simulates in this process, before training goes on."""

    def __init__(self, config: TrainingConfig) -> None:
        self._arms = PolicyEpisodes(config)

    def start(self, policy: Policy, model: ForwardModel, iteration: int) -> None:
        """See `Collector`."""
        self._episodes = self._arms.collect(policy, model, iteration)

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

    def start(self, policy: Policy, model: ForwardModel, iteration: int) -> None:
        """See `Collector`."""
        try:
            self._future = self._pool.submit(_collect, _weights(policy), _weights(model), iteration)
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


def _weights(network: Policy | ForwardModel) -> Weights:
    """Copied, since the network is trained on."""
    return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}


class _Workplace:
    """What the collecting process keeps from one iteration to the next."""

    arms: PolicyEpisodes
    policy: Policy
    model: ForwardModel


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
    _Workplace.arms = PolicyEpisodes(config)
    _Workplace.policy, _Workplace.model = build_networks(config)


def _collect(policy: Weights, model: Weights, iteration: int) -> Episodes:
    for network, weights in ((_Workplace.policy, policy), (_Workplace.model, model)):
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return _Workplace.arms.collect(_Workplace.policy, _Workplace.model, iteration)
