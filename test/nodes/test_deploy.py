"""The parameter files for a real arm fit the node that reads them, and each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from spiking_controller.nodes import controller, recorder, trainer
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm

FR3 = share_path("config", "fr3.yaml")


def parameters(file: str, node: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(share_path("config", file).read_text())
    return content[node]["ros__parameters"] if node in content else content["/**"][node]["ros__parameters"]


@pytest.mark.parametrize("node", [controller, trainer])
def test_every_parameter_for_an_fr3_exists_and_is_in_range(
    node: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Later files win: a start that fails once all parameters have been looked at.
    nowhere = {"checkpoint": "/nowhere/net.safetensors"}
    ending = {"/**/controller": {"ros__parameters": nowhere | {"autostart": True}}}
    ending["/**/trainer"] = {"ros__parameters": nowhere}
    (tmp_path / "ending.yaml").write_text(yaml.safe_dump(ending))
    files = [argument for file in (FR3, tmp_path / "ending.yaml") for argument in ("--params-file", str(file))]
    assert node.main(["node", "--ros-args", *files]) == 2
    output = "".join(capfd.readouterr())
    assert "there is no such checkpoint" in output
    assert "has no effect" not in output


def test_torques_go_to_the_joints_that_states_come_from() -> None:
    efforts = parameters("fr3_ros2_control.yaml", "effort_controller")
    names = parameters("fr3.yaml", "/**/controller")["joint_names"]
    assert efforts["joints"] == names == parameters("fr3.yaml", "/**/trainer")["joint_names"]
    assert efforts["interface_name"] == "effort"
    assert [name.removeprefix("fr3_") for name in names] == [
        name.removeprefix("panda_") for name in get_arm("panda").joint_names
    ]


def test_the_rate_limit_fits_the_rate_of_the_joint_states() -> None:
    manager = parameters("fr3_ros2_control.yaml", "controller_manager")
    states = parameters("fr3_ros2_control.yaml", "joint_state_broadcaster")
    assert manager["update_rate"] % states["update_rate"] == 0
    assert parameters("fr3.yaml", "/**/controller")["rate_limit_period"] == 1.0 / states["update_rate"]


def test_the_recorder_has_the_parameters_that_the_file_gives_it() -> None:
    known = {spec.name for spec in recorder.PARAMETERS} | {"use_sim_time"}
    assert set(parameters("fr3.yaml", "/**/recorder")) <= known
