"""The description node tells tools what the arm looks like and where its links are, with or without tf2_msgs."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from std_msgs.msg import String

from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.tf_message import TYPE_NAME, Transform, message_type, serialised, transforms_in
from spiking_controller.resources import share_path
from spiking_controller.viewing.rviz import rviz_configuration

STATIC = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def hear(probe: Any) -> tuple[list[bytes], list[bytes], list[String]]:
    """Frames, those that do not move, and descriptions."""
    moving: list[bytes] = []
    fixed: list[bytes] = []
    descriptions: list[String] = []
    probe.create_subscription(message_type(), "/tf", moving.append, 10, raw=True)
    probe.create_subscription(message_type(), "/tf_static", fixed.append, STATIC, raw=True)
    probe.create_subscription(String, "robot_description", descriptions.append, messages.LATCHED)
    return moving, fixed, descriptions


def placed(frames: list[Transform], root: str) -> dict[str, np.ndarray]:
    """Where each frame lies in the root, m."""
    found = {root: (np.zeros(3), Rotation.identity())}
    while ahead := [frame for frame in frames if frame.child not in found and frame.parent in found]:
        for frame in ahead:
            place, turn = found[frame.parent]
            found[frame.child] = place + turn.apply(frame.translation), turn * Rotation.from_quat(frame.rotation)
    return {name: place for name, (place, _) in found.items()}


def test_a_message_survives_the_way_there_and_back() -> None:
    sent = [Transform("a", "b", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 0.0]))]
    received = transforms_in(serialised(5_000_000_001, sent))
    assert received[0][:2] == ("a", "b")
    np.testing.assert_array_equal(received[0].translation, sent[0].translation)
    np.testing.assert_array_equal(received[0].rotation, sent[0].rotation)


def test_the_frames_lead_to_the_hand(graph: Any, probe: Any) -> None:
    graph.bridge()
    graph.start("description")
    moving, fixed, descriptions = hear(probe)
    probe.wait_for(lambda: moving and fixed and descriptions and probe.states, "the arm's description")
    assert descriptions[-1].data == share_path("models", "panda.urdf").read_text()
    tree = placed(transforms_in(moving[-1]) + transforms_in(fixed[-1]), "panda_link0")
    # The arm falls into no other posture: it carries itself.
    np.testing.assert_allclose(tree["panda_hand_tcp"], probe.hand(), atol=1e-4)
    infos = probe.get_publishers_info_by_topic("/tf")
    assert {info.topic_type for info in infos} == {TYPE_NAME}


def test_late_comers_and_namespaces_get_theirs(graph: Any, make_probe: Any) -> None:
    probe = make_probe("left")
    space = ("--remap", "__ns:=/left", "--remap", "/clock:=clock")
    graph.bridge(*space)
    graph.start("description", *space)
    probe.wait_for(lambda: probe.states, "joint states")
    moving, fixed, descriptions = hear(probe)
    probe.wait_for(lambda: moving and fixed and descriptions, "the arm's description")
    assert transforms_in(moving[-1])[0].parent == "left/panda_link0"
    assert transforms_in(fixed[-1])[-1].child == "left/panda_hand_tcp"
    frames = placed(transforms_in(moving[-1]) + transforms_in(fixed[-1]), "left/panda_link0")
    # As RViz joins them: its TF prefix, and the links of the description.
    links = {link.attrib["name"] for link in ElementTree.fromstring(descriptions[-1].data).iter("link")}
    assert {f"left/{link}" for link in links} == frames.keys()
    configuration = rviz_configuration("panda", probe.get_namespace())
    assert 'TF Prefix: "left"' in configuration
    assert "Fixed Frame: left/panda_link0" in configuration


def test_joint_states_of_another_arm_are_a_sentence(graph: Any, probe: Any, tmp_path: Path) -> None:
    node = graph.start("description", joint_names='["fr3_joint1", "fr3_joint2"]')
    graph.bridge()
    sentence = "the joint states lack fr3_joint1, fr3_joint2; set joint_names to the driver's names."
    probe.wait_for(lambda: sentence in node.output, "the sentence")
