"""Notices at once that the arm is not the one that the forward model knows, and takes the difference off the policy.

The forward model predicts the velocity after a control period; what is measured differs by what a load, a push or a
worn joint did meanwhile. While nothing does, the observer adds nothing: the torque stays bit-equal.
"""

from collections import Counter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.contact import Contact, ContactDetector
from spiking_controller.control.disturbance_filter import (
    FORCE,
    MASS,
    PLACE,
    RESIDUAL,
    correct,
    let_pass,
    load_response,
    solve,
)
from spiking_controller.robots.dynamics import ArmDynamics, DynamicState
from spiking_controller.robots.limits import TorqueLimiter
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.torque import TorqueLaw

FloatArray = NDArray[np.float64]

LARGEST_SHARE: Final = 0.75
"""The compensation takes at most this share of each torque limit."""
FIRST_NOISE: Final = (0.01, 0.06)
"""Standard deviation of the forward model's velocity error at rest, rad/s, and in motion, per unit of `_motion_size`,
before anything was learnt."""
LEAST_NOISE: Final = (0.001, 0.03)
"""They never count as less than this,"""
MOST_NOISE: Final = (0.05, 0.2)
"""and never as more."""
LEARNING_RATE: Final = 0.01
"""Of their squares, per control step."""
OUTLIER: Final = 9.0
"""No error teaches more than so many times the variance."""
REST: Final = 0.02
"""Below this `_motion_size` the arm is at rest."""
CORRELATION: Final = 6.0
"""The forward model's errors last: so many control steps together tell as much as one with independent noise."""
EVIDENCE: Final = 6.0
"""A load or a force that is so many variances from none, over its six numbers, is noticed."""
SIGNIFICANT: Final = 0.01
"""A disturbance below this share of every torque limit is left to the set-point integral."""
EXPECTED: Final = (2.0, 0.03, 5.0, 0.005)
"""Standard deviation of what may disturb before anything is noticed: mass, kg; mass times place, kg·m; force, N;
residual torque, as a share of its limit."""
ATTENTION: Final = 1.0
"""Time from which it is looked for, s."""
OPEN_STEPS: Final = 8
"""After a surprise the estimate follows freely for so many control steps."""
SURPRISE: Final = 40.0
"""A normalised innovation squared beyond this is a surprise."""
FREEDOM: Final = (1.0, 0.02, 5.0, 0.003)
"""Standard deviation that each of these steps adds, in the same order,"""
DRIFT: Final = (0.01, 0.001, 0.5, 0.001)
"""and that of all other steps."""
MEMORY: Final = (np.inf, 20.0, 2.0, 1.0)
"""Time in which each is forgotten where nothing renews it, s."""
SETTLING: Final = 0.4
"""After a surprise the set-point integral waits for this time, s."""
FADING: Final = 0.5
"""Compensation that is not needed, or not known, any more ends in this time, s."""
CALM: Final = 1.0
"""An insignificant disturbance is over after this time, s."""
ABSURD: Final = 2.0
"""A prediction that is off by this share of the velocity limit, or is not finite, is no measurement."""
FARTHEST: Final = 0.3
"""Place of a load in the hand, m."""
HEAVIEST: Final = 20.0
"""Mass that is believed, kg."""


class Disturbance(NamedTuple):
    """What acts on the arm beyond what the forward model knows.

    Attributes:
        torque: on the controlled joints, N·m, [m]; zero where nothing was noticed. In a `StepReport`, what is taken
            off.
        mass: of a load in the hand, kg.
        confidence: 1 where the mass is certain, 0 where nothing is known of it.
        place: of the load in the hand's axes, m, [3].
    """

    torque: FloatArray
    mass: float
    confidence: float
    place: FloatArray


class _Carried(NamedTuple):
    """What the compensation is made of until the next control step: inertia (law - damping q̇) - torque."""

    torque: FloatArray
    inertia: FloatArray


class DisturbanceObserver:
    """A Kalman filter on the forward model's velocity error; see `disturbance_filter` for what it estimates.

    With M(q) of the description, the error e after a control period T obeys

        (M/T + D/2) e = H x + sent - law

    where D is the damping of torque law and joints, `sent` the mean torque that acted, and `law` what would have been
    sent had there been the torque law alone, each after its limits.

    Attributes:
        events: predictions that could not be used, counted by name.
        contact: that began with the last control step, if one did.
        largest: compensation, N·m, [m].
    """

    def __init__(self, task: ReachTask) -> None:
        """Watch the arm of a task."""
        joints = task.controlled_joints
        arm = task.arm
        self.events: Counter[str] = Counter()
        self._joints = joints
        self._home = arm.home
        self._touch = ContactDetector(len(arm.joint_names), task.control_period)
        self._dynamics = ArmDynamics(arm, task.gravity_convention == "compensated")
        self._limiter = TorqueLimiter(arm.limits, task.soft_limit_fraction)
        self._limit = np.asarray(arm.limits.torque[:joints], dtype=np.float64)
        self.largest: FloatArray = LARGEST_SHARE * self._limit
        self._velocity_limit = task.velocity_scale
        self._friction = self._dynamics.damping[:joints]
        self._all_friction = self._dynamics.damping
        self._half_damping = 0.5 * np.diag(TorqueLaw(task).joint_damping + self._all_friction)
        self._period = task.control_period
        self._delay = task.delay_steps * task.physics_period
        self._residual = slice(RESIDUAL, RESIDUAL + joints)
        self._freedom, self._drift = (self._variances(deviations) for deviations in (FREEDOM, DRIFT))
        self._kept = np.exp(-self._period / self._spread(MEMORY, np.ones(joints)))
        self._expected = self._variances(EXPECTED)
        self._kept_in_calm = np.full_like(self._kept, np.exp(-self._period / ATTENTION))
        self._drift_in_calm = self._expected * (1.0 - self._kept_in_calm**2)
        everything = len(arm.joint_names)
        self._all_response: FloatArray = np.zeros((everything, RESIDUAL + everything))
        self._response = self._all_response[:joints, : RESIDUAL + joints]
        self._none: FloatArray = np.zeros(joints)
        self.forget()
        self.reset()

    def _spread(self, values: tuple[float, float, float, float], residual: FloatArray) -> FloatArray:
        """One number for each entry of the state."""
        mass, place, force, rest = values
        return np.concatenate(([mass], [place] * 3, [force] * 2, rest * residual))

    def _variances(self, deviations: tuple[float, float, float, float]) -> FloatArray:
        return np.square(self._spread(deviations, self._limit))

    def forget(self) -> None:
        """Other networks: nothing is known of their errors. What disturbs the arm stays: a load is not put down."""
        self._noise = np.tile(np.square(FIRST_NOISE)[:, None], (1, self._joints))

    def reset(self) -> None:
        """Nothing disturbs the arm."""
        self._state: FloatArray = np.zeros(RESIDUAL + self._joints)
        self._covariance: FloatArray = np.diag(self._expected)
        self.is_active = False
        self._open = self._calm = self._blind = 0
        self._weight = 0.0
        self._settled_in = 0.0
        self._carried: _Carried | None = None
        self._before: DynamicState | None = None
        self._arm_before = (self._all_friction, self._all_friction)
        self._hand_before: FloatArray | None = None
        self._last_size = 0.0
        self._action = np.zeros(self._joints)
        self._last: tuple[FloatArray, FloatArray] | None = None
        self.contact: Contact | None = None
        self._touch.reset()
        nothing = np.zeros((2, len(self._all_friction)))
        self._acted = (nothing, nothing)
        self._impulse = np.zeros_like(nothing)
        self._elapsed = 0.0

    def warm_up(self) -> None:
        """Run everything once, so that no control step need wait for it to be compiled or loaded; leaves no trace."""
        noise, home = self._noise.copy(), np.asarray(self._home, dtype=np.float64)
        nothing, at_rest = np.zeros(self._joints), np.zeros_like(home)
        for is_active in (False, True):
            self.reset()
            for _ in range(3):
                self.pass_time(self._period, at_rest)
                self.is_active = is_active
                self.observe(home, at_rest, nothing, nothing)
                self.compensation(nothing, nothing)
                self.add_sent(at_rest, home, at_rest, home, at_rest, self._period)
        self._noise = noise
        self.reset()

    @property
    def is_settling(self) -> bool:
        """Whether the estimate still follows a surprise."""
        return self._settled_in > 0.0

    @property
    def disturbance(self) -> Disturbance:
        """What is known now."""
        mass, carried = float(self._state[MASS]), self._carried
        deviation = float(np.sqrt(max(self._covariance[MASS, MASS], 0.0)))
        confidence = max(0.0, 1.0 - deviation / max(abs(mass), 0.1)) if self.is_active and mass > 0.0 else 0.0
        return Disturbance(
            self._none if carried is None else carried.torque,
            max(mass, 0.0) if self.is_active else 0.0,
            confidence,
            self._place(mass),
        )

    def _place(self, mass: float) -> FloatArray:
        return np.clip(self._state[PLACE] / max(mass, 0.1), -FARTHEST, FARTHEST)

    def pass_time(self, period: float, sent: FloatArray) -> None:
        """A joint state came; note what has acted since the one before.

        Args:
            period: since then, s.
            sent: the last torque, N·m, [n]; another one than `add_sent` was told has been sent by somebody else.
        """
        if self._last is not None and self._last[1] is not sent:
            # Nobody knows since when.
            self._last = (sent, sent)
            self._elapsed = -np.inf
        late = min(self._delay, period)
        self._impulse += late * self._acted[0] + (period - late) * self._acted[1]
        self._elapsed += period

    def add_sent(
        self,
        law: FloatArray,
        wanted: FloatArray,
        sent: FloatArray,
        position: FloatArray,
        velocity: FloatArray,
        period: float,
    ) -> None:
        """Note a torque and what it would have been with the torque law alone.

        Args:
            law: of the torque law, before any limit, N·m, [n].
            wanted: with all that was added to it; the same array where nothing was.
            sent: after the limits, N·m, [n].
            position, velocity: of the joint state that it answers, rad and rad/s, [n].
            period: for which the rate limit lets the torque change, s.
        """
        last = self._last
        if last is None or (wanted is law and last[0] is last[1]):
            alone = sent
        else:
            alone = self._limiter.limit(law, last[0], position, velocity, period)
        self._last = (alone, sent)
        self._acted = (self._acted[1], np.stack((sent - alone, sent)))

    def observe(self, position: FloatArray, velocity: FloatArray, error: FloatArray | None, action: FloatArray) -> None:
        """A control step begins.

        Args:
            position, velocity: rad and rad/s, [n].
            error: measured minus predicted velocity, rad/s, [m]; None where nothing was predicted for now.
            action: of the last control step, which the error followed, [m].
        """
        joints = self._joints
        now = self._dynamics.state(position, velocity)
        hand = np.concatenate((now.jacobian @ velocity, now.turning_jacobian @ velocity))
        known, hand_known = self._before, self._hand_before
        (extra, sent), elapsed = self._impulse / max(self._elapsed, 1e-9), self._elapsed
        self.contact = None
        size = moving = _motion_size(velocity[:joints] / self._velocity_limit, action, self._action)
        self._action = action
        if error is not None and not (np.abs(error) < ABSURD * self._velocity_limit).all():
            self.events["absurd prediction"] += 1
            error = None
        if error is None or known is None or hand_known is None or not 0.0 < elapsed < 2.0 * self._period:
            self._go_blind()
        else:
            self._blind = 0
            acceleration = (hand - hand_known) / elapsed
            inertia = 0.5 * (known.mass_matrix + now.mass_matrix) / elapsed + self._half_damping
            load_response(
                now.jacobian,
                now.turning_jacobian,
                now.rotation,
                self._dynamics.gravity - acceleration[:3],
                hand[3:],
                acceleration[3:],
                self._all_response,
            )
            size = max(size, self._last_size)
            self._feel(now, known, inertia, sent, position, velocity, size)
            right = np.column_stack((self._response, extra[:joints]))
            solved = solve(inertia[:joints, :joints], right)
            self._measure(np.ascontiguousarray(solved[:, :-1]), error - solved[:, -1], size)
        self._carry(now, known, velocity, hand)
        self._before, self._hand_before, self._last_size = now, hand, moving
        self._arm_before = (position, velocity)
        self._impulse = np.zeros_like(self._impulse)
        self._elapsed = 0.0

    def _feel(
        self,
        now: DynamicState,
        known: DynamicState,
        inertia: FloatArray,
        sent: FloatArray,
        position: FloatArray,
        velocity: FloatArray,
        size: float,
    ) -> None:
        """Does somebody touch the arm? By the rigid body: torque that neither motors nor the load explain."""
        position_before, velocity_before = self._arm_before
        resisting = 0.5 * (now.bias + known.bias) + self._all_friction * (position - position_before) / self._elapsed
        acceleration = (velocity - velocity_before) / self._elapsed
        torque = 0.5 * (known.mass_matrix + now.mass_matrix) @ acceleration + resisting - sent
        self.contact = self._touch.observe(torque, inertia, now.jacobian, self._all_response[:, : FORCE.start], size)

    def _measure(self, response: FloatArray, error: FloatArray, size: float) -> None:
        """Take one error, rad/s, [m], with its response to the state, [m, s]."""
        rest, motion = self._noise
        variance = CORRELATION * (rest + size**2 * motion)
        if self.is_active:
            let_pass(self._state, self._covariance, self._kept, self._drift)
            state, covariance = self._state.copy(), self._covariance.copy()
            if self._open == 0 and correct(state, covariance, response, error, variance) > SURPRISE:
                self._open_up()
            if self._open > 0:
                self._open -= 1
                self._covariance[np.diag_indices_from(self._covariance)] += self._freedom
            correct(self._state, self._covariance, response, error, variance)
        else:
            let_pass(self._state, self._covariance, self._kept_in_calm, self._drift_in_calm)
            correct(self._state, self._covariance, response, error, variance)
            self._watch(error, size)
        np.clip(self._state[:1], -HEAVIEST, HEAVIEST, out=self._state[:1])
        if not (np.isfinite(self._state).all() and np.isfinite(self._covariance).all()):
            self.events["estimate lost"] += 1
            self.reset()

    def _watch(self, error: FloatArray, size: float) -> None:
        """Nothing was noticed so far: is there something now?"""
        load = self._state[:RESIDUAL]
        evidence = float(load @ solve(self._covariance[:RESIDUAL, :RESIDUAL], load[:, None])[:, 0])
        if evidence > EVIDENCE:
            self.is_active = True
            self._open_up()
        elif evidence < 0.5 * EVIDENCE:
            beyond_rest = np.maximum(error**2 - self._noise[0], 0.0)
            kind, seen = (0, error**2) if size < REST else (1, beyond_rest / size**2)
            noise = self._noise[kind]
            noise += LEARNING_RATE * (np.minimum(seen, OUTLIER * noise) - noise)
            np.clip(noise, LEAST_NOISE[kind] ** 2, MOST_NOISE[kind] ** 2, out=noise)

    def _open_up(self) -> None:
        self._open = OPEN_STEPS
        self._settled_in = SETTLING

    def _go_blind(self) -> None:
        """No measurement: what was known fades."""
        self._blind += 1
        if self.is_active and self._blind * self._period > FADING:
            self.reset()

    def _carry(self, now: DynamicState, known: DynamicState | None, velocity: FloatArray, hand: FloatArray) -> None:
        """Prepare the compensation until the next control step."""
        self._settled_in = max(0.0, self._settled_in - self._period)
        if not self.is_active:
            self._carried = None
            return
        joints = self._joints
        drift = np.zeros(6)
        if known is not None:
            drift[:3] = (now.jacobian - known.jacobian) @ velocity / self._period
            drift[3:] = (now.turning_jacobian - known.turning_jacobian) @ velocity / self._period
        load_response(
            now.jacobian,
            now.turning_jacobian,
            now.rotation,
            self._dynamics.gravity - drift[:3],
            hand[3:],
            drift[3:],
            self._all_response,
        )
        torque = self._response @ self._state
        mass = max(float(self._state[MASS]), 0.0)
        x, y, z = now.rotation @ self._place(mass)
        across = np.array([[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]])
        # ω x c for the angular velocity that each joint gives the hand.
        moved = now.jacobian[:, :joints] + across @ now.turning_jacobian[:, :joints]
        inertia = mass * moved.T @ solve(now.mass_matrix[:joints, :joints], moved.T).T
        is_significant = bool((np.abs(torque) > SIGNIFICANT * self._limit).any())
        self._calm = 0 if is_significant or self._open else self._calm + 1
        fades = self._blind > 0 or self._calm * self._period > CALM
        step = self._period / FADING
        self._weight = max(0.0, self._weight - step) if fades else min(1.0, self._weight + 4.0 * step)
        if self._weight == 0.0 and self._calm:
            self.reset()
            return
        self._carried = _Carried(torque, inertia)

    def compensation(self, law: FloatArray, velocity: FloatArray) -> FloatArray | None:
        """What takes the disturbance off the policy now, N·m, [m]; None where there is nothing to add.

        Args:
            law: torque of the policy and of damping, N·m, [m].
            velocity: rad/s, [m].
        """
        carried = self._carried
        if carried is None:
            return None
        wanted = carried.torque - carried.inertia @ (law - self._friction * velocity)
        return np.clip(-self._weight * wanted, -self.largest, self.largest)


def _motion_size(velocity: FloatArray, action: FloatArray, before: FloatArray) -> float:
    """How much the arm moves or is driven: the forward model's errors grow with it, the slower the larger it is.

    Args:
        velocity: as a share of its limit, [m].
        action, before: [m].
    """
    length = float(np.sqrt(velocity @ velocity + action @ action + before @ before))
    return length / (1.0 + 0.5 * length)
