"""Markers, imagination and the picture of spikes of a live graph, and a bag of it that Foxglove can open."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, PointStamped, WrenchStamped
from mcap.reader import make_reader
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import Image, JointState
from visualization_msgs.msg import Marker, MarkerArray

from spiking_controller.nodes.common import messages
from spiking_controller.resources import share_path

GOAL = (0.4, 0.3, 0.45)
OUT_OF_REACH = (1.5, 0.0, 0.4)


class Show:
    """The latest of what is there to be seen."""

    def __init__(self, probe: Any) -> None:
        self.markers: list[MarkerArray] = []
        self.futures: list[PathMessage] = []
        self.states: list[JointState] = []
        self.images: list[Image] = []
        for kind, topic, heard, qos in (
            (MarkerArray, "controller/markers", self.markers, messages.RELIABLE),
            (PathMessage, "controller/imagination", self.futures, messages.LATEST),
            (JointState, "controller/imagined_state", self.states, messages.LATEST),
            (Image, "controller/spike_image", self.images, messages.LATEST),
        ):
            probe.create_subscription(kind, topic, heard.append, qos)

    def named(self, namespace: str) -> list[Marker]:
        """Markers of the latest message."""
        return [marker for marker in self.markers[-1].markers if marker.ns == namespace] if self.markers else []


@pytest.fixture
def start(graph: Any) -> Callable[..., None]:
    def start_all(**bridge: Any) -> None:
        graph.bridge(**bridge)
        graph.controller(use_sim_time=True)
        for name in ("description", "markers"):
            graph.start(name)
        graph.start("imagination", use_sim_time=True)

    return start_all


def test_goal_refusal_trail_future_spikes_and_push_are_seen(start: Any, probe: Any) -> None:
    start()
    show = Show(probe)
    probe.set_in_motion(*GOAL)
    probe.wait_for(lambda: show.futures and show.futures[-1].poses and show.states, "an imagined future")
    goal = np.array(GOAL)
    future = np.array([[p.pose.position.x, p.pose.position.y, p.pose.position.z] for p in show.futures[-1].poses])
    assert len(future) == 26
    np.testing.assert_allclose(probe.arm.chain.position(np.array(show.states[-1].position)), future[-1], atol=0.3)
    probe.wait_for(lambda: probe.distance(GOAL) < 0.05, "the goal")

    def rests() -> bool:
        """The networks expect to stay."""
        last = show.futures[-1].poses[-1].pose.position
        return bool(np.linalg.norm(np.array([last.x, last.y, last.z]) - goal) < 0.05)

    probe.wait_for(rests, "a future at the goal")
    probe.wait_for(lambda: show.named("goal") and show.named("trail") and show.named("imagination"), "markers")
    place = show.named("goal")[0].pose.position
    np.testing.assert_allclose((place.x, place.y, place.z), GOAL, atol=1e-6)

    def ends_at_the_hand() -> bool:
        end = show.named("trail")[0].points[-1]
        return bool(np.linalg.norm(probe.hand() - (end.x, end.y, end.z)) < 0.05)

    probe.wait_for(ends_at_the_hand, "the trail to end at the hand")
    assert {marker.header.frame_id for marker in show.markers[-1].markers} == {"panda_link0"}

    probe.send_goal(*OUT_OF_REACH)
    probe.wait_for(lambda: show.named("refusal"), "the refusal")
    assert "beyond the arm's reach" in show.named("refusal")[0].text
    assert show.named("refused goal")[0].pose.position.x == pytest.approx(1.5)

    publisher = probe.create_publisher(WrenchStamped, "mujoco_bridge/push", messages.RELIABLE)
    push = WrenchStamped()
    push.wrench.force.y = 10.0
    probe.repeat(lambda: publisher.publish(push), lambda: show.named("push"), "the push", 0.1)
    start_of, tip = show.named("push")[0].points
    assert tip.y - start_of.y == pytest.approx(0.1)
    push.header.frame_id, push.wrench.force.y = "panda_link4", 30.0

    def elbow() -> list[Marker]:
        return [each for each in show.named("push") if each.header.frame_id == "panda_link4"]

    probe.repeat(lambda: publisher.publish(push), elbow, "the push of the elbow", 0.1)
    assert elbow()[0].points[1] == Point()
    # The controller notices pushes as well.
    push.header.frame_id = ""
    probe.repeat(lambda: publisher.publish(push), lambda: show.named("contact"), "the contact", 1.0)
    start_of, tip = show.named("contact")[0].points
    assert 0.04 < math.dist((tip.x, tip.y, tip.z), (start_of.x, start_of.y, start_of.z)) < 3.0

    probe.wait_for(lambda: show.images and any(show.images[-1].data), "spikes")
    image = show.images[-1]
    assert (image.encoding, image.width, len(image.data)) == ("mono8", 250, image.width * image.height)


def test_a_near_joint_limit_is_seen(start: Any, probe: Any, graph: Any) -> None:
    graph.start("markers")
    show = Show(probe)
    posture = probe.arm.home.copy()
    posture[3] = probe.arm.limits.position_upper[3] - math.radians(4.0)
    state = JointState(name=list(probe.arm.joint_names), position=list(posture), velocity=[0.0] * 7)
    probe.repeat(lambda: probe.state_publisher.publish(state), lambda: show.named("joint limits"), "the limit", 0.05)
    texts = [marker.text for marker in show.named("joint limits") if marker.text]
    assert texts == ["panda_joint4: 4° to its limit"]


def test_in_a_fault_no_future_is_expected(start: Any, probe: Any) -> None:
    start(lock_step=False)
    show = Show(probe)
    probe.set_in_motion(*GOAL)
    probe.wait_for(lambda: show.futures and show.futures[-1].poses, "an imagined future")
    # A second one who commands is a fault.
    rival = probe.command_publisher
    assert rival is not None
    probe.wait_for(lambda: not show.futures[-1].poses, "no future")


def test_a_bag_has_all_that_foxglove_shows_with_schemas(start: Any, graph: Any, probe: Any, tmp_path: Path) -> None:
    start()
    recorder = graph.start("recorder", directory=tmp_path / "bag", use_sim_time=True)
    shown = json.loads(share_path("config", "foxglove.json").read_text())["configById"]
    wanted = {"/robot_description", "/tf", "/tf_static", "/joint_states", "/diagnostics"}
    wanted |= set(shown["3D!arm"]["topics"]) | {shown["Image!spikes"]["imageMode"]["imageTopic"]}
    wanted |= {path["value"].rpartition(".")[0] for panel in shown.values() for path in panel.get("paths", ())}

    def is_heard(topic: str) -> bool:
        return "recorder" in {info.node_name for info in probe.get_subscriptions_info_by_topic(topic)}

    probe.wait_for(lambda: all(map(is_heard, wanted)), "the recorder")
    show = Show(probe)
    probe.set_in_motion(*GOAL)
    probe.wait_for(lambda: show.futures and show.images and show.markers, "something to see")
    # What came to us may come to the recorder later.
    probe.happens(lambda: False, 2.0)
    assert recorder.stop() == 0
    with next((tmp_path / "bag").glob("*.mcap")).open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    recorded = {
        channel.topic: summary.schemas[channel.schema_id]
        for channel in summary.channels.values()
        if summary.statistics.channel_message_counts.get(channel.id)
    }
    assert wanted <= recorded.keys()
    assert {schema.encoding for schema in recorded.values()} == {"ros2msg"}
    assert recorded["/tf"].name == "tf2_msgs/msg/TFMessage"
    assert b"geometry_msgs/TransformStamped" in recorded["/tf"].data
    assert recorded["/controller/markers"].name == "visualization_msgs/msg/MarkerArray"
    assert isinstance(probe.goals[-1], PointStamped)
