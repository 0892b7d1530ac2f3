"""The parameter files for a real arm fit the node that reads them, and each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import JointState

from spiking_controller.nodes import recorder, torque_watchdog, trainer
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.controller import node as controller
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm

FR3 = share_path("config", "fr3.yaml")


def parameters(file: str, node: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(share_path("config", file).read_text())
    return content[node]["ros__parameters"] if node in content else content["/**"][node]["ros__parameters"]


def with_changes(folder: Path, **changes: dict[str, Any]) -> list[str]:
    """Arguments that give a node the file for an FR3, and after it a file with changes by node: later files win."""
    file = folder / "changes.yaml"
    file.write_text(yaml.safe_dump({f"/**/{node}": {"ros__parameters": values} for node, values in changes.items()}))
    return ["--params-file", str(FR3), "--params-file", str(file)]


@pytest.mark.parametrize("node", [controller, trainer])
def test_every_parameter_for_an_fr3_exists_and_is_in_range(
    node: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = {"checkpoint": "/nowhere/net.safetensors"}
    files = with_changes(tmp_path, controller=nowhere | {"autostart": True}, trainer=nowhere)
    assert node.main(["node", "--ros-args", *files]) == 2
    output = "".join(capfd.readouterr())
    assert "there is no such checkpoint" in output
    assert "has no effect" not in output


def test_torques_go_to_the_joints_that_states_come_from() -> None:
    efforts = parameters("fr3_ros2_control.yaml", "effort_controller")
    assert parameters("fr3.yaml", "/**")["arm"] == "fr3"
    assert tuple(efforts["joints"]) == get_arm("fr3").joint_names
    assert efforts["interface_name"] == "effort"


def test_the_rate_limit_fits_the_rate_of_the_joint_states() -> None:
    manager = parameters("fr3_ros2_control.yaml", "controller_manager")
    states = parameters("fr3_ros2_control.yaml", "joint_state_broadcaster")
    assert manager["update_rate"] % states["update_rate"] == 0
    assert parameters("fr3.yaml", "/**/controller")["rate_limit_period"] == 1.0 / states["update_rate"]


def test_the_watchdog_has_the_parameters_that_the_file_gives_it_and_keeps_the_controllers_rate_limit() -> None:
    given, controllers = (parameters("fr3.yaml", f"/**/{node}") for node in ("torque_watchdog", "controller"))
    assert given.keys() <= {spec.name for spec in torque_watchdog.PARAMETERS} | {"use_sim_time"}
    for name in ("rate_limit_period", "use_sim_time"):
        assert given[name] == controllers[name]


def test_the_recorder_has_the_parameters_that_the_file_gives_it() -> None:
    known = {spec.name for spec in recorder.PARAMETERS} | {"use_sim_time"}
    assert set(parameters("fr3.yaml", "/**/recorder")) <= known


def test_an_fr3_whose_joint_6_is_beyond_its_limit_gets_no_torque(graph: Any, probe: Any, tmp_path: Path) -> None:
    graph.controller(*with_changes(tmp_path, controller={"autostart": True}))
    probe.wait_for(lambda: probe.activity(), "the controller")
    arm = get_arm("fr3")
    message = JointState(name=list(arm.joint_names))
    message.position = np.asarray(arm.home).tolist()
    message.position[5] = 0.4  # Legal on a Panda.
    assert message.position[5] > get_arm("panda").limits.position_lower[5] + 0.1
    message.velocity = [0.0] * 7
    time = 0

    def next_state() -> None:
        nonlocal time
        time += 2_000_000
        messages.set_stamp(message.header.stamp, time)
        probe.state_publisher.publish(message)

    probe.repeat(next_state, lambda: "fr3_joint6" in probe.activity_figure("reason"), "a fault that names the joint")
    probe.greet("controller")
    assert not any(np.any(command.data) for command in probe.commands)
