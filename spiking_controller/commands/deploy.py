"""`spiking_controller deploy`: a checkpoint as a chip would run it, and what that gains and costs."""

import argparse
from pathlib import Path

import torch

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.deployment import deploy, table
from spiking_controller.evaluation.evaluate import HELD_OUT_SEED
from spiking_controller.evaluation.tables import to_json
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.deployment import Precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `deploy`."""
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="a .safetensors file made by `spiking_controller train`"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write (default: CKPT's name with _deployed, here)"
    )
    parser.add_argument(
        "--weight-bits", type=int, default=8, metavar="N", help="of weights (default: 8; 0 leaves them in float32)"
    )
    parser.add_argument(
        "--state-bits",
        type=int,
        default=16,
        metavar="N",
        help="of state and biases in fixed point (default: 16; 0 leaves them in float32)",
    )
    parser.add_argument(
        "--state-fraction-bits", type=int, default=10, metavar="N", help="of these, behind the point (default: 10)"
    )
    parser.add_argument(
        "--delta",
        type=float,
        default=0.01,
        metavar="X",
        help="a feature is sent when it has changed by more than this (default: 0.01; 0 sends every change)",
    )
    parser.add_argument("--goals", type=int, default=200, metavar="N", help="held-out goals (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=HELD_OUT_SEED, metavar="N", help="of starts and goals (default: that of `evaluate`)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to this file")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Deploy; returns the exit code.

    Raises:
        ModelContractError: the checkpoint cannot be used.
        ConfigError: an option out of range, or networks that are not spiking.
    """
    if args.goals < 2 or args.threads < 1 or args.seed < 0:
        raise ConfigError(
            f"--goals {args.goals} must be at least 2, --threads {args.threads} at least 1, --seed {args.seed} at "
            "least 0."
        )
    output = args.output or Path(f"{args.checkpoint.stem}_deployed.safetensors")
    if output.resolve() == args.checkpoint.resolve():
        raise ConfigError(f"--output {output} is the checkpoint itself; give another file.")
    torch.set_num_threads(args.threads)
    precision = Precision(
        weight_bits=args.weight_bits or None,
        state_bits=args.state_bits or None,
        state_fraction_bits=args.state_fraction_bits if args.state_bits else None,
        delta=args.delta,
    )
    data, report = deploy(load_checkpoint(args.checkpoint), precision, goals=args.goals, seed=args.seed)
    write_atomically(output, data)
    weights = f"weights of {args.weight_bits} bits" if args.weight_bits else "float32 weights"
    state = f"state of {args.state_bits} bits" if args.state_bits else "float32 state"
    if args.state_bits:
        state += f", {args.state_fraction_bits} of them behind the point"
    names = " and ".join(name.replace("_", " ") for name in report["multiplied_out"]) or "nothing"
    print(f"{args.checkpoint} on {report['task']}: {weights}; {state}; features sent on changes above {args.delta:g};")
    print(f"latent weights multiplied out: {names}. {args.goals} goals, seed {args.seed}.\n")
    print(table(report))
    print(f"\nWritten to {output}")
    if args.json:
        write_atomically(args.json, f"{to_json(report, indent=2)}\n".encode())
        print(f"Written to {args.json}")
    return 0
