"""The example that runs an exported policy reaches its goals without this package."""

import runpy
import sys
from pathlib import Path

import pytest

from spiking_controller.cli import main

ROOT = Path(__file__).parents[2]


def test_it_reaches_its_goals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "panda_reach.onnx"
    assert main(["export", str(ROOT / "models" / "panda_reach.safetensors"), "--onnx", str(policy)]) == 0
    assert "state: layer_1_synaptic_current, layer_1_membrane" in capsys.readouterr().out
    example = ROOT / "examples" / "run_onnx.py"
    assert "import spiking_controller" not in example.read_text()
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", str(policy), str(ROOT / "models" / "panda.xml")])
    runpy.run_path(str(example), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(float(line.split()[-3]) < 5.0 for line in lines)
