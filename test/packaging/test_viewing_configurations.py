"""What RViz, Foxglove and PlotJuggler are told to show is published, with the type that each display needs."""

import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import yaml

from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm

DISPLAYS = {
    "RobotModel": "std_msgs/String",
    "MarkerArray": "visualization_msgs/MarkerArray",
    "Path": "nav_msgs/Path",
    "Image": "sensor_msgs/Image",
}
"""What each display of RViz takes."""
TOOLS = {"PublishPoint": "geometry_msgs/PointStamped", "SetGoal": "geometry_msgs/PoseStamped"}
LATCHED = {"robot_description"}


def interface() -> dict[str, str]:
    """Documented topics and their types."""
    found = {}
    for line in share_path("docs", "ros_interface.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kind = re.match(r"\w+_msgs/\w+", cells[1]) if len(cells) == 3 else None
        for topic in re.findall(r"`([^`]+)`", cells[0]) if kind else ():
            found[topic] = kind.group() if kind else ""
    return found


def rviz() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(share_path("config", "panda.rviz").read_text(encoding="utf-8"))
    return content["Visualization Manager"]


def test_rviz_shows_topics_of_the_types_that_its_displays_take() -> None:
    shown = {}
    for display in rviz()["Displays"]:
        name = display["Class"].removeprefix("rviz_default_plugins/")
        topic = display.get("Description Topic") or display.get("Topic")
        if topic is None:
            assert name in ("Grid", "TF")
            continue
        shown[topic["Value"]] = DISPLAYS[name]
        latched = topic["Durability Policy"] == "Transient Local"
        assert latched == (topic["Value"] in LATCHED)
    assert shown.items() <= interface().items()
    assert len(shown) == len(DISPLAYS)


def test_rvizs_clicks_are_goals_and_its_frame_is_the_arms() -> None:
    for tool in rviz()["Tools"]:
        name = tool["Class"].removeprefix("rviz_default_plugins/")
        if name in TOOLS:
            assert interface()[tool["Topic"]["Value"]] == TOOLS[name]
    assert rviz()["Global Options"]["Fixed Frame"] == get_arm("panda").base_frame


def test_foxglove_shows_and_sends_topics_that_there_are() -> None:
    panels = json.loads(share_path("config", "foxglove.json").read_text(encoding="utf-8"))["configById"]
    arm = panels["3D!arm"]
    topics = {layer["topic"] for layer in arm["layers"].values() if "topic" in layer} | set(arm["topics"])
    topics |= {panels["Image!spikes"]["imageMode"]["imageTopic"], arm["publish"]["pointTopic"]}
    topics |= {path["value"].partition(".")[0] for panel in panels.values() for path in panel.get("paths", ())}
    topics |= {panels["RawMessages!status"]["topicPath"], panels["DiagnosticSummary!all"]["topicToRender"]}
    assert {topic.removeprefix("/") for topic in topics} <= {topic.removeprefix("/") for topic in interface()}
    layout = json.dumps(json.loads(share_path("config", "foxglove.json").read_text(encoding="utf-8"))["layout"])
    assert all(name in layout for name in panels)
    assert arm["followTf"] == get_arm("panda").base_frame


def test_plotjugglers_curves_are_of_topics_and_joints_that_there_are() -> None:
    root = ElementTree.parse(share_path("config", "plotjuggler.xml")).getroot()
    topics = {topic.attrib["name"].removeprefix("/") for topic in root.iter("topic")}
    assert topics <= interface().keys()
    for curve in root.iter("curve"):
        name = curve.attrib["name"].removeprefix("/")
        topic = next(topic for topic in topics if name.startswith(f"{topic}/"))
        rest = name.removeprefix(f"{topic}/")
        if interface()[topic] == "std_msgs/Float64":
            assert rest == "data"
        else:
            joint, field = rest.split("/")
            assert joint in get_arm("panda").joint_names
            assert field in ("position", "velocity", "effort")
