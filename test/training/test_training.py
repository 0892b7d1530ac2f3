"""The training loop: it learns, it resumes exactly, it refuses to overwrite, its command stops cleanly."""

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.config import Diagnosis, TrainingConfig, load_config
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.training.training_run import Progress, TrainingRun


def ignore(progress: Progress) -> None:
    """A report that nobody reads."""


def log_rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "log.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_a_run_writes_log_checkpoints_and_curves(small_config: TrainingConfig, tmp_path: Path) -> None:
    reports: list[Progress] = []
    run = TrainingRun(small_config, tmp_path / "run")
    run.run(reports.append, lambda: False)
    assert [report.iteration for report in reports] == [1, 2, 3, 4]
    rows = log_rows(tmp_path / "run")
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["final_error_m_median"]) for row in rows] == [False, True, False, True]
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "planar_reach_00002.safetensors",
        "planar_reach_00004.safetensors",
    }
    at_rest = ("rest_action_noise", "posture_drift_rad_s_median", "hand_jitter_m_median")
    assert [bool(row[at_rest[0]]) for row in rows] == [False, True, False, True]
    assert all(name in rows[0] for name in at_rest)
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    assert load_config(tmp_path / "run" / "config.yaml") == small_config
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint.metadata["evaluation"]["final_error_m_median"] == pytest.approx(
        float(rows[-1]["final_error_m_median"]), rel=1e-5
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(path)
    networks = {"policy": checkpoint.policy, "forward_model": checkpoint.forward_model}
    return {f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("simulate_beside", [False, True])
def test_the_same_seed_gives_the_same_weights_bit_by_bit(
    small_config: TrainingConfig, tmp_path: Path, simulate_beside: bool
) -> None:
    TrainingRun(small_config, tmp_path / "first").run(ignore, lambda: False)
    TrainingRun(small_config, tmp_path / "second", simulate_beside=simulate_beside).run(ignore, lambda: False)
    first, second = (weights(tmp_path / name / "planar_reach.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert log_rows(tmp_path / "first") == log_rows(tmp_path / "second")


def test_a_resumed_run_continues_exactly(small_config: TrainingConfig, tmp_path: Path) -> None:
    TrainingRun(small_config, tmp_path / "whole").run(ignore, lambda: False)

    stops = iter([False, False, True])
    TrainingRun(small_config, tmp_path / "parts").run(ignore, lambda: next(stops))
    resumed = TrainingRun(small_config, tmp_path / "parts", resume=True)
    assert resumed.iteration == 3
    resumed.run(ignore, lambda: False)

    whole = load_checkpoint(tmp_path / "whole" / "planar_reach.safetensors")
    parts = load_checkpoint(tmp_path / "parts" / "planar_reach.safetensors")
    for network in ("policy", "forward_model"):
        for name, tensor in getattr(whole, network).state_dict().items():
            assert torch.equal(getattr(parts, network).state_dict()[name], tensor), name
    assert log_rows(tmp_path / "parts") == log_rows(tmp_path / "whole")


def test_a_run_whose_log_lacks_the_figures_of_rest_resumes(small_config: TrainingConfig, tmp_path: Path) -> None:
    stops = iter([False, False, True])
    TrainingRun(small_config, tmp_path).run(ignore, lambda: next(stops))
    rows = log_rows(tmp_path)
    new = ("rest_action_noise", "hand_jitter_m_median", "model_rest_error_ratio")
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, [*(name for name in rows[0] if name not in new), "seconds"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows({**row, "seconds": "1"} for row in rows)
    TrainingRun(small_config, tmp_path, resume=True).run(ignore, lambda: False)
    noise = [row["rest_action_noise"] for row in log_rows(tmp_path)]
    assert [bool(value) for value in noise] == [False, False, False, True]


def test_a_resumed_run_continues_exactly_with_what_it_adapted(small_config: TrainingConfig, tmp_path: Path) -> None:
    assert isinstance(small_config.forward_model, NetworkConfig)
    config = replace(
        small_config,
        iterations=5,
        forward_model=replace(small_config.forward_model, output_gain=1e5),
        diagnosis=Diagnosis(patience=2, exploding_gradient="adapt", model_worse_than_nothing="warn", model_grace=0),
    )
    TrainingRun(config, tmp_path / "whole").run(ignore, lambda: False)
    stops = iter([False, False, True])
    TrainingRun(config, tmp_path / "parts").run(ignore, lambda: next(stops))
    TrainingRun(config, tmp_path / "parts", resume=True).run(ignore, lambda: False)
    whole, parts = (weights(tmp_path / name / "planar_reach.safetensors") for name in ("whole", "parts"))
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    findings = (tmp_path / "whole" / "diagnosis.csv").read_text()
    assert [line.split(",")[0] for line in findings.splitlines() if "exploding" in line] == ["2", "2", "4", "4"]
    assert (tmp_path / "parts" / "diagnosis.csv").read_text() == findings


def test_training_lowers_the_model_loss_and_the_imagined_distance(small_config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(
        small_config,
        iterations=8,
        evaluate_every=8,
        model_updates=replace(small_config.model_updates, first=60, per_iteration=20, batch=16),
        policy_updates=replace(small_config.policy_updates, per_iteration=60, batch=16, unroll=20),
    )
    TrainingRun(config, tmp_path).run(ignore, lambda: False)
    rows = log_rows(tmp_path)
    assert float(rows[-1]["model_loss"]) < 0.8
    first, last = (float(rows[index]["imagined_distance_m"]) for index in (0, -1))
    assert last < 0.9 * first


def test_a_folder_with_a_run_is_not_overwritten(small_config: TrainingConfig, tmp_path: Path) -> None:
    TrainingRun(small_config, tmp_path).run(ignore, lambda: True)
    with pytest.raises(ConfigError, match="already holds a training run; add --resume"):
        TrainingRun(small_config, tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        TrainingRun(replace(small_config, seed=99), tmp_path, resume=True)


def test_there_must_be_something_to_resume(small_config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no training_state"):
        TrainingRun(small_config, tmp_path, resume=True)


def test_updates_fail_loudly_when_the_data_are_not_finite(small_config: TrainingConfig, tmp_path: Path) -> None:
    run = TrainingRun(small_config, tmp_path)
    run._first_episodes()
    run._memory.observation[:] = np.nan
    with pytest.raises(RuntimeError, match="non-finite"):
        run._updater.update_model(run._memory, np.random.default_rng(0), 0.0)


def test_ctrl_c_saves_and_exits_cleanly(small_config: TrainingConfig, tmp_path: Path) -> None:
    TrainingRun(replace(small_config, iterations=100_000), tmp_path / "configuration").run(ignore, lambda: True)
    config = tmp_path / "configuration" / "config.yaml"
    directory, log = tmp_path / "run", tmp_path / "run" / "log.csv"
    command = [sys.executable, "-m", "spiking_controller.cli", "train", "planar_reach"]
    command += ["--config", str(config), "--out", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) > 1):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "--resume" in output
    assert load_checkpoint(directory / "planar_reach.safetensors").contract.task == "planar_reach"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["juggling"], "no task 'juggling'"),
        (["panda_reach", "--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["panda_reach", "--threads", "0"], "--threads 0 must be at least 1"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from spiking_controller.cli import main

    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err
