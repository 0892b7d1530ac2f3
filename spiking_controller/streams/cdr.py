"""Reads from messages in CDR bytes without deserialising them."""

import struct

from spiking_controller.units import NANOSECONDS

ENCAPSULATION = 4
"""Bytes before the first field; the second of them tells the byte order, and alignment counts from behind them."""


def leading_stamp(data: bytes) -> int:
    """Stamp of a serialised message whose first field is a header or a time, ns."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, ENCAPSULATION)
    return int(seconds) * NANOSECONDS + int(nanoseconds)
