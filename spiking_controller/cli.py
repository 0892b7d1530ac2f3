"""The command line: one program, whose subcommands are imported only when they are asked for.

`spiking_controller --help` must answer at once and in any environment, while `train` needs PyTorch and `up`
needs ROS 2.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from spiking_controller import __version__
from spiking_controller.errors import SpikingControllerError


class Command(Protocol):
    """What a module must offer to be a subcommand."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the subcommand's options on its own parser."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; the result is the exit code of the process."""


class CommandEntry(NamedTuple):
    """Where a subcommand lives and the line that `--help` shows for it."""

    module: str
    summary: str


COMMANDS = {
    "up": CommandEntry(
        "spiking_controller.commands.up", "start the ROS graph: MuJoCo bridge and controller, in real time"
    ),
    "demo": CommandEntry(
        "spiking_controller.commands.demo", "bring the graph up, send goals, write figures and a report"
    ),
    "train": CommandEntry("spiking_controller.commands.train", "train forward model and policy for a task"),
    "evaluate": CommandEntry("spiking_controller.commands.evaluate", "measure a checkpoint on held-out goals"),
    "compare": CommandEntry(
        "spiking_controller.commands.compare", "measure several checkpoints on the same goals, in one table"
    ),
    "deploy": CommandEntry(
        "spiking_controller.commands.deploy", "turn a checkpoint into what a chip runs, and measure the difference"
    ),
    "export": CommandEntry("spiking_controller.commands.export", "write a policy for other run times: ONNX, NIR"),
    "replay": CommandEntry("spiking_controller.commands.replay", "judge checkpoints on what a bag recorded"),
    "benchmark train": CommandEntry(
        "spiking_controller.commands.benchmark_train",
        "seconds per forward-model and policy update, against the same networks from plain snntorch modules",
    ),
    "benchmark control": CommandEntry(
        "spiking_controller.commands.benchmark_control",
        "tick time of the networks, against plain snntorch modules; latency and missed ticks of the live graph",
    ),
    "benchmark watchdog": CommandEntry(
        "spiking_controller.commands.benchmark_watchdog",
        "how much later a command reaches the arm through the torque watchdog",
    ),
    "curves": CommandEntry("spiking_controller.commands.curves", "draw training logs"),
    "ablate": CommandEntry(
        "spiking_controller.commands.ablate", "run an ablation study: many trainings, one factor at a time"
    ),
    "adapt": CommandEntry(
        "spiking_controller.commands.adapt",
        "change a simulated arm while it works, and let the controller learn or not",
    ),
    "goal": CommandEntry("spiking_controller.commands.goal", "send one goal to a running controller"),
    "keys": CommandEntry(
        "spiking_controller.commands.keys", "make keys to sign networks with, show their fingerprints"
    ),
    "view": CommandEntry("spiking_controller.commands.view", "open a page in the browser: see the arm and touch it"),
    "arm check": CommandEntry(
        "spiking_controller.commands.arm_check", "say what is missing in an arm's file, and what was made of it"
    ),
    "arm show": CommandEntry(
        "spiking_controller.commands.arm_show", "draw an arm at home and with its hand at random goals"
    ),
    "urdf": CommandEntry("spiking_controller.commands.urdf", "write an arm's description as URDF, from its MJCF"),
    "play": CommandEntry("spiking_controller.commands.play", "publish a bag's topics with their timing"),
}

GROUPS = {
    "arm": "make an arm of your own",
    "benchmark": "measure how fast this machine trains and controls",
}
"""Commands of two words: the line that `--help` shows for the first."""

_ROS_FIX = "source a ROS 2 installation, or run `pip install 'spiking_controller[ros]'`"
_VIZ_FIX = "run `pip install 'spiking_controller[viz]'`"
_VIEW_FIX = "run `pip install 'spiking_controller[view]'`"
_EXPORT_FIX = "run `pip install 'spiking_controller[export]'`"
_SWEEP_FIX = "run `pip install 'spiking_controller[sweep]'`"
# Top-level modules that an extra brings: what to do when one is missing.
_OPTIONAL_MODULES = {
    "matplotlib": _VIZ_FIX,
    "nir": _EXPORT_FIX,
    "onnx": _EXPORT_FIX,
    "onnxscript": _EXPORT_FIX,
    "PIL": _VIZ_FIX,
    "trimesh": _VIEW_FIX,
    "viser": _VIEW_FIX,
    "pandas": _SWEEP_FIX,
    "ray": _SWEEP_FIX,
    **dict.fromkeys(
        (
            "builtin_interfaces",
            "diagnostic_msgs",
            "geometry_msgs",
            "lifecycle_msgs",
            "nav_msgs",
            "rcl_interfaces",
            "rclpy",
            "rosgraph_msgs",
            "sensor_msgs",
            "std_msgs",
            "std_srvs",
            "visualization_msgs",
        ),
        _ROS_FIX,
    ),
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to an option's help where it says something that the help does not say itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        help_text = action.help or ""
        if action.default in (None, "", False) or "default" in help_text:
            return help_text
        return super()._get_help_string(action)


def load_command(name: str) -> Command:
    """Import the module of a subcommand."""
    return cast(Command, importlib.import_module(COMMANDS[name].module))


def build_parser(chosen: str | None) -> tuple[argparse.ArgumentParser, Command | None]:
    """The parser with every subcommand's name, and the options of the chosen one only."""
    parser = argparse.ArgumentParser(
        prog="spiking_controller",
        description="A spiking controller for robot arms in ROS 2, trained through a spiking forward model.",
        epilog="`spiking_controller COMMAND --help` shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"spiking_controller {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    groups = {
        name: subparsers.add_parser(name, help=summary).add_subparsers(dest="what", metavar="WHAT", required=True)
        for name, summary in GROUPS.items()
    }
    command = None
    for name, entry in COMMANDS.items():
        group, _, own_name = name.rpartition(" ")
        subparser = groups.get(group, subparsers).add_parser(
            own_name,
            help=entry.summary,
            description=entry.summary[0].upper() + entry.summary[1:] + ".",
            formatter_class=HelpFormatter,
        )
        if name == chosen:
            command = load_command(name)
            command.add_arguments(subparser)
    return parser, command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; an error that a user can fix is one sentence on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((name for name in COMMANDS if arguments[: len(name.split())] == name.split()), None)
    try:
        parser, command = build_parser(chosen)
        args = parser.parse_args(arguments)
        if command is None:
            parser.error(f"'{args.command}' is not a command")
        return command.run(args)
    except SpikingControllerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _OPTIONAL_MODULES:
            raise
        print(
            f"error: `spiking_controller {chosen}` needs the Python module '{missing}', which is not installed; "
            f"{_OPTIONAL_MODULES[missing]}.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
