"""Finds the posture nearest to the present one that brings the hand to a goal, inside the soft bounds.

The soft bounds are a box, so the straight way in joint space to that posture crosses no joint limit, while the straight
way of the hand may. Training uses it to show the policy the way out of such traps.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spiking_controller.tasks.goals import sample_joint_position
from spiking_controller.tasks.reach import FloatArray, ReachTask

_NEIGHBOURS: Final = 256
_CANDIDATES: Final = 4
_ROUNDS: Final = 14
_SQUARED_DAMPING: Final = 1e-4
_PULL: Final = 0.5
_TOLERANCE: Final = 0.01


class NearestPosture:
    """Solves min ‖q* - q‖ subject to hand(q*) = goal and the soft bounds, for batches.

    The search starts from q itself and from known postures whose hands are near the goal, the nearest to q. Each is
    improved by damped least squares with a pull towards q in the null space of the hand (Nakamura 1991), joints at a
    bound held; the nearest that reaches the goal wins. The steps are not those of `KinematicChain.approach`, whose
    other order of sums would change the last bits of the targets, and so of every network that is trained.
    """

    def __init__(self, task: ReachTask, rng: np.random.Generator, known: int = 20_000) -> None:
        """Draw the known postures.

        Args:
            task: whose arm, soft bounds and goals.
            rng: source of the postures.
            known: number of them.
        """
        self._task = task
        m, d = task.controlled_joints, task.goal_dimensions
        postures = sample_joint_position(task, rng, known)
        self._known = postures[:, :m]
        self._tree = cKDTree(task.arm.chain.position(postures)[:, :d])
        lower, upper = task.soft_bounds
        self._lower, self._upper = lower[:m], upper[:m]
        self._locked = np.asarray(task.arm.home, dtype=np.float64)[m:]

    def find(self, joint_position: NDArray[np.floating], goal: NDArray[np.floating]) -> FloatArray:
        """The nearest posture at each goal.

        A goal that no posture in the soft bounds reaches gets one whose hand is near it.

        Args:
            joint_position: present angles of the controlled joints, rad, [batch, m].
            goal: m, [batch, d].
        Returns:
            rad, [batch, m].
        """
        present = np.asarray(joint_position, dtype=np.float64)
        batch, m = present.shape
        _, neighbours = self._tree.query(goal, k=_NEIGHBOURS)
        known = self._known[neighbours]
        distance = np.square(known - present[:, None]).sum(-1)
        chosen = np.argpartition(distance, _CANDIDATES, axis=1)[:, :_CANDIDATES]
        near_present = np.take_along_axis(known, chosen[..., None], axis=1)
        near_goal = known[:, :1]  # the tree's answers are sorted; this one nearly always gets there
        candidates = np.concatenate((present[:, None], near_present, near_goal), axis=1)
        count = candidates.shape[1]
        posture = candidates.reshape(-1, m)
        start = np.repeat(present, count, axis=0)
        target = np.repeat(np.asarray(goal, dtype=np.float64), count, axis=0)
        for round_ in range(_ROUNDS):
            pull = _PULL if round_ < _ROUNDS - 5 else 0.0
            posture = self._improve(posture, start, target, pull)
        miss = np.linalg.norm(self._hand(posture) - target, axis=1)
        length = np.linalg.norm(posture - start, axis=1)
        cost = (length + np.where(miss < _TOLERANCE, 0.0, 1e3 * (1.0 + miss))).reshape(batch, count)
        best = posture.reshape(batch, count, m)[np.arange(batch), cost.argmin(axis=1)]
        return np.asarray(best)

    def _full(self, posture: FloatArray) -> FloatArray:
        return np.concatenate((posture, np.broadcast_to(self._locked, (len(posture), self._locked.size))), axis=1)

    def _hand(self, posture: FloatArray) -> FloatArray:
        return self._task.arm.chain.position(self._full(posture))[:, : self._task.goal_dimensions]

    def _improve(self, posture: FloatArray, start: FloatArray, target: FloatArray, pull: float) -> FloatArray:
        """One step of damped least squares towards the target, and in its null space towards the start."""
        d, m = self._task.goal_dimensions, self._task.controlled_joints
        hand, jacobian = self._task.arm.chain.position_and_jacobian(self._full(posture))
        error = target - hand[:, :d]
        jacobian = jacobian[:, :d, :m]
        wanted = pull * (start - posture)
        change = self._solve(jacobian, error, wanted)
        held = ((posture <= self._lower) & (change < 0.0)) | ((posture >= self._upper) & (change > 0.0))
        change = self._solve(np.where(held[:, None], 0.0, jacobian), error, np.where(held, 0.0, wanted))
        return np.clip(posture + np.clip(change, -0.5, 0.5), self._lower, self._upper)

    @staticmethod
    def _solve(jacobian: FloatArray, error: FloatArray, wanted: FloatArray) -> FloatArray:
        square = jacobian @ jacobian.swapaxes(1, 2) + _SQUARED_DAMPING * np.eye(jacobian.shape[1])
        rest = error - np.einsum("bij,bj->bi", jacobian, wanted)
        return np.asarray(wanted + np.einsum("bij,bi->bj", jacobian, np.linalg.solve(square, rest[..., None])[..., 0]))
