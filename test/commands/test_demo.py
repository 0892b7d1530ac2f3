"""The demo from end to end, with real nodes: what it writes, how it fails, and that it leaves nothing running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from spiking_controller.evaluation.demo.rendering import RenderingError, render
from spiking_controller.networks.checkpoint import build_networks, save_checkpoint
from spiking_controller.networks.config import load_config
from spiking_controller.nodes.common.process import FAILED
from spiking_controller.resources import share_path

PATIENCE = 240.0


def start_demo(out: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    """One goal in lock-step, as quick as the machine allows."""
    command = [sys.executable, "-m", "spiking_controller.cli", "demo", "--goals", "1", "--lock-step", "--out", str(out)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def processes_of(out: Path) -> list[str]:
    """Command lines of running processes that name the output folder, as every node of the demo in lock-step does."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # It has just ended.
        if str(out) in command:
            found.append(command)
    return found


def wait_until_gone(out: Path) -> None:
    end = time.monotonic() + 20.0
    while (running := processes_of(out)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not running


def test_demo_sends_its_goals_and_writes_report_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    output, errors = (process := start_demo(out)).communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors + (out / "graph.log").read_text()
    summary = json.loads(output.splitlines()[-1])
    assert len(summary["goals"]) == len(summary["final_error_m"]) == 1
    assert summary["median_final_error_m"] == pytest.approx(summary["final_error_m"][0])
    assert 1.0 < summary["mean_spikes_per_neuron_per_second"] < 200.0
    report = json.loads((out / "report.json").read_text())
    assert summary.items() <= report.items()
    assert report["control_period_s"] == pytest.approx(0.02, abs=0.002)
    assert {"policy/hidden1", "policy/hidden2"} <= set(report["spikes_per_neuron_per_second"])
    assert (out / "distance.png").stat().st_size > 10_000
    assert (out / "spike_raster.png").stat().st_size > 10_000
    if "No animation: " in output:  # Only where nothing can be drawn.
        with pytest.raises(RenderingError):
            render(out / "recording.npz", "panda", tmp_path / "arm.gif")
    else:
        with Image.open(out / "arm.gif") as animation:
            assert sum(1 for _ in ImageSequence.Iterator(animation)) > 10
    with np.load(out / "recording.npz") as recording:
        assert np.ptp(recording["joint_position"], axis=0).max() > 0.05, "the arm did not move"
    wait_until_gone(out)


def test_networks_without_spikes_run_in_the_graph_too_and_an_animation_is_not_needed(tmp_path: Path) -> None:
    out, model = tmp_path / "demo", tmp_path / "baseline.safetensors"
    untrained = load_config(share_path("config", "train", "panda_reach_gru.yaml"))
    save_checkpoint(model, *build_networks(untrained), untrained)
    output, errors = (process := start_demo(out, "--model", str(model), MUJOCO_GL="disable")).communicate(
        timeout=PATIENCE
    )
    assert process.returncode == 0, errors + (out / "graph.log").read_text()
    report = json.loads((out / "report.json").read_text())
    assert report["mean_spikes_per_neuron_per_second"] == 0.0
    assert report["spikes_per_neuron_per_second"] == {}
    assert report["control_steps"] > 100
    assert not (out / "spike_raster.png").exists()
    assert "spike_raster" not in output
    assert "No animation: no OpenGL platform could draw arm.gif (disable: " in output
    assert not (out / "arm.gif").exists()
    assert f"Wrote {out / 'arm.gif'}" not in output
    wait_until_gone(out)


def test_missing_model_ends_in_one_sentence_that_names_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    _, errors = (process := start_demo(out, "--model", "nowhere.safetensors")).communicate(timeout=PATIENCE)
    assert process.returncode == FAILED
    assert "nowhere.safetensors" in errors
    assert len(errors.splitlines()) == 1
    wait_until_gone(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_demo_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = start_demo(out)
    end = time.monotonic() + PATIENCE
    while len(processes_of(out)) < 4:  # Demo, `up`, controller and bridge.
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    wait_until_gone(out)
