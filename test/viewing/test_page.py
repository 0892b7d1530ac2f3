"""The page without a browser: what it makes of moments, and what it asks for."""

from collections.abc import Iterator
from queue import SimpleQueue

import numpy as np
import pytest

from spiking_controller.evaluation.raster import SpikeRaster
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.moments import CURVES, Curves, Health, Moment
from spiking_controller.viewing.arm_scene import ArmModel
from spiking_controller.viewing.guard import start_server
from spiking_controller.viewing.page import Page, Request

ARM = get_arm("panda")


@pytest.fixture
def asked() -> "SimpleQueue[Request]":
    return SimpleQueue()


@pytest.fixture
def page(asked: "SimpleQueue[Request]", free_port: int) -> Iterator[Page]:
    server, _ = start_server("127.0.0.1", free_port)
    yield Page(server, ArmModel(ARM), asked, ["a bag"], read_only=False, dark=False)
    server.stop()


def test_a_page_that_is_opened_before_anything_was_heard_waits(page: Page) -> None:
    nothing = SpikeRaster()
    page.show(Moment(0.0, ARM.home))
    page.show_spikes(nothing.image(), nothing.layers)
    page.show_curves(Curves(np.zeros(1), {name: np.full(1, np.nan) for name in CURVES}))


def test_words_name_what_acts_on_the_arm(page: Page) -> None:
    hand = ARM.chain.position(ARM.home)
    page.show(
        Moment(
            1.0,
            ARM.home,
            goal=hand + np.array([0.0, 0.0, 0.1]),
            trail=np.array([hand]),
            refusal="the goal <b> is too far",
            refused=np.array([1.5, 0.0, 0.4]),
            state="reaching",
            version="0123456789abcdef",
            disturbance=4.25,
            load=(1.02, 0.9),
            contact=np.array([0.0, 30.0, 0.0]),
            health=(Health(1, "trainer", "waits"),),
        )
    )
    words = page.words
    for part in ("reaching", "100.0 mm to the goal", "01234567", "4.2 N·m", "load 1.02 kg", "contact 30 N"):
        assert part in words["status"]
    assert "Refused: the goal &lt;b&gt; is too far" in words["answer"]
    assert "too far" in words["why"]
    assert "waits" in words["health"]


def test_a_slider_that_follows_a_node_asks_for_nothing(page: Page, asked: "SimpleQueue[Request]") -> None:
    page.set_slider("payload", 1.5)
    page.set_slider("friction", 99.0)
    page.set_slider("torque share", None)
    assert asked.empty()
    assert [page.slider(name) for name in ("payload", "friction", "torque share")] == [1.5, 4.0, None]


def test_the_links_hang_together_as_in_mujoco() -> None:
    """The page places each link in its parent; all together, they are where MuJoCo has them."""
    model = ArmModel(ARM)
    rng = np.random.default_rng(5)
    model.place(rng.uniform(ARM.limits.position_lower, ARM.limits.position_upper))
    for link in model.links:
        position, turn = np.zeros(3), np.eye(3)
        chain = [link]
        while (parent := model.parent(chain[-1])) is not None:
            chain.append(parent)
        for each in reversed(chain):
            place, quaternion = model.pose(each) if model.parent(each) is None else model.pose_in_parent(each)
            position = position + turn @ place
            turn = turn @ rotation(quaternion)
        np.testing.assert_allclose(position, model.pose(link)[0], atol=1e-12)
        np.testing.assert_allclose(turn, rotation(model.pose(link)[1]), atol=1e-12)
        np.testing.assert_allclose(turn @ model.in_link(link, np.array([1.0, 2.0, 3.0])), (1.0, 2.0, 3.0), atol=1e-12)


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Matrix of a quaternion w, x, y, z."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
