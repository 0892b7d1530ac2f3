"""Turns the tables of an ablation study into what is read: a Markdown table with intervals, and a figure per factor."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, Series
from scipy import stats

from spiking_controller.evaluation.tables import markdown_table
from spiking_controller.experiments.ablation.plots import FINAL_ERROR, draw_factor
from spiking_controller.experiments.ablation.results import Results
from spiking_controller.experiments.ablation.study import DEFAULT, Factor, Study
from spiking_controller.files import write_atomically

_CONFIDENCE = 0.95
_RESAMPLES = 9999
_COLUMNS = (
    "variant",
    "runs",
    "median final error (mm)",
    "difference to the default (mm)",
    "90th percentile (mm)",
    "under 1 cm",
    "with integral (mm)",
    "failed",
)


class Estimate(NamedTuple):
    """A median over seeds and its 95 % confidence interval; nan where there are too few values."""

    median: float
    low: float
    high: float


def median_estimate(values: NDArray[np.floating]) -> Estimate:
    """Median of values [n] with a percentile bootstrap interval (Efron 1979).

    With two values or more the interval is given; it can be no wider than the values are, which understates the
    uncertainty of very few of them.
    """
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    if len(values) == 1:
        return Estimate(float(values[0]), np.nan, np.nan)
    interval = stats.bootstrap(
        (values,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(float(np.median(values)), float(interval.low), float(interval.high))


def write_report(study: Study, results: Results, directory: Path) -> list[Path]:
    """Write `curves.csv`, `table.md` and a figure per factor from what the study has so far.

    Returns:
        The files, in that order.
    """
    table, curves = results.table, results.curves()
    files = [directory / "curves.csv", directory / "table.md"]
    write_atomically(files[0], curves.to_csv(index=False).encode())
    write_atomically(files[1], markdown(study, table).encode())
    for factor in study.factors:
        files.append(directory / f"{factor.name}.png")
        draw_factor(factor, table, curves, files[-1])
    return files


def markdown(study: Study, table: DataFrame) -> str:
    """The study as Markdown, a table for each factor."""
    seeds = table["seed"].nunique()
    lines = [
        f"# Ablation study `{study.name}`",
        "",
        f"Task `{study.default.task}`, {study.default.iterations} iterations unless a variant says otherwise, "
        f"{seeds} seed{'s' if seeds != 1 else ''}, {study.goals} held-out goals per run. Errors are the median over "
        "goals of a run's final error, network alone, then the median over runs; in brackets its 95 % bootstrap "
        "interval. Differences are taken seed by seed. Failed runs have no error and do not count in the medians.",
    ]
    for factor in study.factors:
        lines += ["", f"## {factor.name}", "", factor.question, ""]
        rows = [_row(factor, variant, table) for variant in (DEFAULT, *factor.variants)]
        lines.append(markdown_table(_COLUMNS, rows))
        lines += ["", f"![{factor.name}]({factor.name}.png)"]
    return "\n".join(lines) + "\n"


def _runs(factor: Factor, variant: str, table: DataFrame) -> DataFrame:
    """The runs of a variant, by seed."""
    name = DEFAULT if variant == DEFAULT else factor.name
    return table[(table["factor"] == name) & (table["variant"] == variant)].set_index("seed")


def _row(factor: Factor, variant: str, table: DataFrame) -> list[str]:
    runs = _runs(factor, variant, table)
    error = _column(runs, FINAL_ERROR)
    difference = (error - _column(_runs(factor, DEFAULT, table), FINAL_ERROR)).dropna()
    share = _column(runs, "network_alone.share_under_1cm")
    return [
        f"**{factor.default}** (default)" if variant == DEFAULT else variant,
        str(len(error)),
        _millimetres(error),
        "" if variant == DEFAULT else _millimetres(difference, sign="+"),
        _millimetres(_column(runs, "network_alone.final_error_m_p90"), interval=False),
        f"{100 * share.median():.1f} %" if len(share) else "–",
        _millimetres(_column(runs, "with_integral.final_error_m_median"), interval=False),
        str(len(runs) - len(error)),
    ]


def _column(runs: DataFrame, name: str) -> "Series[float]":
    """A figure of the finished runs, by seed."""
    return runs[name].dropna() if name in runs else Series(dtype=float)


def _millimetres(values: "Series[float]", *, sign: str = "", interval: bool = True) -> str:
    estimate = median_estimate(1000 * values.to_numpy(dtype=float))
    if np.isnan(estimate.median):
        return "–"
    text = f"{estimate.median:{sign}.1f}"
    return f"{text} [{estimate.low:{sign}.1f}, {estimate.high:{sign}.1f}]" if interval and len(values) > 1 else text
