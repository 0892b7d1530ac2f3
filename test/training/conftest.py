"""A training configuration that runs in seconds, for tests of the machinery rather than of the result."""

import pytest
import torch

from spiking_controller.networks.config import ModelUpdates, PolicyUpdates, TrainingConfig
from spiking_controller.snn.network import NetworkConfig

torch.set_num_threads(1)


@pytest.fixture
def small_config() -> TrainingConfig:
    return TrainingConfig(
        task="planar_reach",
        seed=3,
        iterations=4,
        random_episodes=6,
        episodes_per_iteration=3,
        replay_episodes=12,
        evaluate_every=2,
        evaluation_episodes=4,
        forward_model=NetworkConfig(hidden=(16,), recurrence="step", rank=4, output_gain=0.1),
        policy=NetworkConfig(hidden=(16, 12), rank=4),
        model_updates=ModelUpdates(first=5, per_iteration=3, batch=8, warm_up=2, unroll=3),
        policy_updates=PolicyUpdates(per_iteration=3, batch=8, warm_up=2, unroll=5),
    )
