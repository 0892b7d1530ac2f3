"""The surrogate derivatives against their formulas."""

import numpy as np
import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.snn.surrogate import SURROGATES, spike_function, surrogate_derivative


def normal(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def test_gaussian_equals_its_formula() -> None:
    x = torch.linspace(-1, 1, 401, dtype=torch.float64)
    np.testing.assert_allclose(
        surrogate_derivative("gaussian")(x).numpy(),
        np.exp(-((16 * x.numpy()) ** 2) / 2),
        rtol=1e-12,
        atol=1e-30,
    )


def test_multi_gaussian_is_three_normal_densities_scaled_to_peak_one() -> None:
    x = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)
    width, height, ratio = 1 / 16, 0.15, 6
    expected = (
        (1 + height) * normal(x.numpy(), 0, width)
        - height * normal(x.numpy(), width, ratio * width)
        - height * normal(x.numpy(), -width, ratio * width)
    )
    expected /= expected[300]
    np.testing.assert_allclose(surrogate_derivative("multi_gaussian")(x).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_spike_is_a_step_forward_and_the_surrogate_backward(name: str) -> None:
    distance = torch.tensor([-2.0, -0.05, -1e-6, 0.0, 1e-6, 0.05, 2.0], requires_grad=True)
    spikes = spike_function(name)(distance)
    assert spikes.tolist() == [0, 0, 0, 0, 1, 1, 1]
    (gradient,) = torch.autograd.grad(spikes.sum(), distance)
    torch.testing.assert_close(gradient, surrogate_derivative(name)(distance.detach()))


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_derivative_is_finite_for_any_distance(name: str) -> None:
    distance = torch.tensor([-1e30, -1e6, -300.0, 300.0, 1e6, 1e30])
    assert torch.isfinite(surrogate_derivative(name)(distance)).all()


def test_an_unknown_surrogate_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match="'boxcar' is unknown; choose one of: gaussian"):
        surrogate_derivative("boxcar")
