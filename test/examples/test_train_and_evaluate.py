"""The example that trains leaves a checkpoint and says how exact it is."""

import runpy
import sys
from pathlib import Path

import pytest

from spiking_controller.networks.checkpoint import load_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_and_evaluate.py"


def test_it_trains_saves_and_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_and_evaluate.py", "--iterations", "1", "--out", str(tmp_path / "run")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert load_checkpoint(tmp_path / "run" / "planar_reach.safetensors").task.name == "planar_reach"
    last = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(":")[0] for line in last] == ["network_alone", "with_integral"]
    assert all(0.0 < float(line.split()[-2]) < 2000.0 for line in last)
