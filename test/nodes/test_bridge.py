"""The bridge alone: it takes only legal commands, and its services do what they say."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import WrenchStamped
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

HOME_HAND = (0.3069, 0.0, 0.4869)
STATUS = "/mujoco_bridge: simulation"


def set_parameter(probe: Any, name: str, value: Any) -> SetParametersResult:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return probe.call(SetParameters, "mujoco_bridge/set_parameters", request).results[0]


def push(force: tuple[float, float, float], frame: str = "") -> WrenchStamped:
    message = WrenchStamped()
    message.header.frame_id = frame
    message.wrench.force.x, message.wrench.force.y, message.wrench.force.z = force
    return message


def refused(probe: Any, kind: str) -> int:
    """How many messages of a kind the bridge says it has refused."""
    probe.wait_for(lambda: probe.status(STATUS), "the bridge on /diagnostics")
    return int(probe.figure(STATUS, f"refused {kind}") or 0)


@pytest.fixture(scope="module")
def process(module_graph: Any) -> Any:
    return module_graph.bridge(friction_factor="[2.0]", push_duration=0.2, command_timeout=10.0, diagnostics_period=0.1)


@pytest.fixture
def bridge(process: Any, probe: Any) -> Iterator[Any]:
    """The process of a bridge that all tests share, with the arm at home at time zero."""
    assert probe.call(Trigger, "mujoco_bridge/reset", Trigger.Request()).success
    probe.states.clear()
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    yield process
    assert set_parameter(probe, "payload_mass", 0.0).successful
    assert probe.call(SetBool, "mujoco_bridge/pause", SetBool.Request(data=False)).success


def test_the_arm_rests_without_commands_and_tells_its_hand(bridge: Any, probe: Any) -> None:
    probe.wait_for(lambda: probe.time() > 0.5, "half a second")
    assert not np.any(probe.states[-1].effort)
    assert probe.distance(HOME_HAND) < 1e-3
    assert list(probe.states[-1].name) == [f"panda_joint{index}" for index in range(1, 8)]
    probe.wait_for(lambda: probe.hand_poses, "a hand pose")
    position = probe.hand_poses[-1].pose.position
    np.testing.assert_allclose((position.x, position.y, position.z), HOME_HAND, atol=1e-3)
    assert probe.hand_poses[-1].header.frame_id == "panda_link0"
    probe.wait_for(lambda: "no torque" in probe.status(STATUS), "the status")


def test_wrong_commands_are_refused_and_commands_beyond_the_motors_are_clipped(bridge: Any, probe: Any) -> None:
    probe.wait_for(lambda: probe.command_publisher.get_subscription_count() > 1, "the bridge")
    before = refused(probe, "command")
    wrong_commands: tuple[list[float], ...] = ([1.0] * 6, [1.0] * 8, [], [float("nan")] * 7, [float("inf")] + [0.0] * 6)
    for count, wrong in enumerate(wrong_commands, start=before + 1):
        probe.command_publisher.publish(Float64MultiArray(data=wrong))
        probe.wait_for(lambda count=count: refused(probe, "command") == count, f"refusal {count} on /diagnostics")
    assert not any(np.any(state.effort) for state in probe.states)
    probe.command_publisher.publish(Float64MultiArray(data=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 500.0]))
    probe.wait_for(lambda: np.any(probe.states[-1].effort), "the command to act")
    assert probe.states[-1].effort[6] == 12.0


def test_pause_step_and_reset(bridge: Any, probe: Any) -> None:
    probe.wait_for(lambda: probe.time() > 0.2, "some time to pass")
    not_paused = probe.call(Trigger, "mujoco_bridge/step", Trigger.Request())
    assert not not_paused.success
    assert "pause" in not_paused.message
    assert probe.call(SetBool, "mujoco_bridge/pause", SetBool.Request(data=True)).success
    probe.wait_for(lambda: probe.status(STATUS) == "paused", "the pause on /diagnostics")
    paused_at = float(probe.figure(STATUS, "simulated time (s)"))
    probe.wait_for(lambda: probe.time() == pytest.approx(paused_at), "the last state before the pause")
    for _ in range(3):
        probe.next_status(STATUS)
        assert float(probe.figure(STATUS, "simulated time (s)")) == paused_at
    assert probe.time() == pytest.approx(paused_at)
    assert probe.call(Trigger, "mujoco_bridge/step", Trigger.Request(), once=True).success
    probe.wait_for(lambda: probe.time() > paused_at + 0.001, "one step")
    np.testing.assert_allclose(probe.time(), paused_at + 0.002)
    assert probe.call(Trigger, "mujoco_bridge/reset", Trigger.Request()).success
    probe.wait_for(lambda: probe.time() == 0.0, "time zero")
    assert probe.call(SetBool, "mujoco_bridge/pause", SetBool.Request(data=False)).success
    probe.wait_for(lambda: probe.time() > 0.1, "time to go on")


def test_a_payload_can_be_put_into_the_hand_while_the_arm_runs(bridge: Any, probe: Any) -> None:
    probe.wait_for(lambda: probe.figure(STATUS, "payload_mass") == "0.0", "no payload on /diagnostics")
    assert probe.distance(HOME_HAND) < 1e-3
    assert set_parameter(probe, "payload_mass", 2.0).successful
    probe.wait_for(lambda: probe.hand()[2] < HOME_HAND[2] - 0.05, "the hand to sink")
    probe.wait_for(lambda: probe.figure(STATUS, "payload_mass") == "2.0", "the payload on /diagnostics")
    assert "from now on: payload_mass 2.0" in bridge.output


def test_parameters_that_do_not_fit_are_refused_with_a_sentence_and_stay(bridge: Any, probe: Any) -> None:
    for name, value, sentence in (
        ("motor_strength", [1.0, 0.7], "motor_strength has 2 numbers; give one for all joints, or 7"),
        ("motor_strength", [-0.7], "give a list of decimal numbers from 0 to 2, such as [1.0]"),
        ("real_time_factor", 0.0, "needs lock_step"),
        ("payload_mass", 1000.0, "range"),
        ("gravity_compensation", False, "read-only"),
    ):
        result = set_parameter(probe, name, value)
        assert not result.successful
        assert name in result.reason
        assert sentence in result.reason
    names = ["motor_strength", "friction_factor", "payload_mass", "real_time_factor", "gravity_compensation"]
    stored = probe.call(GetParameters, "mujoco_bridge/get_parameters", GetParameters.Request(names=names)).values
    assert list(stored[0].double_array_value) == [1.0]
    assert list(stored[1].double_array_value) == [2.0]
    assert [value.double_value for value in stored[2:4]] == [0.0, 1.0]
    assert stored[4].bool_value
    probe.next_status(STATUS)
    assert probe.figure(STATUS, "friction_factor") == "2.0"
    assert probe.figure(STATUS, "gravity compensation") == "true"


def test_the_arm_can_be_pushed_and_says_why_not_where_it_cannot(bridge: Any, probe: Any) -> None:
    publisher = probe.create_publisher(WrenchStamped, "mujoco_bridge/push", 10)
    probe.wait_for(publisher.get_subscription_count, "the bridge")
    before = refused(probe, "push")
    for count, wrong in enumerate((push((5.0, 0.0, 0.0), "map"), push((float("nan"), 0.0, 0.0))), start=before + 1):
        publisher.publish(wrong)
        probe.wait_for(lambda count=count: refused(probe, "push") == count, f"refusal {count} on /diagnostics")
    assert probe.distance(HOME_HAND) < 1e-3
    pushed = int(probe.figure(STATUS, "push") or 0)
    publisher.publish(push((0.0, 20.0, 0.0), "panda_link0"))
    probe.wait_for(lambda: probe.hand()[1] > 0.02, "the hand to give way")
    probe.wait_for(lambda: int(probe.figure(STATUS, "push") or 0) == pushed + 1, "the push on /diagnostics")
    assert "a push in the frame 'map' is not possible; give panda_link0 or one of" in bridge.output


def test_without_a_display_there_is_no_window_but_a_sentence(graph: Any, make_probe: Any, monkeypatch: Any) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert "DISPLAY" not in os.environ
    probe = make_probe("left")
    bridge = graph.bridge("-r", "__ns:=/left", headless=False)
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    assert bridge.stop() == 0
    assert "no display" in bridge.output
