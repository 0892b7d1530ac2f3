"""Drives one arm to a goal with the spiking networks: joint state in, torque out.

Time is that of the samples' stamps alone, so that real time, simulated time, a bag and lock-step give the same torques.
"""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.exploration import ExplorationNoise
from spiking_controller.control.posture_hold import SAME_POSTURE, PostureHold
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.set_point import SetPointIntegral
from spiking_controller.tasks.torque import TorqueLaw
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]


class Networks(Protocol):
    """What the controller needs of the networks; see `networks.agent.SpikingAgent`. Arrays are [1, ...]."""

    def reset(self, batch: int = 1) -> None:
        """Forget everything."""

    def act(self, observation: NDArray[np.floating], goal: NDArray[np.floating]) -> FloatArray:
        """The policy's action."""

    def replace_action(self, action: NDArray[np.floating]) -> None:
        """Another action is taken than the last one."""

    def predict(self, observation: NDArray[np.floating]) -> FloatArray:
        """The next observation that the forward model expects."""

    @property
    def spikes(self) -> dict[str, NDArray[np.uint8]]:
        """Spikes of the last control step, [ticks, neurons] by layer."""


@dataclass(frozen=True)
class ControllerSettings:
    """How the controller uses the networks."""

    soft_start: float = 1.0
    """The action grows from nothing to its full size in this time after activation or a gap, s."""
    torque_scale: float = 1.0
    """Share of the networks' torque that is used, 0 to 1; damping stays whole. For first motions on a real arm."""
    integral_gain: float = 2.0
    """Of the set-point integral, 1/s; 0 switches it off."""
    integral_zone: float = 0.1
    """The set-point integral grows only while the hand is closer to the goal than this, m."""
    integral_clamp: float = 0.05
    """Longest set-point integral, m."""
    integral_speed: float = 0.03
    """Speed of the hand at which the set-point integral grows 1/e as fast as at rest, m/s."""
    posture_stiffness: float = 20.0
    """Of the spring that keeps the posture while the hand holds, N·m/rad; 0 switches it off. See `posture_hold`."""
    exploration: float = 0.0
    """Standard deviation of the noise on the action, as a share of the full action; see `exploration`."""


class StepReport(NamedTuple):
    """What one control step was about, for whoever watches.

    Attributes:
        time: stamp of the sample that started the step, ns.
        tracking_error: distance from the hand to the goal, m.
        prediction_error: root mean square over the controlled joints of measured minus predicted position, rad; None
            where the step before made no prediction for now.
        predicted_time: ns.
        predicted_position: rad, [m].
        predicted_velocity: rad/s, [m].
        spikes: [ticks, neurons] by layer.
    """

    time: int
    tracking_error: float
    prediction_error: float | None
    predicted_time: int
    predicted_position: FloatArray
    predicted_velocity: FloatArray
    spikes: dict[str, NDArray[np.uint8]]


class Command(NamedTuple):
    """A torque to send.

    Attributes:
        time: stamp, ns.
        torque: of all joints, N·m, [n].
        new_step: whether the networks ran for it.
        continues: whether the joint state behind it continues the one before, see `ArmSample`.
        repeated: whether it was sent before; a repetition has no stamp of its own.
    """

    time: int
    torque: FloatArray
    new_step: bool
    continues: bool = True
    repeated: bool = False


class _Prediction(NamedTuple):
    time: int
    observation: FloatArray


class Controller:
    """One control update after the other.

    The networks act once per control period. In between, every sample refreshes damping, locked joints and limits:

        torque = safety(torque_scale * u - damping * q̇)

    Near the goal the set-point integral (`tasks.set_point`) shifts the goal that the policy is given.

    Attributes:
        safety: the filter that every torque passes.
        events: what went wrong, counted by name.
        goal_changes: how often the goal was set.
    """

    def __init__(
        self,
        task: ReachTask,
        networks: Networks,
        settings: ControllerSettings | None = None,
        safety: SafetyFilter | None = None,
    ) -> None:
        """Control the arm of the task with these networks.

        Args:
            task: that the networks were trained for.
            networks: policy and forward model.
            settings: by default as measured with the shipped checkpoint.
            safety: by default the limits of the arm with the task's soft limits and physics period.
        """
        self.task = task
        self.safety = safety or SafetyFilter(task.arm.limits, task.soft_limit_fraction, task.physics_period)
        self.events: Counter[str] = Counter()
        self.goal_changes = 0
        self._networks = networks
        self._codec = ObservationCodec(task)
        self._law = TorqueLaw(task)
        self._held: FloatArray | None = None
        self._is_gentle = False
        self._period = round(task.control_period * NANOSECONDS)
        self._goal: FloatArray | None = None
        self._is_reaching = False
        self._posture = PostureHold(task.arm.chain, task.controlled_joints, task.goal_dimensions)
        self.apply(settings or ControllerSettings())
        self._started: int | None = None
        self._next_step: int | None = None
        self._step_time = 0
        self._action: FloatArray = np.zeros(task.controlled_joints)
        self._observation: FloatArray = np.zeros(self._codec.size)
        self._hand: FloatArray = np.zeros(task.goal_dimensions)
        self._prediction: _Prediction | None = None
        self._restart_at(None)

    def apply(self, settings: ControllerSettings) -> None:
        """Change the settings; the set-point integral starts anew.

        Raises:
            ConfigError: a gain, zone, clamp or speed that is negative or not finite, or too much exploration.
        """
        self._exploration = ExplorationNoise(self.task.controlled_joints, settings.exploration)
        self._integral = SetPointIntegral(
            self.task.control_period,
            settings.integral_gain,
            settings.integral_zone,
            settings.integral_clamp,
            settings.integral_speed,
        )
        self._posture.stiffness = settings.posture_stiffness
        self.settings = settings

    @property
    def goal(self) -> FloatArray | None:
        """Where the hand is sent, m, [d]; None until there is a goal or a first sample."""
        return None if self._goal is None else self._goal.copy()

    def set_goal(self, goal: FloatArray) -> None:
        """Send the hand to a goal (see `goals.GoalChecker`), m, [d].

        The set-point integral starts anew, unless it is the same goal again: some nodes repeat theirs all the time.
        """
        if self._goal is None or not np.array_equal(goal, self._goal):
            self._integral.reset()
            self._posture.let_go()
        self._goal = np.array(goal, dtype=np.float64)
        self._is_reaching = True
        self.goal_changes += 1

    @property
    def is_reaching(self) -> bool:
        """Whether the hand was sent to its goal; false while it holds where it was."""
        return self._is_reaching

    def clear_goal(self) -> None:
        """Hold the hand where it is at the next sample."""
        self._goal = None
        self._is_reaching = False
        self._integral.reset()

    def replace_networks(self, networks: Networks) -> None:
        """Let other networks take over between two updates, from rest; the action stays until the next control step."""
        networks.reset(1)
        networks.replace_action(self._action[None])
        self._networks = networks
        self._prediction = None
        self._integral.reset()

    def restart(self, gently: bool = False) -> None:
        """Begin anew with the next sample: networks at rest, soft start; goal and last torque stay.

        Args:
            gently: the soft start includes the damping. Where joint states may be late, damping makes the arm swing;
                so it does not come at once.
        """
        self._restart_at(None)
        self._is_gentle = gently

    def warm_up(self) -> None:
        """Run everything once, so that the first real update need not wait for anything to be compiled or loaded."""
        goal, torque, interventions = self._goal, self.safety.torque, self.safety.interventions.copy()
        home = np.asarray(self.task.arm.home, dtype=np.float64)
        self.update(ArmSample(0, 0.0, False, home, np.zeros_like(home)))
        self.report()
        self._goal, self.safety.torque, self.safety.interventions = goal, torque, interventions
        self._held = None
        self._posture.let_go()
        self._restart_at(None)

    def update(self, sample: ArmSample) -> Command:
        """The torque that answers a sample. `report` may follow once the torque is on its way.

        The first sample, a gap and a jump of time restart the networks and the soft start.
        """
        if self._started is None or not sample.continues:
            self._restart_at(sample.time)
            self._stay(sample.joint_position)
        due = self._is_due(sample.time)
        if due:
            self._act(sample)
        self._law.locked_fraction = self._soft_start_fraction(sample.time) * self.settings.torque_scale
        torque = self._law.torque(self._action, sample.joint_position, sample.joint_velocity)
        torque[: self.task.controlled_joints] += self._posture_torque
        if self._is_gentle:
            torque *= self._soft_start_fraction(sample.time)
        period = sample.period if sample.continues else self.safety.longest_period
        limited = self.safety.filter(torque, sample.joint_position, sample.joint_velocity, period)
        return Command(sample.time, limited, due, sample.continues)

    def report(self) -> StepReport:
        """Let the forward model predict, and sum up the last control step; call once after a `new_step`."""
        assert self._goal is not None
        previous = self._prediction
        error = None
        if previous is not None and previous.time == self._step_time:
            expected, measured = (self._codec.joint_position(o) for o in (previous.observation, self._observation))
            error = float(np.sqrt(np.mean(np.square(measured - expected))))
        predicted = self._networks.predict(self._observation[None])[0]
        self._prediction = _Prediction(self._step_time + self._period, predicted)
        return StepReport(
            time=self._step_time,
            tracking_error=float(np.linalg.norm(self._goal - self._hand)),
            prediction_error=error,
            predicted_time=self._prediction.time,
            predicted_position=self._codec.joint_position(predicted),
            predicted_velocity=self._codec.joint_velocity(predicted),
            spikes=self._networks.spikes,
        )

    def _restart_at(self, time: int | None) -> None:
        self._networks.reset(1)
        self._started = time
        self._next_step = time
        self._action = np.zeros(self.task.controlled_joints)
        self._posture_torque = np.zeros(self.task.controlled_joints)
        self._prediction = None
        self._integral.reset()

    def _stay(self, joint_position: FloatArray) -> None:
        """Hold the locked joints where they are, or where they have been held, if they are still there."""
        locked = joint_position[self.task.controlled_joints :]
        if self._held is None or np.abs(locked - self._held).max(initial=0.0) > SAME_POSTURE:
            self._held = locked.copy()
        self._law.locked_position = self._held
        self._posture.restart(joint_position)

    def _is_due(self, time: int) -> bool:
        """Whether a control step starts now; steps that no sample came for are counted and left out."""
        assert self._next_step is not None
        if time < self._next_step:
            return False
        missed = (time - self._next_step) // self._period
        if missed:
            self.events["missed control step"] += missed
        self._next_step += (missed + 1) * self._period
        return True

    def _soft_start_fraction(self, time: int) -> float:
        """How far the soft start has come, 0 to 1."""
        assert self._started is not None
        if self.settings.soft_start <= 0.0:
            return 1.0
        return min((time - self._started) / NANOSECONDS / self.settings.soft_start, 1.0)

    def _act(self, sample: ArmSample) -> None:
        """One step of the policy; leaves its action in `_action`."""
        hand = self.task.arm.chain.position(sample.joint_position)
        self._hand = hand[: self.task.goal_dimensions]
        self._step_time = sample.time
        self._observation = self._codec.encode(sample.joint_position, sample.joint_velocity, hand)
        goal = self._goal
        if goal is None:
            goal = self._hand
            self.set_goal(goal)
            self._is_reaching = False
        shifted = self._integral.shift(goal, self._hand)
        action = self._networks.act(self._observation[None], shifted[None])[0]
        if not np.isfinite(action).all():
            self.events["non-finite action"] += 1
            self._networks.reset(1)
            action = np.zeros_like(action)
        fraction = self._soft_start_fraction(sample.time) * self.settings.torque_scale
        taken = fraction * self._exploration.perturb(action) if fraction < 1.0 else self._exploration.perturb(action)
        if taken is not action:
            self._networks.replace_action(taken[None])
        self._action = taken
        distance = float(np.linalg.norm(goal - self._hand))
        self._posture_torque = fraction * self._posture.torque(sample.joint_position, distance)
