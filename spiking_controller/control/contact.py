"""Notices pushes and hits: the arm's velocity changes otherwise than its torques, its load and its inertia explain.

What lasts (a load, friction, a steady push) is no contact; only what begins is. The prediction is that of the rigid
body, which is sharper within one control period than the forward model is.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.disturbance_filter import RESIDUAL, correct, let_pass, solve

FloatArray = NDArray[np.float64]

FIRST_NOISE: Final = (0.005, 0.008)
"""Standard deviation of the unexplained change of velocity in a control period, rad/s: at rest, and what full motion
adds, before anything was learnt."""
LEAST_NOISE: Final = (0.002, 0.005)
"""They never count as less than this,"""
MOST_NOISE: Final = (0.05, 0.1)
"""and never as more."""
LEARNING_RATE: Final = 0.005
"""Of their squares, per control step."""
OUTLIER: Final = 9.0
"""No step teaches more than so many times the variance."""
REST: Final = 0.02
"""Below this size of motion the arm is at rest,"""
MOTION: Final = 0.3
"""and from this one on what it shows is the noise of motion."""
LASTING: Final = 0.5
"""What lasts longer than about this time is no contact, s."""
EVIDENCE: Final = 45.0
"""A contact is so many variances from none, over all joints,"""
WEAKEST: Final = 4.0
"""and as strong as this force on the hand, N."""
ADMITTED: Final = 0.3
"""What has lasted for this time may be a load, s."""
LOAD: Final = (1.0, 0.03)
"""Standard deviation of a load's mass, kg, and of its mass times its place, kg·m, before anything is known,"""
LOAD_DRIFT: Final = (0.003, 0.0003)
"""and that they gain in a control step."""
OVER: Final = 0.2
"""A contact is over once there was no evidence of it for this time, s."""
DAMPING: Final = 0.05
"""Of the least squares that turn torques into a force, against singular postures, m/rad."""

_KEPT: Final = np.ones(4)
_ANOTHER: Final = 0.1 * np.diag(np.square([LOAD[0], *[LOAD[1]] * 3]))
_DRIFT: Final = np.square([LOAD_DRIFT[0], *[LOAD_DRIFT[1]] * 3])
_DAMPED: Final = DAMPING**2 * np.eye(3)


class Contact(NamedTuple):
    """A push or a hit that has just begun.

    Attributes:
        torque: that it exerts on the joints, N·m, [n].
        force: that it would be if it acted on the hand alone, in the base frame, N, [3].
    """

    torque: FloatArray
    force: FloatArray


class ContactDetector:
    """Watches the torque that nothing explains, control step by control step.

    Attributes:
        contacts: how many have begun.
    """

    def __init__(self, joints: int, period: float) -> None:
        """Watch an arm with n joints.

        Args:
            joints: n.
            period: control period, s.
        """
        self.contacts = 0
        self._period = period
        self._joints = joints
        self._noise = np.tile(np.square(FIRST_NOISE)[:, None], (1, joints))
        self._passed = 1.0 - np.exp(-period / LASTING)
        self.reset()

    def reset(self) -> None:
        """Nothing touches the arm; the noise is known still."""
        self._lasting: FloatArray | None = None
        self._quiet = np.inf
        self._touched_for = 0.0
        self._load = np.zeros(RESIDUAL - 2)
        self._load_covariance = np.diag(np.square([LOAD[0], *[LOAD[1]] * 3]))

    @property
    def is_touched(self) -> bool:
        """Whether a contact goes on."""
        return bool(self._quiet < OVER)

    def observe(
        self, torque: FloatArray, inertia: FloatArray, jacobian: FloatArray, load: FloatArray, size: float
    ) -> Contact | None:
        """A control step is over.

        Args:
            torque: mean of what acted on the joints beside the motors, N·m, [n].
            inertia: M/T + D/2, kg·m²/s, [n, n].
            jacobian: of the hand, m/rad, [3, n].
            load: torque of a load by its mass and its mass times its place, see `disturbance_filter`, [n, 4].
            size: of the motion, from 0 for none to about 1.
        Returns:
            The contact, if one begins with this step.
        """
        rest, motion = self._noise
        variance = rest + size**2 * motion
        if self._touched_for == 0.0 or self._touched_for > ADMITTED:
            self._weigh(torque, inertia, load, variance)
        torque = torque - load @ self._load
        if self._lasting is None:
            self._lasting = torque
            return None
        new = torque - self._lasting
        change = solve(inertia, new[:, None])[:, 0]
        share = np.square(change) / variance
        evidence = float(share.sum())
        force = solve(jacobian @ jacobian.T + _DAMPED, (jacobian @ new)[:, None])[:, 0]
        is_contact = evidence > EVIDENCE and float(force @ force) > WEAKEST**2
        begins = is_contact and not self.is_touched
        self._quiet = 0.0 if is_contact else self._quiet + self._period
        self._lasting += self._passed * new
        self._touched_for = self._touched_for + self._period if self.is_touched else 0.0
        if not self.is_touched:
            self._learn(np.square(change), size)
        if not begins:
            return None
        self.contacts += 1
        return Contact(new, force)

    def _weigh(self, torque: FloatArray, inertia: FloatArray, load: FloatArray, variance: FloatArray) -> None:
        """What the hand carries, by the rigid body: a Kalman filter on the change of velocity."""
        if self.is_touched:
            # What lasts may be another load.
            self._load_covariance += _ANOTHER
        solved = solve(inertia, np.column_stack((load, torque)))
        let_pass(self._load, self._load_covariance, _KEPT, _DRIFT)
        correct(
            self._load,
            self._load_covariance,
            np.ascontiguousarray(solved[:, :-1]),
            solved[:, -1].copy(),
            4.0 * variance,
        )

    def _learn(self, square: FloatArray, size: float) -> None:
        if REST <= size < MOTION:
            return
        kind = 0 if size < REST else 1
        seen = square if kind == 0 else np.maximum(square - self._noise[0], 0.0) / size**2
        noise = self._noise[kind]
        noise += LEARNING_RATE * (np.minimum(seen, OUTLIER * noise) - noise)
        np.clip(noise, LEAST_NOISE[kind] ** 2, MOST_NOISE[kind] ** 2, out=noise)
