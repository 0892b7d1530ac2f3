"""Joint states decoded by their layout are those that the library decodes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from spiking_controller.streams.joint_state_decoder import JOINT_STATE, JointStateDecoder

TYPES = get_typestore(Stores.ROS2_JAZZY)
NUMBERS = st.lists(st.floats(width=64), max_size=3)
MESSAGES = st.tuples(
    st.integers(0, 2**31 - 1),
    st.integers(0, 10**9 - 1),
    st.text(alphabet="ab_", max_size=5),
    st.lists(st.text(alphabet="joint1", max_size=6), max_size=3),
    NUMBERS,
    NUMBERS,
    NUMBERS,
)


def serialised(message: Any, little_endian: bool = True) -> bytes:
    seconds, nanoseconds, frame, names, *numbers = message
    kinds = TYPES.types
    header = kinds["std_msgs/msg/Header"](
        stamp=kinds["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds), frame_id=frame
    )
    position, velocity, effort = (np.array(values, dtype=np.float64) for values in numbers)
    built = kinds[JOINT_STATE](header=header, name=names, position=position, velocity=velocity, effort=effort)
    return bytes(TYPES.serialize_cdr(built, JOINT_STATE, little_endian=little_endian))


@settings(deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=6), st.booleans())
def test_every_message_is_decoded_as_by_the_library(messages: list[Any], little_endian: bool) -> None:
    decoder = JointStateDecoder()
    for message in messages + messages:  # the second time the layouts are known
        data = serialised(message, little_endian)
        expected: Any = TYPES.deserialize_cdr(data, JOINT_STATE)
        found = decoder.decode(data)
        assert found.stamp == message[0] * 10**9 + message[1]
        assert list(found.name) == expected.name
        for kind in ("position", "velocity", "effort"):
            np.testing.assert_array_equal(getattr(found, kind), getattr(expected, kind))


def test_a_known_layout_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = JointStateDecoder()
    decoder.decode(serialised((1, 2, "base", ["a", "bc"], [1.0, 2.0], [], [3.0, 4.0])))
    monkeypatch.setattr(type(TYPES), "deserialize_cdr", None)
    found = decoder.decode(serialised((5, 6, "base", ["a", "bc"], [7.0, 8.0], [], [9.0, 10.0])))
    assert (found.stamp, found.name) == (5 * 10**9 + 6, ("a", "bc"))
    assert [*found.position, *found.velocity, *found.effort] == [7.0, 8.0, 9.0, 10.0]


def test_bytes_of_something_else_are_refused() -> None:
    data = serialised((1, 2, "base", ["a"], [1.0], [1.0], [1.0]))
    with pytest.raises(SerdeError):
        JointStateDecoder().decode(data[:-8])
