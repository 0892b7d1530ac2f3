"""Streams goals that go round circles to the controller of the live graph: how far is the hand from them?"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.controller import ControllerSettings
from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.lock_step import LockStep, over_arms
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.tasks.goals import sample_joint_position
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.tasks.reachability import TOLERANCE, ReachableSpace

FloatArray = NDArray[np.float64]

ARMS: Final = 8
RADIUS: Final = 0.15
"""Of the circles, m."""
SPEEDS: Final = (0.1, 0.2, 0.4)
"""Of the goals, m/s."""
RATE: Final = 20.0
"""Goals per second, unless said otherwise."""
RATES: Final = (10.0, 500.0)
"""Fewest and most goals per second."""
SETTLING_TIME: Final = 2.0
"""The goal moves for so long before anything is measured, s."""
DURATION: Final = 5.0
"""Time that is measured, s."""
STOPPING_TIME: Final = 1.0
"""Then no more goals come, and the hand is watched for so long, s."""
_CHECKED: Final = 16
"""Points of a circle that must be reachable."""
_MOST_DRAWS: Final = 10_000


class Circle(NamedTuple):
    """A circle that the hand can go round, from where it is in a posture.

    Attributes:
        joint_position: the posture, rad, [n].
        centre: m, [d].
        first, second: unit vectors of its plane, [d]; the hand starts at centre + RADIUS·first.
    """

    joint_position: FloatArray
    centre: FloatArray
    first: FloatArray
    second: FloatArray

    def at(self, angle: float) -> FloatArray:
        """The point at an angle from the start, m, [d]."""
        return self.centre + RADIUS * self.outwards(angle)

    def outwards(self, angle: float) -> FloatArray:
        """Unit vector from the centre, [d]."""
        return np.cos(angle) * self.first + np.sin(angle) * self.second


class Followed(NamedTuple):
    """How one arm followed one goal; means and percentiles over control steps.

    Attributes:
        median_m, p90_m: distance from the hand to the goal.
        behind_m: how far along the circle the hand is behind, mean.
        outside_m: how far it is outside the circle, mean.
        overshoot_m: how far the hand runs beyond the last goal, in the direction of its motion, when the stream breaks
            off.
    """

    median_m: float
    p90_m: float
    behind_m: float
    outside_m: float
    overshoot_m: float


def sample_circles(task: ReachTask, rng: np.random.Generator, count: int) -> list[Circle]:
    """Circles of RADIUS in random planes and places, all of whose points the hand can reach.

    Raises:
        ConfigError: the arm is too small for such circles.
    """
    space = ReachableSpace(task)
    d, lowest = task.goal_dimensions, task.minimum_goal_height
    circles: list[Circle] = []
    for _ in range(_MOST_DRAWS):
        if len(circles) == count:
            return circles
        posture = sample_joint_position(task, rng, 1)[0]
        first, second = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
        circle = Circle(posture, task.arm.chain.position(posture)[:d] - RADIUS * first, first, second)
        points = [circle.at(angle) for angle in np.linspace(0.0, 2.0 * np.pi, _CHECKED, endpoint=False)]
        is_high = lowest is None or all(point[2] > lowest for point in points)
        if is_high and all(space.nearest(point).miss < TOLERANCE for point in points):
            circles.append(circle)
    raise ConfigError(
        f"task {task.name!r}: of {_MOST_DRAWS} circles with a radius of {RADIUS} m only {len(circles)} of {count} lie "
        "where the hand can go; the arm is too small for this measure."
    )


def follow(checkpoint: Checkpoint, *, seed: int, arms: int, rate: float) -> dict[str, Any]:
    """Let several arms follow goals round circles, at all SPEEDS, side by side, one on each processor.

    Args:
        checkpoint: with the networks.
        seed: of the circles.
        arms: how many, each with a circle of its own.
        rate: goals per second.
    Returns:
        Plain data: `arms`, `radius_m`, `rate_hz`, and as lists over speeds `speed_m_s` and, of each a list over arms,
        the fields of `Followed`.
    Raises:
        ConfigError: the arm is too small for the circles.
    """
    circles = sample_circles(checkpoint.task, np.random.default_rng([seed, *b"follow"]), arms)
    jobs = [(checkpoint, circle, speed, rate) for speed in SPEEDS for circle in circles]
    followed = over_arms(follow_goal, jobs)
    by_speed = [followed[index * arms : (index + 1) * arms] for index in range(len(SPEEDS))]
    lists = {name: [[getattr(one, name) for one in ones] for ones in by_speed] for name in Followed._fields}
    return {"arms": arms, "radius_m": RADIUS, "rate_hz": rate, "speed_m_s": list(SPEEDS), **lists}


def follow_goal(
    checkpoint: Checkpoint, circle: Circle, speed: float, rate: float, settings: ControllerSettings | None = None
) -> Followed:
    """Follow a goal that is streamed while it goes round a circle, in lock-step, with the code of the live controller.

    The distance is that to the goal's true place, which has moved on since it was sent. In the end the stream breaks
    off.

    Args:
        checkpoint: with the networks.
        circle: from the hand's place on.
        speed: of the goal, m/s.
        rate: goals per second.
        settings: of the controller; by default its own.
    """
    task = checkpoint.task
    loop = LockStep.of(checkpoint, circle.joint_position, settings)
    sent = 0
    rows = []
    while loop.time < SETTLING_TIME + DURATION:
        if loop.time * rate >= sent:
            loop.controller.set_goal(circle.at(speed * sent / rate / RADIUS))
            sent += 1
        time = loop.time
        sample = loop.step()
        if sample is None:
            continue
        loop.controller.report()
        if time < SETTLING_TIME:
            continue
        angle = speed * time / RADIUS
        hand = task.arm.chain.position(sample.joint_position)[: task.goal_dimensions]
        error = hand - circle.at(angle)
        along = circle.outwards(angle + 0.5 * np.pi)
        rows.append((np.linalg.norm(error), -error @ along, error @ circle.outwards(angle)))
    last = speed * (sent - 1) / rate / RADIUS
    beyond = 0.0
    while loop.time < SETTLING_TIME + DURATION + STOPPING_TIME:
        sample = loop.step()
        if sample is None:
            continue
        loop.controller.report()
        hand = task.arm.chain.position(sample.joint_position)[: task.goal_dimensions]
        beyond = max(beyond, float((hand - circle.at(last)) @ circle.outwards(last + 0.5 * np.pi)))
    distance, behind, outside = np.array(rows).T
    return Followed(
        float(np.median(distance)),
        float(np.quantile(distance, 0.9)),
        float(behind.mean()),
        float(outside.mean()),
        beyond,
    )
