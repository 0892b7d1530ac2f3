"""`spiking_controller play` publishes what was recorded, byte for byte, as it was offered and when it is due."""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from geometry_msgs.msg import PointStamped
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.event_handler import QoSSubscriptionMatchedInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.metadata import dump_qos_v9
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from spiking_controller.commands import play as player
from spiking_controller.commands.play import Pace, Player
from spiking_controller.errors import ConfigError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import StopRequest, create_executor
from spiking_controller.nodes.recorder import to_qos
from spiking_controller.streams.bag_reader import opened
from spiking_controller.streams.bag_writer import BagWriter

PATIENCE = 60.0
START = 7 * messages.NANOSECONDS
PERIOD = 20_000_000
STATES = 100
ALL = QoSProfile(depth=10000)


@cache  # since bytes between two fields may be anything
def joint_state(number: int) -> bytes:
    message = JointState(name=["panda_joint1"], position=[0.01 * number])
    messages.set_stamp(message.header.stamp, START + number * PERIOD)
    return bytes(serialize_message(message))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of joint states at 50 Hz, a latched goal before them, and a recorded clock."""
    folder = tmp_path_factory.mktemp("bags") / "run"
    writer = BagWriter(folder, "mcap", {}, split_size=2**30)
    goal = writer.add_topic("/controller/goal", "geometry_msgs/msg/PointStamped", [to_qos(messages.LATCHED)])
    states = writer.add_topic("/joint_states", "sensor_msgs/msg/JointState", [to_qos(messages.STATE_PUBLISHER)])
    clock = writer.add_topic("/clock", "rosgraph_msgs/msg/Clock", [to_qos(messages.LATEST)])
    writer.write(goal, START, bytes(serialize_message(PointStamped())))
    for number in range(STATES):
        stamp = START + number * PERIOD
        writer.write(clock, stamp, bytes(serialize_message(Clock())))
        writer.write(states, stamp, joint_state(number))
    writer.close()
    return folder


class Listener(Node):
    """Hears what is played: joint states as bytes, the times on the clock."""

    def __init__(self, context: Context) -> None:
        super().__init__("listener", context=context)
        self.states: list[bytes] = []
        self.times: list[int] = []
        self.goals: list[PointStamped] = []
        self.publishers_matched = 0
        events = SubscriptionEventCallbacks(matched=self._on_matched)
        self.create_subscription(JointState, "joint_states", self.states.append, ALL, raw=True, event_callbacks=events)
        self.create_subscription(Clock, "clock", self._on_clock, messages.LATEST)
        self._executor = create_executor(context)
        self._executor.add_node(self)

    def _on_matched(self, matched: QoSSubscriptionMatchedInfo) -> None:
        self.publishers_matched = matched.current_count

    def _on_clock(self, message: Clock) -> None:
        self.times.append(messages.stamp_to_time(message.clock))

    def listen_for_goals(self) -> None:
        self.create_subscription(PointStamped, "controller/goal", self.goals.append, messages.LATCHED)

    def spin_until(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited for {what}"
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        self.destroy_node()


@pytest.fixture
def listener(context: Context) -> Iterator[Listener]:
    listener = Listener(context)
    yield listener
    listener.close()


@pytest.fixture
def ros() -> Iterator[None]:
    """Where the player's node lives."""
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


def connected(bag: Reader, listener: Listener, topics: list[str] | None = None, clock: float | None = None) -> Player:
    """A player whose joint states the listener hears from the first one on."""
    made = Player(bag, topics, clock)
    listener.spin_until(lambda: made._publishers["/joint_states"].get_subscription_count(), "the player to be heard")
    listener.spin_until(lambda: listener.publishers_matched, "the listener to know the player")
    return made


def catches_interrupts(pid: int) -> bool:
    """Whether a process has a handler for SIGINT of its own beside Python's: it catches SIGTERM too."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.findall(r"^SigCgt:\s*(\w+)", status, flags=re.MULTILINE)[0], 16)
    return bool(caught & 1 << (signal.SIGTERM - 1))


def quick() -> Pace:
    return Pace(4.0, StopRequest())


def test_every_message_is_published_byte_for_byte(bag: Path, listener: Listener, ros: None) -> None:
    with Reader(bag) as reader:
        made = connected(reader, listener)
        assert made.play(reader.start_time, quick()) == 2 * STATES + 1
        listener.spin_until(lambda: len(listener.states) == STATES, "the joint states")
    assert listener.states == [joint_state(number) for number in range(STATES)]


def test_latched_goal_reaches_those_who_come_later(bag: Path, listener: Listener, ros: None) -> None:
    with Reader(bag) as reader:
        made = connected(reader, listener)
        made.play(reader.start_time, quick())
        listener.listen_for_goals()
        listener.spin_until(lambda: listener.goals, "the goal")


def test_clock_goes_with_the_bag_and_back_to_its_start(bag: Path, listener: Listener, ros: None) -> None:
    start = START + 75 * PERIOD
    with Reader(bag) as reader:
        made = connected(reader, listener, ["/joint_states", "/clock"], 50.0)
        for _ in range(2):
            assert made.play(start, quick()) == STATES - 75
        listener.spin_until(lambda: len(listener.states) == 2 * (STATES - 75), "the joint states")
    assert listener.states == [joint_state(number) for number in range(75, STATES)] * 2
    assert listener.times  # best-effort: some may be lost, a recorded clock would say 0
    assert set(listener.times) <= {start + number * PERIOD for number in range(STATES - 75)}


def test_loop_goes_on_until_it_is_asked_to_stop(
    bag: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rests: list[float] = []

    def rest(pace: Pace, seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 4:
            pace._stop.set()

    monkeypatch.setattr(Pace, "rest", rest)
    assert run(str(bag), "--loop", "--rate", "100", "--topics", "/joint_states", "--delay", "0.5") == 0
    assert rests == [0.5] + 3 * [player.BETWEEN_ROUNDS]
    assert capsys.readouterr().out.startswith(f"played {3 * STATES} messages on 1 topic")


def test_command_ends_in_order_on_an_interrupt(bag: Path) -> None:
    command = [sys.executable, "-m", "spiking_controller.cli", "play", str(bag), "--loop", "--rate", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        end = time.monotonic() + PATIENCE
        while not catches_interrupts(process.pid):
            assert time.monotonic() < end, "the command does not start"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert re.match(r"played \d+ messages on 3 topics", output)
    assert "Traceback" not in output


def test_pace_follows_the_rate_and_says_how_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    stop = StopRequest()
    pace = Pace(2.0, stop)
    pace.begin(START)
    assert pace.wait_until(START + 3 * messages.NANOSECONDS)
    assert now[0] == pytest.approx(101.5)
    assert pace.lateness == pytest.approx(0.0, abs=1e-9)
    now[0] += 0.25
    assert pace.wait_until(START + 3 * messages.NANOSECONDS)
    assert pace.lateness == pytest.approx(0.25)
    stop.set()
    assert not pace.wait_until(START + 9 * messages.NANOSECONDS)
    assert now[0] == pytest.approx(101.75)


def offer(
    reliability: QosReliability, durability: QosDurability, depth: int = 0, deadline: QosTime | None = None
) -> Qos:
    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.UNKNOWN,
        depth,
        reliability,
        durability,
        deadline or forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


def test_offer_is_that_of_the_bag() -> None:
    profile = player.to_profile([offer(QosReliability.BEST_EFFORT, QosDurability.VOLATILE, 5, QosTime(0, 4_000_000))])
    assert profile.reliability is ReliabilityPolicy.BEST_EFFORT
    assert profile.durability is DurabilityPolicy.VOLATILE
    assert profile.depth == 5
    assert profile.deadline == Duration(nanoseconds=4_000_000)


def test_one_publisher_offers_what_several_did() -> None:
    profile = player.to_profile(
        [
            offer(QosReliability.BEST_EFFORT, QosDurability.TRANSIENT_LOCAL),
            offer(QosReliability.RELIABLE, QosDurability.VOLATILE),
        ]
    )
    assert profile.reliability is ReliabilityPolicy.RELIABLE
    assert profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert profile.depth == player.LATCHED_DEPTH


def test_bag_that_says_nothing_of_quality_is_played_reliably() -> None:
    assert player.to_profile([]).reliability is ReliabilityPolicy.RELIABLE


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    player.add_arguments(parser)
    return player.run(parser.parse_args(list(words)))


def edit_states(folder: Path, **changes: Any) -> None:
    """Change what metadata.yaml says of the joint states."""
    file = folder / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    for entry in content["rosbag2_bagfile_information"]["topics_with_message_count"]:
        if entry["topic_metadata"]["name"] == "/joint_states":
            entry["topic_metadata"] |= changes
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--rate", "0"), "rate is 0; give a number above 0"),
        (("--rate", "nan"), "rate is nan; give a number above 0"),
        (("--clock", "-1"), "clock is -1; give a number above 0"),
        (("--start-offset", "-1"), "start-offset is -1; give 0 or a number above 0"),
        (("--start-offset", "3"), "start-offset is 3, but the bag lasts 1.98 s"),
        (("--topics", "/joint_state"), "topics: '/joint_state' is not in the bag; it holds /clock, /controller/goal"),
        (("--clock", "--topics", "/clock"), "holds nothing to play"),
    ],
)
def test_wrong_option_is_one_sentence(bag: Path, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(str(bag), *options)


def test_bag_with_an_edited_quality_of_service_is_played_with_it(
    bag: Path, tmp_path: Path, listener: Listener, ros: None
) -> None:
    copy = Path(shutil.copytree(bag, tmp_path / "run"))
    edit_states(copy, offered_qos_profiles=dump_qos_v9([to_qos(messages.LATEST)]))
    with opened(copy) as reader:
        made = Player(reader, None, None)
        states = made._publishers["/joint_states"]
        assert states.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
        assert made.play(reader.start_time, quick()) == 2 * STATES + 1


def test_topic_that_metadata_alone_knows_is_left_out_with_a_warning(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bag, tmp_path / "run"))
    edit_states(copy, name="/arm/joint_states")
    assert run(str(copy), "--rate", "100", "--delay", "0") == 0
    printed = capsys.readouterr()
    assert "warning: /arm/joint_states is left out: metadata.yaml names /arm/joint_states" in printed.err
    assert printed.out.startswith(f"played {STATES + 1} messages on 2 topics")
    with pytest.raises(ConfigError, match="holds nothing to play"):
        run(str(copy), "--topics", "/arm/joint_states")


def test_nothing_played_is_no_success(bag: Path) -> None:
    with pytest.raises(ConfigError, match=r"no message of /controller/goal after its first 1 s; name other topics"):
        run(str(bag), "--topics", "/controller/goal", "--start-offset", "1", "--delay", "0")


def test_what_is_no_bag_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is not a bag"):
        run(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="is not a bag"):
        run(str(tmp_path))
    (tmp_path / "cut.mcap").write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(ConfigError, match=r"cut.mcap cannot be read"):
        run(str(tmp_path / "cut.mcap"))


def test_topic_whose_type_is_not_installed_is_left_out_with_a_warning(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = player.message_class
    monkeypatch.setattr(player, "message_class", lambda name: None if "Point" in name else known(name))
    assert run(str(bag), "--rate", "100", "--delay", "0") == 0
    printed = capsys.readouterr()
    assert "warning: /controller/goal is left out with its 1 messages" in printed.err
    assert "geometry_msgs/msg/PointStamped is not installed here" in printed.err
    assert printed.out.startswith(f"played {2 * STATES} messages on 2 topics")


def test_only_installed_message_types_are_found() -> None:
    assert player.message_class("sensor_msgs/msg/JointState") is JointState
    assert player.message_class("sensor_msgs/msg/Nonsense") is None
    assert player.message_class("nonsense_msgs/msg/JointState") is None
