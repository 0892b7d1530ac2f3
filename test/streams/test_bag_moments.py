"""Any moment of a recorded run can be looked at."""

from pathlib import Path

import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.bag_moments import RecordedRun

BAG = Path(__file__).parents[1] / "data" / "panda_three_goals"


@pytest.fixture(scope="module")
def run() -> RecordedRun:
    return RecordedRun(BAG, get_arm("panda"))


def test_the_arm_arrives_at_the_recorded_goals(run: RecordedRun) -> None:
    assert run.duration > 3.0
    end = run.at(run.duration)
    assert end.goal is not None
    assert np.linalg.norm(end.trail[-1] - end.goal) < 0.03
    goals = {tuple(np.round(run.at(moment).goal, 4)) for moment in np.linspace(0.5, run.duration, 30)}  # type: ignore[arg-type]
    assert len(goals) >= 3


def test_before_the_beginning_is_the_beginning(run: RecordedRun) -> None:
    np.testing.assert_array_equal(run.at(-1.0).joint_position, run.at(0.0).joint_position)


def test_curves_and_spikes_end_at_the_moment(run: RecordedRun) -> None:
    curves = run.curves(2.0)
    assert curves.time[-1] == pytest.approx(2.0, abs=0.2)
    assert np.isfinite(curves.values["torque"]).any()
    spikes = run.spikes(2.0, 50)
    assert len(spikes) <= 50
    assert all(layer.ndim == 2 for step in spikes for layer in step.values())


def test_what_is_no_bag_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="is not a bag"):
        RecordedRun(share_path("models"), get_arm("panda"))


def test_another_arm_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="planar_joint1"):
        RecordedRun(BAG, get_arm("planar_arm"))
