"""Draws one factor of an ablation study: final errors, learning curves, gradient norms and firing rates."""

from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from spiking_controller.evaluation.plot_style import COLOURS, DISTANCE_TICKS, GRID, INK, MUTED, STYLE, label_distances
from spiking_controller.experiments.ablation.study import DEFAULT, Factor

FINAL_ERROR = "network_alone.final_error_m_median"
"""Column of the results by which variants are compared."""

_Colours = dict[str, str]
_Dashes = Literal["-", "--"]

_NETWORKS: tuple[tuple[str, str, _Dashes], ...] = (("policy", "policy", "-"), ("model", "forward model", "--"))


def draw_factor(factor: Factor, results: DataFrame, curves: DataFrame, path: Path) -> None:
    """Write the picture of a factor.

    Args:
        factor: what is drawn, beside the default.
        results: one row per run, see `ablation_results.Results`.
        curves: one row per run and iteration.
        path: of the PNG.
    """
    variants = {DEFAULT: f"{factor.default} (default)", **{name: name for name in factor.variants}}
    colours = dict(zip(variants, (INK, *_cycle(len(factor.variants))), strict=True))
    results = _select(results, factor)
    curves = _select(curves, factor)
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(11, 7.6), dpi=130, layout=layout)
        panels = figure.subplots(2, 2)
        figure.suptitle(f"{factor.name}: {factor.question}", x=0.01, ha="left", fontsize=12)
        _final_errors(panels[0, 0], results, variants, colours)
        _learning_curves(panels[0, 1], curves, colours)
        _by_network(panels[1, 0], curves, colours, "{}_gradient_norm", "gradient norm before clipping")
        panels[1, 0].set_yscale("log")
        _by_network(panels[1, 1], curves, colours, "{}_rate_hz", "spikes per neuron and second")
        panels[1, 1].set_ylim(bottom=0.0)
        lines = [Line2D([], [], color=colours[name], linewidth=2.5, label=label) for name, label in variants.items()]
        lines += [Line2D([], [], color=MUTED, linestyle=style, label=label) for _, label, style in _NETWORKS]
        figure.legend(handles=lines, loc="outside lower left", ncols=min(len(lines), 6), frameon=False)
        figure.savefig(path)


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _select(table: DataFrame, factor: Factor) -> DataFrame:
    """The rows of the factor's variants and of the default, which are told apart by the column `variant`."""
    known = table["variant"].isin(factor.variants)
    return table[(table["factor"] == DEFAULT) | ((table["factor"] == factor.name) & known)]


def _final_errors(axes: Axes, results: DataFrame, variants: dict[str, str], colours: _Colours) -> None:
    """A point for every seed, a bar at the median over seeds; runs without a result are counted."""
    _title(axes, "Final error, one point per seed, bar at the median")
    labels: list[list[str]] = []
    for place, (name, label) in enumerate(variants.items()):
        runs = results[results["variant"] == name].sort_values("seed")
        errors = runs[FINAL_ERROR].dropna() if FINAL_ERROR in runs else runs["seed"].iloc[:0]
        if len(errors):
            spread = np.linspace(-0.16, 0.16, len(errors)) if len(errors) > 1 else np.zeros(1)
            axes.plot(place + spread, errors, "o", color=colours[name], alpha=0.75, markersize=6, markeredgewidth=0)
            axes.hlines(errors.median(), place - 0.3, place + 0.3, color=colours[name], linewidth=2.5)
        failed = len(runs) - len(errors)
        labels.append([*label.split(" "), *([f"({failed} failed)"] if failed else [])])
    _distances(axes)
    axes.set_xlim(-0.6, len(variants) - 0.4)
    if max(len(line) for label in labels for line in label) * len(labels) < 66:
        axes.set_xticks(range(len(labels)), ["\n".join(label) for label in labels])
    else:
        names = [" ".join(label) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=25, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)


def _learning_curves(axes: Axes, curves: DataFrame, colours: _Colours) -> None:
    _title(axes, "Validation error while training, median and range over seeds")
    for name, colour in colours.items():
        _band(axes, curves[curves["variant"] == name], "final_error_m_median", colour, "-")
    _distances(axes)
    _iterations(axes)


def _by_network(axes: Axes, curves: DataFrame, colours: _Colours, column: str, label: str) -> None:
    """One quantity of both networks; `column` names it in the training log, with a place for the network."""
    _title(axes, f"{label[0].upper()}{label[1:]}, median and range over seeds")
    drawn = False
    for prefix, _, style in _NETWORKS:
        for name, colour in colours.items():
            runs = curves[curves["variant"] == name]
            drawn |= _band(axes, runs, column.format(prefix), colour, style)
    if drawn:
        _grid(axes)
        _iterations(axes)
        axes.set_ylabel(label)
    else:
        axes.text(0.5, 0.5, "not in the training logs", color=MUTED, ha="center", transform=axes.transAxes)
        axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False, which="both")


def _band(axes: Axes, runs: DataFrame, column: str, colour: str, style: _Dashes) -> bool:
    """Median and range over seeds by iteration; False if the logs have no such column."""
    known = runs.dropna(subset=[column]) if column in runs else runs.iloc[:0]
    if known.empty:
        return False
    by_iteration = known.groupby("iteration")[column]
    median, low, high = by_iteration.median(), by_iteration.min(), by_iteration.max()
    axes.fill_between(median.index, low, high, color=colour, alpha=0.12, linewidth=0)
    single = "o" if len(median) == 1 else ""
    axes.plot(median.index, median, color=colour, linestyle=style, linewidth=1.8, marker=single)
    return True


def _distances(axes: Axes) -> None:
    """A logarithmic axis from one labelled distance to another, whatever the data span."""
    ticks = np.array(list(DISTANCE_TICKS))
    axes.set_yscale("log")
    low, high = axes.dataLim.intervaly if axes.has_data() else (0.01, 0.1)
    first, last = np.searchsorted(ticks, low, side="right") - 1, np.searchsorted(ticks, high)
    bounds = ticks[max(first, 0)], ticks[min(last, len(ticks) - 1)]
    axes.set_ylim(min(low, bounds[0]) / 1.06, max(high, bounds[1]) * 1.06)
    label_distances(axes.yaxis)
    _grid(axes)
    axes.set_ylabel("median over goals")


def _iterations(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("iteration")


def _grid(axes: Axes) -> None:
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10)
