"""The SROS2 policy has the form that SROS2 reads, and allows nodes what they do on the running graph, no more."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from visitor import visit

from spiking_controller.commands.up import NODE_MODULES
from spiking_controller.resources import share_path

ROOT = Path(__file__).parents[2]
PATH = "/spiking_controller/"
# Form of version 0.2.0: attributes (required, optional) and children of each element.
FORM: dict[str, tuple[set[str], set[str], set[str]]] = {
    "policy": ({"version"}, set(), {"enclaves"}),
    "enclaves": (set(), set(), {"enclave"}),
    "enclave": ({"path"}, set(), {"profiles"}),
    "profiles": (set(), {"type"}, {"profile"}),
    "profile": ({"ns", "node"}, set(), {"topics", "services"}),
    "topics": (set(), {"publish", "subscribe"}, {"topic"}),
    "services": (set(), {"reply", "request"}, {"service"}),
    "topic": (set(), set(), set()),
    "service": (set(), set(), set()),
}
WRITTEN_OUT = {
    "bridge": "mujoco_bridge",
    "controller": "controller",
    "trainer": "trainer",
    "evaluator": "evaluator",
    "torque_watchdog": "torque_watchdog",
    "description": "description",
    "imagination": "imagination",
    "markers": "markers",
}
"""The enclave of who stands on the left of an arrow in docs/ros_interface.md."""
ANYONE = {"goal_point": {"goal_sender"}, "goal_pose": {"goal_sender"}, "mujoco_bridge/push": set[str]()}
"""What anyone may send on an open graph: the enclaves that may under the policy."""


LISTENERS = {
    "description_input",
    "imagination_input",
    "markers_input",
    "markers_spikes",
    "viewer_input",
    "viewer_spikes",
}
"""Second nodes of some processes."""
FOR_LOOKING = {"description", "imagination", "markers", "viewer"}
"""Nodes that only show what is going on."""
WITHOUT_CLOCK = ("mujoco_bridge", "description", "markers", "viewer")
"""The node that makes the time, and those that take it from joint states."""


class Permission(NamedTuple):
    """An enclave's node may `action` (publish, subscribe, reply, request) a fully qualified name."""

    enclave: str
    node: str
    action: str
    name: str


@pytest.fixture(scope="module")
def policy() -> ElementTree.Element:
    return ElementTree.parse(share_path("config", "security_policy.xml")).getroot()


def permissions_of(policy: ElementTree.Element) -> list[Permission]:
    """Everything that is allowed, names expanded as SROS2 does it."""
    found = []
    for enclave in policy.iter("enclave"):
        for profile in enclave.iter("profile"):
            namespace, node = profile.attrib["ns"].rstrip("/"), profile.attrib["node"]
            for rule in profile:
                for action in rule.attrib:
                    for item in rule:
                        text = item.text or ""
                        private = text.replace("~", f"{namespace}/{node}", 1)
                        name = private if text.startswith(("/", "~/")) else f"{namespace}/{text}"
                        found.append(Permission(enclave.attrib["path"].removeprefix(PATH), node, action, name))
    return found


def who_may(policy: ElementTree.Element, action: str, name: str) -> set[str]:
    return {one.enclave for one in permissions_of(policy) if (one.action, one.name) == (action, f"/{name}")}


def test_the_policy_has_the_form_of_version_0_2_0(policy: ElementTree.Element) -> None:
    assert policy.tag == "policy"
    assert policy.get("version") == "0.2.0"
    for element in policy.iter():
        required, optional, children = FORM[element.tag]
        assert required <= element.attrib.keys() <= required | optional, element.tag
        assert {child.tag for child in element} <= children, element.tag
        assert len(element) > 0 or not children, f"{element.tag} is empty"
        assert bool((element.text or "").strip()) == (not children), element.tag
        if element.tag in ("topics", "services"):
            assert set(element.attrib.values()) == {"ALLOW"}, "what is not allowed is denied anyhow"
        if not children:
            assert re.fullmatch(r"(~/|/)?[a-z_]+(/[a-z_]+)*", element.text or ""), element.text


def test_nothing_is_allowed_twice(policy: ElementTree.Element) -> None:
    found = permissions_of(policy)
    assert len(found) == len(set(found))


def test_every_node_has_an_enclave_of_its_name_and_goal_senders_share_one(policy: ElementTree.Element) -> None:
    paths = [enclave.attrib["path"] for enclave in policy.iter("enclave")]
    assert sorted(paths) == sorted(f"{PATH}{name}" for name in (*NODE_MODULES, "goal_sender"))
    nodes = {(one.enclave, one.node) for one in permissions_of(policy)}
    others = {
        ("controller", "controller_updates"),
        ("description", "description_input"),
        ("imagination", "imagination_input"),
        ("markers", "markers_input"),
        ("markers", "markers_spikes"),
        ("viewer", "viewer_input"),
        ("viewer", "viewer_spikes"),
        ("goal_sender", "goal_command"),
        ("goal_sender", "goal_sender"),
    }
    assert nodes == {(name, name) for name in NODE_MODULES} | others


@pytest.mark.parametrize(
    ("topic", "senders"),
    [
        ("effort_controller/commands", {"controller", "torque_watchdog"}),
        ("effort_controller/unchecked_commands", {"controller"}),
        ("model_update", {"trainer"}),
        ("goal_point", {"goal_sender"}),
        ("goal_pose", {"goal_sender"}),
        ("joint_states", {"mujoco_bridge"}),
    ],
)
def test_only_who_must_may_send_what_moves_the_arm(topic: str, senders: set[str], policy: ElementTree.Element) -> None:
    assert who_may(policy, "publish", topic) == senders


def test_nobody_may_change_parameters_or_states_or_push_the_arm(policy: ElementTree.Element) -> None:
    requests = {one.name for one in permissions_of(policy) if one.action == "request"}
    assert requests == {"/mujoco_bridge/get_parameters", "/controller/get_state"}
    assert who_may(policy, "publish", "mujoco_bridge/push") == set()


def test_the_senders_are_those_of_the_documented_interface(policy: ElementTree.Element) -> None:
    checked = set()
    for line in (ROOT / "docs" / "ros_interface.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "→" not in cells[-1] or not cells[0].startswith("`"):
            continue
        sender = cells[-1].partition("→")[0].strip()
        for topic in (name.lstrip("/") for name in re.findall(r"`([^`]+)`", cells[0])):
            expected = {
                "anyone": ANYONE.get(topic, set()),
                "every node that moves, learns, judges or records": set(NODE_MODULES) - FOR_LOOKING,
            }.get(sender, {WRITTEN_OUT[name] for name in sender.split(" or ") if name in WRITTEN_OUT})
            assert who_may(policy, "publish", topic) == expected, topic
            checked.add(topic)
    published = {one.name.lstrip("/") for one in permissions_of(policy) if one.action == "publish"}
    unnamed = {name for name in published - checked if not name.startswith("evaluator/")}
    assert unnamed == {"parameter_events", "rosout", "controller/transition_event"}, "of ROS itself"


def test_the_launch_file_starts_nodes_in_their_enclaves() -> None:
    launch = (ROOT / "launch" / "panda.launch.py").read_text(encoding="utf-8")
    assert 'ros_arguments=["--enclave", f"/{PACKAGE}/{executable}"]' in launch


def test_the_policy_allows_each_node_what_it_does_on_the_graph_and_no_more(
    policy: ElementTree.Element, graph: Any, probe: Any, tmp_path: Path
) -> None:
    names = {"controller_updates", *LISTENERS, *NODE_MODULES}
    for name in NODE_MODULES:
        arguments: dict[str, Any] = {} if name in WITHOUT_CLOCK else {"use_sim_time": True}
        if name == "recorder":
            arguments["directory"] = tmp_path / "bag"
        if name == "viewer":
            arguments |= {"read_only": True, "port": 8191}
        started = graph.start(name, "--enclave", PATH + name, **arguments)
        if name == "viewer":
            viewer = started
    asked: dict[str, Callable[[str, str], Iterable[tuple[str, list[str]]]]] = {
        "publish": probe.get_publisher_names_and_types_by_node,
        "subscribe": probe.get_subscriber_names_and_types_by_node,
        "reply": probe.get_service_names_and_types_by_node,
    }
    # The client that asks the bridge about gravity is there for a moment only.
    # What the controller may send to a watchdog it sends only where there is one in between.
    allowed = {one for one in permissions_of(policy) if one.enclave != "goal_sender" and one.action != "request"}
    allowed.discard(Permission("controller", "controller", "publish", "/effort_controller/unchecked_commands"))

    def there() -> set[Permission]:
        """What the nodes do, by the enclaves that they say they are in."""
        found = set()
        for name, namespace, enclave in probe.get_node_names_and_namespaces_with_enclaves():
            if name in names:
                for action, ask in asked.items():
                    found |= {
                        Permission(enclave.removeprefix(PATH), name, action, topic) for topic, _ in ask(name, namespace)
                    }
        return found

    probe.wait_for(lambda: "the page: " in viewer.output, "the page's address")
    address = re.search(r"http://\S+", viewer.output)
    assert address
    # What comes often is heard only while a page is open.
    with visit(address.group(), tmp_path / "heard"):
        probe.happens(lambda: there() == allowed, 90.0)
        assert sorted(there() - allowed) == []
        assert sorted(allowed - there()) == []
