"""Runs many reaching episodes at once in MuJoCo, with the live graph's torque rule, limits and delay.

What the policy meets here is what it meets on the arm: the torque law and the limiter are the same code
that the controller runs, and the torque arrives `delay_steps` physics steps after the observation that
caused it. The paper's tasks do with less (`ReachTask.physics`, `braking`, `has_rate_limit`).
"""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError, GoalError
from spiking_controller.robots.description import PAYLOAD
from spiking_controller.robots.limits import TorqueLimiter
from spiking_controller.robots.mujoco_model import UNSTABLE, joint_addresses, motors
from spiking_controller.robots.simulation import ArmCondition, ConditionedModel
from spiking_controller.tasks.disturbances import Hindrance
from spiking_controller.tasks.goals import sample_goals, sample_joint_position
from spiking_controller.tasks.joint_accelerations import JointAccelerations
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import FloatArray, ReachTask, get_task
from spiking_controller.tasks.torque import TorqueLaw

Observation = dict[str, NDArray[np.float32]]
Columns = slice | NDArray[np.intp]

ABSURD_VELOCITY = 10.0
"""A joint faster than this many times its velocity limit ends the episode: the simulation has exploded."""


class Helper(Protocol):
    """Adds to the torques of the torque law, as a controller does beside its networks."""

    def helped(self, law: FloatArray, joint_velocity: FloatArray) -> FloatArray:
        """The torques of the law, N·m, with what is added, both [N, n]; velocities are rad/s, [N, n]."""

    def note_sent(
        self,
        law: FloatArray,
        wanted: FloatArray,
        sent: FloatArray,
        joint_position: FloatArray,
        joint_velocity: FloatArray,
    ) -> None:
        """A physics period passes with torques `sent`, which are those `wanted` after the limits, N·m, [N, n] each."""


class ReachVectorEnv(VectorEnv[Observation, NDArray[np.floating], NDArray[Any]]):
    """`num_envs` arms, each with its own goal, stepped together.

    Observation: {"observation": [N, 2m + d] (see ObservationCodec), "goal": [N, d]}, float32.
    Action: [N, m], clipped to [-1, 1], held for one control period.
    Reward: minus the hand-to-goal distance, m.

    Episodes are explicit (autoreset mode DISABLED): each is truncated after `task.steps_per_episode` steps,
    and `step` then refuses until `reset` (of all, or of those in options["reset_mask"]). A NaN in the action,
    an error in the physics or an absurd velocity terminates an episode: that arm goes home, ignores its
    actions and rests there until it is reset, so that its numbers stay finite.

    info of `reset` and `step`:
        "distance"           [N], hand to goal, m
        "hand"               [N, d], where the hand truly is, m, whatever the noise of the observation
    info of `step` only:
        "action"             [N, m], what was carried out
        "torque"             [N, n], the last torque on the joints, N·m
        "torque_rate"        [N], mean absolute rate of the controlled joints' torque, N·m/s
        "filter_intervened"  [N], share of physics steps in which the limiter changed the torque

    Attributes:
        helper: who adds to the torque law's torques; nobody at first.
    """

    # Gymnasium declares this as an instance variable, so it cannot be a ClassVar.
    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        task: ReachTask | str,
        num_envs: int = 1,
        seed: int | None = None,
        threads: int = 0,
        random_start: bool = True,
    ) -> None:
        """Load the arm and reserve the simulations; call `reset` before `step`.

        Args:
            task: the task or its name.
            num_envs: N, how many arms.
            seed: start of the random numbers; `reset(seed=...)` starts them anew.
            threads: simulation threads, 0 for one per processor; results do not depend on it.
            random_start: start at random postures, otherwise at home.
        Raises:
            ConfigError: unknown task, or `num_envs` below 1.
            RobotModelError: the arm's description cannot be used.
        """
        self.task = get_task(task) if isinstance(task, str) else task
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}; give at least 1.")
        self.num_envs = num_envs
        self.random_start = random_start
        self.helper: Helper | None = None
        self.codec = ObservationCodec(self.task)

        arm = self.task.arm
        self._law = TorqueLaw(self.task)
        self._limiter = TorqueLimiter(
            arm.limits, self.task.soft_limit_fraction, self.task.braking, self.task.has_rate_limit
        )
        self._home = np.asarray(arm.home, dtype=np.float64)
        self._absurd = ABSURD_VELOCITY * np.asarray(arm.limits.velocity)

        self._fastest = np.asarray(arm.limits.velocity) if self.task.physics == "bare_arm" else None
        self._batch: Batch | JointAccelerations
        self._position_columns: Columns
        self._velocity_columns: Columns
        self._motor_columns: Columns
        if self.task.physics == "accelerations":
            self._batch = JointAccelerations(self.task, num_envs)
            every_joint = slice(len(arm.joint_names))
            self._position_columns = self._velocity_columns = self._motor_columns = every_joint
        else:
            model = self._model()
            self._batch = Batch(model, num_envs, nthread=threads)
            if self.task.disturbances > 0.0:
                self._payload = model.body(PAYLOAD).id
                self._wrench = self._batch.bind("xfrc_applied")
            self._position_columns, self._velocity_columns = map(_columns, joint_addresses(model, arm.joint_names))
            self._motor_columns = _columns(motors(model, arm))
        self._qpos = self._batch.bind("qpos")
        self._qvel = self._batch.bind("qvel")
        self._ctrl = self._batch.bind("ctrl")

        joints = len(arm.joint_names)
        shape = (num_envs, joints)
        self._goal = np.zeros((num_envs, self.task.goal_dimensions))
        self._queue = [np.zeros(shape) for _ in range(self.task.delay_steps)]
        self._limited_torque = np.zeros(shape)
        self._applied_torque = np.zeros(shape)
        self._seen_position = np.zeros(shape)
        self._hindrances = [Hindrance(ArmCondition())] * num_envs
        self._terminated = np.zeros(num_envs, dtype=bool)
        self._elapsed = np.full(num_envs, self.task.steps_per_episode)

        d = self.task.goal_dimensions
        centre = np.asarray(arm.shoulder, dtype=np.float64)[:d]
        self._goal_bounds = centre - arm.reach, centre + arm.reach
        self.single_observation_space = spaces.Dict(
            {
                "observation": spaces.Box(-np.inf, np.inf, (self.codec.size,), np.float32),
                "goal": spaces.Box(
                    self._goal_bounds[0].astype(np.float32),
                    self._goal_bounds[1].astype(np.float32),
                    (d,),
                    np.float32,
                ),
            }
        )
        self.single_action_space = spaces.Box(-1.0, 1.0, (self.task.controlled_joints,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        if seed is not None:
            super().reset(seed=seed)

    def _model(self) -> mujoco.MjModel:
        """The arm's model as the task wants it."""
        task, arm = self.task, self.task.arm
        compensated = task.gravity_convention == "compensated"
        model = arm.load_model(compensated, visuals=False, payload=task.disturbances > 0.0)
        model.opt.timestep = task.physics_period
        if task.physics == "bare_arm":
            # The others stay as they are, since the torque law that holds them needs their inertia.
            controlled = joint_addresses(model, arm.joint_names).velocity[: task.controlled_joints]
            for property_of_joints in (model.dof_armature, model.dof_damping, model.dof_frictionloss):
                property_of_joints[controlled] = 0.0
            mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    @property
    def joint_position(self) -> FloatArray:
        """Present angles of all joints, rad, [N, n] (a copy)."""
        return np.array(self._qpos[:, self._position_columns])

    @property
    def joint_velocity(self) -> FloatArray:
        """Present velocities of all joints, rad/s, [N, n] (a copy)."""
        return np.array(self._qvel[:, self._velocity_columns])

    @property
    def hand_position(self) -> FloatArray:
        """Present hand position in the base frame, m, [N, 3]."""
        return self.task.arm.chain.position(self.joint_position)

    @property
    def goal(self) -> FloatArray:
        """Present goals in the base frame, m, [N, d] (a copy)."""
        return self._goal.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes: arms at rest, no torque under way.

        Args:
            seed: starts the random numbers anew; the same seed gives the same episodes.
            options:
                "start": joint positions [N, n] or [n], rad, "home" or "random" (default: see `random_start`);
                "goals": [N, d] or [d], m; random by default;
                "hindrances": what hinders each arm, N `disturbances.Hindrance`, in a task with `disturbances`;
                nothing by default;
                "reset_mask": bool [N], the episodes to start anew; all by default. Random numbers are drawn
                for all N either way.
        Returns:
            observation and info.
        Raises:
            ConfigError: an unknown option, or one of a wrong shape or kind.
            GoalError: a goal that is not finite or out of the arm's reach.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=bool)))
        start = self._start(options.pop("start", "random" if self.random_start else "home"))
        goals = self._checked_goals(options.pop("goals", None))
        hindrances = self._checked_hindrances(options.pop("hindrances", None))
        if options:
            raise ConfigError(
                f"unknown reset option {sorted(options)[0]!r}; known are start, goals, hindrances and reset_mask."
            )
        if mask.shape != (self.num_envs,) or mask.dtype != bool:
            raise ConfigError(f"reset_mask is {mask.dtype} {list(mask.shape)}; give bool [{self.num_envs}].")
        self._goal[mask] = goals[mask]
        self._hinder(mask, hindrances)
        self._place(mask, start)
        self._terminated[mask] = False
        self._elapsed[mask] = 0
        observation, distance, hand = self._observe()
        return observation, {"distance": distance, "hand": hand}

    def step(
        self, actions: NDArray[np.floating]
    ) -> tuple[Observation, FloatArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Carry out one action per arm for one control period.

        Args:
            actions: [N, m], clipped to [-1, 1].
        Returns:
            observation, reward [N], terminated [N], truncated [N], info.
        Raises:
            gymnasium.error.ResetNeeded: an episode is over (or none was started).
            ConfigError: actions of a wrong shape.
        """
        over = self._elapsed >= self.task.steps_per_episode
        if over.any():
            raise gymnasium.error.ResetNeeded(
                f"{int(over.sum())} of {self.num_envs} episodes are over; call reset() before step()."
            )
        action = np.array(actions, dtype=np.float64)
        shape = (self.num_envs, self.task.controlled_joints)
        if action.shape != shape:
            raise ConfigError(f"actions have shape {list(action.shape)}; give {list(shape)}.")
        self._terminate(np.logical_not(np.isfinite(action).all(axis=1)))
        action[self._terminated] = 0.0
        np.clip(action, -1.0, 1.0, out=action)

        intervened = np.zeros(self.num_envs)
        travel = np.zeros(self.num_envs)
        if self.task.disturbances > 0.0:
            self._push()
        for _ in range(self.task.substeps):
            self._physics_step(action, intervened, travel)
        self._terminate(self._exploded())
        for record in (action, intervened, travel):
            record[self._terminated] = 0.0

        self._elapsed += 1
        observation, distance, hand = self._observe()
        info = {
            "distance": distance,
            "hand": hand,
            "action": action,
            "torque": self._applied_torque.copy(),
            "torque_rate": travel / (self.task.control_period * self.task.controlled_joints),
            "filter_intervened": intervened / self.task.substeps,
        }
        truncated = self._elapsed >= self.task.steps_per_episode
        return observation, -distance, self._terminated.copy(), truncated, info

    def _physics_step(self, action: FloatArray, intervened: FloatArray, travel: FloatArray) -> None:
        """One torque and one physics step; adds to `intervened` [N] and to the torque's `travel` [N]."""
        position = self._qpos[:, self._position_columns]
        velocity = self._qvel[:, self._velocity_columns]
        law = self._law.torque(action, position, velocity)
        wanted = law if self.helper is None else self.helper.helped(law, velocity)
        limited = self._limiter.limit(wanted, self._limited_torque, position, velocity, self.task.physics_period)
        intervened += (limited != wanted).any(axis=1)
        change = np.abs(limited - self._limited_torque)
        travel += change[:, : self.task.controlled_joints].sum(axis=1)
        self._limited_torque = limited
        if self.helper is not None:
            self.helper.note_sent(law, wanted, limited, position, velocity)
        self._queue.append(limited)
        self._applied_torque = self._queue.pop(0)
        self._ctrl[:, self._motor_columns] = self._applied_torque
        try:
            self._batch.step()
        except SimulationError as error:
            failed = np.zeros(self.num_envs, dtype=bool)
            failed[error.ids] = True
            self._terminate(failed)
        if self._fastest is not None:
            velocity = self._qvel[:, self._velocity_columns]
            self._qvel[:, self._velocity_columns] = np.clip(velocity, -self._fastest, self._fastest)

    def _exploded(self) -> NDArray[np.bool_]:
        """Which simulations are not finite, were reset by MuJoCo or move absurdly fast; bool [N]."""
        velocity = self._qvel[:, self._velocity_columns]
        finite = np.isfinite(self._qpos).all(axis=1) & np.isfinite(self._qvel).all(axis=1)
        calm = (np.abs(velocity) < self._absurd).all(axis=1)
        warned = (np.asarray(self._batch.warning)[:, UNSTABLE, 1] > 0).any(axis=1)
        return np.asarray(~(finite & calm) | warned)

    def _terminate(self, mask: NDArray[np.bool_]) -> None:
        """End the episodes in the mask [N]: those arms go home and stay."""
        if mask.any():
            self._terminated |= mask
            self._place(mask, np.broadcast_to(self._home, (self.num_envs, self._home.size)))

    def _place(self, mask: NDArray[np.bool_], joint_position: FloatArray) -> None:
        """Put the arms in the mask [N] at rest at joint_position [N, n], with no torque under way."""
        self._batch.reset(mask, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        rows = np.flatnonzero(mask)
        self._qpos[_at(rows, self._position_columns)] = joint_position[rows]
        for torque in (*self._queue, self._limited_torque, self._applied_torque):
            torque[rows] = 0.0

    def _hinder(self, mask: NDArray[np.bool_], hindrances: Sequence[Hindrance]) -> None:
        """Hinder the arms in the mask [N] by these hindrances [N] from now on."""
        now = [new if is_new else old for is_new, new, old in zip(mask, hindrances, self._hindrances, strict=True)]
        if now == self._hindrances:
            return
        assert isinstance(self._batch, Batch)  # nothing else can be hindered
        compensated = self.task.gravity_convention == "compensated"
        models = [copy.copy(self._batch.model) for _ in now]
        for model, hindrance in zip(models, now, strict=True):
            ConditionedModel(model, self.task.arm, compensated).apply(hindrance.condition)
        self._batch.set_models(models)
        self._hindrances = now

    def _push(self) -> None:
        """Push the hands that are pushed in the coming control step; the payload sits at the tool point."""
        for arm, (hindrance, steps) in enumerate(zip(self._hindrances, self._elapsed, strict=True)):
            is_pushed = hindrance.begin <= steps * self.task.control_period < hindrance.end
            self._wrench[arm, self._payload, :3] = hindrance.push if is_pushed and not self._terminated[arm] else 0.0

    def _checked_hindrances(self, hindrances: Sequence[Hindrance] | None) -> Sequence[Hindrance]:
        """Hindrances [N] from the option "hindrances"."""
        if hindrances is None:
            return [Hindrance(ArmCondition())] * self.num_envs
        if self.task.disturbances == 0.0:
            raise ConfigError("hindrances are given, but the task's disturbances are 0; give a task with more.")
        if len(hindrances) != self.num_envs:
            raise ConfigError(f"there are {len(hindrances)} hindrances; give one for each of the {self.num_envs} arms.")
        return hindrances

    def _start(self, start: object) -> FloatArray:
        """Joint positions [N, n] from the option "start"."""
        shape = (self.num_envs, self._home.size)
        if isinstance(start, str):
            if start == "home":
                return np.broadcast_to(self._home, shape)
            if start == "random":
                return sample_joint_position(self.task, self.np_random, self.num_envs)
            raise ConfigError(f"start is {start!r}; give 'home', 'random' or joint positions {list(shape)}.")
        position = np.asarray(start, dtype=np.float64)
        if position.shape not in (shape, shape[1:]) or not np.isfinite(position).all():
            raise ConfigError(f"start has shape {list(position.shape)}; give finite joint positions {list(shape)}.")
        return np.broadcast_to(position, shape)

    def _checked_goals(self, goals: object) -> FloatArray:
        """Goals [N, d] from the option "goals"."""
        shape = self._goal.shape
        if goals is None:
            return sample_goals(self.task, self.np_random, self.num_envs)
        given = np.asarray(goals, dtype=np.float64)
        if given.shape not in (shape, shape[1:]):
            raise ConfigError(f"goals have shape {list(given.shape)}; give {list(shape)}.")
        lower, upper = self._goal_bounds
        wrong = ~((given >= lower) & (given <= upper)).all(axis=-1)
        if wrong.any():
            first = np.atleast_2d(given)[np.flatnonzero(np.atleast_1d(wrong))[0]]
            raise GoalError(
                f"goal {first.tolist()} m is out of reach; give finite coordinates between "
                f"{lower.round(3).tolist()} and {upper.round(3).tolist()} m."
            )
        return np.broadcast_to(given, shape)

    def _observe(self) -> tuple[Observation, FloatArray, FloatArray]:
        """The present observation, the hand-to-goal distance [N], m, and the hand [N, d], m, both without noise."""
        position = self.joint_position
        hand = self.task.arm.chain.position(position)[:, : self._goal.shape[1]]
        seen_position, seen_hand, velocity = position, hand, self.joint_velocity
        if self.task.observation_noise > 0.0:
            noise = self.task.observation_noise
            seen_position = position + noise * self.np_random.standard_normal(position.shape)
            seen_hand = hand + noise * self.task.arm.reach * self.np_random.standard_normal(hand.shape)
        if self.task.velocity_source == "differences":
            before = np.where(self._elapsed[:, None] > 0, self._seen_position, seen_position)
            velocity = (seen_position - before) / self.task.control_period
            self._seen_position = seen_position
        encoded = self.codec.encode(seen_position, velocity, seen_hand)
        distance = np.linalg.norm(hand - self._goal, axis=1)
        seen = {"observation": encoded.astype(np.float32), "goal": self._goal.astype(np.float32)}
        return seen, np.asarray(distance), hand


def _columns(addresses: NDArray[np.intp]) -> Columns:
    """The addresses as a slice where they are consecutive (views, no copies), else as an index array."""
    if (np.diff(addresses) == 1).all():
        return slice(int(addresses[0]), int(addresses[-1]) + 1)
    return addresses


def _at(rows: NDArray[np.intp], columns: Columns) -> tuple[Any, Columns]:
    """Index of the block rows x columns."""
    return (rows, columns) if isinstance(columns, slice) else (rows[:, None], columns)
