"""Renders the recorded motion of an arm, off-screen, as an animated GIF with the goal as a sphere.

A failing OpenGL driver can end the whole process, and MuJoCo picks its OpenGL platform once per process. So
every platform is tried in a process of its own: this module is also the program that renders.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from spiking_controller.errors import SpikingControllerError

_PLATFORMS = ("egl", "osmesa")
_TIME_LIMIT = 300.0


class RenderingError(SpikingControllerError):
    """No OpenGL platform could draw the animation."""


def render(recording: Path, arm: str, output: Path) -> None:
    """Write the animation of a saved recording, on the first OpenGL platform that works.

    The environment variable MUJOCO_GL, where it is set, names the only platform to try.

    Args:
        recording: what `Recording.save` wrote.
        arm: name of the arm, see `robots.arm.get_arm`.
        output: the GIF to write.
    Raises:
        RenderingError: no platform works here; the message says what each one answered.
    """
    render_by("spiking_controller.evaluation.demo.rendering", [str(recording), arm, str(output)], output)


def render_by(module: str, arguments: list[str], output: Path) -> None:
    """Let a module draw a picture, on the first OpenGL platform that works.

    Args:
        module: a program, which gets the arguments.
        arguments: of the command line.
        output: the picture, for messages.
    Raises:
        RenderingError: no platform works here; the message says what each one answered.
    """
    chosen = os.environ.get("MUJOCO_GL")
    answers = []
    for platform in (chosen,) if chosen else _PLATFORMS:
        answer = _render_with(platform, [sys.executable, "-m", module, *arguments])
        if answer is None:
            return
        answers.append(f"{platform}: {answer}")
    raise RenderingError(
        f"no OpenGL platform could draw {output.name} ({'; '.join(answers)}); install libegl1 or libosmesa6, "
        "or name a platform in MUJOCO_GL."
    )


def _render_with(platform: str, command: list[str]) -> str | None:
    """Render in a process of its own; the reason if that failed."""
    environment = os.environ | {"MUJOCO_GL": platform}
    if platform in _PLATFORMS:
        environment["PYOPENGL_PLATFORM"] = platform
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f"gave no picture within {_TIME_LIMIT:.0f} s"
    if result.returncode == 0:
        return None
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with exit code {result.returncode}"


def main() -> None:
    """Render one recording in this process, on the platform that MUJOCO_GL names."""
    from spiking_controller.evaluation.demo.animation import draw_animation
    from spiking_controller.evaluation.demo.recording import Recording

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("arm")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    draw_animation(Recording.load(args.recording), args.arm, args.output)


if __name__ == "__main__":
    main()
