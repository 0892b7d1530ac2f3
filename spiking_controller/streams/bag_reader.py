"""Opens and reads bags so that whatever is wrong with one ends in a sentence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader

from spiking_controller.errors import ConfigError
from spiking_controller.streams.foreign_files import CDR, diagnosis, wrong_encoding


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """An open bag. In a folder metadata.yaml may offer another quality of service than the files.

    Args:
        path: a rosbag2 folder, or one .mcap or .db3 file.
    Raises:
        ConfigError: there is no bag, or nothing in it can be read.
    """
    try:
        bag = Reader(path)
        bag.open()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is not a bag ({error}); give a rosbag2 folder or one of its files.") from error
    except Exception as error:
        raise _unreadable(path, error) from error
    try:
        _offer_as_metadata_says(bag)
        unreadable = unreadable_topics(bag)
        if unreadable and unreadable.keys() >= {c.topic for c in bag.connections if c.msgcount}:
            raise ConfigError(f"{path} holds nothing that can be read: {next(iter(unreadable.values()))}.")
        yield bag
    finally:
        bag.close()


def unreadable_topics(bag: Reader) -> dict[str, str]:
    """Topics that have messages by the bag's own account, but none that can be read.

    Returns:
        Why, and what helps, by topic; clauses without a full stop.
    """
    if not isinstance(bag.storage, DirectoryReader):
        formats = {c.topic: _format(c) for c in bag.connections if c.msgcount}
        return {topic: wrong_encoding([topic], name) for topic, name in formats.items() if name != CDR}
    found = [connection for storage in bag.storage.storages for connection in storage.connections]
    held = {(c.topic, c.msgtype) for c in found if _format(c) == CDR}
    foreign = {c.topic: wrong_encoding([c.topic], _format(c)) for c in found if _format(c) != CDR}
    return {
        c.topic: foreign.get(
            c.topic,
            f"metadata.yaml names {c.topic} with messages of {c.msgtype}, which no file of the bag holds; "
            f"`ros2 bag reindex {bag.path}` writes it anew, or give one of the files",
        )
        for c in bag.connections
        if c.msgcount and (c.topic, c.msgtype) not in held
    }


def read(
    bag: Reader, connections: Sequence[Connection], start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """Messages of an open bag with their times of receipt, ns, in that order.

    Args:
        bag: from `opened`.
        connections: of the bag; messages of others are left out.
        start, stop: from here on, and before there, ns.
    Raises:
        ConfigError: the bag is damaged here.
    """
    messages = iter(bag.messages(connections, start, stop) if connections else ())
    while True:
        try:
            message = next(messages, None)
        except Exception as error:
            raise _unreadable(Path(str(bag.path)), error) from error
        if message is None:
            return
        yield message


def _offer_as_metadata_says(bag: Reader) -> None:
    """Give the files' topics the quality of service and the type's hash that metadata.yaml has.

    The library reads no message of a topic for which the two differ.
    """
    if not isinstance(bag.storage, DirectoryReader):
        return
    for storage in bag.storage.storages:
        for index, own in enumerate(storage.connections):
            alike = [c for c in bag.connections if (c.topic, c.msgtype) == (own.topic, own.msgtype)]
            if alike and _format(own) == CDR and (own.ext, own.digest) not in [(c.ext, c.digest) for c in alike]:
                said = next((c for c in alike if c.ext == own.ext), alike[0])
                storage.connections[index] = own._replace(ext=said.ext, digest=said.digest)


def _format(connection: Connection) -> str:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return connection.ext.serialization_format


def _unreadable(path: Path, error: Exception) -> ConfigError:
    """What went wrong inside the library, which says it in exceptions of many kinds: of its own, of its database, of
    its decompressors, and of Python where a file that was cut off leads it astray.
    """
    known = diagnosis(path)
    if known is not None:
        return ConfigError(f"{known}.")
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ConfigError(f"{path} cannot be read ({reason}); docs/recording.md says how to repair a bag.")
