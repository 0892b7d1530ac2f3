"""What a page costs while the arm and its future move without a pause: processor time and bytes.

pytest test/viewing/test_page_cost.py -s        # prints both
"""

import time
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from visitor import visit

from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.moments import CURVES, Curves, Moment
from spiking_controller.viewing.arm_scene import ArmModel
from spiking_controller.viewing.guard import start_server
from spiking_controller.viewing.page import Page

ARM = get_arm("panda")
FREQUENCY = 12
"""Pictures per second, as the viewer node makes them; a new future comes with about every second one."""
PICTURES = 72
MOST_TIME = 0.25
"""Of a core."""
MOST_TRAFFIC = 100e3
"""bytes/s"""


def posture(picture: float) -> np.ndarray:
    return np.asarray(ARM.home + 0.4 * np.sin(0.12 * picture + np.arange(len(ARM.joint_names))))


def moment(picture: int) -> Moment:
    places = [ARM.chain.position(posture(step)) for step in range(max(picture - 30, 0), picture + 1)]
    begun = picture - picture % 2
    return Moment(
        picture / FREQUENCY,
        posture(picture),
        goal=np.array([0.4, 0.3, 0.4]),
        trail=np.array(places),
        future=np.array([ARM.chain.position(posture(begun + step / 4.0)) for step in range(26)]),
        future_position=posture(begun + 6.0),
        state="reaching",
        version="0123456789",
        disturbance=float(picture % 7),
        load=(1.0, 0.9),
    )


def test_a_page_takes_a_quarter_of_a_core_and_100_kb_a_second_at_most(free_port: int, tmp_path: Path) -> None:
    server, guard = start_server("127.0.0.1", free_port)
    page = Page(server, ArmModel(ARM), SimpleQueue(), [], read_only=False, dark=False)
    heard = tmp_path / "bytes"

    def received() -> int:
        """Bytes by now, when nothing more comes."""
        last = ""
        while not (text := heard.read_text()) or text != last:
            last = text
            time.sleep(1.0)
        return int(text.splitlines()[-1])

    with visit(f"http://127.0.0.1:{free_port}{guard.path}", heard):
        moments = [moment(picture) for picture in range(PICTURES)]
        time_axis = np.linspace(-20.0, 0.0, 101)
        rng, before = np.random.default_rng(3), received()
        due = time.monotonic()
        begin = time.process_time()
        for picture, seen in enumerate(moments):
            page.show(seen)
            if picture % (FREQUENCY // 2) == 0:
                page.show_curves(Curves(time_axis, {name: rng.random(101) for name in CURVES}))
            if picture % FREQUENCY == 0:
                page.show_spikes((rng.random((240, 250)) < 0.05).astype(np.uint8) * 255, {"policy": (0, 240)})
            due += 1.0 / FREQUENCY
            time.sleep(max(0.0, due - time.monotonic()))
        used = (time.process_time() - begin) / PICTURES * FREQUENCY
        traffic = (received() - before) / PICTURES * FREQUENCY
    server.stop()
    print(f"{100 * used:.1f} % of a core, {traffic / 1000:.1f} kB/s")
    assert used < MOST_TIME
    assert 1e3 < traffic < MOST_TRAFFIC
