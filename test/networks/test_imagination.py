"""Imagined roll-outs: the compiled way against the reference."""

from dataclasses import replace

import pytest
import torch

from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import TaskOptions, TrainingConfig
from spiking_controller.networks.features import Features
from spiking_controller.networks.forward_model import ForwardModel, Predicts
from spiking_controller.networks.imagination import Beginning, Imagined, imagine
from spiking_controller.networks.normalisation import Normalisation
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.neurons import Backend
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import VelocitySource

BATCH, STEPS = 5, 8


def beginning(policy: Policy, model: ForwardModel) -> Beginning:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) - 0.5

    size = 2 * policy.network.outputs + policy.features.goal_dimensions
    return Beginning(
        random(BATCH, size),
        random(BATCH, policy.network.outputs),
        random(BATCH, policy.features.goal_dimensions),
        policy.initial_state(BATCH),
        model.initial_state(BATCH),
    )


def loss(imagined: Imagined) -> torch.Tensor:
    total = imagined.observation.square().sum() + imagined.action.sum() + imagined.drive.square().sum()
    for layer in imagined.policy_activity:
        total = total + (layer * torch.linspace(-1.0, 1.0, layer.shape[-1])).sum()
    return total


def assert_both_ways_agree(config: TrainingConfig) -> None:
    results = []
    backends: tuple[Backend, ...] = ("torch", "fused")
    for backend in backends:
        policy, model = build_networks(config)
        policy.network.backend = model.network.backend = backend
        model.requires_grad_(False)
        imagined = imagine(policy, model, beginning(policy, model), STEPS)
        loss(imagined).backward()
        gradients = [p.grad for p in policy.parameters() if p.grad is not None]
        results.append([*imagined[:3], *imagined.policy_activity, *gradients])
    assert results[0][0].shape == (STEPS, BATCH, ObservationCodec(config.reach_task).size)
    assert len(results[0]) == len(results[1])
    for reference, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", ["panda_reach", "planar_reach"])
@pytest.mark.parametrize(
    ("predicts", "features"),
    [
        ("velocities", Features()),
        ("everything", Features()),
        ("everything", Features(velocity=False)),
        ("velocities", Features(trigonometric=False, previous_action=False, target_gains=())),
        ("angles", Features()),
        ("angles", Features(angles=False, velocity=False)),
        ("everything", Features(angles=False, velocity=False, previous_action=False)),
        ("everything", Features(angles=False, normalisation=Normalisation(0.1, 2.0))),
        ("velocities", Features(normalisation=Normalisation(0.1, 2.0))),
        ("everything", Features(velocity=False, normalisation=Normalisation(0.1, 2.0))),
    ],
)
def test_the_compiled_roll_out_equals_the_reference_in_values_and_gradients(
    small_config: TrainingConfig, task: str, predicts: Predicts, features: Features
) -> None:
    assert_both_ways_agree(replace(small_config, task=task, predicts=predicts, features=features))


@pytest.mark.parametrize("task", ["panda_reach_paper", "planar_reach_paper"])
@pytest.mark.parametrize("velocity_source", ["measured", "differences"])
def test_both_ways_agree_on_the_papers_tasks_and_networks(
    small_config: TrainingConfig, task: str, velocity_source: VelocitySource
) -> None:
    assert isinstance(small_config.policy, NetworkConfig)
    policy = replace(
        small_config.policy, rank=0, delay=3, readout_layers="last", readout_leak="output", input_gains="per_input"
    )
    model = replace(policy, recurrence="tick", recurrent_layers="first", readout_leak="membrane")
    options = TaskOptions(velocity_source=velocity_source)
    assert_both_ways_agree(replace(small_config, task=task, policy=policy, forward_model=model, task_options=options))


@pytest.mark.parametrize("rank", [0, 4])
def test_the_compiled_roll_out_equals_the_reference_with_tick_wise_recurrence(
    small_config: TrainingConfig, rank: int
) -> None:
    assert isinstance(small_config.forward_model, NetworkConfig)
    network = replace(small_config.forward_model, recurrence="tick", rank=rank, ticks=5, tick=0.004)
    assert_both_ways_agree(replace(small_config, forward_model=network))
