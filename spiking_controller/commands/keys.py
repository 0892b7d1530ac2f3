"""`spiking_controller keys`: key pairs with which a trainer signs networks and a controller knows them."""

import argparse
from pathlib import Path

from spiking_controller.online.signature import create_key_pair, fingerprint_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `keys create` and `keys show`."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    create = verbs.add_parser("create", help="make a key pair (Ed25519): NAME.pem to sign, NAME.pub.pem to check")
    create.add_argument("name", type=Path, metavar="NAME", help="of the two files, without their endings")
    show = verbs.add_parser("show", help="print the fingerprint of a key")
    show.add_argument("file", type=Path, metavar="FILE", help="a .pem file, private or public")


def run(args: argparse.Namespace) -> int:
    """Make a key pair, or show which one a file belongs to; 0.

    Raises:
        ConfigError: a file exists already, cannot be written, or holds no key.
    """
    if args.what == "create":
        private, public, fingerprint = create_key_pair(args.name)
        print(
            f"{private}: for the trainer's signing_key; keep it secret\n"
            f"{public}: for the controller's trusted_keys\n"
            f"fingerprint {fingerprint}"
        )
    else:
        half, fingerprint = fingerprint_of(args.file)
        print(f"{args.file}: {half} key, fingerprint {fingerprint}")
    return 0
