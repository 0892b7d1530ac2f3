"""Fluctuation-driven initialisation: weights that let a layer fire from its input's fluctuations on the first step.

Rossbroich, Gygax, Zenke 2022, "Fluctuation-driven initialization for spiking neural network training",
Neuromorphic Computing and Engineering 2(4): weights of zero mean whose variance brings the standard deviation of the
membrane potential to the threshold when the presynaptic neurons fire at rate ν.
"""

import math

import torch
from torch import Generator, Tensor


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


def low_rank(outputs: int, inputs: int, rank: int, deviation: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Factors A [outputs, rank], B [rank, inputs] of a weight matrix whose entries have that standard deviation.

    B has orthonormal rows, so an entry of A·B has the variance Var(A)·rank/inputs.
    """
    compress = torch.empty(rank, inputs)
    torch.nn.init.orthogonal_(compress, generator=generator)
    return normal((outputs, rank), deviation * math.sqrt(inputs / rank), generator), compress
