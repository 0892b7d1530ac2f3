"""Writes rosbag2 folders from serialised messages, without ROS, so that whoever has messages can record them."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.metadata import dump_qos_v9
from rosbags.typesys import Stores, get_typestore

from spiking_controller.errors import ConfigError, SpikingControllerError
from spiking_controller.streams.bag_files import VERSION, BagFile, McapFile, Sqlite3File

REORDERED = 100_000_000
"""A stamp that lies back by no more than this is late; one that lies further back is a reset, ns."""
_NEVER = 2**63 - 1
"""Start of a bag without messages, ns; so rosbag2 says it."""


class Storage(NamedTuple):
    """A file format: how its files are made, and the end of their names."""

    create: Callable[[Path], BagFile]
    suffix: str


STORAGES = MappingProxyType({"mcap": Storage(McapFile, ".mcap"), "sqlite3": Storage(Sqlite3File, ".db3")})
"""The file formats by the names that rosbag2 gives them."""


@dataclass
class _Extent:
    """How many messages a bag or one of its files holds, and over which time, ns."""

    count: int = 0
    start: int = _NEVER
    end: int = 0

    def add(self, time: int) -> None:
        self.count += 1
        self.start = min(self.start, time)
        self.end = max(self.end, time)

    def described(self) -> dict[str, Any]:
        return {
            "starting_time": {"nanoseconds_since_epoch": self.start},
            "duration": {"nanoseconds": max(0, self.end - self.start)},
            "message_count": self.count,
        }


class BagWriter:
    """A rosbag2 folder under construction. Messages are stored as they are, with their definitions beside them.

    After `checkpoint` the folder is a complete bag, whatever happens to the process; `ros2 bag` needs no repair.
    """

    def __init__(self, folder: Path, storage: str, about: Mapping[str, str], split_size: int) -> None:
        """Create the folder, and its parents where they are missing, as a bag without messages.

        Args:
            folder: must not exist yet.
            storage: a name in STORAGES.
            about: what a reader shall know of the run; it stands in metadata.yaml as custom_data.
            split_size: a file that is this large at a checkpoint is followed by another, bytes.
        Raises:
            ConfigError: the folder exists already or cannot be created.
        """
        if folder.exists():
            raise ConfigError(f"the folder {folder} exists already; record into one that does not exist yet.")
        self._folder = folder
        self._storage = storage
        self._about = dict(about)
        self._split_size = split_size
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._topics: list[Connection] = []
        self._announced: set[str] = set()
        self._counts: dict[int, int] = {}
        self._total = _Extent()
        self._files: dict[str, _Extent] = {}
        try:
            folder.mkdir(parents=True)
            self._file: BagFile | None = self._next_file()
            self._complete()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the folder {folder} cannot be created ({_reason(error)}); record into one that can."
            ) from error

    @property
    def counts(self) -> dict[str, int]:
        """Messages so far, by topic."""
        return {topic.topic: self._counts[topic.id] for topic in self._topics}

    def add_topic(self, topic: str, message_type: str, offered: Sequence[Qos]) -> Connection:
        """Announce a topic.

        Args:
            topic: its full name.
            message_type: such as "sensor_msgs/msg/JointState".
            offered: what its publishers offer; whoever plays the bag offers the same.
        Raises:
            SpikingControllerError: the disk does not take it.
        """
        definition, _ = self._types.generate_msgdef(message_type, ros_version=2)
        connection = Connection(
            id=len(self._topics) + 1,
            topic=topic,
            msgtype=message_type,
            msgdef=MessageDefinition(MessageDefinitionFormat.MSG, definition),
            digest=self._types.hash_rihs01(message_type),
            msgcount=0,
            ext=ConnectionExtRosbag2("cdr", list(offered)),
            owner=self,
        )
        if self._file is not None:
            try:
                self._announce(self._file, connection)
            except (OSError, sqlite3.Error) as error:
                raise self._failure(error) from error
        self._topics.append(connection)
        self._counts[connection.id] = 0
        return connection

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
            if self._file is None:
                self._file = self._next_file()
            self._file.write(topic, time, data)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error
        self._counts[topic.id] += 1
        self._total.add(time)
        self._files[self._file.path.name].add(time)

    def checkpoint(self) -> None:
        """Bring everything to the disk, and start another file if this one has become large.

        Raises:
            SpikingControllerError: the disk does not take it; the bag stays as it was at the last checkpoint.
        """
        if self._file is None:
            return
        try:
            self._complete()
            if self._file.path.stat().st_size >= self._split_size:
                self._file.close(VERSION, self._metadata())
                self._file = None  # the next message opens another
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """The last checkpoint; nothing can be added after it.

        Raises:
            SpikingControllerError: the disk does not take it; the bag stays as it was at the last checkpoint.
        """
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close(VERSION, self._metadata())
            self._write_metadata()
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError | sqlite3.Error) -> SpikingControllerError:
        """The end of the recording."""
        self._file = None
        return SpikingControllerError(
            f"cannot record into {self._folder} any longer: {_reason(error)}; make room for the bag. "
            "It holds everything up to its last checkpoint."
        )

    def _next_file(self) -> BagFile:
        """Another file, with all topics that are known so far."""
        storage = STORAGES[self._storage]
        name = f"{self._folder.name}_{len(self._files)}{storage.suffix}"
        file = storage.create(self._folder / name)
        self._files[name] = _Extent()
        self._announced.clear()
        for topic in self._topics:
            self._announce(file, topic)
        return file

    def _announce(self, file: BagFile, topic: Connection) -> None:
        assert isinstance(topic.ext, ConnectionExtRosbag2)
        if topic.msgtype not in self._announced:
            file.add_msgtype(topic)
            self._announced.add(topic.msgtype)
        file.add_connection(topic, _to_yaml(dump_qos_v9(topic.ext.offered_qos_profiles)))

    def _complete(self) -> None:
        assert self._file is not None
        self._file.checkpoint(self._metadata())
        self._write_metadata()

    def _metadata(self) -> str:
        return _to_yaml(self._description())

    def _write_metadata(self) -> None:
        """Replace metadata.yaml, which is whole at every moment."""
        new = self._folder / "metadata.yaml.new"
        new.write_text(_to_yaml({"rosbag2_bagfile_information": self._description()}), encoding="utf-8")
        new.replace(self._folder / "metadata.yaml")

    def _description(self) -> dict[str, Any]:
        """The bag as rosbag2 describes it."""
        return {
            "version": VERSION,
            "storage_identifier": self._storage,
            **self._total.described(),
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic.topic,
                        "type": topic.msgtype,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": dump_qos_v9(topic.ext.offered_qos_profiles),
                        "type_description_hash": topic.digest,
                    },
                    "message_count": self._counts[topic.id],
                }
                for topic in self._topics
                if isinstance(topic.ext, ConnectionExtRosbag2)
            ],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": list(self._files),
            "files": [{"path": name, **extent.described()} for name, extent in self._files.items()],
            "custom_data": self._about,
            "ros_distro": "jazzy",
        }


def _reason(error: OSError | sqlite3.Error) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _to_yaml(value: Any) -> str:
    # libyaml's dumper where PyYAML was built with it: ten times faster, and this runs while messages wait.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, default_flow_style=False)).strip()


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
