"""What deployment to a chip gains and costs: operations, energy, and the closed loop beside its own noise floor."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.evaluation.comparison import HeldOut
from spiking_controller.evaluation.complexity import measure_complexity
from spiking_controller.evaluation.evaluate import IntegralAgent
from spiking_controller.evaluation.tables import cell, plain_table
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, dump_checkpoint
from spiking_controller.networks.deployment import Precision, deployed, latent_networks
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes
from spiking_controller.tasks.metrics import reach_metrics, summarise
from spiking_controller.tasks.set_point import SetPointIntegral

PERTURBATION: Final = 1e-6
"""Of every joint of the starting posture, rad: too small to matter, except through chaos in the closed loop."""
_RESAMPLES: Final = 5000
_COMPARED: Final = ("final_error_m", "hand_jitter_m")
_LOOPS: Final = ("network_alone", "with_integral")

FloatArray = NDArray[np.floating]
Metrics = dict[str, Any]


def multiply_out_where_it_pays(checkpoint: Checkpoint, episodes: Episodes) -> tuple[str, ...]:
    """The networks that need less energy with their latent weights multiplied out, counted on these episodes."""
    candidates = latent_networks(checkpoint)
    if not candidates:
        return ()
    latent, full = (
        measure_complexity(deployed(checkpoint, Precision(), names), episodes) for names in ((), candidates)
    )
    return tuple(name for name in candidates if full[name]["energy_45nm_j"] < latent[name]["energy_45nm_j"])


def deploy(checkpoint: Checkpoint, precision: Precision, *, goals: int, seed: int) -> tuple[bytes, Metrics]:
    """Deploy a checkpoint and measure what that changes, on the goals and starts of `evaluate` with that seed.

    Args:
        checkpoint: of two spiking networks.
        precision: of the numbers on the chip.
        goals: number of episodes, one goal each, at least 2.
        seed: of starts and goals.
    Returns:
        The deployed checkpoint's file, and plain data: the setting; `multiplied_out`, names of networks; `complexity`
        `before` and `after` (see `evaluation.complexity`); for `network_alone` and `with_integral` the metrics
        `final_error_m` and `hand_jitter_m` in m: median `before` and `after`, and `paired_difference`s, see
        `paired_difference`, of deployed minus original and, as `noise_floor`, of the original with its starting
        postures moved by `PERTURBATION` minus the original.
    Raises:
        ConfigError: a network is not spiking, or a precision is out of range.
    """
    deployed(checkpoint, precision)  # refuses what cannot be deployed before anything is measured
    task = checkpoint.task
    env = ReachVectorEnv(task, goals)
    env.reset(seed=seed, options={"start": "random"})
    held_out = HeldOut(env.joint_position, env.goal)
    moved = HeldOut(held_out.start + PERTURBATION, held_out.goal)
    before = _episodes(checkpoint, held_out)
    multiplied_out = multiply_out_where_it_pays(checkpoint, before[0])
    on_chip = deployed(checkpoint, precision, multiplied_out)
    after, perturbed = _episodes(on_chip, held_out), _episodes(checkpoint, moved)
    figures = summarise(reach_metrics(after[0], task))
    data = dump_checkpoint(
        on_chip.policy,
        on_chip.forward_model,
        on_chip.config,
        evaluation={"seconds": checkpoint.metadata["evaluation"].get("seconds"), **figures},
        parent=checkpoint.metadata["sha256"],
    )
    return data, {
        "checkpoint": checkpoint.source,
        "sha256": checkpoint.metadata["sha256"],
        "task": task.name,
        "goals": goals,
        "seed": seed,
        **asdict(precision),
        "multiplied_out": list(multiplied_out),
        "complexity": {
            "before": measure_complexity(checkpoint, before[0]),
            "after": measure_complexity(on_chip, after[0]),
        },
        **{
            loop: _compared(*(reach_metrics(run, task) for run in runs))
            for loop, runs in zip(_LOOPS, zip(before, after, perturbed, strict=True), strict=True)
        },
    }


def paired_difference(values: FloatArray, reference: FloatArray) -> dict[str, float]:
    """How values [n] differ from those of the same episodes in `reference`, n at least 2.

    Returns:
        The `median` difference with its percentile bootstrap interval of 95 % (Efron 1979), `low` to `high`, and
        `absolute_p90`, which 90 % of the differences do not exceed in size.
    """
    difference = np.asarray(values - reference, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(len(difference), size=(_RESAMPLES, len(difference)))
    low, high = np.quantile(np.median(difference[chosen], axis=1), (0.025, 0.975))
    return {
        "median": float(np.median(difference)),
        "low": float(low),
        "high": float(high),
        "absolute_p90": float(np.quantile(np.abs(difference), 0.9)),
    }


def _episodes(checkpoint: Checkpoint, held_out: HeldOut) -> tuple[Episodes, Episodes]:
    """Episodes of the network alone and with the set-point integral."""
    task = checkpoint.task
    alone = held_out.run(task, SpikingAgent(checkpoint.policy))
    integral = SetPointIntegral(period=task.control_period)
    codec = ReachVectorEnv(task).codec
    return alone, held_out.run(task, IntegralAgent(SpikingAgent(checkpoint.policy), integral, codec))


def _compared(before: Metrics, after: Metrics, perturbed: Metrics) -> dict[str, Metrics]:
    return {
        name: {
            "before": float(np.median(before[name])),
            "after": float(np.median(after[name])),
            "paired_difference": paired_difference(after[name], before[name]),
            "noise_floor": paired_difference(perturbed[name], before[name]),
        }
        for name in _COMPARED
    }


_COSTS: Final = (
    ("footprint (kB)", "footprint_bytes", 1e-3),
    ("synaptic operations: ACs", "effective_acs", 1.0),
    ("synaptic operations: MACs", "effective_macs", 1.0),
    ("neuron updates: MACs", "neuron_update_macs", 1.0),
    ("energy of synaptic operations (nJ)", "energy_45nm_j", 1e9),
    ("the same with neuron updates (nJ)", "energy_45nm_with_neurons_j", 1e9),
)
_NOTE: Final = """\
Operations and energy are per control step, by NeuroBench's definitions (Yik et al. 2025), at 4.6 pJ per MAC and 0.9 pJ
per AC of 32-bit floating point in 45 nm, without memory access (Horowitz 2014), before and after: what the fewer bits
save comes on top. Differences are episode by episode, on the same goals and starts, with a 95 % bootstrap interval of
their median. The noise floor is the same for the undeployed networks, started 1e-6 rad beside: what chaos does."""


def table(report: Metrics) -> str:
    """The report of `deploy` as text."""
    complexity = report["complexity"]
    parts = list(complexity["before"])
    costs = [
        [label, *(cell(complexity[when][part][key], scale) for part in parts for when in ("before", "after"))]
        for label, key, scale in _COSTS
    ]
    head = [f"{part.replace('_', ' ')}, {when}" for part in parts for when in ("before", "after")]
    loops = [
        [f"{metric}, {loop.replace('_', ' ')}", *_loop_cells(report[loop][name])]
        for metric, name in zip(("final error", "hand jitter at the end"), _COMPARED, strict=True)
        for loop in _LOOPS
    ]
    loop_head = ["median before", "after", "difference", "noise floor", "|difference|, p90", "|noise|, p90"]
    return "\n\n".join((plain_table(["per control step", *head], costs), plain_table(["mm", *loop_head], loops), _NOTE))


def _loop_cells(metric: Metrics) -> Sequence[str]:
    pairs = [{key: 1e3 * value for key, value in metric[of].items()} for of in ("paired_difference", "noise_floor")]
    return [
        *(f"{1e3 * metric[when]:.2f}" for when in ("before", "after")),
        *(f"{pair['median']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]" for pair in pairs),
        *(f"{pair['absolute_p90']:.2f}" for pair in pairs),
    ]
