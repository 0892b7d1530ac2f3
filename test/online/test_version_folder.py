"""The folder of versions keeps the latest ones and finds them again."""

from pathlib import Path

import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import build_networks, dump_checkpoint, parse_checkpoint
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.online.version_folder import VersionFolder


def test_only_the_latest_versions_are_kept_and_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    for start in (0, 4):
        folder = VersionFolder(tmp_path, keep=3)
        for number in range(start, start + 4):
            folder.add(f"{number:064x}"[::-1], b"version")
        folder.close()
    names = [path.name for path in folder.versions()]
    assert names == [
        "000006_500000000000.safetensors",
        "000007_600000000000.safetensors",
        "000008_700000000000.safetensors",
    ]


def test_a_version_is_found_by_its_hash(tmp_path: Path, small_config: TrainingConfig) -> None:
    folder = VersionFolder(tmp_path, keep=3)
    data = dump_checkpoint(*build_networks(small_config), small_config)
    sha256 = parse_checkpoint(data, "").metadata["sha256"]
    folder.add(sha256, data)
    found = folder.find(sha256)
    assert found is not None
    assert found.metadata["sha256"] == sha256
    assert folder.find("0" * 64) is None


def test_decisions_are_logged_in_files_that_do_not_grow_for_ever(tmp_path: Path) -> None:
    folder = VersionFolder(tmp_path, keep=3)
    folder.log("rejected: not better.")
    folder.close()
    assert (tmp_path / "decisions.log").read_text().endswith("rejected: not better.\n")
    folder = VersionFolder(tmp_path, keep=3)
    for _ in range(400):
        folder.log("x" * 20_000)
    folder.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("decisions.log*")) < 3.1e6


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        VersionFolder(tmp_path / "file", keep=3)
