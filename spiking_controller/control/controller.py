"""Drives one arm to a goal with the spiking networks: joint state in, torque out.

Time is that of the samples' stamps alone, so that real time, simulated time, a bag and lock-step give the same torques.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.contact import Contact
from spiking_controller.control.disturbance_observer import Disturbance, DisturbanceObserver
from spiking_controller.control.exploration import ExplorationNoise
from spiking_controller.control.goal_feed_forward import FeedForward, GoalFeedForward
from spiking_controller.control.moving_goal import GoalMotion, GoalTrack
from spiking_controller.control.posture_hold import SAME_POSTURE, PostureHold
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.errors import ConfigError
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.set_point import SetPointIntegral
from spiking_controller.tasks.torque import TorqueLaw
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

CONTACT_REACTIONS: Final = ("none", "hold", "ramp")
STILL: Final = 0.02
"""An arm that is slower than this, rad/s (norm over joints), may tell the same state again."""


class Networks(Protocol):
    """What the controller needs of the networks; see `networks.agent.SpikingAgent`. Arrays are [1, ...]."""

    def reset(self, batch: int = 1) -> None:
        """Forget everything."""

    def act(self, observation: NDArray[np.floating], goal: NDArray[np.floating]) -> FloatArray:
        """The policy's action."""

    def replace_action(self, action: NDArray[np.floating], remembered: NDArray[np.floating] | None = None) -> None:
        """Another action is taken than the last one; the policy remembers `remembered`, by default the same."""

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
    integral_gain: float = 1.0
    """Of the set-point integral, 1/s; 0 switches it off."""
    integral_zone: float = 0.1
    """The set-point integral grows only while the hand is closer to the goal than this, m."""
    integral_clamp: float = 0.05
    """Longest set-point integral, m."""
    integral_patience: float = 1.0
    """How long the hand may take for a way as long as its error before the set-point integral helps, s."""
    disturbance_gain: float = 1.0
    """Share of the disturbance that is taken off the policy, 0 to 1; 0 switches the observer off. See
    `disturbance_observer`."""
    contact_reaction: str = "none"
    """What a push or a hit is answered with: "none", "hold" (the hand stays where it is) or "ramp" (the arm is brought
    to rest and its torque to zero until the next goal). Contacts are noticed while the observer is on."""
    posture_stiffness: float = 20.0
    """Of the spring that keeps the posture while the hand holds, N·m/rad; 0 switches it off. See `posture_hold`."""
    following_gain: float = 1.0
    """Share of a streamed goal's motion that the arm makes by itself, 0 to 1; 0 chases each goal as if it rested. See
    `goal_feed_forward`."""
    goal_latency: float = 0.0
    """How old a streamed goal is when it comes, s; it is led by its way in this time."""
    exploration: float = 0.0
    """Standard deviation of the noise on the action, as a share of the full action; see `exploration`."""


class StepReport(NamedTuple):
    """What one control step was about, for whoever watches.

    Attributes:
        time: stamp of the sample that started the step, ns.
        tracking_error: distance from the hand to the goal, where that is now, m.
        prediction_error: root mean square over the controlled joints of measured minus predicted position, rad; None
            where the step before made no prediction for now.
        predicted_time: ns.
        predicted_position: rad, [m].
        predicted_velocity: rad/s, [m].
        spikes: [ticks, neurons] by layer.
        disturbance: what acts beyond what the forward model knows; None where the observer is off.
        contact: that began with this step, if one did.
    """

    time: int
    tracking_error: float
    prediction_error: float | None
    predicted_time: int
    predicted_position: FloatArray
    predicted_velocity: FloatArray
    spikes: dict[str, NDArray[np.uint8]]
    disturbance: Disturbance | None = None
    contact: Contact | None = None


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

    Near the goal the set-point integral (`tasks.set_point`) shifts the goal that the policy is given. What acts on the
    arm beyond what the forward model expects, `disturbance_observer` takes off the torque; the networks are told their
    own action, so that they go on living in the arm they know. A streamed goal (`moving_goal`) is followed: the policy
    sees the arm as from the goal, whose own motion `goal_feed_forward` adds.

    Attributes:
        safety: the filter that every torque passes.
        goal_track: tells streamed goals from single ones.
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
        self.goal_track = GoalTrack()
        self._feed_forward = GoalFeedForward(task)
        self._present_goal: FloatArray = np.zeros(task.goal_dimensions)
        self._sample_time = 0
        self._posture = PostureHold(task.arm.chain, task.controlled_joints, task.goal_dimensions)
        self.observer = DisturbanceObserver(task)
        self._told: tuple[FloatArray, FloatArray] | None = None
        self._is_fresh = self._was_fresh = True
        self._no_compensation: FloatArray = np.zeros(task.controlled_joints)
        self._compensation = self._no_compensation
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
            ConfigError: a gain, zone, clamp, patience or latency that is negative or not finite, a `disturbance_gain`
                or `following_gain` outside 0 to 1, or too much exploration.
        """
        if settings.contact_reaction not in CONTACT_REACTIONS:
            raise ConfigError(
                f"contact_reaction is {settings.contact_reaction!r}; give one of {', '.join(CONTACT_REACTIONS)}."
            )
        for name in ("disturbance_gain", "following_gain"):
            if not 0.0 <= getattr(settings, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(settings, name)}; give a number from 0 to 1.")
        if not 0.0 <= settings.goal_latency < np.inf:
            raise ConfigError(f"goal_latency is {settings.goal_latency}; give a finite number of at least 0.")
        self._exploration = ExplorationNoise(self.task.controlled_joints, settings.exploration)
        self._integral = SetPointIntegral(
            self.task.control_period,
            settings.integral_gain,
            settings.integral_zone,
            settings.integral_clamp,
            settings.integral_patience,
        )
        self._posture.stiffness = settings.posture_stiffness
        if settings.disturbance_gain == 0.0:
            self.observer.reset()
        self.settings = settings

    @property
    def goal(self) -> FloatArray | None:
        """Where the hand is sent, m, [d]; None until there is a goal or a first sample."""
        return None if self._goal is None else self._goal.copy()

    def set_goal(self, goal: FloatArray, time: int | None = None) -> bool:
        """Send the hand to a goal (see `goals.GoalChecker`), m, [d].

        Args:
            goal: m, [d].
            time: when it came, as a stamp of the samples, ns; by default that of the latest one.
        Returns:
            Whether it goes on with the goal before, as one of a stream does.
        """
        continues = self.goal_track.add(self._sample_time if time is None else time, goal) and self._is_reaching
        self.go_to(goal, continues)
        return continues

    def go_to(self, goal: FloatArray, continues: bool) -> None:
        """Send the hand to a goal that `goal_track` knows, m, [d].

        The set-point integral starts anew, unless the goal goes on with the one before or is the same again: some nodes
        repeat theirs all the time.
        """
        is_same = self._goal is not None and np.array_equal(goal, self._goal)
        if not (continues or is_same):
            self._integral.reset()
        if not is_same:
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
        self.observer.forget()

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
        still = np.zeros(self.task.goal_dimensions)
        self._feed_forward.of(GoalMotion(still, still, still), home)
        self.update(ArmSample(0, 0.0, False, home, np.zeros_like(home)))
        self.report()
        self.observer.warm_up()
        self._goal, self.safety.torque, self.safety.interventions = goal, torque, interventions
        self._held = None
        self._posture.let_go()
        self._restart_at(None)

    def update(self, sample: ArmSample) -> Command:
        """The torque that answers a sample. `report` may follow once the torque is on its way.

        The first sample, a gap and a jump of time restart the networks and the soft start.
        """
        self._sample_time = sample.time
        if self._started is None or not sample.continues:
            self._restart_at(sample.time)
            self._stay(sample.joint_position)
        observes = self.settings.disturbance_gain > 0.0
        if observes:
            self.observer.pass_time(sample.period, self.safety.torque)
            self._note_freshness(sample)
        due = self._is_due(sample.time)
        if due:
            self._act(sample)
        self._law.locked_fraction = self._soft_start_fraction(sample.time) * self.settings.torque_scale
        law = self._law.torque(self._action, sample.joint_position, sample.joint_velocity)
        torque = self._with_help(law, sample)
        if self._is_gentle:
            torque = torque * self._soft_start_fraction(sample.time)
        period = sample.period if sample.continues else self.safety.longest_period
        limited = self.safety.filter(torque, sample.joint_position, sample.joint_velocity, period)
        if observes:
            legal = min(period, self.safety.longest_period)
            self.observer.add_sent(law, torque, limited, sample.joint_position, sample.joint_velocity, legal)
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
            tracking_error=float(np.linalg.norm(self._present_goal - self._hand)),
            prediction_error=error,
            predicted_time=self._prediction.time,
            predicted_position=self._codec.joint_position(predicted),
            predicted_velocity=self._codec.joint_velocity(predicted),
            spikes=self._networks.spikes,
            disturbance=self._disturbance(),
            contact=self.observer.contact,
        )

    def _disturbance(self) -> Disturbance | None:
        """What the observer knows, with the torque that was taken off; None where it is switched off."""
        if self.settings.disturbance_gain == 0.0:
            return None
        _, mass, confidence, place = self.observer.disturbance
        return Disturbance(-self._compensation, mass, confidence, place)

    def _with_help(self, law: FloatArray, sample: ArmSample) -> FloatArray:
        """The torque of the law with what holds the posture and what takes a disturbance off, N·m, [n]."""
        joints, gain = self.task.controlled_joints, self.settings.disturbance_gain
        added = self._posture_torque
        self._compensation = self._no_compensation
        if gain > 0.0:
            compensation = self.observer.compensation(law[:joints], sample.joint_velocity[:joints])
            if compensation is not None:
                fraction = self._soft_start_fraction(sample.time) * self.settings.torque_scale
                self._compensation = gain * fraction * compensation
                added = added + self._compensation
        if not added.any():
            return law
        torque = law.copy()
        torque[:joints] += added
        return torque

    def _observe(self, sample: ArmSample) -> None:
        """Let the observer see what the forward model did not expect."""
        prediction, error = self._prediction, None
        was_fresh, self._was_fresh = self._was_fresh, self._is_fresh
        is_known = self._is_fresh and was_fresh
        if prediction is not None and prediction.time == sample.time and is_known:
            error = self._codec.joint_velocity(self._observation - prediction.observation)
        self.observer.observe(sample.joint_position, sample.joint_velocity, error, self._action)

    def _note_freshness(self, sample: ArmSample) -> None:
        """A driver may publish more often than it reads its encoders: what is told again of a moving arm is of before,
        and the forward model's error would be that of the delay.
        """
        before, now = self._told, (sample.joint_position, sample.joint_velocity)
        self._told = now
        is_still = float(now[1] @ now[1]) < STILL**2
        self._is_fresh = is_still or before is None or not all(map(np.array_equal, before, now))

    def _restart_at(self, time: int | None) -> None:
        self.observer.reset()
        self._told = None
        self._is_fresh = self._was_fresh = True
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
            self.go_to(goal, continues=False)
            self._is_reaching = False
        motion = self._goal_motion(sample.time)
        moves: FeedForward | None = None
        if motion is not None:
            goal = motion.position
            moves = self._feed_forward.of(motion, sample.joint_position)
        self._present_goal = goal
        if self.settings.disturbance_gain > 0.0:
            self._observe(sample)
        # How far a moving goal leaves the hand behind is no offset.
        is_held = self.observer.is_settling or self.goal_track.is_moving(sample.time)
        shifted = self._integral.shift(goal, self._hand, is_held)
        seen = self._observation if moves is None else self._seen_from(moves, sample)
        action = self._networks.act(seen[None], shifted[None])[0]
        if not np.isfinite(action).all():
            self.events["non-finite action"] += 1
            self._networks.reset(1)
            action = np.zeros_like(action)
        fraction = self._soft_start_fraction(sample.time) * self.settings.torque_scale
        own = fraction * self._exploration.perturb(action) if fraction < 1.0 else self._exploration.perturb(action)
        self._action = own
        if moves is not None:
            self._action = np.clip(own + fraction * moves.action, -1.0, 1.0)
            self._networks.replace_action(self._action[None], own[None])
        elif own is not action:
            self._networks.replace_action(own[None])
        distance = float(np.linalg.norm(goal - self._hand))
        self._posture_torque = fraction * self._posture.torque(sample.joint_position, distance)

    def _goal_motion(self, time: int) -> GoalMotion | None:
        """How the goal moves, in the share that is followed; None where it rests."""
        gain = self.settings.following_gain
        if gain == 0.0 or not self._is_reaching or self._goal is None:
            return None
        motion = self.goal_track.at(time, self.settings.goal_latency)
        if motion is None:
            return None
        place = self._goal + gain * (motion.position - self._goal)
        velocity, acceleration = gain * motion.velocity, gain * motion.acceleration
        lowest = self.task.minimum_goal_height
        if lowest is not None and place[2] < lowest:
            # Goals stay above it; where they would go on to is reckoned.
            place[2], velocity[2], acceleration[2] = lowest, 0.0, 0.0
        return GoalMotion(place, velocity, acceleration)

    def _seen_from(self, moves: FeedForward, sample: ArmSample) -> FloatArray:
        """The observation of an arm seen from a goal that moves: its velocity is that relative to the goal's."""
        velocity = sample.joint_velocity[: self.task.controlled_joints] - moves.joint_velocity
        hand = self._codec.hand_position(self._observation)
        return self._codec.encode(sample.joint_position, velocity, hand)
