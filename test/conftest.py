"""Keeps every ROS graph that a test starts away from any other graph, real robots above all; a tiny training run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# The first example of a property test may compile kernels; no test is about its own time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Tests of these folders and files start ROS nodes, train networks, start Ray, compile from nothing, or let arms work
# through whole episodes; `make quick` leaves them out.
_MARKED = {
    "graph": ("nodes", "commands", "examples/test_send_goals.py"),
    "training": ("training", "online/test_learner.py", "examples/test_train_and_evaluate.py"),
    "study": ("experiments", "control/test_lies.py"),
    "cold": ("snn/compiled/test_cache.py",),
    "episodes": (
        "control/test_contact.py",
        "control/test_disturbance_observer.py",
        "evaluation",
        "examples",
        "networks/test_onnx_export.py",
        "viewing/test_page_cost.py",
    ),
}

pytest_plugins = ["browser", "live_graph"]

if TYPE_CHECKING:
    from spiking_controller.networks.config import TrainingConfig

# Set before any test module imports rclpy, and not as a default: the shell may name the lab's domain. Each worker of a
# run (gw0, gw1, ...) has a domain of its own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_RUN = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + (_RUN * 8 + _WORKER) % 101)
# Tests kill nodes on purpose. A killed process can leave a lock of the shared-memory transport behind, on which the
# nodes of the next test would hang.
os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
# Workers share the processors; threads of theirs would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by where they stand; those that share a graph run in one worker (`--dist loadgroup`)."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here)
        for marker, places in _MARKED.items():
            if any(place.is_relative_to(each) for each in places):
                item.add_marker(marker)
        if "module_graph" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(str(place)))


@pytest.fixture
def small_config() -> "TrainingConfig":
    """A training configuration that runs in seconds, for tests of the machinery rather than of the result."""
    # PyTorch and the kernels take seconds to import, which most tests need not pay for.
    from spiking_controller.networks.config import ModelUpdates, PolicyUpdates, TrainingConfig
    from spiking_controller.snn.network import NetworkConfig

    return TrainingConfig(
        task="planar_reach",
        seed=3,
        iterations=4,
        random_episodes=6,
        episodes_per_iteration=3,
        replay_episodes=12,
        evaluate_every=2,
        evaluation_episodes=4,
        forward_model=NetworkConfig(hidden=(16,), recurrence="step", rank=4, output_gain=0.1),
        policy=NetworkConfig(hidden=(16, 12), rank=4),
        model_updates=ModelUpdates(first=5, per_iteration=3, batch=8, warm_up=2, unroll=3),
        policy_updates=PolicyUpdates(per_iteration=3, batch=8, warm_up=2, unroll=5),
    )
