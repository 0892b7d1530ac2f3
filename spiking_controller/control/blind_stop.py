"""Brings an arm to rest whose state cannot be believed any more, by damping the velocity that it must still have."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.simulation import ArmSimulation

FloatArray = NDArray[np.float64]

AT_REST: Final = 0.02
"""An arm whose joints are all slower than this counts as at rest, rad/s."""
LONGEST: Final = 1.0
"""A stop is over after this time, s."""


class BlindStop:
    """Simulates the arm from the last state that could be believed, and asks for the torque that stops the simulation.

    An arm that is heavier or lighter than its description stops later or sooner than the simulation; it cannot be kept
    moving, since what is asked for fades with time whatever the arm does.

    Attributes:
        way: that each joint has gone since the start, rad, [n].
        time: since the start, s.
    """

    def __init__(self, arm: Arm, damping: FloatArray, period: float, gravity_compensation: bool = True) -> None:
        """Stop this arm.

        Args:
            arm: which one.
            damping: with which to stop it, N·m·s/rad, [n].
            period: between two torques, s.
            gravity_compensation: the arm carries its own weight.
        """
        self._simulation = ArmSimulation(arm, period, gravity_compensation)
        self._damping = damping
        self._period = period
        self.way: FloatArray = np.zeros_like(damping)
        self.time = LONGEST

    def start(self, position: FloatArray, velocity: FloatArray, torques: Iterable[FloatArray] = ()) -> None:
        """Begin from a state of some time ago.

        Args:
            position: rad, [n].
            velocity: rad/s, [n].
            torques: that the arm has got since, one for each period, N·m, [n] each.
        """
        self._simulation.place(position, velocity)
        self.way = np.zeros_like(self._damping)
        self.time = 0.0
        for torque in torques:
            self.advance(torque)

    @property
    def position(self) -> FloatArray:
        """Where the joints should be by now, rad, [n]."""
        return self._simulation.joint_position

    @property
    def velocity(self) -> FloatArray:
        """How fast the joints should be by now, rad/s, [n]."""
        return self._simulation.joint_velocity

    @property
    def is_over(self) -> bool:
        """Whether the arm must be at rest by now."""
        return self.time >= LONGEST or bool(np.abs(self.velocity).max() < AT_REST)

    @property
    def torque(self) -> FloatArray:
        """What stops the arm, N·m, [n]; zero once it is over."""
        return np.zeros_like(self._damping) if self.is_over else -self._damping * self.velocity

    def advance(self, torque: FloatArray) -> None:
        """Let a period pass under the torque that the arm got, N·m, [n]."""
        self._simulation.advance(torque)
        self.way += self._period * np.abs(self.velocity)
        self.time += self._period
