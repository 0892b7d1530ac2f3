"""The arm, its goal, its way and its imagined future in the page's 3D scene."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import trimesh
import viser
from scipy.spatial.transform import Rotation

from spiking_controller.robots.arm import Arm
from spiking_controller.robots.limits import FloatArray
from spiking_controller.robots.mujoco_model import joint_addresses

GREEN, RED, BLUE, VIOLET, ORANGE = (40, 170, 80), (220, 50, 40), (50, 110, 220), (150, 80, 230), (255, 140, 0)
MOVED = 1e-4
"""A link that has turned and moved by less stays as it is on the page, rad and m."""
SMOOTH = 0.6
"""Edges below this angle look round, rad."""
METRES_PER_NEWTON = 0.005
"""Length of an arrow, and of a spring by which the arm is pulled."""
_VISUAL_GROUP = 2

Pose = tuple[FloatArray, FloatArray]
"""Position, m, [3], and orientation as quaternion w, x, y, z, [4]."""

Push = Callable[[str, FloatArray], None]
"""Takes a link's name and a force in the world's axes, N, [3]; nothing pushes any more where that is zero."""


class ArmModel:
    """Where the links are, and their shapes, by MuJoCo."""

    def __init__(self, arm: Arm) -> None:
        """Read the arm's model."""
        self.arm = arm
        self._model = arm.load_model()
        self._data = mujoco.MjData(self._model)
        self._position = joint_addresses(self._model, arm.joint_names).position
        base = self._model.body(arm.base_frame).id
        bodies = range(self._model.nbody)
        self.links = {self._model.body(body).name: body for body in bodies if self._model.body_rootid[body] == base}

    def parent(self, link: str) -> str | None:
        """The link that carries this one; None for the first."""
        above = self._model.body(int(self._model.body_parentid[self.links[link]])).name
        return above if above in self.links else None

    def moves(self, link: str) -> bool:
        """Whether a joint lies between the link and its parent."""
        return bool(self._model.body_jntnum[self.links[link]])

    def place(self, joint_position: FloatArray) -> None:
        """Bring the links where they are at joint angles [n], rad."""
        self._data.qpos[self._position] = joint_position
        mujoco.mj_kinematics(self._model, self._data)

    def pose(self, link: str) -> Pose:
        """Of a link in the world, where `place` brought it."""
        body = self.links[link]
        return self._data.xpos[body].copy(), self._data.xquat[body].copy()

    def pose_in_parent(self, link: str) -> Pose:
        """Of a link in its parent, where `place` brought it."""
        body = self.links[link]
        parent = int(self._model.body_parentid[body])
        back, position, orientation = np.zeros(4), np.zeros(3), np.zeros(4)
        mujoco.mju_negQuat(back, self._data.xquat[parent])
        mujoco.mju_rotVecQuat(position, self._data.xpos[body] - self._data.xpos[parent], back)
        mujoco.mju_mulQuat(orientation, back, self._data.xquat[body])
        return position, orientation

    def in_link(self, link: str, vector: FloatArray) -> FloatArray:
        """A vector of the world, [3], along the axes of a link where `place` brought it."""
        turned = np.zeros(3)
        mujoco.mju_mulMatTVec(turned, self._data.xmat[self.links[link]].reshape(3, 3), vector)
        return turned

    def shapes(self, link: str) -> dict[tuple[int, int, int], Any]:
        """What is seen of a link, in its frame, by colour."""
        by_colour: dict[tuple[int, int, int], list[trimesh.Trimesh]] = {}
        body = self.links[link]
        first = int(self._model.body_geomadr[body])
        for geom in range(first, first + int(self._model.body_geomnum[body])):
            if self._model.geom_group[geom] == _VISUAL_GROUP:
                material = int(self._model.geom_matid[geom])
                rgba = self._model.mat_rgba[material] if material >= 0 else self._model.geom_rgba[geom]
                red, green, blue = (255 * rgba[:3]).astype(int)
                by_colour.setdefault((int(red), int(green), int(blue)), []).append(self._shape(geom))
        return {colour: trimesh.util.concatenate(shapes) for colour, shapes in by_colour.items()}

    def _shape(self, geom: int) -> trimesh.Trimesh:
        kind, size = int(self._model.geom_type[geom]), self._model.geom_size[geom]
        if kind == mujoco.mjtGeom.mjGEOM_BOX:
            mesh = trimesh.creation.box(extents=2 * size)
        elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
            mesh = trimesh.creation.cylinder(radius=size[0], height=2 * size[1], sections=28)
        elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
            mesh = trimesh.creation.capsule(radius=size[0], height=2 * size[1], count=(16, 16))
        elif kind == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = self._mesh(int(self._model.geom_dataid[geom]))
        else:
            mesh = trimesh.creation.icosphere(subdivisions=3)
            mesh.apply_scale(size if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID else np.full(3, size[0]))
        mesh = trimesh.graph.smooth_shade(mesh, angle=SMOOTH)
        placed = np.eye(4)
        placed[:3, :3] = Rotation.from_quat(np.roll(self._model.geom_quat[geom], -1)).as_matrix()
        placed[:3, 3] = self._model.geom_pos[geom]
        mesh.apply_transform(placed)
        return mesh

    def _mesh(self, number: int) -> trimesh.Trimesh:
        model = self._model
        vertex, face = int(model.mesh_vertadr[number]), int(model.mesh_faceadr[number])
        return trimesh.Trimesh(
            model.mesh_vert[vertex : vertex + int(model.mesh_vertnum[number])],
            model.mesh_face[face : face + int(model.mesh_facenum[number])],
        )


class ArmView:
    """One arm in the scene, solid or as a ghost. Each link hangs on its parent: few of them have to be moved."""

    def __init__(
        self,
        server: viser.ViserServer,
        model: ArmModel,
        name: str,
        ghost: bool = False,
        push: Push | None = None,
        longest_push: float = 0.0,
    ) -> None:
        """Put it there, in no posture yet.

        Args:
            server: of the page.
            model: what the arm looks like.
            name: in the scene.
            ghost: translucent, in one colour.
            push: is called while somebody drags a link; `let_push` says when that is possible.
            longest_push: of a force, N.
        """
        self._server = server
        self._model = model
        self._push = push
        self._longest_push = longest_push
        self._root = server.scene.add_frame(name, show_axes=False)
        self._frames: dict[str, viser.FrameHandle] = {}
        self._shown: dict[str, list[float]] = {}
        self._touched: list[tuple[viser.MeshHandle, str]] = []
        model.place(model.arm.home)
        for number, link in enumerate(model.links):
            parent = model.parent(link)
            # Short names: each message has one in it.
            path = f"{name if parent is None else self._frames[parent].name}/{number}"
            position, orientation = model.pose(link) if parent is None else model.pose_in_parent(link)
            self._frames[link] = server.scene.add_frame(path, show_axes=False, position=position, wxyz=orientation)
            self._add_shapes(link, ghost)

    def _add_shapes(self, link: str, ghost: bool) -> None:
        is_base = link == self._model.arm.base_frame
        if ghost and is_base:
            # It never moves, and would only flicker.
            return
        for number, (colour, mesh) in enumerate(self._model.shapes(link).items()):
            handle = self._server.scene.add_mesh_simple(
                f"{self._frames[link].name}/shape{number}",
                mesh.vertices,
                mesh.faces,
                color=VIOLET if ghost else colour,
                opacity=0.22 if ghost else None,
                cast_shadow=not ghost,
            )
            if not is_base:
                self._touched.append((handle, link))

    def show(self, joint_position: FloatArray, visible: bool = True) -> None:
        """Turn the links that have moved."""
        if self._root.visible != visible:
            self._root.visible = visible
        self._model.place(joint_position)
        with self._server.atomic():
            for link, frame in self._frames.items():
                if not self._model.moves(link):
                    continue
                position, orientation = self._model.pose_in_parent(link)
                pose, shown = [*position.tolist(), *orientation.tolist()], self._shown.get(link)
                if shown is None or max(abs(a - b) for a, b in zip(pose, shown, strict=True)) > MOVED:
                    # Where nothing has changed, viser sends nothing, but takes its time to find out.
                    if shown is None or pose[:3] != shown[:3]:
                        frame.position = position
                    frame.wxyz = orientation
                    self._shown[link] = pose

    def let_push(self, possible: bool) -> None:
        """Whether links can be dragged. What can be dragged hides the handle of the goal behind it."""
        for handle, link in self._touched:
            handle.remove_drag_callback()
            if possible:
                self._attach(handle, link)

    def _attach(self, handle: "viser.MeshHandle", link: str) -> None:
        """Let the link be dragged: the force is that of a spring from where it was taken to the pointer."""
        push = self._push
        assert push is not None

        @handle.on_drag("left")
        async def _(event: viser.SceneNodeDragEvent["viser.MeshHandle"]) -> None:
            if event.phase == "end":
                push(link, np.zeros(3))
                return
            force = np.subtract(event.end_position, event.start_position) / METRES_PER_NEWTON
            length = float(np.linalg.norm(force))
            push(link, force * min(1.0, self._longest_push / max(length, 1e-9)))


class Arrow:
    """A force on a point."""

    def __init__(self, server: viser.ViserServer, name: str, colour: tuple[int, int, int]) -> None:
        """Nothing to be seen yet."""
        self._handle = server.scene.add_arrows(
            name,
            np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]]], dtype=np.float32),
            colour,
            shaft_radius=0.007,
            head_radius=0.018,
            head_length=0.04,
            visible=False,
        )
        self._shown: FloatArray | None = None

    def show(self, point: FloatArray, force: FloatArray | None) -> None:
        """Of a force, N, [3], whose arrow ends at the point, m, [3]; None: of no force."""
        if force is None:
            if self._shown is not None:
                self._handle.visible, self._shown = False, None
            return
        ends = np.array([point - METRES_PER_NEWTON * force, point])
        if self._shown is None or np.abs(ends - self._shown).max() > 1e-3:
            self._handle.points = ends[None].astype(np.float32)
            self._handle.visible = True
            self._shown = ends


class Way:
    """A line through points that change."""

    def __init__(self, server: viser.ViserServer, name: str, colour: tuple[int, int, int]) -> None:
        """Nothing to be seen yet."""
        points = np.zeros((1, 2, 3), dtype=np.float32)
        self._handle = server.scene.add_line_segments(name, points, colour, thickness=0.006)
        self._shown = np.zeros((0, 3))

    def show(self, points: FloatArray) -> None:
        """A line through points [points, 3], m."""
        if points.shape == self._shown.shape and np.allclose(points, self._shown, atol=1e-3):
            return
        self._shown = points
        pairs = np.stack([points[:-1], points[1:]], axis=1) if len(points) > 1 else np.zeros((1, 2, 3))
        self._handle.points = pairs.astype(np.float32)
