"""`spiking_controller evaluate`: a checkpoint's figures on held-out goals, as a table and as JSON."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation import disturbing, following
from spiking_controller.evaluation.evaluate import HELD_OUT_SEED, PREDICTION_STEPS, evaluate_checkpoint
from spiking_controller.evaluation.holding import ARMS, SHORTEST, hold
from spiking_controller.evaluation.tables import plain_table
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import load_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("checkpoint", type=Path, help="a .safetensors file made by `spiking_controller train`")
    parser.add_argument(
        "--goals",
        type=int,
        metavar="N",
        help="held-out goals (default: 200, of a task of the paper its 64)",
    )
    parser.add_argument(
        "--seed", type=int, default=HELD_OUT_SEED, metavar="N", help="of starts and goals (default: fixed)"
    )
    parser.add_argument(
        "--start", choices=("random", "home"), default="random", help="starting postures (default: random)"
    )
    parser.add_argument(
        "--hold",
        type=float,
        metavar="MINUTES",
        help=f"also let {ARMS} arms hold a goal each for so long, simulated, with the live controller's code",
    )
    parser.add_argument(
        "--moving",
        type=float,
        nargs="?",
        const=following.RATE,
        metavar="HZ",
        help=f"also let {following.ARMS} arms follow goals that go round circles and are sent so often "
        f"(default: {following.RATE:g} Hz), likewise",
    )
    parser.add_argument(
        "--disturb",
        type=int,
        metavar="N",
        help="also disturb N arms in each of several ways (loads, pushes, contacts), let others reach for an hour in "
        f"which every contact is a false alarm, and send {disturbing.UNCHANGED_GOALS} N unchanged ones to a goal each "
        "with and without the observer, likewise",
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
    ("on target as the task says, share of time, mean", "on_target_share_mean", "%"),
    ("the same of the last second, mean", "on_target_final_share_mean", "%"),
    ("on target at least once", "share_reached_target", "%"),
    ("first reach of 5 cm, median", "first_reach_5cm_s_median", "s"),
    ("first reach of 1 cm, median", "first_reach_1cm_s_median", "s"),
    ("cumulative distance, median", "cumulative_distance_m_s_median", "m·s"),
    ("mean torque rate, median", "mean_torque_rate_median", "N·m/s"),
    ("safety filter intervened, median", "intervention_share_median", "%"),
    ("safety filter intervened, mean", "intervention_share_mean", "%"),
    ("joint-limit margin, p10", "joint_limit_margin_p10", "rad"),
    ("joint speed at the end, rms, median", "rms_final_joint_speed_median", "rad/s"),
    ("hand jitter at the end, rms, median", "hand_jitter_m_median", "m"),
    ("posture drift in the last second, median", "posture_drift_rad_s_median", "rad/s"),
    ("ended early", "ended_early_share", "%"),
)


_REST = (
    ("action at a frozen observation, deviation", "rest_action_noise", ""),
    ("policy, spikes per neuron per second: frozen", "frozen_rate_hz", ""),
    ("policy, spikes per neuron per second: at rest", "rest_rate_hz", ""),
    ("policy, spikes per neuron per second: on the way", "moving_rate_hz", ""),
    ("forward model, one-step velocity error", "model_rest_error_rad_s", "rad/s"),
    ("the same of persistence", "model_rest_change_rad_s", "rad/s"),
    ("the first divided by the second", "model_rest_error_ratio", ""),
    ("forward model, its bias", "model_rest_bias_rad_s", "rad/s"),
)
_HOLD = (
    ("drift, largest of a joint", "drift_rad", "rad"),
    ("hand error, first minute", "first_error_m", "m"),
    ("hand error, last minute", "last_error_m", "m"),
)
_FOLLOW = (
    ("distance, median", "median_m"),
    ("distance, p90", "p90_m"),
    ("behind", "behind_m"),
    ("outside", "outside_m"),
    ("beyond the last goal when no more come", "overshoot_m"),
)
_COSTS = (
    ("parameters", "parameters"),
    ("synaptic operations, ACs", "effective_acs"),
    ("synaptic operations, MACs", "effective_macs"),
    ("neuron updates, MACs", "neuron_update_macs"),
)


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "never" if unit == "s" else "–"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4g} {unit}".rstrip()


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
    at_rest = [[label, _cell(result["rest"][name], unit)] for label, name, unit in _REST]
    tables = (
        plain_table(["", "network alone", "with integral"], reaching),
        plain_table(["coming to rest", ""], at_rest),
        plain_table(["prediction error after k steps", *(f"k = {k}" for k in PREDICTION_STEPS)], errors),
        plain_table(["per control step", *(part.replace("_", " ") for part in parts)], costs),
        plain_table(["spikes per neuron per second", ""], rates),
    )
    return "\n\n".join((title, *tables))


def hold_table(held: dict[str, Any]) -> str:
    """The figures of `holding.hold` as text."""
    rows = [
        [label, *(_cell(float(take(held[name])), unit) for take in (np.median, np.max))] for label, name, unit in _HOLD
    ]
    title = f"holding for {held['minutes']:g} min, {held['arms']} arms"
    return plain_table([title, "median", "worst"], rows)


def follow_table(followed: dict[str, Any]) -> str:
    """The figures of `following.follow` as text: medians over arms, and the worst arm's median distance."""
    rows = [[label, *(_cell(float(np.median(ones)), "m") for ones in followed[name])] for label, name in _FOLLOW] + [
        ["distance, median, worst arm", *(_cell(max(ones), "m") for ones in followed["median_m"])]
    ]
    title = f"{followed['arms']} goals round circles of {followed['radius_m']:g} m, sent at {followed['rate_hz']:g} Hz"
    return plain_table([title, *(f"{speed:g} m/s" for speed in followed["speed_m_s"])], rows)


def _share(values: list[float | None], bound: float) -> str:
    return f"{100 * np.mean([value is not None and value <= bound for value in values]):.0f} %"


def disturb_table(disturbed: dict[str, Any]) -> str:
    """The figures of `disturbing.disturb` as text."""
    loads = []
    for load in disturbed["loads"]:
        back = [np.inf if value is None else value for value in load["back_after_s"]]
        off = [abs(mass / load["kg"] - 1.0) for mass in load["mass_kg"]]
        loads.append(
            [
                f"{load['kg']:g} kg",
                *(_cell(float(take(load["moved_m"])), "m") for take in (np.median, np.max)),
                _cell(float(np.median(back)), "s"),
                _share(load["back_after_s"], 1.5),
                f"{100 * np.median(off):.1f} %",
                _share(off, 0.1),
            ]
        )
    push, contacts = disturbed["push"], disturbed["contacts"]
    distance = push["distance_m"]
    rows = [
        [
            f"distance {disturbing.PUSHED_FOR:g} s after a push of {push['newton']:g} N began, median",
            _cell(float(np.median(distance)), "m"),
        ],
        ["within 3 mm then", _share(distance, 0.003)],
    ]
    for moving in ("rest", "motion"):
        noticed = contacts[moving]["noticed_after_s"]
        rows += [
            [f"contacts noticed within {1e3 * disturbing.NOTICED:g} ms, {moving}", _share(noticed, disturbing.NOTICED)],
            [f"noticed at all, {moving}", _share(noticed, np.inf)],
        ]
    rows.append([f"false alarms in {contacts['minutes']:g} min of reaching", f"{contacts['false_alarms']}"])
    unchanged = disturbed["unchanged"]
    errors = [
        [f"final error {how} the observer", *(_cell(float(np.quantile(unchanged[name], q)), "m") for q in (0.5, 0.9))]
        for how, name in (("with", "observed_m"), ("without", "alone_m"))
    ]
    noticed = sum(unchanged["noticed"])
    heads = [
        f"picked up, {disturbed['arms']} arms",
        "moved, median",
        "worst",
        "back after, median",
        "within 1.5 s",
        "mass off, median",
        "within 10 %",
    ]
    title = f"unchanged arm, {len(unchanged['noticed'])} goals; the observer acted at {noticed}"
    tables = (
        plain_table(heads, loads),
        plain_table(["pushed and touched", ""], rows),
        plain_table([title, "median", "p90"], errors),
    )
    return "\n\n".join(tables)


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code.

    Raises:
        ModelContractError: the checkpoint cannot be used.
        ConfigError: an option out of range.
    """
    if (args.goals is not None and args.goals < 1) or args.threads < 1 or args.seed < 0:
        raise ConfigError(
            f"--goals {args.goals} and --threads {args.threads} must be at least 1, --seed {args.seed} at least 0."
        )
    if args.hold is not None and not SHORTEST <= args.hold < math.inf:
        raise ConfigError(f"--hold {args.hold:g} must be a finite number of minutes, at least {SHORTEST:g}.")
    slowest, quickest = following.RATES
    if args.moving is not None and not slowest <= args.moving <= quickest:
        raise ConfigError(f"--moving {args.moving:g} must be a rate from {slowest:g} to {quickest:g} Hz.")
    if args.disturb is not None and args.disturb < 1:
        raise ConfigError(f"--disturb {args.disturb} must be at least 1.")
    torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(args.checkpoint)
    goals = args.goals or checkpoint.task.evaluation_goals
    result = evaluate_checkpoint(checkpoint, goals=goals, seed=args.seed, start=args.start)
    print(table(result))
    if args.hold is not None:
        print(f"\nHolding {ARMS} goals for {args.hold:g} min of simulated time ...", flush=True)
        result["hold"] = hold(checkpoint, args.hold, seed=args.seed, arms=ARMS)
        print(f"\n{hold_table(result['hold'])}")
    if args.moving is not None:
        print(f"\nFollowing {following.ARMS} goals that move, sent at {args.moving:g} Hz ...", flush=True)
        result["moving"] = following.follow(checkpoint, seed=args.seed, arms=following.ARMS, rate=args.moving)
        print(f"\n{follow_table(result['moving'])}")
    if args.disturb is not None:
        print(f"\nDisturbing {args.disturb} arms in each way ...", flush=True)
        result["disturb"] = disturbing.disturb(checkpoint, seed=args.seed, arms=args.disturb, minutes=60.0)
        print(f"\n{disturb_table(result['disturb'])}")
    if args.json:
        write_atomically(args.json, (json.dumps(result, indent=2) + "\n").encode())
        print(f"\nWritten to {args.json}")
    return 0
