"""`spiking_controller arm show`: draws an arm at home and with its hand at random goals."""

import argparse
from pathlib import Path

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.demo.rendering import render_by
from spiking_controller.robots.arm import get_arm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which arm, and where to draw it."""
    parser.add_argument("arm", help="the path of an arm's file, or the name of a shipped arm")
    parser.add_argument("--goals", type=int, default=5, metavar="N", help="random goals beside home")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the goals")
    parser.add_argument("--out", type=Path, metavar="FILE", help="PNG to write (default: ARM.png)")


def run(args: argparse.Namespace) -> int:
    """Draw it.

    Raises:
        RobotModelError: the arm's file or description is wrong.
        ConfigError: an option out of range.
        RenderingError: there is no OpenGL here.
    """
    if args.goals < 1 or args.seed < 0:
        raise ConfigError(f"--goals {args.goals} must be at least 1, --seed {args.seed} at least 0.")
    arm = get_arm(args.arm)
    output = args.out or Path(f"{arm.name}.png")
    arguments = [arm.source, str(args.goals), str(args.seed), str(output)]
    render_by("spiking_controller.evaluation.demo.arm_picture", arguments, output)
    print(f"Written to {output}")
    return 0
