"""Draws an arm at home and with its hand at random goals, off-screen; `rendering.render_by` starts it as a program."""

import argparse
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.limits import FloatArray
from spiking_controller.robots.mujoco_model import joint_addresses
from spiking_controller.tasks.goals import sample_joint_position
from spiking_controller.tasks.reach import ReachTask, task_of

WIDTH, HEIGHT = 480, 420
COLUMNS = 3
_VIEWS = {3: (130.0, -25.0), 2: (90.0, -89.0)}
"""Azimuth and elevation by the coordinates of a goal, degrees."""


def draw_arm(task: ReachTask, goals: int, seed: int) -> Image.Image:
    """The task's arm at home, then with its hand at so many goals, each a red sphere, side by side."""
    arm = task.arm
    postures = np.concatenate([arm.home[None], sample_joint_position(task, np.random.default_rng(seed), goals)])
    labels = ["home", *(f"goal {number + 1}" for number in range(goals))]
    model = arm.load_model()
    data = mujoco.MjData(model)
    addresses = joint_addresses(model, arm.joint_names).position
    camera = mujoco.MjvCamera()
    camera.lookat = arm.shoulder
    camera.distance = 2.4 * arm.reach
    camera.azimuth, camera.elevation = _VIEWS[arm.goal_dimensions]
    rows = -(-len(postures) // COLUMNS)
    sheet = Image.new("RGB", (WIDTH * min(COLUMNS, len(postures)), HEIGHT * rows), "white")
    font = ImageFont.load_default(size=18)
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        for index, (posture, label) in enumerate(zip(postures, labels, strict=True)):
            frame = _frame(renderer, model, data, addresses, posture, arm.chain.position(posture), camera)
            hand = ", ".join(f"{value:.2f}" for value in arm.chain.position(posture)[: arm.goal_dimensions])
            ImageDraw.Draw(frame).text((12, 8), f"{label}: ({hand}) m", font=font, fill=(30, 30, 30))
            sheet.paste(frame, (WIDTH * (index % COLUMNS), HEIGHT * (index // COLUMNS)))
    return sheet


def _frame(
    renderer: mujoco.Renderer,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    addresses: np.ndarray,
    posture: FloatArray,
    hand: FloatArray,
    camera: mujoco.MjvCamera,
) -> Image.Image:
    data.qpos[addresses] = posture
    data.mocap_pos[int(model.body("goal").mocapid[0])] = hand
    mujoco.mj_forward(model, data)
    renderer.update_scene(data, camera=camera)
    return Image.fromarray(renderer.render())


def main() -> None:
    """Draw one arm in this process, on the platform that MUJOCO_GL names."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("arm")
    parser.add_argument("goals", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    arm = get_arm(args.arm)
    draw_arm(task_of(arm), args.goals, args.seed).save(args.output)


if __name__ == "__main__":
    main()
