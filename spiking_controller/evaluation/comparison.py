"""Measures several controllers on the same held-out starts and goals and lays the figures side by side in one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.evaluation.classical import ClassicalAgent
from spiking_controller.evaluation.complexity import measure_complexity
from spiking_controller.evaluation.evaluate import IntegralAgent
from spiking_controller.evaluation.tables import markdown_table
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.rest import rest_metrics
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Agent, Episodes, run_episodes
from spiking_controller.tasks.metrics import reach_metrics, summarise
from spiking_controller.tasks.reach import ReachTask, get_task
from spiking_controller.tasks.set_point import SetPointIntegral

Metrics = dict[str, Any]

_ARCHITECTURES = {"spiking": "spiking", "gru": "GRU", "mlp": "MLP"}


@dataclass(frozen=True)
class Column:
    """The figures of one controller.

    Attributes:
        name: heads the column.
        source: file of its checkpoint; empty for the classical reference.
        sha256: of the checkpoint; empty for the classical reference.
        alone: task metrics, see `tasks.metrics.summarise`.
        with_integral: the same with the set-point integral; None for the classical reference, which leaves no offset.
        complexity: see `evaluation.complexity`; None for the classical reference.
        rest: see `networks.rest`; None for the classical reference.
        training_seconds: wall time that the checkpoint was trained; None where there was none or it is not known.
    """

    name: str
    source: str
    sha256: str
    alone: Metrics
    with_integral: Metrics | None
    complexity: dict[str, Metrics] | None
    rest: Metrics | None
    training_seconds: float | None


@dataclass(frozen=True)
class HeldOut:
    """Starts, rad, [goals, n], and goals, m, [goals, d], the same for all controllers."""

    start: NDArray[np.floating]
    goal: NDArray[np.floating]

    @classmethod
    def draw(cls, task: str, goals: int, seeds: Sequence[int]) -> "HeldOut":
        """For each seed as many as `goals`; those that `evaluate` draws with that seed. `task` as of `get_task`."""
        env = ReachVectorEnv(get_task(task), goals)
        starts, targets = [], []
        for seed in seeds:
            env.reset(seed=seed, options={"start": "random"})
            starts.append(env.joint_position)
            targets.append(env.goal)
        return cls(np.concatenate(starts), np.concatenate(targets))

    def run(self, task: ReachTask, agent: Agent) -> Episodes:
        """One episode for each start and goal."""
        env = ReachVectorEnv(task, len(self.goal))
        return run_episodes(env, agent, start=self.start, goals=self.goal)


def classical_column(task: ReachTask, held_out: HeldOut) -> Column:
    """The classical reference."""
    alone = summarise(reach_metrics(held_out.run(task, ClassicalAgent(task)), task))
    return Column("classical", "", "", alone, None, None, None, None)


def checkpoint_column(checkpoint: Checkpoint, name: str, held_out: HeldOut) -> Column:
    """Networks alone and with the set-point integral, as `evaluate` measures them."""
    task = checkpoint.task
    alone = held_out.run(task, SpikingAgent(checkpoint.policy))
    integral = SetPointIntegral(period=task.control_period)
    codec = ReachVectorEnv(task).codec
    helped = held_out.run(task, IntegralAgent(SpikingAgent(checkpoint.policy), integral, codec))
    return Column(
        name=name,
        source=checkpoint.source,
        sha256=checkpoint.metadata["sha256"],
        alone=summarise(reach_metrics(alone, task)),
        with_integral=summarise(reach_metrics(helped, task)),
        complexity=measure_complexity(checkpoint, alone),
        rest=rest_metrics(checkpoint.policy, checkpoint.forward_model, alone, task),
        training_seconds=checkpoint.metadata["evaluation"].get("seconds"),
    )


_REACHING = (
    ("final error, median (mm)", "final_error_m_median", 1e3, 2),
    ("final error, p90 (mm)", "final_error_m_p90", 1e3, 2),
    *((f"goals with final error under {x} cm (%)", f"share_under_{x}cm", 100.0, 1) for x in (5, 3, 2, 1)),
    *((f"steps within {x:g} cm (%)", f"share_on_target_{x:g}cm_mean", 100.0, 1) for x in (12.3, 5.0, 2.0, 1.0)),
    ("joint speed at the end, rms, median (rad/s)", "rms_final_joint_speed_median", 1.0, 4),
    ("hand jitter at the end, rms, median (mm)", "hand_jitter_m_median", 1e3, 2),
    ("posture drift in the last second, median (rad/s)", "posture_drift_rad_s_median", 1.0, 4),
    ("mean torque rate, median (N·m/s)", "mean_torque_rate_median", 1.0, 1),
    ("torques that the safety filter changed (%)", "intervention_share_mean", 100.0, 2),
)
_REST = (
    ("action at a frozen observation, deviation", "rest_action_noise", 1.0, 6),
    ("policy, spikes per neuron per second: frozen", "frozen_rate_hz", 1.0, 1),
    ("policy, spikes per neuron per second: at rest", "rest_rate_hz", 1.0, 1),
    ("policy, spikes per neuron per second: on the way", "moving_rate_hz", 1.0, 1),
    ("forward model, one-step velocity error (mrad/s)", "model_rest_error_rad_s", 1e3, 2),
    ("the same of persistence (mrad/s)", "model_rest_change_rad_s", 1e3, 2),
    ("the first divided by the second", "model_rest_error_ratio", 1.0, 2),
    ("forward model, its bias (mrad/s)", "model_rest_bias_rad_s", 1e3, 2),
)
_NETWORK = (
    ("parameters", "parameters", 1.0, 0),
    ("footprint (kB)", "footprint_bytes", 1e-3, 1),
    ("activation sparsity (%)", "activation_sparsity", 100.0, 1),
    ("spikes per neuron per second", "spikes_per_neuron_per_second", 1.0, 1),
    ("synaptic operations: ACs", "effective_acs", 1.0, 0),
    ("synaptic operations: MACs", "effective_macs", 1.0, 0),
    ("neuron updates: MACs", "neuron_update_macs", 1.0, 0),
    ("energy of synaptic operations, 45 nm (nJ)", "energy_45nm_j", 1e9, 1),
    ("the same with neuron updates (nJ)", "energy_45nm_with_neurons_j", 1e9, 1),
    ("energy of synaptic operations, Loihi (nJ)", "energy_loihi_j", 1e9, 1),
)
_NOTES = """\
Operations and energy are per control step, by NeuroBench's definitions (Yik et al. 2025): products of two non-zero
factors; ACs of spikes, MACs of analogue values. 45 nm: 4.6 pJ per MAC, 0.9 pJ per AC, without memory access (Horowitz
2014). Loihi: 23.6 pJ per synaptic operation of either kind (Davies et al. 2018). Shares of steps, and of torques, are
means over all goals. Coming to rest: the action while the observation stays that of an arm at rest at its goal; spikes
over the last second of the episodes that stay within 2 cm of the goal in it, and while the hand is farther away than
5 cm; errors while the hand is within 3 cm and the arm slower than 0.1 rad/s, but not yet still. The forward model is
needed for training and prediction, not to act."""


def table(columns: Sequence[Column]) -> str:
    """All figures as one Markdown table, aligned to be read as plain text too, with notes below it."""
    names = [column.name for column in columns]
    rows: list[list[str]] = []

    def block(title: str, entries: Sequence[tuple[str, str, float, int]], metrics: Sequence[Metrics | None]) -> None:
        rows.append([f"**{title}**", *("" for _ in columns)])
        for label, key, scale, digits in entries:
            values = [None if part is None else part[key] for part in metrics]
            if any(value is not None for value in values):
                rows.append([label, *(_cell(value, scale, digits) for value in values)])

    block("network alone", _REACHING, [column.alone for column in columns])
    block("with the set-point integral", _REACHING, [column.with_integral for column in columns])
    block("coming to rest", _REST, [column.rest for column in columns])
    for part in ("policy", "forward_model"):
        metrics = [None if column.complexity is None else column.complexity[part] for column in columns]
        block(part.replace("_", " "), _NETWORK, metrics)
    block("training", (("wall time (min)", "seconds", 1 / 60, 1),), [{"seconds": c.training_seconds} for c in columns])
    return f"{markdown_table(['', *names], rows)}\n\n{_NOTES}"


def _cell(value: float | None, scale: float, digits: int) -> str:
    return "–" if value is None else f"{scale * value:.{digits}f}"
