"""A bag under construction is a complete bag at every checkpoint, whatever happens to the process or the disk."""

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import SeekingReader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.typesys import Stores, get_typestore

from spiking_controller.errors import ConfigError, SpikingControllerError
from spiking_controller.streams.bag_writer import BagWriter
from spiking_controller.streams.cdr import leading_stamp

TYPES = get_typestore(Stores.ROS2_JAZZY)
FOREVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    FOREVER,
    FOREVER,
    QosLiveliness.AUTOMATIC,
    FOREVER,
    False,
)
ABOUT = {"arm": "panda"}
MILLISECOND = 1_000_000
LARGE = 2**30


def serialised(value: float) -> bytes:
    message = TYPES.types["std_msgs/msg/Float64"](data=value)
    return bytes(TYPES.serialize_cdr(message, "std_msgs/msg/Float64"))


def write(bag: BagWriter, numbers: range, topics: tuple[str, ...] = ("/value",)) -> None:
    """One message per number and topic, a millisecond apart."""
    known = {topic.topic: topic for topic in bag._topics}
    for name in topics:
        if name not in known:
            known[name] = bag.add_topic(name, "std_msgs/msg/Float64", [LATCHED])
    for number in numbers:
        for name in topics:
            bag.write(known[name], number * MILLISECOND, serialised(float(number)))


def values(folder: Path) -> dict[str, list[float]]:
    """What a reader finds on each topic; the times are checked on the way."""
    found: dict[str, list[float]] = defaultdict(list)
    with AnyReader([folder]) as reader:
        for connection, stamp, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            value = message.data
            assert stamp == value * MILLISECOND
            found[connection.topic].append(value)
    return found


def numbers(end: int) -> list[float]:
    return [float(number) for number in range(end)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bags" / "run"


storages = pytest.mark.parametrize("storage", ["mcap", "sqlite3"])


@storages
def test_every_checkpoint_leaves_a_complete_bag(folder: Path, storage: str, tmp_path: Path) -> None:
    bag = BagWriter(folder, storage, ABOUT, LARGE)
    for count in (0, 5, 5, 4000, 60000):
        write(bag, range(sum(bag.counts.values()), count))
        bag.checkpoint()
        copy = tmp_path / f"copy{count}"
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        assert values(copy).get("/value", []) == numbers(count)
        information = yaml.safe_load((copy / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        assert information["message_count"] == count
        assert information["custom_data"] == ABOUT
    bag.close()
    assert values(folder)["/value"] == numbers(60000)


@storages
def test_topics_may_join_late(folder: Path, storage: str) -> None:
    bag = BagWriter(folder, storage, ABOUT, LARGE)
    write(bag, range(3))
    bag.checkpoint()
    write(bag, range(3, 6), ("/value", "/late"))
    bag.close()
    assert values(folder) == {"/value": numbers(6), "/late": [3.0, 4.0, 5.0]}


def test_independent_reader_finds_index_definitions_and_offers_after_a_checkpoint(folder: Path) -> None:
    bag = BagWriter(folder, "mcap", ABOUT, LARGE)
    for end in (2000, 4000):
        write(bag, range(end - 2000, end))
        bag.checkpoint()
    with (folder / "run_0.mcap").open("rb") as stream:
        reader = SeekingReader(stream, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == 4000
        assert len(summary.chunk_indexes) == 2
        (channel,) = summary.channels.values()
        (offered,) = yaml.safe_load(channel.metadata["offered_qos_profiles"])
        assert offered["durability"] == "transient_local"
        middle = reader.iter_decoded_messages(starting_at=1999 * MILLISECOND, ending_before=2001 * MILLISECOND)
        assert [message.data for _, _, _, message in middle] == [1999.0, 2000.0]
    bag.close()


@storages
def test_large_file_is_followed_by_another(folder: Path, storage: str) -> None:
    bag = BagWriter(folder, storage, ABOUT, split_size=50_000)
    for start in range(0, 5000, 500):
        write(bag, range(start, start + 500), ("/value", "/other"))
        bag.checkpoint()
    bag.close()
    assert values(folder) == {"/value": numbers(5000), "/other": numbers(5000)}
    information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    names = information["relative_file_paths"]
    assert len(names) > 2
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "metadata.yaml"])
    assert [file["path"] for file in information["files"]] == names
    assert sum(file["message_count"] for file in information["files"]) == 10000
    starts = [file["starting_time"]["nanoseconds_since_epoch"] for file in information["files"]]
    assert starts == sorted(starts)
    assert starts[0] == 0


WRITE_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from test_bag_writer import LARGE, BagWriter, write
bag = BagWriter(Path(sys.argv[1]), sys.argv[2], {}, LARGE)
for start in range(0, 2000, 500):
    write(bag, range(start, start + 500))
    bag.checkpoint()
write(bag, range(2000, 50000))
print("written", flush=True)
time.sleep(600.0)
"""


@storages
def test_killed_process_leaves_all_up_to_the_last_checkpoint(folder: Path, storage: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, str(folder), storage],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert values(folder)["/value"] == numbers(2000)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond it: what a full disk does to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@storages
def test_disk_that_takes_no_more_ends_in_a_sentence_and_keeps_the_bag(folder: Path, storage: str) -> None:
    bag = BagWriter(folder, storage, ABOUT, LARGE)
    kept = [0]

    def fill() -> None:
        for start in range(0, 100_000, 500):
            write(bag, range(start, start + 500))
            bag.checkpoint()
            kept.append(start + 500)

    with largest_file(200_000), pytest.raises(SpikingControllerError, match="make room for the bag") as failure:
        fill()
    assert str(folder) in str(failure.value)
    assert kept[-1] > 0
    assert values(folder)["/value"] == numbers(kept[-1])


@storages
def test_disk_that_is_full_at_the_start_ends_in_a_sentence(folder: Path, storage: str) -> None:
    with largest_file(100), pytest.raises(ConfigError, match=r"cannot be created \(.+\); record into one that can"):
        BagWriter(folder, storage, ABOUT, LARGE)


@storages
def test_topic_that_the_disk_does_not_take_ends_in_a_sentence(
    folder: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = BagWriter(folder, storage, ABOUT, LARGE)

    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bag._file, "add_connection", fail)
    with pytest.raises(SpikingControllerError, match="any longer: database or disk is full; make room for the bag"):
        bag.add_topic("/value", "std_msgs/msg/Float64", [LATCHED])


def test_stamp_is_read_in_either_byte_order() -> None:
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=5, nanosec=7)
    for little_endian in (True, False):
        data = TYPES.serialize_cdr(time, "builtin_interfaces/msg/Time", little_endian=little_endian)
        assert leading_stamp(bytes(data)) == 5_000_000_007
