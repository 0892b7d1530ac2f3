"""`spiking_controller urdf`: writes an arm's description as URDF, from its MJCF."""

import argparse
from pathlib import Path

from spiking_controller.files import write_atomically
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.urdf import urdf


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which arm, and where to."""
    parser.add_argument("arm", help="the arm: a name, or the path of an arm's file")
    parser.add_argument("--out", type=Path, help="file to write, such as models/panda.urdf; by default standard output")


def run(args: argparse.Namespace) -> int:
    """Write it.

    Raises:
        RobotModelError: the MJCF holds what URDF cannot say.
    """
    text = urdf(get_arm(args.arm))
    if args.out is None:
        print(text, end="")
    else:
        write_atomically(args.out, text.encode())
    return 0
