"""Finds out joint states that cannot be true: positions, velocities, stamps and torques are held against each other.

A driver may fill velocities with zeros, freeze, mix joints up or tell the past with fresh stamps, and still send
messages that look right one by one. What sensors of real arms do (noise, quantised angles, values that are renewed more
slowly than they are published) is no lie.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.fault import Fault
from spiking_controller.control.joint_checks import FROZEN_WAY, JUMP_WAY, find_frozen, find_jump
from spiking_controller.control.response_lag import ResponseLag
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.robots.limits import JointLimits
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

JUMP: Final = "jump"
"""The kind of fault in which angles may be wrong for good; they must come back, or somebody must activate again."""
GAP_JUMP: Final = "jump over a gap"
"""The kind of fault in which nobody knows how the arm came to where it is now."""
CONTRADICTION: Final = "contradiction"
"""The kind of fault in which velocities and angles do not go together."""
LATE: Final = "late joint states"
"""The kind of fault in which states tell the past."""
WINDOWS: Final = (0.04, 0.1, 0.4)
"""The way that positions show and the one that velocities tell are compared over these times, s."""
WAY_TOLERANCE: Final = 0.01
"""Both may differ by this, rad, for noise and quantised angles,"""
WAY_FRACTION: Final = 0.3
"""and by this fraction of the longer one."""
FILTER_DELAY: Final = 0.02
"""Velocities may be late by this, s, which shows in all but the shortest window: drivers filter them."""
LONGEST_INTERVAL: Final = 0.1
"""Angles that are renewed more rarely than this, s, are not renewed but frozen, or at rest."""
FEWEST_RENEWALS: Final = 3
"""Before so many renewals nobody knows how often they come."""
LONGEST_STEP: Final = 0.04
"""Angles are renewed at least this often, s, or with every third message: an arm cannot move for longer unseen."""
SPACING: Final = 0.004
"""Between two points that are kept for the comparison, s, at least."""
KEPT: Final = 128
"""Such points; enough for the longest window."""
SHIFTED_SPEED: Final = 0.2
"""Of the arm, rad/s: faster joints that all jump along their velocities have been shifted in time,"""
SHIFTED_REST: Final = 0.5
"""with this fraction of the jump left over at most."""
UNSEEN_FACTOR: Final = 1.5
"""An arm may go so many times as far unseen as it should by reckoning: it may be lighter than its description."""
OUTLIER: Final = 0.008
"""What jumps and comes back within this time, s, is an outlier and left out."""
SLOWEST_ESTIMATE: Final = 0.012
"""Velocities are estimated from positions that are renewed at least this often, s; slower ones make them too late."""
TRUSTED_WAY: Final = 0.3
"""Velocities that were found wrong are believed again once they have been right over this way, rad."""


class Doubt(NamedTuple):
    """Why a sample cannot be believed.

    Attributes:
        fault: in words.
        since: stamp of the last state that can, ns.
        velocity: of the joints then, rad/s, [n], where it is not the one that was told.
        age: of that state already when it was told, s.
    """

    fault: Fault
    since: int
    velocity: FloatArray | None = None
    age: float = 0.0


class StateCheck:
    """Watches the samples of one arm.

    Attributes:
        contradiction: that made velocities be estimated from positions, one sentence; empty while they are believed.
        contradictions: how often that began.
        outliers: samples that were left out.
    """

    def __init__(self, joint_names: Sequence[str], limits: JointLimits, dynamics: ArmDynamics, home: ArrayLike) -> None:
        """Watch this arm.

        Args:
            joint_names: as the driver calls them, [n].
            limits: of the arm, [n].
            dynamics: of the arm.
            home: a posture in which its inertia is typical, rad, [n].
        """
        self._names = tuple(joint_names)
        self._limits = limits
        self._inertia = np.diag(dynamics.mass_matrix(home))
        self._lag = ResponseLag(dynamics)
        joints = len(self._names)
        self._no_torque: FloatArray = np.zeros(joints)
        self._times = np.zeros(KEPT)
        self._points = np.zeros((3, KEPT, joints))
        self.contradictions = self.outliers = 0
        self.forget()

    def forget(self) -> None:
        """The next sample is the first one; velocities are believed."""
        self.contradiction = ""
        self._last: ArmSample | None = None
        self._odd_since: int | None = None
        self._right_way = 0.0

    def try_again(self) -> None:
        """Forget what should have moved: an angle that stays the same is no evidence until the arm is driven."""
        self._pushed_velocity[:] = self._pushed_way[:] = self._expected[:] = 0.0
        self._rest_torque[:] = np.nan

    def examine(
        self, sample: ArmSample, torque: FloatArray | None = None, unseen: FloatArray | None = None
    ) -> ArmSample | Doubt | None:
        """Hold a sample against those before it.

        Args:
            sample: the next one.
            torque: that the arm has got since the one before, N·m, [n]; None where nobody knows: then states that
                answer it late, or not at all, are not found.
            unseen: way that each joint must have gone since the sample before by reckoning, rad, [n], where that was a
                while ago; it may have been pushed beyond its velocity limit. None where nobody reckoned.
        Returns:
            The sample, its velocities estimated from positions where those it came with are wrong; why it cannot be
            believed; or None where it is an outlier, to be left out.
        """
        last = self._last
        if last is None or sample.time <= last.time:
            self._begin(sample)
            return sample
        if not sample.continues:
            fault = self._after_gap(sample, last, unseen)
            self._begin(sample)
            return Doubt(fault, last.time) if fault else sample
        position = sample.joint_position
        period = (sample.time - last.time) / NANOSECONDS
        self._age += period
        joint = self._jump(sample, last, period)
        if joint >= 0:
            if self._odd_since is None:
                self._odd_since = last.time
            if sample.time - self._odd_since <= OUTLIER * NANOSECONDS:
                self.outliers += 1
                return None
            jumped = Doubt(self._jumped(sample, last, joint), self._odd_since)
            self._begin(sample)
            return jumped
        self._odd_since = None
        if (position != last.joint_position).any():
            self._renew(sample)
        doubt = self._frozen(sample, last, torque, period)
        self._last = sample
        if doubt:
            return doubt
        if torque is not None and (lag := self._lag.add(position, sample.joint_velocity, torque, period)):
            self._lag.forget()
            return Doubt(
                Fault(
                    LATE,
                    f"joint_states answers the torque {1e3 * lag:.0f} ms late although its stamps are fresh; check the "
                    "driver's filters and queues.",
                ),
                sample.time,
                age=lag,
            )
        if self.contradiction and sample.estimated_velocity is not None:
            return sample._replace(joint_velocity=sample.estimated_velocity)
        return sample

    def _begin(self, sample: ArmSample) -> None:
        joints = len(self._names)
        self._last = sample
        self._odd_since = None
        self._age = np.zeros(joints)
        self._interval = 0.0
        self._renewals = 0
        self._renewed_at = sample.time
        self._renewed_velocity = sample.joint_velocity
        self._told = np.zeros(joints)
        self._count = 1
        self._first = [0] * len(WINDOWS)
        self._times[0] = sample.time / NANOSECONDS
        self._points[:, 0] = sample.joint_position, self._told, sample.joint_velocity
        self._seen = np.zeros(joints)
        self._expected = np.zeros(joints)
        self._pushed_velocity, self._pushed_way = np.zeros(joints), np.zeros(joints)
        self._rest_torque = np.full(joints, np.nan)
        self._found: Fault | None = None
        self._lag.forget()

    def _after_gap(self, sample: ArmSample, last: ArmSample, unseen: FloatArray | None) -> Fault | None:
        gap = (sample.time - last.time) / NANOSECONDS
        way = np.abs(sample.joint_position - last.joint_position)
        farthest = self._limits.velocity * gap
        if unseen is not None:
            farthest = np.maximum(farthest, UNSEEN_FACTOR * unseen)
        farther = way - farthest - JUMP_WAY
        joint = int(farther.argmax())
        if farther[joint] <= 0.0:
            return None
        return Fault(
            GAP_JUMP,
            f"joint_states has {self._names[joint]} at {sample.joint_position[joint]:.3f} rad after a gap of "
            f"{1e3 * gap:.0f} ms, where it was at {last.joint_position[joint]:.3f} rad before; control resumes once "
            "the arm has rested.",
        )

    def _jumped(self, sample: ArmSample, last: ArmSample, joint: int) -> Fault:
        shift = self._time_shift(sample, last)
        if shift:
            return Fault(
                LATE,
                f"joint_states jumps by {1e3 * shift:.0f} ms of the arm's motion: the driver tells the past, or the "
                "present again; check its queues.",
            )
        milliseconds = (sample.time - last.time) * 1e3 / NANOSECONDS
        return Fault(
            JUMP,
            f"joint_states has {self._names[joint]} jump from {last.joint_position[joint]:.3f} to "
            f"{sample.joint_position[joint]:.3f} rad and from {last.joint_velocity[joint]:.2f} to "
            f"{sample.joint_velocity[joint]:.2f} rad/s within {milliseconds:.0f} ms, which no arm can; "
            "check the driver for delayed, mixed or offset values. Control resumes when the angles return, or when it "
            "is activated again.",
        )

    def _time_shift(self, sample: ArmSample, last: ArmSample) -> float:
        """The time, s, by which all joints have jumped along their motion; 0 where it is no such jump."""
        velocity = 0.5 * (sample.joint_velocity + last.joint_velocity)
        way = sample.joint_position - last.joint_position
        jump = way - velocity * np.minimum(self._age, _longest_step((sample.time - last.time) / NANOSECONDS))
        speed = float(velocity @ velocity)
        if speed < SHIFTED_SPEED**2:
            return 0.0
        shift = float(jump @ velocity) / speed
        rest = jump - shift * velocity
        return shift if float(rest @ rest) < SHIFTED_REST**2 * float(jump @ jump) else 0.0

    def _jump(self, sample: ArmSample, last: ArmSample, period: float) -> int:
        """The joint that has jumped; -1 where none has."""
        # The stamps of values that are renewed more slowly than they are published are off by a period.
        off = period if self._interval > 1.5 * period else 0.0
        return find_jump(
            sample.joint_position,
            last.joint_position,
            sample.joint_velocity,
            last.joint_velocity,
            self._age,
            self._limits.velocity,
            off,
            _longest_step(period),
            max((sample.time - self._renewed_at) / NANOSECONDS, period),
            not self.contradiction,
        )

    def _renew(self, sample: ArmSample) -> None:
        """Positions are new: compare their way with that of the velocities."""
        now = sample.time / NANOSECONDS
        interval = (sample.time - self._renewed_at) / NANOSECONDS
        # The longest interval of late; forgets within a second or so.
        self._renewals += 1
        if interval < LONGEST_INTERVAL:
            self._interval = max(interval, self._interval * (1.0 - interval))
        self._told = self._told + 0.5 * interval * (sample.joint_velocity + self._renewed_velocity)
        self._renewed_at, self._renewed_velocity = sample.time, sample.joint_velocity
        previous = self._times[(self._count - 1) % KEPT]
        if now - previous < SPACING:
            return
        place = self._count % KEPT
        self._times[place] = now
        self._points[:, place] = sample.joint_position, self._told, sample.joint_velocity
        self._count += 1
        self._compare(now)

    def _compare(self, now: float) -> None:
        place = (self._count - 1) % KEPT
        consistent = True
        for index, window in enumerate(WINDOWS):
            first = max(self._first[index], self._count - KEPT)
            while now - self._times[first % KEPT] > window + 1e-9 and first < self._count - 1:
                first += 1
            self._first[index] = first
            span = now - self._times[first % KEPT]
            if span <= 0.0:
                continue
            moved, told, change = self._points[:, place] - self._points[:, first % KEPT]
            if index == 0:
                self._seen = np.abs(moved) / span
                step = float(np.abs(moved).max()) * SPACING / span
            slack = self._interval / span if self._interval > 2.0 * SPACING else 0.0
            longer = np.maximum(np.abs(moved), np.abs(told))
            tolerance = WAY_TOLERANCE + (WAY_FRACTION + slack) * longer
            if index > 0:
                tolerance += FILTER_DELAY * np.abs(change)
            excess = np.abs(moved - told) - tolerance
            joint = int(excess.argmax())
            if excess[joint] > 0.0:
                consistent = False
                self._contradict(joint, moved, told, span)
                break
        if self.contradiction and consistent:
            self._right_way += step
            if self._right_way > TRUSTED_WAY:
                self.contradiction = ""

    def _contradict(self, joint: int, moved: FloatArray, told: FloatArray, span: float) -> None:
        self._right_way = 0.0
        sentence = (
            f"joint_states tells {told[joint] / span:.2f} rad/s of {self._names[joint]}, whose angle moves at "
            f"{moved[joint] / span:.2f} rad/s"
        )
        opposite = (moved * told < 0.0) & (np.minimum(np.abs(moved), np.abs(told)) > WAY_TOLERANCE)
        if opposite.any():
            self._found = Fault(CONTRADICTION, f"{sentence}; check the driver's signs and the order of its joints.")
        elif self._interval > SLOWEST_ESTIMATE:
            self._found = Fault(
                CONTRADICTION,
                f"{sentence}, and angles are renewed only every {1e3 * self._interval:.0f} ms, too slowly to estimate "
                "velocities from; check the driver's velocities.",
            )
        elif not self.contradiction:
            self.contradictions += 1
            self.contradiction = f"{sentence}; velocities are estimated from angles, check the driver's units."

    def _frozen(self, sample: ArmSample, last: ArmSample, torque: FloatArray | None, period: float) -> Doubt | None:
        """Why a joint tells the same angle to the last bit although it must have moved; what `_compare` found first."""
        if found := self._found:
            self._found = None
            return Doubt(found, sample.time, sample.estimated_velocity)
        joint = find_frozen(
            sample.joint_position,
            last.joint_position,
            sample.joint_velocity,
            last.joint_velocity,
            self._no_torque if torque is None else torque,
            period,
            max(2.5 * self._interval, 0.004) if self._renewals > FEWEST_RENEWALS else LONGEST_INTERVAL,
            not self.contradiction,
            self._inertia,
            self._seen,
            self._age,
            self._expected,
            self._rest_torque,
            self._pushed_velocity,
            self._pushed_way,
        )
        if joint < 0:
            return None
        milliseconds = 1e3 * self._age[joint]
        # The last state with another angle; what came with the first frozen one may have been a lie already.
        since = sample.time - round((self._age[joint] + max(self._interval, period)) * NANOSECONDS)
        if (self._age >= self._age[joint] - period).all():
            sentence = f"joint_states tells the same angles for {milliseconds:.0f} ms while the arm moves; "
            return Doubt(Fault("frozen", sentence + "restart the driver."), since)
        fault = Fault(
            "stuck joint",
            f"joint_states tells {sample.joint_position[joint]:.4f} rad of {self._names[joint]} for {milliseconds:.0f} "
            f"ms, although it {'moved' if self._expected[joint] > FROZEN_WAY else 'is driven'}; its encoder is stuck, "
            "or something blocks it.",
        )
        return Doubt(fault, since)


def _longest_step(period: float) -> float:
    """For how long an arm may have moved unseen where messages come with this period, s."""
    return max(LONGEST_STEP, 2.5 * period)
