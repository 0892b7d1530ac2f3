"""Publishes a bag's topics with their timing, where `ros2 bag play` is absent: `spiking_controller play BAG`.

Messages go out as the bytes that were recorded; they are not decoded.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock

from spiking_controller.errors import ConfigError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import StopRequest, caught_signals, start_ros
from spiking_controller.streams.bag_reader import opened, read, unreadable_topics
from spiking_controller.units import NANOSECONDS

DEPTH = 1000
"""Messages that wait for a slow subscriber, where the bag does not say how many."""
LATCHED_DEPTH = 10
"""The same for topics whose last messages also reach those who come later."""
CLOCK_TOPIC = "/clock"
BETWEEN_ROUNDS = 0.1
"""In a loop, between the end and the start, s; the shortest of bags shall not flood the graph."""
LONGEST_NAP = 0.05
"""Between two looks whether to stop, s."""
LAST_WORDS = 1.0
"""At the end, wait this long for subscribers to receive what was published, s."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bag and how to play it; where `ros2 bag play` has an option, it has the same name."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="a rosbag2 folder, or one .mcap or .db3 file")
    parser.add_argument("-r", "--rate", type=float, default=1.0, help="bag seconds per second")
    parser.add_argument("-l", "--loop", action="store_true", help="start again at the end, until Ctrl-C")
    parser.add_argument(
        "--start-offset", type=float, default=0.0, metavar="S", help="leave out the bag's first seconds"
    )
    parser.add_argument(
        "--clock",
        type=float,
        nargs="?",
        const=100.0,
        metavar="HZ",
        help=f"publish the bag's time on {CLOCK_TOPIC}, by default at 100 Hz of it; a recorded clock is left out",
    )
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="play only these; by default all")
    parser.add_argument(
        "--delay", type=float, default=1.0, metavar="S", help="before the first message, so that subscribers are found"
    )


def run(args: argparse.Namespace) -> int:
    """Play the bag until its end or Ctrl-C.

    Raises:
        ConfigError: an option has a wrong value, ROS does not start, or the bag holds nothing to play.
    """
    _check(args)
    with caught_signals() as stop, opened(args.bag) as bag:
        start = _first_time(bag, args.start_offset)
        start_ros([])
        try:
            player = Player(bag, args.topics, args.clock)
            pace = Pace(args.rate, stop)
            pace.rest(args.delay)
            while player.play(start, pace) and args.loop and not stop:
                pace.rest(BETWEEN_ROUNDS)
            player.finish()
        finally:
            rclpy.try_shutdown()
    if not player.played and not stop:
        raise ConfigError(
            f"{args.bag} holds no message of {', '.join(player.topics)} after its first {args.start_offset:g} s; name "
            "other topics or an earlier start."
        )
    late = f", at worst {pace.lateness:.3f} s late" if pace.lateness >= 0.001 else ""
    count = len(player.topics)
    print(f"played {player.played} messages on {count} {'topic' if count == 1 else 'topics'}{late}")
    return 0


class Pace:
    """Bag time as wall time goes by."""

    def __init__(self, rate: float, stop: StopRequest) -> None:
        """Time stands still until `begin`. `rate`: bag seconds per second."""
        self.lateness = 0.0
        """The worst so far, wall seconds."""
        self._rate = rate
        self._stop = stop
        self._bag_start = 0
        self._wall_start = 0.0

    def begin(self, bag_time: int) -> None:
        """It is `bag_time` (ns) now."""
        self._bag_start, self._wall_start = bag_time, time.monotonic()

    def wait_until(self, bag_time: int) -> bool:
        """Wait for it (ns); false if asked to stop before."""
        due = self._wall_start + (bag_time - self._bag_start) / NANOSECONDS / self._rate
        while not self._stop:
            missing = due - time.monotonic()
            if missing <= 0.0:
                self.lateness = max(self.lateness, -missing)
                return True
            time.sleep(min(missing, LONGEST_NAP))
        return False

    def rest(self, seconds: float) -> None:
        """Let wall time go by, unless asked to stop."""
        end = time.monotonic() + seconds
        while not self._stop and (missing := end - time.monotonic()) > 0.0:
            time.sleep(min(missing, LONGEST_NAP))


class Event(NamedTuple):
    """What is due at a time of the bag, ns: a recorded message, or (None) the clock."""

    time: int
    topic: Connection | None
    data: bytes


class Player:
    """Publishes the topics of an open bag."""

    def __init__(self, bag: Reader, topics: Sequence[str] | None, clock_rate: float | None) -> None:
        """Announce the topics with the quality of service that was offered for them.

        Args:
            bag: open.
            topics: names of those to play; None: all.
            clock_rate: clock messages per bag second; None: no clock but a recorded one.
        Raises:
            ConfigError: a topic is not in the bag, or there is nothing to play.
        """
        self.played = 0
        self._bag = bag
        self._node = Node("player", start_parameter_services=False)
        chosen = _chosen(bag.connections, topics)
        if clock_rate is not None:
            chosen = [connection for connection in chosen if connection.topic != CLOCK_TOPIC]
        self._tick = None if clock_rate is None else round(NANOSECONDS / clock_rate)
        self._clock = None if self._tick is None else self._node.create_publisher(Clock, CLOCK_TOPIC, messages.LATEST)
        unreadable = unreadable_topics(bag)
        for topic in sorted({connection.topic for connection in chosen} & unreadable.keys()):
            print(f"warning: {topic} is left out: {unreadable[topic]}.", file=sys.stderr)
        chosen = [connection for connection in chosen if connection.topic not in unreadable]
        by_topic: dict[str, list[Connection]] = {}
        for connection in chosen:
            by_topic.setdefault(connection.topic, []).append(connection)
        self._publishers: dict[str, Publisher] = {}
        for topic, connections in by_topic.items():
            publisher = self._publisher(topic, connections)
            if publisher is not None:
                self._publishers[topic] = publisher
        self._connections = [connection for connection in chosen if connection.topic in self._publishers]
        if not self._connections:
            raise ConfigError(f"{bag.path} holds nothing to play; give a bag and topics with messages.")

    @property
    def topics(self) -> list[str]:
        """Those that are played."""
        return list(self._publishers)

    def play(self, start: int, pace: Pace) -> int:
        """Publish once what the bag holds from `start` (ns) on, until its end or until asked to stop.

        Returns:
            How many messages these were.
        """
        before = self.played
        pace.begin(start)
        for event in self._events(start):
            if not pace.wait_until(event.time):
                break
            if event.topic is None:
                self._publish_clock(event.time)
            else:
                self._publishers[event.topic.topic].publish(event.data)
                self.played += 1
        return self.played - before

    def finish(self) -> None:
        """Let the subscribers receive the last messages."""
        end = time.monotonic() + LAST_WORDS
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))

    def _events(self, start: int) -> Iterator[Event]:
        """Messages and clock in order of time; the clock comes first."""
        tick = start
        for connection, stamp, data in read(self._bag, self._connections, start):
            while self._tick is not None and tick <= stamp:
                yield Event(tick, None, b"")
                tick += self._tick
            yield Event(stamp, connection, bytes(data))

    def _publish_clock(self, stamp: int) -> None:
        assert self._clock is not None
        message = Clock()
        messages.set_stamp(message.clock, stamp)
        self._clock.publish(message)

    def _publisher(self, topic: str, connections: Sequence[Connection]) -> Publisher | None:
        """A publisher for a topic; None, and a warning, if that is not possible on this machine."""
        kinds = {connection.msgtype for connection in connections}
        offers = [
            offer
            for connection in connections
            if isinstance(connection.ext, ConnectionExtRosbag2)
            for offer in connection.ext.offered_qos_profiles
        ]
        if len(kinds) > 1:
            reason = f"it has messages of several types ({', '.join(sorted(kinds))})"
        elif (kind := message_class(connections[0].msgtype)) is None:
            reason = f"the message type {connections[0].msgtype} is not installed here"
        else:
            return self._node.create_publisher(kind, topic, to_profile(offers))
        count = sum(connection.msgcount for connection in connections)
        print(f"warning: {topic} is left out with its {count} messages: {reason}.", file=sys.stderr)
        return None


def message_class(name: str) -> Any:
    """The class of a message type such as "sensor_msgs/msg/JointState"; None where it is not installed."""
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), kind, None)
    except ModuleNotFoundError:
        return None


def to_profile(offers: Sequence[Qos]) -> QoSProfile:
    """What one publisher offers in place of those that were recorded: enough for whoever could hear any of them."""
    reliable = not offers or any(offer.reliability is not QosReliability.BEST_EFFORT for offer in offers)
    latched = any(offer.durability is QosDurability.TRANSIENT_LOCAL for offer in offers)
    manual = any(offer.liveliness is QosLiveliness.MANUAL_BY_TOPIC for offer in offers)
    # Middlewares do not tell others how many messages they keep; a bag then says 0.
    depth = max((offer.depth for offer in offers), default=0) or (LATCHED_DEPTH if latched else DEPTH)
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        deadline=_shortest(offer.deadline for offer in offers),
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC if manual else LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=_shortest(offer.liveliness_lease_duration for offer in offers),
    )


def _shortest(times: Iterable[QosTime]) -> Duration:
    """The shortest of those that are set; 0, which means none, where none is."""
    given = [time.sec * NANOSECONDS + time.nsec for time in times]
    return Duration(nanoseconds=min((nanoseconds for nanoseconds in given if nanoseconds), default=0))


def _chosen(connections: Sequence[Connection], topics: Sequence[str] | None) -> list[Connection]:
    """Those of the named topics; all if none is named."""
    known = sorted({connection.topic for connection in connections})
    for topic in topics or ():
        if topic not in known:
            raise ConfigError(f"topics: '{topic}' is not in the bag; it holds {', '.join(known) or 'no topic'}.")
    return [connection for connection in connections if topics is None or connection.topic in topics]


def _check(args: argparse.Namespace) -> None:
    for name in ("rate", "clock"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0.0):
            raise ConfigError(f"{name} is {value:g}; give a number above 0.")
    for name, value in (("start-offset", args.start_offset), ("delay", args.delay)):
        if not (math.isfinite(value) and value >= 0.0):
            raise ConfigError(f"{name} is {value:g}; give 0 or a number above 0.")


def _first_time(bag: Reader, offset: float) -> int:
    """Where to begin, ns.

    Raises:
        ConfigError: that is after the end.
    """
    start = bag.start_time + round(offset * NANOSECONDS)
    if bag.message_count and start >= bag.end_time:
        lasts = (bag.end_time - bag.start_time) / NANOSECONDS
        raise ConfigError(f"start-offset is {offset:g}, but the bag lasts {lasts:.3g} s; begin before its end.")
    return start
