"""What the recorded bag in test/data says, and the networks that drove its arm."""

from pathlib import Path
from typing import Any

import pytest

from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.bag_reader import opened
from spiking_controller.streams.bag_stream import find_stream

DATA = Path(__file__).parents[2] / "data"
Event = tuple[str, int, tuple[Any, ...]]
"""Name of a method of the evaluator, when it is due (ns), and its arguments."""


class Notebook:
    """Writes down what an evaluator would be told, in the bag's order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add_joint_state(self, time: int, *rest: Any) -> None:
        self.events.append(("add_joint_state", time, (time, *rest)))

    def add_torque(self, time: int, *rest: Any) -> None:
        self.events.append(("add_torque", time, (time, *rest)))

    def add_disturbance(self, time: int, *rest: Any) -> None:
        self.events.append(("add_disturbance", time, (time, *rest)))

    def add_goal(self, time: int, *rest: Any) -> None:
        self.events.append(("add_goal", time, (time, *rest)))

    def add_prediction(self, time: int) -> None:
        self.events.append(("add_prediction", time - 20_000_000, (time,)))

    def add_prediction_error(self, error: float) -> None:
        self.events.append(("add_prediction_error", 0, (error,)))


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """The networks that drove the arm of the recorded bag."""
    return load_checkpoint(DATA / "panda_three_goals.safetensors")


@pytest.fixture(scope="session")
def events() -> list[Event]:
    """What the recorded bag says, in its order."""
    notebook = Notebook()
    with opened(DATA / "panda_three_goals") as bag:
        find_stream(bag, get_arm("panda")).feed(bag, notebook)
    return notebook.events
