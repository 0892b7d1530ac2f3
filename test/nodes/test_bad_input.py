"""What a user gets wrong ends a node with exit code 2 and one sentence, or is refused while it runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from spiking_controller.networks.checkpoint import build_networks, save_checkpoint
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.nodes import evaluator, recorder, trainer
from spiking_controller.nodes.bridge import node as mujoco_bridge
from spiking_controller.nodes.common.parameters import ParameterSpec
from spiking_controller.nodes.controller import node as controller
from spiking_controller.resources import share_path


def sentences(capfd: pytest.CaptureFixture[str]) -> str:
    """What the user saw: no traceback, and exactly one complaint."""
    output = "".join(capfd.readouterr())
    assert "Traceback" not in output
    assert len([line for line in output.splitlines() if line.startswith(("error: ", "[ERROR]"))]) == 1
    return output


def run_controller(**parameters: str) -> int:
    arguments = [item for name, value in parameters.items() for item in ("--param", f"{name}:={value}")]
    return controller.main(["controller", "--ros-args", *arguments])


def test_a_missing_checkpoint(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_controller(checkpoint="/nowhere/net.safetensors") == 2
    assert "/nowhere/net.safetensors: there is no such checkpoint" in sentences(capfd)


def test_a_file_that_is_no_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "notes.safetensors"
    text.write_text("not weights at all")
    assert run_controller(checkpoint=str(text)) == 2
    assert "notes.safetensors" in sentences(capfd)


def test_a_checkpoint_of_another_program(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros((3, 3), dtype=np.float32)}, foreign)
    assert run_controller(checkpoint=str(foreign)) == 2
    assert "foreign.safetensors: is a safetensors file of something else" in sentences(capfd)


def test_a_checkpoint_of_another_arm(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_controller(checkpoint=str(share_path("models", "planar_reach.safetensors"))) == 2
    assert "arm is 'planar_arm', but the parameter arm is 'panda'" in sentences(capfd)


def test_a_robot_that_does_not_carry_its_weight(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_controller(gravity_compensation="false") == 2
    assert "gravity_convention 'compensated'" in sentences(capfd)


def test_a_checkpoint_of_the_papers_task_on_an_arm_that_carries_its_weight(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], small_config: TrainingConfig
) -> None:
    config = replace(small_config, task="panda_reach_paper")
    path = tmp_path / "paper.safetensors"
    save_checkpoint(path, *build_networks(config), config)
    assert run_controller(checkpoint=str(path)) == 2
    assert "start with gravity_compensation:=false" in sentences(capfd)


def test_a_wrong_list_of_joint_names(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_controller(joint_names="[a, b, c]") == 2
    assert "joint_names is ['a', 'b', 'c']; give the 7 different names" in sentences(capfd)


@pytest.mark.parametrize(
    ("node", "parameter", "value", "mend"),
    [
        (controller, "timeout", "-1.0", "from 0.005 to 10"),
        (controller, "timeout", "soon", "a decimal number"),
        (controller, "soft_start", "1", "such as 1.0"),
        (controller, "arm", "ur5", "fr3, panda, planar_arm, and any other by the path"),
        (mujoco_bridge, "state_rate", "1.0e9", "from 10 to 2000"),
        (mujoco_bridge, "real_time_factor", ".nan", "from 0 to 100"),
        (mujoco_bridge, "real_time_factor", "0.0", "lock_step"),
        (mujoco_bridge, "motor_strength", "[1.0, .nan]", "a list of decimal numbers from 0 to 2"),
        (mujoco_bridge, "dry_friction", "1.0", "a list of decimal numbers from 0 to 50"),
        (mujoco_bridge, "friction_factor", "[1.0, 2.0]", "one for all joints, or 7"),
        (trainer, "old_share", "1.0", "from 0 to 0.99"),
        (trainer, "segment_steps", "few", "a whole number"),
        (recorder, "storage", "rosbag", "one of mcap, sqlite3"),
        (controller, "trusted_keys", "[]", "a list of texts, such as ['']"),
        (controller, "trusted_keys", "lab.pub.pem", "a list of texts, such as ['']"),
    ],
)
def test_a_wrong_parameter(node: Any, parameter: str, value: str, mend: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert node.main(["node", "--ros-args", "--param", f"{parameter}:={value}"]) == 2
    output = sentences(capfd)
    assert parameter in output
    assert mend in output


def test_a_parameter_file_that_does_not_exist(capfd: pytest.CaptureFixture[str]) -> None:
    assert controller.main(["controller", "--ros-args", "--params-file", "/nowhere/panda.yaml"]) == 2
    output = "".join(capfd.readouterr())
    assert "/nowhere/panda.yaml" in output
    assert "Traceback" not in output


def test_a_misspelt_parameter_is_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_controller(timout="0.2", checkpoint="/nowhere/net.safetensors") == 2
    assert "'timout' does not exist and has no effect; did you mean 'timeout'?" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "spec",
    [spec for node in (controller, evaluator, mujoco_bridge, recorder, trainer) for spec in node.PARAMETERS],
    ids=lambda spec: spec.name,
)
def test_every_parameter_says_what_it_is_and_allows_its_default(spec: ParameterSpec) -> None:
    assert spec.description.endswith(".") or ")" in spec.description[-20:]
    for number in spec.default if isinstance(spec.default, list) else [spec.default]:
        if isinstance(number, int | float) and not isinstance(number, bool):
            assert spec.low <= number <= spec.high
            assert spec.low < spec.high
    if spec.choices:
        assert spec.default in spec.choices
