"""Episodes simulated beside the training: what happens when that process dies."""

import multiprocessing

import pytest

from spiking_controller.errors import SimulationStoppedError
from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.training.collection import ProcessCollector


def test_a_killed_simulation_process_ends_training_with_a_sentence(small_config: TrainingConfig) -> None:
    policy, model = build_networks(small_config)
    collector = ProcessCollector(small_config)
    try:
        collector.start(policy, model, 1)
        assert len(collector.episodes().goal) == small_config.episodes_per_iteration
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        collector.start(policy, model, 2)
        with pytest.raises(SimulationStoppedError, match=r"was killed.*continue with --resume"):
            collector.episodes()
    finally:
        collector.close()
