"""Says what happens when in a run of the adaptation experiment: how the arm changes, and who learns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from spiking_controller.errors import ConfigError
from spiking_controller.online.experience import ExperienceSettings
from spiking_controller.online.learner import OnlineSettings
from spiking_controller.robots.simulation import ArmCondition

Learning = Literal["off", "on", "harmed"]
LEARNING: Final[tuple[Learning, ...]] = ("off", "on", "harmed")
Observer = Literal["off", "on"]
OBSERVER: Final[tuple[Observer, ...]] = ("off", "on")

MEASURED: Final = ("before", "after", "end")
"""The phases of a run in which the same goals are measured."""

WEAK_MOTOR: Final = 1
"""Index of the joint whose motor gets weak: the second one lifts the whole arm."""


class Change(NamedTuple):
    """What happens to the arm: its condition, and a force that pushes its hand from then on, N, [3]."""

    condition: ArmCondition
    push: tuple[float, float, float] = (0.0, 0.0, 0.0)


def change_of(name: str, joints: int) -> Change:
    """What a key of CHANGES does to an arm of so many joints."""
    change = CHANGES[name]
    if name != "motor":
        return change
    strength = tuple(0.7 if joint == WEAK_MOTOR else 1.0 for joint in range(joints))
    return change._replace(condition=replace(change.condition, motor_strength=strength))


CHANGES: Final[Mapping[str, Change]] = MappingProxyType(
    {
        "payload": Change(ArmCondition(payload_mass=2.0)),
        "payload_half_kg": Change(ArmCondition(payload_mass=0.5)),
        "payload_1kg": Change(ArmCondition(payload_mass=1.0)),
        "payload_3kg": Change(ArmCondition(payload_mass=3.0)),
        "push": Change(ArmCondition(), (9.0, 12.0, 0.0)),
        "friction": Change(ArmCondition(friction_factor=(3.0,))),
        "motor": Change(ArmCondition()),
        "none": Change(ArmCondition()),
    }
)
"""What happens to the arm, by name; `change_of` weakens the motor that the arm has."""


@dataclass(frozen=True)
class AdaptationPlan:
    """What happens when, in goals.

    Attributes:
        change: key of CHANGES.
        learning: "off"; "on"; or "harmed": on, and networks that do harm are injected.
        observer: "off", or "on": the controller takes off what the forward model did not expect.
        seed: of goals, windows and imagined goals.
        minutes: simulated time after the change, min.
        goal_duration: for which a goal is held, s.
        hold: for which the arm holds the last goal once it has changed, s.
        block: goals of a measurement. The same ones, in the same order, just before the change, just after it, and at
            the end.
        lead: goals before the first measurement.
        update_period: between two updates, simulated s.
        rollback_factor, rollback_goals: of `TrackingWatch`.
        experience, online: how the learner learns.
    """

    change: str = "payload"
    learning: Learning = "on"
    observer: Observer = "on"
    seed: int = 1
    minutes: float = 15.0
    goal_duration: float = 4.0
    hold: float = 3.0
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
            ConfigError: a time that is not above 0, or no goals.
        """
        for name in ("minutes", "update_period", "goal_duration", "hold"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} = {getattr(self, name)} must be a finite number above 0.")
        if self.block < 1:
            raise ConfigError(f"block = {self.block} must be at least 1: give more --goals.")

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
