"""The recorder writes what was published, byte for byte, into a bag that independent readers understand."""

import resource
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.context import Context
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, UInt8MultiArray

from spiking_controller.nodes.common import messages
from spiking_controller.streams.bag_writer import SimulatedTime

PATIENCE = 60.0
QOS = {
    "/joint_states": (JointState, messages.STATE_PUBLISHER),
    "/effort_controller/commands": (Float64MultiArray, messages.RELIABLE),
    "/controller/goal": (PointStamped, messages.LATCHED),
    "/controller/spikes": (UInt8MultiArray, messages.RELIABLE),
    "/diagnostics": (DiagnosticArray, messages.RELIABLE),
}


class Source(Node):
    """Publishes as the nodes of a graph would, and remembers the bytes."""

    def __init__(self, context: Context) -> None:
        super().__init__("source", context=context)
        self.sent: dict[str, list[bytes]] = defaultdict(list)
        self.messages: dict[str, list[Any]] = defaultdict(list)
        self._publishers_by_topic: dict[str, Publisher] = {
            topic: self.create_publisher(kind, topic, qos) for topic, (kind, qos) in QOS.items()
        }

    def wait_for_recorder(self, watcher: Any) -> None:
        """Until both sides know each other."""
        watcher.wait_for(
            lambda: all(publisher.get_subscription_count() for publisher in self._publishers_by_topic.values()),
            "the recorder to subscribe",
        )
        watcher.greet("/recorder")

    def send(self, topic: str, message: Any) -> None:
        data = serialize_message(message)
        self._publishers_by_topic[topic].publish(data)
        self.sent[topic].append(data + bytes(-len(data) % 4))  # the middleware sends whole words
        self.messages[topic].append(message)
        time.sleep(0.002)

    def send_joint_state(self, stamp: int) -> None:
        message = JointState(name=["panda_joint1", "finger"], position=[stamp * 1e-9, 0.04], effort=[float("nan"), 0.0])
        messages.set_stamp(message.header.stamp, stamp)
        self.send("/joint_states", message)

    def send_all(self) -> None:
        """Some of each kind, with fields of every length."""
        for step in range(50):
            self.send_joint_state(messages.NANOSECONDS + step * 2_000_000)
            self.send("/effort_controller/commands", Float64MultiArray(data=[0.1 * step] * 7))
            if step % 10 == 0:
                self.send("/controller/spikes", UInt8MultiArray(data=[step, 0, 1][: 1 + step % 3]))
        goal = PointStamped()
        goal.header.frame_id = "panda_link0"
        goal.point.x = 0.4
        self.send("/controller/goal", goal)
        self.send("/diagnostics", DiagnosticArray(status=[messages.status("arm", DiagnosticStatus.WARN, "cold", {})]))


@pytest.fixture
def source(context: Context) -> Iterator[Source]:
    source = Source(context)
    yield source
    source.destroy_node()


@pytest.fixture
def watcher(make_probe: Any) -> Any:
    """A probe in a namespace of its own, so that the recorder takes it for no source."""
    return make_probe("watcher")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bags" / "run1"


@pytest.fixture
def start(graph: Any, source: Source, watcher: Any, folder: Path) -> Callable[..., Any]:
    """Starts a recorder that hears the source."""

    def start_recorder(**parameters: Any) -> Any:
        recorder = graph.start("recorder", directory=folder, **parameters)
        source.wait_for_recorder(watcher)
        return recorder

    return start_recorder


@pytest.fixture
def record(start: Callable[..., Any], source: Source, watcher: Any) -> Callable[..., None]:
    """Records everything that the source sends."""

    def record_all(number: signal.Signals = signal.SIGINT, **parameters: Any) -> None:
        recorder = start(**parameters)
        source.send_all()
        watcher.greet("/recorder")
        assert recorder.stop(number) == 0, recorder.output

    return record_all


def read_bytes(folder: Path) -> dict[str, list[bytes]]:
    """Messages of the source's topics in the bag; of the diagnostics only the source's own."""
    found: dict[str, list[bytes]] = defaultdict(list)
    with AnyReader([folder]) as reader:
        for connection, _, data in reader.messages():
            if b"recorder: bag" not in bytes(data):
                found[connection.topic].append(bytes(data))
    return found


def metadata_written_at(folder: Path) -> int:
    """When the bag's metadata.yaml was written last, ns; 0 before."""
    file = folder / "metadata.yaml"
    return file.stat().st_mtime_ns if file.exists() else 0


def topic_counts(folder: Path) -> dict[str, int]:
    """Messages by topic as metadata.yaml says it, also while the bag is being recorded."""
    file = folder / "metadata.yaml"
    if not file.exists():
        return {}
    topics = yaml.safe_load(file.read_text())["rosbag2_bagfile_information"]["topics_with_message_count"]
    return {topic["topic_metadata"]["name"]: topic["message_count"] for topic in topics}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bag_holds_every_message_byte_for_byte(record: Any, source: Source, folder: Path, storage: str) -> None:
    record(storage=storage)
    assert read_bytes(folder) == source.sent
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["storage_identifier"] == storage
    assert metadata["custom_data"] == {"arm": "panda", "gravity_compensation": "true"}
    assert metadata["message_count"] >= sum(map(len, source.sent.values()))


def test_independent_reader_decodes_what_was_sent(record: Any, source: Source, folder: Path) -> None:
    record(number=signal.SIGTERM)
    decoded: dict[str, list[Any]] = defaultdict(list)
    (file,) = folder.glob("*.mcap")
    with file.open("rb") as stream:
        for _, channel, _, message in make_reader(stream, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            decoded[channel.topic].append(message)
    states, sent = decoded["/joint_states"], source.messages["/joint_states"]
    assert [list(state.position) for state in states] == [list(state.position) for state in sent]
    assert [state.header.stamp.nanosec for state in states] == [state.header.stamp.nanosec for state in sent]
    assert states[0].name == ["panda_joint1", "finger"]
    commands = source.messages["/effort_controller/commands"]
    assert [list(command.data) for command in decoded["/effort_controller/commands"]] == [
        list(command.data) for command in commands
    ]
    (goal,) = decoded["/controller/goal"]
    assert (goal.header.frame_id, goal.point.x) == ("panda_link0", 0.4)
    assert "cold" in [status.message for array in decoded["/diagnostics"] for status in array.status]


def test_bag_keeps_what_publishers_offered_and_when_it_came(record: Any, folder: Path) -> None:
    before = time.time_ns()
    record()
    with AnyReader([folder]) as reader:
        offered: Any = {connection.topic: connection.ext for connection in reader.connections}
        times = [time for _, time, _ in reader.messages()]
    (goal,) = offered["/controller/goal"].offered_qos_profiles
    assert goal.durability is QosDurability.TRANSIENT_LOCAL
    (state,) = offered["/joint_states"].offered_qos_profiles
    assert state.reliability is QosReliability.RELIABLE
    assert before < times[0] <= times[-1] < time.time_ns()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_killed_recorder_leaves_a_bag_with_all_but_the_last_second(
    start: Any, source: Source, watcher: Any, folder: Path, storage: str
) -> None:
    recorder = start(storage=storage)
    source.send_all()
    watcher.greet("/recorder")
    for _ in range(2):  # Of two checkpoints, the second has all that was there before the first.
        checkpoint = metadata_written_at(folder)
        watcher.wait_for(lambda before=checkpoint: metadata_written_at(folder) > before, "a checkpoint")
    source.send_all()
    recorder.kill()
    found = read_bytes(folder)
    for topic, sent in source.sent.items():
        assert found[topic] == sent[: len(found[topic])]
        assert len(found[topic]) >= len(sent) // 2


def test_simulated_time_comes_from_the_joint_states_and_goes_on_after_a_reset(
    start: Any, source: Source, watcher: Any, folder: Path
) -> None:
    recorder = start(use_sim_time=True)
    source.send("/effort_controller/commands", Float64MultiArray(data=[1.0]))
    watcher.greet("/recorder")
    for milliseconds in (5000, 5002, 0, 2):
        source.send_joint_state(milliseconds * 1_000_000)
    watcher.greet("/recorder")
    assert recorder.stop() == 0
    with AnyReader([folder]) as reader:
        times: dict[str, list[int]] = defaultdict(list)
        for connection, stamp, _ in reader.messages():
            times[connection.topic].append(stamp // 1_000_000)
    assert times["/effort_controller/commands"] == [5000]
    assert times["/joint_states"] == [5000, 5002, 5002, 5004]


def test_late_stamp_does_not_pass_for_a_reset() -> None:
    clock = SimulatedTime(1_000_000_000)
    assert clock.advance(990_000_000) == 1_000_000_000
    assert clock.advance(1_002_000_000) == 1_002_000_000


def test_best_effort_driver_is_recorded_too(graph: Any, context: Context, folder: Path) -> None:
    driver = Node("driver", context=context)
    publisher = driver.create_publisher(JointState, "joint_states", messages.LATEST)
    recorder = graph.start("recorder", directory=folder, diagnostics_period=0.1)
    end = time.monotonic() + PATIENCE
    while not topic_counts(folder).get("/joint_states"):
        assert time.monotonic() < end, "the recorder does not hear the driver"
        publisher.publish(JointState(name=["panda_joint1"]))
        time.sleep(0.1)
    assert recorder.stop() == 0
    driver.destroy_node()
    assert read_bytes(folder)["/joint_states"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_full_disk_ends_the_recording_with_the_sentence_alone(
    start: Any, source: Source, folder: Path, storage: str
) -> None:
    recorder = start(storage=storage)
    # No file may grow beyond it: what a full disk does to whoever writes.
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    end = time.monotonic() + PATIENCE
    while recorder.is_running:
        assert time.monotonic() < end, "the recorder does not notice"
        source.send_all()
    assert recorder.wait() == 2
    said = recorder.output.partition(f"recording into {folder}\n")[2].splitlines()
    (sentence,) = said
    assert sentence.startswith(f"error: cannot record into {folder} any longer: ")
    assert "make room for the bag" in sentence
    assert read_bytes(folder)["/joint_states"]


def test_folder_that_exists_is_refused_and_left_alone(graph: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    recorder = graph.start("recorder", directory=folder)
    assert recorder.wait() == 2
    assert f"error: the folder {folder} exists already; record into one that does not exist yet." in recorder.output
    assert "Traceback" not in recorder.output
    assert not list(folder.iterdir())


def test_recorder_without_a_folder_says_which_parameter_to_give(graph: Any) -> None:
    recorder = graph.start("recorder")
    assert recorder.wait() == 2
    assert "error: parameter directory of recorder is empty" in recorder.output
    assert "Traceback" not in recorder.output
