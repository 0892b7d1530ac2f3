"""`spiking_controller train`: trains a forward model and a policy for a task, with a progress bar and a clean stop."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.networks.config import TrainingConfig, load_config
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import is_arm_file
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.segments import Segment
from spiking_controller.training.stopping import InterruptCatcher
from spiking_controller.training.training_run import Progress, TrainingRun

ANY_ARM = "any_arm"
"""The configuration in config/train for an arm's file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`."""
    parser.add_argument("task", help="panda_reach, fr3_reach or planar_reach, or the path of an arm's file")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="training configuration: a .yaml file, or the name of one in config/train (default: TASK, with an arm's "
        "file any_arm, or with --from the checkpoint's own)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="CKPT",
        help="start with the weights of a checkpoint instead of random ones; everything else of the run is new",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of everything random (default: the configuration's)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/NAME-seedN, named after the file; with --from runs/NAME-tuned-seedN)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the folder exactly where it was saved"
    )
    parser.add_argument(
        "--bags",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="recorded bags of the arm, or folders of them: the forward model learns from them before the policy acts, "
        "mixed with simulation",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads (default: 1)")
    parser.add_argument(
        "--one-process",
        action="store_true",
        help="simulate between the updates, not in a second process beside them; the same result, more slowly",
    )


def _config(args: argparse.Namespace, checkpoint: Checkpoint | None) -> TrainingConfig:
    task = get_task(args.task)
    path, own = args.config, is_arm_file(args.task)
    if path is None and args.resume and args.out is not None and (args.out / "config.yaml").is_file():
        path = args.out / "config.yaml"
    if path is None and checkpoint is not None:
        path, config = args.source, checkpoint.config
    else:
        path = path or Path(ANY_ARM if own else args.task)
        if not path.suffix:
            path = share_path("config", "train", f"{path}.yaml")
        config = load_config(path, task.arm_name if own else None)
    if get_task(config.task).name != task.name:
        raise ConfigError(f"{path}: is a configuration for task '{config.task}'; give it with that task's name.")
    return config if args.seed is None else replace(config, seed=args.seed)


def _recorded(folders: Sequence[Path], config: TrainingConfig) -> list[Segment]:
    """Segments out of bags; says how many each gives."""
    if not folders:
        return []
    from spiking_controller.streams.bag_segments import find_bags, read_segments  # reads what evaluation reads

    segments: list[Segment] = []
    for path in find_bags(folders):
        found = read_segments(path, config.reach_task)
        segments += found.segments
        unused = "; ".join(f"{reason}, {count}" for reason, count in found.dropped.items())
        print(f"{path}: {len(found.segments)} segments{f'; not used: {unused}' if unused else ''}")
        for note in found.notes:
            print(f"  {note}")
    if not segments:
        raise ConfigError(
            f"--bags: no stretch of {config.reach_task.episode_duration:g} s with torques is in them; record longer "
            "runs, with controller/torque or efforts."
        )
    room = config.replay_episodes - config.random_episodes
    if len(segments) > room:
        print(f"The replay memory has room for {room} of {len(segments)} segments; these are evenly chosen.")
    return segments


def _describe(progress: Progress) -> str:
    row, errors = progress.row, progress.errors
    figures = []
    if row["model_loss"] is not None:
        figures.append(f"model loss {row['model_loss']:.3f}")
    if row["imagined_distance_m"] is not None:
        figures.append(f"imagined distance {100 * row['imagined_distance_m']:.1f} cm")
    median, p90 = errors.get("final_error_m_median"), errors.get("final_error_m_p90")
    if median is not None and p90 is not None:
        figures.append(f"final error median {100 * median:.2f} cm, p90 {100 * p90:.1f} cm")
    return ", ".join(figures)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code.

    Raises:
        ConfigError: unknown task, wrong configuration, or a folder or checkpoint that does not fit.
        RobotModelError: the arm's file is wrong.
        ModelContractError: the checkpoint to start from cannot be used.
    """
    if args.threads < 1:
        raise ConfigError(f"--threads {args.threads} must be at least 1.")
    if args.source and args.resume:
        raise ConfigError("--from counts only at the start of a run, whose weights --resume continues; leave it out.")
    checkpoint = load_checkpoint(args.source) if args.source else None
    config = _config(args, checkpoint)
    name = f"{args.config.stem if args.config else config.reach_task.name}{'-tuned' if checkpoint else ''}"
    directory = args.out or Path("runs") / f"{name}-seed{config.seed}"
    torch.set_num_threads(args.threads)
    if args.bags and args.resume:
        raise ConfigError("--bags counts only at the start of a run, whose memory --resume continues; leave it out.")
    training = TrainingRun(
        config,
        directory,
        resume=args.resume,
        simulate_beside=not args.one_process,
        recorded=_recorded(args.bags, config),
        source=checkpoint,
    )
    interactive = sys.stderr.isatty()
    with (
        InterruptCatcher() as stop,
        tqdm(
            total=config.iterations,
            initial=training.iteration,
            unit="iteration",
            dynamic_ncols=interactive,
            mininterval=0.1 if interactive else 30.0,
        ) as bar,
    ):

        def report(progress: Progress) -> None:
            for finding in progress.findings:
                if finding.action != "stop":  # that one ends the run as an error
                    tqdm.write(f"{finding.action}: {finding.sentence}", file=sys.stderr)
            bar.set_postfix_str(_describe(progress), refresh=False)
            bar.update()

        training.run(report, lambda: stop.requested)
    done = training.iteration >= config.iterations
    print(f"{'Finished' if done else 'Stopped'} after {training.iteration} of {config.iterations} iterations.")
    if not done:
        print(f"Continue with: spiking_controller train {args.task} --out {directory} --resume")
    print(f"Checkpoint: {training.checkpoint}")
    return 0
