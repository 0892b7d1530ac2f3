"""Hears every joint state as bytes: reliably, or as well as it can from a driver that publishes best-effort."""

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

DEPTH = 2000
"""Messages of a topic that may wait while the node is busy: four seconds of joint states."""
EVERY = QoSProfile(depth=DEPTH)
"""For what is published reliable: not one message is left out."""
EVERY_LATCHED = QoSProfile(depth=DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
JOINT_STATES = "joint_states"


class JointStateInput:
    """The subscription to `joint_states`."""

    def __init__(self, node: Node, callback: Callable[[bytes], None]) -> None:
        """Subscribe.

        Args:
            node: in whose name.
            callback: is given each message as serialised bytes.
        """
        self._node = node
        self._callback = callback
        self._subscribe(EVERY)

    def _subscribe(self, qos: QoSProfile) -> None:
        self._subscription = self._node.create_subscription(JointState, JOINT_STATES, self._callback, qos, raw=True)

    def heed_best_effort(self) -> None:
        """Ask a driver that publishes best-effort for no more than it offers; call this now and then."""
        subscription = self._subscription
        infos = self._node.get_publishers_info_by_topic(subscription.topic_name)
        offers = {info.qos_profile.reliability for info in infos}
        if subscription.qos_profile == BEST_EFFORT or ReliabilityPolicy.BEST_EFFORT not in offers:
            return
        self._node.get_logger().info(f"{subscription.topic_name} is published best-effort: some of it may be lost")
        self._subscribe(BEST_EFFORT)
        self._node.destroy_subscription(subscription)
