"""The evaluator node judges a played bag as `spiking_controller replay` judges it offline."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from spiking_controller.commands.play import message_class
from spiking_controller.commands.replay import replay
from spiking_controller.nodes import evaluator
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import create_executor
from spiking_controller.nodes.evaluator import Evaluator
from spiking_controller.streams.bag_reader import opened, read
from spiking_controller.streams.bag_stream import StreamOptions

PATIENCE = 120.0
DATA = Path(__file__).parents[1] / "data"
BAG = DATA / "panda_three_goals"
MODEL = DATA / "panda_three_goals.safetensors"
GOAL = "/controller/goal"
TOPICS = ("/joint_states", "/controller/torque", "/controller/prediction", "/controller/prediction_error", GOAL)
CHUNK = 20
"""Messages that are under way at once: few enough that none is lost."""


@pytest.fixture(scope="module")
def offline() -> dict[str, Any]:
    judged, _ = replay(BAG, [MODEL], StreamOptions())
    figures: dict[str, Any] = json.loads(json.dumps(judged.metrics()))
    return figures


class Listener(Node):
    """Hears what an evaluator says."""

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("listener", context=context)
        self.complete: list[dict[str, Any]] = []
        self.running: list[dict[str, Any]] = []
        self.numbers: dict[str, Float64MultiArray] = {}
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.create_subscription(String, "evaluator/complete_figures", self._on_complete, messages.LATCHED)
        all_latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(String, "evaluator/figures", self._on_running, all_latched)
        for name in ("joint_error", "hand_error", "following_error", "torque_difference", "firing_rate"):
            self._hear_numbers(name)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, messages.RELIABLE)

    def _hear_numbers(self, name: str) -> None:
        def hear(message: Float64MultiArray) -> None:
            self.numbers[name] = message

        self.create_subscription(Float64MultiArray, f"evaluator/{name}", hear, messages.LATCHED)

    def _on_complete(self, message: String) -> None:
        self.complete.append(json.loads(message.data))

    def _on_running(self, message: String) -> None:
        self.running.append(json.loads(message.data))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses |= {status.name: status for status in message.status}


class LockStep:
    """A bag, told to an evaluator message by message, in step with what it has taken."""

    def __init__(self, model: Path = MODEL, **parameters: Any) -> None:
        # Simulated time stands still at zero, where the bag starts.
        given = {"use_sim_time": "true", "checkpoints": f"['{model}']", "silence": 3600.0, "diagnostics_period": 0.2}
        arguments = [word for name, value in (given | parameters).items() for word in ("-p", f"{name}:={value}")]
        rclpy.init(args=["--ros-args", *arguments])
        self._executor = create_executor()
        self.evaluator = Evaluator()
        self.listener = Listener()
        self._publishers: dict[str, Publisher] = {}
        for node in (self.evaluator, self.listener):
            self._executor.add_node(node)

    def spin_until(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited for {what}"
            self._executor.spin_once(timeout_sec=0.02)

    def tell(self, seconds: float = np.inf) -> None:
        """The bag's first seconds."""
        sent = self.evaluator.received
        with opened(BAG) as bag:
            connections = [c for c in bag.connections if c.topic in TOPICS]
            for connection in connections:
                if connection.topic not in self._publishers:
                    kind = message_class(connection.msgtype)
                    qos = messages.LATCHED if connection.topic == GOAL else messages.STATE_PUBLISHER
                    self._publishers[connection.topic] = self.listener.create_publisher(kind, connection.topic, qos)
            self.spin_until(
                lambda: all(p.get_subscription_count() for p in self._publishers.values()), "the evaluator to listen"
            )
            for connection, received, data in read(bag, connections):
                if received - bag.start_time > seconds * messages.NANOSECONDS:
                    break
                self._publishers[connection.topic].publish(bytes(data))
                sent += 1
                if sent % CHUNK == 0 or connection.topic == GOAL:
                    self.spin_until(lambda: self.evaluator.received >= sent, "the evaluator")  # noqa: B023
            self.spin_until(lambda: self.evaluator.received >= sent, "the evaluator")

    def close(self) -> None:
        self._executor.shutdown()
        for node in (self.evaluator, self.listener):
            node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def lock_step() -> Iterator[Callable[..., LockStep]]:
    made: list[LockStep] = []

    def make(*arguments: Any, **parameters: Any) -> LockStep:
        made.append(LockStep(*arguments, **parameters))
        return made[-1]

    yield make
    for each in made:
        each.close()
    rclpy.try_shutdown()


def assert_same(live: Any, offline: Any, place: str = "") -> None:
    """Every figure of one is in the other and differs by at most 1e-6 of itself."""
    if isinstance(offline, dict):
        assert live.keys() == offline.keys(), place
        for key, value in offline.items():
            assert_same(live[key], value, f"{place}/{key}")
    elif isinstance(offline, list):
        assert len(live) == len(offline), place
        for index, value in enumerate(offline):
            assert_same(live[index], value, f"{place}/{index}")
    elif isinstance(offline, float):
        assert live == pytest.approx(offline, rel=1e-6, abs=1e-12), place
    else:
        assert live == offline, place


def test_offline_and_live_agree_and_a_loop_starts_anew(lock_step: Any, offline: dict[str, Any], tmp_path: Path) -> None:
    graph = lock_step(json=tmp_path / "figures.json")
    graph.tell()
    assert not graph.listener.complete
    graph.tell(seconds=1.0)
    graph.spin_until(lambda: graph.listener.complete, "the figures of the first round")
    (figures,) = graph.listener.complete
    assert (figures.pop("run"), figures.pop("jumps_back"), figures.pop("complete")) == (1, 0, True)
    assert_same(figures, offline)
    assert json.loads((tmp_path / "figures.json").read_text())["goals"] == figures["goals"]

    # What everybody can read and plot are these figures.
    def told(run: int) -> bool:
        return bool(graph.listener.running) and graph.listener.running[-1]["run"] == run

    graph.spin_until(lambda: told(2), "figures of the second round")
    running = graph.listener.running
    last = [each for each in running if each["run"] == 1][-1]
    assert last["complete"]
    assert_same(last["baselines"], offline["baselines"])
    assert "each" not in last["goals"]
    assert running[-1]["jumps_back"] == 1
    graph.spin_until(lambda: graph.listener.running[-1]["stream"]["control_steps"] > 30, "the second round")
    assert running[-1]["stream"]["control_steps"] < 60
    name = "/evaluator: stream"

    def stream() -> dict[str, str]:
        return {item.key: item.value for item in graph.listener.statuses[name].values}

    graph.spin_until(lambda: graph.listener.statuses[name].message.startswith("judging run 2"), "its diagnostics")
    assert stream()["jumps back in time"] == "1"


def test_numbers_diagnostics_and_the_restart_service(lock_step: Any) -> None:
    graph = lock_step()
    graph.tell(seconds=2.5)
    graph.evaluator.finish()
    listener = graph.listener
    graph.spin_until(lambda: listener.complete, "the figures")
    (figures,) = listener.complete
    (checkpoint,) = figures["checkpoints"]
    following = [checkpoint["forward_model"]["following_rad"]]
    graph.spin_until(lambda: list(listener.numbers["following_error"].data) == following, "the last numbers")
    graph.spin_until(lambda: len(listener.numbers) == 5, "all topics")
    error = listener.numbers["joint_error"]
    assert [dim.size for dim in error.layout.dim] == [3, 3]
    assert [dim.stride for dim in error.layout.dim] == [9, 3]
    assert "spiking" in error.layout.dim[0].label
    horizons = checkpoint["forward_model"]["horizons"]
    assert list(error.data)[6:] == [horizons[steps]["joint_rad"] for steps in ("1", "10", "50")]
    name = f"/evaluator: {checkpoint['name']}"
    graph.spin_until(lambda: listener.statuses[name].message.startswith("predicts"), "the verdict")
    assert listener.statuses[name].level == DiagnosticStatus.OK
    assert listener.statuses["/evaluator: the state stays"].values

    client = listener.create_client(Trigger, "evaluator/restart")
    graph.spin_until(client.service_is_ready, "the service")
    future = client.call_async(Trigger.Request())
    graph.spin_until(future.done, "the answer")
    assert future.result().success
    assert future.result().message == "run 2 begins"


def test_goals_that_were_asked_for_count_where_no_controller_is(lock_step: Any) -> None:
    graph = lock_step()
    message = message_class("geometry_msgs/msg/PointStamped")()
    message.point.x, message.point.y, message.point.z = 0.4, 0.2, 0.5
    asked = graph.listener.create_publisher(type(message), "goal_point", messages.RELIABLE)
    graph.spin_until(asked.get_subscription_count, "the evaluator to listen")
    asked.publish(message)
    graph.spin_until(lambda: graph.evaluator.received == 1, "the goal")
    assert len(graph.evaluator._live._run.waiting_goals) == 1
    controller = graph.listener.create_publisher(type(message), "controller/goal", messages.LATCHED)
    graph.spin_until(controller.get_subscription_count, "the evaluator to listen")
    graph.spin_until(lambda: graph.evaluator.count_publishers("/controller/goal"), "the controller to be seen")
    asked.publish(message)
    graph.spin_until(lambda: graph.evaluator.received == 2, "the goal")
    assert len(graph.evaluator._live._run.waiting_goals) == 1


@pytest.fixture
def listener(context: Context) -> Iterator[tuple[Listener, Callable[[Callable[[], Any], str], None]]]:
    """Hears an evaluator in another process."""
    made = Listener(context)
    executor = create_executor(context)
    executor.add_node(made)

    def spin_until(condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited for {what}"
            executor.spin_once(timeout_sec=0.05)

    yield made, spin_until
    executor.shutdown()
    made.destroy_node()


def test_play_and_evaluator_are_enough(graph: Any, listener: Any, tmp_path: Path, offline: dict[str, Any]) -> None:
    heard, spin_until = listener
    file = tmp_path / "figures.json"
    node = graph.start("evaluator", checkpoints=f"[{MODEL}]", use_sim_time=True, json=file, diagnostics_period=0.2)
    spin_until(lambda: "/evaluator: stream" in heard.statuses, "the evaluator")
    assert heard.statuses["/evaluator: stream"].message == "waiting for joint states"
    command = [sys.executable, "-m", "spiking_controller.cli", "play", str(BAG), "--clock", "--start-offset", "7"]
    played = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert re.search(r"played \d{4} messages", played.stdout)
    spin_until(lambda: heard.complete, "complete figures after the silence")
    assert node.stop(signal.SIGINT) == 0
    figures = json.loads(file.read_text())
    assert figures.keys() == heard.complete[0].keys()
    assert figures["run"] == 1
    assert figures["complete"]
    # In real time a busy machine loses messages; how well the figures agree is tested in lock-step.
    assert figures["stream"]["joint_states"]["used"] > 0.1 * offline["stream"]["joint_states"]["used"]
    assert figures["stream"]["control_steps"] > 0
    assert figures["published"]["count"] > 0
    assert "run 1 is complete" in node.output
    assert "following the run, 1 step ahead" in node.output


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"checkpoints": "[/nowhere/net.safetensors]"}, "/nowhere/net.safetensors"),
        ({"arm": "planar_arm", "checkpoints": f"[{MODEL}]"}, "arm is 'panda', but the parameter arm is 'planar_arm'"),
        ({"torque": "felt"}, "parameter torque of evaluator is 'felt'; give one of commanded, measured."),
        ({"effort": "some"}, "give one of auto, with-gravity, without-gravity."),
        ({"silence": "0.0"}, "parameter silence of evaluator is 0.0; give a decimal number from 0.2 to 3600"),
        ({"joint_names": "[a, b]"}, "give the 7 different names of the arm's joints"),
        ({"json": "/nowhere/figures.json"}, "/nowhere is no folder; create it first"),
    ],
)
def test_wrong_parameters_end_in_one_sentence(
    parameters: dict[str, str], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    assert evaluator.main(["evaluator", "--ros-args", *words]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert sentence in line
