"""Reads an arm's description, MJCF or URDF, and makes of it the MuJoCo model that everything else works with.

What is there stays as it is. What is missing is added: motors, the weight that the arm carries itself, the site at the
hand and, for pictures, floor, light, camera and goal. Joints that are not the arm's become rigid, and so do grippers.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from spiking_controller.errors import RobotModelError

FloatArray = NDArray[np.float64]

PAYLOAD: Final = "payload"
"""The body that the hand holds, where a model has one."""
VISUAL_GROUP, COLLISION_GROUP = 2, 3
"""Of geoms in our MJCF, and in what is made of a URDF."""
_PACKAGE_SCHEME: Final = "package://"
_READABLE_MESHES: Final = (".stl", ".obj", ".msh")


@dataclass(frozen=True, eq=False)
class Description:
    """A description and what an arm's file says about it.

    Attributes:
        path: of the MJCF or URDF.
        joint_names: the arm's joints in the order of commands, [n].
        hand_site: site that is brought to goals, or the link that gets one of that name.
        hand_offset: from that link to the site, along the link's axes, m, [3].
        base_frame: root body of the arm; empty: the only one that has joints below it.
        packages: where ROS packages lie whose name a URDF's meshes are given by.
        armature: inertia of the motors at the joints, kg·m², [n]; None: as described.
        damping: viscous joint friction, N·m·s/rad, [n]; None: as described.
        rigid_pairs: pairs of bodies that never count as touching.
    """

    path: Path
    joint_names: tuple[str, ...]
    hand_site: str
    hand_offset: FloatArray | None = None
    base_frame: str = ""
    packages: Mapping[str, Path] = field(default_factory=dict)
    armature: FloatArray | None = None
    damping: FloatArray | None = None
    rigid_pairs: tuple[tuple[str, str], ...] = ()

    @property
    def is_urdf(self) -> bool:
        """Whether the file is a URDF."""
        return _root(self.path).tag == "robot"

    def model(
        self, torque_limit: FloatArray | None, carries_weight: bool = True, visuals: bool = True, payload: bool = False
    ) -> mujoco.MjModel:
        """A new MuJoCo model.

        Args:
            torque_limit: of motors that the description lacks, N·m, [n]; None: such joints get no motor.
            carries_weight: every link behind a joint is held against gravity.
            visuals: keep what is only there to be seen.
            payload: put a body named PAYLOAD at the hand's site, without mass until somebody gives it one.
        Raises:
            RobotModelError: the description cannot be read, or lacks a joint, the hand or the base.
        """
        try:
            spec = self._spec()
            spec.compiler.discardvisual = not visuals
            self._add_hand(spec)
            self._drive(spec, torque_limit)
            _carry(spec)
            _add_scene(spec)
            for first, second in self.rigid_pairs:
                spec.add_exclude(bodyname1=first, bodyname2=second)
            if payload:
                hand = spec.site(self.hand_site)
                hand.parent.add_body(name=PAYLOAD, pos=hand.pos, quat=hand.quat, gravcomp=1.0)
            model = spec.compile()
        except ValueError as error:
            if isinstance(error, RobotModelError):
                raise
            raise RobotModelError(f"{self.path} cannot be loaded ({' '.join(str(error).split())}); mend it.") from error
        if payload:
            # The compiler puts the centre of a body without mass elsewhere.
            model.body_ipos[model.body(PAYLOAD).id] = 0.0
        if not carries_weight:
            model.body_gravcomp[:] = 0.0
        return model

    def velocity_limits(self) -> FloatArray | None:
        """Largest speeds that a URDF states, rad/s, [n]; None where it states none, and of an MJCF, which cannot."""
        found = {
            joint.get("name"): float(limit.get("velocity", "nan"))
            for joint in _root(self.path).iter("joint")
            if (limit := joint.find("limit")) is not None
        }
        speeds = np.array([found.get(name, np.nan) for name in self.joint_names])
        return speeds if np.isfinite(speeds).all() else None

    def _spec(self) -> mujoco.MjSpec:
        if not self.is_urdf:
            spec = mujoco.MjSpec.from_file(str(self.path))
        else:
            spec = mujoco.MjSpec.from_string(_urdf_for_mujoco(self.path, self.packages))
            _show_meshes_and_touch_capsules(spec)
            spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        return spec

    def _add_hand(self, spec: mujoco.MjSpec) -> None:
        """The site at the hand, and the base at the origin."""
        bodies = {body.name: body for body in spec.bodies}
        base = self.base_frame
        if base:
            roots = {body.name for body in spec.worldbody.bodies}
            if base not in roots:
                raise RobotModelError(
                    f"{self.path}: base is '{base}', which is no root of the description; give one of "
                    f"{', '.join(sorted(roots))}."
                )
            if bodies[base].joints:
                raise RobotModelError(f"{self.path}: the base '{base}' has a joint of its own; the base must be fixed.")
            bodies[base].pos, bodies[base].quat = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
        if any(site.name == self.hand_site for site in spec.sites):
            return
        if self.hand_site not in bodies:
            known = sorted({*bodies, *(site.name for site in spec.sites)} - {"", "world"})
            raise RobotModelError(
                f"{self.path}: there is no site or link '{self.hand_site}' for the hand; give one of "
                f"{', '.join(known)}."
            )
        offset = np.zeros(3) if self.hand_offset is None else self.hand_offset
        bodies[self.hand_site].add_site(name=self.hand_site, pos=offset, group=4)

    def _drive(self, spec: mujoco.MjSpec, torque_limit: FloatArray | None) -> None:
        """Motors for the arm's joints; the other joints become rigid."""
        joints = {joint.name: joint for joint in spec.joints}
        if missing := [name for name in self.joint_names if name not in joints]:
            raise RobotModelError(
                f"{self.path}: there is no joint '{missing[0]}'; the description's joints are {', '.join(joints)}."
            )
        changed = False
        others = [joint for name, joint in joints.items() if name not in self.joint_names]
        driven = set()
        for actuator in list(spec.actuators):
            if actuator.target in self.joint_names and _is_motor(actuator):
                driven.add(actuator.target)
            elif actuator.target in self.joint_names or others:
                spec.delete(actuator)
                changed = True
        for element in [*spec.equalities, *spec.tendons] if others else []:
            spec.delete(element)
        for joint in others:
            spec.delete(joint)
            changed = True
        for column, name in enumerate(self.joint_names):
            if self.armature is not None:
                joints[name].armature = self.armature[column]
            if self.damping is not None:
                joints[name].damping = _like(joints[name].damping, self.damping[column])
            if name not in driven and torque_limit is not None:
                changed = True
                limit = float(torque_limit[column])
                motor = spec.add_actuator(
                    name=f"{name}_motor", target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=[-limit, limit]
                )
                motor.set_to_motor()
                motor.ctrllimited = True
        if changed:
            for key in list(spec.keys):  # they hold numbers of what is no longer there
                spec.delete(key)


def touching_pairs(
    model: mujoco.MjModel, postures: FloatArray, addresses: NDArray[np.intp]
) -> dict[tuple[str, str], int]:
    """In how many postures [batch, n], rad, each pair of bodies touches, by their names."""
    data = mujoco.MjData(model)
    found: dict[tuple[str, str], int] = {}
    for posture in postures:
        data.qpos[addresses] = posture
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        bodies = {tuple(sorted(model.geom_bodyid[contact.geom])) for contact in data.contact}
        for first, second in bodies:
            pair = model.body(int(first)).name, model.body(int(second)).name
            found[pair] = found.get(pair, 0) + 1
    return found


def root_body(path: Path, packages: Mapping[str, Path]) -> str:
    """The only root body of a description that has joints below it.

    Raises:
        RobotModelError: there are several, or none.
    """
    spec = Description(path, (), "", packages=packages)._spec()
    roots = [body.name for body in spec.worldbody.bodies if any(_joints_below(body))]
    if len(roots) != 1:
        raise RobotModelError(f"{path}: base is not given, and the description has the roots {roots}; give one.")
    return str(roots[0])


def _joints_below(body: Any) -> Iterator[Any]:
    yield from body.joints
    for child in body.bodies:
        yield from _joints_below(child)


def _like(old: Any, value: float) -> Any:
    """A value in the shape of the one that it replaces."""
    if np.ndim(old) == 0:
        return value
    new = np.zeros(np.shape(old))
    new[0] = value
    return new


def _is_motor(actuator: Any) -> bool:
    """Whether an actuator turns its control into torque, one to one."""
    return bool(
        actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT
        and actuator.dyntype == mujoco.mjtDyn.mjDYN_NONE
        and actuator.gaintype == mujoco.mjtGain.mjGAIN_FIXED
        and actuator.biastype == mujoco.mjtBias.mjBIAS_NONE
        and actuator.gainprm[0] == 1.0
        and actuator.gear[0] == 1.0
    )


def _carry(spec: mujoco.MjSpec) -> None:
    """Every link behind a joint is held against gravity, as by the robot's own controller."""

    def visit(body: Any, moves: bool) -> None:
        moves = moves or bool(body.joints)
        if moves:
            body.gravcomp = 1.0
        for child in body.bodies:
            visit(child, moves)

    for body in spec.worldbody.bodies:
        visit(body, False)


def _add_scene(spec: mujoco.MjSpec) -> None:
    """What pictures need: a floor (for contacts, too), a light, a camera and the goal, each where it is missing."""
    world = spec.worldbody
    if not any(geom.type == mujoco.mjtGeom.mjGEOM_PLANE for geom in spec.geoms):
        _add_texture(spec, "floor", mujoco.mjtTexture.mjTEXTURE_2D, mujoco.mjtBuiltin.mjBUILTIN_CHECKER, 256)
        material = spec.add_material(name="floor", texrepeat=[4.0, 4.0], texuniform=True)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
        world.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.0, 0.0, 0.1], material="floor")
    if not spec.lights:
        _add_texture(spec, "sky", mujoco.mjtTexture.mjTEXTURE_SKYBOX, mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, 1536)
        spec.stat.extent = 1.2
        spec.visual.quality.shadowsize = 4096
        spec.visual.map.shadowclip = 2.0
        spec.visual.headlight.ambient = spec.visual.headlight.diffuse = [0.35, 0.35, 0.35]
        spec.visual.global_.offwidth, spec.visual.global_.offheight = 1920, 1440
        world.add_light(pos=[1.2, -1.2, 3.0], dir=[-0.35, 0.35, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    if not any(camera.name == "overview" for camera in spec.cameras):
        camera = world.add_camera(name="overview", pos=[2.0, -1.75, 1.25], fovy=39.0)
        camera.alt.xyaxes = [0.6679, 0.7442, 0.0, -0.1997, 0.1793, 0.9633]
    if not any(body.name == "goal" for body in spec.bodies):
        goal = world.add_body(name="goal", mocap=True, pos=[0.0, 0.0, -0.5])
        goal.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[0.02, 0.0, 0.0],
            rgba=[0.9, 0.08, 0.08, 0.6],
            contype=0,
            conaffinity=0,
            mass=0.0,
            group=VISUAL_GROUP,
        )


def _add_texture(spec: mujoco.MjSpec, name: str, kind: Any, pattern: Any, height: int) -> None:
    spec.add_texture(
        name=name,
        type=kind,
        builtin=pattern,
        rgb1=[0.80, 0.82, 0.85],
        rgb2=[0.72, 0.75, 0.79],
        width=256,
        height=height,
    )


def _root(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise RobotModelError(f"{path} cannot be loaded ({error.strerror}); give an MJCF or a URDF.") from None
    except ElementTree.ParseError as error:
        raise RobotModelError(f"{path} cannot be loaded (it is not XML: {error}); give an MJCF or a URDF.") from None


def _urdf_for_mujoco(path: Path, packages: Mapping[str, Path]) -> str:
    """A URDF with absolute paths of meshes, and without what MuJoCo cannot read or would throw away.

    Raises:
        RobotModelError: a mesh for contacts is not there, or has a format that MuJoCo cannot read.
    """
    robot = _root(path)
    for link in robot.iter("link"):
        # MuJoCo reads no Collada; what is seen is made of the meshes for contacts.
        for visual in link.findall("visual"):
            link.remove(visual)
    for mesh in robot.iter("mesh"):
        file = _mesh_file(mesh.get("filename", ""), path, packages)
        if file.suffix.lower() not in _READABLE_MESHES:
            raise RobotModelError(
                f"{path}: the collision mesh {file} is not one of {', '.join(_READABLE_MESHES)}; convert it."
            )
        mesh.set("filename", str(file))
    for extension in robot.findall("mujoco"):
        robot.remove(extension)
    extension = ElementTree.Element("mujoco")
    ElementTree.SubElement(
        extension, "compiler", strippath="false", fusestatic="false", discardvisual="false", balanceinertia="true"
    )
    robot.insert(0, extension)
    return ElementTree.tostring(robot, encoding="unicode")


def _mesh_file(name: str, path: Path, packages: Mapping[str, Path]) -> Path:
    """Where a mesh lies: package://NAME/... is looked for in `packages`, then in the folders above the URDF."""
    if not name.startswith(_PACKAGE_SCHEME):
        file = path.parent / name.removeprefix("file://")
    else:
        package, _, rest = name.removeprefix(_PACKAGE_SCHEME).partition("/")
        above = [packages[package]] if package in packages else [p for p in path.resolve().parents if p.name == package]
        if not above:
            raise RobotModelError(
                f"{path}: the package '{package}' of the mesh {name} is not above the URDF; say where it is with "
                f"packages: {{{package}: FOLDER}}."
            )
        file = above[0] / rest
    if not file.is_file():
        raise RobotModelError(f"{path}: the mesh {name} is not at {file}; correct packages, or get the file.")
    return file.resolve()


def _show_meshes_and_touch_capsules(spec: mujoco.MjSpec) -> None:
    """Meshes are there to be seen; in their place a capsule of the same size touches, which is quick to test."""
    for body in spec.bodies:
        for geom in list(body.geoms):
            geom.group = COLLISION_GROUP
            geom.mass = 0.0
            shown = body.add_geom(
                type=geom.type,
                size=geom.size,
                pos=geom.pos,
                quat=geom.quat,
                group=VISUAL_GROUP,
                contype=0,
                conaffinity=0,
                mass=0.0,
                rgba=[0.8, 0.82, 0.85, 1.0],
            )
            if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
                shown.meshname = geom.meshname
                geom.type = mujoco.mjtGeom.mjGEOM_CAPSULE
