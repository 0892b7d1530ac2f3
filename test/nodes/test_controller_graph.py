"""The controller as a managed node among others: what it checks in the graph, and what it tells other nodes."""

import signal
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetAvailableTransitions
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState

from spiking_controller.control.supervisor import MANY_OTHERS
from spiking_controller.nodes.common import messages

GOAL = (0.45, -0.25, 0.45)
OTHER_GOAL = (0.35, 0.35, 0.6)
THIRD_GOAL = (0.5, 0.0, 0.4)
PERIOD = 0.002
"""Between two joint states of a usual driver, s."""


class Driver:
    """Publishes joint states of an arm that stands at home."""

    def __init__(self, probe: Any) -> None:
        self._probe = probe
        self._message = JointState(position=list(probe.arm.home), velocity=[0.0] * 7)
        probe.wait_for(lambda: probe.state_publisher.get_subscription_count() > 1, "the controller")

    @property
    def time(self) -> int:
        """Stamp of the last state, ns."""
        return messages.stamp_to_time(self._message.header.stamp)

    def publish_until(
        self, condition: Callable[[], Any], what: str, period: float = PERIOD, names: tuple[str, ...] = ()
    ) -> None:
        """States from time zero on, stamped `period` (s) apart, until the condition holds."""
        self._message.name = list(names or self._probe.arm.joint_names)
        messages.set_stamp(self._message.header.stamp, 0)

        def next_state() -> None:
            messages.set_stamp(self._message.header.stamp, self.time + round(period * messages.NANOSECONDS))
            self._probe.state_publisher.publish(self._message)

        self._probe.repeat(next_state, condition, what)

    def repeat_until(self, condition: Callable[[], Any], what: str) -> None:
        """The last state again and again."""
        self._probe.repeat(lambda: self._probe.state_publisher.publish(self._message), condition, what)


@pytest.fixture(scope="module")
def process(module_graph: Any) -> Any:
    return module_graph.controller("-r", "__ns:=/lone", autostart=False, diagnostics_period=0.1)


@pytest.fixture
def lone_probe(make_probe: Any) -> Any:
    return make_probe("lone")


@pytest.fixture
def lone(process: Any, lone_probe: Any) -> Iterator[Any]:
    """A controller without an arm, as new and inactive; its process is shared."""
    assert lone_probe.change_state(Transition.TRANSITION_CONFIGURE)
    yield process
    if lone_probe.state() == State.PRIMARY_STATE_ACTIVE:
        assert lone_probe.change_state(Transition.TRANSITION_DEACTIVATE)
    assert lone_probe.change_state(Transition.TRANSITION_CLEANUP)


def test_a_simulation_of_another_gravity_convention_gets_no_torque_but_a_reason(graph: Any, probe: Any) -> None:
    graph.bridge(gravity_compensation=False)
    controller = graph.controller(diagnostics_period=0.1)
    probe.wait_for(lambda: "gravity_compensation false" in probe.activity_figure("reason"), "the reason")
    assert probe.activity() == "fault"
    # The answer may come before the first torque or after it.
    probe.wait_for(lambda: not (probe.commands and np.any(probe.commands[-1].data)), "the ramp to zero")
    probe.assert_no_command_comes()
    assert controller.stop() == 0
    assert "/mujoco_bridge has gravity_compensation false" in controller.output


def test_an_arm_in_motion_loses_its_torque_while_a_publisher_tells_another_gravity_convention(
    graph: Any, probe: Any, context: Context
) -> None:
    graph.controller(diagnostics_period=0.1)
    graph.bridge()
    probe.set_in_motion(*GOAL)
    rig = Node("rig", context=context)
    rig.declare_parameter("gravity_compensation", False)
    rig.create_publisher(JointState, "joint_states", messages.STATE_PUBLISHER)
    with probe.also_spinning(rig):
        probe.wait_for(lambda: "/rig has gravity_compensation false" in probe.activity_figure("reason"), "the reason")
        assert probe.activity() == "fault"
        probe.wait_for_rest("the ramp to zero")
        probe.assert_no_command_comes()
    rig.destroy_node()
    probe.wait_for(lambda: probe.activity() in ("reaching", "reached"), "control to resume")
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the goal")
    probe.assert_every_torque_is_legal()


def test_a_state_repeated_after_the_torque_is_gone_is_answered_with_zero_torque(lone: Any, lone_probe: Any) -> None:
    """A bridge in lock-step that has heard none of the torques for its first state would wait for ever otherwise."""
    assert lone_probe.change_state(Transition.TRANSITION_ACTIVATE)
    driver = Driver(lone_probe)

    def has_torque() -> bool:
        lone_probe.send_goal(*GOAL)  # Where the hand is at its goal, the policy is silent.
        return bool(lone_probe.commands) and bool(np.any(lone_probe.commands[-1].data))

    driver.publish_until(has_torque, "torque")
    driver.repeat_until(
        lambda: any(messages.stamp_to_time(torque.header.stamp) >= driver.time for torque in lone_probe.torques),
        "the last state to arrive",
    )
    lone_probe.wait_for(lambda: lone_probe.activity() == "fault", "the silence to be noticed")
    lone_probe.wait_for_rest("the torque to be zero")
    lone_probe.greet("controller")
    silent_from = len(lone_probe.commands)
    driver.repeat_until(lambda: len(lone_probe.commands) > silent_from, "an answer")
    assert not any(np.any(command.data) for command in lone_probe.commands[silent_from:])


def test_what_joint_states_show_while_inactive_decides_on_activation(lone: Any, lone_probe: Any) -> None:
    said = len(lone.output)
    driver = Driver(lone_probe)

    def figure(key: str) -> str:
        return str(lone_probe.figure("/lone/controller: control", key))

    driver.publish_until(lambda: figure("joint state period (ms)") == "50.000", "the slow driver to be noticed", 0.05)
    assert not lone_probe.change_state(Transition.TRANSITION_ACTIVATE)
    strangers = tuple(f"fr3_joint{number}" for number in range(1, 8))
    # A few would be none of our business: a gripper's, perhaps.
    many = 2 * MANY_OTHERS
    driver.publish_until(lambda: int(figure("rejected: other joints") or 0) > many, "rejections", names=strangers)
    assert not lone_probe.change_state(Transition.TRANSITION_ACTIVATE)
    assert lone_probe.state() == State.PRIMARY_STATE_INACTIVE
    driver.publish_until(lambda: figure("joint state period (ms)") == "2.000", "the usual driver to be noticed")
    assert lone_probe.change_state(Transition.TRANSITION_ACTIVATE)
    output = lone.output[said:]
    assert "joint_states come every 50.0 ms, but the networks were trained with a control period" in output
    assert "joint_states lacks panda_joint1" in output


def test_joint_states_of_another_arm_give_no_torque_but_a_sentence(lone: Any, lone_probe: Any) -> None:
    assert lone_probe.change_state(Transition.TRANSITION_ACTIVATE)
    driver = Driver(lone_probe)
    driver.publish_until(
        lambda: "joint_names" in lone_probe.activity_figure("reason"),
        "the reason on ~/status",
        names=tuple(f"fr3_joint{number}" for number in range(1, 8)),
    )
    assert "joint_states lacks panda_joint1" in lone_probe.activity_figure("reason")
    lone_probe.greet("controller")
    assert not lone_probe.commands


def test_a_fault_whose_numbers_change_is_told_once(graph: Any, probe: Any) -> None:
    # Diagnostics come with a status each; the longest period keeps them out of the way.
    controller = graph.controller(diagnostics_period=60.0)
    arm = probe.arm
    probe.wait_for(lambda: probe.activity() == "fault", "the controller to wait for joint states")
    message = JointState(name=list(arm.joint_names), velocity=[0.5] + [0.0] * 6)
    time = sent = 0

    def told_in_five_seconds(next_state: Callable[[], float], words: str) -> None:
        """Publish states, each so long (s) after the one before."""

        def publish() -> None:
            nonlocal time, sent
            time += round(next_state() * messages.NANOSECONDS)
            sent += 1
            messages.set_stamp(message.header.stamp, time)
            probe.state_publisher.publish(message)

        probe.repeat(publish, lambda: words in probe.activity_figure("reason"), words)
        end = monotonic() + 5.0
        probe.repeat(publish, lambda: monotonic() >= end, "five seconds to pass")
        probe.greet("controller")
        statuses = [value.value for each in probe.activities for value in each.values if value.key == "reason"]
        lines = [line for line in controller.output.splitlines() if words in line]
        assert 1 <= len(lines) <= 3
        assert 1 <= sum(words in status for status in statuses) <= 3

    message.position = list(arm.home)
    message.position[0] = arm.limits.position_upper[0] + 0.1

    def move_outside() -> float:
        message.position[0] += 0.5 * PERIOD
        return PERIOD

    told_in_five_seconds(move_outside, "beyond the limits")
    message.position, message.velocity = list(arm.home), [0.0] * 7
    time = 0
    told_in_five_seconds(lambda: 0.05 + 5e-5 * sent, "but the networks were trained with a control period")


def test_the_goal_is_told_again_when_time_jumps_back(lone: Any, lone_probe: Any) -> None:
    assert lone_probe.change_state(Transition.TRANSITION_ACTIVATE)
    driver = Driver(lone_probe)
    driver.publish_until(
        lambda: lone_probe.goals and driver.time > 0.3 * messages.NANOSECONDS, "the place where the hand is held"
    )
    lone_probe.greet("controller")
    (held,) = (goal.point for goal in lone_probe.goals)
    lone_probe.goals.clear()
    driver.publish_until(lambda: lone_probe.goals, "the same after the jump")
    assert [goal.point for goal in lone_probe.goals] == [held]


def test_a_lifecycle_manager_can_bring_it_up_and_down(graph: Any, probe: Any) -> None:
    """Nav2's manager (bond off) asks for a transition, and right after its answer for the state."""
    controller = graph.controller(autostart=False, diagnostics_period=0.1)
    graph.bridge()

    def change(transition: int, state: int) -> None:
        assert probe.change_state(transition)
        assert probe.state() == state

    change(Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)
    probe.send_accepted_goal(*GOAL)
    probe.greet("controller")
    assert not probe.commands
    change(Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)
    probe.wait_for(lambda: probe.commands and np.any(probe.commands[-1].data), "torque")
    change(Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE)
    probe.wait_for_rest("the ramp to zero")
    probe.assert_no_command_comes()
    change(Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED)
    change(Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)
    silent_from = len(probe.commands)
    change(Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)
    probe.wait_for(lambda: any(np.any(each.data) for each in probe.commands[silent_from:]), "torque, once more")
    # `ros2 lifecycle set NODE shutdown` looks the transition up by its label.
    answer = probe.call(
        GetAvailableTransitions, "controller/get_available_transitions", GetAvailableTransitions.Request()
    )
    labels = {each.transition.label: each.transition.id for each in answer.available_transitions}
    assert {"deactivate", "shutdown"} <= labels.keys()
    change(labels["shutdown"], State.PRIMARY_STATE_FINALIZED)
    probe.wait_for_rest("the last torque to be zero")
    probe.assert_every_torque_is_legal()
    assert controller.stop() == 0


# SIGTERM in full motion: test_faults.py.
def test_ctrl_c_in_full_motion_ramps_the_torque_to_zero(graph: Any, probe: Any) -> None:
    controller = graph.controller()
    graph.bridge()
    probe.set_in_motion(*GOAL)
    assert controller.stop(signal.SIGINT) == 0
    probe.wait_for_rest("the last torque to be zero")
    probe.assert_every_torque_is_legal()


def test_other_nodes_hear_what_the_arm_is_about(graph: Any, probe: Any) -> None:
    graph.controller()
    probe.wait_for(lambda: probe.activity() == "fault", "the controller to wait for joint states")
    assert "first joint state" in probe.activity_figure("reason")
    bridge = graph.bridge()
    probe.wait_for(lambda: probe.activity() == "idle", "the arm to hold where it is")
    probe.send_accepted_goal(*GOAL)
    probe.wait_for(lambda: probe.activity() == "reaching", "the arm to be on its way")
    probe.wait_for(lambda: probe.activity() == "reached", "the goal")
    reached = next(each for each in probe.activities if each.message == "reached")
    # The bridge started last: the controller may hear its states before we do.
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "a joint state at the goal")
    probe.wait_for(lambda: 0.0 < float(probe.activity_figure("since (s)")) <= probe.time(), "since when it is so")
    assert float(next(each for each in reached.values if each.key == "distance (m)").value) < 0.02
    assert probe.activity_figure("goal (m)") == "0.4500 -0.2500 0.4500"
    bridge.kill()
    probe.wait_for(lambda: probe.activity() == "fault", "the fault")
    assert "no usable joint state" in probe.activity_figure("reason")
    graph.bridge()
    probe.wait_for(lambda: probe.activity() in ("reaching", "reached"), "control to resume")


def test_two_arms_in_one_graph_each_go_to_their_own_goals(graph: Any, make_probe: Any) -> None:
    goals = {"left": GOAL, "right": OTHER_GOAL}
    probes = {name: make_probe(name) for name in goals}
    for name in goals:
        remaps = ("-r", f"__ns:=/{name}")
        graph.controller(*remaps)
        graph.bridge(*remaps)
    for name, probe in probes.items():
        probe.send_accepted_goal(*goals[name])
    for name, probe in probes.items():
        probe.wait_for(lambda p=probe, g=goals[name]: p.distance(g) < 0.05, f"the {name} arm at its goal")
        probe.wait_for(lambda p=probe: p.activity() == "reached", f"the {name} controller to say so")
        assert probe.activities[-1].name == f"/{name}/controller"
    probes["left"].send_accepted_goal(*THIRD_GOAL)
    probes["left"].wait_for(lambda: probes["left"].distance(THIRD_GOAL) < 0.05, "the left arm at its next goal")
    probes["right"].greet("controller")
    assert probes["right"].distance(OTHER_GOAL) < 0.05
    lefts = (GOAL, THIRD_GOAL)
    assert not any((goal.point.x, goal.point.y, goal.point.z) in lefts for goal in probes["right"].goals)
    for name, probe in probes.items():
        frames = {message.header.frame_id for message in (probe.goals[-1], probe.hand_poses[-1])}
        assert frames == {f"{name}/panda_link0"}
        probe.assert_every_torque_is_legal()
