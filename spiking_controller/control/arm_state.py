"""Turns joint states as drivers send them into the state of the arm: by name, complete, finite and in order of time.

Real drivers mix finger joints in, send other orders, leave velocities empty or NaN, repeat messages and jump in
time. Nothing of that may reach the networks or the torque.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.robots.limits import JointLimits
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

ABSURD_POSITION = np.pi
"""A joint farther beyond its position limit than this, rad, is a broken sensor."""
ABSURD_VELOCITY = 10.0
"""A velocity of more than this many times its limit is a broken sensor or another unit."""
VELOCITY_TIME_CONSTANT = 0.01
"""Of the low-pass on velocities that are estimated from positions, s."""
LONGEST_LATENESS = 0.1
"""A stamp older than the last by more than this is a jump of time; a younger one may be a message overtaken, s."""


OTHER_JOINTS = "other joints"
"""Reason of a rejection: the message is about other joints alone, a gripper's perhaps."""


class ArmSample(NamedTuple):
    """One usable state of the arm.

    Attributes:
        time: stamp, ns.
        period: since the previous sample, s; 0 where `continues` is false.
        continues: false for the first sample, after a gap and after time jumped back.
        joint_position: rad, [n], in the arm's joint order.
        joint_velocity: rad/s, [n].
        estimated_velocity: from positions alone, rad/s, [n]; None where nobody estimates them.
    """

    time: int
    period: float
    continues: bool
    joint_position: FloatArray
    joint_velocity: FloatArray
    estimated_velocity: FloatArray | None = None


class Rejection(NamedTuple):
    """Why a joint state is of no use: a short reason to count, and a sentence for the user."""

    reason: str
    sentence: str


class ArmStateReader:
    """Reads one arm out of a stream of joint states.

    Velocities that are missing are estimated from positions: differences through a first-order low-pass.
    """

    def __init__(self, joint_names: Sequence[str], limits: JointLimits, longest_gap: float = 0.1) -> None:
        """Expect these joints.

        Args:
            joint_names: as the driver calls them, in the arm's order, [n].
            limits: of the arm, [n]; what lies absurdly far outside is rejected.
            longest_gap: samples farther apart than this do not continue each other, s.
        Raises:
            ConfigError: the list of names has a wrong length, an empty name or a name twice.
        """
        self.joint_names = tuple(joint_names)
        joints = len(limits.torque)
        if len(self.joint_names) != joints or len(set(self.joint_names)) != joints or not all(self.joint_names):
            raise ConfigError(
                f"joint_names is {list(self.joint_names)}; give the {joints} different names of the arm's joints, "
                "from the base to the hand."
            )
        self.longest_gap = longest_gap
        self.rejections: Counter[str] = Counter()
        self.estimated_velocities = 0
        self._lowest = limits.position_lower - ABSURD_POSITION
        self._highest = limits.position_upper + ABSURD_POSITION
        self._fastest = ABSURD_VELOCITY * limits.velocity
        self._names_seen: tuple[str, ...] | None = None
        self._index: NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._last: ArmSample | None = None
        self._late: int | None = None

    def forget(self) -> None:
        """The next sample is the first one again."""
        self._last = None
        self._late = None

    def read(
        self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike = ()
    ) -> ArmSample | Rejection:
        """The arm's part of a joint state, or why there is none.

        Args:
            time: stamp, ns.
            names: of the joints in this message, in any order, others among them.
            position: rad, one per name.
            velocity: rad/s, one per name; estimated where it is empty, shorter, not finite or absurd.
        """
        outcome = self._read(time, names, position, velocity)
        if isinstance(outcome, Rejection):
            self.rejections[outcome.reason] += 1
        else:
            self._last = outcome
            self._late = None
        return outcome

    def _read(self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike) -> ArmSample | Rejection:
        missing = self._locate(names)
        if missing:
            return Rejection(
                OTHER_JOINTS if len(missing) == len(self.joint_names) else "missing joints",
                f"joint_states lacks {', '.join(missing)} (it has {', '.join(names) or 'no joint'}); "
                "set the parameter joint_names to the names that the driver uses.",
            )
        positions = np.asarray(position, dtype=np.float64)
        if positions.shape != (len(names),):
            return Rejection(
                "incomplete positions",
                f"joint_states has {len(names)} names but {positions.size} positions; one per name is needed.",
            )
        joint_position = positions[self._index]
        if not np.isfinite(joint_position).all():
            return Rejection("non-finite position", "joint_states has a position that is NaN or infinite.")
        if ((joint_position < self._lowest) | (joint_position > self._highest)).any():
            return Rejection(
                "absurd position",
                f"joint_states has the positions [{_listed(joint_position)}] rad, more than half a turn "
                "beyond the arm's limits; check the driver's units and joint_names.",
            )
        order = self._order(time)
        if isinstance(order, Rejection):
            return order
        period, continues = order
        estimate = self._estimate(joint_position, period, continues)
        joint_velocity = self._velocity(velocity, len(names), estimate)
        return ArmSample(time, period, continues, joint_position, joint_velocity, estimate)

    def _locate(self, names: Sequence[str]) -> list[str]:
        """Find the joints among the names; returns those that are missing. The last list of names is remembered."""
        seen = tuple(names)
        if seen != self._names_seen:
            place = {name: index for index, name in enumerate(seen)}
            missing = [name for name in self.joint_names if name not in place]
            if missing:
                return missing
            self._index = np.array([place[name] for name in self.joint_names], dtype=np.intp)
            self._names_seen = seen
        return []

    def _order(self, time: int) -> tuple[float, bool] | Rejection:
        """Seconds since the last sample and whether this one continues it."""
        if self._last is None:
            return 0.0, False
        if time == self._last.time:
            return Rejection("repeated stamp", "joint_states repeats the last stamp.")
        period = (time - self._last.time) / NANOSECONDS
        if period > 0.0:
            return (period, True) if period <= self.longest_gap else (0.0, False)
        # One message overtaken by another is dropped; the second old one in a row proves that time itself went back.
        if -period > LONGEST_LATENESS or (self._late is not None and time >= self._late):
            return 0.0, False
        self._late = time
        return Rejection("old stamp", "joint_states has a stamp older than the last one.")

    def _estimate(self, joint_position: FloatArray, period: float, continues: bool) -> FloatArray:
        """Velocities from positions alone."""
        last = self._last
        if not continues or last is None or last.estimated_velocity is None:
            return np.zeros(len(self.joint_names))
        raw = (joint_position - last.joint_position) / period
        passed = 1.0 - math.exp(-period / VELOCITY_TIME_CONSTANT)
        estimate = last.estimated_velocity + passed * (raw - last.estimated_velocity)
        return np.minimum(np.maximum(estimate, -self._fastest), self._fastest)

    def _velocity(self, velocity: ArrayLike, count: int, estimate: FloatArray) -> FloatArray:
        """The velocities of a message; estimates where they are missing, not finite or absurd."""
        given = np.asarray(velocity, dtype=np.float64)
        if given.shape != (count,):
            self.estimated_velocities += 1
            return estimate
        joint_velocity = given[self._index]
        # Also false for what is not a number.
        usable = np.abs(joint_velocity) <= self._fastest
        if usable.all():
            return joint_velocity
        self.estimated_velocities += 1
        return np.where(usable, joint_velocity, estimate)


def _listed(values: FloatArray) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
