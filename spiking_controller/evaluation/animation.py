"""Turns a recording into an animation: the arm as it moved, the goal as a sphere, the hand's recent path."""

from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spiking_controller.evaluation.recording import Recording
from spiking_controller.robots.arm import get_arm

_WIDTH, _HEIGHT = 480, 400
_FRAME_TIME = 0.08
_SPEED = 2.0
_COLOURS = 96
_TRAIL_DURATION = 1.2
_TRAIL_SPACING = 0.04
_TRAIL_COLOUR = (0.09, 0.41, 0.67)
_CAMERA = "overview"
_GOAL_BODY = "goal"


def draw_animation(recording: Recording, arm_name: str, output: Path) -> None:
    """Write an animated GIF of the whole recording at twice its speed.

    Args:
        recording: must hold every joint of the arm.
        arm_name: see `robots.arm.get_arm`.
        output: the file to write.
    """
    frames = list(_frames(recording, arm_name))
    # One palette for all frames and no dithering: what does not move stays the same from frame to frame and is
    # stored once.
    sample = Image.new("RGB", (_WIDTH, _HEIGHT * 4))
    for row, index in enumerate(np.linspace(0, len(frames) - 1, 4).round().astype(int)):
        sample.paste(frames[index], (0, _HEIGHT * row))
    palette = sample.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    indexed[0].save(
        output,
        save_all=True,
        append_images=indexed[1:],
        duration=round(1000 * _FRAME_TIME),
        loop=0,
        optimize=False,
    )


def _frames(recording: Recording, arm_name: str) -> Iterator[Image.Image]:
    arm = get_arm(arm_name)
    model = arm.load_model()
    data = mujoco.MjData(model)
    addresses = [model.joint(name).qposadr[0] for name in arm.joint_names]
    columns = [recording.joint_names.index(name) for name in arm.joint_names]
    mocap = int(model.body(_GOAL_BODY).mocapid[0])
    model.vis.global_.offwidth, model.vis.global_.offheight = 2 * _WIDTH, 2 * _HEIGHT
    final, hand_distance = recording.final_error(), recording.distance()
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    end = recording.goal_time[-1] + recording.goal_duration
    with mujoco.Renderer(model, 2 * _HEIGHT, 2 * _WIDTH) as renderer:
        for time in np.arange(recording.goal_time[0], end, _FRAME_TIME * _SPEED):
            posture = recording.joint_position[_latest(recording.joint_time, time)]
            data.qpos[addresses] = posture[columns]
            goal = int(recording.active_goal(np.array([time]))[0])
            data.mocap_pos[mocap] = recording.goal[goal]
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera=_CAMERA)
            _add_trail(renderer.scene, recording, float(time))
            # Drawn at twice the size and reduced: smooth edges also where the driver has no multisampling.
            frame = Image.fromarray(renderer.render()).resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
            distance = float(hand_distance[_latest(recording.hand_time, time)])
            _label(frame, font, small, goal, len(final), distance, float(time - recording.goal_time[0]))
            yield frame


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
            rgba=np.array([*_TRAIL_COLOUR, 0.85 * fade], dtype=np.float32),
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
    draw.text((14, 10), f"goal {goal + 1} of {goals}", font=font, fill=(31, 41, 51))
    draw.text((14, 32), f"{100 * distance:.1f} cm to go", font=font, fill=(23, 105, 170))
    draw.text(
        (_WIDTH - 14, 12),
        f"{time:.1f} s, shown at {_SPEED:g} x",
        font=small,
        fill=(90, 100, 110),
        anchor="ra",
    )
