"""Turns a recording into an animation: the arm as it moved, the goal as a sphere, the hand's recent path."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spiking_controller.evaluation.demo.recording import Recording
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.mujoco_model import joint_addresses

_WIDTH, _HEIGHT = 560, 440
_FRAME_TIME = 0.08
_SPEED = 2.0
_COLOURS = 160
_TRANSPARENT = 255
_TRAIL_DURATION = 1.2
_TRAIL_SPACING = 0.04
_ACCENTS = _BLUE, _RED, _INK, _GREY = (23, 105, 170), (222, 45, 38), (31, 41, 51), (90, 100, 110)
_CAMERA = "overview"
_GOAL_BODY = "goal"
_GOAL_RADIUS = 0.03
_VIEW_FILLED = 0.9
_HEADLIGHT = 0.25


def draw_animation(recording: Recording, arm_name: str, output: Path) -> None:
    """Write an animated GIF of the whole recording at twice its speed.

    Args:
        recording: must hold every joint of the arm.
        arm_name: see `robots.arm.get_arm`.
        output: the file to write.
    """
    frames = list(_frames(recording, arm_name))
    palette = _palette(frames)
    indexed = [np.asarray(frame.quantize(palette=palette, dither=Image.Dither.NONE)) for frame in frames]
    # After the first frame only what changes is stored; the rest is transparent and shows the frame below.
    changes = [np.where(new == old, _TRANSPARENT, new) for old, new in pairwise(indexed)]
    pictures = [Image.fromarray(picture.astype(np.uint8)) for picture in (indexed[0], *changes)]
    for picture in pictures:
        picture.putpalette(palette.getpalette() or [])
    pictures[0].save(
        output,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * _FRAME_TIME),
        loop=0,
        optimize=False,
        transparency=_TRANSPARENT,
        disposal=1,
    )


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One palette for all frames, so that what does not move keeps its colour from frame to frame."""
    samples = [frames[index] for index in np.linspace(0, len(frames) - 1, 4).round().astype(int)]
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT * (len(samples) + 1)))
    for row, sample in enumerate(samples):
        sheet.paste(sample, (0, _HEIGHT * row))
    # Goal, path and text are small; without a share of their own their colours would be lost.
    width = _WIDTH // len(_ACCENTS)
    for column, colour in enumerate(_ACCENTS):
        sheet.paste(_shades(colour, width, _HEIGHT), (width * column, _HEIGHT * len(samples)))
    return sheet.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)


def _frames(recording: Recording, arm_name: str) -> Iterator[Image.Image]:
    arm = get_arm(arm_name)
    model = arm.load_model()
    data = mujoco.MjData(model)
    addresses = joint_addresses(model, arm.joint_names).position
    columns = [recording.joint_names.index(name) for name in arm.joint_names]
    mocap = int(model.body(_GOAL_BODY).mocapid[0])
    goal_geom = int(model.body(_GOAL_BODY).geomadr[0])
    model.geom_size[goal_geom, 0] = _GOAL_RADIUS
    model.geom_matid[goal_geom] = -1
    model.geom_rgba[goal_geom] = [*(np.array(_RED) / 255.0), 1.0]
    model.vis.headlight.diffuse = _HEADLIGHT
    camera = _camera(model, recording)
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    end = recording.goal_time[-1] + recording.goal_duration
    with mujoco.Renderer(model, _HEIGHT, _WIDTH) as renderer:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        for time in np.arange(recording.goal_time[0], end, _FRAME_TIME * _SPEED):
            posture = recording.joint_position[_latest(recording.joint_time, time)]
            data.qpos[addresses] = posture[columns]
            goal = int(recording.active_goal(np.array([time]))[0])
            data.mocap_pos[mocap] = recording.goal[goal]
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera=camera)
            _add_trail(renderer.scene, recording, float(time))
            frame = Image.fromarray(renderer.render())
            hand = recording.hand_position[_latest(recording.hand_time, time)]
            distance = float(np.linalg.norm(hand - recording.goal[goal]))
            _label(frame, font, small, goal, len(recording.goal), distance, float(time - recording.goal_time[0]))
            yield frame


def _camera(model: mujoco.MjModel, recording: Recording) -> mujoco.MjvCamera:
    """Looks along the model's own camera, near enough to fill the picture with hand and goals."""
    points = np.concatenate([recording.hand_position[::20], recording.goal, np.zeros((1, 3))])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    forward = -np.asarray(model.camera(_CAMERA).pos) / np.linalg.norm(model.camera(_CAMERA).pos)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    # A point is in view when its offset from the axis is below its depth times the tangent of the half angle.
    tangent = np.tan(np.radians(model.vis.global_.fovy) / 2)
    offset = points - centre
    across = np.abs(offset @ right) / (_VIEW_FILLED * tangent * _WIDTH / _HEIGHT)
    upwards = np.abs(offset @ up) / (_VIEW_FILLED * tangent)
    camera = mujoco.MjvCamera()
    camera.lookat = centre
    camera.distance = float((np.maximum(across, upwards) - offset @ forward).max())
    camera.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
    camera.elevation = np.degrees(np.arcsin(forward[2]))
    return camera


def _shades(colour: tuple[int, int, int], width: int, height: int) -> Image.Image:
    """A colour from half its brightness over itself to nearly white, from left to right."""
    share = np.linspace(-0.5, 0.8, width)[None, :, None]
    blend = np.array(colour) * (1.0 - np.abs(share)) + np.maximum(share, 0.0) * 255.0
    return Image.fromarray(np.broadcast_to(blend, (height, width, 3)).astype(np.uint8))


def _latest(times: np.ndarray, time: float) -> int:
    """Index of the last sample at or before `time`, or of the first one."""
    return max(0, int(np.searchsorted(times, time, side="right")) - 1)


def _add_trail(scene: mujoco.MjvScene, recording: Recording, time: float) -> None:
    """Small spheres where the hand has been in the last moments, fading with age."""
    for age in np.arange(_TRAIL_SPACING, _TRAIL_DURATION, _TRAIL_SPACING):
        if scene.ngeom >= scene.maxgeom or time - age < recording.hand_time[0]:
            return
        place = recording.hand_position[_latest(recording.hand_time, time - age)]
        fade = 1.0 - age / _TRAIL_DURATION
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=np.array([0.004 + 0.006 * fade, 0.0, 0.0]),
            pos=place,
            mat=np.eye(3).ravel(),
            rgba=np.array([*(np.array(_BLUE) / 255.0), 0.85 * fade], dtype=np.float32),
        )
        scene.ngeom += 1


def _label(
    frame: Image.Image,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    small: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    goal: int,
    goals: int,
    distance: float,
    time: float,
) -> None:
    """Write goal, distance and time on a frame."""
    draw = ImageDraw.Draw(frame)
    draw.text((14, 10), f"goal {goal + 1} of {goals}", font=font, fill=_INK)
    draw.text((14, 32), f"{100 * distance:.1f} cm to go", font=font, fill=_BLUE)
    draw.text(
        (_WIDTH - 14, 12),
        f"{time:.1f} s, shown at {_SPEED:g} x",
        font=small,
        fill=_GREY,
        anchor="ra",
    )
