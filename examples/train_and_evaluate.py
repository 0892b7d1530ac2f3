"""Trains the planar arm's networks in Python and measures them on held-out goals.

python examples/train_and_evaluate.py --iterations 20 --out runs/example
"""

import argparse
from dataclasses import replace
from pathlib import Path

from spiking_controller.evaluation.evaluate import evaluate_checkpoint
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.config import load_config
from spiking_controller.resources import share_path
from spiking_controller.training.training_run import TrainingRun


def main() -> None:
    """Train, save, load, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    args = parser.parse_args()

    config = load_config(share_path("config", "train", "planar_reach.yaml"))
    config = replace(config, iterations=args.iterations, evaluate_every=min(config.evaluate_every, args.iterations))
    run = TrainingRun(config, args.out)
    run.run(report=lambda progress: print(progress), should_stop=lambda: False)

    checkpoint = load_checkpoint(args.out / "planar_reach.safetensors")
    metrics = evaluate_checkpoint(checkpoint, goals=100)
    for part in ("network_alone", "with_integral"):
        print(f"{part}: median final error {1000 * metrics[part]['final_error_m_median']:.1f} mm")


if __name__ == "__main__":
    main()
