"""Two nodes that publish what only one may stop the arm until one of them is gone; a gripper stops nobody."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from spiking_controller.nodes.common import messages

GOAL = (0.45, -0.25, 0.45)
NEAR = 0.05
GRIPPER_PERIOD = 0.01
"""s."""


def assert_no_torque_for(probe: Any, *names: str) -> None:
    """A fault names these nodes, and the torque goes to zero and stays there."""

    def reason() -> str:
        return str(probe.activity_figure("reason"))

    probe.wait_for(lambda: all(name in reason() for name in names), f"a fault that names {names}")
    assert probe.activity() == "fault"
    probe.wait_for_rest("the ramp to zero")
    probe.assert_no_command_comes()


def assert_control_resumes(probe: Any) -> None:
    probe.wait_for(lambda: probe.activity() in ("reaching", "reached"), "control to resume")
    probe.wait_for(lambda: probe.distance(GOAL) < NEAR, "the goal")
    probe.assert_torques_keep_their_limits()


def test_two_sources_of_our_joints_stop_the_arm_until_one_is_gone(graph: Any, probe: Any) -> None:
    graph.bridge(diagnostics_period=0.3)
    graph.controller(autostart=False, diagnostics_period=0.1)
    probe.bring_up()
    probe.set_in_motion(*GOAL)
    second = graph.bridge("-r", "__node:=second_bridge")
    assert_no_torque_for(probe, "/mujoco_bridge", "/second_bridge")
    assert second.stop() == 0
    assert_control_resumes(probe)


def test_a_second_source_of_commands_stops_the_arm_until_it_is_gone(graph: Any, probe: Any, context: Context) -> None:
    graph.bridge(diagnostics_period=0.3)
    graph.controller(autostart=False, diagnostics_period=0.1)
    probe.bring_up()
    probe.set_in_motion(*GOAL)
    rig = Node("rig", context=context)
    rig.create_publisher(Float64MultiArray, "effort_controller/commands", messages.COMMAND)
    with probe.also_spinning(rig):
        assert_no_torque_for(probe, "/controller", "/rig")
    rig.destroy_node()
    assert_control_resumes(probe)


@contextmanager
def gripper(probe: Any, context: Context) -> Iterator[None]:
    """Inside, another node tells the angles of two fingers on the arm's topic whenever the probe listens."""
    node = Node("gripper", context=context)
    publisher = node.create_publisher(JointState, "joint_states", messages.STATE_PUBLISHER)
    fingers = ["panda_finger_joint1", "panda_finger_joint2"]
    message = JointState(name=fingers, position=[0.02, 0.02], velocity=[0.0, 0.0])

    def publish() -> None:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(GRIPPER_PERIOD, publish)
    with probe.also_spinning(node):
        yield
    node.destroy_node()


def test_a_gripper_on_the_same_topic_is_none_of_our_business(graph: Any, probe: Any, context: Context) -> None:
    graph.bridge(diagnostics_period=0.3)
    controller = graph.controller(autostart=False, diagnostics_period=0.1)
    with gripper(probe, context):
        for _ in range(5):
            probe.bring_up()
            probe.wait_for(lambda: probe.activity() == "idle", "the arm to be driven")
            assert probe.change_state(Transition.TRANSITION_DEACTIVATE)
            assert probe.change_state(Transition.TRANSITION_CLEANUP)
        probe.bring_up()
        probe.send_accepted_goal(*GOAL)

        def is_there() -> bool:
            # By the bridge's word: the joint states that were heard last may be the gripper's.
            hand = probe.hand_poses[-1].pose.position
            return bool(np.linalg.norm(np.subtract((hand.x, hand.y, hand.z), GOAL)) < NEAR)

        probe.wait_for(lambda: probe.activity() == "reached" and is_there(), "the goal")
        rejected = "rejected: other joints"
        probe.wait_for(lambda: int(probe.figure("/controller: control", rejected) or 0) > 10, "the gripper to be heard")
    probe.assert_torques_keep_their_limits()
    assert "panda_joint" not in controller.output
    assert "finger" not in controller.output
