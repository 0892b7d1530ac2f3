"""Bags whose metadata.yaml was edited are read; what cannot be read is named with what helps, and that does help."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import ConnectionExtRosbag2, QosReliability
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from spiking_controller.errors import ConfigError
from spiking_controller.streams.bag_reader import opened, read, unreadable_topics
from spiking_controller.streams.bag_writer import BagWriter

TYPES = get_typestore(Stores.ROS2_JAZZY)
ROS1_TYPES = get_typestore(Stores.ROS1_NOETIC)
FLOAT = "std_msgs/msg/Float64"
MESSAGES = [bytes(TYPES.serialize_cdr(TYPES.types[FLOAT](data=float(number)), FLOAT)) for number in range(5)]
BEST_EFFORT = """
- {history: keep_last, depth: 7, reliability: best_effort, durability: volatile, deadline: {sec: 0, nsec: 0},
   lifespan: {sec: 0, nsec: 0}, liveliness: automatic, liveliness_lease_duration: {sec: 0, nsec: 0},
   avoid_ros_namespace_conventions: false}
"""

storages = pytest.mark.parametrize("storage", ["mcap", "sqlite3"])


def write(folder: Path, storage: str = "mcap") -> Path:
    bag = BagWriter(folder, storage, {}, 2**30)
    for name in ("/a", "/b"):
        topic = bag.add_topic(name, FLOAT, [])
        for time, data in enumerate(MESSAGES):
            bag.write(topic, time, data)
    bag.close()
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what metadata.yaml says."""
    file = folder / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(content))


def edit_topics(folder: Path, topics: tuple[str, ...], **changes: Any) -> None:
    """Change what metadata.yaml says of topics."""

    def change(information: dict[str, Any]) -> None:
        for entry in information["topics_with_message_count"]:
            if entry["topic_metadata"]["name"] in topics:
                entry["topic_metadata"] |= changes

    edit(folder, change)


def messages(path: Path) -> dict[str, list[bytes]]:
    with opened(path) as bag:
        return {c.topic: [bytes(data) for _, _, data in read(bag, [c])] for c in bag.connections}


def sentence(path: Path) -> str:
    with pytest.raises(ConfigError) as failure, opened(path):
        pass
    text = str(failure.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


@storages
@pytest.mark.parametrize("offer", [BEST_EFFORT, yaml.safe_load(BEST_EFFORT)], ids=["text", "list"])
def test_edited_quality_of_service_is_taken_and_every_message_is_read(tmp_path: Path, storage: str, offer: Any) -> None:
    folder = write(tmp_path / "bag", storage)
    edit_topics(folder, ("/a",), offered_qos_profiles=offer)
    assert messages(folder) == {"/a": MESSAGES, "/b": MESSAGES}
    with opened(folder) as bag:
        extensions = {connection.topic: connection.ext for connection in bag.connections}
        assert not unreadable_topics(bag)
    assert isinstance(extensions["/a"], ConnectionExtRosbag2)
    (profile,) = extensions["/a"].offered_qos_profiles
    assert (profile.depth, profile.reliability) == (7, QosReliability.BEST_EFFORT)


@storages
def test_edited_type_hash_hides_no_message(tmp_path: Path, storage: str) -> None:
    folder = write(tmp_path / "bag", storage)
    edit_topics(folder, ("/a", "/b"), type_description_hash=f"RIHS01_{64 * '0'}")
    assert messages(folder) == {"/a": MESSAGES, "/b": MESSAGES}


@storages
@pytest.mark.parametrize("change", [{"name": "/c"}, {"type": "std_msgs/msg/Float32"}])
def test_topics_that_no_file_holds_are_named(tmp_path: Path, storage: str, change: dict[str, str]) -> None:
    folder = write(tmp_path / "bag", storage)
    edit_topics(folder, ("/a",), **change)
    with opened(folder) as bag:
        (reason,) = unreadable_topics(bag).values()
    name, kind = change.get("name", "/a"), change.get("type", FLOAT)
    assert reason.startswith(f"metadata.yaml names {name} with messages of {kind}, which no file of the bag holds")
    assert messages(folder)["/b"] == MESSAGES
    edit_topics(folder, ("/b",), **change)
    assert "holds nothing that can be read: metadata.yaml names" in sentence(folder)
    (file,) = (file for file in folder.iterdir() if file.suffix != ".yaml")
    assert messages(file) == {"/a": MESSAGES, "/b": MESSAGES}  # as the sentence advises


@storages
@pytest.mark.parametrize(("named", "said"), [("", "no storage"), (None, "no storage"), ("rosbag", "the storage 'rosb")])
def test_storage_that_metadata_does_not_name_is_one_line_to_write(
    tmp_path: Path, storage: str, named: str | None, said: str
) -> None:
    folder = write(tmp_path / "bag", storage)
    edit(folder, lambda information: information.update(storage_identifier=named))
    text = sentence(folder)
    assert f"metadata.yaml names {said}" in text
    key, value = re.findall(r"write `(\w+): (\w+)` there", text)[0]
    edit(folder, lambda information: information.update({key: value}))
    assert messages(folder) == {"/a": MESSAGES, "/b": MESSAGES}


def test_storage_of_a_plugin_that_is_not_read_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "bag")
    (folder / "bag_0.mcap").rename(folder / "bag_0.log")
    edit(folder, lambda information: information.update(storage_identifier="log", relative_file_paths=["bag_0.log"]))
    assert "the storage 'log', which is unknown; give a bag in one of mcap, sqlite3" in sentence(folder)


def test_ros_1_bag_is_converted_by_the_command_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a run.bag"
    with Ros1Writer(path) as writer:
        connection = writer.add_connection("/a", FLOAT, typestore=ROS1_TYPES)
        for time, data in enumerate(MESSAGES):
            value = TYPES.deserialize_cdr(data, FLOAT)
            writer.write(connection, time, ROS1_TYPES.serialize_ros1(value, FLOAT))
    text = sentence(path)
    assert text.startswith(f"{path} is a ROS 1 bag; convert it with `rosbags-convert --src ")
    command, folder = re.findall(r"`(.*)` and give (.*)\.$", text)[0]
    program, *arguments = shlex.split(command)
    subprocess.run([str(Path(sys.executable).with_name(program)), *arguments], check=True)
    assert [data[:12] for data in messages(Path(folder))["/a"]] == [data[:12] for data in MESSAGES]


def write_json(path: Path, profile: str, schema_encoding: str) -> Path:
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile=profile)
        schema = writer.register_schema("sensor_msgs/msg/JointState", schema_encoding, b"{}") if schema_encoding else 0
        channel = writer.register_channel("/joint_states", "json", schema)
        writer.add_message(channel, 0, json.dumps({"name": []}).encode(), 0)
        writer.finish()
    return path


@pytest.mark.parametrize("profile", ["", "ros2"])
@pytest.mark.parametrize("schema_encoding", ["jsonschema", "ros2msg", ""])
def test_encoding_that_is_not_read_is_named(tmp_path: Path, profile: str, schema_encoding: str) -> None:
    text = sentence(write_json(tmp_path / "run.mcap", profile, schema_encoding))
    assert "run.mcap" in text
    assert "/joint_states is encoded as json, and only cdr is read; record with `ros2 bag record`" in text


@pytest.mark.parametrize("said", ["cdr", "json"])
@pytest.mark.parametrize("schema_encoding", ["jsonschema", "ros2msg"])
def test_encoding_is_named_whatever_metadata_says(tmp_path: Path, said: str, schema_encoding: str) -> None:
    folder = write(tmp_path / "bag")
    write_json(folder / "bag_0.mcap", "ros2", schema_encoding)

    def change(information: dict[str, Any]) -> None:
        (entry, _) = information["topics_with_message_count"]
        kind = "sensor_msgs/msg/JointState"
        entry["topic_metadata"] |= {"name": "/joint_states", "type": kind, "serialization_format": said}
        information["topics_with_message_count"] = [entry]

    edit(folder, change)
    assert "/joint_states is encoded as json, and only cdr is read" in sentence(folder)


def test_topics_in_cdr_are_read_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros2")
        schema = writer.register_schema(FLOAT, "ros2msg", b"float64 data")
        for topic, encoding, data in (("/a", "cdr", MESSAGES[1]), ("/b", "json", b"{}")):
            writer.add_message(writer.register_channel(topic, encoding, schema), 0, data, 0)
        writer.finish()
    with opened(path) as bag:
        assert list(unreadable_topics(bag)) == ["/b"]
    assert messages(path)["/a"] == [MESSAGES[1]]


def test_mcap_made_from_a_ros_1_bag_leads_back_to_it(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros1")
        channel = writer.register_channel("/a", "ros1", writer.register_schema("std_msgs/Float64", "ros1msg", b""))
        writer.add_message(channel, 0, bytes(8), 0)
        writer.finish()
    assert "convert the ROS 1 bag that it was made from with `rosbags-convert`" in sentence(path)
