"""An environment in which ROS cannot start ends every command and node with one sentence and exit code 2."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spiking_controller
from spiking_controller import cli
from spiking_controller.nodes import evaluator, recorder, trainer
from spiking_controller.nodes.bridge import node as mujoco_bridge
from spiking_controller.nodes.controller import node as controller

BAG = Path(__file__).parents[1] / "data" / "panda_three_goals"
SENTENCE = "error: ROS_DOMAIN_ID is '{}'; set it to a whole number from 0 to 232, or unset it.\n"


@pytest.fixture(params=["abc", "500", "-1", "1.5"])
def domain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ROS_DOMAIN_ID says, although it is none."""
    monkeypatch.setenv("ROS_DOMAIN_ID", request.param)
    return str(request.param)


@pytest.mark.parametrize(
    "words", [["goal", "0.4", "0", "0.4"], ["play", str(BAG)], ["up"], ["demo"], ["benchmark", "control"]], ids=" ".join
)
def test_domain_that_is_none_ends_a_command(
    words: list[str], domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    printed = capfd.readouterr()
    assert printed.err == SENTENCE.format(domain)
    assert not printed.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "node", [controller, mujoco_bridge, recorder, trainer, evaluator], ids=lambda node: node.__name__
)
def test_domain_that_is_none_ends_a_node(node: Any, domain: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert node.main(["node"]) == 2
    assert "".join(capfd.readouterr()) == SENTENCE.format(domain)


def test_domain_may_be_empty_or_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "101", " 7"):
        monkeypatch.setenv("ROS_DOMAIN_ID", value)
        program = "from spiking_controller.nodes.common.process import start_ros; start_ros([])"
        subprocess.run([sys.executable, "-c", program], check=True)


def test_ros_starts_in_one_place() -> None:
    package = Path(spiking_controller.__file__).parent
    starting = [file.name for file in package.rglob("*.py") if "rclpy.init(" in file.read_text(encoding="utf-8")]
    assert starting == ["process.py"]
