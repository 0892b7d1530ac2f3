"""Says all that the other parts need to know about an arm: joints, limits, posture, frames and model file."""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import mujoco
import numpy as np

from spiking_controller.errors import RobotModelError
from spiking_controller.resources import share_path
from spiking_controller.robots.kinematics import KinematicChain
from spiking_controller.robots.limits import FloatArray, JointLimits

PAYLOAD = "payload"
"""The body that the hand holds, where a model has one."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A torque-driven arm. Arrays are in the order of `joint_names`.

    Attributes:
        name: short name, as `get_arm` takes it.
        mjcf: its MuJoCo description.
        joint_names: all torque-driven joints in the order of commands, n of them.
        controlled_joints: how many of them, from the first, the network drives; the others are held at home.
        home: posture in which the arm waits, rad, [n].
        limits: what the joints may do.
        hand_site: site of the model that is brought to the goal.
        base_frame: frame in which goals and hand positions are given; it lies at the model's origin.
        goal_dimensions: coordinates of a goal, 3, or 2 for an arm in the x-y plane.
        shoulder: point around which the hand can move, m, [3].
        reach: largest distance of the hand from the shoulder within the joint limits, m.
        locked_stiffness: stiffness that holds the other joints, N·m/rad, [n - controlled_joints].
        locked_damping: damping that holds the other joints, N·m·s/rad, [n - controlled_joints].
    """

    name: str
    mjcf: Path
    joint_names: tuple[str, ...]
    controlled_joints: int
    home: FloatArray
    limits: JointLimits
    hand_site: str
    base_frame: str
    goal_dimensions: int
    shoulder: FloatArray
    reach: float
    locked_stiffness: FloatArray
    locked_damping: FloatArray

    def load_model(
        self, gravity_compensation: bool = True, visuals: bool = True, payload: bool = False
    ) -> mujoco.MjModel:
        """A new MuJoCo model of the arm.

        Args:
            gravity_compensation: the arm carries its own weight, as the real Panda does, so that torques
                exclude gravity. Otherwise the torques must carry it.
            visuals: keep what is only there to be seen; without, the same physics runs faster.
            payload: put a body named PAYLOAD at the hand's site, without mass until somebody gives it one.
        Raises:
            RobotModelError: the description cannot be read.
        """
        try:
            spec = mujoco.MjSpec.from_file(str(self.mjcf))
            spec.compiler.discardvisual = not visuals
            if payload:
                hand = spec.site(self.hand_site)
                hand.parent.add_body(name=PAYLOAD, pos=hand.pos, quat=hand.quat, gravcomp=1.0)
            model = spec.compile()
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise RobotModelError(f"{self.mjcf} cannot be loaded ({reason}); reinstall the package.") from error
        if not gravity_compensation:
            model.body_gravcomp[:] = 0.0
        return model

    @cached_property
    def chain(self) -> KinematicChain:
        """Kinematics of the hand, in the base frame, over all `joint_names`."""
        return KinematicChain.from_model(self.load_model(visuals=False), self.joint_names, self.hand_site)


def _panda() -> Arm:
    # Limits: Franka Emika, "Robot and interface specifications", Panda.
    return Arm(
        name="panda",
        mjcf=share_path("models", "panda.xml"),
        joint_names=tuple(f"panda_joint{i}" for i in range(1, 8)),
        controlled_joints=6,
        home=np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4]),
        limits=JointLimits(
            position_lower=np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]),
            position_upper=np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
            velocity=np.array([2.175] * 4 + [2.61] * 3),
            torque=np.array([87.0] * 4 + [12.0] * 3),
            torque_rate=np.full(7, 1000.0),
        ),
        hand_site="hand_tcp",
        base_frame="panda_link0",
        goal_dimensions=3,
        shoulder=np.array([0.0, 0.0, 0.333]),
        reach=0.948,
        locked_stiffness=np.array([10.0]),
        locked_damping=np.array([2.0]),
    )


def _planar_arm() -> Arm:
    return Arm(
        name="planar_arm",
        mjcf=share_path("models", "planar_arm.xml"),
        joint_names=("planar_joint1", "planar_joint2"),
        controlled_joints=2,
        home=np.array([0.6, 1.2]),
        limits=JointLimits(
            position_lower=np.array([-np.pi, -2.8]),
            position_upper=np.array([np.pi, 2.8]),
            velocity=np.full(2, np.pi / 2),
            torque=np.full(2, 20.0),
            torque_rate=np.full(2, 1000.0),
        ),
        hand_site="hand_tcp",
        base_frame="planar_base",
        goal_dimensions=2,
        shoulder=np.zeros(3),
        reach=0.9,
        locked_stiffness=np.zeros(0),
        locked_damping=np.zeros(0),
    )


_ARMS = {"panda": _panda, "planar_arm": _planar_arm}


@cache
def get_arm(name: str) -> Arm:
    """The arm of that name: "panda" or "planar_arm".

    Raises:
        RobotModelError: there is no such arm.
    """
    if name not in _ARMS:
        raise RobotModelError(f"there is no arm {name!r}; the arms are {', '.join(sorted(_ARMS))}.")
    return _ARMS[name]()
