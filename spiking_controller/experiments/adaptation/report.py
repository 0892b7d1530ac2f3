"""Tables and figures of adaptation runs, for documents: what the change did, and what learning made of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spiking_controller.evaluation.plot_style import COLOURS, GRID, MUTED, STYLE, label_distances
from spiking_controller.evaluation.tables import markdown_table
from spiking_controller.experiments.adaptation.plan import CHANGES, LEARNING, MEASURED, OBSERVER
from spiking_controller.experiments.adaptation.results import FOOTPRINTS, RunKey, SavedRun

Runs = Mapping[RunKey, SavedRun]

_NAMES = {"off": "no learning", "on": "learning", "harmed": "learning, harm injected"}
BACK: Final = 0.005
"""A hand this close to its goal is back at it, m."""
KNOWN_AFTER: Final = 2.0
"""From so long in motion on the mass should be known, s."""
_SMOOTH = 5
"""Goals that a point of a curve is the median of."""


def write_report(runs: Runs, out: Path) -> list[Path]:
    """Write report.md and a figure of each change; returns what was written.

    Args:
        runs: complete ones.
        out: folder.
    """
    written = []
    for change in [name for name in CHANGES if any(key.change == name for key in runs)]:
        for draw, name in ((draw_change, "adaptation"), (draw_first_seconds, "first_seconds")):
            path = out / f"{name}_{change}.png"
            draw(runs, change, path)
            written.append(path)
    report = out / "report.md"
    report.write_text(markdown(runs), encoding="utf-8")
    return [report, *written]


def markdown(runs: Runs) -> str:
    """The tables."""
    parts = [
        "Final error (mm), median over the same goals before the change, just after it and at the end:",
        markdown_table(
            ["change", "run", "seed", "before", "after", "end", "end / before", "alone: before", "after", "end"],
            [_tracking_line(key, run) for key, run in _ordered(runs)],
        ),
        "The first seconds: how far the hand that was holding its goal moved (mm), when it was back under 5 mm for "
        "good (s), and the mass that the observer found 2 s into the next motion (kg). Then the same goals just "
        "before and after the change, and all since, final errors (mm):",
        markdown_table(
            [
                *("change", "run", "seed", "moved", "back after", "mass"),
                *("p90 before", "after", "worst before", "after", "all: median", "p90"),
            ],
            [_first_line(key, run) for key, run in _ordered(runs)],
        ),
        "10-step prediction error of the joint angles (mrad), median over the same goals; at the end also of the first "
        "forward model on the steps that this run recorded there:",
        markdown_table(
            ["change", "run", "seed", "before", "after", "end", "first model at the end", "end / without learning"],
            [_prediction_line(key, run, runs) for key, run in _ordered(runs)],
        ),
        "Versions and what became of harm:",
        markdown_table(
            ["change", "run", "seed", "versions", "rollbacks", "harm"],
            [
                [*_label(key), str(run.summary["versions"]), str(run.summary["rollbacks"]), _harm(run)]
                for key, run in _ordered(runs)
                if key.learning != "off"
            ],
        ),
    ]
    parts += [
        "Memory and disk (MB) after a quarter, a half and all of the run:",
        markdown_table(
            ["change", "run", "seed", "minutes", "resident: quarter", "half", "end", "disk: quarter", "half", "end"],
            [
                [
                    *_label(key),
                    f"{run.summary['plan']['minutes']:g}",
                    *(
                        f"{run.summary['footprint'][name][what]:.1f}"
                        for what in ("resident_mb", "disk_mb")
                        for name in FOOTPRINTS
                    ),
                ]
                for key, run in _ordered(runs)
                if key.learning != "off"
            ],
        ),
    ]
    if held_out := [(key, run) for key, run in _ordered(runs) if "held_out_final_error_m" in run.summary]:
        parts += [
            "Median final error on held-out goals (mm), as the controller runs the networks and alone:",
            markdown_table(
                ["change", "run", "seed", "minutes", "start", "end", "end / start", "alone: start", "end"],
                [_held_out_line(key, run) for key, run in held_out],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _ordered(runs: Runs) -> list[tuple[RunKey, SavedRun]]:
    changes, learning = list(CHANGES), list(LEARNING)

    def place(item: tuple[RunKey, SavedRun]) -> tuple[int, int, int, int]:
        key = item[0]
        return (
            changes.index(key.change),
            key.seed,
            OBSERVER.index(key.observer),
            learning.index(key.learning),  # type: ignore[arg-type]
        )

    return sorted(runs.items(), key=place)


def _name(key: RunKey) -> str:
    return _NAMES[key.learning] + (", observer" if key.observer == "on" else "")


def _label(key: RunKey) -> list[str]:
    return [key.change, _name(key), str(key.seed)]


def _mm(value: float) -> str:
    return f"{1e3 * value:.1f}"


def _tracking_line(key: RunKey, run: SavedRun) -> list[str]:
    errors = [run.summary["medians"][phase]["final_error_m"] for phase in MEASURED]
    alone = run.summary["without_integral_final_error_m"]
    return [
        *_label(key),
        *map(_mm, errors),
        f"{errors[2] / errors[0]:.2f}",
        *(["", "", ""] if alone is None else [_mm(alone[phase]) for phase in MEASURED]),
    ]


def _first_line(key: RunKey, run: SavedRun) -> list[str]:
    hold, after = run.summary["plan"]["hold"], run.summary["after"]
    holding = [step for step in run.first_steps if step.time < hold]
    beyond = [step.time for step in holding if step.distance > BACK]
    known = [step.mass for step in run.first_steps if step.time >= hold + KNOWN_AFTER]
    back = "never" if holding[-1].distance > BACK else f"{beyond[-1]:.2f}" if beyond else "0"
    return [
        *_label(key),
        _mm(max(step.distance for step in holding)),
        back,
        f"{known[0]:.2f}" if known and key.observer == "on" else "",
        *(_mm(after[name]) for name in ("before_p90", "p90", "before_worst", "worst", "all_median", "all_p90")),
    ]


def _prediction_line(key: RunKey, run: SavedRun, runs: Runs) -> list[str]:
    medians = run.summary["medians"]
    errors = [medians[phase]["prediction_rad"] for phase in MEASURED]
    without = runs.get(key._replace(learning="off"))
    ratio = "" if without is None else f"{errors[2] / without.summary['medians']['end']['prediction_rad']:.2f}"
    first = medians["end"]["first_prediction_rad"]
    return [*_label(key), *(f"{1e3 * value:.2f}" for value in (*errors, first)), ratio]


def _held_out_line(key: RunKey, run: SavedRun) -> list[str]:
    metrics = run.summary["held_out_final_error_m"]
    start, end = metrics["start"], metrics["end"]
    return [
        *_label(key),
        f"{run.summary['plan']['minutes']:g}",
        _mm(start["with_integral"]),
        _mm(end["with_integral"]),
        f"{end['with_integral'] / start['with_integral']:.2f}",
        _mm(start["network_alone"]),
        _mm(end["network_alone"]),
    ]


def _harm(run: SavedRun) -> str:
    """What followed each injection, in one cell."""
    found = []
    for index, event in enumerate(run.events):
        if event.kind != "harm":
            continue
        after = run.events[index + 1 :]
        forced = "past the gate" in event.text
        what = "past the gate" if forced else "candidate"
        outcomes = ("rollback", "refused") if forced else ("rejected", "accepted")
        outcome = next((other for other in after if other.kind in outcomes), None)
        taken = next((other for other in after if other.kind == "takes over"), None)
        if outcome is None:
            found.append(f"{what}: nothing")
        elif outcome.kind == "rollback" and taken is not None:
            goals = sum(taken.time_s <= row.time_s < outcome.time_s for row in run.rows)
            found.append(f"{what}: rolled back after {goals} goals")
        else:
            found.append(f"{what}: {outcome.kind}")
    return "; ".join(found)


def draw_change(runs: Runs, change: str, path: Path) -> None:
    """Write a picture of the runs of one change: tracking above, prediction below, versions marked."""
    chosen = {key: run for key, run in _ordered(runs) if key.change == change}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 6.4), dpi=130, layout="constrained")
        tracking, prediction = figure.subplots(2, 1, sharex=True)
        for key, run in chosen.items():
            colour = _colour(key)
            _curve(tracking, run, "final_error_m", colour)
            _curve(prediction, run, "prediction_rad", colour)
            _marks(tracking, run, colour)
        for axes, title in (
            (
                tracking,
                "Final error of a goal, median over five goals; marks: a version takes over (|), is rolled back (x)",
            ),
            (prediction, "10-step prediction error of the joint angles (rad)"),
        ):
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_yscale("log")
            axes.axvline(0.0, color=MUTED, linewidth=1.0, linestyle=":")
            axes.grid(color=GRID, linewidth=0.8)
        label_distances(tracking.yaxis)
        prediction.set_xlabel("simulated time since the change (min)")
        _save(figure, list(chosen), path)


def draw_first_seconds(runs: Runs, change: str, path: Path) -> None:
    """Write a picture of the first seconds after one change: the hand holds its goal, then sets out for others."""
    chosen = {key: run for key, run in _ordered(runs) if key.change == change}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
        axes = figure.subplots()
        for key, run in chosen.items():
            time, distance, _ = np.array(run.first_steps).T
            axes.plot(time, distance, color=_colour(key), linewidth=1.5)
        axes.set_title("Distance from hand to goal", loc="left", fontsize=10)
        axes.set_yscale("log")
        axes.grid(color=GRID, linewidth=0.8)
        label_distances(axes.yaxis)
        axes.set_xlabel("simulated time since the change (s)")
        _save(figure, list(chosen), path)


def _colour(key: RunKey) -> str:
    place = len(LEARNING) * OBSERVER.index(key.observer) + LEARNING.index(key.learning)
    return COLOURS[place % len(COLOURS)]


def _save(figure: Figure, keys: list[RunKey], path: Path) -> None:
    """Write a figure with a legend of its runs."""
    names = {_name(key): _colour(key) for key in keys}
    lines = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in names.items()]
    figure.legend(handles=lines, loc="outside lower left", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _curve(axes: Axes, run: SavedRun, name: str, colour: str) -> None:
    values = np.array([getattr(row, name) for row in run.rows])
    minutes = np.array([row.time_s for row in run.rows]) / 60.0
    smooth = [np.nanmedian(values[max(end - _SMOOTH, 0) : end]) for end in range(1, len(values) + 1)]
    axes.plot(minutes, smooth, color=colour, linewidth=1.5)


def _marks(axes: Axes, run: SavedRun, colour: str) -> None:
    low = 0.9 * min(row.final_error_m for row in run.rows)
    for kind, marker in (("takes over", "|"), ("rollback", "x")):
        minutes = [event.time_s / 60.0 for event in run.events if event.kind == kind]
        axes.plot(minutes, [low] * len(minutes), linestyle="", marker=marker, color=colour, markersize=6)
