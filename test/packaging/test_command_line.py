"""The command line answers at once, loads only what a command needs and turns errors into sentences."""

import argparse
import importlib
import subprocess
import sys
from types import ModuleType

import pytest

from spiking_controller import __version__, cli
from spiking_controller.errors import ConfigError


def test_help_names_every_command_without_importing_torch_or_ros() -> None:
    program = (
        "import sys; from spiking_controller import cli\n"
        "try: cli.main(['--help'])\n"
        "finally: print(sorted({'torch', 'rclpy', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(name.split()[0] in result.stdout for name in cli.COMMANDS)
    assert result.stdout.splitlines()[-1] == "[]"


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"spiking_controller {__version__}"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: spiking_controller {name}" in capsys.readouterr().out


def test_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fly"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "fly" in message
    assert "evaluate" in message


def test_a_group_of_commands_names_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark"])
    assert stop.value.code == 2
    assert "WHAT" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["benchmark", "--help"])
    message = capsys.readouterr().out
    assert "train" in message
    assert "control" in message


def test_error_of_a_command_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: argparse.Namespace) -> int:
        raise ConfigError("task 'juggling' is not known; use 'panda_reach'.")

    module = ModuleType("command")
    monkeypatch.setattr(module, "add_arguments", lambda parser: None, raising=False)
    monkeypatch.setattr(module, "run", refuse, raising=False)
    monkeypatch.setattr(cli, "load_command", lambda name: module)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == "error: task 'juggling' is not known; use 'panda_reach'.\n"


def test_missing_ros_is_answered_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_ros(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setattr(importlib, "import_module", without_ros)
    assert cli.main(["up"]) == 2
    message = capsys.readouterr().err
    assert "rclpy" in message
    assert "spiking_controller[ros]" in message
    assert len(message.splitlines()) == 1
