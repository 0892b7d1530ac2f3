"""What is known of every arm that stands upright: turned about its base, it moves in the same way."""

import numpy as np

from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.segments import Windows
from spiking_controller.training.updates import WindowSource


class TurnedWindows:
    """Windows of another source, each turned by a random angle about the vertical axis of the arm's first joint.

    Gravity does not change with that angle, so what is turned is as true as what was recorded; the networks learn more
    from little. An arm whose first joint does not turn about a vertical axis is left as it is.
    """

    def __init__(self, source: WindowSource, task: ReachTask) -> None:
        """Turn the windows of `source`, recorded in `task`."""
        self._source = source
        self._axis = task.arm.chain.vertical_base_axis
        self._half_range = float(task.position_half_range[0])
        self._hand = 2 * task.controlled_joints

    def windows(self, rng: np.random.Generator, batch: int, length: int) -> Windows:
        """`batch` windows of `length` steps; the first joint stays inside its soft bounds if it was."""
        windows = self._source.windows(rng, batch, length)
        if self._axis is None:
            return windows
        first = windows.observation[..., 0]
        lowest, highest = -1.0 - first.min(axis=0), 1.0 - first.max(axis=0)
        turn = np.where(lowest < highest, lowest + (highest - lowest) * rng.random(batch), 0.0)
        angle = turn * self._half_range
        observation = windows.observation.copy()
        observation[..., 0] += turn
        observation[..., self._hand :] = self._turned(observation[..., self._hand :], angle)
        return windows._replace(observation=observation, goal=self._turned(windows.goal, angle))

    def _turned(self, point: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Points [..., batch, d], turned by angles [batch], rad."""
        assert self._axis is not None
        x, y = point[..., 0] - self._axis[0], point[..., 1] - self._axis[1]
        turned = np.array(point)
        turned[..., 0] = self._axis[0] + np.cos(angle) * x - np.sin(angle) * y
        turned[..., 1] = self._axis[1] + np.sin(angle) * x + np.cos(angle) * y
        return turned
