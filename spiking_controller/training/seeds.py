"""Where the random numbers of a training run come from: one generator for each iteration and purpose.

A run that was stopped and resumed, or that simulates in another process, thus draws the same numbers.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a random generator is for."""

    GOAL_POOL = 0
    RANDOM_EPISODES = 1
    POLICY_EPISODES = 2
    NOISE = 3
    UPDATES = 4
    EVALUATION = 5
    GOALS = 6
    DISTURBANCES = 7


def generator(seed: int, purpose: Purpose, iteration: int) -> np.random.Generator:
    """The generator of a run with that seed for a purpose in an iteration."""
    return np.random.default_rng([seed, iteration, int(purpose)])


def environment_seed(seed: int, purpose: Purpose, iteration: int) -> int:
    """A seed for an environment, drawn from that generator; below 2**31."""
    return int(generator(seed, purpose, iteration).integers(2**31))
