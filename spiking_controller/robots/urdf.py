"""Writes an arm's MJCF as URDF, for tools that know no MJCF: RViz, Foxglove, robot_state_publisher.

Kinematics, inertia and limits are the same. URDF knows neither capsules nor ellipsoids: a capsule becomes a cylinder
with a sphere at each end, an ellipsoid a stack of discs. It knows no armature either; that of the joints is left out.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import Arm
from spiking_controller.robots.description import COLLISION_GROUP, VISUAL_GROUP
from spiking_controller.robots.limits import FloatArray

DISCS = 6
"""That an ellipsoid is cut into."""
UPRIGHT = (1.0, 0.0, 0.0, 0.0)


class Shape(NamedTuple):
    """A shape that URDF knows, in the frame of its link.

    Attributes:
        kind: box, cylinder (about z) or sphere.
        size: attributes of the URDF element, m.
        position: m, [3].
        orientation: quaternion w, x, y, z, [4].
    """

    kind: str
    size: dict[str, str]
    position: FloatArray
    orientation: FloatArray


def hand_frame(arm: Arm) -> str:
    """The link of the URDF at the point that is brought to goals, such as panda_hand_tcp."""
    if arm.description.is_urdf and arm.description.hand_offset is None:
        return arm.hand_site
    return f"{arm.base_frame.partition('_')[0]}_{arm.hand_site}"


def urdf(arm: Arm) -> str:
    """The arm's description: its own URDF if it has one, else one made from its MJCF.

    Returns:
        URDF, one line break at the end.
    Raises:
        RobotModelError: a joint does not turn about an axis through its link's origin, or a shape has no URDF form.
    """
    if arm.description.is_urdf:
        return arm.description.path.read_text(encoding="utf-8").rstrip() + "\n"
    model, source = arm.load_model(), arm.description.path
    robot = ElementTree.Element("robot", name=arm.name)
    robot.append(
        ElementTree.Comment(f" Made by `spiking_controller urdf {arm.name}` from {source.name}; change that file. ")
    )
    links = _links(model, arm)
    for material, rgba in _materials(model, links):
        element = ElementTree.SubElement(robot, "material", name=material)
        ElementTree.SubElement(element, "color", rgba=" ".join(f"{value:.3g}" for value in rgba))
    for body in links:
        _add_link(robot, model, body)
        if model.body(body).name != arm.base_frame:
            _add_joint(robot, model, body, arm)
    _add_hand_frame(robot, model, arm)
    ElementTree.indent(robot)
    return '<?xml version="1.0"?>\n' + ElementTree.tostring(robot, encoding="unicode") + "\n"


def _links(model: mujoco.MjModel, arm: Arm) -> list[int]:
    """Bodies of the arm from base to hand."""
    base = model.body(arm.base_frame).id
    if model.body_pos[base].any() or not np.allclose(model.body_quat[base], UPRIGHT):
        raise RobotModelError(f"{arm.description.path}: {arm.base_frame} is not at the origin; put it there.")
    return [body for body in range(model.nbody) if model.body_rootid[body] == base]


def _add_link(robot: ElementTree.Element, model: mujoco.MjModel, body: int) -> None:
    link = ElementTree.SubElement(robot, "link", name=model.body(body).name)
    if model.body_mass[body] > 0.0:
        inertial = ElementTree.SubElement(link, "inertial")
        ElementTree.SubElement(inertial, "origin", xyz=_numbers(model.body_ipos[body]), rpy="0 0 0")
        ElementTree.SubElement(inertial, "mass", value=_number(model.body_mass[body]))
        turned = _rotation(model.body_iquat[body]).as_matrix()
        tensor = turned @ np.diag(model.body_inertia[body]) @ turned.T
        entries = {f"i{'xyz'[i]}{'xyz'[j]}": _number(tensor[i, j]) for i in range(3) for j in range(i, 3)}
        ElementTree.SubElement(inertial, "inertia", entries)
    first = int(model.body_geomadr[body])
    for geom in range(first, first + int(model.body_geomnum[body])):
        group = int(model.geom_group[geom])
        for shape in shapes_of(model, geom):
            if group == VISUAL_GROUP:
                element = _add_shape(link, "visual", shape)
                ElementTree.SubElement(element, "material", name=_material_name(model, geom))
            elif group == COLLISION_GROUP:
                _add_shape(link, "collision", shape)


def _add_shape(link: ElementTree.Element, what: str, shape: Shape) -> ElementTree.Element:
    element = ElementTree.SubElement(link, what)
    _add_origin(element, shape.position, shape.orientation)
    geometry = ElementTree.SubElement(element, "geometry")
    ElementTree.SubElement(geometry, shape.kind, shape.size)
    return element


def _add_joint(robot: ElementTree.Element, model: mujoco.MjModel, body: int, arm: Arm) -> None:
    """The joint between a link and its parent."""
    name, parent = model.body(body).name, model.body(int(model.body_parentid[body])).name
    count, address = int(model.body_jntnum[body]), int(model.body_jntadr[body])
    joint_name = model.joint(address).name if count else f"{name}_fixed"
    element = ElementTree.SubElement(robot, "joint", name=joint_name, type="revolute" if count else "fixed")
    _add_origin(element, model.body_pos[body], model.body_quat[body])
    ElementTree.SubElement(element, "parent", link=parent)
    ElementTree.SubElement(element, "child", link=name)
    if not count:
        return
    if count > 1 or model.jnt_pos[address].any() or joint_name not in arm.joint_names:
        raise RobotModelError(
            f"{arm.description.path}: {name} has a joint that URDF cannot have; give it one hinge through its origin, "
            "of the arm's joints."
        )
    number, limits = arm.joint_names.index(joint_name), arm.limits
    ElementTree.SubElement(element, "axis", xyz=_numbers(model.jnt_axis[address]))
    ElementTree.SubElement(
        element,
        "limit",
        lower=_number(limits.position_lower[number]),
        upper=_number(limits.position_upper[number]),
        velocity=_number(limits.velocity[number]),
        effort=_number(limits.torque[number]),
    )
    dof = int(model.jnt_dofadr[address])
    ElementTree.SubElement(
        element,
        "dynamics",
        damping=_number(np.ravel(model.dof_damping[dof])[0]),
        friction=_number(model.dof_frictionloss[dof]),
    )


def _add_hand_frame(robot: ElementTree.Element, model: mujoco.MjModel, arm: Arm) -> None:
    site, frame = model.site(arm.hand_site), hand_frame(arm)
    ElementTree.SubElement(robot, "link", name=frame)
    element = ElementTree.SubElement(robot, "joint", name=f"{frame}_fixed", type="fixed")
    _add_origin(element, site.pos, site.quat)
    ElementTree.SubElement(element, "parent", link=model.body(int(model.site_bodyid[site.id])).name)
    ElementTree.SubElement(element, "child", link=frame)


def shapes_of(model: mujoco.MjModel, geom: int) -> Iterator[Shape]:
    """What a geom becomes in URDF.

    Raises:
        RobotModelError: a mesh, plane or the like.
    """
    kind = mujoco.mjtGeom(int(model.geom_type[geom]))
    size, position = model.geom_size[geom], model.geom_pos[geom]
    orientation = model.geom_quat[geom]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        yield Shape("box", {"size": _numbers(2.0 * size)}, position, orientation)
    elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        yield _sphere(size[0], position)
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        yield _cylinder(size[0], 2.0 * size[1], position, orientation)
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        yield _cylinder(size[0], 2.0 * size[1], position, orientation)
        along = _rotation(orientation).apply([0.0, 0.0, size[1]])
        yield _sphere(size[0], position + along)
        yield _sphere(size[0], position - along)
    elif kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        yield from _discs(size, position, _rotation(orientation))
    else:
        raise RobotModelError(
            f"geom {geom} is a {kind.name}; URDF gets boxes, spheres, cylinders, capsules, ellipsoids."
        )


def _discs(size: FloatArray, position: FloatArray, orientation: Rotation) -> Iterator[Shape]:
    """An ellipsoid cut across the axis about which it is roundest; each disc has the radius of its middle."""
    unevenness = [abs(np.log(size[(axis + 1) % 3] / size[(axis + 2) % 3])) for axis in range(3)]
    axis = int(np.argmin(unevenness))
    radius = np.sqrt(size[(axis + 1) % 3] * size[(axis + 2) % 3])
    to_axis = Rotation.from_rotvec(np.pi / 2 * np.array([(0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 0.0)][axis]))
    turned = orientation * to_axis
    for middle in (np.arange(DISCS) + 0.5) * 2.0 / DISCS - 1.0:
        centre = position + turned.apply([0.0, 0.0, middle * size[axis]])
        thickness = 2.0 * size[axis] / DISCS
        yield _cylinder(radius * np.sqrt(1.0 - middle**2), thickness, centre, _quaternion(turned))


def _cylinder(radius: float, length: float, position: FloatArray, orientation: FloatArray) -> Shape:
    return Shape("cylinder", {"radius": _number(radius), "length": _number(length)}, position, orientation)


def _sphere(radius: float, position: FloatArray) -> Shape:
    return Shape("sphere", {"radius": _number(radius)}, position, np.array(UPRIGHT))


def _material_name(model: mujoco.MjModel, geom: int) -> str:
    return str(model.mat(int(model.geom_matid[geom])).name)


def _materials(model: mujoco.MjModel, links: list[int]) -> Iterator[tuple[str, FloatArray]]:
    is_shown = (model.geom_group == VISUAL_GROUP) & np.isin(model.geom_bodyid, links)
    for material in range(model.nmat):
        if (model.geom_matid[is_shown] == material).any():
            yield model.mat(material).name, model.mat_rgba[material]


def _rotation(quaternion: Sequence[float] | FloatArray) -> Rotation:
    """From MuJoCo's order of a quaternion, w first."""
    return Rotation.from_quat(np.roll(quaternion, -1))


def _quaternion(rotation: Rotation) -> FloatArray:
    return np.roll(rotation.as_quat(), 1)


def _add_origin(element: ElementTree.Element, position: FloatArray, quaternion: FloatArray) -> None:
    matrix = _rotation(quaternion).as_matrix()
    # Fixed axes x, y, z, as URDF has it; by hand, since scipy warns of a pitch of a quarter turn.
    pitch = np.arctan2(-matrix[2, 0], np.hypot(matrix[0, 0], matrix[1, 0]))
    if np.hypot(matrix[0, 0], matrix[1, 0]) < 1e-9:
        roll, yaw = np.arctan2(-matrix[1, 2], matrix[1, 1]), 0.0
    else:
        roll, yaw = np.arctan2(matrix[2, 1], matrix[2, 2]), np.arctan2(matrix[1, 0], matrix[0, 0])
    angles = np.array([roll, pitch, yaw])
    ElementTree.SubElement(element, "origin", xyz=_numbers(position), rpy=_numbers(angles))


def _number(value: float) -> str:
    """Ten digits; what is nearly nothing is nothing."""
    return f"{0.0 if abs(value) < 1e-12 else float(value):.10g}"


def _numbers(values: FloatArray) -> str:
    return " ".join(_number(value) for value in values)
