"""What lands where: share files, commands on PATH from pip, programs for `ros2 run` from colcon."""

import configparser
import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from spiking_controller.resources import share_directory, share_path

SHARE_FOLDERS = ("launch", "config", "models")


def shipped_files(root: Path) -> set[str]:
    """Every file that must be below share/spiking_controller, relative to it."""
    found = (path for folder in SHARE_FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel_names(root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names inside the wheel that pip builds from a copy of the checkout."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "README.md", "LICENSE"):
        shutil.copy2(root / name, source)
    for name in ("spiking_controller", "resource", *SHARE_FOLDERS):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*command, "--wheel-dir", "wheels"], cwd=source, check=True)
    (wheel,) = (source / "wheels").glob("spiking_controller-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_command_resolves_to_a_function(setup_arguments: dict[str, Any]) -> None:
    for line in setup_arguments["entry_points"]["console_scripts"]:
        _, target = (part.strip() for part in line.split("="))
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), line


def test_setup_installs_every_launch_config_and_model_file(root: Path, setup_arguments: dict[str, Any]) -> None:
    prefix = "share/spiking_controller"
    installed = {
        f"{folder}/{Path(file).name}".removeprefix(f"{prefix}/")
        for folder, files in setup_arguments["data_files"]
        if folder.startswith(prefix)
        for file in files
    }
    assert installed == shipped_files(root) | {"package.xml"}


def test_ament_finds_the_package_by_its_resource_marker(root: Path, setup_arguments: dict[str, Any]) -> None:
    marker = ("share/ament_index/resource_index/packages", ["resource/spiking_controller"])
    assert marker in setup_arguments["data_files"]
    assert (root / "resource" / "spiking_controller").is_file()


def test_colcon_puts_the_programs_where_ros2_run_looks(root: Path) -> None:
    options = configparser.ConfigParser()
    options.read(root / "setup.cfg")
    assert options["install"]["install_scripts"] == "$base/lib/spiking_controller"
    assert options["develop"]["script_dir"] == "$base/lib/spiking_controller"


def test_wheel_carries_share_files_and_leaves_the_commands_to_pip(root: Path, wheel_names: set[str]) -> None:
    data = {name.partition(".data/data/")[2] for name in wheel_names if ".data/data/" in name}
    assert {f"share/spiking_controller/{name}" for name in shipped_files(root)} <= data
    assert "share/ament_index/resource_index/packages/spiking_controller" in data
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel_names)
    assert not [name for name in wheel_names if ".data/scripts/" in name or "lib/spiking_controller" in name]


def test_wheel_carries_every_module_and_no_test(root: Path, wheel_names: set[str]) -> None:
    modules = {path.relative_to(root).as_posix() for path in (root / "spiking_controller").rglob("*.py")}
    assert modules <= wheel_names
    assert not [name for name in wheel_names if name.startswith("test")]


def test_share_path_finds_the_shipped_files(root: Path) -> None:
    assert (share_directory() / "package.xml").is_file()
    for name in shipped_files(root):
        assert share_path(name).is_file(), name
