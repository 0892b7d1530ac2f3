"""Sums up a run of the live graph as plain data for report.json and for the last line of the demo."""

from typing import Any

import numpy as np

from spiking_controller.evaluation.demo.recording import FINAL_WINDOW, Recording

THRESHOLDS = {"5cm": 0.05, "2cm": 0.02, "1cm": 0.01}


def summary(recording: Recording) -> dict[str, Any]:
    """The headline: goals (m), final errors (m), their median, and mean firing (spikes per neuron and second)."""
    final = recording.final_error()
    return {
        "goals": recording.goal.round(4).tolist(),
        "final_error_m": final.round(5).tolist(),
        "median_final_error_m": round(float(np.median(final)), 5),
        "mean_spikes_per_neuron_per_second": round(recording.mean_spike_rate(), 2),
    }


def report(recording: Recording) -> dict[str, Any]:
    """The headline and what stands behind it, goal by goal and layer by layer."""
    reached = {name: recording.first_reach(threshold) for name, threshold in THRESHOLDS.items()}
    index, distance = recording.active_goal(recording.hand_time), recording.distance()
    final = recording.final_error()
    return {
        **summary(recording),
        "goal_duration_s": recording.goal_duration,
        "final_window_s": FINAL_WINDOW,
        "per_goal": [
            {
                "goal": goal.round(4).tolist(),
                "start_distance_m": round(float(distance[index == number][0]), 4),
                "final_error_m": round(float(final[number]), 5),
                "first_reach_s": {
                    name: None if times[number] is None else round(times[number] or 0.0, 3)
                    for name, times in reached.items()
                },
            }
            for number, goal in enumerate(recording.goal)
        ],
        "spikes_per_neuron_per_second": {name: round(rate, 2) for name, rate in recording.spike_rate().items()},
        "control_period_s": round(recording.control_period, 4),
        "joint_states": len(recording.joint_time),
        "control_steps": len(recording.spike_time),
    }
