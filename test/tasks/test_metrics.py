"""Metrics are right on episodes made by hand."""

import json
import math

import numpy as np
import pytest

from spiking_controller.tasks.episodes import Episodes
from spiking_controller.tasks.metrics import reach_metrics, summarise
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask, get_task

TASK = get_task("panda_reach")
STEPS = 200


def episodes_with(distance: np.ndarray, task: ReachTask = TASK, valid_steps: int = STEPS) -> Episodes:
    """Episodes at rest at home, [B, T + 1] distances given."""
    codec = ObservationCodec(task)
    batch = len(distance)
    m, n = task.controlled_joints, len(task.arm.joint_names)
    home = codec.encode(task.arm.home, np.zeros(n), np.zeros(3))
    return Episodes(
        observation=np.tile(home, (batch, STEPS + 1, 1)).astype(np.float32),
        action=np.zeros((batch, STEPS, m), np.float32),
        goal=np.zeros((batch, task.goal_dimensions), np.float32),
        distance=distance,
        torque=np.zeros((batch, STEPS, n), np.float32),
        torque_rate=np.zeros((batch, STEPS), np.float32),
        intervened=np.zeros((batch, STEPS), np.float32),
        valid_steps=np.full(batch, valid_steps),
    )


def test_final_error_is_the_mean_distance_of_the_last_half_second() -> None:
    distance = np.full((1, STEPS + 1), 0.7)
    distance[0, -25:] = np.linspace(0.01, 0.03, 25)
    assert reach_metrics(episodes_with(distance), TASK)["final_error_m"] == pytest.approx([0.02])


def test_first_reach_is_the_time_of_the_first_step_within_the_tolerance() -> None:
    distance = np.full((2, STEPS + 1), 0.5)
    distance[0, 50:] = 0.04
    distance[0, 100:] = 0.015
    metrics = reach_metrics(episodes_with(distance), TASK)
    assert metrics["first_reach_12.3cm_s"] == pytest.approx([1.0, np.inf])
    assert metrics["first_reach_5cm_s"] == pytest.approx([1.0, np.inf])
    assert metrics["first_reach_2cm_s"] == pytest.approx([2.0, np.inf])
    assert metrics["first_reach_1cm_s"] == pytest.approx([np.inf, np.inf])


def test_share_on_target_counts_every_step_within_the_tolerance() -> None:
    distance = np.full((1, STEPS + 1), 0.5)
    distance[0, 10:20] = 0.04
    distance[0, -10:] = 0.005
    metrics = reach_metrics(episodes_with(distance), TASK)
    assert metrics["share_on_target_5cm"] == pytest.approx([20 / 201])
    assert metrics["share_on_target_1cm"] == pytest.approx([10 / 201])


def test_cumulative_distance_is_the_integral_over_time() -> None:
    distance = np.stack([np.full(STEPS + 1, 0.5), np.linspace(1.0, 0.0, STEPS + 1)])
    metrics = reach_metrics(episodes_with(distance), TASK)
    assert metrics["cumulative_distance_m_s"] == pytest.approx([2.0, 2.0])


def test_joint_limit_margin_is_the_closest_approach_of_any_joint() -> None:
    episodes = episodes_with(np.full((1, STEPS + 1), 0.5))
    codec = ObservationCodec(TASK)
    near = np.array(TASK.arm.home)
    near[3] = TASK.arm.limits.position_upper[3] - 0.1
    episodes.observation[0, 77] = codec.encode(near, np.zeros(7), np.zeros(3))
    assert reach_metrics(episodes, TASK)["joint_limit_margin"] == pytest.approx([0.1], abs=1e-5)


def test_final_joint_speed_is_the_root_mean_square_of_the_last_half_second() -> None:
    episodes = episodes_with(np.full((1, STEPS + 1), 0.5))
    codec = ObservationCodec(TASK)
    moving = codec.encode(TASK.arm.home, np.array([0.6, 0, 0, 0, 0, 0, 9.0]), np.zeros(3))
    episodes.observation[0] = moving
    expected = 0.6 / math.sqrt(6)
    assert reach_metrics(episodes, TASK)["rms_final_joint_speed"] == pytest.approx([expected], rel=1e-5)
    episodes.observation[0, -25:] = episodes_with(np.zeros((1, STEPS + 1))).observation[0, 0]
    assert reach_metrics(episodes, TASK)["rms_final_joint_speed"] == pytest.approx([0.0])


def test_hand_jitter_is_the_distance_from_the_mean_of_the_last_half_second_and_forgives_an_offset() -> None:
    episodes = episodes_with(np.full((1, STEPS + 1), 0.5))
    codec = ObservationCodec(TASK)
    assert reach_metrics(episodes, TASK)["hand_jitter_m"] == pytest.approx([0.0], abs=1e-7)
    for step in range(STEPS + 1):
        swing = 0.002 * (-1) ** step if step > STEPS - 24 else 0.1 * step
        episodes.observation[0, step] = codec.encode(TASK.arm.home, np.zeros(7), np.array([0.3, 0.4 + swing, 0.5]))
    episodes.observation[0, STEPS - 24] = codec.encode(TASK.arm.home, np.zeros(7), np.array([0.3, 0.4, 0.5]))
    assert reach_metrics(episodes, TASK)["hand_jitter_m"] == pytest.approx([0.002 * math.sqrt(24 / 25)], rel=1e-3)


def test_posture_drift_is_how_fast_the_joint_that_moves_most_wanders_while_the_hand_holds() -> None:
    distance = np.full((3, STEPS + 1), 0.005)
    distance[2, -40] = 0.021
    episodes = episodes_with(distance)
    codec = ObservationCodec(TASK)
    for step in range(STEPS + 1):
        posture = np.array(TASK.arm.home)
        posture[1:3] += np.array([0.0001, -0.0004]) * step
        episodes.observation[1:, step] = codec.encode(posture, np.zeros(7), np.zeros(3))
    drift = reach_metrics(episodes, TASK)["posture_drift_rad_s"]
    np.testing.assert_allclose(drift, [0.0, 0.0004 / TASK.control_period, np.nan], atol=1e-6)
    summary = summarise(reach_metrics(episodes, TASK))
    assert summary["posture_drift_rad_s_median"] == pytest.approx(0.01, rel=1e-3)


def test_a_posture_drift_that_no_episode_tells_is_none() -> None:
    away = episodes_with(np.full((2, STEPS + 1), 0.5))
    broken = episodes_with(np.full((2, STEPS + 1), 0.001), valid_steps=STEPS - 1)
    for episodes in (away, broken):
        assert summarise(reach_metrics(episodes, TASK))["posture_drift_rad_s_median"] is None


def test_torque_rate_and_interventions_are_means_over_time() -> None:
    episodes = episodes_with(np.full((1, STEPS + 1), 0.5))
    episodes.torque_rate[0, :100] = 30.0
    episodes.intervened[0, :50] = 0.8
    metrics = reach_metrics(episodes, TASK)
    assert metrics["mean_torque_rate"] == pytest.approx([15.0])
    assert metrics["intervention_share"] == pytest.approx([0.2])


def test_an_episode_that_broke_off_is_no_success() -> None:
    distance = np.full((1, STEPS + 1), 0.001)
    episodes = episodes_with(distance, valid_steps=20)
    episodes.torque_rate[0, :20] = 10.0
    metrics = reach_metrics(episodes, TASK)
    assert metrics["final_error_m"] == pytest.approx([2 * TASK.arm.reach])
    assert metrics["share_on_target_1cm"] == pytest.approx([21 / 201])
    assert metrics["mean_torque_rate"] == pytest.approx([10.0])
    assert metrics["ended_early"] == pytest.approx([1.0])


def test_summary_gives_medians_tails_and_shares() -> None:
    distance = np.tile(np.linspace(0.001, 0.101, 101)[:, None], (1, STEPS + 1))
    summary = summarise(reach_metrics(episodes_with(distance), TASK))
    assert summary["final_error_m_median"] == pytest.approx(0.051)
    assert summary["final_error_m_p90"] == pytest.approx(0.091)
    assert summary["share_under_5cm"] == pytest.approx(49 / 101)
    assert summary["share_under_3cm"] == pytest.approx(29 / 101)
    assert summary["share_on_target_3cm_mean"] == pytest.approx(29 / 101)
    assert summary["share_under_1cm"] == pytest.approx(9 / 101)
    assert summary["share_reached_12.3cm"] == 1.0
    assert summary["first_reach_12.3cm_s_median"] == 0.0
    assert summary["ended_early_share"] == 0.0


def test_a_time_that_most_never_reach_is_none_and_the_summary_is_valid_json() -> None:
    distance = np.full((3, STEPS + 1), 0.5)
    distance[0, 100:] = 0.0
    summary = summarise(reach_metrics(episodes_with(distance), TASK))
    assert summary["first_reach_5cm_s_median"] is None
    assert summary["share_reached_5cm"] == pytest.approx(1 / 3)
    json.dumps(summary, allow_nan=False)


def test_metrics_know_the_planar_arm() -> None:
    task = get_task("planar_reach")
    metrics = reach_metrics(episodes_with(np.full((2, STEPS + 1), 0.015), task), task)
    assert metrics["final_error_m"] == pytest.approx([0.015, 0.015])
    assert all(values.shape == (2,) for values in metrics.values())
