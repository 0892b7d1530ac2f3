"""Says what happens when in a run of the adaptation experiment: how the arm changes, and who learns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from spiking_controller.errors import ConfigError
from spiking_controller.online.experience import ExperienceSettings
from spiking_controller.online.learner import OnlineSettings
from spiking_controller.robots.simulation import ArmCondition

Learning = Literal["off", "on", "harmed"]
LEARNING: Final[tuple[Learning, ...]] = ("off", "on", "harmed")

MEASURED: Final = ("before", "after", "end")
"""The phases of a run in which the same goals are measured."""

WEAK_MOTOR: Final = 1
"""Index of the joint whose motor gets weak: the second one lifts the whole arm."""


def _weak_motor(joints: int) -> tuple[float, ...]:
    return tuple(0.7 if joint == WEAK_MOTOR else 1.0 for joint in range(joints))


CHANGES: Final[Mapping[str, ArmCondition]] = MappingProxyType(
    {
        "payload": ArmCondition(payload_mass=2.0),
        "friction": ArmCondition(friction_factor=(3.0,)),
        "motor": ArmCondition(motor_strength=_weak_motor(7)),
        "none": ArmCondition(),
    }
)
"""What happens to the Panda, by name."""


@dataclass(frozen=True)
class AdaptationPlan:
    """What happens when, in goals.

    Attributes:
        change: key of CHANGES.
        learning: "off"; "on"; or "harmed": on, and networks that do harm are injected.
        seed: of goals, windows and imagined goals.
        minutes: simulated time after the change, min.
        goal_duration: for which a goal is held, s.
        block: goals of a measurement. The same ones, in the same order, just before the change, just after it, and at
            the end.
        lead: goals before the first measurement.
        update_period: between two updates, simulated s.
        rollback_factor, rollback_goals: of `TrackingWatch`.
        experience, online: how the learner learns.
    """

    change: str = "payload"
    learning: Learning = "on"
    seed: int = 1
    minutes: float = 15.0
    goal_duration: float = 4.0
    block: int = 20
    lead: int = 20
    update_period: float = 4.0
    rollback_factor: float = 2.0
    rollback_goals: int = 3
    experience: ExperienceSettings = field(default_factory=ExperienceSettings)
    online: OnlineSettings = field(default_factory=OnlineSettings)

    def __post_init__(self) -> None:
        """Check what the command line gives.

        Raises:
            ConfigError: a time that is not above 0.
        """
        for name in ("minutes", "update_period", "goal_duration"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} = {getattr(self, name)} must be a finite number above 0.")

    @property
    def goals_after(self) -> int:
        """Goals after the change, the two measurements included."""
        return max(round(60.0 * self.minutes / self.goal_duration), 2 * self.block)

    def phase(self, goal: int) -> str:
        """To what part of the run a goal belongs."""
        bounds = {
            "lead": self.lead,
            "before": self.block,
            "after": self.block,
            "adapting": self.goals_after - 2 * self.block,
            "end": self.block,
        }
        for name, length in bounds.items():
            if goal < length:
                return name
            goal -= length
        return "over"

    @property
    def goals(self) -> int:
        """Goals of the whole run."""
        return self.lead + self.block + self.goals_after

    @property
    def change_at(self) -> int:
        """The goal with which the arm changes."""
        return self.lead + self.block
