"""`spiking_controller view`: opens a page in the browser on the running graph, or on recordings."""

import argparse
from pathlib import Path

from spiking_controller.errors import ConfigError
from spiking_controller.nodes.viewer import node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to show, and who may see it."""
    parser.add_argument("--arm", default="panda", help="the arm: a name, or the path of an arm's file")
    parser.add_argument("--namespace", default="", help="ROS namespace of the graph")
    parser.add_argument("--bags", type=Path, help="folder with recordings that the page can open")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than 127.0.0.1 let other machines in"
    )
    parser.add_argument("--read-only", action="store_true", help="visitors look and change nothing")
    parser.add_argument("--dark", action="store_true", help="begin with a dark background")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        ConfigError: there is no such folder, or the port is no port.
    """
    if args.bags is not None and not args.bags.is_dir():
        raise ConfigError(f"--bags {args.bags} is no folder; give one with recordings in it.")
    if not 1 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port} is no port; give a number from 1 to 65535.")
    given = {
        "arm": args.arm,
        "host": args.host,
        "port": args.port,
        "read_only": str(args.read_only).lower(),
        "dark": str(args.dark).lower(),
        **({"bags": str(args.bags)} if args.bags else {}),
    }
    arguments = ["--ros-args"]
    for name, value in given.items():
        # In quotes where ROS could take a text for something else.
        arguments += ["--param", f'{name}:="{value}"' if name in ("arm", "host", "bags") else f"{name}:={value}"]
    if args.namespace:
        arguments += ["--remap", f"__ns:=/{args.namespace.strip('/')}"]
    return node.main(arguments)
