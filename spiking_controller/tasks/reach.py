"""Defines the reaching tasks: which arm, how fast, how strong, and where goals may lie.

The numbers are those that the training recipe was measured with; a checkpoint carries them in its contract.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import Arm, get_arm, is_arm_file
from spiking_controller.robots.limits import Braking

FloatArray = NDArray[np.float64]

GRAVITY_CONVENTIONS = ("compensated", "raw")

VelocitySource = Literal["measured", "differences"]

Physics = Literal["arm", "bare_arm", "accelerations"]
"""What is simulated in episodes:

- "arm": the arm's MuJoCo model.
- "bare_arm": the same without armature, damping and friction of the controlled joints, whose speeds are clipped to
  their limits after every physics step.
- "accelerations": joints that do not feel each other, see `joint_accelerations`.
"""


@dataclass(frozen=True)
class ReachTask:
    """Bring the hand to a goal and hold it there, by torques on the controlled joints.

    Arrays below are per controlled joint, [m]; the arm has n >= m joints, the others are held at home.
    """

    name: str
    arm_name: str
    control_period: float = 0.02
    """Time between two actions of the network, s."""
    physics_period: float = 0.002
    """Time between two torques (and two steps of the simulation), s."""
    episode_duration: float = 4.0
    """Length of an episode, s."""
    action_scale: float | tuple[float, ...] = 0.2
    """Share of the torque limit that the full action commands: of all controlled joints, or one share for each."""
    damping_scale: float = 1.0
    """Damping as a share of that with which the full action settles at the velocity limit; 0 for none."""
    soft_limit_fraction: float = 0.8
    """Share of the position range in which starts and goals lie and beyond which no torque pushes outward."""
    delay_steps: int = 1
    """Physics steps from an observation to the torque that it caused, as in the live graph."""
    minimum_goal_height: float | None = 0.05
    """Lowest z of a goal and of a starting hand, m; None where the arm moves in a horizontal plane."""
    hard_goal_fraction: float = 0.25
    """Share of goals that is drawn from the hard set."""
    hard_goal_near: float = 0.35
    """A goal closer to the shoulder than this is hard, m."""
    hard_goal_far: float = 0.8
    """A goal farther from the shoulder than this is hard, m."""
    gravity_convention: str = "compensated"
    """Who holds the arm against gravity: the bridge or driver ("compensated") or the network ("raw")."""
    physics: Physics = "arm"
    """What is simulated in episodes."""
    braking: Braking = "full"
    """What keeps joints within range and speed in episodes, see `robots.limits.TorqueLimiter`; on the arm "full"."""
    has_rate_limit: bool = True
    """Whether the rate of the torque is limited in episodes; on the arm it always is."""
    joints_turn_freely: bool = False
    """The joints have no position limits: starts and goals are drawn from whole turns."""
    observation_noise: float = 0.0
    """Standard deviation of the white noise on what is observed: of the angles in rad, of the hand as a share of the
    arm's reach."""
    velocity_source: VelocitySource = "measured"
    """The observed velocities in episodes: those of the joints, or differences of the last two observed angles, for
    networks that are to do without measured ones."""
    target_tolerance: float = 0.123
    """The hand is on target within this distance of the goal, m: by default that of Huebotter et al. 2025 (Panda)."""
    target_box: bool = False
    """The tolerance holds for each coordinate by itself, not for the distance."""
    disturbances: float = 0.0
    """Share of training episodes in which something disturbs the arm, see `disturbances`; evaluations are never."""
    evaluation_goals: int = 200
    """How many held-out starts and goals the task is evaluated on."""

    def __post_init__(self) -> None:
        """Check the values that must fit together.

        Raises:
            ConfigError: a period that is no whole multiple of a shorter one, a negative delay or damping, an action
                scale outside of (0, 1] or not for every controlled joint, an unknown gravity convention, or
                disturbances of an arm that cannot be disturbed.
        """
        for longer, shorter in (("episode_duration", "control_period"), ("control_period", "physics_period")):
            ratio = getattr(self, longer) / getattr(self, shorter)
            if not (ratio >= 1 and np.isclose(ratio, round(ratio))):
                raise ConfigError(
                    f"task {self.name!r}: {longer} is {getattr(self, longer)} s; give a whole multiple of "
                    f"{shorter}, which is {getattr(self, shorter)} s."
                )
        if self.delay_steps < 0:
            raise ConfigError(f"task {self.name!r}: delay_steps is {self.delay_steps}; give 0 or more.")
        scale = np.atleast_1d(self.action_scale)
        if scale.size not in (1, self.controlled_joints) or not np.all((scale > 0.0) & (scale <= 1.0)):
            raise ConfigError(
                f"task {self.name!r}: action_scale is {self.action_scale}; give a share of the torque limit in (0, 1], "
                f"or a list of {self.controlled_joints}, one for each controlled joint."
            )
        if not 0.0 <= self.damping_scale < np.inf:
            raise ConfigError(
                f"task {self.name!r}: damping_scale is {self.damping_scale}; give a finite number of at least 0."
            )
        if self.gravity_convention not in GRAVITY_CONVENTIONS:
            raise ConfigError(
                f"task {self.name!r}: gravity_convention is {self.gravity_convention!r}; "
                f"give one of {', '.join(GRAVITY_CONVENTIONS)}."
            )
        for name, kinds in (("physics", Physics), ("braking", Braking), ("velocity_source", VelocitySource)):
            known = get_args(kinds)
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"task {self.name!r}: {name} is {getattr(self, name)!r}; give one of {', '.join(known)}."
                )
        if not 0.0 <= self.observation_noise < np.inf:
            raise ConfigError(
                f"task {self.name!r}: observation_noise is {self.observation_noise}; give a finite number from 0."
            )
        if not 0.0 <= self.disturbances <= 1.0:
            raise ConfigError(
                f"task {self.name!r}: disturbances is {self.disturbances}; give a share of the episodes from 0 to 1."
            )
        if self.disturbances > 0.0 and self.physics != "arm":
            raise ConfigError(
                f"task {self.name!r}: disturbances is {self.disturbances}, but with physics {self.physics!r} nothing "
                "can disturb the arm; give 0."
            )

    @cached_property
    def arm(self) -> Arm:
        """The robot that does the task."""
        return get_arm(self.arm_name)

    @property
    def controlled_joints(self) -> int:
        """m, the number of joints that the network drives."""
        return self.arm.controlled_joints

    @property
    def goal_dimensions(self) -> int:
        """d, the number of coordinates of a goal: 3, or 2 in the plane."""
        return self.arm.goal_dimensions

    @cached_property
    def soft_bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper soft position bounds of all joints, rad, [n] each."""
        if self.joints_turn_freely:
            turn = np.full(len(self.arm.joint_names), np.pi)
            return -turn, turn
        return self.arm.limits.soft_bounds(self.soft_limit_fraction)

    @cached_property
    def position_centre(self) -> FloatArray:
        """Middle of the soft position bounds, rad, [m]."""
        lower, upper = self.soft_bounds
        return (0.5 * (lower + upper))[: self.controlled_joints]

    @cached_property
    def position_half_range(self) -> FloatArray:
        """Half the distance between the soft position bounds, rad, [m]."""
        lower, upper = self.soft_bounds
        return (0.5 * (upper - lower))[: self.controlled_joints]

    @cached_property
    def velocity_scale(self) -> FloatArray:
        """Velocity limit, rad/s, [m]."""
        return np.asarray(self.arm.limits.velocity[: self.controlled_joints], dtype=np.float64)

    @cached_property
    def torque_scale(self) -> FloatArray:
        """Torque of the full action at rest, N·m, [m]."""
        limit = np.asarray(self.arm.limits.torque[: self.controlled_joints], dtype=np.float64)
        return np.asarray(self.action_scale, dtype=np.float64) * limit

    @cached_property
    def damping(self) -> FloatArray:
        """Damping of the torque law, N·m·s/rad, [m]."""
        return self.damping_scale * self.torque_scale / self.velocity_scale

    @property
    def substeps(self) -> int:
        """Physics steps in one control step."""
        return round(self.control_period / self.physics_period)

    @property
    def steps_per_episode(self) -> int:
        """Control steps in one episode."""
        return round(self.episode_duration / self.control_period)


_TASKS = {
    "panda_reach": ReachTask(name="panda_reach", arm_name="panda"),
    "fr3_reach": ReachTask(name="fr3_reach", arm_name="fr3"),
    "planar_reach": ReachTask(
        name="planar_reach",
        arm_name="planar_arm",
        action_scale=1.0,
        minimum_goal_height=None,
        hard_goal_fraction=0.0,
    ),
    # The environments of Huebotter et al. 2025 (docs/paper.md says where MuJoCo is not theirs).
    "panda_reach_paper": ReachTask(
        name="panda_reach_paper",
        arm_name="panda",
        action_scale=1.0,
        damping_scale=0.0,
        delay_steps=0,
        hard_goal_fraction=0.0,
        gravity_convention="raw",
        physics="bare_arm",
        braking="outward",
        has_rate_limit=False,
        evaluation_goals=64,
    ),
    "planar_reach_paper": ReachTask(
        name="planar_reach_paper",
        arm_name="planar_arm",
        physics_period=0.02,
        action_scale=1.0,
        damping_scale=5.0 / (20.0 / (np.pi / 2)),  # 5 N·m·s/rad
        delay_steps=0,
        minimum_goal_height=None,
        hard_goal_fraction=0.0,
        gravity_convention="raw",
        physics="accelerations",
        braking="none",
        has_rate_limit=False,
        joints_turn_freely=True,
        observation_noise=0.01,
        target_tolerance=0.05 * 0.9,
        target_box=True,
        evaluation_goals=64,
    ),
}


_HARD_NEAR, _HARD_FAR = 0.37, 0.84
"""Of an arm's reach: the Panda's 0.35 and 0.8 m."""


def get_task(name: str) -> ReachTask:
    """The task of that name, or reaching with the arm of that file.

    Args:
        name: such as "panda_reach", or the path of an arm's file, such as my_arm.yaml.
    Raises:
        ConfigError: there is no such task.
        RobotModelError: the arm's file is wrong.
    """
    if name in _TASKS:
        return _TASKS[name]
    if not is_arm_file(name):
        raise ConfigError(
            f"there is no task {name!r}; the tasks are {', '.join(sorted(_TASKS))}, and reaching with any other arm by "
            "the path of its file, such as my_arm.yaml."
        )
    return task_of(get_arm(name))


def task_of(arm: Arm) -> ReachTask:
    """Reaching with an arm, as its file leads to it: all that is not the arm's is the Panda's."""
    planar = arm.goal_dimensions == 2
    return ReachTask(
        name=f"{arm.name}_reach",
        arm_name=arm.source,
        minimum_goal_height=None if planar else ReachTask.minimum_goal_height,
        hard_goal_fraction=0.0 if planar else ReachTask.hard_goal_fraction,
        hard_goal_near=_HARD_NEAR * arm.reach,
        hard_goal_far=_HARD_FAR * arm.reach,
    )
