"""Initial weights: fluctuation-driven, so that a layer fires from its input's fluctuations on the first step, or usual.

- fluctuation: Rossbroich, Gygax, Zenke 2022, "Fluctuation-driven initialization for spiking neural network training",
  Neuromorphic Computing and Engineering 2(4): weights of zero mean whose variance brings the standard deviation of the
  membrane potential to the threshold when the presynaptic neurons fire at rate ν.
- kaiming: He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers": normal with variance 2/inputs.
- uniform: U(±1/sqrt(inputs)), as in `torch.nn.Linear`.
"""

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

Initialisation = Literal["fluctuation", "kaiming", "uniform"]


def psp_energy(tau_synaptic: float, tau_membrane: float, tick: float) -> float:
    """Sum over ticks of the squared response of the membrane to one unit input spike (ε̂ of the paper, eq. 6).

    Args:
        tau_synaptic, tau_membrane: time constants, s.
        tick: tick length, s.
    """
    beta_synaptic, beta_membrane = math.exp(-tick / tau_synaptic), math.exp(-tick / tau_membrane)
    synaptic, membrane, energy = 1.0, 0.0, 0.0
    for _ in range(10_000):
        membrane = beta_membrane * membrane + (1.0 - beta_membrane) * synaptic
        energy += membrane**2
        synaptic *= beta_synaptic
        if synaptic + membrane < 1e-9:
            break
    return energy


def spike_weight_deviation(
    presynaptic: int, rate: float, tau_synaptic: float, tau_membrane: float, tick: float
) -> float:
    """Standard deviation of weights from spiking inputs that brings the membrane's deviation to the threshold of 1.

    Args:
        presynaptic: number of presynaptic neurons.
        rate: their firing rate ν, Hz.
        tau_synaptic, tau_membrane: time constants of the receiving layer, s.
        tick: tick length, s.
    """
    return 1.0 / math.sqrt(presynaptic * rate * tick * psp_energy(tau_synaptic, tau_membrane, tick))


def analogue_weight_deviation(features: int, tau_synaptic: float, tick: float) -> float:
    """The same for analogue inputs of unit variance that are held constant: their membrane settles at W·x/(1 - β_syn).

    Args:
        features: number of inputs.
        tau_synaptic: synaptic time constant of the receiving layer, s.
        tick: tick length, s.
    """
    return (1.0 - math.exp(-tick / tau_synaptic)) / math.sqrt(features)


def normal(shape: tuple[int, ...], deviation: float, generator: Generator) -> Tensor:
    """Normally distributed weights of zero mean."""
    return torch.randn(*shape, generator=generator) * deviation


def weights(kind: Initialisation, outputs: int, inputs: int, deviation: float, generator: Generator) -> Tensor:
    """Weights [outputs, inputs] of one connection.

    Args:
        kind: the initialisation, see the module.
        outputs, inputs: sizes.
        deviation: standard deviation that fluctuation-driven initialisation asks for; the others have their own.
        generator: random numbers.
    """
    if kind == "fluctuation":
        return normal((outputs, inputs), deviation, generator)
    weight = torch.empty(outputs, inputs)
    if kind == "kaiming":
        return nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    bound = 1.0 / math.sqrt(inputs)
    return nn.init.uniform_(weight, -bound, bound, generator=generator)


def low_rank_weights(
    kind: Initialisation, outputs: int, inputs: int, rank: int, deviation: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Factors A [outputs, rank], B [rank, inputs] of weights whose entries vary as those of `weights` would.

    B has orthonormal rows, so an entry of A·B has the variance Var(A)·rank/inputs, which for every kind is that of the
    full matrix.
    """
    compress = torch.empty(rank, inputs)
    nn.init.orthogonal_(compress, generator=generator)
    return weights(kind, outputs, rank, deviation * math.sqrt(inputs / rank), generator), compress
