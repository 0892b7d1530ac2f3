"""`spiking_controller ablate`: real runs on Ray are recorded, survive crashes and stops, and resume exactly."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import yaml

from spiking_controller.cli import main
from spiking_controller.commands import ablate as ablate_command
from spiking_controller.evaluation.evaluate import evaluate_checkpoint
from spiking_controller.experiments.ablation.runs import Outcome, connected, schedule
from spiking_controller.experiments.ablation.study import Run, load_study
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.training.training_run import TrainingRun


@pytest.fixture(scope="module")
def finished(study_file: Path) -> Path:
    """The folder of the study of `conftest.py`, run with two seeds."""
    out = study_file.parent / "out"
    assert main(["ablate", str(study_file), "--seeds", "2", "--jobs", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "out")


def results(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """The rows of a study by factor, variant and seed, without what depends on the machine's speed."""
    with (folder / "results.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    table = {(row["factor"], row["variant"], row["seed"]): row for row in rows}
    assert len(table) == len(rows), "a run has two rows"
    return table


def without_crash(study_file: Path, folder: Path) -> Path:
    """The same study without the factor whose runs crash."""
    content = yaml.safe_load(study_file.read_text())
    del content["factors"]["unroll"]
    path = folder / study_file.name
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_study_leaves_one_row_per_run_with_every_metric(finished: Path) -> None:
    table = results(finished)
    assert len(table) == 6
    done = {key: row for key, row in table.items() if row["status"] == "finished"}
    assert set(done) == {
        (factor, variant, seed) for factor, variant in (("default", "default"), ("neuron", "adaptive")) for seed in "12"
    }
    assert len({row["network_alone.final_error_m_median"] for row in done.values()}) == 4
    assert {row["iterations"] for row in done.values()} == {"2"}


def test_the_metrics_are_those_of_the_run_s_own_checkpoint(finished: Path) -> None:
    folder = finished / "runs" / "neuron" / "adaptive" / "seed2"
    checkpoint = load_checkpoint(folder / "planar_reach.safetensors")
    assert checkpoint.config.seed == 2
    assert isinstance(checkpoint.config.policy, NetworkConfig)
    assert checkpoint.config.policy.neuron == "adaptive_lif"
    measured = evaluate_checkpoint(checkpoint, goals=4)
    row = results(finished)["neuron", "adaptive", "2"]
    for part in ("network_alone", "with_integral"):
        assert float(row[f"{part}.final_error_m_median"]) == measured[part]["final_error_m_median"]
    parameters = [*checkpoint.policy.parameters(), *checkpoint.forward_model.parameters()]
    assert float(row["parameters"]) == sum(parameter.numel() for parameter in parameters)


def test_a_run_that_crashes_is_recorded_with_its_reason_and_stops_nothing(finished: Path) -> None:
    for seed in "12":
        row = results(finished)["unroll", "beyond", seed]
        assert row["status"] == "failed"
        assert row["reason"].startswith("ValueError: ")
        assert row["network_alone.final_error_m_median"] == ""


def test_curves_table_and_figures_are_written(finished: Path) -> None:
    curves = pandas.read_csv(finished / "curves.csv")
    assert len(curves) == 4 * 2
    assert curves["final_error_m_median"].notna().sum() == 4
    assert set(curves.columns) >= {"factor", "variant", "seed", "iteration", "seconds", "model_loss"}
    assert "| adaptive | 2 |" in re.sub(" +", " ", (finished / "table.md").read_text())
    assert {path.name for path in finished.glob("*.png")} == {"neuron.png", "unroll.png"}


def test_resuming_a_finished_study_runs_nothing_and_rebuilds_the_reports(
    copied: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = without_crash(study_file, copied.parent)
    before = results(copied)
    (copied / "table.md").unlink()
    (copied / "neuron.png").unlink()
    monkeypatch.delattr(ablate_command, "connected")
    assert main(["ablate", str(study), "--seeds", "2", "--out", str(copied), "--resume"]) == 0
    assert "4 of 4 runs are done" in capsys.readouterr().out
    assert (copied / "neuron.png").exists()
    assert "unroll" not in (copied / "table.md").read_text()
    assert results(copied) == before


@pytest.fixture(scope="module")
def cluster(finished: Path) -> Iterator[str]:
    """Address of a Ray cluster of one node; after `finished`, so that Ray already keeps to the loopback interface."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 * 2**20})
    yield started.address
    started.shutdown()


def test_an_interrupted_run_goes_on_exactly_even_on_a_cluster_without_shared_files(
    copied: Path, study_file: Path, cluster: str
) -> None:
    study = without_crash(study_file, copied.parent)
    uninterrupted = results(copied)
    interrupted: Run = load_study(study).runs(2)[-1]
    folder = copied / "runs" / "neuron" / "adaptive" / "seed2"
    shutil.rmtree(folder)
    TrainingRun(interrupted.config, folder).run(lambda progress: None, lambda: True)
    first_line = (folder / "log.csv").read_text().splitlines()[1]
    rows = pandas.read_csv(copied / "results.csv")
    rows[(rows["variant"] != "adaptive") | (rows["seed"] != 2)].to_csv(copied / "results.csv", index=False)
    assert main(["ablate", str(study), "--seeds", "2", "--out", str(copied), "--resume", "--address", cluster]) == 0
    assert results(copied) == uninterrupted
    log = (folder / "log.csv").read_text().splitlines()
    assert len(log) == 3
    assert log[1] == first_line, "the run was begun anew"


def test_a_run_whose_process_is_killed_is_a_failure_and_the_others_go_on(cluster: str) -> None:
    def carry_out(task: int) -> Outcome:
        if task == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome("finished", figures={"task": task})

    with connected(cluster, None) as jobs:
        assert jobs == 2
        outcomes = dict(schedule(carry_out, range(4), jobs, lambda: False))
    assert outcomes[1].status == "failed"
    assert outcomes[1].reason.startswith("WorkerCrashedError: ")
    assert [outcomes[task].figures for task in (0, 2, 3)] == [{"task": 0}, {"task": 2}, {"task": 3}]


def test_ctrl_c_saves_the_runs_under_way_and_says_how_to_go_on(study_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(without_crash(study_file, tmp_path).read_text())
    content["common"].update(iterations=100_000, evaluate_every=100_000)
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "spiking_controller.cli", "ablate", str(tmp_path / "long.yaml")]
    command += ["--out", str(tmp_path / "out"), "--jobs", "1"]
    log = tmp_path / "out" / "runs" / "default" / "default" / "seed1" / "log.csv"
    # A group of its own: the terminal sends Ctrl-C to the whole group, Ray's processes included.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) > 1):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "0 of 10 runs are done" in output
    assert f"--out {tmp_path / 'out'} --resume" in output
    assert (log.parent / "training_state.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["planar", "--seeds", "0"], "--seeds 0"),
        (["planar", "--jobs", "0"], "--jobs 0"),
        (["planar", "--address", "somewhere"], "--address somewhere: no Ray cluster answers there"),
        (["planar", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", *arguments]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err
