"""Recorded control steps: segments without a gap, and windows cut from them."""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Consecutive control steps of several episodes, time first, float32.

    Attributes:
        observation: [length + 1, batch, observation].
        action: [length, batch, controlled], the action taken from `observation[t]`.
        previous_action: [length, batch, controlled]; zero before an episode's first step.
        goal: [batch, goal], of the episode.
    """

    observation: np.ndarray
    action: np.ndarray
    previous_action: np.ndarray
    goal: np.ndarray


class Segment(NamedTuple):
    """Consecutive control steps of one arm on its way to one goal; step t leads from observation t to t + 1.

    Attributes:
        observation: [steps + 1, observation].
        action: [steps, controlled], as carried out.
        previous_action: [controlled], of the step before the first.
        goal: [goal], m.
    """

    observation: np.ndarray
    action: np.ndarray
    previous_action: np.ndarray
    goal: np.ndarray
