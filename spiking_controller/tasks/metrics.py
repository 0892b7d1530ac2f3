"""Says how well reaching episodes went, in the numbers that every table and figure of the project uses."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spiking_controller.tasks.episodes import Episodes
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import FloatArray, ReachTask

TOLERANCES_CM = (12.3, 5.0, 3.0, 2.0, 1.0)
"""Distances that count as "on target", cm; 12.3 is the one of Huebotter et al. 2025 for the Panda."""
FINAL_TIME = 0.5
"""The end of an episode over which the final error is averaged, s."""
HOLD_TIME = 1.0
"""The end of an episode in which the hand may hold its goal, s,"""
HOLD_DISTANCE = 0.02
"""which it does while it stays this close, m."""

_SHARES = ("share_on_target", "on_target_share", "on_target_final_share")

Metrics = dict[str, FloatArray]


def hold_steps(episodes: Episodes, task: ReachTask) -> int:
    """Control steps in the last HOLD_TIME of an episode, or in all of a shorter one."""
    return min(round(HOLD_TIME / task.control_period), episodes.action.shape[1])


def holds_goal(episodes: Episodes, task: ReachTask) -> NDArray[np.bool_]:
    """Whether the hand stayed within HOLD_DISTANCE of its goal throughout the last HOLD_TIME of each episode, [B]."""
    steps = episodes.action.shape[1]
    near = episodes.distance[:, -hold_steps(episodes, task) - 1 :] < HOLD_DISTANCE
    return np.asarray(near.all(axis=1) & (episodes.valid_steps == steps))


def reach_metrics(episodes: Episodes, task: ReachTask) -> Metrics:
    """Metrics of each episode, arrays [B].

        final_error_m           mean hand-to-goal distance over the last 0.5 s
        first_reach_{x}cm_s     time of the first control step within x cm, s; inf if never
        share_on_target_{x}cm   share of the control steps within x cm
        on_target_share         share of the control steps in which the hand is on target, as the task says
                                (`ReachTask.target_tolerance`)
        on_target_final_share   the same over the last second
        first_on_target_s       time of the first such step, s; inf if never
        cumulative_distance_m_s integral of the distance over the episode, m·s
        mean_torque_rate        mean |rate of torque| of the controlled joints, N·m/s
        intervention_share      share of the torques that the limiter changed
        joint_limit_margin      smallest distance of a controlled joint to its position limit, rad
        rms_final_joint_speed   root mean square of the controlled joints' velocity over the last 0.5 s, rad/s
        hand_jitter_m           root mean square distance of the hand from its mean position over the last 0.5 s, m:
                                large in a limit cycle, or while the hand still approaches
        posture_drift_rad_s     how far the joints moved over the last second, divided by its length, rad/s: of the
                                controlled joint that moved farthest; NaN where the hand did not hold its goal then
        ended_early             1 if the episode broke off (see Episodes.valid_steps), else 0

    An episode that broke off counts, from there on, as if the hand were twice the arm's reach away, so that
    it is neither dropped nor taken for a success; its torque, margin, speed and jitter are those of its valid part.
    """
    codec = ObservationCodec(task)
    steps = episodes.action.shape[1]
    period = task.control_period
    step = np.arange(steps + 1)
    valid = step <= episodes.valid_steps[:, None]
    distance = np.where(valid, episodes.distance, 2.0 * task.arm.reach)
    final = step > steps - round(FINAL_TIME / period)

    metrics: Metrics = {"final_error_m": distance[:, final].mean(axis=1)}
    for tolerance in TOLERANCES_CM:
        within = distance < 0.01 * tolerance
        first = np.where(within.any(axis=1), within.argmax(axis=1) * period, np.inf)
        metrics[f"first_reach_{tolerance:g}cm_s"] = first
        metrics[f"share_on_target_{tolerance:g}cm"] = within.mean(axis=1)
    hand = codec.hand_position(episodes.observation) if episodes.hand is None else episodes.hand.astype(np.float64)
    on_target = _on_target(hand, episodes, task) & valid
    metrics["on_target_share"] = on_target.mean(axis=1)
    metrics["on_target_final_share"] = on_target[:, -min(hold_steps(episodes, task), steps) :].mean(axis=1)
    metrics["first_on_target_s"] = np.where(on_target.any(axis=1), on_target.argmax(axis=1) * period, np.inf)
    metrics["cumulative_distance_m_s"] = np.trapezoid(distance, dx=period, axis=1)

    done = valid[:, 1:]
    metrics["mean_torque_rate"] = _mean_where(done, episodes.torque_rate)
    metrics["intervention_share"] = _mean_where(done, episodes.intervened)

    m = task.controlled_joints
    position = codec.joint_position(episodes.observation)
    lower, upper = task.arm.limits.position_lower[:m], task.arm.limits.position_upper[:m]
    margin = np.minimum(position - lower, upper - position).min(axis=-1)
    if task.joints_turn_freely:
        margin = np.full(margin.shape, np.nan)
    metrics["joint_limit_margin"] = np.where(valid, margin, np.inf).min(axis=1)

    squared_speed = (codec.joint_velocity(episodes.observation) ** 2).mean(axis=-1)
    last = (step <= episodes.valid_steps[:, None]) & (step > episodes.valid_steps[:, None] - int(final.sum()))
    metrics["rms_final_joint_speed"] = np.sqrt(_mean_where(last, squared_speed))
    mean_hand = np.stack([_mean_where(last, hand[..., axis]) for axis in range(hand.shape[-1])], axis=-1)
    squared_distance = ((hand - mean_hand[:, None]) ** 2).sum(axis=-1)
    metrics["hand_jitter_m"] = np.sqrt(_mean_where(last, squared_distance))
    last_steps = hold_steps(episodes, task)
    moved = np.abs(position[:, -1] - position[:, -1 - last_steps]).max(axis=-1)
    metrics["posture_drift_rad_s"] = np.where(holds_goal(episodes, task), moved / (last_steps * period), np.nan)
    metrics["ended_early"] = (episodes.valid_steps < steps).astype(np.float64)
    return metrics


def _on_target(hand: FloatArray, episodes: Episodes, task: ReachTask) -> NDArray[np.bool_]:
    """Whether the hand [B, T + 1, d] is on target."""
    if not task.target_box:
        return np.asarray(episodes.distance < task.target_tolerance)
    return np.asarray((np.abs(hand - episodes.goal[:, None]) <= task.target_tolerance).all(axis=-1))


def summarise(metrics: Mapping[str, NDArray[np.floating]]) -> dict[str, float | None]:
    """The metrics of many episodes [B] in a flat table.

    `{name}_median` of every metric; `{name}_p90` of those of which more is worse, and `_p10` of the
    joint-limit margin; `{name}_mean` of shares; `share_under_{x}cm` (share of episodes with a final error below x),
    `share_reached_{x}cm`, `share_reached_target` and `ended_early_share`. A quantile of a time that falls on episodes
    that never reach is None. Episodes of which a metric says nothing (NaN) do not count in its quantiles; of none they
    are None.
    """
    summary: dict[str, float | None] = {}
    for name, values in metrics.items():
        if name == "ended_early":
            summary["ended_early_share"] = float(values.mean())
            continue
        summary[f"{name}_median"] = _quantile(values, 0.5)
        if name == "joint_limit_margin":
            summary[f"{name}_p10"] = _quantile(values, 0.1)
        elif not name.startswith(_SHARES):
            summary[f"{name}_p90"] = _quantile(values, 0.9)
        if name.startswith((*_SHARES, "intervention_share")):
            summary[f"{name}_mean"] = float(values.mean())
    for tolerance in TOLERANCES_CM:
        error = metrics["final_error_m"]
        summary[f"share_under_{tolerance:g}cm"] = float((error < 0.01 * tolerance).mean())
        reached = np.isfinite(metrics[f"first_reach_{tolerance:g}cm_s"])
        summary[f"share_reached_{tolerance:g}cm"] = float(reached.mean())
    summary["share_reached_target"] = float(np.isfinite(metrics["first_on_target_s"]).mean())
    return summary


def _mean_where(mask: NDArray[np.bool_], values: NDArray[np.floating]) -> FloatArray:
    """Mean of values [B, T] over the mask [B, T], 0 where the mask is empty; [B]."""
    count = np.maximum(mask.sum(axis=1), 1)
    return np.asarray(np.where(mask, values, 0.0).sum(axis=1, dtype=np.float64) / count)


def _quantile(values: NDArray[np.floating], fraction: float) -> float | None:
    """The quantile of values [B] without NaN, None where it falls on "never" (infinite) or nothing is left."""
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return None
    place = fraction * (len(ordered) - 1)
    low, high = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
    if not np.isfinite(high):
        return None
    return float(low + (high - low) * (place - np.floor(place)))
