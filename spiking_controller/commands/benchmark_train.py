"""`spiking_controller benchmark train`: how fast this machine trains, as a table and as JSON."""

import argparse
import json
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any, Final, get_args

import torch

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.tables import plain_table
from spiking_controller.experiments.benchmarks.training_benchmark import (
    CONTROL_STEPS,
    TICKS,
    Clock,
    Networks,
    Size,
    UpdateTimes,
    measure_updates,
    processor_name,
    software_versions,
)
from spiking_controller.files import write_atomically

_SIZES: Final = ("128x64", "512x256")
_IDLE_FRACTION: Final = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `benchmark train`."""
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=list(_SIZES),
        metavar="HIDDENxBATCH",
        help=f"neurons per layer and windows per update (default: {' '.join(_SIZES)})",
    )
    parser.add_argument(
        "--networks",
        choices=get_args(Networks),
        default="shipped",
        help="structure of the networks: that of the shipped ones, or the paper's, recurrent from tick to tick "
        "(default: shipped)",
    )
    parser.add_argument(
        "--clock",
        choices=get_args(Clock),
        default="wall",
        help="time that passes, or that the processor works for this program, for busy machines (default: wall)",
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="updates per median (default: 5)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to this file")


def _size(text: str) -> Size:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ConfigError(f"--sizes {text}: is not HIDDENxBATCH with numbers of at least 1, such as {_SIZES[0]}.")
    return Size(int(match[1]), int(match[2]))


def _report(results: list[UpdateTimes], args: argparse.Namespace, processor_fraction: float) -> dict[str, Any]:
    return {
        "benchmark": "train",
        "networks": args.networks,
        "clock": args.clock,
        "control_steps": CONTROL_STEPS,
        "ticks": TICKS,
        "repeats": args.repeats,
        "threads": torch.get_num_threads(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "processor_share": processor_fraction,
        "versions": software_versions(),
        "results": [
            {
                "hidden": times.size.hidden,
                "batch": times.size.batch,
                "update": times.update,
                "seconds_median": statistics.median(times.ours),
                "snntorch_seconds_median": statistics.median(times.snntorch),
                "tuned_seconds_median": statistics.median(times.tuned),
                "ratio": times.ratio,
                "tuned_ratio": times.tuned_ratio,
                "seconds": times.ours,
                "snntorch_seconds": times.snntorch,
                "tuned_seconds": times.tuned,
            }
            for times in results
        ],
    }


def table(report: dict[str, Any]) -> str:
    """The figures of `benchmark train` as text."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"Seconds per update, median of {report['repeats']}: {report['control_steps']} control steps of "
        f"{report['ticks']} ticks, PyTorch threads: {report['threads']}",
        f"Structure of the networks: {report['networks']}; clock: {report['clock']}",
        f"{report['processor']}, {report['cores']} cores; {versions}",
        "",
        plain_table(
            ["hidden", "batch", "update", "ours", "snntorch", "ratio", "tuned", "ratio"],
            [
                [
                    str(row["hidden"]),
                    str(row["batch"]),
                    row["update"],
                    f"{row['seconds_median']:.3f} s",
                    f"{row['snntorch_seconds_median']:.3f} s",
                    f"{row['ratio']:.2f}",
                    f"{row['tuned_seconds_median']:.3f} s",
                    f"{row['tuned_ratio']:.2f}",
                ]
                for row in report["results"]
            ],
            labels=(2,),
        ),
    ]
    if report["processor_share"] < _IDLE_FRACTION and report["clock"] == "wall":
        lines += [
            "",
            "Other programs took processor time: this one had a core for "
            f"{100 * report['processor_share']:.0f} % of the time. Repeat on an idle machine.",
        ]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit code.

    Raises:
        ConfigError: an option out of range.
    """
    if args.repeats < 1 or args.threads < 1:
        raise ConfigError(f"--repeats {args.repeats} and --threads {args.threads} must be at least 1.")
    sizes = [_size(text) for text in args.sizes]
    torch.set_num_threads(args.threads)
    began, processor_began = time.perf_counter(), time.process_time()
    results = [times for size in sizes for times in measure_updates(size, args.repeats, args.networks, args.clock)]
    fraction = (time.process_time() - processor_began) / (time.perf_counter() - began)
    report = _report(results, args, fraction)
    print(table(report))
    if args.json:
        write_atomically(args.json, (json.dumps(report, indent=2) + "\n").encode())
        print(f"\nWritten to {args.json}")
    return 0
