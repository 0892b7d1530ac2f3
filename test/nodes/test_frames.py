"""Goals from another frame come through tf2 where it is there, and are refused with a reason where it is not."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, TransformStamped

from spiking_controller.errors import GoalError
from spiking_controller.nodes.controller import frames
from spiking_controller.nodes.controller.frames import Frames, transformed

POINT = Point(x=1.0, y=0.0, z=0.5)


class UnknownFrameError(Exception):
    """What tf2 raises."""


def quarter_turn() -> TransformStamped:
    """A quarter turn about z, and a metre up."""
    transform = TransformStamped()
    transform.transform.rotation.z = transform.transform.rotation.w = math.sqrt(0.5)
    transform.transform.translation.z = 1.0
    return transform


@pytest.fixture
def tf2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for tf2_ros, which pip cannot install: it knows the frame 'camera' only."""

    class Buffer:
        def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
            if (target, source) != ("panda_link0", "camera"):
                raise UnknownFrameError(f'"{source}" passed to lookupTransform argument source_frame does not exist.')
            return quarter_turn()

    monkeypatch.setattr(
        frames,
        "tf2_ros",
        SimpleNamespace(
            Buffer=Buffer,
            TransformListener=lambda buffer, node: SimpleNamespace(unregister=lambda: None),
            TransformException=UnknownFrameError,
        ),
    )


def known_frames(prefix: str = "") -> Frames:
    return Frames(SimpleNamespace(), "panda_link0", prefix)  # type: ignore[arg-type]


@pytest.mark.parametrize("frame", ["", "panda_link0", "/panda_link0"])
def test_a_point_in_the_base_frame_stays_as_it_is(frame: str) -> None:
    np.testing.assert_array_equal(known_frames().in_base_frame(POINT, frame), [1.0, 0.0, 0.5])


@pytest.mark.parametrize("frame", ["", "panda_link0", "left/panda_link0", "/left/panda_link0"])
def test_in_a_namespace_the_base_frame_may_have_it_as_prefix(frame: str) -> None:
    np.testing.assert_array_equal(known_frames("left/").in_base_frame(POINT, frame), [1.0, 0.0, 0.5])


def test_without_tf2_another_frame_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "tf2_ros", None)
    with pytest.raises(GoalError, match=r"'camera', and tf2_ros.*not installed; give it in 'panda_link0'"):
        known_frames().in_base_frame(POINT, "camera")


@pytest.mark.usefixtures("tf2")
def test_with_tf2_a_point_in_a_known_frame_is_transformed() -> None:
    np.testing.assert_allclose(known_frames().in_base_frame(POINT, "/camera"), [0.0, 1.0, 1.5], atol=1e-12)


@pytest.mark.usefixtures("tf2")
def test_with_tf2_an_unknown_frame_is_refused_with_its_reason() -> None:
    with pytest.raises(GoalError, match=r"'attic'.*does not exist.*give it in 'panda_link0'"):
        known_frames().in_base_frame(POINT, "attic")


def test_a_transform_turns_about_any_axis_as_its_rotation_matrix_does() -> None:
    rng = np.random.default_rng(0)
    quaternion = rng.normal(size=4)
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    transform = TransformStamped()
    rotation = transform.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = float(x), float(y), float(z), float(w)
    point = rng.normal(size=3)
    np.testing.assert_allclose(transformed(point, transform), matrix @ point, atol=1e-12)
