"""Says whether the hand can come to a point, and where it can come instead, fast enough for the live controller."""

from typing import Final, NamedTuple

import numpy as np

from spiking_controller.tasks.goals import contact_data, is_free
from spiking_controller.tasks.reach import FloatArray, ReachTask

TOLERANCE: Final = 0.005
"""A point counts as reachable if the hand comes this close, m."""
_POSTURES: Final = 1024
_ATTEMPTS: Final = 16
_HEIGHT_MARGIN: Final = 0.001
"""What is offered instead of a point that is too low lies this far above the lowest allowed height, m."""


class Reach(NamedTuple):
    """How near the hand comes to a point.

    Attributes:
        point: of the hand, m, [d].
        miss: distance of it from the point, m.
    """

    point: FloatArray
    miss: float


class ReachableSpace:
    """Where the hand can be: in the soft position bounds, with nothing in contact and above the table.

    The search starts from those of some hundred possible postures whose hands are nearest to the point, and brings each
    nearer (`KinematicChain.approach`) until one gets there.
    """

    def __init__(self, task: ReachTask) -> None:
        """Draw the postures to start from, the same ones every time."""
        self._task = task
        self._chain = task.arm.chain
        home = np.asarray(task.arm.home, dtype=np.float64)
        m = task.controlled_joints
        lower, upper = task.soft_bounds
        self._lower, self._upper = home.copy(), home.copy()
        self._lower[:m], self._upper[:m] = lower[:m], upper[:m]
        postures = np.random.default_rng(0).uniform(self._lower, self._upper, (_POSTURES, home.size))
        postures[0] = home
        hands = self._chain.position(postures)
        self._contacts = contact_data(task)
        possible = is_free(task, postures, self._contacts)
        if task.minimum_goal_height is not None:
            possible &= hands[:, 2] > task.minimum_goal_height
        self._postures, self._hands = postures[possible], hands[possible]
        self.nearest(self._hands[0])  # compiles what is needed, so that no goal has to wait for it

    def nearest(self, point: FloatArray) -> Reach:
        """The reachable point nearest to this one, as far as a few starts can tell.

        Of a point that is too low, it is the one nearest to the allowed height above it.

        Args:
            point: m in the base frame, [d]; finite.
        """
        d = self._task.goal_dimensions
        wanted = np.zeros(3)
        wanted[:d] = point[:d]
        lowest = self._task.minimum_goal_height
        target = wanted.copy()
        if lowest is not None:
            target[2] = max(target[2], lowest + _HEIGHT_MARGIN)
        far = np.square(self._hands[:, :d] - target[:d]).sum(axis=1)
        starts = np.argsort(far)[:_ATTEMPTS]
        known = self._hands[starts[0], :d]
        best = Reach(known, float(np.linalg.norm(known - wanted[:d])))
        # The first start nearly always suffices for a point that can be reached at all.
        for group in (starts[:1], starts[1:]):
            postures = np.stack(
                [self._chain.approach(self._postures[start], target, self._lower, self._upper, d) for start in group]
            )
            hands = self._chain.position(postures)
            miss = np.linalg.norm(hands[:, :d] - wanted[:d], axis=1)
            possible = is_free(self._task, postures, self._contacts)
            if lowest is not None:
                possible &= hands[:, 2] >= lowest
            miss[~possible] = np.inf
            nearest = int(miss.argmin())
            if miss[nearest] < best.miss:
                best = Reach(hands[nearest, :d], float(miss[nearest]))
            if best.miss < TOLERANCE:
                break
        return best
