"""Files of adaptation runs: a folder for each run, with its goals, its events, its figures and its last networks."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from spiking_controller.errors import ConfigError
from spiking_controller.experiments.adaptation.closed_loop import Step
from spiking_controller.experiments.adaptation.plan import AdaptationPlan
from spiking_controller.experiments.adaptation.records import Event, Footprint, GoalRow, after_change, block_medians
from spiking_controller.experiments.adaptation.run import AdaptationRun
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import dump_checkpoint

RUN_FILE = "run.json"
"""Written last: a folder that has it is complete."""
NETWORKS_FILE = "networks.safetensors"
FOOTPRINTS = {"quarter": 0.25, "half": 0.5, "end": 1.0}
"""When in a run its memory and disk are summarised, as a share of its goals."""


class SavedRun(NamedTuple):
    """A complete run.

    Attributes:
        summary: the content of RUN_FILE.
        rows, events: as the run had them.
        first_steps: time since the change, s, distance, m, and estimated mass, kg, of the first control steps.
    """

    summary: dict[str, Any]
    rows: list[GoalRow]
    events: list[Event]
    first_steps: list[Step]


class RunKey(NamedTuple):
    """What tells runs apart."""

    change: str
    learning: str
    observer: str
    seed: int


def run_directory(out: Path, plan: AdaptationPlan) -> Path:
    """Where a run is kept."""
    observer = "" if plan.observer == "off" else "-observer"
    return out / f"{plan.change}-{plan.learning}{observer}-seed{plan.seed}"


def is_complete(directory: Path) -> bool:
    """Whether a folder holds a complete run."""
    return (directory / RUN_FILE).is_file()


def check_same_plan(directory: Path, plan: AdaptationPlan, checkpoint_sha256: str) -> None:
    """Whether a complete run is the one that is asked for.

    Raises:
        ConfigError: it was made by another plan or with other networks; names what differs.
    """
    found = json.loads((directory / RUN_FILE).read_text())
    wanted = {**json.loads(json.dumps(asdict(plan))), "checkpoint_sha256": checkpoint_sha256}
    made = {**found["plan"], "checkpoint_sha256": found["checkpoint_sha256"]}
    for name, value in wanted.items():
        if made.get(name) != value:
            raise ConfigError(
                f"{directory}: this run was made with {name} = {made.get(name)}, but {value} is asked for; give "
                "another folder with --out, or delete this one."
            )


def save_run(directory: Path, run: AdaptationRun, more: dict[str, Any]) -> None:
    """Write a complete run.

    Args:
        directory: made if it is not there.
        run: the run.
        more: further figures for RUN_FILE.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write_table(directory / "goals.csv", GoalRow._fields, run.rows)
    _write_table(directory / "events.csv", Event._fields, run.events)
    _write_table(directory / "footprint.csv", Footprint._fields, run.footprints)
    _write_table(directory / "first_steps.csv", Step._fields, [run.step_since_change(step) for step in run.first_steps])
    networks = run.running
    write_atomically(
        directory / NETWORKS_FILE,
        dump_checkpoint(
            networks.policy,
            networks.forward_model,
            networks.config,
            evaluation=networks.metadata["evaluation"],
            parent=networks.metadata["parent"],
        ),
    )
    summary = {
        "plan": asdict(run.plan),
        "networks_sha256": networks.metadata["sha256"],
        "medians": block_medians(run.rows),
        "after": after_change(run.rows),
        # With the observer, the networks are not meant to be alone.
        "without_integral_final_error_m": run.without_integral() if run.plan.observer == "off" else None,
        "versions": run.loop.chain.counts["model update"],
        "rollbacks": run.loop.chain.counts["rollback"],
        "footprint": {
            name: run.footprints[int(fraction * (len(run.footprints) - 1))]._asdict()
            for name, fraction in FOOTPRINTS.items()
        },
        **more,
    }
    write_atomically(directory / RUN_FILE, json.dumps(summary, indent=1).encode())


def load_runs(out: Path) -> dict[RunKey, SavedRun]:
    """Every complete run in a folder.

    Raises:
        ConfigError: there is none, or a file of one is damaged.
    """
    runs = {}
    for path in sorted(out.glob(f"*/{RUN_FILE}")):
        try:
            summary = json.loads(path.read_text())
            plan = summary["plan"]
            rows = [_goal_row(line) for line in _read_table(path.with_name("goals.csv"))]
            events = [
                Event(float(line["time_s"]), line["kind"], line["text"])
                for line in _read_table(path.with_name("events.csv"))
            ]
            first_steps = [
                Step(*(float(line[name]) for name in Step._fields))
                for line in _read_table(path.with_name("first_steps.csv"))
            ]
            key = RunKey(plan["change"], plan["learning"], plan["observer"], int(plan["seed"]))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{path.parent}: is no complete adaptation run ({error}); delete it.") from None
        runs[key] = SavedRun(summary, rows, events, first_steps)
    if not runs:
        raise ConfigError(f"{out}: holds no complete adaptation run; run `spiking_controller adapt` first.")
    return runs


def _goal_row(line: dict[str, str]) -> GoalRow:
    texts = {"phase", "version"}
    values: dict[str, Any] = {name: line[name] if name in texts else float(line[name]) for name in GoalRow._fields}
    return GoalRow(**values | {"goal": int(line["goal"])})


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)


def _read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
