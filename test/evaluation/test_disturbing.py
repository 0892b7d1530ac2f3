"""Loads, pushes and contacts on an arm that the live controller's code drives, and the table of what came of them."""

from typing import Any

import numpy as np
import pytest

from spiking_controller.commands.evaluate import disturb_table
from spiking_controller.evaluation import disturbing
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmCondition

GOAL = np.array([0.5, -0.3, 0.35])


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "panda_reach.safetensors"))


@pytest.fixture(scope="module")
def home(checkpoint: Checkpoint) -> disturbing.FloatArray:
    return np.asarray(checkpoint.task.arm.home, dtype=np.float64)


def test_three_kilograms_are_picked_up_and_weighed(checkpoint: Checkpoint, home: disturbing.FloatArray) -> None:
    carried = disturbing.pick_up(checkpoint, home, GOAL, 3.0)
    assert 0.005 < carried.moved_m < 0.05
    assert carried.back_after_s is not None
    assert carried.back_after_s < 1.5
    assert carried.mass_kg == pytest.approx(3.0, rel=0.1)


def test_a_steady_push_is_held_against(checkpoint: Checkpoint, home: disturbing.FloatArray) -> None:
    assert disturbing.push(checkpoint, home, GOAL, np.array([0.0, 15.0, 0.0])) < 0.003


def test_a_touch_is_noticed_with_a_load_and_noise(checkpoint: Checkpoint, home: disturbing.FloatArray) -> None:
    touched = disturbing.touch(checkpoint, home, GOAL, np.array([0.0, 10.0, 0.0]), None, 1)
    assert touched.noticed_after_s is not None
    assert touched.noticed_after_s <= disturbing.NOTICED
    assert touched.false_alarms == 0
    nothing = disturbing.touch(checkpoint, home, GOAL, np.zeros(3), 0.5, 1)
    assert nothing == disturbing.Touched(None, 0)


def test_an_unchanged_arm_reaches_its_goal_as_without_the_observer(
    checkpoint: Checkpoint, home: disturbing.FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = disturbing.reach_unchanged(checkpoint, home, GOAL)
    assert quiet.observed_m < 0.002
    assert not quiet.noticed
    assert quiet.alone_m == quiet.observed_m
    # An arm that is not the one that the networks know: what the observer adds is compared with nothing added.
    started = disturbing.LockStep.of

    def loaded(*arguments: Any) -> disturbing.LockStep:
        loop = started(*arguments)
        loop.arm.apply(ArmCondition(payload_mass=2.0))
        return loop

    monkeypatch.setattr(disturbing.LockStep, "of", loaded)
    changed = disturbing.reach_unchanged(checkpoint, home, GOAL)
    assert changed.noticed
    assert changed.alone_m > 10.0 * changed.observed_m


def test_the_table_counts_what_came_too_late_or_never() -> None:
    noticed = {"noticed_after_s": [0.02, 0.08, None, 0.06], "false_alarms": [0, 0, 0, 0]}
    table = disturb_table(
        {
            "arms": 2,
            "loads": [{"kg": 2.0, "moved_m": [0.01, 0.03], "back_after_s": [0.5, None], "mass_kg": [2.1, 2.5]}],
            "push": {"newton": 15.0, "distance_m": [0.001, 0.02]},
            "contacts": {"rest": noticed, "motion": noticed, "minutes": 60.0, "false_alarms": 3},
            "unchanged": {
                "observed_m": [0.001, 0.002, 0.004],
                "alone_m": [0.001, 0.002, 0.003],
                "noticed": [False, False, True],
            },
        }
    )
    load, *rest = (" ".join(line.split()) for line in table.splitlines() if line and "picked up" not in line)
    assert load.startswith("2 kg 0.02 m 0.03 m")
    assert load.endswith("50 % 15.0 % 50 %")
    assert any(line == "contacts noticed within 60 ms, rest 50 %" for line in rest)
    assert any(line == "noticed at all, motion 75 %" for line in rest)
    assert any(line.endswith("60 min of reaching 3") for line in rest)
    assert "unchanged arm, 3 goals; the observer acted at 1 median p90" in rest
    assert "final error with the observer 0.002 m 0.0036 m" in rest
    assert "final error without the observer 0.002 m 0.0028 m" in rest
