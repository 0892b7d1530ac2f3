"""The window draws beside the simulation: whatever it does, the simulation neither waits nor changes."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
import pytest

from spiking_controller.robots import viewer
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.simulation import ArmSimulation


class Window:
    """Stands in for MuJoCo's window, as a display is needed for the real one."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.m: Any = model
        self.data = data
        self.drawn = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.running = True
        self.hands: list[float] = []

    def is_running(self) -> bool:
        return self.running

    def sync(self) -> None:
        self.hands.append(float(self.data.site("hand_tcp").xpos[2]))
        self.drawn.set()
        self.free.wait()

    def close(self) -> None:
        self.running, self.m = False, None


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Window]]:
    opened: list[Window] = []

    def launch(model: mujoco.MjModel, data: mujoco.MjData, **panels: bool) -> Window:
        opened.append(Window(model, data))
        return opened[-1]

    monkeypatch.setattr(viewer, "_missing", lambda: "")
    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    yield opened
    for window in opened:
        window.free.set()


def wait_for_a_new_picture(window: Window) -> float:
    """Height of the hand in a picture that was begun after this call, m."""
    for _ in range(2):
        window.drawn.clear()
        assert window.drawn.wait(10.0)
    return window.hands[-1]


def test_the_window_shows_the_latest_posture_on_data_of_its_own(windows: list[Window]) -> None:
    simulation = ArmSimulation(get_arm("panda"))
    shown = viewer.Viewer(simulation.model)
    simulation.advance(np.full(7, 5.0))
    shown.show(simulation.data.qpos)
    assert wait_for_a_new_picture(windows[0]) == pytest.approx(simulation.hand_pose.position[2], abs=1e-12)
    assert windows[0].data is not simulation.data
    assert windows[0].m is not simulation.model
    shown.close()
    assert shown.ended == "the window was closed"


def test_a_window_that_hangs_holds_nothing_up(windows: list[Window], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "LONGEST_CLOSING", 0.05)
    simulation, alone = ArmSimulation(get_arm("panda")), ArmSimulation(get_arm("panda"))
    shown = viewer.Viewer(simulation.model)
    windows[0].free.clear()
    wait_until_hanging(windows[0])
    for _ in range(100):
        for each in (simulation, alone):
            each.advance(np.full(7, 2.0))
        shown.show(simulation.data.qpos)
    assert (simulation.joint_position == alone.joint_position).all()
    shown.close()
    assert not shown.ended


def wait_until_hanging(window: Window) -> None:
    """Return when a picture is under way that does not end."""
    window.drawn.clear()
    assert window.drawn.wait(10.0)


def test_a_window_that_the_user_closes_is_told_of(windows: list[Window]) -> None:
    shown = viewer.Viewer(get_arm("panda").load_model())
    assert not shown.ended
    windows[0].running = False
    end = time.monotonic() + 10.0
    while not shown.ended:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert shown.ended == "the window was closed"


def test_where_no_window_can_be_opened_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert "no display" in viewer.Viewer(get_arm("planar_arm").load_model()).ended

    def refuse(model: mujoco.MjModel, data: mujoco.MjData, **panels: bool) -> Window:
        raise RuntimeError("it must run under mjpython")

    monkeypatch.setattr(viewer, "_missing", lambda: "")
    monkeypatch.setattr(mujoco.viewer, "launch_passive", refuse)
    assert "mjpython" in viewer.Viewer(get_arm("planar_arm").load_model()).ended
