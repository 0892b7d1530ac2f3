"""Measures how long one update of forward model and policy takes, against the same networks from snntorch modules."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from spiking_controller.experiments.benchmarks.snntorch_network import SnntorchNetwork
from spiking_controller.networks.agent import ExploringAgent
from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import ModelUpdates, PolicyUpdates, TrainingConfig
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.training.replay_memory import ReplayMemory
from spiking_controller.training.updates import Updater

CONTROL_STEPS: Final = 45
TICKS: Final = 7
_WARM_UP: Final = 5
_EPISODES: Final = 16
_SEED: Final = 1

Update = Literal["forward model", "policy"]
Networks = Literal["shipped", "paper"]
Clock = Literal["wall", "processor"]


@dataclass(frozen=True)
class Size:
    """Neurons per hidden layer, and how many windows or roll-outs an update takes."""

    hidden: int
    batch: int


@dataclass(frozen=True)
class UpdateTimes:
    """Time of single updates of one kind at one size, s, in the order of measuring; three were taken in a row.

    Attributes:
        size, update: what was measured.
        ours: with our networks.
        snntorch: with snntorch's modules, called as in its own examples: every product in every tick.
        tuned: the same, with what need not be in the ticks taken out of them.
    """

    size: Size
    update: Update
    ours: tuple[float, ...]
    snntorch: tuple[float, ...]
    tuned: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times longer an update with snntorch modules takes, of the medians."""
        return statistics.median(self.snntorch) / statistics.median(self.ours)

    @property
    def tuned_ratio(self) -> float:
        """The same with the tuned ones."""
        return statistics.median(self.tuned) / statistics.median(self.ours)


def benchmark_config(size: Size, networks: Networks = "shipped") -> TrainingConfig:
    """The networks and updates that are measured, on the Panda.

    The structure is that of the shipped networks: a policy of two layers with latent compression, a recurrent forward
    model of one. Or it is the paper's (config/train/panda_reach_paper.yaml): two layers each without compression, a
    forward model whose first layer is recurrent from tick to tick, late features, readouts of the last layer, of which
    the policy's leaks from its output. An update of the forward model runs through 45 recorded steps, the first five of
    which set the neurons' state; one of the policy sets it on five recorded steps without gradient and then imagines
    45. The neurons are plain LIF, on both sides, because snntorch has no adaptive ones.
    """
    base = TrainingConfig(task="panda_reach", seed=_SEED)
    policy = NetworkConfig(
        hidden=(size.hidden, size.hidden),
        neuron="lif",
        ticks=TICKS,
        tick=base.reach_task.control_period / TICKS,
    )
    model = replace(policy, hidden=(size.hidden,), recurrence="step")
    if networks == "paper":
        policy = replace(policy, rank=0, readout_layers="last", delay=3, input_gains="per_input")
        model = replace(policy, recurrence="tick", recurrent_layers="first")
        policy = replace(policy, readout_leak="output")
    return replace(
        base,
        policy=policy,
        forward_model=model,
        model_updates=ModelUpdates(batch=size.batch, warm_up=_WARM_UP, unroll=CONTROL_STEPS - _WARM_UP),
        policy_updates=PolicyUpdates(batch=size.batch, warm_up=_WARM_UP, unroll=CONTROL_STEPS),
    )


def with_snntorch_modules(policy: Policy, model: ForwardModel, *, tuned: bool) -> tuple[Policy, ForwardModel]:
    """Put the snntorch counterpart of its network into each; changes and returns them."""
    for learner in (policy, model):
        original = learner.network
        assert isinstance(original, SpikingNetwork)
        learner.network = SnntorchNetwork(original, tuned=tuned)
    return policy, model


def measure_updates(
    size: Size, repeats: int, networks: Networks = "shipped", clock: Clock = "wall"
) -> tuple[UpdateTimes, UpdateTimes]:
    """Time `repeats` updates of each network with ours and with snntorch's modules, in turn, on the same data.

    Processor time counts what all threads of this process have used; other programs then matter less.

    The data are windows of a few noise-driven episodes of the simulated Panda. One update of each kind goes ahead
    unmeasured: it compiles kernels and fills PyTorch's memory pools.

    Returns:
        The forward model's times and the policy's.
    """
    config = benchmark_config(size, networks)
    memory = _recorded_episodes(config)
    reachable = sample_goals(config.reach_task, np.random.default_rng(_SEED), _EPISODES * size.batch)
    sides = []
    for both in (
        build_networks(config),
        with_snntorch_modules(*build_networks(config), tuned=False),
        with_snntorch_modules(*build_networks(config), tuned=True),
    ):
        updater = Updater(config, *both, reachable)
        updater.model.fit_scale(
            torch.from_numpy(memory.observation[:, :-1].reshape(-1, memory.observation.shape[-1])),
            torch.from_numpy(memory.observation[:, 1:].reshape(-1, memory.observation.shape[-1])),
        )
        sides.append((updater, np.random.default_rng(_SEED)))
    model_times: tuple[list[float], ...] = ([], [], [])
    policy_times: tuple[list[float], ...] = ([], [], [])
    for _ in range(repeats + 1):
        for (updater, rng), taken in zip(sides, model_times, strict=True):
            taken.append(_seconds(updater.update_model, memory, rng, clock))
        for (updater, rng), taken in zip(sides, policy_times, strict=True):
            taken.append(_seconds(updater.update_policy, memory, rng, clock))
    return (
        UpdateTimes(size, "forward model", *(tuple(taken[1:]) for taken in model_times)),
        UpdateTimes(size, "policy", *(tuple(taken[1:]) for taken in policy_times)),
    )


def _recorded_episodes(config: TrainingConfig) -> ReplayMemory:
    task = config.reach_task
    memory = ReplayMemory(
        _EPISODES, task.steps_per_episode, ObservationCodec(task).size, task.controlled_joints, task.goal_dimensions
    )
    noise = config.exploration
    agent = ExploringAgent(
        None, task.controlled_joints, noise.random_deviation, noise.correlation, np.random.default_rng(_SEED)
    )
    memory.add(run_episodes(ReachVectorEnv(task, _EPISODES), agent, seed=_SEED))
    return memory


def _seconds(
    update: Callable[[ReplayMemory, np.random.Generator, float], object],
    memory: ReplayMemory,
    rng: np.random.Generator,
    clock: Clock,
) -> float:
    read = time.process_time if clock == "processor" else time.perf_counter
    began = read()
    update(memory, rng, 0.0)
    return read() - began


def software_versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    packages = {name: version(name) for name in ("torch", "snntorch", "numba", "numpy")}
    return {"python": platform.python_version(), **packages}


def processor_name() -> str:
    """The processor as the operating system names it."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
