"""`spiking_controller curves`: a picture of one or more training logs."""

import argparse
from pathlib import Path

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.training_plots import draw_training, read_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `curves`."""
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG", help="log.csv files of training runs")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the runs (default: their folders)")
    parser.add_argument("--out", type=Path, default=Path("out/curves.png"), metavar="FILE", help="PNG to write")


def run(args: argparse.Namespace) -> int:
    """Draw; returns the exit code.

    Raises:
        ConfigError: a file that is no training log, or names that do not fit.
    """
    names = args.names or [path.resolve().parent.name for path in args.logs]
    if len(names) != len(args.logs) or len(set(names)) != len(names):
        raise ConfigError(f"{len(args.logs)} logs have the names {names}; give one name of its own for each: --names.")
    draw_training({name: read_log(path) for name, path in zip(names, args.logs, strict=True)}, args.out)
    print(f"Written to {args.out}")
    return 0
