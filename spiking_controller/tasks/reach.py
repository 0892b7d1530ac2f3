"""Defines the reaching tasks: which arm, how fast, how strong, and where goals may lie.

The numbers are those that the training recipe was measured with; a checkpoint carries them in its contract.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import Arm, get_arm

FloatArray = NDArray[np.float64]

GRAVITY_CONVENTIONS = ("compensated", "raw")


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

    def __post_init__(self) -> None:
        """Check the values that must fit together.

        Raises:
            ConfigError: a period that is no whole multiple of a shorter one, a negative delay or damping, an action
                scale outside of (0, 1] or not for every controlled joint, or an unknown gravity convention.
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
    "planar_reach": ReachTask(
        name="planar_reach",
        arm_name="planar_arm",
        action_scale=1.0,
        minimum_goal_height=None,
        hard_goal_fraction=0.0,
    ),
}


def get_task(name: str) -> ReachTask:
    """The task of that name: "panda_reach" or "planar_reach".

    Raises:
        ConfigError: there is no such task.
    """
    if name not in _TASKS:
        raise ConfigError(f"there is no task {name!r}; the tasks are {', '.join(sorted(_TASKS))}.")
    return _TASKS[name]
