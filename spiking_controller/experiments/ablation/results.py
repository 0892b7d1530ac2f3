"""What a study has found so far, as tidy tables: one row per run, and one per run and iteration."""

from pathlib import Path
from typing import Any

import pandas
from pandas import DataFrame

from spiking_controller.errors import ConfigError
from spiking_controller.experiments.ablation.runs import Outcome
from spiking_controller.experiments.ablation.study import Run, Study
from spiking_controller.files import write_atomically
from spiking_controller.networks.config import load_config
from spiking_controller.training.training_run import LOG_FILE

RESULTS_FILE = "results.csv"
# What `evaluate_checkpoint` says about its setting rather than about the networks.
_SETTING = ("checkpoint", "sha256", "task", "goals", "seed", "start")

_Key = tuple[str, str, int]
"""Factor, variant and seed of a run."""


class Results:
    """The folder of a study: its runs below `runs/`, and `results.csv` with a row for each that finished or failed.

    Columns of the table: study, factor, variant, seed, status ("finished" or "failed"), reason of a failure,
    iterations, seconds of training, goals of the evaluation, parameters of both networks, and every figure of
    `evaluate_checkpoint` as `part.figure`, such as `network_alone.final_error_m_median`. Lengths in m, times in s.
    The file is rewritten as a whole, atomically, whenever a run ends.
    """

    def __init__(self, study: Study, directory: Path, *, resume: bool) -> None:
        """Open the folder of a study.

        Args:
            study: what is to be run.
            directory: of the study; made if it is not there.
            resume: keep what the folder holds.
        Raises:
            ConfigError: the folder holds a study that is not to be resumed, or was measured on other goals.
        """
        self._study = study
        self._directory = directory
        self._path = directory / RESULTS_FILE
        self._rows: dict[_Key, dict[str, Any]] = {}
        if (directory / "runs").exists() and not resume:
            raise ConfigError(f"{directory}: already holds a study; add --resume to continue it or give another --out.")
        if self._path.is_file():
            stored = pandas.read_csv(self._path).fillna({"reason": ""})
            for record in stored.to_dict("records"):
                row = {str(name): value for name, value in record.items()}
                self._rows[row["factor"], row["variant"], row["seed"]] = row
        for row in self._rows.values():
            if row["goals"] != study.goals:
                raise ConfigError(
                    f"{self._path}: was measured on {row['goals']} held-out goals, but the study asks for "
                    f"{study.goals}; give another --out."
                )
        (directory / "runs").mkdir(parents=True, exist_ok=True)

    @property
    def table(self) -> DataFrame:
        """One row per run that has finished or failed."""
        return DataFrame(list(self._rows.values()))

    def folder(self, run: Run) -> Path:
        """Where a run writes."""
        return self._folder(_key(run))

    def _folder(self, key: _Key) -> Path:
        factor, variant, seed = key
        return self._directory / "runs" / factor / variant / f"seed{seed}"

    def pending(self, runs: list[Run]) -> list[Run]:
        """Those of the runs that have not finished.

        Raises:
            ConfigError: one of the runs was made, or begun, with another configuration.
        """
        for run in runs:
            path = self.folder(run) / "config.yaml"
            if path.is_file() and load_config(path) != run.config:
                raise ConfigError(
                    f"{path}: differs from what the study now asks for {run.name}; delete {path.parent} to run it "
                    "anew, or give another --out."
                )
        return [run for run in runs if not self._is_finished(run)]

    def _is_finished(self, run: Run) -> bool:
        row = self._rows.get(_key(run))
        return row is not None and row["status"] == "finished" and self.folder(run).is_dir()

    def failures(self, runs: list[Run]) -> dict[str, str]:
        """Why runs failed, by their name."""
        rows = ((run, self._rows.get(_key(run))) for run in runs)
        return {run.name: row["reason"] for run, row in rows if row is not None and row["status"] == "failed"}

    def record(self, run: Run, outcome: Outcome) -> None:
        """Enter a run that has finished or failed, in place of an earlier row of the same run."""
        log = _read_log(self.folder(run))
        self._rows[_key(run)] = {
            "study": self._study.name,
            "factor": run.factor,
            "variant": run.variant,
            "seed": run.seed,
            "status": outcome.status,
            "reason": outcome.reason,
            "iterations": len(log),
            "seconds": log["seconds"].max(),
            "goals": self._study.goals,
            **_flat({name: value for name, value in (outcome.figures or {}).items() if name not in _SETTING}),
        }
        write_atomically(self._path, self.table.to_csv(index=False).encode())

    def curves(self) -> DataFrame:
        """The training logs of the runs in the table: factor, variant, seed, and the columns of the logs."""
        logs = []
        for key in self._rows:
            log = _read_log(self._folder(key))
            factor, variant, seed = key
            log.insert(0, "factor", factor)
            log.insert(1, "variant", variant)
            log.insert(2, "seed", seed)
            if len(log):
                logs.append(log)
        return pandas.concat(logs, ignore_index=True) if logs else DataFrame(columns=["factor", "variant", "seed"])


def _key(run: Run) -> _Key:
    return run.factor, run.variant, run.seed


def _read_log(folder: Path) -> DataFrame:
    """The training log of a run; without rows if the run did not come that far."""
    path = folder / LOG_FILE
    return pandas.read_csv(path) if path.is_file() else DataFrame({"iteration": [], "seconds": []})


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping in one level, keys joined by dots."""
    result: dict[str, Any] = {}
    for key, value in nested.items():
        result.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return result
