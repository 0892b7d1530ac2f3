"""Turns plain Python into ROS messages and back, and names the qualities of service that all nodes share."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, UInt8MultiArray

from spiking_controller.units import NANOSECONDS

STATE_PUBLISHER = QoSProfile(depth=500)
"""Joint states go out reliable, so that a recorder can ask for all of them, even if it was busy for a second."""
LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""For what is only worth its latest message."""
WAITING = QoSProfile(depth=250, reliability=ReliabilityPolicy.BEST_EFFORT)
"""For what is looked at a few times a second, message by message: half a second of joint states may wait."""
COMMAND = QoSProfile(depth=1)
"""Torque commands, as ros2_control's forward_command_controller takes them."""
RELIABLE = QoSProfile(depth=10)
"""For goals and diagnostics."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""The latest message also reaches those who come later."""


def stamp_to_time(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def set_stamp(stamp: Any, time: int) -> None:
    """Write nanoseconds into a builtin_interfaces/Time."""
    stamp.sec, stamp.nanosec = divmod(time, NANOSECONDS)


def doubles(values: NDArray[np.float64]) -> "array[float]":
    """Numbers [n] as the array that rclpy takes without checking each of them."""
    return array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def spikes_to_message(spikes: Mapping[str, NDArray[np.uint8]]) -> UInt8MultiArray:
    """Spikes of one control step, layer by layer.

    The first dimension is labelled "ticks"; after it comes one dimension per layer, labelled with its name, with the
    number of neurons as size and ticks x neurons as stride. Data: the layers' blocks one after the other, each
    [ticks, neurons] in C order.

    Args:
        spikes: 0 or 1, [ticks, neurons] by layer.
    """
    message = UInt8MultiArray()
    blocks = [np.ascontiguousarray(layer, dtype=np.uint8) for layer in spikes.values()]
    ticks = len(blocks[0]) if blocks else 0
    message.layout.dim = [
        MultiArrayDimension(label="ticks", size=ticks, stride=sum(block.size for block in blocks)),
        *(
            MultiArrayDimension(label=name, size=block.shape[1], stride=block.size)
            for name, block in zip(spikes, blocks, strict=True)
        ),
    ]
    message.data = array("B", b"".join(block.tobytes() for block in blocks))
    return message


def spikes_from_message(message: UInt8MultiArray) -> dict[str, NDArray[np.uint8]]:
    """What `spikes_to_message` was given."""
    data = np.frombuffer(bytes(message.data), dtype=np.uint8)
    spikes = {}
    start = message.layout.data_offset
    for layer in message.layout.dim[1:]:
        spikes[layer.label] = data[start : start + layer.stride].reshape(-1, layer.size)
        start += layer.stride
    return spikes


def numbers_to_message(values: NDArray[np.float64], axes: Sequence[str]) -> Float64MultiArray:
    """Numbers of any shape, and for each axis what stands along it, as its label."""
    message = Float64MultiArray(data=doubles(values.ravel()))
    message.layout.dim = [
        MultiArrayDimension(label=label, size=size, stride=int(np.prod(values.shape[axis:])))
        for axis, (label, size) in enumerate(zip(axes, values.shape, strict=True))
    ]
    return message


def point_text(x: float, y: float, z: float) -> str:
    """A point as /diagnostics spells it."""
    return f"{x:.4f} {y:.4f} {z:.4f}"


def status(name: str, level: bytes, summary: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """One entry for /diagnostics.

    Args:
        name: of what is reported on, starting with the node's full name.
        level: of DiagnosticStatus.
        summary: one line.
        values: further figures.
    """
    return DiagnosticStatus(
        level=level,
        name=name,
        message=summary,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
