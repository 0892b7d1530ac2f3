"""The task definitions carry the numbers of the training recipe."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from spiking_controller.errors import ConfigError
from spiking_controller.tasks.reach import get_task


def test_panda_reach_is_the_task_of_the_recipe() -> None:
    task = get_task("panda_reach")
    assert (task.controlled_joints, task.goal_dimensions) == (6, 3)
    assert (task.substeps, task.steps_per_episode) == (10, 200)
    np.testing.assert_allclose(task.torque_scale, [17.4] * 4 + [2.4] * 2)
    np.testing.assert_allclose(task.damping, [8.0] * 4 + [2.4 / 2.61] * 2)


def test_planar_reach_is_the_task_of_the_recipe() -> None:
    task = get_task("planar_reach")
    assert (task.controlled_joints, task.goal_dimensions) == (2, 2)
    np.testing.assert_allclose(task.velocity_scale, np.pi / 2)
    np.testing.assert_allclose(task.torque_scale, 20.0)


@pytest.mark.parametrize("name", ["panda_reach", "planar_reach"])
def test_soft_bounds_lie_at_the_soft_fraction_of_the_position_range(name: str) -> None:
    task = get_task(name)
    m = task.controlled_joints
    lower, upper = task.arm.limits.position_lower[:m], task.arm.limits.position_upper[:m]
    np.testing.assert_allclose(task.position_centre, (lower + upper) / 2)
    np.testing.assert_allclose(task.position_half_range, task.soft_limit_fraction * (upper - lower) / 2)


def test_unknown_task_is_refused_with_the_known_names() -> None:
    known = "panda_reach, panda_reach_paper, planar_reach, planar_reach_paper"
    with pytest.raises(ConfigError, match=rf"'pandareach'.*{known}"):
        get_task("pandareach")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"control_period": 0.021}, "episode_duration is 4.0 s.*0.021"),
        ({"control_period": 0.025}, "control_period is 0.025 s.*0.002"),
        ({"physics_period": 0.05}, "control_period is 0.02 s.*0.05"),
        ({"delay_steps": -1}, "delay_steps is -1"),
        ({"action_scale": 0.0}, "action_scale is 0.0; give a share"),
        ({"action_scale": 1.5}, "action_scale is 1.5; give a share"),
        ({"action_scale": (0.2,) * 5}, "or a list of 6, one for each controlled joint"),
        ({"damping_scale": -1.0}, "damping_scale is -1.0"),
        ({"damping_scale": float("nan")}, "damping_scale is nan"),
        ({"gravity_convention": "none"}, "'none'.*compensated, raw"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(get_task("panda_reach"), **change)
