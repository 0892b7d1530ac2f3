"""Asks of a recorded run whether a forward model still predicts the arm, in Python.

python examples/judge_a_bag.py test/data/panda_three_goals models/panda_reach.safetensors
"""

import argparse
from pathlib import Path

from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator, ReplaySettings
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.streams.bag_reader import opened
from spiking_controller.streams.bag_stream import find_stream


def main() -> None:
    """Read the bag once, message by message, and print what the networks would have predicted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()

    checkpoint = load_checkpoint(args.model)
    with opened(args.bag) as bag:
        stream = find_stream(bag, checkpoint.task.arm)
        settings = ReplaySettings(
            joint_names=stream.joint_names,
            measured_torque=stream.measured_torque,
            includes_gravity=stream.includes_gravity,
        )
        evaluator = ReplayEvaluator([checkpoint], settings)
        stream.feed(bag, evaluator)
    evaluator.finish()
    for judged in evaluator.metrics()["checkpoints"]:
        for horizon, error in judged["forward_model"]["horizons"].items():
            print(f"{judged['name']}: {horizon} steps ahead, joints {1000 * error['joint_rad']:.3f} mrad")


if __name__ == "__main__":
    main()
