"""What a run of the adaptation experiment notes down, goal by goal, and the medians of its measurements."""

from typing import NamedTuple

import numpy as np

from spiking_controller.experiments.adaptation.plan import MEASURED


class GoalRow(NamedTuple):
    """One goal of a run, as the table has it.

    Attributes:
        goal: number.
        time_s: simulated time at its start, since the change.
        phase: see `AdaptationPlan.phase`.
        final_error_m: mean distance in the last half second.
        prediction_rad, prediction_m: 10-step error of the running forward model on what was recorded on the way; joint
            angles and hand.
        first_prediction_rad, first_prediction_m: the same of the forward model that the run started with, on the same.
        version: of the networks that ran, sha256.
    """

    goal: int
    time_s: float
    phase: str
    final_error_m: float
    prediction_rad: float
    prediction_m: float
    first_prediction_rad: float
    first_prediction_m: float
    version: str


class Event(NamedTuple):
    """Something that happened between two goals: its simulated time since the change, its kind, and a sentence."""

    time_s: float
    kind: str
    text: str


class Footprint(NamedTuple):
    """What a run takes up after a goal.

    Attributes:
        time_s: simulated time since the change.
        resident_mb: largest resident memory of the process so far, MB.
        disk_mb: files of the memory and the versions, MB; 0 without a folder.
    """

    time_s: float
    resident_mb: float
    disk_mb: float


def block_medians(rows: list[GoalRow]) -> dict[str, dict[str, float]]:
    """Medians over the goals of each measurement: errors in m, 10-step prediction errors in rad and m.

    Args:
        rows: of a complete run.
    """
    metrics = [name for name in GoalRow._fields if name.endswith(("_m", "_rad"))]
    return {
        phase: {
            name: float(np.nanmedian([getattr(row, name) for row in rows if row.phase == phase])) for name in metrics
        }
        for phase in MEASURED
    }


def after_change(rows: list[GoalRow]) -> dict[str, float]:
    """How the goals just after the change went, `p90` and `worst`; how the same ones went before, `before_p90` and
    `before_worst`; and how all since the change, `all_median` and `all_p90`; final errors in m.

    Args:
        rows: of a complete run.
    """
    before, first = ([row.final_error_m for row in rows if row.phase == phase] for phase in MEASURED[:2])
    every = [row.final_error_m for row in rows if row.time_s >= 0.0]
    return {
        "before_p90": float(np.quantile(before, 0.9)),
        "before_worst": float(np.max(before)),
        "p90": float(np.quantile(first, 0.9)),
        "worst": float(np.max(first)),
        "all_median": float(np.median(every)),
        "all_p90": float(np.quantile(every, 0.9)),
        "all": len(every),
    }
