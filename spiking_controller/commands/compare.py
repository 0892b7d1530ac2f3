"""`spiking_controller compare`: checkpoints and the classical reference on the same held-out goals, in one table."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.checkpoint_names import column_names, common_task
from spiking_controller.evaluation.comparison import HeldOut, checkpoint_column, classical_column, table
from spiking_controller.evaluation.evaluate import HELD_OUT_SEED
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.tasks.reach import get_task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `compare`."""
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CKPT", help=".safetensors files of one task, a column each"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="of the columns (default: the networks' architectures)"
    )
    parser.add_argument(
        "--classical", action="store_true", help="also damped least squares with a PD controller in joint space"
    )
    parser.add_argument("--goals", type=int, default=400, metavar="N", help="held-out goals per seed (default: 400)")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[HELD_OUT_SEED],
        metavar="N",
        help="of starts and goals, pooled (default: that of `evaluate`)",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to this file")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Compare; returns the exit code.

    Raises:
        ModelContractError: a checkpoint cannot be used.
        ConfigError: an option out of range, or checkpoints of different tasks.
    """
    if args.goals < 1 or args.threads < 1 or min(args.seeds) < 0:
        raise ConfigError(
            f"--goals {args.goals} and --threads {args.threads} must be at least 1, --seeds {args.seeds} at least 0."
        )
    if args.names and len(args.names) != len(args.checkpoints):
        raise ConfigError(
            f"--names gives {len(args.names)} names for {len(args.checkpoints)} checkpoints; give one each."
        )
    torch.set_num_threads(args.threads)
    checkpoints = [load_checkpoint(path) for path in args.checkpoints]
    task = common_task(checkpoints)
    reference = checkpoints[0].config.task
    held_out = HeldOut.draw(reference, args.goals, args.seeds)
    names = args.names or column_names(checkpoints)
    columns = [
        checkpoint_column(checkpoint, name, held_out) for checkpoint, name in zip(checkpoints, names, strict=True)
    ]
    if args.classical:
        columns.append(classical_column(get_task(reference), held_out))
    text = table(columns)
    print(f"{task}: {len(held_out.goal)} goals, random starts, seed {', '.join(map(str, args.seeds))}\n\n{text}")
    if args.markdown:
        write_atomically(args.markdown, f"{text}\n".encode())
        print(f"\nWritten to {args.markdown}")
    if args.json:
        result = {
            "task": task,
            "goals": args.goals,
            "seeds": args.seeds,
            "columns": [asdict(column) for column in columns],
        }
        write_atomically(args.json, (json.dumps(result, indent=2) + "\n").encode())
        print(f"\nWritten to {args.json}")
    return 0
