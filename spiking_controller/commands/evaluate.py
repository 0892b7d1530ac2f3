"""`spiking_controller evaluate`: a checkpoint's figures on held-out goals, as a table and as JSON."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.evaluate import HELD_OUT_SEED, PREDICTION_STEPS, evaluate_checkpoint
from spiking_controller.evaluation.tables import plain_table
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import load_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("checkpoint", type=Path, help="a .safetensors file made by `spiking_controller train`")
    parser.add_argument("--goals", type=int, default=200, metavar="N", help="held-out goals (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=HELD_OUT_SEED, metavar="N", help="of starts and goals (default: fixed)"
    )
    parser.add_argument(
        "--start", choices=("random", "home"), default="random", help="starting postures (default: random)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to this file")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads (default: 1)")


_ROWS = (
    ("final error, median", "final_error_m_median", "m"),
    ("final error, p90", "final_error_m_p90", "m"),
    ("under 5 cm", "share_under_5cm", "%"),
    ("under 3 cm", "share_under_3cm", "%"),
    ("under 2 cm", "share_under_2cm", "%"),
    ("under 1 cm", "share_under_1cm", "%"),
    ("on target (12.3 cm), share of time", "share_on_target_12.3cm_median", "%"),
    ("first reach of 5 cm, median", "first_reach_5cm_s_median", "s"),
    ("first reach of 1 cm, median", "first_reach_1cm_s_median", "s"),
    ("cumulative distance, median", "cumulative_distance_m_s_median", "m·s"),
    ("mean torque rate, median", "mean_torque_rate_median", "N·m/s"),
    ("safety filter intervened, median", "intervention_share_median", "%"),
    ("safety filter intervened, mean", "intervention_share_mean", "%"),
    ("joint-limit margin, p10", "joint_limit_margin_p10", "rad"),
    ("joint speed at the end, rms, median", "rms_final_joint_speed_median", "rad/s"),
    ("hand jitter at the end, rms, median", "hand_jitter_m_median", "m"),
    ("ended early", "ended_early_share", "%"),
)


_COSTS = (
    ("parameters", "parameters"),
    ("synaptic operations, ACs", "effective_acs"),
    ("synaptic operations, MACs", "effective_macs"),
    ("neuron updates, MACs", "neuron_update_macs"),
)


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "never"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4g} {unit}"


def table(result: dict[str, Any]) -> str:
    """The figures of `evaluate_checkpoint` as text."""
    title = (
        f"{result['checkpoint']} on {result['task']}: {result['goals']} goals, start {result['start']}, "
        f"seed {result['seed']}"
    )
    reaching = [
        [label, *(_cell(result[column][name], unit) for column in ("network_alone", "with_integral"))]
        for label, name, unit in _ROWS
    ]
    errors = [
        [
            f"{predictor.replace('_', ' ')}, {label}",
            *(_cell(result["forward_model"][f"{predictor}_{k}_{suffix}"], unit) for k in PREDICTION_STEPS),
        ]
        for predictor in ("forward_model", "state_stays", "linear")
        for label, suffix, unit in (("joints", "joint_rad", "rad"), ("hand", "hand_m", "m"))
    ]
    parts = result["complexity"]
    costs = [[label, *(f"{costs[name]:.0f}" for costs in parts.values())] for label, name in _COSTS]
    rates = [
        [f"{part}/{layer}", f"{rate:.1f}"]
        for part, costs in parts.items()
        for layer, rate in costs["spikes_per_neuron_per_second_by_layer"].items()
    ]
    tables = (
        plain_table(["", "network alone", "with integral"], reaching),
        plain_table(["prediction error after k steps", *(f"k = {k}" for k in PREDICTION_STEPS)], errors),
        plain_table(["per control step", *(part.replace("_", " ") for part in parts)], costs),
        plain_table(["spikes per neuron per second", ""], rates),
    )
    return "\n\n".join((title, *tables))


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code.

    Raises:
        ModelContractError: the checkpoint cannot be used.
        ConfigError: an option out of range.
    """
    if args.goals < 1 or args.threads < 1 or args.seed < 0:
        raise ConfigError(
            f"--goals {args.goals} and --threads {args.threads} must be at least 1, --seed {args.seed} at least 0."
        )
    torch.set_num_threads(args.threads)
    result = evaluate_checkpoint(load_checkpoint(args.checkpoint), goals=args.goals, seed=args.seed, start=args.start)
    print(table(result))
    if args.json:
        write_atomically(args.json, (json.dumps(result, indent=2) + "\n").encode())
        print(f"\nWritten to {args.json}")
    return 0
