"""The bridge alone: it takes only legal commands, and its services do what they say."""

import os
from typing import Any

import numpy as np
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

HOME_HAND = (0.3069, 0.0, 0.4869)


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
    probe.wait_for(lambda: "no torque" in probe.status("/mujoco_bridge: simulation"), "the status")
    assert bridge.stop() == 0


def test_wrong_commands_are_refused_and_commands_beyond_the_motors_are_clipped(graph: Any, probe: Any) -> None:
    bridge = graph.bridge(command_timeout=10.0)
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    probe.wait_for(lambda: probe.command_publisher.get_subscription_count() > 1, "the bridge")
    for wrong in ([1.0] * 6, [1.0] * 8, [], [float("nan")] * 7, [float("inf")] + [0.0] * 6):
        probe.command_publisher.publish(Float64MultiArray(data=wrong))
        probe.listen(0.05)
    probe.wait_for(
        lambda: probe.figure("/mujoco_bridge: simulation", "refused command") == "5", "five refusals on /diagnostics"
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


def test_without_a_display_there_is_no_window_but_a_sentence(graph: Any, probe: Any, monkeypatch: Any) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert "DISPLAY" not in os.environ
    bridge = graph.bridge(headless=False)
    probe.wait_for(lambda: probe.time() > 0.0, "joint states")
    assert bridge.stop() == 0
    assert "no display" in bridge.output
