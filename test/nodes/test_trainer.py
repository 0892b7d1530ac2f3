"""The trainer may come, go, die and come twice: control is unaffected, and learning goes on from what runs."""

from pathlib import Path
from typing import Any

import pytest
from std_msgs.msg import String, UInt8MultiArray
from std_srvs.srv import SetBool, Trigger

from spiking_controller.networks.checkpoint import load_checkpoint, parse_checkpoint
from spiking_controller.nodes.common import messages
from spiking_controller.resources import share_path

GOAL = (0.45, -0.25, 0.45)
OTHER_GOAL = (0.35, 0.35, 0.6)
LEARNING = "/trainer: learning"
# No faster than real time: training steps back behind the arm, and shall get its share of the processors.
LOCK_STEP = {"lock_step": True, "lock_step_timeout": 30.0}
# A margin of nothing: the way of a version matters here, not how much better it is.
QUICK: dict[str, Any] = {
    "segment_steps": 25,
    "minimum_segments": 4,
    "minimum_held_back": 1,
    "hold_back_every": 2,
    "update_period": 0.5,
    "model_updates": 4,
    "policy_updates": 1,
    "margin": 0.0,
    "diagnostics_period": 0.2,
}


class Listener:
    """What goes over `model_update` and `controller/version`.

    Attributes:
        updates: as sent.
        parents: of these, by sha256.
        version: what the controller said last.
    """

    def __init__(self, probe: Any) -> None:
        self.updates: list[bytes] = []
        self.parents: dict[str, str] = {}
        self.version = ""
        probe.create_subscription(UInt8MultiArray, "model_update", self._on_update, messages.LATCHED)
        probe.create_subscription(String, "controller/version", self._on_version, messages.LATCHED)

    def _on_update(self, message: UInt8MultiArray) -> None:
        self.updates.append(bytes(message.data))
        # Here, once: a probe that parses while it waits hears nothing else for too long.
        header = parse_checkpoint(self.updates[-1], "update").metadata
        self.parents[header["sha256"]] = header["parent"]

    def _on_version(self, message: String) -> None:
        self.version = message.data


@pytest.fixture
def heard(probe: Any) -> Listener:
    return Listener(probe)


def folders(tmp_path: Path, name: str = "") -> dict[str, Path]:
    return {"memory_directory": tmp_path / f"memory{name}", "versions_directory": tmp_path / f"versions{name}"}


def reach(probe: Any, goal: tuple[float, float, float]) -> None:
    probe.send_accepted_goal(*goal)
    probe.wait_for(lambda: probe.distance(goal) < 0.05, f"the goal {goal}")


def test_a_trainer_that_is_killed_and_started_again_goes_on_where_it_was(
    graph: Any, probe: Any, heard: Listener, tmp_path: Path
) -> None:
    graph.controller(diagnostics_period=0.1)
    trainer = graph.start("trainer", **QUICK, **folders(tmp_path))
    probe.wait_for(lambda: probe.status(LEARNING), "the trainer")
    probe.send_accepted_goal(*GOAL)
    graph.bridge(**LOCK_STEP)
    probe.wait_for(lambda: heard.updates, "a new version")
    probe.wait_for(lambda: heard.version in heard.parents, "the controller to have it wait or run")
    trainer.kill()
    reach(probe, OTHER_GOAL)
    kept = int(probe.figure(LEARNING, "segments in memory"))
    tip, sent = heard.version, len(heard.updates)

    graph.start("trainer", **QUICK, **folders(tmp_path))
    probe.wait_for(lambda: len(heard.updates) > sent and heard.updates[-1] not in heard.updates[:sent], "another one")
    first = next(sha for sha, parent in heard.parents.items() if parent == tip)
    assert first not in (tip, load_checkpoint(share_path("models", "panda_reach.safetensors")).metadata["sha256"])
    assert int(probe.figure(LEARNING, "segments in memory")) >= kept
    reach(probe, GOAL)
    probe.assert_every_torque_is_legal()


def test_two_trainers_learn_in_turns_and_never_from_the_same_memory(
    graph: Any, probe: Any, heard: Listener, tmp_path: Path
) -> None:
    graph.controller(diagnostics_period=0.1)
    graph.start("trainer", **QUICK, **folders(tmp_path))
    graph.start("trainer", "-r", "__node:=other", **QUICK, **folders(tmp_path, "2"))
    for name in (LEARNING, "/other: learning"):
        probe.wait_for(lambda name=name: probe.status(name), name, 240.0)
    third = graph.start("trainer", "-r", "__node:=third", **QUICK, **folders(tmp_path))
    assert third.wait() == 2
    assert "another process learns from this folder" in third.output

    probe.send_accepted_goal(*GOAL)
    graph.bridge(**LOCK_STEP)
    first = heard.version
    probe.wait_for(lambda: heard.version not in ("", first), "a version of one of them")
    probe.wait_for(
        lambda: all(
            int(probe.figure(name, "version followed") or 0) + int(probe.figure(name, "accepted candidate") or 0) > 0
            for name in (LEARNING, "/other: learning")
        ),
        "both to go on from it",
    )
    reach(probe, OTHER_GOAL)
    probe.assert_every_torque_is_legal()


def test_learning_can_be_switched_off_and_on_and_the_candidate_saved(
    graph: Any, probe: Any, heard: Listener, tmp_path: Path
) -> None:
    graph.controller()
    trainer = graph.start("trainer", enabled=False, **QUICK, **folders(tmp_path))
    probe.send_accepted_goal(*GOAL)
    graph.bridge(**LOCK_STEP)
    probe.wait_for(lambda: int(probe.figure(LEARNING, "segments in memory") or 0) >= 8, "segments")
    assert probe.status(LEARNING) == "not enabled"
    assert not heard.updates
    assert probe.call(SetBool, "trainer/enable", SetBool.Request(data=True)).success
    probe.wait_for(lambda: int(probe.figure(LEARNING, "update") or 0) > 0, "learning")
    assert probe.call(SetBool, "trainer/enable", SetBool.Request(data=False)).success
    answer = probe.call(Trigger, "trainer/save", Trigger.Request())
    candidate = tmp_path / "versions" / "candidate.safetensors"
    assert str(candidate) in answer.message
    probe.wait_for(candidate.exists, "the candidate's file")
    assert load_checkpoint(candidate).metadata["parent"]
    assert trainer.stop() == 0
    decisions = (tmp_path / "versions" / "decisions.log").read_text()
    judged = [line for line in decisions.splitlines() if "rejected: " in line or "accepted " in line]
    assert judged
    assert all("forward model: " in line and "policy: " in line for line in judged)


def test_without_a_folder_nothing_can_be_saved(graph: Any, probe: Any) -> None:
    graph.start("trainer", **QUICK)
    answer = probe.call(Trigger, "trainer/save", Trigger.Request())
    assert not answer.success
    assert "versions_directory is empty" in answer.message
