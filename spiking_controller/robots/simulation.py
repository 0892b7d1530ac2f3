"""Simulates one arm in MuJoCo: takes torques, gives joint states, in steps of a fixed period.

Beyond the arm as its description has it, an `ArmCondition` says what is worn, loaded or noisy, and may change at any
time; `push` lets somebody push the arm.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import Arm
from spiking_controller.robots.description import PAYLOAD
from spiking_controller.robots.mujoco_model import UNSTABLE, joint_addresses, motors
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

LARGEST_TIMESTEP = 0.002
"""Of the physics, s; what the tasks are trained with."""


class HandPose(NamedTuple):
    """Position, m, [3], and orientation as quaternion x, y, z, w, [4], in the arm's base frame."""

    position: FloatArray
    orientation: FloatArray


class JointReading(NamedTuple):
    """Joint angles, rad, velocities, rad/s, and motor torques, N·m, each [n]."""

    position: FloatArray
    velocity: FloatArray
    effort: FloatArray


@dataclass(frozen=True)
class ArmCondition:
    """What differs from the arm as its description has it; by default nothing does.

    Where a value is a tuple, it holds one number for all joints or one number for each.

    Attributes:
        payload_mass: of a point mass that the hand holds at its tool point, kg.
        payload_compensated: the arm's own gravity compensation, where it has one, knows of the payload.
        friction_factor: times the description's joint friction (viscous and dry).
        dry_friction: dry (Coulomb) joint friction on top, N·m.
        motor_strength: what a motor gives, as a share of what it is told to.
        position_noise: standard deviation of the white noise on measured angles, rad.
        velocity_noise: the same of measured velocities, rad/s.
        effort_noise: the same of measured torques, N·m.
        observation_delay: age of what the sensors tell, s; rounded to whole periods of the simulation.
    """

    payload_mass: float = 0.0
    payload_compensated: bool = False
    friction_factor: tuple[float, ...] = (1.0,)
    dry_friction: tuple[float, ...] = (0.0,)
    motor_strength: tuple[float, ...] = (1.0,)
    position_noise: float = 0.0
    velocity_noise: float = 0.0
    effort_noise: float = 0.0
    observation_delay: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: one is not finite or below zero.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not np.all(np.isfinite(value)) or np.any(np.less(value, 0.0)):
                raise ConfigError(f"{field.name} is {value}; give finite numbers that are not below zero.")


class ConditionedModel:
    """An arm's model that an `ArmCondition` changes; what it says of the sensors is not the model's."""

    def __init__(self, model: mujoco.MjModel, arm: Arm, gravity_compensation: bool) -> None:
        """Take a model as its description has it.

        Args:
            model: of the arm, loaded with a payload; `apply` changes it.
            arm: which one.
            gravity_compensation: the arm carries its own weight.
        """
        self.model = model
        self._joints = len(arm.joint_names)
        self._gravity_compensation = gravity_compensation
        self._velocity = joint_addresses(model, arm.joint_names).velocity
        self._motors = motors(model, arm)
        self._payload = model.body(PAYLOAD).id
        self._damping = model.dof_damping[self._velocity].copy()
        self._dry_friction = model.dof_frictionloss[self._velocity].copy()
        self._gain = model.actuator_gainprm[self._motors, 0].copy()

    def apply(self, condition: ArmCondition) -> None:
        """Change the model from now on.

        Raises:
            ConfigError: a tuple has neither one number nor one for each joint. Nothing changes then.
        """
        friction_factor = self._per_joint("friction_factor", condition.friction_factor)
        dry_friction = self._per_joint("dry_friction", condition.dry_friction)
        strength = self._per_joint("motor_strength", condition.motor_strength)
        model = self.model
        model.dof_damping[self._velocity] = friction_factor * self._damping
        model.dof_frictionloss[self._velocity] = friction_factor * self._dry_friction + dry_friction
        model.actuator_gainprm[self._motors, 0] = strength * self._gain
        model.body_gravcomp[self._payload] = float(condition.payload_compensated and self._gravity_compensation)
        if model.body_mass[self._payload] != condition.payload_mass:
            model.body_mass[self._payload] = condition.payload_mass
            # On data of its own, since it leaves the arm in another posture.
            mujoco.mj_setConst(model, mujoco.MjData(model))

    def _per_joint(self, name: str, values: Sequence[float]) -> FloatArray:
        if len(values) not in (1, self._joints):
            raise ConfigError(
                f"{name} has {len(values)} numbers; give one for all joints, or {self._joints}: one for each joint."
            )
        return np.broadcast_to(np.asarray(values, dtype=np.float64), self._joints)


class ArmSimulation:
    """An arm in MuJoCo that starts at home. Joint arrays are in the order of the arm's `joint_names`, [n].

    The same calls give the same numbers, noise included: `reset` starts the noise anew from its seed.
    """

    def __init__(
        self,
        arm: Arm,
        period: float = LARGEST_TIMESTEP,
        gravity_compensation: bool = True,
        condition: ArmCondition | None = None,
        seed: int = 0,
    ) -> None:
        """Load the arm.

        Args:
            arm: which one.
            period: of `advance`, s; longer ones are made of several physics steps.
            gravity_compensation: the arm carries its own weight.
            condition: what differs from the arm's description; by default nothing.
            seed: of the sensor noise.
        Raises:
            RobotModelError: the model cannot be loaded.
            ConfigError: see `apply`.
        """
        self.arm = arm
        self.model = arm.load_model(gravity_compensation, payload=True)
        self.data = mujoco.MjData(self.model)
        self._substeps = max(1, round(np.ceil(period / LARGEST_TIMESTEP - 1e-9)))
        self.model.opt.timestep = period / self._substeps
        self._period = round(period * NANOSECONDS)
        self._seed = seed
        self._changeable = ConditionedModel(self.model, arm, gravity_compensation)
        self._position, self._velocity = joint_addresses(self.model, arm.joint_names)
        self._motors = motors(self.model, arm)
        self._hand = self.model.site(arm.hand_site).id
        payload = self.model.body(PAYLOAD).id
        base = self.model.body(arm.base_frame).id
        self._links = {
            self.model.body(body).name: body
            for body in range(self.model.nbody)
            if self.model.body_rootid[body] == base and body not in (base, payload)
        }
        self._readings: deque[JointReading] = deque(maxlen=1)
        self._push: tuple[FloatArray, int | None] | None = None
        self.explosions = 0
        self.apply(condition or ArmCondition())
        self.reset()

    def apply(self, condition: ArmCondition) -> None:
        """Change the arm's condition from now on; its posture and motion stay.

        Raises:
            ConfigError: a tuple has neither one number nor one for each joint. Nothing changes then.
        """
        self._changeable.apply(condition)
        self.condition = condition
        delay = round(condition.observation_delay * NANOSECONDS / self._period)
        # A longer delay starts from the oldest reading that there is; a shorter one skips some.
        self._readings = deque(self._readings, maxlen=delay + 1)

    def push(
        self, force: ArrayLike, torque: ArrayLike = (0.0, 0.0, 0.0), frame: str = "", duration: float = 0.1
    ) -> None:
        """Push the arm from outside, from now on for a while. A new push takes the place of the last one.

        Args:
            force: N, [3].
            torque: N·m, [3].
            frame: empty or the arm's base frame: the push acts on the hand, at its tool point, along the base's axes.
                The name of a link: on that link, at its origin, along its axes, which turn with it.
            duration: s of simulated time, rounded up to whole periods.
        Raises:
            ConfigError: a number is not finite, or there is no such link.
        """
        wrench = np.array([force, torque], dtype=np.float64)
        if not np.isfinite(wrench).all() or not np.isfinite(duration):
            raise ConfigError(f"a push of {wrench.tolist()} for {duration} s is not finite; give finite numbers.")
        if frame not in ("", self.arm.base_frame, *self._links):
            raise ConfigError(
                f"a push in the frame '{frame}' is not possible; give {self.arm.base_frame} or one of the links "
                f"{', '.join(self._links)}."
            )
        self._push = wrench, self._links.get(frame)
        self._push_end = self.time + round(duration * NANOSECONDS)

    def reset(self) -> None:
        """At rest at home (the model's keyframe "home"), time zero, with nobody pushing."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._position] = self.arm.home
        mujoco.mj_forward(self.model, self.data)
        self.time = 0
        """Simulated time, ns."""
        self._push = None
        self._push_end = 0
        self._noise = np.random.default_rng(self._seed)
        self._readings.clear()
        self._sense()

    def place(self, joint_position: ArrayLike, joint_velocity: ArrayLike) -> None:
        """Put the arm into this state at the present time; rad and rad/s, [n]."""
        self.data.qpos[self._position] = joint_position
        self.data.qvel[self._velocity] = joint_velocity
        self.data.qacc_warmstart[:] = 0.0
        mujoco.mj_forward(self.model, self.data)
        self._sense()

    def advance(self, torque: ArrayLike) -> None:
        """Let one period pass under a constant torque, N·m, [n]; the model clips it to the motors' range.

        A simulation that explodes starts again at home, at its present time, and `explosions` counts it.
        """
        self.data.ctrl[self._motors] = torque
        if self._push is not None:
            self._act_on_push(*self._push)
        mujoco.mj_step(self.model, self.data, self._substeps)
        self.time += self._period
        if self._exploded():
            self.explosions += 1
            time = self.time
            self.reset()
            self.time = time
        else:
            self._sense()

    def _act_on_push(self, wrench: FloatArray, link: int | None) -> None:
        """Turn the push into joint torques for the coming period, or end it."""
        self.data.qfrc_applied[:] = 0.0
        if self.time >= self._push_end:
            self._push = None
            return
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        if link is None:
            body = int(self.model.site_bodyid[self._hand])
            axes = self.data.body(self.arm.base_frame).xmat.reshape(3, 3)
            point = self.data.site_xpos[self._hand]
        else:
            body, axes, point = link, self.data.xmat[link].reshape(3, 3), self.data.xpos[link]
        force, torque = wrench @ axes.T
        mujoco.mj_applyFT(self.model, self.data, force, torque, point, body, self.data.qfrc_applied)

    def _sense(self) -> None:
        """Read the sensors, with their delay and noise."""
        self._readings.append(
            JointReading(self.joint_position.copy(), self.joint_velocity.copy(), self.joint_effort.copy())
        )
        oldest, condition = self._readings[0], self.condition
        self.reading = JointReading(
            self._noisy(oldest.position, condition.position_noise),
            self._noisy(oldest.velocity, condition.velocity_noise),
            self._noisy(oldest.effort, condition.effort_noise),
        )
        """What the sensors tell at the present time, after delay and noise."""

    def _noisy(self, values: FloatArray, deviation: float) -> FloatArray:
        return values + deviation * self._noise.standard_normal(values.size) if deviation else values

    def _exploded(self) -> bool:
        """Whether MuJoCo found the state unusable and restarted it (from a posture that is not home)."""
        return any(self.data.warning[kind].number for kind in UNSTABLE)

    @property
    def joint_position(self) -> FloatArray:
        """True angles, rad."""
        return np.asarray(self.data.qpos[self._position])

    @property
    def joint_velocity(self) -> FloatArray:
        """True velocities, rad/s."""
        return np.asarray(self.data.qvel[self._velocity])

    @property
    def joint_effort(self) -> FloatArray:
        """True torques of the motors in the last period, without gravity compensation and friction, N·m."""
        return np.asarray(self.data.qfrc_actuator[self._velocity])

    @property
    def hand_pose(self) -> HandPose:
        """Where the hand truly is."""
        mujoco.mj_kinematics(self.model, self.data)
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self._hand])
        return HandPose(self.data.site_xpos[self._hand].copy(), np.roll(quaternion, -1))
