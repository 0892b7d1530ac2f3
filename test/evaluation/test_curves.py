"""Pictures of training logs: drawn from real logs, old and new, and refused for other files."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from spiking_controller.cli import main
from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.training_plots import read_log
from spiking_controller.resources import share_directory


@pytest.fixture
def logs() -> list[Path]:
    folder = share_directory() / "docs" / "training"
    return [folder / "panda_reach.csv", folder / "panda_reach_unbounded_time_constants.csv"]


def test_logs_are_drawn_into_one_picture(logs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "curves.png"
    assert main(["curves", *map(str, logs), "--names", "shipped", "unbounded", "--out", str(picture)]) == 0
    assert str(picture) in capsys.readouterr().out
    colours = Image.open(picture).convert("RGB").getcolors(1 << 24)
    assert colours is not None
    drawn = {colour for _, colour in colours}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= drawn


def test_figures_of_rest_are_drawn_beside_logs_that_lack_them(logs: list[Path], tmp_path: Path) -> None:
    with logs[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(rest_action_noise="0.01", rest_rate_hz="3", moving_rate_hz="30", model_rest_error_ratio="0.5")
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    old, both = tmp_path / "old.png", tmp_path / "both.png"
    assert main(["curves", str(logs[1]), "--out", str(old)]) == 0
    assert main(["curves", str(logs[1]), str(tmp_path / "log.csv"), "--names", "old", "new", "--out", str(both)]) == 0
    assert Image.open(both).width > 1.4 * Image.open(old).width


def test_logs_of_the_same_name_are_refused(logs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", *map(str, logs)]) == 2
    assert "give one name of its own for each" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"table\.csv: is no training log"):
        read_log(path)


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_log(tmp_path / "log.csv")
