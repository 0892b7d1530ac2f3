"""What tests of evaluation share: a study of tiny training runs, and what the recorded bag in test/data says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.bag_reader import opened
from spiking_controller.streams.bag_stream import find_stream

DATA = Path(__file__).parents[1] / "data"
Event = tuple[str, int, tuple[Any, ...]]
"""Name of a method of the evaluator, when it is due (ns), and its arguments."""

TINY: dict[str, Any] = {
    "iterations": 2,
    "random_episodes": 6,
    "episodes_per_iteration": 3,
    "replay_episodes": 12,
    "evaluate_every": 2,
    "evaluation_episodes": 4,
    "forward_model": {"hidden": [16], "rank": 4},
    "policy": {"hidden": [16, 12], "rank": 4},
    "model_updates": {"first": 5, "per_iteration": 3, "batch": 8, "warm_up": 2, "unroll": 3},
    "policy_updates": {"per_iteration": 3, "batch": 8, "warm_up": 2, "unroll": 5},
}


def study_content(**factors: dict[str, Any]) -> dict[str, Any]:
    """What a study file holds, for the factors' variants given as name=variants."""
    return {
        "base": str(share_path("config", "train", "planar_reach.yaml")),
        "goals": 4,
        "common": TINY,
        "factors": {
            name: {"question": f"Does {name} matter?", "default": "usual", "variants": variants}
            for name, variants in factors.items()
        },
    }


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two factors of one variant each; the second asks for windows longer than an episode, so that its runs crash."""
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    adaptive = {"policy": {"neuron": "adaptive_lif"}, "forward_model": {"neuron": "adaptive_lif"}}
    content = study_content(neuron={"adaptive": adaptive}, unroll={"beyond": {"model_updates": {"unroll": 500}}})
    path.write_text(yaml.safe_dump(content))
    return path


class Notebook:
    """Writes down what an evaluator would be told, in the bag's order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add_joint_state(self, time: int, *rest: Any) -> None:
        self.events.append(("add_joint_state", time, (time, *rest)))

    def add_torque(self, time: int, *rest: Any) -> None:
        self.events.append(("add_torque", time, (time, *rest)))

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
