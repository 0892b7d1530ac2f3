"""Turns the state of the arm into the network's observation vector, and back.

The only place that knows the layout: training, the live controller and the checkpoint contract use it.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.tasks.reach import FloatArray, ReachTask


class ObservationBlock(TypedDict):
    """One part of the observation: entry = (value - offset) / scale, value in `unit`."""

    name: str
    size: int
    offset: list[float]
    scale: list[float]
    unit: str


class ObservationCodec:
    """Observation [..., 2m + d] of a task with m controlled joints and d goal coordinates.

        [ (q - centre) / half range  (m) | q̇ / velocity limit  (m) | hand position in m  (d) ]

    so that joint angles inside the soft bounds and legal velocities lie in [-1, 1].
    """

    def __init__(self, task: ReachTask) -> None:
        self._joints = task.controlled_joints
        self._dimensions = task.goal_dimensions
        self._centre = task.position_centre
        self._half_range = task.position_half_range
        self._velocity_scale = task.velocity_scale

    @property
    def size(self) -> int:
        """Number of entries of the observation vector."""
        return 2 * self._joints + self._dimensions

    @property
    def layout(self) -> list[ObservationBlock]:
        """The blocks of the observation in order, as plain data for the checkpoint contract."""
        m, d = self._joints, self._dimensions
        return [
            {
                "name": "joint_position",
                "size": m,
                "offset": self._centre.tolist(),
                "scale": self._half_range.tolist(),
                "unit": "rad",
            },
            {
                "name": "joint_velocity",
                "size": m,
                "offset": [0.0] * m,
                "scale": self._velocity_scale.tolist(),
                "unit": "rad/s",
            },
            {"name": "hand_position", "size": d, "offset": [0.0] * d, "scale": [1.0] * d, "unit": "m"},
        ]

    def encode(self, joint_position: ArrayLike, joint_velocity: ArrayLike, hand_position: ArrayLike) -> FloatArray:
        """The observation of a state.

        Args:
            joint_position: rad, [..., m or more]; joints after the controlled ones are ignored.
            joint_velocity: rad/s, [..., m or more].
            hand_position: m, in the base frame, [..., 3].
        Returns:
            observation, [..., 2m + d].
        """
        m, d = self._joints, self._dimensions
        position = np.asarray(joint_position)[..., :m]
        velocity = np.asarray(joint_velocity)[..., :m]
        hand = np.asarray(hand_position)[..., :d]
        observation = np.empty((*np.broadcast_shapes(position.shape[:-1], hand.shape[:-1]), self.size))
        observation[..., :m] = (position - self._centre) / self._half_range
        observation[..., m : 2 * m] = velocity / self._velocity_scale
        observation[..., 2 * m :] = hand
        return observation

    def joint_position(self, observation: NDArray[np.floating]) -> FloatArray:
        """Angles of the controlled joints in an observation [..., 2m + d], rad, [..., m]."""
        return observation[..., : self._joints] * self._half_range + self._centre

    def joint_velocity(self, observation: NDArray[np.floating]) -> FloatArray:
        """Velocities of the controlled joints in an observation [..., 2m + d], rad/s, [..., m]."""
        return observation[..., self._joints : 2 * self._joints] * self._velocity_scale

    def hand_position(self, observation: NDArray[np.floating]) -> FloatArray:
        """Hand position in an observation [..., 2m + d], m, [..., d]."""
        return np.asarray(observation[..., 2 * self._joints :], dtype=np.float64)
