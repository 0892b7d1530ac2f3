"""Goals and parameters that come while the arm is controlled, in a graph that all tests of this module share."""

import time
from typing import Any

import pytest
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_srvs.srv import Trigger

from spiking_controller.nodes.common import messages
from spiking_controller.nodes.controller.goal_input import SPACING

GOAL = (0.45, -0.25, 0.45)
OTHER_GOAL = (0.35, 0.35, 0.6)
CONTROL = "/controller: control"


@pytest.fixture(scope="module")
def controller(module_graph: Any) -> Any:
    """The process of the controller, with an arm."""
    controller = module_graph.controller(diagnostics_period=0.1)
    module_graph.bridge()
    return controller


def point(goal: Any) -> tuple[float, float, float]:
    return goal.point.x, goal.point.y, goal.point.z


def counted(probe: Any, name: str) -> int:
    return int(probe.figure(CONTROL, name) or 0)


def set_parameter(probe: Any, name: str, value: float) -> Any:
    given = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=given)])
    return probe.call(SetParameters, "controller/set_parameters", request).results[0]


def test_bad_goals_are_refused_with_a_reason_and_the_last_good_one_stays(controller: Any, probe: Any) -> None:
    probe.send_accepted_goal(*GOAL)
    probe.next_status(CONTROL)
    refused = counted(probe, "refused goal")
    for number, (bad, frame, reason) in enumerate(
        (
            ((float("nan"), 0.0, 0.5), "", "not finite"),
            ((3.0, 0.0, 0.333), "", "3.00 m"),
            ((0.4, 0.0, 0.5), "map", "'map'"),
        ),
        start=1,
    ):
        heard = len(probe.goals)
        probe.send_goal(*bad, frame)
        probe.wait_for(lambda reason=reason: reason in probe.status("/controller: goal"), f"a refusal with {reason}")
        probe.greet("controller")
        # The good one may have been accepted twice.
        assert all(point(goal) == GOAL for goal in probe.goals[heard:])
        probe.wait_for(lambda n=number: counted(probe, "refused goal") == refused + n, "the count")
    assert controller.output.count("refused: the goal") == refused + 3
    assert probe.call(Trigger, "controller/clear_goal", Trigger.Request()).success
    probe.wait_for(lambda: probe.activity() == "idle", "the arm to hold where it is")


def test_a_goal_may_be_a_pose_and_whoever_comes_later_hears_of_it(controller: Any, make_probe: Any) -> None:
    probe = make_probe()
    probe.send_accepted_goal(*OTHER_GOAL)
    publisher = probe.create_publisher(PoseStamped, "goal_pose", messages.RELIABLE)
    probe.wait_for(publisher.get_subscription_count, "a controller that takes poses")
    pose = PoseStamped()
    pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = GOAL
    probe.repeat(
        lambda: publisher.publish(pose),
        lambda: [point(goal) for goal in probe.goals].count(GOAL) >= 2,
        "the pose to be accepted",
    )
    late = make_probe()
    late.wait_for(lambda: late.goals, "the goal that was accepted before")
    assert point(late.goals[-1]) == GOAL
    assert late.goals[-1].header.frame_id == "panda_link0"
    assert controller.output.count("the orientation is not") == 1


def test_a_wrong_value_is_refused_with_a_sentence_while_it_runs(controller: Any, probe: Any) -> None:
    for name, value in (("soft_start", -1.0), ("torque_scale", float("nan")), ("integral_clamp", 5.0)):
        result = set_parameter(probe, name, value)
        assert not result.successful
        assert name in result.reason
    assert not set_parameter(probe, "timeout", 1.0).successful
    assert set_parameter(probe, "torque_scale", 0.5).successful
    probe.set_in_motion(*GOAL)
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the goal, at half the torque")
    assert set_parameter(probe, "torque_scale", 1.0).successful
    probe.assert_every_torque_is_legal()


def test_of_a_flood_of_goals_the_last_one_counts_and_control_goes_on(controller: Any, probe: Any) -> None:
    probe.send_accepted_goal(*OTHER_GOAL)
    probe.next_status(CONTROL)
    superseded, refused = (counted(probe, name) for name in ("superseded goal", "refused goal"))
    began, heard, sent = time.monotonic(), len(probe.goals), 0

    def send_two() -> None:
        nonlocal sent
        probe.send_goal(0.45, -0.25 + 1e-4 * (sent % 1000), 0.45)
        probe.send_goal(float("nan"), 0.0, 0.5)
        sent += 1

    given_way = "goals that give way to later ones"
    probe.repeat(send_two, lambda: counted(probe, "superseded goal") > superseded + 500, given_way, period=0.001)
    probe.send_accepted_goal(*GOAL)
    probe.next_status(CONTROL)
    looked_at = len(probe.goals) - heard + counted(probe, "refused goal") - refused
    assert looked_at < (time.monotonic() - began) / SPACING + 10, "at a pace that leaves control alone"
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the last goal")
    probe.assert_every_torque_is_legal()


def test_a_stream_of_goals_is_one_goal_that_moves(controller: Any, probe: Any) -> None:
    probe.send_accepted_goal(*GOAL)
    probe.wait_for(lambda: probe.activity() == "reached", "the arm at the first goal")
    heard, told = len(probe.goals), len(probe.activities)
    sent = 0

    def send_next() -> None:
        nonlocal sent
        probe.send_goal(GOAL[0], GOAL[1], GOAL[2] + 0.002 * sent)
        sent += 1

    probe.repeat(send_next, lambda: sent == 60, "goals that move", period=0.02)
    probe.wait_for(lambda: probe.distance((GOAL[0], GOAL[1], GOAL[2] + 0.002 * 59)) < 0.01, "the last goal")
    begun = {item.value for status in probe.activities[told:] for item in status.values if item.key == "since (s)"}
    assert len(begun) < len(probe.goals) - heard, "fewer beginnings than goals"
