"""`spiking_controller replay`: judges checkpoints on what a bag recorded, from this package or from anywhere else."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spiking_controller.errors import ConfigError, ModelContractError, RobotModelError
from spiking_controller.evaluation.checkpoint_names import common_task
from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator, ReplaySettings
from spiking_controller.evaluation.replay.report import paired_differences, tables
from spiking_controller.evaluation.tables import text, to_json
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint, load_checkpoint_of
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.bag_reader import opened
from spiking_controller.streams.bag_stream import BagStream, StreamOptions, find_stream, recorded_arm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `replay`."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="a rosbag2 folder, or one .mcap or .db3 file")
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        default=[],
        metavar="CKPT",
        help=".safetensors files of one task, side by side (default: the shipped one of the arm)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write tables and pictures to this one page")
    parser.add_argument(
        "--joint-states", metavar="TOPIC", help="joint states (default: the topic that holds the arm's joints)"
    )
    parser.add_argument(
        "--torque",
        metavar="TOPIC",
        help="commanded torques, as JointState; the topic of the joint states itself stands for their efforts "
        "(default: controller/torque beside the joint states, else the efforts)",
    )
    parser.add_argument(
        "--goal-topic", metavar="TOPIC", help="goals (default: controller/goal, else goal_point and goal_pose)"
    )
    parser.add_argument(
        "--goal",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="goal that the policies are given from the start, m (default: the bag's; without any they hold the hand "
        "where it is)",
    )
    parser.add_argument(
        "--joint-names", nargs="+", default=[], metavar="NAME", help="the arm's joints in the bag, from base to hand"
    )
    parser.add_argument(
        "--effort",
        choices=("auto", "with-gravity", "without-gravity"),
        default="auto",
        help="whether the torques carry the arm's weight, which the robot model then takes out; auto: as the recorder "
        "said, else as the efforts look",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads")


def run(args: argparse.Namespace) -> int:
    """Replay; returns the exit code.

    Raises:
        ConfigError: an option has a wrong value, or the bag cannot be used.
        ModelContractError: a checkpoint cannot be used.
    """
    if args.threads < 1:
        raise ConfigError(f"--threads {args.threads} must be at least 1.")
    if args.goal and not all(math.isfinite(value) for value in args.goal):
        raise ConfigError(f"--goal {args.goal} must be three finite numbers.")
    torch.set_num_threads(args.threads)
    options = StreamOptions(args.joint_states, args.torque, args.goal_topic, tuple(args.joint_names), args.effort)
    evaluator, stream = replay(args.bag, args.model, options, args.goal)
    metrics = evaluator.metrics()
    pairs = paired_differences(evaluator)
    sentences = _sentences(stream, metrics)
    every = tables(metrics, pairs)
    title = f"Replay of {args.bag.name}"
    print("\n".join([title, *sentences, ""]))
    print(text(every))
    if args.json:
        result = {"bag": str(args.bag), "topics": _topics(stream), "notes": stream.notes, **metrics, "paired": pairs}
        _write(args.json, f"{to_json(result, indent=2)}\n")
    if args.html:
        from spiking_controller.evaluation.replay.plots import report_page  # matplotlib is an extra

        _write(args.html, report_page(title, sentences, every, evaluator))
    return 0


def replay(
    path: Path, models: Sequence[Path], options: StreamOptions, goal: Sequence[float] | None = None
) -> tuple[ReplayEvaluator, BagStream]:
    """Judge checkpoints on a bag.

    Args:
        path: of the bag.
        models: checkpoint files; empty: the shipped one of the arm.
        options: what is not to be guessed.
        goal: for the policies, from the start, m, [3].
    Returns:
        the finished evaluator, and what was read.
    Raises:
        ConfigError: the bag cannot be used.
        ModelContractError: a checkpoint cannot be used.
    """
    with opened(path) as bag:
        checkpoints = [load_checkpoint(model) for model in models] or [_shipped(recorded_arm(bag))]
        common_task(checkpoints)
        task = checkpoints[0].task
        stream = find_stream(bag, task.arm, options)
        period = None if math.isnan(stream.period) else max(stream.period, task.physics_period)
        settings = ReplaySettings(
            joint_names=stream.joint_names,
            measured_torque=stream.measured_torque,
            includes_gravity=stream.includes_gravity,
            rate_limit_period=period,
        )
        evaluator = ReplayEvaluator(checkpoints, settings)
        if goal is not None:
            evaluator.add_goal(0, goal)
        elif not stream.topics.goals:
            stream.notes.append("the bag holds no goals: the policy holds the hand where it is; --goal gives it one.")
        stream.feed(bag, evaluator)
        evaluator.finish()
    return evaluator, stream


def _shipped(arm: str | None) -> Checkpoint:
    """Networks of the recorded arm; of the Panda where the bag does not tell."""
    try:
        return load_checkpoint_of(get_arm(arm or "panda"))
    except (RobotModelError, ModelContractError) as error:
        raise ConfigError(f"the bag was recorded with the arm '{arm}': {error} Or give --model.") from None


def _topics(stream: BagStream) -> dict[str, Any]:
    """How many messages were read, and of how many topics were left out."""
    return {
        "joint_states": stream.topics.joint_states,
        "torque": stream.topics.torque,
        "goals": list(stream.topics.goals),
        "joint_names": list(stream.joint_names),
        "read": dict(sorted(stream.messages.items())),
        "left_out": stream.left_out,
        "stamped_at_receipt": dict(sorted(stream.unstamped.items())),
    }


def _sentences(stream: BagStream, metrics: dict[str, Any]) -> list[str]:
    """What was read, used and dropped."""
    read, states = metrics["stream"], metrics["stream"]["joint_states"]
    rate = "" if read["rate_hz"] is None else f" at {read['rate_hz']:.0f} Hz"
    sentences = [
        f"{states['used']} joint states of {stream.topics.joint_states} over {read['duration_s']:.1f} s{rate}, "
        f"{read['control_steps']} control steps in {read['stretches']} "
        f"{'stretch' if read['stretches'] == 1 else 'stretches'}.",
        *(note[0].upper() + note[1:] for note in stream.notes),
        *(f"Networks '{c['name']}': {c['source']}, {c['sha256'][:12]}." for c in metrics["checkpoints"]),
    ]
    dropped = dict(read["dropped"])
    dropped |= {f"stamped at its receipt: {topic}": count for topic, count in sorted(stream.unstamped.items())}
    dropped |= {f"goal: {why}": count for why, count in metrics["goals"]["not_counted"].items()}
    sentences += [sentence[0].upper() + sentence[1:] for sentence in states["implausible"].values()]
    if states["estimated_velocities"]:
        sentences.append(f"Velocities of {states['estimated_velocities']} joint states are estimated from positions.")
    if dropped:
        sentences.append(f"Not used: {'; '.join(f'{why}, {count}' for why, count in dropped.items())}.")
    if stream.left_out:
        sentences.append(f"Of no use here: {', '.join(f'{t} ({count})' for t, count in stream.left_out.items())}.")
    if not read["control_steps"]:
        sentences.append(
            "There is not one control step: joint states must not lie farther apart than 0.1 s, for longer than "
            f"{metrics['control_period_s']:g} s."
        )
    elif not metrics["baselines"]["windows"]:
        sentences.append(
            "There is no stretch with torques that is long enough to predict 50 control steps; the forward model is "
            "judged one step ahead only, if at all."
        )
    return sentences


def _write(path: Path, content: str) -> None:
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); give another file.") from error
    print(f"\nWritten to {path}")
