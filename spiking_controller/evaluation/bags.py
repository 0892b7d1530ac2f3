"""Writes rosbag2 folders from serialised messages, without ROS, so that whoever has messages can record them."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from spiking_controller.errors import ConfigError, SpikingControllerError

STORAGES = MappingProxyType({"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3})
"""The file formats by the names that rosbag2 gives them."""
REORDERED = 100_000_000
"""A stamp that lies back by no more than this is late; one that lies further back is a reset, ns."""
_VERSION: Literal[9] = 9
_ENCAPSULATION = 4
"""Bytes before the first field of a serialised message; the second of them tells the byte order."""


class BagWriter:
    """A rosbag2 folder under construction. Messages are stored as they are, with their definitions beside them."""

    def __init__(self, folder: Path, storage: str, about: Mapping[str, str]) -> None:
        """Create the folder, and its parents where they are missing.

        Args:
            folder: must not exist yet.
            storage: a name in STORAGES.
            about: what a reader shall know of the run; it stands in metadata.yaml as custom_data.
        Raises:
            ConfigError: the folder exists already or cannot be created.
        """
        if folder.exists():
            raise ConfigError(f"the folder {folder} exists already; record into one that does not exist yet.")
        self._folder = folder
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._writer = Writer(folder, version=_VERSION, storage_plugin=STORAGES[storage])
        for key, value in about.items():
            self._writer.set_custom_data(key, value)
        try:
            self._writer.open()
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be created ({error.strerror}); record into one that can."
            ) from error

    @property
    def counts(self) -> dict[str, int]:
        """Messages so far, by topic."""
        return {connection.topic: self._writer.counts[connection.id] for connection in self._writer.connections}

    def add_topic(self, topic: str, message_type: str, offered: Sequence[Qos]) -> Connection:
        """Announce a topic.

        Args:
            topic: its full name.
            message_type: such as "sensor_msgs/msg/JointState".
            offered: what its publishers offer; whoever plays the bag offers the same.
        """
        return self._writer.add_connection(topic, message_type, typestore=self._types, offered_qos_profiles=offered)

    def write(self, topic: Connection, time: int, data: bytes) -> None:
        """Add a message.

        Args:
            topic: from `add_topic`.
            time: ns.
            data: CDR bytes, stored unchanged.
        Raises:
            SpikingControllerError: the disk does not take it.
        """
        try:
            self._writer.write(topic, time, data)
        except OSError as error:
            raise SpikingControllerError(
                f"cannot record into {self._folder} any longer: {error.strerror}; make room for the bag."
            ) from error

    def close(self) -> None:
        """Complete the bag: the index and metadata.yaml. Nothing can be added after that."""
        self._writer.close()


class SimulatedTime:
    """Simulated time for a bag, from stamps that jump back when the simulation is reset.

    After a jump the time goes on from where it was, so that a bag keeps the order of what happened.
    """

    def __init__(self, stamp: int) -> None:
        """Start at a stamp, ns."""
        self._shift = 0
        self._now = stamp

    @property
    def now(self) -> int:
        """Never less than before, ns."""
        return self._now

    def advance(self, stamp: int) -> int:
        """Take the next stamp and return the time it stands for, both in ns."""
        if stamp + self._shift < self._now - REORDERED:
            self._shift = self._now - stamp
        self._now = max(self._now, stamp + self._shift)
        return self._now


def leading_stamp(data: bytes) -> int:
    """Stamp of a serialised message whose first field is a header or a time, ns."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, _ENCAPSULATION)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
