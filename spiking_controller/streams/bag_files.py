"""Files of a bag that are complete after every checkpoint, so that a recording survives the death of its process.

The rosbags library completes a file only when it is closed: an mcap file gets its index and footer, a database its
commit. Without them readers refuse the file or find nothing in it.
"""

import os
import sqlite3
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Protocol

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

VERSION: Literal[9] = 9
"""Of the rosbag2 metadata."""


class BagFile(Protocol):
    """One file of a bag under construction."""

    path: Path

    def add_msgtype(self, connection: Connection) -> None:
        """Store the definition of a topic's message type."""

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        """Announce a topic, with the qualities of service that its publishers offer, as YAML."""

    def write(self, connection: Connection, timestamp: int, data: bytes) -> None:
        """Add a message; it may wait in memory until the next checkpoint."""

    def checkpoint(self, metadata: str) -> None:
        """Bring everything into the file, which is complete then; writing can go on."""

    def close(self, version: int, metadata: str) -> None:
        """The last checkpoint. `metadata`: of the bag, as YAML."""


class McapFile(McapWriter):
    """An mcap file whose index and footer are written at every checkpoint; what comes after it overwrites them.

    What a checkpoint brings is written in one piece, so that a process that is killed leaves either state behind. If
    the disk is full the file goes back to the last checkpoint.
    """

    bio: Any  # what waits for the checkpoint: a _Tail

    def __init__(self, path: Path) -> None:
        """Create the file, which must not exist yet."""
        super().__init__(path.parent, CompressionMode.NONE)  # names the file after its folder
        self.path = self.path.rename(path)
        self._file = self.bio
        self._file.flush()
        self._footer = b""
        self.bio = _Tail(self._file.tell())

    def checkpoint(self, metadata: str) -> None:
        """Write what waits, then index and footer.

        Raises:
            OSError: the disk does not take it; nothing may be written any more.
        """
        if self.chunk.bio.tell():
            self.close_chunk()
        start, end = self.bio.start, self.bio.tell()
        super().close(VERSION, metadata)
        tail = self.bio.getvalue()
        try:
            self._overwrite(start, tail)
        except OSError:
            self._overwrite(start, self._footer)
            raise
        self._footer = tail[end - start :]
        self.bio = _Tail(end)

    def close(self, version: int, metadata: str) -> None:
        """The last checkpoint."""
        try:
            self.checkpoint(metadata)
        finally:
            self._file.close()

    def _overwrite(self, start: int, data: bytes) -> None:
        """The file shall end with this data, from `start` on."""
        descriptor, written = self._file.fileno(), 0
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], start + written)
        os.ftruncate(descriptor, start + len(data))


class _Tail(BytesIO):
    """The end of a file, in memory: positions count from the start of the file, and closing it keeps it."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def tell(self) -> int:
        return self.start + super().tell()

    def close(self) -> None:
        pass


class Sqlite3File(Sqlite3Writer):
    """A database that is committed at every checkpoint."""

    def __init__(self, path: Path) -> None:
        """Create the file, which must not exist yet."""
        super().__init__(path.parent, CompressionMode.NONE)  # names the file after its folder
        self.conn.close()
        self.path = self.path.rename(path)
        self.conn = sqlite3.connect(self.path)
        # What is not committed stays in memory; otherwise the file would not be readable between two checkpoints.
        self.conn.execute("PRAGMA cache_spill = OFF")
        self.cursor = self.conn.cursor()

    def checkpoint(self, metadata: str) -> None:
        """Commit.

        Raises:
            sqlite3.Error: the disk does not take it.
        """
        self.conn.commit()

    def close(self, version: int, metadata: str) -> None:
        """The last checkpoint."""
        try:
            super().close(version, metadata)
        finally:
            self.conn.close()
