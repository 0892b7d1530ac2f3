"""How fast a control tick is: times the networks, and sums up what was heard of a live graph. No ROS here.

The other half, which brings graphs up and listens to them, is `commands.benchmark_control`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.tables import plain_table
from spiking_controller.experiments.benchmarks.snntorch_network import SnntorchNetwork
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]
TimeArray = NDArray[np.int64]

WARM_UP: Final = 50
"""Control steps that are run ahead of the measured ones: they compile kernels and fill caches."""
_SEED: Final = 1
_QUIET_LOAD: Final = 0.3
_QUANTILES: Final = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
_SHOWN: Final = ("p50", "p99")
"""Of the quantiles, in the table of control steps."""


@dataclass(frozen=True)
class TickTimes:
    """Wall time of single control steps, s, [steps]: the policy's part and the forward model's."""

    policy: FloatArray
    forward_model: FloatArray

    @property
    def both(self) -> FloatArray:
        """Policy and forward model of each step."""
        return self.policy + self.forward_model


def with_snntorch_modules(checkpoint: Checkpoint) -> SpikingAgent:
    """The checkpoint's networks from plain snntorch modules; changes the checkpoint's.

    Raises:
        ConfigError: they are no spiking networks, or recurrent from tick to tick.
    """
    for learner in (checkpoint.policy, checkpoint.forward_model):
        if not isinstance(learner.network, SpikingNetwork):
            raise ConfigError(f"{checkpoint.source} holds no spiking networks; give a checkpoint that does.")
        learner.network = SnntorchNetwork(learner.network, tuned=True)
    return SpikingAgent(checkpoint.policy, checkpoint.forward_model)


def measure_ticks(model: str, steps: int) -> tuple[TickTimes, TickTimes]:
    """Time the networks at batch 1, ours and the same ones from snntorch modules, on the same observations.

    The observations are those of episodes that our networks drive; after each, the other side has its turn. A step is
    what the controller asks for: an action for an observation, and the prediction of the next one; NumPy in, NumPy out.

    Args:
        model: path of the checkpoint.
        steps: control steps to measure.
    Returns:
        Our times and those of snntorch's modules.
    """
    checkpoint = load_checkpoint(model)
    agents = (
        SpikingAgent(checkpoint.policy, checkpoint.forward_model),
        with_snntorch_modules(load_checkpoint(model)),
    )
    length = checkpoint.task.steps_per_episode
    env = ReachVectorEnv(checkpoint.task, -(-(WARM_UP + steps) // length), threads=1)
    episodes = run_episodes(env, agents[0], seed=_SEED)
    times = np.empty((2, 2, WARM_UP + steps))
    for episode, goal in enumerate(episodes.goal[:, None]):
        first = episode * length
        for agent, taken in zip(agents, times, strict=True):
            agent.reset(1)
            for now in range(min(length, WARM_UP + steps - first)):
                observation = episodes.observation[episode : episode + 1, now]
                began = time.perf_counter()
                agent.act(observation, goal)
                acted = time.perf_counter()
                agent.predict(observation)
                taken[:, first + now] = acted - began, time.perf_counter() - acted
    ours, snntorch = (TickTimes(*taken[:, WARM_UP:]) for taken in times)
    return ours, snntorch


class Traffic(NamedTuple):
    """What was heard of one topic, message by message, [messages] each.

    Attributes:
        stamp: of the header, ns.
        sent: when the publisher handed it to the middleware, ns of the wall clock.
        received: when the middleware had it in the listening process, ns of the same clock.
        number: counted by the publisher, so that it also shows what was not heard.
    """

    stamp: TimeArray
    sent: TimeArray
    received: TimeArray
    number: TimeArray


@dataclass(frozen=True)
class LiveRun:
    """One run of the live graph.

    Attributes:
        trainer: whether the trainer node ran.
        latency: from a joint state's publication to the arrival of the torque that answers it, s, [answers heard].
        states: joint states published.
        unanswered: joint states that no torque was published for.
        late: torques that arrived when the next joint state was already out.
        control_steps: that were due.
        counts: what the controller itself counted: "missed control step" and the like.
        goals: accepted by the controller.
        training_updates: how often the trainer has trained.
        model_updates: networks that it sent, because they were better.
        duration: wall time, s.
        real_time_factor: simulated seconds per second.
    """

    trainer: bool
    latency: FloatArray
    states: int
    unanswered: int
    late: int
    control_steps: int
    counts: Mapping[str, int]
    goals: int
    training_updates: int
    model_updates: int
    duration: float
    real_time_factor: float


def summed_up(
    states: Traffic,
    torques: Traffic,
    control_period: float,
    counts: Mapping[str, int],
    *,
    trainer: bool,
    goals: int,
    training_updates: int,
    model_updates: int,
) -> LiveRun:
    """What the traffic of joint states and torques says about a run.

    A torque carries the stamp of the joint state that it answers. What is counted lies between the first and the last
    pair, by the publishers' own numbers, so that messages which only the listener lost do not count.

    Raises:
        ConfigError: fewer than two torques were heard.
    """
    stamps, of_state, of_torque = np.intersect1d(states.stamp, torques.stamp, return_indices=True)
    if len(stamps) < 2:
        raise ConfigError("the controller answered no joint states; nothing was measured.")
    latency = torques.received[of_torque] - states.sent[of_state]
    published, answers = (
        int(traffic.number[chosen[-1]] - traffic.number[chosen[0]]) + 1
        for traffic, chosen in ((states, of_state), (torques, of_torque))
    )
    simulated = float(stamps[-1] - stamps[0]) / NANOSECONDS
    duration = float(states.sent[of_state[-1]] - states.sent[of_state[0]]) / NANOSECONDS
    state_period = (stamps[-1] - stamps[0]) / (published - 1)
    return LiveRun(
        trainer=trainer,
        latency=latency / NANOSECONDS,
        states=published,
        unanswered=max(published - answers, 0),
        late=int(np.count_nonzero(latency > state_period)),
        control_steps=round(simulated / control_period),
        counts=dict(counts),
        goals=goals,
        training_updates=training_updates,
        model_updates=model_updates,
        duration=duration,
        real_time_factor=simulated / duration,
    )


def report(
    ticks: tuple[TickTimes, TickTimes], runs: list[LiveRun], machine: Mapping[str, Any], load: float
) -> dict[str, Any]:
    """Every figure of `benchmark control`, ready for JSON.

    Args:
        ticks: ours and snntorch's.
        runs: of the live graph.
        machine: processor, cores, versions, threads.
        load: load average before the measurement.
    """
    ours, snntorch = ticks
    return {
        "benchmark": "control",
        **machine,
        "load_before": load,
        "ticks": {
            part: {
                "seconds": _quantiles(getattr(ours, part)),
                "snntorch_seconds": _quantiles(getattr(snntorch, part)),
                "ratio": float(np.median(getattr(snntorch, part)) / np.median(getattr(ours, part))),
            }
            for part in ("policy", "forward_model", "both")
        },
        "live": [
            {
                "trainer": run.trainer,
                "duration": run.duration,
                "real_time_factor": run.real_time_factor,
                "goals": run.goals,
                "training_updates": run.training_updates,
                "model_updates": run.model_updates,
                "latency_seconds": _quantiles(run.latency),
                "joint_states": run.states,
                "unanswered": run.unanswered,
                "late": run.late,
                "control_steps": run.control_steps,
                "counted_by_the_controller": dict(run.counts),
            }
            for run in runs
        ],
    }


def _quantiles(seconds: FloatArray) -> dict[str, float]:
    return {name: float(np.quantile(seconds, fraction)) for name, fraction in _QUANTILES}


def table(metrics: Mapping[str, Any]) -> str:
    """The figures of `report` as text."""
    versions = ", ".join(f"{name} {number}" for name, number in metrics["versions"].items())
    lines = [
        f"{metrics['processor']}, {metrics['cores']} cores, PyTorch threads: {metrics['threads']}; {versions}",
        "",
        plain_table(
            ["One control step at batch 1, ms", "ours p50", "p99", "snntorch p50", "p99", "ratio"],
            [
                [
                    {"forward_model": "forward model", "both": "policy and forward model"}.get(part, part),
                    *(f"{1e3 * row[key][name]:.3f}" for key in ("seconds", "snntorch_seconds") for name in _SHOWN),
                    f"{row['ratio']:.2f}",
                ]
                for part, row in metrics["ticks"].items()
            ],
        ),
    ]
    for run in metrics["live"]:
        latency, counted = run["latency_seconds"], run["counted_by_the_controller"]
        lines += [
            "",
            f"Live graph {'with' if run['trainer'] else 'without'} the trainer: {run['duration']:.0f} s at "
            f"{run['real_time_factor']:.3f} of real time, {run['goals']} goals"
            + (
                f", trained {run['training_updates']} times, networks sent {run['model_updates']} times"
                if run["trainer"]
                else ""
            ),
            "  joint state to torque, ms: " + ", ".join(f"{name} {1e3 * latency[name]:.3f}" for name, _ in _QUANTILES),
            f"  of {run['joint_states']} joint states: {run['unanswered']} unanswered, {run['late']} answered late",
            f"  of {run['control_steps']} control steps, by the controller's count: "
            + ", ".join(f"{count} {name}" for name, count in counted.items()),
        ]
    if metrics["load_before"] > _QUIET_LOAD * metrics["cores"]:
        lines += [
            "",
            f"Other programs were running (load average {metrics['load_before']:.1f} on {metrics['cores']} cores). "
            "Repeat on an idle machine.",
        ]
    return "\n".join(lines)
