"""The bridge alone: it takes only legal commands, and its services do what they say."""

import os
from typing import Any

import numpy as np
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


def test_the_arm_rests_without_commands_and_tells_its_hand(graph: Any, probe: Any) -> None:
    bridge = graph.bridge()
    probe.wait_for(lambda: probe.time() > 0.5, "half a second")
    assert not np.any(probe.states[-1].effort)
    assert probe.distance(HOME_HAND) < 1e-3
    assert list(probe.states[-1].name) == [f"panda_joint{index}" for index in range(1, 8)]
    probe.wait_for(lambda: probe.hand_poses, "a hand pose")
    position = probe.hand_poses[-1].pose.position
    np.testing.assert_allclose((position.x, position.y, position.z), HOME_HAND, atol=1e-3)
    assert probe.hand_poses[-1].header.frame_id == "panda_link0"
    probe.wait_for(lambda: "no torque" in probe.status(STATUS), "the status")
    assert bridge.stop() == 0


def test_wrong_commands_are_refused_and_commands_beyond_the_motors_are_clipped(graph: Any, probe: Any) -> None:
    bridge = graph.bridge(command_timeout=10.0, diagnostics_period=0.1)
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    probe.wait_for(lambda: probe.command_publisher.get_subscription_count() > 1, "the bridge")
    wrong_commands: tuple[list[float], ...] = ([1.0] * 6, [1.0] * 8, [], [float("nan")] * 7, [float("inf")] + [0.0] * 6)
    for count, wrong in enumerate(wrong_commands, start=1):
        probe.command_publisher.publish(Float64MultiArray(data=wrong))
        probe.wait_for(
            lambda count=count: probe.figure(STATUS, "refused command") == str(count),
            f"refusal {count} on /diagnostics",
        )
    assert not np.any(probe.states[-1].effort)
    probe.command_publisher.publish(Float64MultiArray(data=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 500.0]))
    probe.wait_for(lambda: np.any(probe.states[-1].effort), "the command to act")
    assert probe.states[-1].effort[6] == 12.0
    assert bridge.stop() == 0


def test_pause_step_and_reset(graph: Any, probe: Any) -> None:
    bridge = graph.bridge()
    probe.wait_for(lambda: probe.time() > 0.2, "some time to pass")
    refused = probe.call(Trigger, "mujoco_bridge/step", Trigger.Request())
    assert not refused.success
    assert "pause" in refused.message
    assert probe.call(SetBool, "mujoco_bridge/pause", SetBool.Request(data=True)).success
    probe.listen(0.1)
    paused_at = probe.time()
    probe.listen(0.2)
    assert probe.time() == paused_at
    assert probe.call(Trigger, "mujoco_bridge/step", Trigger.Request()).success
    probe.wait_for(lambda: probe.time() > paused_at, "one step")
    np.testing.assert_allclose(probe.time(), paused_at + 0.002)
    assert probe.call(Trigger, "mujoco_bridge/reset", Trigger.Request()).success
    probe.wait_for(lambda: probe.time() == 0.0, "time zero")
    assert probe.call(SetBool, "mujoco_bridge/pause", SetBool.Request(data=False)).success
    probe.wait_for(lambda: probe.time() > 0.1, "time to go on")
    assert bridge.stop() == 0


def test_a_payload_can_be_put_into_the_hand_while_the_arm_runs(graph: Any, probe: Any) -> None:
    bridge = graph.bridge()
    probe.wait_for(lambda: probe.time() > 0.2, "some time to pass")
    assert probe.figure(STATUS, "payload_mass") in ("", "0.0")
    assert probe.distance(HOME_HAND) < 1e-3
    assert set_parameter(probe, "payload_mass", 2.0).successful
    probe.wait_for(lambda: probe.hand()[2] < HOME_HAND[2] - 0.05, "the hand to sink")
    probe.wait_for(lambda: probe.figure(STATUS, "payload_mass") == "2.0", "the payload on /diagnostics")
    assert bridge.stop() == 0
    assert "from now on: payload_mass 2.0" in bridge.output


def test_parameters_that_do_not_fit_are_refused_with_a_sentence_and_stay(graph: Any, probe: Any) -> None:
    bridge = graph.bridge(friction_factor="[2.0]")
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
    probe.wait_for(lambda: probe.figure(STATUS, "friction_factor") == "2.0", "the friction on /diagnostics")
    assert probe.figure(STATUS, "gravity compensation") == "true"
    assert bridge.stop() == 0


def test_the_arm_can_be_pushed_and_says_why_not_where_it_cannot(graph: Any, probe: Any) -> None:
    bridge = graph.bridge(push_duration=0.2)
    publisher = probe.create_publisher(WrenchStamped, "mujoco_bridge/push", 10)
    probe.wait_for(publisher.get_subscription_count, "the bridge")
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    for wrong in (push((5.0, 0.0, 0.0), "map"), push((float("nan"), 0.0, 0.0))):
        publisher.publish(wrong)
        probe.listen(0.1)
    probe.wait_for(lambda: probe.figure(STATUS, "refused push") == "2", "two refusals on /diagnostics")
    assert probe.distance(HOME_HAND) < 1e-3
    publisher.publish(push((0.0, 20.0, 0.0), "panda_link0"))
    probe.wait_for(lambda: probe.hand()[1] > 0.02, "the hand to give way")
    probe.wait_for(lambda: probe.figure(STATUS, "push") == "1", "the push on /diagnostics")
    assert bridge.stop() == 0
    assert "a push in the frame 'map' is not possible; give panda_link0 or one of" in bridge.output


def test_without_a_display_there_is_no_window_but_a_sentence(graph: Any, probe: Any, monkeypatch: Any) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert "DISPLAY" not in os.environ
    bridge = graph.bridge(headless=False)
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    assert bridge.stop() == 0
    assert "no display" in bridge.output
