"""What an arm says about itself is consistent, and unknown arms are refused with a sentence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import Arm, get_arm, shipped_arms

ARMS = shipped_arms()


@pytest.fixture(params=ARMS)
def arm(request: pytest.FixtureRequest) -> Arm:
    return get_arm(request.param)


def test_all_arrays_have_one_number_per_joint(arm: Arm) -> None:
    n, m = len(arm.joint_names), arm.controlled_joints
    assert arm.home.shape == (n,)
    assert arm.limits.joints == n
    assert arm.locked_stiffness.shape == arm.locked_damping.shape == (n - m,)
    assert arm.shoulder.shape == (3,)


def test_model_file_has_the_joints_the_hand_and_the_physics_period(arm: Arm) -> None:
    model = arm.load_model()
    assert [model.joint(name).name for name in arm.joint_names] == list(arm.joint_names)
    assert model.site(arm.hand_site).name == arm.hand_site
    assert model.body(arm.base_frame).pos == pytest.approx(np.zeros(3))
    assert model.opt.timestep == pytest.approx(0.002)


def test_home_is_well_inside_the_soft_limits(arm: Arm) -> None:
    lower, upper = arm.limits.soft_bounds(0.8)
    assert np.all((lower < arm.home) & (arm.home < upper))


def test_reach_is_the_largest_distance_from_the_shoulder(arm: Arm) -> None:
    lower, upper = arm.limits.position_lower, arm.limits.position_upper
    rng = np.random.default_rng(0)

    def distance(joint_position: np.ndarray) -> np.ndarray:
        return np.linalg.norm(arm.chain.position(joint_position) - arm.shoulder, axis=-1)

    best = rng.uniform(lower, upper, (20_000, lower.size))
    best = best[np.argsort(-distance(best))[:100]]
    for width in 0.3 * 0.8 ** np.arange(30):
        candidates = np.clip(best + rng.normal(0.0, width, (20, *best.shape)), lower, upper).reshape(-1, lower.size)
        candidates = np.concatenate([best, candidates])
        best = candidates[np.argsort(-distance(candidates))[:100]]
    farthest = distance(best).max()
    assert farthest <= arm.reach + 1e-9
    assert farthest == pytest.approx(arm.reach, abs=0.002)


def test_same_name_gives_the_same_arm_and_chain(arm: Arm) -> None:
    assert get_arm(arm.name) is arm
    assert get_arm(arm.name).chain is arm.chain


def test_unknown_arm_is_refused_with_the_known_names() -> None:
    with pytest.raises(RobotModelError, match=r"no arm 'pandaa'; the arms are fr3, panda, planar_arm, "):
        get_arm("pandaa")


def test_missing_or_broken_model_file_is_one_sentence_with_its_path(tmp_path: Path) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("<mujoco><worldbody></mujoco>")
    for mjcf in (broken, tmp_path / "missing.xml"):
        with pytest.raises(RobotModelError, match=str(mjcf)) as caught:
            dataclasses.replace(get_arm("panda").description, path=mjcf).model(None)
        assert "\n" not in str(caught.value)
