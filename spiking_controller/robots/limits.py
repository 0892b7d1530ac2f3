"""Keeps joint torques legal: one limiter for training and for the live arm, so that the policy knows it."""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from spiking_controller.compilation import compiled
from spiking_controller.errors import RobotModelError

FloatArray = NDArray[np.float64]

Braking = Literal["full", "outward", "none"]
"""What keeps a joint within its range and speed: see `TorqueLimiter`."""

BRAKING_FRACTION = 0.5
"""A joint has to stop within this share of the way from its soft to its hard bound. The rest is for the time that the
rate limit needs to build the braking torque up: a Panda joint that is driven outward with half its torque stays inside
its hard bounds."""


@dataclass(frozen=True, eq=False)
class JointLimits:
    """What each joint of an arm may do. Every array is [joints] and read-only.

    Attributes:
        position_lower: smallest angle, rad.
        position_upper: largest angle, rad.
        velocity: largest speed in either direction, rad/s.
        torque: largest torque in either direction, N·m.
        torque_rate: largest change of torque in a second, N·m/s.
    """

    position_lower: FloatArray
    position_upper: FloatArray
    velocity: FloatArray
    torque: FloatArray
    torque_rate: FloatArray

    def __post_init__(self) -> None:
        """Copy the arrays and check that they fit together.

        Raises:
            RobotModelError: different lengths, a bound that is not finite, a lower bound that is not below
                the upper one, or a limit that is not positive.
        """
        joints = np.asarray(self.position_lower).shape
        for field in fields(self):
            values = np.array(getattr(self, field.name), dtype=np.float64)
            if values.ndim != 1 or values.shape != joints:
                raise RobotModelError(
                    f"{field.name} has the shape {values.shape}, but position_lower has {joints}; "
                    "give one number for each joint."
                )
            if not np.all(np.isfinite(values)):
                raise RobotModelError(f"{field.name} is {values.tolist()}; give finite numbers.")
            if not field.name.startswith("position") and np.any(values <= 0.0):
                raise RobotModelError(f"{field.name} is {values.tolist()}; give numbers above zero.")
            values.flags.writeable = False
            object.__setattr__(self, field.name, values)
        if np.any(self.position_lower >= self.position_upper):
            raise RobotModelError(
                f"position_lower is {self.position_lower.tolist()} and position_upper is "
                f"{self.position_upper.tolist()}; each lower bound must be below its upper bound."
            )

    @property
    def joints(self) -> int:
        """Number of joints."""
        return int(self.position_lower.size)

    def soft_bounds(self, fraction: float) -> tuple[FloatArray, FloatArray]:
        """Bounds of the middle part of the position range: centre ± fraction · half range.

        Args:
            fraction: share of the range, above 0 and up to 1.
        Returns:
            Lower and upper bound, rad, each [joints].
        Raises:
            RobotModelError: the fraction is outside (0, 1].
        """
        if not 0.0 < fraction <= 1.0:
            raise RobotModelError(f"the soft limit fraction is {fraction}; give a number above 0 and up to 1.")
        if fraction == 1.0:
            return self.position_lower.copy(), self.position_upper.copy()
        centre = 0.5 * (self.position_lower + self.position_upper)
        half_range = 0.5 * (self.position_upper - self.position_lower)
        return centre - fraction * half_range, centre + fraction * half_range


class TorqueLimiter:
    """Limits torques in the order torque, braking, rate; a legal torque stays bit-equal.

    A joint may move outward at its velocity limit up to its soft position bound; from there on the allowed speed falls
    linearly, to nothing halfway to the hard bound. A joint that is faster is braked: against its motion acts at least

        torque limit · (speed - allowed speed) / velocity limit,

    a damping that is small enough to stay stable under the delay of a sampled loop. The rate comes last, as on the
    arm's own interface: a torque that braking asks for builds up as fast as the rate limit allows.

    Simulated tasks may do with less: with `braking` "outward" a torque beyond a soft position bound must not push
    further out, whatever the speed, and with "none" the torque has no bounds at all.
    """

    def __init__(
        self,
        limits: JointLimits,
        soft_fraction: float = 0.8,
        braking: Braking = "full",
        has_rate_limit: bool = True,
    ) -> None:
        """Set the limits.

        Args:
            limits: what the joints may do.
            soft_fraction: share of the position range in which the full speed and outward torque are allowed.
            braking: what keeps joints within range and speed.
            has_rate_limit: whether the torque may change no faster than the limits say.
        Raises:
            RobotModelError: `soft_fraction` is outside (0, 1].
        """
        self.limits = limits
        self._braking = braking
        self._has_rate_limit = has_rate_limit
        self.soft_fraction = soft_fraction
        self._lower, self._upper = limits.soft_bounds(soft_fraction)
        # With soft bounds at the hard ones the way has no length; the allowed speed then drops within a hair.
        self._braking_way = np.maximum(BRAKING_FRACTION * (limits.position_upper - self._upper), 1e-9)

    def limit(
        self,
        torque: ArrayLike,
        previous_torque: ArrayLike,
        joint_position: ArrayLike,
        joint_velocity: ArrayLike,
        period: float,
    ) -> FloatArray:
        """The legal torque that is nearest to the wanted one. All values must be finite.

        - |torque| is clipped to the torque limit.
        - At or beyond a soft position bound no torque pushes further out, at or beyond the velocity limit none
          accelerates; a joint above its allowed speed (see the class) is braked.
        - The result differs from `previous_torque` by at most torque_rate · period (libfranka's rule).

        A previous torque beyond the torque limits is taken as clipped to them, so that the result is always
        within.

        Args:
            torque: wanted torque, N·m, [..., joints].
            previous_torque: what this method returned a period ago (zero at the start), N·m, [..., joints].
            joint_position: rad, [..., joints].
            joint_velocity: rad/s, [..., joints].
            period: time since the previous torque, s; a negative one counts as 0.
        Returns:
            Legal torque, N·m, [..., joints].
        """
        previous = np.clip(np.asarray(previous_torque, dtype=np.float64), -self.limits.torque, self.limits.torque)
        lowest, highest = self.bounds(joint_position, joint_velocity)
        legal = np.minimum(np.maximum(np.asarray(torque, dtype=np.float64), lowest), highest)
        if not self._has_rate_limit:
            return legal
        step = self.limits.torque_rate * max(period, 0.0)
        return np.minimum(np.maximum(legal, previous - step), previous + step)

    def bounds(self, joint_position: ArrayLike, joint_velocity: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Smallest and largest torque that position and velocity allow before the rate limit, N·m, [..., joints] each.

        Args:
            joint_position: rad, [..., joints].
            joint_velocity: rad/s, [..., joints].
        """
        position = np.ascontiguousarray(joint_position, dtype=np.float64)
        velocity = np.ascontiguousarray(joint_velocity, dtype=np.float64)
        if self._braking != "full":
            if self._braking == "none":
                return np.full(position.shape, -np.inf), np.full(position.shape, np.inf)
            lowest = np.where(position <= self._lower, 0.0, -self.limits.torque)
            return lowest, np.where(position >= self._upper, 0.0, self.limits.torque)
        if position.shape != velocity.shape:
            position, velocity = (np.array(values) for values in np.broadcast_arrays(position, velocity))
        lowest, highest = np.empty(position.shape), np.empty(position.shape)
        joints = position.shape[-1]
        _fill_bounds(
            position.reshape(-1, joints),
            velocity.reshape(-1, joints),
            self._lower,
            self._upper,
            self.limits.velocity,
            self.limits.torque,
            self._braking_way,
            lowest.reshape(-1, joints),
            highest.reshape(-1, joints),
        )
        return lowest, highest


@njit(inline="always")
def _ceiling(beyond, velocity, velocity_limit, torque_limit, braking_way):  # type: ignore[no-untyped-def]
    """Largest torque in the direction in which a joint is `beyond` its soft bound (rad) and moves, N·m."""
    if beyond < 0.0 and velocity < velocity_limit:
        return torque_limit
    allowed = velocity_limit * (1.0 - min(max(beyond, 0.0), braking_way) / braking_way)
    return 0.0 - torque_limit * (min(max(velocity - allowed, 0.0), velocity_limit) / velocity_limit)


@compiled()
def _fill_bounds(
    position: FloatArray,
    velocity: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    velocity_limit: FloatArray,
    torque_limit: FloatArray,
    braking_way: FloatArray,
    lowest: FloatArray,
    highest: FloatArray,
) -> None:
    """See `TorqueLimiter.bounds`; position, velocity, lowest and highest are [batch, joints], the others [joints]."""
    for row in range(position.shape[0]):
        for joint in range(position.shape[1]):
            angle, speed = position[row, joint], velocity[row, joint]
            fastest, strongest, way = velocity_limit[joint], torque_limit[joint], braking_way[joint]
            most = _ceiling(angle - upper[joint], speed, fastest, strongest, way)
            least = -_ceiling(lower[joint] - angle, -speed, fastest, strongest, way)
            # The two meet only in a joint that returns too fast from beyond a bound: braking wins.
            lowest[row, joint] = min(least, most) if speed > 0.0 else least
            highest[row, joint] = max(least, most) if speed < 0.0 else most
