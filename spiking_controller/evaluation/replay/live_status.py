"""What the evaluator node says about a running evaluation, as plain data: arrays to plot, and entries to read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.evaluation.replay.model_judge import HORIZONS
from spiking_controller.evaluation.replay.report import tables
from spiking_controller.evaluation.tables import cell

Metrics = dict[str, Any]

_SHOWN = "10"
"""Of the horizons, the one that a forward model is judged by in one line."""


class Series(NamedTuple):
    """Figures to plot: `values` of any shape, NaN where there is none yet, and for each axis what stands along it."""

    axes: tuple[str, ...]
    values: NDArray[np.float64]


class Status(NamedTuple):
    """An entry to read: of what, whether it needs attention, one line, and figures by name."""

    name: str
    is_warning: bool
    summary: str
    values: dict[str, str]


def series(metrics: Metrics) -> dict[str, Series]:
    """The chief figures by name.

    Returns:
        joint_error, hand_error: of persistence, constant velocity and the forward models, HORIZONS control steps ahead,
            rad and m, [2 + checkpoints, horizons].
        following_error: one step ahead while following the run, rad, [checkpoints].
        torque_difference: from the recorded torque, root mean square, N·m, [checkpoints].
        firing_rate: spikes per neuron and second of policy and forward model, [checkpoints, 2].
    """
    checkpoints = metrics["checkpoints"]
    names = [checkpoint["name"] for checkpoint in checkpoints]
    untrained = metrics["baselines"]
    forecasts = [untrained["stay"], untrained["linear"], *(c["forward_model"]["horizons"] for c in checkpoints)]
    ahead = f"{', '.join(map(str, HORIZONS))} steps ahead"
    errors = {
        name: Series(
            (_listed(["the state stays", "linear extrapolation", *names]), ahead),
            _numbers([[part.get(str(horizon), {}).get(key) for horizon in HORIZONS] for part in forecasts]),
        )
        for name, key in (("joint_error", "joint_rad"), ("hand_error", "hand_m"))
    }
    rates = [
        [c["activity"][part].get("spikes_per_neuron_per_second") for part in ("policy", "forward_model")]
        for c in checkpoints
    ]
    following = [c["forward_model"]["following_rad"] for c in checkpoints]
    difference = [c["policy"]["torque_difference_rms"] for c in checkpoints]
    return {
        **errors,
        "following_error": Series((_listed(names),), _numbers(following)),
        "torque_difference": Series((_listed(names),), _numbers(difference)),
        "firing_rate": Series((_listed(names), "policy, forward model"), _numbers(rates)),
    }


def statuses(metrics: Metrics, problem: str, counts: Mapping[str, int]) -> list[Status]:
    """One entry for the stream, and one for each column of the tables that `spiking_controller replay` prints.

    Args:
        metrics: see `live.LiveEvaluation.metrics`.
        problem: why the latest joint state was of no use; empty if it was.
        counts: of messages, by what there was about them.
    """
    columns: dict[str, dict[str, str]] = {}
    for _, head, rows in tables(metrics, []):
        for index, name in enumerate(head):
            columns.setdefault(name, {}).update({label: cells[index] for label, cells in rows if cells[index]})
    judged = {c["name"]: _verdict(metrics, c) for c in metrics["checkpoints"]}
    return [
        _stream(metrics, problem, counts),
        *(Status(name, *judged.get(name, (False, "")), values) for name, values in columns.items()),
    ]


def _stream(metrics: Metrics, problem: str, counts: Mapping[str, int]) -> Status:
    stream = metrics["stream"]
    states, steps = stream["joint_states"], stream["control_steps"]
    values = {
        "run": str(metrics["run"]),
        "jumps back in time": str(metrics["jumps_back"]),
        "duration (s)": f"{stream['duration_s']:.3f}",
        "joint states": str(states["used"]),
        "joint states per second": cell(stream["rate_hz"]),
        "estimated velocities": str(states["estimated_velocities"]),
        "control steps": str(steps),
        "stretches": str(stream["stretches"]),
        "goals": str(metrics["goals"]["goals"]),
        **{f"not used: {reason}": str(count) for reason, count in stream["dropped"].items()},
        **{f"goal not counted: {reason}": str(count) for reason, count in metrics["goals"]["not_counted"].items()},
        **{reason: str(count) for reason, count in counts.items()},
    }
    if problem or not states["used"] + states["waiting"]:
        return Status("stream", True, problem or "waiting for joint states", values)
    if steps and stream["dropped"].get("control step without a torque") == steps:
        wanted = (
            "joint_states come without efforts"
            if stream["torques"] == "measured"
            else "none came on controller/torque; with torque: measured those of the joint states are taken"
        )
        return Status("stream", True, f"the forward models cannot be judged without torques: {wanted}", values)
    run = f"run {metrics['run']}, {stream['duration_s']:.1f} s"
    return Status("stream", False, f"{run}, is complete" if metrics["complete"] else f"judging {run}", values)


def _verdict(metrics: Metrics, checkpoint: Metrics) -> tuple[bool, str]:
    """Whether a forward model is worse than what needs none, and a line that says how good it is."""
    horizons, untrained = checkpoint["forward_model"]["horizons"], metrics["baselines"]
    if not horizons:
        return False, f"not yet {int(_SHOWN)} control steps to predict"
    error, persistence, constant_velocity = (
        part[_SHOWN]["joint_rad"] for part in (horizons, untrained["stay"], untrained["linear"])
    )
    is_worse = error >= min(persistence, constant_velocity)
    judged = "does not predict this arm" if is_worse else "predicts this arm"
    line = f"{judged}: {cell(error, 1e3)} mrad {_SHOWN} steps ahead"
    untrained_errors = f"the state stays {cell(persistence, 1e3)}, linear extrapolation {cell(constant_velocity, 1e3)}"
    return is_worse, f"{line}, {untrained_errors}"


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _numbers(values: list[Any]) -> NDArray[np.float64]:
    """With NaN for None."""
    return np.array(values, dtype=np.float64)
