"""Reads an arm's file: what its description, MJCF or URDF, cannot say or says differently.

`docs/your_arm.md` walks through one; `config/arms/` holds those of the arms that are shipped.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import dacite
import numpy as np
import yaml
from numpy.typing import NDArray

from spiking_controller.errors import RobotModelError

FloatArray = NDArray[np.float64]
PerJoint = float | list[float]
"""One number for all joints, or one for each in the order of `joints`."""

SUFFIXES: Final = (".yaml", ".yml")
"""Of an arm's file."""


@dataclass(frozen=True)
class LockedJoint:
    """The spring and damper that hold a joint which the networks do not drive, N·m/rad and N·m·s/rad."""

    stiffness: float
    damping: float

    def __post_init__(self) -> None:
        if not (0.0 < self.stiffness < np.inf and 0.0 <= self.damping < np.inf):
            raise RobotModelError(
                f"locked: stiffness {self.stiffness} must be above zero and damping {self.damping} not below it."
            )


@dataclass(frozen=True)
class GivenLimits:
    """What the joints may do, where the description does not say it or says it differently; see `JointLimits`."""

    position_lower: PerJoint | None = None
    position_upper: PerJoint | None = None
    velocity: PerJoint | None = None
    torque: PerJoint | None = None
    torque_rate: PerJoint | None = None


@dataclass(frozen=True)
class ArmFile:
    """What stands in an arm's file. Paths are relative to the file's folder.

    Attributes:
        description: path of the MJCF or URDF.
        joints: names of the torque-driven joints in the order of commands; locked ones at the end.
        hand: site (MJCF) or link that is brought to goals.
        name: short name; empty: that of the file.
        hand_offset: from that link to the point that is brought to goals, along the link's axes, m.
        base: root link, in whose frame goals are given; empty: the only root of the description.
        locked: joints that the networks do not drive, and what holds them.
        home: posture in which the arm waits, rad; None: the keyframe "home" of the MJCF.
        limits: what the description does not say.
        shoulder: point around which the hand can move, m; None: on the first joint's axis, at the second joint.
        reach: largest distance of the hand from there, m; None: searched for.
        armature: inertia of the motors at the joints, kg·m²; None: as described.
        damping: viscous joint friction, N·m·s/rad; None: as described.
        packages: folders of the ROS packages that a URDF names its meshes by.
        never_touch: pairs of links that never count as touching, beyond those that always do.
        checkpoint: networks that are used where none are named.
    """

    description: str
    joints: list[str]
    hand: str
    name: str = ""
    hand_offset: list[float] | None = None
    base: str = ""
    locked: dict[str, LockedJoint] = field(default_factory=dict)
    home: list[float] | None = None
    limits: GivenLimits = field(default_factory=GivenLimits)
    shoulder: list[float] | None = None
    reach: float | None = None
    armature: PerJoint | None = None
    damping: PerJoint | None = None
    packages: dict[str, str] = field(default_factory=dict)
    never_touch: list[list[str]] = field(default_factory=list)
    checkpoint: str = ""

    def per_joint(self, name: str, values: PerJoint | None) -> FloatArray | None:
        """One number for each joint, [n].

        Raises:
            RobotModelError: there are more or fewer, or one is not finite.
        """
        if values is None:
            return None
        numbers = np.array(values, dtype=np.float64)
        if numbers.ndim == 0:
            numbers = np.full(len(self.joints), float(numbers))
        if numbers.shape != (len(self.joints),) or not np.isfinite(numbers).all():
            raise RobotModelError(
                f"{name} is {numbers.tolist()}; give one finite number for each of the {len(self.joints)} joints."
            )
        return numbers

    def point(self, name: str, values: list[float] | None) -> FloatArray | None:
        """A point, m, [3].

        Raises:
            RobotModelError: it has another number of coordinates, or one is not finite.
        """
        if values is None:
            return None
        point = np.array(values, dtype=np.float64)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise RobotModelError(f"{name} is {values}; give x, y and z in metres.")
        return point

    @property
    def controlled_joints(self) -> int:
        """How many joints, from the first, the networks drive.

        Raises:
            RobotModelError: a joint is given twice, a locked one is none of the arm's or stands before one that is
                driven, or all are locked.
        """
        if len(set(self.joints)) != len(self.joints) or not self.joints:
            raise RobotModelError(f"joints are {self.joints}; name each torque-driven joint once.")
        if strangers := sorted(self.locked.keys() - set(self.joints)):
            raise RobotModelError(f"locked names '{strangers[0]}', which is not among joints; add it there.")
        driven = [name for name in self.joints if name not in self.locked]
        if not driven:
            raise RobotModelError("locked names every joint; leave those out that the networks are to drive.")
        if self.joints[: len(driven)] != driven:
            early = next(name for name in self.joints if name in self.locked)
            raise RobotModelError(
                f"'{early}' is locked, but stands before joints that are not; give the locked joints at the end of "
                "joints, and the driver's command in the same order."
            )
        return len(driven)


_KNOWN: Final = ", ".join(each.name for each in fields(ArmFile))


def read_arm_file(path: Path) -> ArmFile:
    """Read an arm's file.

    Raises:
        RobotModelError: the file is missing, is not YAML, lacks a key, or has an unknown one or one of a wrong type.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RobotModelError(f"{path}: cannot be read ({error.strerror}); give an arm's file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RobotModelError(f"{path}: is not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(values, dict):
        raise RobotModelError(f"{path}: must hold a mapping of keys such as description, joints and hand.")
    try:
        return dacite.from_dict(ArmFile, values, dacite.Config(strict=True, type_hooks={float: _as_float}))
    except dacite.UnexpectedDataError as error:
        keys = ", ".join(f"'{key}'" for key in sorted(error.keys))
        raise RobotModelError(f"{path}: unknown key {keys}; the known keys are {_KNOWN}.") from None
    except dacite.MissingValueError as error:
        raise RobotModelError(f"{path}: lacks the key '{error.field_path}'; the keys are {_KNOWN}.") from None
    except dacite.DaciteError as error:
        raise RobotModelError(f"{path}: {error}") from None
    except RobotModelError as error:
        raise RobotModelError(f"{path}: {error}") from None


def _as_float(value: Any) -> Any:
    """Whole numbers count as decimal ones."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
