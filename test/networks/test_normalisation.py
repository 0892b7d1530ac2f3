"""Divisive normalisation of the features that vanish at rest."""

from dataclasses import replace

import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.features import Features
from spiking_controller.networks.normalisation import Normalisation

NORMALISATION = Normalisation(floor=0.01, error_gain=8.0)


def test_directions_do_not_depend_on_the_size_and_the_size_is_given_back() -> None:
    z = torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    large, small = (NORMALISATION.normalise([scale * z[:, :2], scale * z[:, 2:]]) for scale in (10.0, 1.0))
    torch.testing.assert_close(large[:, :-1], small[:, :-1], rtol=0.0, atol=0.01)
    torch.testing.assert_close(NORMALISATION.size(small)[:, 0], torch.sqrt(z.square().mean(-1) + 0.01**2))
    torch.testing.assert_close(small[:, :-1] * NORMALISATION.size(small), z)


def test_at_rest_all_normalised_features_are_zero() -> None:
    at_rest = NORMALISATION.normalise([torch.zeros(3, 4)])
    torch.testing.assert_close(at_rest, torch.zeros(3, 5))
    torch.testing.assert_close(NORMALISATION.size(at_rest), torch.full((3, 1), 0.01))


def test_gradients_by_hand_are_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(2)
    z = (0.02 * torch.randn(6, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    grad, grad_size = (torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (6, 1))
    normalised = NORMALISATION.normalise([z])
    ((normalised * grad).sum() + (NORMALISATION.size(normalised) * grad_size).sum()).backward()
    by_hand = NORMALISATION.pull_back(normalised.detach(), grad, grad_size)
    torch.testing.assert_close(by_hand, z.grad)


@pytest.mark.parametrize("values", [{"floor": 0.0}, {"floor": 1.0}, {"error_gain": -1.0}, {"error_gain": float("inf")}])
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Normalisation(**values)


def test_action_and_predicted_change_shrink_with_what_moves_the_arm(small_config: TrainingConfig) -> None:
    config = replace(small_config, features=Features(normalisation=NORMALISATION, target_gains=()))
    policy, model = build_networks(config)
    observation = torch.full((1, 6), 0.3)
    resting = policy.rest_inputs(observation)
    # Velocities, previous action, way to the goal, level.
    torch.testing.assert_close(resting[:, -7:], torch.zeros(1, 7))
    readout = torch.ones(1, 2)
    torch.testing.assert_close(policy.drive(resting, readout), torch.full((1, 2), 0.01))
    torch.testing.assert_close(model.change(model.rest_inputs(observation), readout), torch.full((1, 2), 0.01))
