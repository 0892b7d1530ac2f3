"""`spiking_controller export`: a policy for other run times, as ONNX or as NIR."""

import argparse
import tempfile
from pathlib import Path
from typing import Literal

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.tables import to_json
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint

DIALECTS = ("exact", "euler", "rockpool")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `export`."""
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="a .safetensors file made by `spiking_controller train`"
    )
    parser.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="write the policy with features, kinematics and torque law as one ONNX file",
    )
    parser.add_argument(
        "--nir", type=Path, metavar="FILE", help="write its spiking layers as a NIR graph, and FILE.json beside it"
    )
    parser.add_argument(
        "--dialect",
        choices=DIALECTS,
        default="exact",
        help="how whoever reads the NIR file steps its neurons from tick to tick (default: exact)",
    )


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code.

    Raises:
        ModelContractError: the checkpoint cannot be used.
        ConfigError: nothing to write, the policy cannot be exported, or a file is the checkpoint itself.
    """
    if args.onnx is None and args.nir is None:
        raise ConfigError("nothing to write: give --onnx FILE, --nir FILE, or both.")
    for option, file in (("--onnx", args.onnx), ("--nir", args.nir)):
        if file is not None and file.resolve() == args.checkpoint.resolve():
            raise ConfigError(f"{option} {file} is the checkpoint itself; give another file.")
    checkpoint = load_checkpoint(args.checkpoint)
    if args.onnx is not None:
        _write_onnx(checkpoint, args.onnx)
    if args.nir is not None:
        _write_nir(checkpoint, args.nir, args.dialect)
    return 0


def _write_onnx(checkpoint: Checkpoint, file: Path) -> None:
    from spiking_controller.networks.onnx_export import INPUTS, OUTPUTS, to_onnx

    model = to_onnx(checkpoint)
    data = model.SerializeToString()
    write_atomically(file, data)
    state = [value.name for value in model.graph.input if value.name not in INPUTS]
    print(f"{checkpoint.source}: {len(data) / 1000:.0f} kB in {file}")
    print(f"in:    {', '.join(INPUTS)}\nout:   {', '.join(OUTPUTS)}\nstate: {', '.join(state)} (out: next_NAME)")


def _write_nir(checkpoint: Checkpoint, file: Path, dialect: Literal["exact", "euler", "rockpool"]) -> None:
    import nir

    from spiking_controller.networks.nir_export import to_nir

    graph, sidecar = to_nir(checkpoint, dialect)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "graph.nir"
        nir.write(written, graph)
        data = written.read_bytes()
    write_atomically(file, data)
    beside = file.with_name(f"{file.name}.json")
    write_atomically(beside, f"{to_json(sidecar, indent=2)}\n".encode())
    print(f"{checkpoint.source}: {len(data) / 1000:.0f} kB in {file}; what NIR does not say is in {beside}")
