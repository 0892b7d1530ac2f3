"""`spiking_controller ablate`: runs an ablation study, keeps what is finished, and writes its tables and figures."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from spiking_controller.errors import ConfigError
from spiking_controller.experiments.ablation.report import write_report
from spiking_controller.experiments.ablation.results import Results
from spiking_controller.experiments.ablation.runs import Assignment, carry_out, connected, pack, schedule, unpack
from spiking_controller.experiments.ablation.study import Run, Study, load_study
from spiking_controller.resources import share_path
from spiking_controller.training.stopping import InterruptCatcher


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ablate`."""
    parser.add_argument("study", help="a study file, or the name of a shipped one in config/ablation, such as planar")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs side by side, one core each (default: as many as there are cores)"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs per variant, with the seeds 1 to N")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the study (default: runs/ablation/STUDY)")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished runs, continue the others; rebuild tables and figures"
    )
    parser.add_argument(
        "--address", metavar="A", help="of a Ray cluster, host:port (default: start Ray on this machine)"
    )


def _study_path(name: str) -> Path:
    path = Path(name)
    return path if path.suffix else share_path("config", "ablation", f"{name}.yaml")


def _assignments(runs: list[Run], study: Study, results: Results, *, local: bool) -> Iterator[Assignment]:
    for run in runs:
        folder = results.folder(run).absolute()
        begun = pack(folder) if not local and folder.is_dir() else None
        yield Assignment(run.config, study.goals, folder if local else None, begun)


def run(args: argparse.Namespace) -> int:
    """Run the study; returns the exit code.

    Raises:
        ConfigError: a wrong study or option, a folder that does not fit, or no cluster at the address.
    """
    if args.seeds < 1 or (args.jobs is not None and args.jobs < 1):
        raise ConfigError(f"--seeds {args.seeds} and --jobs {args.jobs} must be at least 1.")
    study = load_study(_study_path(args.study))
    directory = args.out or Path("runs") / "ablation" / study.name
    results = Results(study, directory, resume=args.resume)
    runs = study.runs(args.seeds)
    pending = results.pending(runs)
    if pending:
        _carry_out(pending, study, results, args, done=len(runs) - len(pending))
    left = len(results.pending(runs)) - len(results.failures(runs))
    print(f"{len(runs) - left} of {len(runs)} runs are done.")
    for name, reason in results.failures(runs).items():
        print(f"Failed: {name}: {reason}")
    if left:
        print(f"Continue with: spiking_controller ablate {args.study} --seeds {args.seeds} --out {directory} --resume")
    if left < len(runs):
        for path in write_report(study, results, directory):
            print(path)
    return 0


def _carry_out(pending: list[Run], study: Study, results: Results, args: argparse.Namespace, done: int) -> None:
    """Run what is pending and record it as it comes in, until all is done or the user stops it."""
    interactive = sys.stderr.isatty()
    with (
        connected(args.address, args.jobs) as jobs,
        InterruptCatcher() as stop,
        tqdm(
            total=done + len(pending),
            initial=done,
            unit="run",
            dynamic_ncols=interactive,
            mininterval=0.1 if interactive else 30.0,
        ) as bar,
    ):
        failed = 0
        assignments = _assignments(pending, study, results, local=args.address is None)
        for index, outcome in schedule(carry_out, assignments, jobs, lambda: stop.requested):
            run = pending[index]
            if outcome.files is not None:
                unpack(outcome.files, results.folder(run))
            if outcome.status == "interrupted":
                continue
            results.record(run, outcome)
            failed += outcome.status == "failed"
            bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            bar.update()
