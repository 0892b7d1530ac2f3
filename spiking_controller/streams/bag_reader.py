"""Opens and reads bags so that whatever is wrong with one ends in a sentence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from spiking_controller.errors import ConfigError


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """An open bag.

    Args:
        path: a rosbag2 folder, or one .mcap or .db3 file.
    Raises:
        ConfigError: there is no bag, or it cannot be read.
    """
    try:
        bag = Reader(path)
        bag.open()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is not a bag ({error}); give a rosbag2 folder or one of its files.") from error
    except Exception as error:
        raise _unreadable(path, error) from error
    try:
        yield bag
    finally:
        bag.close()


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


def _unreadable(path: Path, error: Exception) -> ConfigError:
    """What went wrong inside the library, which says it in exceptions of many kinds: of its own, of its database, of
    its decompressors, and of Python where a file that was cut off leads it astray.
    """
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ConfigError(f"{path} cannot be read ({reason}); docs/recording.md says how to repair a bag.")
