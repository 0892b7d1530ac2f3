"""The page in a real browser on a live graph: see the arm, drag its goal, push it, open a recording."""

import http.client
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
import pytest
import viser
from geometry_msgs.msg import PointStamped, WrenchStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from websockets.sync.client import connect

from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.latest import LatestMessages
from spiking_controller.robots.arm import get_arm
from spiking_controller.units import NANOSECONDS
from spiking_controller.viewing.arm_scene import ArmModel
from spiking_controller.viewing.page import CAMERA, FIELD_OF_VIEW, HANDLE_SIZE, LONGEST_PUSH, LOOK_AT

pytestmark = [pytest.mark.timeout(400), pytest.mark.browser]

DATA = Path(__file__).parents[1] / "data"
SIZES = [(1280, 800), (1024, 768)]
PATIENCE = 200.0
SLOW = 0.5
"""Real time factor: a busy machine then sees the arm on its way as well."""
STATE_RATE = 100.0
"""Hz; the browser needs the processors more than the controller does."""
PAYLOAD = 0.4
"""kg"""
MOST_TRAFFIC = 100e3
"""To one page, bytes/s."""
MOST_TIME = 0.25
"""Of a core, with one page."""


class Served(NamedTuple):
    """Processes of a page that moves the arm, and of one that only shows it."""

    open: Any
    read_only: Any


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Graph:
    """A user of ROS beside the page. It looks at what is there now; `live_graph.Probe` would hear every message."""

    def __init__(self, context: Context) -> None:
        self._node = Node("visitor", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._states = LatestMessages(self._node, {"joint_states": JointState})
        self._state = JointState()
        self.goals: list[PointStamped] = []
        self.pushes: list[WrenchStamped] = []
        self._node.create_subscription(PointStamped, "controller/goal", self.goals.append, messages.LATCHED)
        self._node.create_subscription(WrenchStamped, "mujoco_bridge/push", self.pushes.append, messages.RELIABLE)
        self._goal_publisher = self._node.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self._push_publisher = self._node.create_publisher(WrenchStamped, "mujoco_bridge/push", messages.RELIABLE)
        self._setter = self._node.create_client(SetParameters, "mujoco_bridge/set_parameters")

    def listen(self, seconds: float = 0.05) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)
        self._state = self._states.take("joint_states") or self._state

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
            self.listen()

    @property
    def goal(self) -> np.ndarray:
        """That is accepted, m."""
        point = self.goals[-1].point
        return np.array([point.x, point.y, point.z])

    @property
    def posture(self) -> np.ndarray:
        """rad, of the latest joint state."""
        return np.array(self._state.position)

    @property
    def time(self) -> float:
        """Stamp of the latest joint state, ns."""
        return messages.stamp_to_time(self._state.header.stamp)

    def distance(self) -> float:
        """From the hand to the goal, m."""
        return float(np.linalg.norm(get_arm("panda").chain.position(self.posture) - self.goal))

    def send_goal(self, *goal: float) -> None:
        """Until it is accepted: discovery takes its time."""
        message = PointStamped()
        message.point.x, message.point.y, message.point.z = goal
        end = time.monotonic() + PATIENCE
        while not self.goals or not np.allclose(self.goal, goal):
            assert time.monotonic() < end, "the goal was not accepted"
            self._goal_publisher.publish(message)
            self.listen(0.5)

    def push(self, force: float) -> None:
        """The hand, aside, N."""
        message = WrenchStamped()
        message.wrench.force.y = force
        self._push_publisher.publish(message)

    def set_payload(self, mass: float) -> None:
        """kg"""
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=mass)
        self.wait_for(self._setter.service_is_ready, "the bridge's parameters")
        answer = self._setter.call_async(
            SetParameters.Request(parameters=[Parameter(name="payload_mass", value=value)])
        )
        self.wait_for(answer.done, "the bridge's answer")
        assert answer.result().results[0].successful

    def commanders(self) -> list[str]:
        """Nodes beside this one that can send goals."""
        infos = self._node.get_publishers_info_by_topic("/goal_point")
        return [info.node_name for info in infos if info.node_name != "visitor"]

    def close(self) -> None:
        self._executor.shutdown()
        self._states.close()
        self._node.destroy_node()


@pytest.fixture(scope="module")
def live(context: Context) -> Iterator[Graph]:
    graph = Graph(context)
    yield graph
    graph.close()


def address(process: Any, live: Graph) -> str:
    live.wait_for(lambda: "the page: " in process.output, "the page's address")
    found = re.search(r"http://\S+", process.output)
    assert found
    return found.group()


@pytest.fixture(scope="module")
def served(browser: Any, module_graph: Any) -> Served:
    """Starts graph and pages once; the browser comes first, so that nothing is started where there is none."""
    # In lock-step, so that control does not suffer from the browser where it draws without a graphics card.
    module_graph.bridge(
        lock_step=True,
        lock_step_timeout=60.0,
        real_time_factor=SLOW,
        state_rate=STATE_RATE,
        payload_mass=PAYLOAD,
    )
    module_graph.controller(use_sim_time=True, rate_limit_period=1.0 / STATE_RATE)
    module_graph.start("imagination", use_sim_time=True)
    return Served(
        module_graph.start("viewer", port=free_port(), bags=DATA),
        module_graph.start("viewer", port=free_port(), read_only=True),
    )


@pytest.fixture(scope="module")
def page(served: Served, browser: Any, live: Graph) -> "Hand":
    """The tests share one: loading takes seconds."""
    return Hand(browser.open(address(served.open, live)), live)


class Hand:
    """A visitor's eyes and hands."""

    def __init__(self, page: Any, live: Graph) -> None:
        self.page = page
        self._live = live
        self.see(lambda: "mm to the goal" in self.words())
        page.evaluate("document.querySelectorAll('.mantine-Notification-root').forEach(each => each.remove())")

    def words(self) -> str:
        """All that is written on the page."""
        return str(self.page.locator("body").inner_text())

    def see(self, condition: Any, patience: float = PATIENCE) -> None:
        """Look until the condition holds."""
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, f"never seen; the page says: {self.words()}"
            self._live.listen(0.02)
            self.page.wait_for_timeout(50)

    def distance(self) -> float:
        """As the page writes it, mm."""
        found = re.search(r"([\d.]+) mm to the goal", self.words())
        return float(found.group(1)) if found else np.nan

    def watch(self, pattern: str) -> None:
        """From now on, keep each number that the page writes there: it may change while nobody asks."""
        self.page.evaluate(
            """pattern => {
                window.watched = [];
                window.watcher?.disconnect();
                window.watcher = new MutationObserver(() => {
                    const found = document.body.textContent.match(pattern);
                    if (found) window.watched.push(parseFloat(found[1]));
                });
                const all = {subtree: true, childList: true, characterData: true};
                window.watcher.observe(document.body, all);
            }""",
            pattern,
        )

    def watched(self) -> list[float]:
        """Since `watch`."""
        return [float(each) for each in self.page.evaluate("window.watched")]

    def field(self, label: str) -> str:
        """The number beside a slider."""
        row = self.page.get_by_text(label, exact=True).locator("xpath=ancestor::*[.//input][1]")
        return str(row.locator("input[type=text], input:not([type])").first.input_value())

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def place(self, point: np.ndarray) -> tuple[float, float]:
        """Where a point of the scene is in the window, before the camera was moved."""
        box = self.page.locator("canvas").first.bounding_box()
        forward = np.subtract(LOOK_AT, CAMERA) / np.linalg.norm(np.subtract(LOOK_AT, CAMERA))
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        offset = point - np.array(CAMERA)
        scale = 0.5 * box["height"] / np.tan(FIELD_OF_VIEW / 2.0) / (offset @ forward)
        x = box["x"] + box["width"] / 2.0 + scale * (offset @ right)
        y = box["y"] + box["height"] / 2.0 - scale * (offset @ np.cross(right, forward))
        return float(x), float(y)

    def drag(self, start: np.ndarray, end: np.ndarray, steps: int = 4) -> None:
        """From one point of the scene to another."""
        mouse = self.page.mouse
        mouse.move(*self.place(start))
        self.wait_for_frames()
        mouse.down()
        for share in np.linspace(0.2, 1.0, steps):
            mouse.move(*self.place(start + share * (end - start)))
            self.wait_for_frames()
        mouse.up()

    def wait_for_frames(self) -> None:
        """Until two pictures were drawn: without a graphics card a busy machine draws one in a second."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def drag_goal(self, goal: np.ndarray, axis: int, way: float) -> None:
        """Along one arrow of the handle, m."""
        self.wait_for_frames()
        direction = np.eye(3)[axis]
        grip = goal + 0.65 * HANDLE_SIZE * direction
        self.drag(grip, grip + way * direction)


def visible_point(posture: np.ndarray, link: str) -> np.ndarray:
    """A point on a link that nothing hides from the camera, m, by MuJoCo."""
    arm = get_arm("panda")
    model = arm.load_model()
    data = mujoco.MjData(model)
    data.qpos[: posture.size] = posture
    mujoco.mj_forward(model, data)
    body, eye, hit = model.body(link).id, np.array(CAMERA), np.zeros(1, dtype=np.int32)
    groups = np.array([0, 0, 1, 0, 0, 0], dtype=np.uint8)
    for geom in np.flatnonzero(model.geom_bodyid == body):
        way = data.geom_xpos[geom] - eye
        distance = mujoco.mj_ray(model, data, eye, way, groups, 1, -1, hit)
        if hit[0] >= 0 and model.geom_bodyid[hit[0]] == body:
            return np.asarray(eye + distance * way)
    raise AssertionError(f"{link} is hidden")


def test_a_dragged_goal_is_reached(page: Hand, live: Graph) -> None:
    live.send_goal(0.45, -0.1, 0.45)
    page.see(lambda: page.distance() < 10.0)
    before = live.goal
    page.watch(r"([\d.]+) mm to the goal")
    page.drag_goal(before, 2, 0.15)
    page.see(lambda: live.goal[2] > before[2] + 0.08)
    # Far from the goal first: what was written before the drag is no arrival.
    page.see(lambda: max(page.watched(), default=0.0) > 20.0)
    page.see(lambda: page.distance() < 10.0)
    np.testing.assert_allclose(live.goal[:2], before[:2], atol=0.01)
    live.wait_for(lambda: live.distance() < 0.03, "the arm at the dragged goal")


def test_a_goal_below_the_floor_is_refused_in_words_and_its_handle_returns(page: Hand, live: Graph) -> None:
    live.send_goal(0.45, -0.1, 0.6)
    page.see(lambda: page.distance() < 10.0)
    accepted = live.goal
    page.drag_goal(accepted, 2, -0.65)
    page.see(lambda: "Refused: the goal" in page.words())
    np.testing.assert_array_equal(live.goal, accepted)
    # It can be taken at the accepted goal again.
    page.drag_goal(accepted, 1, 0.12)
    page.see(lambda: live.goal[1] > accepted[1] + 0.05)
    page.see(lambda: "Refused" not in page.words() and page.distance() < 10.0)


@pytest.mark.parametrize("link", ["panda_hand", "panda_link4"], ids=["hand", "elbow"])
def test_any_link_can_be_pushed(link: str, page: Hand, live: Graph) -> None:
    live.send_goal(0.45, -0.1, 0.6)
    page.see(lambda: page.distance() < 10.0)
    live.pushes.clear()
    page.tab("Control")
    page.page.get_by_role("checkbox", name="Push").check()
    live.listen()
    posture = live.posture
    point = visible_point(posture, link)
    page.wait_for_frames()
    page.drag(point, point + np.array([0.0, 0.2, 0.0]))
    live.wait_for(lambda: live.pushes and not live.pushes[-1].wrench.force.y, "the end of the push")
    page.page.get_by_role("checkbox", name="Push").uncheck()
    forces = np.array([[p.wrench.force.x, p.wrench.force.y, p.wrench.force.z] for p in live.pushes])
    assert {push.header.frame_id for push in live.pushes} == {link}
    strongest = forces[np.linalg.norm(forces, axis=1).argmax()]
    assert 1.0 < np.linalg.norm(strongest) <= LONGEST_PUSH + 0.01
    model = ArmModel(get_arm("panda"))
    model.place(posture)
    aside = model.in_link(link, np.array([0.0, 1.0, 0.0]))
    assert strongest @ aside > 0.5 * np.linalg.norm(strongest), "towards the pointer"


def test_what_touches_the_arm_is_told(page: Hand, live: Graph) -> None:
    page.watch(r"contact (\d+) N")
    force, struck_at = 30.0, -np.inf

    def is_told() -> bool:
        nonlocal force, struck_at
        if live.time - struck_at > NANOSECONDS:
            force, struck_at = -force, live.time
            live.push(force)
        return bool(page.watched())

    page.see(is_told)
    assert 4.0 < page.watched()[0] < 200.0
    assert re.search(r"disturbance [\d.]+ N·m", page.words())
    assert re.search(r"load ([\d.]+ kg|unknown)", page.words())


def test_sliders_begin_at_the_bridges_values_and_follow_them(page: Hand, live: Graph) -> None:
    page.tab("Control")
    page.see(lambda: page.field("Payload, kg") == str(PAYLOAD))
    assert page.field("Torque share") == "1"
    live.set_payload(0.0)
    page.see(lambda: page.field("Payload, kg") == "0")


def test_the_arm_can_be_reset(page: Hand, live: Graph) -> None:
    page.tab("Control")
    live.listen()
    last = live.time
    page.page.get_by_role("button", name="reset").click()
    live.wait_for(lambda: live.time < last, "the reset")
    page.see(lambda: "reset: the arm is at home" in page.words())


def test_a_recording_can_be_opened_played_and_left(page: Hand) -> None:
    page.tab("Bag")
    page.page.get_by_role("combobox", name="Show").click()
    page.page.get_by_role("option", name="panda_three_goals").click()
    page.see(lambda: "a recording" in page.words())
    first = page.distance()
    page.see(lambda: abs(page.distance() - first) > 1.0)
    page.page.get_by_role("combobox", name="Show").click()
    page.page.get_by_role("option", name="live graph").click()
    page.see(lambda: "a recording" not in page.words())


def test_nothing_overlaps(page: Hand) -> None:
    window = page.page
    for size in SIZES:
        window.set_viewport_size({"width": size[0], "height": size[1]})
        for scheme in ("dark", "light"):
            page.tab("Control")
            window.get_by_role("checkbox", name="Dark").set_checked(scheme == "dark")
            window.locator(f"html[data-mantine-color-scheme={scheme}]").wait_for()
            page.wait_for_frames()
            canvas = window.locator("canvas").first.bounding_box()
            for tab in ("Curves", "Spikes", "Health", "Bag", "Control"):
                page.tab(tab)
                tabs = [window.get_by_role("tab", name=name).bounding_box() for name in ("Control", "Curves", "Bag")]
                assert all(box["x"] >= canvas["x"] + canvas["width"] - 1 for box in tabs), "the panel covers the scene"
                assert all(box["x"] + box["width"] <= size[0] for box in tabs)
                assert tabs[0]["x"] + tabs[0]["width"] <= tabs[1]["x"] + 1
                assert window.evaluate("document.documentElement.scrollWidth") <= size[0]
                if tab == "Curves" and size == max(SIZES):
                    lowest = window.locator(".uplot").last.bounding_box()
                    assert lowest["y"] + lowest["height"] <= size[1]
            for name in ("pause", "go on", "step", "reset", "clear goal", "rollback"):
                box = window.get_by_role("button", name=name, exact=True).bounding_box()
                assert box["x"] + box["width"] <= size[0]
                assert box["y"] + box["height"] <= size[1]


def test_a_page_costs_little(page: Hand, served: Served, live: Graph) -> None:
    url = address(served.open, live)
    port, ticks = int(url.split(":")[2].split("/")[0]), os.sysconf("SC_CLK_TCK")

    def used() -> float:
        """Of the viewer's processor time, s."""
        fields = Path(f"/proc/{served.open.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    asked.request("GET", url[url.index("/?") :])
    cookie = str(asked.getresponse().headers["Set-Cookie"]).partition(";")[0]
    with connect(
        f"ws://127.0.0.1:{port}",
        additional_headers={"Cookie": cookie},
        origin=f"http://127.0.0.1:{port}",  # type: ignore[arg-type]
        subprotocols=[f"viser-v{viser.__version__}"],  # type: ignore[list-item]
    ) as listener:

        def heard(seconds: float) -> int:
            """Bytes that come meanwhile."""
            end, total = time.monotonic() + seconds, 0
            while (left := end - time.monotonic()) > 0.0:
                try:
                    total += len(listener.recv(timeout=left))
                except TimeoutError:
                    break
            return total

        heard(3.0)
        begin, before, total = time.monotonic(), used(), 0
        for goal in ((0.35, 0.35, 0.6), (0.45, -0.3, 0.5)):
            live.send_goal(*goal)
            total += heard(3.0)
        passed, share = time.monotonic() - begin, (used() - before) / (time.monotonic() - begin)
    assert 1e3 < total / passed < MOST_TRAFFIC
    # Here, two pages were served.
    assert share < 2 * MOST_TIME


def test_visitors_of_a_read_only_page_change_nothing(served: Served, browser: Any, live: Graph) -> None:
    page = browser.open(address(served.read_only, live))
    page.get_by_text("this page changes nothing").wait_for()
    assert page.get_by_role("button", name="reset").count() == 0
    assert page.get_by_text("Payload").count() == 0
    assert page.get_by_text("Push").count() == 0
    page.context.close()
    assert live.commanders() == ["viewer"], "the other page's"


def test_who_has_no_token_or_comes_from_another_site_gets_nothing(served: Served, browser: Any, live: Graph) -> None:
    url = address(served.open, live)
    place = url[: url.index("/?")]
    context = browser.context()
    page = context.new_page()
    answer = page.goto(place)
    assert answer.status == 403
    assert "open the address with the token" in page.locator("body").inner_text()
    # This visitor has the token, and comes from another web site.
    page.goto(url)
    page.get_by_role("tab", name="Health").wait_for()
    context.route("http://evil.example/**", lambda route: route.fulfill(body="<html>", content_type="text/html"))
    page.goto("http://evil.example/")
    reached = """async place => {
        const page = await fetch(place, {credentials: "include"}).then(() => true, () => false);
        const opened = await new Promise(done => {
            const socket = new WebSocket(place.replace("http", "ws"), PROTOCOL);
            socket.onopen = () => done(true);
            socket.onerror = () => done(false);
        });
        return [page, opened];
    }""".replace("PROTOCOL", f'"viser-v{viser.__version__}"')
    assert page.evaluate(reached, place) == [False, False]
    context.close()


def test_nothing_was_asked_of_other_machines(page: Hand, browser: Any) -> None:
    assert page.page.url.startswith("http://127.0.0.1:")
    assert browser.foreign == []
