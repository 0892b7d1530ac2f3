"""Recognises files that are no ROS 2 bag, or no longer one, and says what makes them one."""

import shlex
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import read_sized, read_string, skip_sized

CDR = "cdr"
"""The encoding of ROS 2's messages, and the only one that is read."""

_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
_ROS1_MAGIC = b"#ROSBAG V"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_MCAP_FOOTER, _MCAP_CHANNEL = b"\x02", b"\x04"


def diagnosis(path: Path) -> str | None:
    """What a bag that cannot be read is, and what helps: a sentence without its full stop; None where nothing is known.

    Args:
        path: a folder or a file; both exist.
    """
    try:
        if path.is_dir():
            return _of_metadata(path) or next(filter(None, map(_of_file, sorted(path.glob("*.mcap")))), None)
        return _of_file(path)
    except OSError:
        return None  # What the reader said of it stands.


def wrong_encoding(topics: list[str], encoding: str) -> str:
    """What is wrong with topics that are not encoded in CDR, and what helps.

    Args:
        topics: their names.
        encoding: as the bag names it, such as "json".
    """
    what = f"{', '.join(topics)} {'is' if len(topics) == 1 else 'are'} encoded as {encoding}"
    if encoding == "ros1":
        return f"{what}, which is not read; convert the ROS 1 bag that it was made from with `rosbags-convert`"
    return f"{what}, and only {CDR} is read; record with `ros2 bag record`, which writes {CDR}"


def _of_file(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(len(_ROS1_MAGIC))
    if start == _ROS1_MAGIC:
        folder = path.with_name(f"{path.stem}_ros2")
        convert = f"rosbags-convert --src {shlex.quote(str(path))} --dst {shlex.quote(str(folder))}"
        return f"{path} is a ROS 1 bag; convert it with `{convert}` and give {folder}"
    if not start.startswith(_MCAP_MAGIC):
        return None
    return _of_encodings(path, _mcap_encodings(path))


def _of_metadata(folder: Path) -> str | None:
    file = folder / "metadata.yaml"
    try:
        information: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        storage = information.get("storage_identifier") or ""
        names = [Path(str(name)) for name in information["relative_file_paths"]]
        topics = [topic["topic_metadata"] for topic in information["topics_with_message_count"]]
        encodings = {str(topic["name"]): str(topic["serialization_format"]) for topic in topics}
    except (ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None  # What the reader said of it stands.
    if storage not in _STORAGES.values():
        what = f"{file} names {f'the storage {storage!r}, which is unknown' if storage else 'no storage'}"
        suffixes = {suffix for name in names for suffix in name.suffixes}
        fitting = [_STORAGES[suffix] for suffix in sorted(suffixes & _STORAGES.keys())]
        if len(fitting) == 1:
            return f"{what}; write `storage_identifier: {fitting[0]}` there"
        return f"{what}; give a bag in one of {', '.join(_STORAGES.values())}, which `ros2 bag convert` makes"
    return _of_encodings(folder, encodings)


def _of_encodings(path: Path, encodings: dict[str, str]) -> str | None:
    """Encodings by topic."""
    foreign = next((encoding for encoding in encodings.values() if encoding != CDR), None)
    if foreign is None:
        return None
    topics = sorted(topic for topic, encoding in encodings.items() if encoding == foreign)
    return f"{path} cannot be read: {wrong_encoding(topics, foreign)}"


def _mcap_encodings(path: Path) -> dict[str, str]:
    """Message encodings by topic, of the channels outside compressed chunks: an index repeats all of them."""
    encodings: dict[str, str] = {}
    with path.open("rb") as file:
        file.seek(len(_MCAP_MAGIC))
        try:
            while (code := file.read(1)) and code != _MCAP_FOOTER:
                if code != _MCAP_CHANNEL:
                    skip_sized(file)
                    continue
                channel = BytesIO(read_sized(file))
                channel.seek(4)  # the channel's number and its schema's
                topic = read_string(channel)
                encodings[topic] = read_string(channel)
        except (ReaderError, ValueError, OverflowError, MemoryError):
            pass  # The file is damaged here; what came before counts.
    return encodings
