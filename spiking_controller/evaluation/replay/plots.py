"""Draws a replay and puts tables and pictures into one HTML file that needs nothing else."""

import base64
import html
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spiking_controller.evaluation.plot_style import COLOURS, GRID, MUTED, STYLE, label_distances
from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator
from spiking_controller.evaluation.replay.model_judge import FOLLOWED, LONGEST_HORIZON
from spiking_controller.evaluation.tables import Row, html_table
from spiking_controller.units import NANOSECONDS

_POINTS = 1500
"""A line is drawn with so many points at most; each stands for the mean of those it replaces."""


def draw_horizons(evaluator: ReplayEvaluator) -> Figure | None:
    """Error of joints and hand against how far ahead was predicted."""
    windows = evaluator.untrained.persistence.windows
    if not windows:
        return None
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    lines = [
        ("the state stays", evaluator.untrained.persistence, MUTED, ":"),
        ("linear extrapolation", evaluator.untrained.constant_velocity, MUTED, "--"),
        *(
            (name, judge.model.horizons, COLOURS[index % len(COLOURS)], "-")
            for index, (name, judge) in enumerate(zip(evaluator.names, evaluator.judges, strict=True))
        ),
    ]
    ahead = evaluator.task.control_period * np.arange(1, LONGEST_HORIZON + 1)
    left, right = figure.subplots(1, 2)
    for name, errors, colour, style in lines:
        left.plot(ahead, 1e3 * errors.joint_rad.mean(axis=1) / windows, color=colour, linestyle=style, label=name)
        right.plot(ahead, errors.hand_m / windows, color=colour, linestyle=style)
    for axes, title in ((left, "mean error of the joints (mrad)"), (right, "mean error of the hand")):
        axes.set(xlabel="predicted ahead (s)", title=title, yscale="log")
        axes.grid(color=GRID)
    low, high = right.get_ylim()
    label_distances(right.yaxis)
    right.set_ylim(low, high)
    left.legend(frameon=False, fontsize=9)
    return figure


def draw_following(evaluator: ReplayEvaluator) -> Figure | None:
    """The error one step ahead over time."""
    series = [judge.model.errors for judge in evaluator.judges]
    if not any(series):
        return None
    start = min(errors[0][0] for errors in series if errors)
    figure, axes = _one_axes("error one control step ahead (mrad)")
    for name, errors, colour in zip(evaluator.names, series, _colours(len(series)), strict=True):
        time, value = _thinned(errors, start)
        axes.plot(time, 1e3 * value, color=colour, label=name, linewidth=1.1)
    axes.set_ylim(bottom=0.0)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def draw_goals(evaluator: ReplayEvaluator) -> Figure | None:
    """Distance of the hand from its goal in the recorded run."""
    distances, goals = evaluator.goals.distances, evaluator.goals.goals
    if not distances or not goals:
        return None
    start = distances[0][0]
    figure, axes = _one_axes("distance of the hand from its goal, as recorded")
    time, value = _thinned(distances, start)
    axes.plot(time, np.maximum(value, 5e-4), color=COLOURS[0], linewidth=1.3)
    for set_at, _, _ in goals:
        axes.axvline((set_at - start) / NANOSECONDS, color=GRID, zorder=0)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    label_distances(axes.yaxis)
    axes.set_ylim(low, high)
    return figure


def draw_torques(evaluator: ReplayEvaluator) -> Figure | None:
    """Recorded torques and those that the policies would have commanded, joint by joint, at the start."""
    if not any(judge.policy.shown for judge in evaluator.judges):
        return None
    joints = evaluator.task.controlled_joints
    rows = (joints + 1) // 2
    figure = Figure(figsize=(10, 1.9 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).flatten()
    for joint, axes in enumerate(grid[:joints]):
        for index, (name, judge) in enumerate(zip(evaluator.names, evaluator.judges, strict=True)):
            if not judge.policy.shown:
                continue
            time = np.array([time for time, _, _ in judge.policy.shown], dtype=np.int64)
            seconds = (time - time[0]) / NANOSECONDS
            recorded, wanted = (np.array([row[part] for row in judge.policy.shown]) for part in (1, 2))
            if index == 0:
                axes.plot(seconds, recorded[:, joint], color=MUTED, linewidth=2.2, label="recorded")
            axes.plot(seconds, wanted[:, joint], color=COLOURS[index % len(COLOURS)], linewidth=1.0, label=name)
        axes.set_ylabel(f"joint {joint + 1} (N·m)")
    for axes in grid[joints:]:
        axes.set_axis_off()
    for axes in grid[max(0, joints - 2) : joints]:
        axes.set_xlabel("time (s)")
    grid[0].legend(frameon=False, fontsize=8)
    return figure


def draw_activity(evaluator: ReplayEvaluator) -> Figure | None:
    """Share of hidden units that are active, over time."""
    figure, axes = _one_axes("active hidden units (%)")
    for name, judge, colour in zip(evaluator.names, evaluator.judges, _colours(len(evaluator.names)), strict=True):
        for part, meter, style in (("policy", judge.policy.meter, "-"), ("forward model", judge.model.meter, "--")):
            percent = 100 * np.array(meter.active_fractions)
            seconds = evaluator.task.control_period * FOLLOWED * (np.arange(len(percent)) + 0.5)
            axes.plot(seconds, percent, color=colour, linestyle=style, label=f"{name}, {part}")
    if not any(len(line.get_xdata()) for line in axes.lines):
        return None
    axes.set_xlabel("time in control steps (s)")
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False, fontsize=9)
    return figure


DRAWINGS: tuple[tuple[str, Callable[[ReplayEvaluator], Figure | None]], ...] = (
    ("Forward model: error against how far ahead it predicts", draw_horizons),
    ("Forward model: error one step ahead, over the run", draw_following),
    ("Policy: torque that it would have commanded", draw_torques),
    ("Recorded run: distance to the goal", draw_goals),
    ("Activity of the networks", draw_activity),
)


def report_page(
    title: str,
    sentences: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Row]]],
    evaluator: ReplayEvaluator,
) -> str:
    """One HTML page with all tables and pictures in it.

    Args:
        title: of the page.
        sentences: what was read, and what was guessed.
        tables: title, head and rows.
        evaluator: finished; with series.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)]
    for heading, head, rows in tables:
        table = html_table(["", *head], [[label, *cells] for label, cells in rows])
        parts.append(f"<h2>{html.escape(heading)}</h2>{table}")
    with matplotlib.rc_context(STYLE):
        for heading, draw in DRAWINGS:
            figure = draw(evaluator)
            if figure is not None:
                parts.append(f"<h2>{html.escape(heading)}</h2>{_picture(figure, heading)}")
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


_CSS = """
body { font-family: sans-serif; color: #1f2933; max-width: 70em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #d9dee4; }
img { max-width: 100%; }
"""


def _picture(figure: Figure, description: str) -> str:
    data = BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    encoded = base64.b64encode(data.getvalue()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{encoded}">'


def _one_axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(10, 3.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("time (s)")
    return figure, axes


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _thinned(series: Sequence[tuple[int, float]], start: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in s from `start` (ns), and values."""
    size = -(-len(series) // _POINTS)
    whole = len(series) // size * size
    time = np.array([time - start for time, _ in series[:whole]], dtype=np.float64).reshape(-1, size)
    value = np.array([value for _, value in series[:whole]]).reshape(-1, size)
    return time.mean(axis=1) / NANOSECONDS, value.mean(axis=1)
