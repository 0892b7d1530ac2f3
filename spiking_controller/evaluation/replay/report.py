"""Lays the figures of a replay side by side: differences between checkpoints, and tables to be read."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator
from spiking_controller.evaluation.replay.model_judge import HORIZONS
from spiking_controller.evaluation.tables import Metrics, Row, cell
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

_BLOCK: Final = 2 * NANOSECONDS
"""Errors within such a time hang together (windows overlap): they are drawn together, ns."""
_FEWEST_BLOCKS: Final = 5
_RESAMPLES: Final = 2000


def paired_differences(evaluator: ReplayEvaluator) -> list[Metrics]:
    """Each further checkpoint minus the first, on the same windows and control steps.

    Returns:
        For each: `name`, `against`, and by figure `mean` difference, `interval` that holds 95 % of the means of
        bootstrap samples of two-second blocks (None for fewer than five), and `better`, the share in which it is
        smaller, with `count`. Figures: `joint_rad_K` and `hand_m_K`, the errors K steps ahead, and
        `torque_difference_rms`, the distance to the recorded torque.
    """
    times = np.array(evaluator.window_times, dtype=np.int64)
    results = []
    first_model, first_policy = evaluator.judges[0]
    for name, (model, policy) in zip(evaluator.names[1:], evaluator.judges[1:], strict=True):
        metrics: Metrics = {}
        if len(times):
            errors, reference = (np.array(judge.horizons.of_windows) for judge in (model, first_model))
            labels = [f"{kind}_{horizon}" for kind in ("joint_rad", "hand_m") for horizon in HORIZONS]
            for index, label in enumerate(labels):
                metrics[label] = _paired(times, errors[:, index], reference[:, index])
        if policy.differences:
            mine, theirs = (np.array([size for _, size in judge.differences]) for judge in (policy, first_policy))
            steps = np.array([time for time, _ in policy.differences], dtype=np.int64)
            metrics["torque_difference_rms"] = _paired(steps, mine, theirs)
        results.append({"name": name, "against": evaluator.names[0], "figures": metrics})
    return results


def _paired(times: NDArray[np.int64], values: FloatArray, reference: FloatArray) -> Metrics:
    difference = values - reference
    _, block = np.unique((times - times[0]) // _BLOCK, return_inverse=True)
    sums, counts = np.bincount(block, difference), np.bincount(block)
    interval = None
    if len(counts) >= _FEWEST_BLOCKS:
        drawn = np.random.default_rng(0).integers(0, len(counts), (_RESAMPLES, len(counts)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        interval = np.quantile(means, (0.025, 0.975)).tolist()
    return {
        "mean": float(difference.mean()),
        "interval": interval,
        "better": float((difference < 0).mean()),
        "count": len(difference),
    }


def prediction_rows(metrics: Metrics) -> tuple[list[str], list[Row]]:
    """Errors of the forward models: head and rows of a table."""
    untrained = metrics["baselines"]
    columns = [
        ("the state stays", untrained["stay"]),
        ("linear extrapolation", untrained["linear"]),
        *((c["name"], c["forward_model"]["horizons"]) for c in metrics["checkpoints"]),
    ]
    rows: list[Row] = []
    for what, key, unit in (("joints", "joint_rad", "mrad"), ("hand", "hand_m", "mm")):
        for horizon in HORIZONS:
            steps = "1 step" if horizon == 1 else f"{horizon} steps"
            rows.append((f"{what}, {steps} ahead ({unit})", [_of(part, horizon, key, 1e3) for _, part in columns]))
    joints = untrained["stay"].get("1", {}).get("joints_rad", ())
    for joint in range(len(joints)):
        cells = [cell(part[str(10)]["joints_rad"][joint], 1e3) if part else "–" for _, part in columns]
        rows.append((f"joint {joint + 1}, 10 steps ahead (mrad)", cells))
    following = ["", "", *(cell(c["forward_model"]["following_rad"], 1e3) for c in metrics["checkpoints"])]
    rows.append(("following the run, 1 step ahead, rms of the joints (mrad)", following))
    published = metrics["published"]["prediction_error_rad"]
    if published is not None:
        again = [cell(c["forward_model"]["following_reported_rad"], 1e3) for c in metrics["checkpoints"]]
        rows.append((f"the same where the controller published {cell(published, 1e3)}", ["", "", *again]))
    return [name for name, _ in columns], rows


def _of(part: Metrics, horizon: int, key: str, scale: float) -> str:
    return cell(part[str(horizon)][key], scale) if part else "–"


def _scaled(entries: Sequence[tuple[str, str, float]], columns: Sequence[Metrics]) -> list[Row]:
    """A row for each label, key and scale, with a cell for each column."""
    return [(label, [cell(column.get(key), scale) for column in columns]) for label, key, scale in entries]


def policy_rows(metrics: Metrics) -> tuple[list[str], list[Row]]:
    """What the policies would have done: head and rows of a table."""
    policies = [c["policy"] for c in metrics["checkpoints"]]
    rows: list[Row] = [
        ("recorded torque, rms (N·m)", [cell(p["recorded_torque_rms"]) for p in policies]),
        ("difference to it, rms (N·m)", [cell(p["torque_difference_rms"]) for p in policies]),
    ]
    by_joint = next((p["torque_difference_rms_by_joint"] for p in policies if p["compared_steps"]), None)
    for joint in range(len(by_joint or ())):
        rows.append((f"joint {joint + 1} (N·m)", [cell(p["torque_difference_rms_by_joint"][joint]) for p in policies]))
    for kind, title in (("interventions", "torques that the filter would have changed: {} (%)"), ("events", "{}")):
        for reason in sorted({reason for p in policies for reason in p[kind]}):
            counts = [p[kind].get(reason, 0) for p in policies]
            if kind == "interventions":
                cells = [cell(count / p["torques"], 100.0) for count, p in zip(counts, policies, strict=True)]
            else:
                cells = [str(count) for count in counts]
            rows.append((title.format(reason), cells))
    if not any(p["interventions"] for p in policies):
        rows.append(("torques that the filter would have changed (%)", ["0" for _ in policies]))
    return [c["name"] for c in metrics["checkpoints"]], rows


_ACTIVITY = (
    ("spikes per neuron per second", "spikes_per_neuron_per_second", 1.0),
    ("activation sparsity (%)", "activation_sparsity", 100.0),
    ("synaptic operations: ACs", "effective_acs", 1.0),
    ("synaptic operations: MACs", "effective_macs", 1.0),
    ("neuron updates: MACs", "neuron_update_macs", 1.0),
    ("energy of synaptic operations, 45 nm (nJ)", "energy_45nm_j", 1e9),
)


def activity_rows(metrics: Metrics) -> tuple[list[str], list[Row]]:
    """What the networks' steps cost: head and rows of a table."""
    rows: list[Row] = []
    for part in ("policy", "forward_model"):
        parts = [c["activity"][part] for c in metrics["checkpoints"]]
        rows += [(f"{part.replace('_', ' ')}: {label}", cells) for label, cells in _scaled(_ACTIVITY, parts)]
        layers = sorted({layer for p in parts for layer in p.get("spikes_per_neuron_per_second_by_layer", ())})
        for layer in layers:
            rates = [p.get("spikes_per_neuron_per_second_by_layer", {}).get(layer) for p in parts]
            rows.append(
                (f"{part.replace('_', ' ')}: {layer}, spikes per neuron per second", [cell(rate) for rate in rates])
            )
    return [c["name"] for c in metrics["checkpoints"]], rows


_GOAL_ROWS = (
    ("final error, median (mm)", "final_error_m_median", 1e3),
    ("final error, p90 (mm)", "final_error_m_p90", 1e3),
    ("goals with final error under 5 cm (%)", "share_under_5cm", 100.0),
    ("goals with final error under 1 cm (%)", "share_under_1cm", 100.0),
    ("first within 5 cm, median (s)", "first_reach_5cm_s_median", 1.0),
    ("steps within 12.3 cm (%)", "share_on_target_12.3cm_mean", 100.0),
    ("cumulative distance, median (m·s)", "cumulative_distance_m_s_median", 1.0),
    ("mean torque rate, median (N·m/s)", "mean_torque_rate_median", 1.0),
    ("hand jitter at the end, rms, median (mm)", "hand_jitter_m_median", 1e3),
    ("joint-limit margin, smallest 10 % (rad)", "joint_limit_margin_p10", 1.0),
)


def goal_rows(metrics: Metrics) -> tuple[list[str], list[Row]]:
    """How the recorded run reached its goals: head and rows of a table."""
    goals = metrics["goals"]
    if not goals["goals"]:
        return ["recorded run"], []
    return ["recorded run"], [("goals", [str(goals["goals"])]), *_scaled(_GOAL_ROWS, [goals["summary"]])]


def paired_rows(pairs: Sequence[Metrics]) -> tuple[list[str], list[Row]]:
    """Differences between checkpoints: head and rows of a table."""
    labels = list(dict.fromkeys(label for pair in pairs for label in pair["figures"]))
    rows: list[Row] = []
    for label in labels:
        kind, _, horizon = label.rpartition("_")
        is_torque = label == "torque_difference_rms"
        scale = 1.0 if is_torque else 1e3
        unit = {"joint_rad": "mrad", "hand_m": "mm"}.get(kind, "N·m")
        what = "torque difference" if is_torque else f"{kind.partition('_')[0]}, {horizon} ahead"
        cells = []
        for pair in pairs:
            figure = pair["figures"].get(label)
            if figure is None:
                cells.append("–")
                continue
            interval = figure["interval"]
            between = "" if interval is None else f" [{', '.join(f'{scale * end:+.3g}' for end in interval)}]"
            cells.append(f"{scale * figure['mean']:+.3g}{between}, better in {100 * figure['better']:.0f} %")
        rows.append((f"{what} ({unit})", cells))
    return [f"{pair['name']} minus {pair['against']}" for pair in pairs], rows


def tables(metrics: Metrics, pairs: Sequence[Metrics]) -> list[tuple[str, list[str], list[Row]]]:
    """Title, head and rows of every table that has rows."""
    every = [
        ("Forward model", *prediction_rows(metrics)),
        ("Policy", *policy_rows(metrics)),
        ("Differences", *paired_rows(pairs)),
        ("Recorded run", *goal_rows(metrics)),
        ("Activity per control step", *activity_rows(metrics)),
    ]
    return [table for table in every if table[2]]
