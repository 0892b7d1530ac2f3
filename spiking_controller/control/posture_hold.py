"""Keeps a redundant arm from wandering while its hand holds: a spring that acts only where the hand does not move."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.robots.kinematics import KinematicChain

FloatArray = NDArray[np.float64]

LATCH: Final = 0.03
"""The posture is kept from where the hand comes this close to its goal, m,"""
RELEASE: Final = 0.06
"""until it is farther away than this, m."""
SAME_POSTURE: Final = 0.05
"""After a restart the old posture is kept where no joint has left it by more than this, rad."""


class PostureHold:
    """The torque N(q)·k·(q_ref - q) on the controlled joints, with N = I - J⁺J, the projector on the null space of the
    hand's Jacobian J: it moves joints and not the hand. q_ref is the posture with which the hand came to its goal.

    The policy knows of the hand alone; what its noise adds up to in the null space nothing else would bring back.

    Attributes:
        stiffness: k, N·m/rad; 0 keeps no posture.
    """

    def __init__(self, chain: KinematicChain, controlled_joints: int, goal_dimensions: int) -> None:
        """Keep this arm.

        Args:
            chain: from the joints to the hand.
            controlled_joints: m, of the n joints of the chain.
            goal_dimensions: of the hand's position, d.
        """
        self._chain = chain
        self._joints = controlled_joints
        self._dimensions = goal_dimensions
        self._reference: FloatArray | None = None
        self.stiffness = 0.0

    def let_go(self) -> None:
        """Keep no posture until the hand is at its goal."""
        self._reference = None

    def restart(self, joint_position: FloatArray) -> None:
        """Control begins anew at these angles, rad, [n]: an arm that is not where it was keeps no old posture."""
        reference = self._reference
        if reference is not None and np.abs(joint_position[: self._joints] - reference).max() > SAME_POSTURE:
            self._reference = None

    def torque(self, joint_position: FloatArray, distance: float) -> FloatArray:
        """What holds the posture now, N·m, [m]; zero where none is kept.

        Args:
            joint_position: rad, [n].
            distance: from the hand to its goal, m.
        """
        angles = joint_position[: self._joints]
        if self._reference is None and distance < LATCH:
            self._reference = angles.copy()
        elif distance > RELEASE:
            self._reference = None
        if self._reference is None:
            return np.zeros(self._joints)
        _, whole = self._chain.position_and_jacobian(joint_position)
        jacobian = whole[: self._dimensions, : self._joints]
        pull = self.stiffness * (self._reference - angles)
        return np.asarray(pull - np.linalg.pinv(jacobian) @ (jacobian @ pull))
