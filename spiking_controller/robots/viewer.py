"""Shows a moving arm in MuJoCo's window, in threads of its own, so that drawing never holds up the simulation."""

import copy
import os
import sys
import threading
import time

import mujoco.viewer
import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWING_PERIOD = 1.0 / 30.0
"""Between two pictures, s."""
LONGEST_OPENING = 10.0
"""How long a new viewer waits for its window, s."""
LONGEST_CLOSING = 2.0
"""How long `close` waits for a picture that is under way, s."""


class Viewer:
    """A window on an arm. Opening, drawing and closing it happen on copies of the model and the data."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Open the window. This takes a moment, in which Python stands still: do it before the simulation starts.

        Args:
            model: of what is shown; later changes to it do not show.
        """
        self._model = copy.deepcopy(model)
        self._data = mujoco.MjData(self._model)
        self._posture: NDArray[np.float64] = self._data.qpos.copy()
        self._opened = threading.Event()
        self._closing = threading.Event()
        self.ended = ""
        """Why there is no window, or none any more; empty while it is open."""
        self._thread = threading.Thread(target=self._draw, name="viewer", daemon=True)
        self._thread.start()
        self._opened.wait(LONGEST_OPENING)

    def show(self, qpos: ArrayLike) -> None:
        """Let the next picture show this posture (MuJoCo's qpos, [nq]). Never waits."""
        self._posture = np.array(qpos, dtype=np.float64)

    def close(self) -> None:
        """Close the window."""
        self._closing.set()
        self._thread.join(LONGEST_CLOSING)

    def _draw(self) -> None:
        """The life of the drawing thread."""
        self.ended = _missing()
        if not self.ended:
            try:
                window = mujoco.viewer.launch_passive(self._model, self._data, show_left_ui=False, show_right_ui=False)
                self._draw_until_closed(window)
                self.ended = "the window was closed"
            except RuntimeError as error:
                self.ended = str(error)
        self._opened.set()

    def _draw_until_closed(self, window: mujoco.viewer.Handle) -> None:
        while window.is_running() and not self._closing.is_set():
            self._data.qpos[:] = self._posture
            mujoco.mj_forward(self._model, self._data)
            window.sync()
            self._opened.set()
            self._closing.wait(DRAWING_PERIOD)
        window.close()
        # It closes in a thread of its own, which must be done before the process ends and takes OpenGL away.
        while window.m is not None:
            time.sleep(0.01)


def _missing() -> str:
    """What a window needs and does not find; empty if nothing."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (DISPLAY and WAYLAND_DISPLAY are empty)"
    # launch_passive would wait forever for a window that cannot be opened.
    if sys.platform == "linux" and not mujoco.viewer.glfw.init():
        return "the display cannot be opened (GLFW does not start)"
    return ""
