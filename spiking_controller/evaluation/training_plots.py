"""Draws training logs: error over training time, how the arm comes to rest, gradient norms, firing rates."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.plot_style import COLOURS, GRID, MUTED, STYLE, label_distances

Log = dict[str, NDArray[np.float64]]
"""Columns of a training log, [iterations]; NaN where a line has no value."""


def read_log(path: Path) -> Log:
    """Read a run's `log.csv`.

    Raises:
        ConfigError: the file is missing or is no training log.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give the log.csv of a training run.") from None
    if not rows or "iteration" not in rows[0] or "final_error_m_median" not in rows[0]:
        raise ConfigError(f"{path}: is no training log with at least one iteration; give the log.csv of a run.")
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def draw_training(logs: Mapping[str, Log], path: Path) -> None:
    """Write a picture of training logs, a colour each.

    Args:
        logs: by name.
        path: of the PNG.
    """
    colours = dict(zip(logs, (COLOURS[index % len(COLOURS)] for index in range(len(logs))), strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.2), dpi=130, layout="constrained")
        panels = figure.subplots(2, 2)
        error, rest, gradient, rate = panels.flat
        _title(error, "Final error on validation goals, network alone", "")
        _title(rest, "Joint speed at the end of an episode, rms", "rad/s")
        _title(gradient, "Gradient norm before clipping", "")
        _title(rate, "Spikes per neuron and second", "Hz")
        for name, log in logs.items():
            colour, minutes = colours[name], log["seconds"] / 60.0
            _line(error, minutes, log, "final_error_m_median", colour, "-")
            _line(error, minutes, log, "final_error_m_p90", colour, "--")
            _line(rest, minutes, log, "rms_final_joint_speed_median", colour, "-")
            for axes, quantity in ((gradient, "gradient_norm"), (rate, "rate_hz")):
                _line(axes, minutes, log, f"policy_{quantity}", colour, "-")
                _line(axes, minutes, log, f"model_{quantity}", colour, "--")
        for axes in (error, gradient):
            axes.set_yscale("log")
        label_distances(error.yaxis)
        for axes in (rest, rate):
            axes.set_ylim(bottom=0.0)
        for axes in panels.flat:
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_xlabel("training time (min)")
        lines = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in colours.items()]
        lines += [
            Line2D([], [], color=MUTED, linestyle="-", label="median; policy"),
            Line2D([], [], color=MUTED, linestyle="--", label="90th percentile; forward model"),
        ]
        figure.legend(handles=lines, loc="outside lower left", ncols=min(len(lines), 5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _title(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(unit)


def _line(
    axes: Axes, minutes: NDArray[np.float64], log: Log, column: str, colour: str, style: Literal["-", "--"]
) -> None:
    """One column where it has values; older logs and networks without spikes lack some."""
    values = log.get(column, np.full_like(minutes, np.nan))
    known = np.isfinite(values)
    axes.plot(minutes[known], values[known], color=colour, linestyle=style, linewidth=1.6)
