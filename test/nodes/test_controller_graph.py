"""The controller as a managed node among others: what it checks in the graph, and what it tells other nodes."""

import signal
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetAvailableTransitions, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import JointState

from spiking_controller.nodes.common import messages

GOAL = (0.45, -0.25, 0.45)
OTHER_GOAL = (0.35, 0.35, 0.6)


def publish_states(probe: Any, period: float, count: int, names: tuple[str, ...] = ()) -> None:
    """Joint states of an arm that stands at home, stamped `period` apart."""
    message = JointState(name=list(names or probe.arm.joint_names), position=list(probe.arm.home), velocity=[0.0] * 7)
    for step in range(count):
        messages.set_stamp(message.header.stamp, round(step * period * messages.NANOSECONDS))
        probe.state_publisher.publish(message)
        probe.listen(0.01)


def set_parameter(probe: Any, name: str, value: float) -> Any:
    given = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=given)])
    return probe.call(SetParameters, "controller/set_parameters", request).results[0]


def state_of(probe: Any) -> int:
    return int(probe.call(GetState, "controller/get_state", GetState.Request()).current_state.id)


def test_a_simulation_of_another_gravity_convention_gets_no_torque_but_a_reason(graph: Any, probe: Any) -> None:
    graph.bridge(gravity_compensation=False)
    controller = graph.controller(diagnostics_period=0.1)
    probe.wait_for(lambda: probe.activity() == "fault", "the fault")
    probe.wait_for(lambda: "gravity_compensation false" in probe.activity_figure("reason"), "the reason")
    # The answer may come before the first torque or after it.
    probe.wait_for(lambda: not (probe.torques and np.any(probe.torques[-1].effort)), "the ramp to zero")
    probe.listen(0.3)
    commanded = len(probe.commands)
    probe.listen(0.5)
    assert len(probe.commands) == commanded
    if commanded:
        probe.assert_torques_keep_their_limits()
    assert controller.stop() == 0
    assert "/mujoco_bridge has gravity_compensation false" in controller.output


def test_a_state_repeated_after_the_torque_is_gone_is_answered_with_zero_torque(graph: Any, probe: Any) -> None:
    """A bridge in lock-step that has heard none of the torques for its first state would wait for ever otherwise."""
    controller = graph.controller()
    probe.wait_for(lambda: probe.state_publisher.get_subscription_count() > 1, "the controller")
    publish_states(probe, 0.002, 20)
    probe.wait_for(lambda: probe.activity() == "fault", "the silence to be noticed")
    probe.wait_for(lambda: probe.commands and not np.any(probe.commands[-1].data), "the torque to be zero")
    probe.listen(0.3)
    silent_from = len(probe.commands)
    message = JointState(name=list(probe.arm.joint_names), position=list(probe.arm.home), velocity=[0.0] * 7)
    messages.set_stamp(message.header.stamp, round(19 * 0.002 * messages.NANOSECONDS))

    def answered() -> bool:
        probe.state_publisher.publish(message)
        probe.listen(0.05)
        return len(probe.commands) > silent_from

    probe.wait_for(answered, "an answer")
    assert not np.any(probe.commands[-1].data)
    assert controller.stop() == 0


def test_what_joint_states_show_while_inactive_decides_on_activation(graph: Any, probe: Any) -> None:
    controller = graph.controller(autostart=False)
    assert probe.change_state(Transition.TRANSITION_CONFIGURE)
    probe.wait_for(lambda: probe.state_publisher.get_subscription_count() > 1, "the controller")

    publish_states(probe, 0.05, 20)
    assert not probe.change_state(Transition.TRANSITION_ACTIVATE)
    publish_states(probe, 0.002, 5, tuple(f"fr3_joint{number}" for number in range(1, 8)))
    assert not probe.change_state(Transition.TRANSITION_ACTIVATE)
    assert state_of(probe) == State.PRIMARY_STATE_INACTIVE
    publish_states(probe, 0.002, 120)
    assert probe.change_state(Transition.TRANSITION_ACTIVATE)
    assert controller.stop() == 0
    assert "joint_states come every 50.0 ms, but the networks were trained with a control period" in controller.output
    assert "joint_states lacks panda_joint1" in controller.output


def test_nav2s_lifecycle_manager_can_bring_it_up_and_down(graph: Any, probe: Any) -> None:
    """The manager (bond off) asks for a transition, and right after its answer for the state."""
    controller = graph.controller(autostart=False)
    graph.bridge()
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    ):
        assert probe.change_state(transition)
        assert state_of(probe) == state
    # `ros2 lifecycle set NODE shutdown` looks the transition up by its label.
    answer = probe.call(
        GetAvailableTransitions, "controller/get_available_transitions", GetAvailableTransitions.Request()
    )
    labels = {each.transition.label: each.transition.id for each in answer.available_transitions}
    assert {"deactivate", "shutdown"} <= labels.keys()
    probe.wait_for(lambda: probe.torques, "torque")
    assert probe.change_state(labels["shutdown"])
    assert state_of(probe) == State.PRIMARY_STATE_FINALIZED
    probe.listen(0.3)
    assert not np.any(probe.commands[-1].data)
    probe.assert_every_torque_is_legal()
    assert controller.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_full_motion_ramps_the_torque_to_zero(graph: Any, probe: Any, number: signal.Signals) -> None:
    controller = graph.controller()
    graph.bridge()
    probe.set_in_motion(*GOAL)
    assert controller.stop(number) == 0
    probe.listen(0.3)
    assert not np.any(probe.commands[-1].data)
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
    # The bridge started last: the controller may hear its states before we do.
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "a joint state at the goal")
    assert float(probe.activity_figure("distance (m)")) < 0.02
    assert 0.0 < float(probe.activity_figure("since (s)")) <= probe.time()
    assert probe.activity_figure("goal (m)") == "0.4500 -0.2500 0.4500"
    bridge.kill()
    probe.wait_for(lambda: probe.activity() == "fault", "the fault")
    assert "no usable joint state" in probe.activity_figure("reason")
    graph.bridge()
    probe.wait_for(lambda: probe.activity() in ("reaching", "reached"), "control to resume")


def test_a_wrong_value_is_refused_with_a_sentence_while_it_runs(graph: Any, probe: Any) -> None:
    controller = graph.controller()
    graph.bridge()
    for name, value in (("soft_start", -1.0), ("torque_scale", float("nan")), ("integral_clamp", 5.0)):
        result = set_parameter(probe, name, value)
        assert not result.successful
        assert name in result.reason
    assert not set_parameter(probe, "timeout", 1.0).successful
    assert set_parameter(probe, "torque_scale", 0.5).successful
    probe.send_accepted_goal(*GOAL)
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the goal, at half the torque")
    probe.assert_every_torque_is_legal()
    assert controller.stop() == 0


def test_the_goal_is_told_again_when_time_jumps_back(graph: Any, probe: Any) -> None:
    controller = graph.controller()
    probe.wait_for(lambda: probe.state_publisher.get_subscription_count() > 1, "the controller")
    publish_states(probe, 0.002, 150)
    probe.wait_for(lambda: probe.goals, "the place where the hand is held")
    (held,) = (goal.point for goal in probe.goals)
    probe.goals.clear()
    publish_states(probe, 0.002, 50)
    probe.wait_for(lambda: probe.goals, "the same after the jump")
    assert [goal.point for goal in probe.goals] == [held]
    assert controller.stop() == 0


def test_of_a_flood_of_goals_the_last_one_counts_and_control_goes_on(graph: Any, probe: Any) -> None:
    controller = graph.controller(diagnostics_period=0.1)
    graph.bridge()
    probe.send_accepted_goal(*OTHER_GOAL)
    probe.goals.clear()
    for number in range(1000):
        probe.send_goal(0.45, -0.25 + 1e-4 * number, 0.45)
        probe.send_goal(float("nan"), 0.0, 0.5)
        probe.listen(0.001)
    probe.send_accepted_goal(*GOAL)
    assert len(probe.goals) < 500
    assert int(probe.figure("/controller: control", "superseded goal")) > 500
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the last goal")
    probe.assert_every_torque_is_legal()
    assert controller.stop() == 0


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
    probes["left"].send_accepted_goal(*OTHER_GOAL)
    probes["left"].wait_for(lambda: probes["left"].distance(OTHER_GOAL) < 0.05, "the left arm at its next goal")
    probes["right"].listen(0.5)
    assert probes["right"].distance(OTHER_GOAL) < 0.05
    assert not any(np.allclose((goal.point.x, goal.point.y, goal.point.z), GOAL) for goal in probes["right"].goals)
    for probe in probes.values():
        probe.assert_every_torque_is_legal()
