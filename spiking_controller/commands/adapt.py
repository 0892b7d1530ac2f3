"""`spiking_controller adapt`: the arm changes while it works, with and without observer, with and without learning."""

import argparse
import itertools
import shutil
from pathlib import Path
from typing import Any

import torch

from spiking_controller.evaluation.evaluate import evaluate_checkpoint
from spiking_controller.experiments.adaptation.plan import CHANGES, LEARNING, OBSERVER, AdaptationPlan
from spiking_controller.experiments.adaptation.report import write_report
from spiking_controller.experiments.adaptation.results import (
    check_same_plan,
    is_complete,
    load_runs,
    run_directory,
    save_run,
)
from spiking_controller.experiments.adaptation.run import AdaptationRun
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint_of
from spiking_controller.robots.arm import get_arm

HELD_OUT_GOALS = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `adapt`."""
    parser.add_argument(
        "--change",
        nargs="+",
        choices=list(CHANGES),
        default=["payload", "push", "friction", "motor"],
        help="what happens",
    )
    parser.add_argument(
        "--learning", nargs="+", choices=LEARNING, default=list(LEARNING), help="harmed: on, with harm injected"
    )
    parser.add_argument(
        "--observer", nargs="+", choices=OBSERVER, default=list(OBSERVER), help="takes off what was not predicted"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="simulated time after the change")
    parser.add_argument(
        "--goals", type=int, default=AdaptationPlan.block, metavar="N", help="of a measurement (default: 20)"
    )
    parser.add_argument(
        "--update-period", type=float, default=AdaptationPlan.update_period, metavar="S", help="simulated; of learning"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="SEED", help="of goals and learning")
    parser.add_argument("--arm", default="panda", help="the arm: a name, or the path of an arm's file (default: panda)")
    parser.add_argument("--checkpoint", type=Path, help="networks of the arm, to start with (default: the arm's)")
    parser.add_argument("--out", type=Path, default=Path("out/adaptation"), metavar="DIR", help="where to write")
    parser.add_argument("--only-report", action="store_true", help="run nothing; tables and figures of what is there")


def run(args: argparse.Namespace) -> int:
    """Do the runs that are not complete yet, one after the other, then write tables and figures of all.

    Several processes may work on one folder, each with changes, learnings or seeds of its own.

    Raises:
        ConfigError: a wrong option.
        ModelContractError: the checkpoint cannot be used, or is for another arm.
        RobotModelError: there is no such arm.
    """
    if not args.only_report:
        torch.set_num_threads(1)
        checkpoint = load_checkpoint_of(get_arm(args.arm), args.checkpoint or "")
        for seed in args.seeds:
            for change in args.change:
                for learning, observer in itertools.product(args.learning, args.observer):
                    plan = AdaptationPlan(
                        change=change,
                        learning=learning,
                        observer=observer,
                        seed=seed,
                        minutes=args.minutes,
                        block=args.goals,
                        lead=args.goals,
                        update_period=args.update_period,
                    )
                    _carry_out(checkpoint, plan, run_directory(args.out, plan))
    runs = load_runs(args.out)
    for path in write_report(runs, args.out):
        print(f"Written to {path}")
    print((args.out / "report.md").read_text(encoding="utf-8"))
    return 0


def _carry_out(checkpoint: Checkpoint, plan: AdaptationPlan, directory: Path) -> None:
    if is_complete(directory):
        check_same_plan(directory, plan, checkpoint.metadata["sha256"])
        print(f"{directory}: complete already")
        return
    if directory.exists():  # of a run that was broken off
        shutil.rmtree(directory)
    adaptation = AdaptationRun(checkpoint, plan, directory)
    told = 0
    while not adaptation.is_over:
        row = adaptation.advance()
        if adaptation.goal % plan.block == 0 or adaptation.is_over:
            recent = sorted(each.final_error_m for each in adaptation.rows[-plan.block :])
            news = [f"{event.time_s:.0f} s {event.kind}" for event in adaptation.events[told:] if event.kind in _NEWS]
            told = len(adaptation.events)
            print(
                f"{directory.name}: goal {adaptation.goal} of {plan.goals}, {row.phase}, median error "
                f"{1e3 * recent[len(recent) // 2]:.1f} mm; {', '.join(news)}",
                flush=True,
            )
    more: dict[str, Any] = {"checkpoint": checkpoint.source, "checkpoint_sha256": checkpoint.metadata["sha256"]}
    if plan.change == "none":
        more["held_out_final_error_m"] = {
            "start": _held_out(checkpoint),
            "end": _held_out(adaptation.running),
        }
    adaptation.close()
    save_run(directory, adaptation, more)


_NEWS = ("change", "harm", "rollback", "refused")


def _held_out(checkpoint: Checkpoint) -> dict[str, float]:
    metrics = evaluate_checkpoint(checkpoint, goals=HELD_OUT_GOALS)
    return {name: metrics[name]["final_error_m_median"] for name in ("with_integral", "network_alone")}
