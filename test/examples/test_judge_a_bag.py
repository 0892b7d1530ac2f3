"""The example that judges a bag says what `spiking_controller replay` says."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_it_prints_the_errors_of_the_forward_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, model = ROOT / "test" / "data" / "panda_three_goals", ROOT / "models" / "panda_reach.safetensors"
    monkeypatch.setattr(sys, "argv", ["judge_a_bag.py", str(bag), str(model)])
    runpy.run_path(str(ROOT / "examples" / "judge_a_bag.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines] == [f"spiking: {steps} steps ahead" for steps in (1, 10, 50)]
    errors = [float(line.split()[-2]) for line in lines]
    assert errors == sorted(errors)
    assert 0.01 < errors[0] < 0.2
