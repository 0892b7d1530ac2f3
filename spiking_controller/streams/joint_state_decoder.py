"""Decodes joint states by the hundred thousand: the library does it once for each layout, then only numbers differ."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from spiking_controller.streams.cdr import ENCAPSULATION, leading_stamp
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

JOINT_STATE = "sensor_msgs/msg/JointState"
_STAMP_END = 12
_TYPES = get_typestore(Stores.ROS2_JAZZY)


class DecodedJointState(NamedTuple):
    """A sensor_msgs/JointState: stamp in ns, names, and arrays of any length in rad, rad/s and N·m."""

    stamp: int
    name: tuple[str, ...]
    position: FloatArray
    velocity: FloatArray
    effort: FloatArray


class _Layout(NamedTuple):
    """Where the numbers of a message are, and all bytes around them but the stamp."""

    name: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    fixed: tuple[tuple[int, int, bytes], ...]


class JointStateDecoder:
    """Remembers the layout of the last message of each length."""

    def __init__(self) -> None:
        self._layouts: dict[int, _Layout] = {}

    def decode(self, data: bytes) -> DecodedJointState:
        """The message in CDR bytes; what the library raises for other bytes passes through."""
        layout = self._layouts.get(len(data))
        if layout is not None and all(data[start:end] == fixed for start, end, fixed in layout.fixed):
            numbers = (np.frombuffer(data, np.float64, count, offset) for offset, count in layout.places)
            return DecodedJointState(leading_stamp(data), layout.name, *numbers)
        message: Any = _TYPES.deserialize_cdr(data, JOINT_STATE)
        stamp = int(message.header.stamp.sec) * NANOSECONDS + int(message.header.stamp.nanosec)
        decoded = DecodedJointState(stamp, tuple(message.name), message.position, message.velocity, message.effort)
        self._learn(data, message)
        return decoded

    def _learn(self, data: bytes, message: Any) -> None:
        """Take the layout of a message over, if the numbers are where they are expected."""
        arrays = (message.position, message.velocity, message.effort)
        none = np.empty(0)
        bare = _TYPES.types[JOINT_STATE](
            header=message.header, name=message.name, position=none, velocity=none, effort=none
        )
        # Behind the names stand three counts, each with its numbers, which are aligned to eight bytes.
        end = len(_TYPES.serialize_cdr(bare, JOINT_STATE)) - 3 * 4
        places, fixed, before = [], [(0, ENCAPSULATION, data[:ENCAPSULATION])], _STAMP_END
        for values in arrays:
            start = end + 4
            if len(values):
                start += -(start - ENCAPSULATION) % 8
            end = start + 8 * len(values)
            places.append((start, len(values)))
            fixed.append((before, start, data[before:start]))
            before = end
        found = [np.frombuffer(data[start : start + 8 * count]) for start, count in places]
        if all(np.array_equal(left, right, equal_nan=True) for left, right in zip(found, arrays, strict=True)):
            self._layouts[len(data)] = _Layout(tuple(message.name), tuple(places), tuple(fixed))
