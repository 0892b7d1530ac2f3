"""Draws training logs: error over training time, how the arm comes to rest, gradient norms, firing rates."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

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

_Style = Literal["-", "--"]
_STYLES: Final[tuple[_Style, _Style]] = ("-", "--")


class _Panel(NamedTuple):
    """What a panel shows: a solid line of the first column and a dashed one of the second."""

    columns: tuple[str, ...]
    unit: str
    logarithmic: bool = False


_ERROR: Final = "Final error on validation goals, network alone"
_PANELS: Final = {
    _ERROR: _Panel(("final_error_m_median", "final_error_m_p90"), "", logarithmic=True),
    "Joint speed at the end of an episode, rms": _Panel(("rms_final_joint_speed_median",), "rad/s"),
    "Gradient norm before clipping": _Panel(("policy_gradient_norm", "model_gradient_norm"), "", logarithmic=True),
    "Spikes per neuron and second": _Panel(("policy_rate_hz", "model_rate_hz"), "Hz"),
}
_REST_PANELS: Final = {
    "Action at a frozen observation, standard deviation": _Panel(("rest_action_noise",), ""),
    "Hand jitter at the end of an episode, rms": _Panel(("hand_jitter_m_median",), "m"),
    "Posture drift in the last second of an episode": _Panel(("posture_drift_rad_s_median",), "rad/s"),
    "Spikes of the policy per neuron and second": _Panel(("rest_rate_hz", "moving_rate_hz"), "Hz"),
    "Model's velocity error at rest over that of persistence": _Panel(("model_rest_error_ratio",), ""),
}
"""Of logs that have the figures of rest."""


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
        has_rest = any("rest_action_noise" in log for log in logs.values())
        panels = {**_PANELS, **_REST_PANELS} if has_rest else _PANELS
        width = 3 if has_rest else 2
        height = -(-len(panels) // width)
        figure = Figure(figsize=(5.5 * width, 3.6 * height), dpi=130, layout="constrained")
        drawn = dict(zip(panels, figure.subplots(height, width).flat, strict=True))
        for title, panel in panels.items():
            axes = drawn[title]
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_ylabel(panel.unit)
            for name, log in logs.items():
                minutes = log["seconds"] / 60.0
                for column, style in zip(panel.columns, _STYLES, strict=False):
                    _line(axes, minutes, log, column, colours[name], style)
            if panel.logarithmic:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0.0)
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_xlabel("training time (min)")
        label_distances(drawn[_ERROR].yaxis)
        lines = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in colours.items()]
        meanings = ("median; policy", "90th percentile; forward model")
        if has_rest:
            meanings = (f"{meanings[0]}; at rest", f"{meanings[1]}; on the way")
        lines += [
            Line2D([], [], color=MUTED, linestyle=style, label=meaning)
            for style, meaning in zip(_STYLES, meanings, strict=True)
        ]
        figure.legend(handles=lines, loc="outside lower left", ncols=min(len(lines), 5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _line(axes: Axes, minutes: NDArray[np.float64], log: Log, column: str, colour: str, style: _Style) -> None:
    """One column where it has values; older logs and networks without spikes lack some."""
    values = log.get(column, np.full_like(minutes, np.nan))
    known = np.isfinite(values)
    axes.plot(minutes[known], values[known], color=colour, linestyle=style, linewidth=1.6)
