"""`spiking_controller goal` is heard by everybody who listens, and answers with what the controller says."""

import argparse
import threading
import time
from collections.abc import Iterator

import pytest
from geometry_msgs.msg import PointStamped
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile

from spiking_controller.commands import goal as goal_command
from spiking_controller.errors import GoalError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import create_executor


class Listener(Node):
    """Hears goals, as a controller that accepts each of them and as a recorder do."""

    def __init__(self, context: Context) -> None:
        super().__init__("listener", context=context)
        self.heard: list[PointStamped] = []
        self._accepted = self.create_publisher(PointStamped, "controller/goal", messages.LATCHED)
        self.create_subscription(PointStamped, "goal_point", self._accepted.publish, messages.RELIABLE)
        self.create_subscription(PointStamped, "goal_point", self.heard.append, QoSProfile(depth=10))


@pytest.fixture
def listener(context: Context) -> Iterator[Listener]:
    listener = Listener(context)
    executor = create_executor(context)
    executor.add_node(listener)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    yield listener
    stop.set()
    thread.join()
    executor.shutdown()
    listener.destroy_node()


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    goal_command.add_arguments(parser)
    return parser.parse_args(list(words))


def test_goal_reaches_the_controller_and_the_recorder(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(goal_command, "ANSWER_TIMEOUT", 60.0)
    assert goal_command.run(options("0.4", "0.2", "0.5")) == 0
    assert capsys.readouterr().out == "goal (0.4, 0.2, 0.5) accepted\n"
    end = time.monotonic() + 10.0
    while not listener.heard and time.monotonic() < end:
        time.sleep(0.05)
    (goal,) = listener.heard
    assert (goal.point.x, goal.point.y, goal.point.z) == (0.4, 0.2, 0.5)


def test_goal_without_a_controller_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goal_command, "ANSWER_TIMEOUT", 1.0)
    with pytest.raises(GoalError, match="no answer from /left/controller within 1 s; start it"):
        goal_command.run(options("0.4", "0.2", "0.5", "--namespace", "left"))
