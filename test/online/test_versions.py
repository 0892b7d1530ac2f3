"""Versions take turns: trained on from each other, at safe moments, and back again when they are worse."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from spiking_controller.control.controller import Controller, ControllerSettings
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.online.versions import VersionChain
from spiking_controller.tasks.reach import get_task

STEP = 20_000_000


class StillNetworks:
    """Networks that want nothing."""

    spikes: dict[str, Any] = {}  # noqa: RUF012

    def reset(self, batch: int = 1) -> None:
        self.was_reset = True

    def act(self, observation: Any, goal: Any) -> Any:
        return np.zeros((1, 2))

    def replace_action(self, action: Any, remembered: Any = None) -> None:
        self.action = action

    def predict(self, observation: Any) -> Any:
        return np.asarray(observation)


@dataclass(frozen=True)
class Entry:
    sha256: str
    parent: str | None
    agent: StillNetworks
    policy_digest: str


def version(sha256: str, parent: str | None = None, policy: str = "") -> Entry:
    """A version whose policy is its own, unless one is named."""
    return Entry(sha256, parent, StillNetworks(), policy or sha256)


class Loop:
    """A chain, and goals that end with given errors."""

    def __init__(self, factor: float = 2.0, disturbance_gain: float = 0.0) -> None:
        first = version("first")
        settings = ControllerSettings(disturbance_gain=disturbance_gain)
        self.controller = Controller(get_task("planar_reach"), first.agent, settings)
        self.chain = VersionChain(self.controller, first, TrackingWatch(factor, goals=3))
        self._time = 0

    def goal(self, error: float) -> str:
        for _ in range(150):
            self._time += STEP
            self.chain.step(self._time, error)
        return self.chain.goal_changes()

    @property
    def running(self) -> str:
        return self.chain.running.sha256


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_version_waits_for_the_next_goal(loop: Loop) -> None:
    assert loop.chain.offer(second := version("second", "first")) == ""
    assert loop.running == "first"
    loop.goal(0.01)
    assert loop.running == "second"
    assert loop.controller._networks is second.agent
    assert second.agent.was_reset
    assert loop.chain.previous is not None


def test_only_versions_trained_on_from_the_one_that_runs_or_waits_are_taken(loop: Loop) -> None:
    assert "was trained on from other, but first runs" in loop.chain.offer(version("stranger", "other"))
    assert loop.chain.offer(version("second", "first")) == ""
    assert "but second waits" in loop.chain.offer(version("orphan", None))
    assert loop.chain.offer(version("third", "second")) == ""
    loop.goal(0.01)
    assert loop.running == "third"
    assert loop.chain.counts == {"model update": 1}


def test_what_runs_or_waits_already_is_heard_again_without_effect(loop: Loop) -> None:
    loop.chain.offer(version("second", "first"))
    assert loop.chain.offer(version("first")) == loop.chain.offer(version("second", "first")) == ""
    assert loop.chain.counts == {}


def test_a_worse_version_is_rolled_back_within_three_goals_and_never_taken_again(loop: Loop) -> None:
    for _ in range(4):
        loop.goal(0.01)
    loop.chain.offer(version("harmful", "first"))
    loop.goal(0.01)
    assert loop.running == "harmful"
    loop.chain.offer(version("child", "harmful"))
    assert [loop.goal(0.2), loop.goal(0.3)] == ["", ""]
    assert "0.250 m away" in loop.goal(0.25)
    assert loop.running == "first"
    assert loop.chain.waiting is None, "what was trained on from it is given up too"
    assert "0.250 m away" in loop.chain.last_rollback
    assert "was rolled back before" in loop.chain.offer(version("harmful", "first"))
    assert loop.chain.counts["rollback"] == 1


def test_no_version_takes_over_while_another_is_on_trial(loop: Loop) -> None:
    for _ in range(4):
        loop.goal(0.01)
    loop.chain.offer(version("second", "first"))
    loop.goal(0.01)
    loop.chain.offer(version("third", "second"))
    loop.goal(0.01)
    loop.goal(0.01)
    assert loop.running == "second"
    loop.goal(0.01)
    assert loop.running == "third"


def test_a_version_with_the_same_policy_is_not_on_trial_and_not_blamed(loop: Loop) -> None:
    for _ in range(4):
        loop.goal(0.01)
    loop.chain.offer(version("second", "first", policy="first"))
    loop.goal(0.01)
    assert loop.running == "second"
    assert [loop.goal(0.2), loop.goal(0.3), loop.goal(0.25)] == ["", "", ""]
    loop.chain.offer(version("third", "second", policy="first"))
    loop.goal(0.01)
    assert loop.running == "third"
    assert loop.chain.counts["rollback"] == 0


def test_with_the_observer_another_forward_model_is_on_trial_too() -> None:
    loop = Loop(disturbance_gain=1.0)
    for _ in range(4):
        loop.goal(0.01)
    loop.chain.offer(version("second", "first", policy="first"))
    loop.goal(0.01)
    assert loop.running == "second"
    assert [bool(loop.goal(error)) for error in (0.2, 0.3, 0.25)] == [False, False, True]
    assert loop.running == "first"


def test_harm_that_comes_right_after_a_rollback_is_rolled_back_too(loop: Loop) -> None:
    for _ in range(4):
        loop.goal(0.01)
    assert loop.chain.offer(version("second", "first")) == ""
    for _ in range(4):
        loop.goal(0.2)
    assert loop.running == "first"
    loop.chain.offer(version("harmful", "first"))
    loop.chain.offer(version("child", "harmful", policy="first"))
    loop.goal(0.01)
    assert loop.running == "child", "the same policy need not wait"
    loop.chain.offer(version("harmful again", "child"))
    for _ in range(2):
        assert loop.running == "child"
        loop.goal(0.01)
    assert loop.running == "harmful again"
    assert [bool(loop.goal(0.3)) for _ in range(3)] == [False, False, True]
    assert loop.running == "child"


def test_after_a_rollback_the_present_arm_is_the_measure() -> None:
    loop = Loop()
    for _ in range(4):
        loop.goal(0.01)
    loop.chain.offer(version("second", "first"))
    loop.goal(0.01)
    for _ in range(3):
        loop.goal(0.2)  # the arm has changed, whichever version runs
    assert loop.running == "first"
    for _ in range(3):
        loop.goal(0.2)
    loop.chain.offer(version("third", "first"))
    loop.goal(0.2)
    for _ in range(3):
        loop.goal(0.15)
    assert loop.running == "third"


def test_going_back_on_request_needs_an_earlier_version(loop: Loop) -> None:
    assert not loop.chain.go_back("asked for.")
    loop.chain.offer(version("second", "first"))
    loop.goal(0.01)
    assert loop.chain.go_back("asked for.")
    assert loop.running == "first"
    assert not loop.chain.go_back("asked for.")


def test_without_a_watch_versions_follow_each_other_at_every_goal() -> None:
    loop = Loop(factor=0.0)
    for number, name in enumerate(["second", "third", "fourth"]):
        loop.chain.offer(version(name, ["first", "second", "third"][number]))
        loop.goal(0.01)
        assert loop.running == name
