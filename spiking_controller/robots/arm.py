"""Says all that the other parts need to know about an arm: joints, limits, posture, frames and description."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import mujoco
import numpy as np

from spiking_controller.errors import RobotModelError
from spiking_controller.resources import share_path
from spiking_controller.robots.arm_file import SUFFIXES, ArmFile, read_arm_file
from spiking_controller.robots.description import Description, root_body, touching_pairs
from spiking_controller.robots.kinematics import KinematicChain
from spiking_controller.robots.limits import FloatArray, JointLimits


@dataclass(frozen=True, eq=False)
class Arm:
    """A torque-driven arm. Arrays are in the order of `joint_names`. `robots.arm_file` reads it from a file.

    Attributes:
        name: short name.
        source: what `get_arm` finds it by: its name, or the path of its file.
        description: its MJCF or URDF.
        controlled_joints: how many of them, from the first, the network drives; the others are held at home.
        home: posture in which the arm waits, rad, [n].
        limits: what the joints may do.
        goal_dimensions: coordinates of a goal, 3, or 2 for an arm in the x-y plane.
        shoulder: point around which the hand can move, m, [3].
        reach: largest distance of the hand from the shoulder within the joint limits, m.
        locked_stiffness: stiffness that holds the other joints, N·m/rad, [n - controlled_joints].
        locked_damping: damping that holds the other joints, N·m·s/rad, [n - controlled_joints].
        checkpoint: networks for it that are used where none are named; None if there are none.
    """

    name: str
    source: str
    description: Description
    controlled_joints: int
    home: FloatArray
    limits: JointLimits
    goal_dimensions: int
    shoulder: FloatArray
    reach: float
    locked_stiffness: FloatArray
    locked_damping: FloatArray
    checkpoint: Path | None = None

    @property
    def joint_names(self) -> tuple[str, ...]:
        """All torque-driven joints in the order of commands, n of them."""
        return self.description.joint_names

    @property
    def hand_site(self) -> str:
        """Site of the model that is brought to the goal."""
        return self.description.hand_site

    @property
    def base_frame(self) -> str:
        """Frame in which goals and hand positions are given; it lies at the model's origin."""
        return self.description.base_frame

    def load_model(
        self, gravity_compensation: bool = True, visuals: bool = True, payload: bool = False
    ) -> mujoco.MjModel:
        """A new MuJoCo model of the arm.

        Args:
            gravity_compensation: the arm carries its own weight, as the real Panda does, so that torques
                exclude gravity. Otherwise the torques must carry it.
            visuals: keep what is only there to be seen; without, the same physics runs faster.
            payload: put a body named `description.PAYLOAD` at the hand's site, without mass until it gets one.
        Raises:
            RobotModelError: the description cannot be read.
        """
        return self.description.model(self.limits.torque, gravity_compensation, visuals, payload)

    @cached_property
    def chain(self) -> KinematicChain:
        """Kinematics of the hand, in the base frame, over all `joint_names`."""
        return KinematicChain.from_model(self.load_model(visuals=False), self.joint_names, self.hand_site)


Made = TypeVar("Made")

DEFAULT_TORQUE_RATE: Final = 1000.0
"""Largest change of torque in a second where an arm's file does not say it, N·m/s: that of Franka's arms."""
_ALWAYS: Final = 0.95
"""Links of a URDF that touch in so large a share of postures do so by their shapes, not by the posture."""


def get_arm(name: str) -> Arm:
    """An arm that is shipped, by its name, or any other, by the path of its file.

    Raises:
        RobotModelError: there is no such arm, or its file or description is wrong.
    """
    if is_arm_file(name):
        path = Path(name).expanduser().resolve()
        return _read(path, str(path))
    if name not in shipped_arms():
        raise RobotModelError(
            f"there is no arm {name!r}; the arms are {', '.join(shipped_arms())}, and any other by the path of its "
            "file, such as my_arm.yaml."
        )
    return _read(share_path("config", "arms", f"{name}.yaml"), name)


def is_arm_file(name: str) -> bool:
    """Whether this is the path of an arm's file, rather than a name; it need not exist."""
    return name.endswith(SUFFIXES)


@cache
def shipped_arms() -> tuple[str, ...]:
    """Names of the arms in config/arms."""
    return tuple(sorted(path.stem for path in share_path("config", "arms").glob("*.yaml")))


@cache
def _read(path: Path, source: str) -> Arm:
    try:
        arm, problems = arm_of(read_arm_file(path), path, source)
    except RobotModelError as error:
        text = str(error)
        raise RobotModelError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    if arm is None:
        more = f" And {len(problems) - 1} more: `spiking_controller arm check {path}`." if len(problems) > 1 else ""
        raise RobotModelError(f"{path}: {problems[0]}{more}")
    return arm


def _beside(file: Path, name: str) -> Path:
    """The path of a file that is named relative to another one, without `..` on the way."""
    return Path(os.path.normpath(file.parent / name))


def arm_of(file: ArmFile, path: Path, source: str) -> tuple[Arm | None, list[str]]:
    """The arm that a file and its description make, with what neither of them says derived.

    Args:
        file: what stands in the file.
        path: of the file.
        source: what `get_arm` finds the arm by.
    Returns:
        The arm, None where values are missing or wrong, and a sentence about each of those.
    Raises:
        RobotModelError: the description cannot be used, or lacks a joint or the hand.
    """
    problems: list[str] = []

    def attempt(make: Callable[..., Made], *arguments: Any) -> Made | None:
        try:
            return make(*arguments)
        except RobotModelError as error:
            problems.append(str(error))
            return None

    controlled = file.controlled_joints
    packages = {name: path.parent / folder for name, folder in file.packages.items()}
    where = _beside(path, file.description)
    description = Description(
        path=where.resolve(),
        joint_names=tuple(file.joints),
        hand_site=file.hand,
        hand_offset=file.point("hand_offset", file.hand_offset),
        base_frame=file.base or root_body(where.resolve(), packages),
        packages=packages,
        armature=file.per_joint("armature", file.armature),
        damping=file.per_joint("damping", file.damping),
    )
    bare = description.model(None, visuals=False)
    chain = KinematicChain.from_model(bare, description.joint_names, description.hand_site)
    limits = attempt(_limits, file, description, bare)
    home = attempt(_home, file, bare)
    shoulder = attempt(file.point, "shoulder", file.shoulder)
    if limits is None or home is None or problems:
        return None, problems
    description = replace(description, rigid_pairs=_rigid_pairs(file, description, bare, limits))
    if shoulder is None:
        shoulder = _shoulder(bare, description.joint_names, home)
    locked = [file.locked[name] for name in file.joints[controlled:]]
    arm = Arm(
        name=file.name or path.stem,
        source=source,
        description=description,
        controlled_joints=controlled,
        home=home,
        limits=limits,
        goal_dimensions=2 if _is_planar(chain, limits) else 3,
        shoulder=shoulder,
        reach=file.reach or _reach(chain, limits, shoulder),
        locked_stiffness=np.array([each.stiffness for each in locked]),
        locked_damping=np.array([each.damping for each in locked]),
        checkpoint=_beside(path, file.checkpoint) if file.checkpoint else None,
    )
    return arm, problems


def _limits(file: ArmFile, description: Description, model: mujoco.MjModel) -> JointLimits:
    """The file's limits; where it gives none, the description's."""
    joints = [model.joint(name).id for name in file.joints]
    found: dict[str, FloatArray | None] = {"position_lower": None, "position_upper": None}
    if model.jnt_limited[joints].all():
        found = {"position_lower": model.jnt_range[joints, 0], "position_upper": model.jnt_range[joints, 1]}
    found["velocity"] = description.velocity_limits()
    found["torque"] = _motor_torques(model, joints)
    found["torque_rate"] = np.full(len(joints), DEFAULT_TORQUE_RATE)
    for name in found:
        given = file.per_joint(f"limits.{name}", getattr(file.limits, name))
        found[name] = found[name] if given is None else given
    if missing := [f"limits.{name}" for name, values in found.items() if values is None]:
        raise RobotModelError(
            f"the description does not say {' and '.join(missing)} of every joint; give it from the data sheet, one "
            "number for all joints or one for each."
        )
    return JointLimits(**found)  # type: ignore[arg-type]  # none is None any more


def _motor_torques(model: mujoco.MjModel, joints: list[int]) -> FloatArray | None:
    """Largest torques that the description states, of a motor or of the joint, N·m, [n]."""
    torques = []
    for joint in joints:
        motors = np.flatnonzero(
            (model.actuator_trnid[:, 0] == joint) & (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT)
        )
        stated = [
            ranges[number, 1]
            for number in motors
            for limited, ranges in (
                (model.actuator_forcelimited, model.actuator_forcerange),
                (model.actuator_ctrllimited, model.actuator_ctrlrange),
            )
            if limited[number]
        ]
        if model.jnt_actfrclimited[joint]:
            stated.append(model.jnt_actfrcrange[joint, 1])
        if not stated:
            return None
        torques.append(float(min(stated)))
    return np.array(torques)


def _home(file: ArmFile, model: mujoco.MjModel) -> FloatArray:
    home = file.per_joint("home", file.home)
    if home is not None:
        return home
    key = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_KEY, "home")
    if key < 0:
        raise RobotModelError(
            f"home is missing, and the description has no keyframe 'home'; give the {len(file.joints)} angles of the "
            "posture in which the arm waits, in rad."
        )
    addresses = [int(model.joint(name).qposadr[0]) for name in file.joints]
    return np.array(model.key_qpos[key, addresses])


def _rigid_pairs(
    file: ArmFile, description: Description, model: mujoco.MjModel, limits: JointLimits
) -> tuple[tuple[str, str], ...]:
    """Pairs that the file names; of a URDF also links that touch in (nearly) every posture."""
    pairs: list[tuple[str, str]] = []
    known = {model.body(body).name for body in range(model.nbody)}
    for pair in file.never_touch:
        if len(pair) != 2 or not set(pair) <= known:
            raise RobotModelError(f"never_touch has {pair}; give pairs of links of {', '.join(sorted(known))}.")
        pairs.append((pair[0], pair[1]))
    if description.is_urdf:
        addresses = np.array([model.joint(name).qposadr[0] for name in file.joints])
        postures = _random_postures(limits, 200)
        touching = touching_pairs(model, postures, addresses)
        pairs += [pair for pair, count in touching.items() if count >= _ALWAYS * len(postures)]
    return tuple(pairs)


def _random_postures(limits: JointLimits, count: int) -> FloatArray:
    rng = np.random.default_rng(0)
    return rng.uniform(limits.position_lower, limits.position_upper, (count, limits.joints))


def _is_planar(chain: KinematicChain, limits: JointLimits) -> bool:
    """Whether the hand keeps its height in every posture."""
    _, jacobian = chain.position_and_jacobian(_random_postures(limits, 20))
    return bool(np.abs(jacobian[:, 2]).max() < 1e-9)


def _shoulder(model: mujoco.MjModel, joint_names: tuple[str, ...], home: FloatArray) -> FloatArray:
    """The point of the first joint's axis that is nearest to the second joint, at home."""
    data = mujoco.MjData(model)
    data.qpos[[model.joint(name).qposadr[0] for name in joint_names]] = home
    mujoco.mj_kinematics(model, data)
    first, second = (model.joint(joint_names[min(i, len(joint_names) - 1)]).id for i in (0, 1))
    axis, anchor = data.xaxis[first], data.xanchor[first]
    along = axis @ (data.xanchor[second] - anchor)
    return np.round(anchor + along * axis, 9) + 0.0


def _reach(chain: KinematicChain, limits: JointLimits, shoulder: FloatArray) -> float:
    """Largest distance of the hand from the shoulder, rounded up to a millimetre, by random search."""
    lower, upper, rng = limits.position_lower, limits.position_upper, np.random.default_rng(0)

    def distance(joint_position: FloatArray) -> FloatArray:
        return np.asarray(np.linalg.norm(chain.position(joint_position) - shoulder, axis=-1))

    best = _random_postures(limits, 20_000)
    best = best[np.argsort(-distance(best))[:100]]
    for width in 0.3 * 0.8 ** np.arange(30):
        near = np.clip(best + rng.normal(0.0, width, (20, *best.shape)), lower, upper).reshape(-1, lower.size)
        candidates = np.concatenate([best, near])
        best = candidates[np.argsort(-distance(candidates))[:100]]
    return float(np.ceil(1e3 * distance(best).max() - 1e-6) / 1e3)
