"""The recorder node: writes what the graph says into a rosbag2 folder, byte for byte as it was sent.

The time of a message in the bag is when it was received, on the node's clock. Simulated time is taken from the joint
states, which say it finer than the clock topic does; what comes before the first of them waits for it in memory.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, PoseStamped, WrenchStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, Float64MultiArray, String, UInt8MultiArray
from visualization_msgs.msg import MarkerArray

from spiking_controller.errors import ConfigError, SpikingControllerError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import ARM
from spiking_controller.nodes.common.joint_state_input import (
    BEST_EFFORT,
    EVERY,
    EVERY_LATCHED,
    JOINT_STATES,
    JointStateInput,
)
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, executed, run_process, spin_until_stopped
from spiking_controller.nodes.common.tf_message import message_type as tf_message_type
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.bag_writer import STORAGES, BagWriter, SimulatedTime
from spiking_controller.streams.cdr import leading_stamp
from spiking_controller.units import NANOSECONDS

MEBIBYTE = 2**20
CHECKPOINT_PERIOD = 0.5
"""How much of the recording is lost if the process is killed, s; a busy machine may need as long again."""

TOPICS: list[tuple[Any, str, QoSProfile]] = [
    (Float64MultiArray, "effort_controller/commands", EVERY),
    (PointStamped, "goal_point", EVERY),
    (PoseStamped, "goal_pose", EVERY),
    (WrenchStamped, "mujoco_bridge/push", EVERY),
    (PoseStamped, "hand_pose", BEST_EFFORT),
    (ClockMessage, "clock", BEST_EFFORT),
    (JointState, "controller/torque", BEST_EFFORT),
    (JointState, "controller/prediction", BEST_EFFORT),
    (Float64, "controller/prediction_error", BEST_EFFORT),
    (Float64, "controller/tracking_error", BEST_EFFORT),
    (UInt8MultiArray, "controller/spikes", BEST_EFFORT),
    (JointState, "controller/disturbance", BEST_EFFORT),
    (Float64MultiArray, "controller/load", BEST_EFFORT),
    (WrenchStamped, "controller/contact", EVERY),
    (JointState, "controller/contact_torque", EVERY),
    (PointStamped, "controller/goal", EVERY_LATCHED),
    (DiagnosticStatus, "controller/status", EVERY_LATCHED),
    (DiagnosticArray, "/diagnostics", EVERY),
    (String, "robot_description", EVERY_LATCHED),
    (tf_message_type(), "/tf", EVERY),
    (tf_message_type(), "/tf_static", EVERY_LATCHED),
    (MarkerArray, "controller/markers", EVERY),
    (Image, "controller/spike_image", BEST_EFFORT),
    (PathMessage, "controller/imagination", BEST_EFFORT),
    (JointState, "controller/imagined_state", BEST_EFFORT),
]

PARAMETERS = [
    ParameterSpec("directory", "", "Folder of the bag; it must not exist yet."),
    ParameterSpec("storage", "mcap", "File format of the bag.", choices=tuple(STORAGES)),
    ParameterSpec("split_size", 512, "A file that is larger is followed by another one, MiB.", 1, 1_000_000),
    ARM,
    ParameterSpec("gravity_compensation", True, "The arm carries its own weight; stands in metadata.yaml."),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]


class Recorder(Node):
    """Records the topics of one arm; `run` is its life."""

    def __init__(self, executor: Executor) -> None:
        """Create the bag and join the topics.

        Args:
            executor: runs the callbacks.
        Raises:
            ConfigError: a parameter has a wrong value, or the folder exists already.
        """
        super().__init__("recorder")
        declare_parameters(self, PARAMETERS)
        self._executor = executor
        directory = value_of(self, "directory")
        if not directory:
            raise ConfigError(
                "parameter directory of recorder is empty; give the folder to record into, such as bags/run1."
            )
        self._folder = Path(directory)
        about = {
            "arm": get_arm(value_of(self, "arm")).source,
            "gravity_compensation": str(value_of(self, "gravity_compensation")).lower(),
        }
        self._bag = BagWriter(self._folder, value_of(self, "storage"), about, value_of(self, "split_size") * MEBIBYTE)
        self._simulated = bool(value_of(self, "use_sim_time"))
        self._simulated_time: SimulatedTime | None = None
        self._connections: dict[str, Connection] = {}
        # With simulated time: what came before the first joint state, which tells the time.
        self._early: list[tuple[Connection, bytes]] = []
        self._received = 0
        self._failure: SpikingControllerError | None = None
        self._stop = StopRequest()
        self._joint_states = JointStateInput(self, self._recording(JointState, JOINT_STATES, EVERY))
        for kind, name, qos in TOPICS:
            self.create_subscription(kind, name, self._recording(kind, name, qos), qos, raw=True)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(value_of(self, "diagnostics_period"), self._on_timer, clock=steady)
        self.create_timer(CHECKPOINT_PERIOD, self._until_failure(self._bag.checkpoint), clock=steady)
        self.get_logger().info(f"recording into {self._folder}")

    def run(self, stop: StopRequest) -> None:
        """Record until asked to stop, then write what has arrived by then.

        Raises:
            SpikingControllerError: the disk takes no more.
        """
        self._stop = stop
        spin_until_stopped(self._executor, stop, lambda: self._received)
        if self._failure is not None:
            raise self._failure

    def _until_failure(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Leaves an error of the bag to `run`: rclpy prints a stack for one that leaves a callback."""

        def guarded(*arguments: bytes) -> None:
            if self._failure is not None:
                return
            try:
                callback(*arguments)
            except SpikingControllerError as error:
                self._failure = error
                self._stop.set()

        return guarded

    def close(self) -> None:
        """Complete the bag."""
        now = self.get_clock().now().nanoseconds
        for connection, data in self._early:
            self._bag.write(connection, now, data)
        self._bag.close()
        self.get_logger().info(f"recorded {sum(self._bag.counts.values())} messages into {self._folder}")

    def _recording(self, kind: Any, name: str, qos: QoSProfile) -> Callable[[bytes], None]:
        """What takes the serialised messages of a topic."""
        topic = self.resolve_topic_name(name)
        message_type = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        tells_time = self._simulated and name == JOINT_STATES

        def record(data: bytes) -> None:
            self._record(topic, message_type, qos, tells_time, data)

        return self._until_failure(record)

    def _record(self, topic: str, message_type: str, qos: QoSProfile, tells_time: bool, data: bytes) -> None:
        self._received += 1
        connection = self._connections.get(topic)
        if connection is None:
            infos = self.get_publishers_info_by_topic(topic)
            # A publisher may be heard before the graph tells of it; it offers what we asked for, at least.
            offers = [info.qos_profile for info in infos] or [qos]
            offered = [to_qos(offer) for offer in offers]
            connection = self._connections[topic] = self._bag.add_topic(topic, message_type, offered)
        if tells_time:
            self._on_simulated_time(leading_stamp(data))
        if not self._simulated:
            self._bag.write(connection, self.get_clock().now().nanoseconds, data)
        elif self._simulated_time is None:
            self._early.append((connection, data))
        else:
            self._bag.write(connection, self._simulated_time.now, data)

    def _on_simulated_time(self, stamp: int) -> None:
        if self._simulated_time is not None:
            self._simulated_time.advance(stamp)
            return
        self._simulated_time = SimulatedTime(stamp)
        for connection, data in self._early:
            self._bag.write(connection, stamp, data)
        self._early.clear()

    def _on_timer(self) -> None:
        self._joint_states.heed_best_effort()
        counts = self._bag.counts
        name = f"{self.get_fully_qualified_name()}: bag"
        summary = f"recording into {self._folder}"
        message = DiagnosticArray(status=[messages.status(name, DiagnosticStatus.OK, summary, counts)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def to_qos(profile: QoSProfile) -> Qos:
    """An offer of a publisher as a bag states it."""

    def to_time(duration: Duration) -> QosTime:
        return QosTime(*divmod(duration.nanoseconds, NANOSECONDS))

    return Qos(
        history=QosHistory[profile.history.name],
        depth=profile.depth,
        reliability=QosReliability[profile.reliability.name],
        durability=QosDurability[profile.durability.name],
        deadline=to_time(profile.deadline),
        lifespan=to_time(profile.lifespan),
        liveliness=QosLiveliness[profile.liveliness.name],
        liveliness_lease_duration=to_time(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _record(stop: StopRequest) -> int:
    """The node's life as a process."""
    with executed(Recorder) as (node, _):
        node.run(stop)
        node.close()
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the recorder node until Ctrl-C or SIGTERM."""
    return run_process(_record, args)


if __name__ == "__main__":
    sys.exit(main())
