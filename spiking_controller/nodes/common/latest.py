"""Looks at the latest message of a topic now and then, without a callback for each one.

A callback for each joint state costs a process about a tenth of a core; thirty looks a second cost next to nothing. The
subscriptions are those of a node that no executor runs.
"""

from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from spiking_controller.nodes.common import messages


class LatestMessages:
    """Subscriptions that are looked at."""

    def __init__(
        self, node: Node, kinds: Mapping[str, Any], qos: QoSProfile = messages.LATEST, suffix: str = "input"
    ) -> None:
        """Subscribe.

        Args:
            node: in whose namespace, context and with whose remaps.
            kinds: message class by topic.
            qos: of all of them; with its depth, `take` gives the messages one by one.
            suffix: of the name of the node that is made for them.
        """
        self._node = Node(
            f"{node.get_name()}_{suffix}",
            context=node.context,
            namespace=node.get_namespace(),
            start_parameter_services=False,
            enable_rosout=False,
            enable_logger_service=False,
            # It reads no clock, and need not hear one.
            parameter_overrides=[Parameter("use_sim_time", value=False)],
        )
        self._kinds = dict(kinds)
        self._subscriptions = {
            topic: self._node.create_subscription(kind, topic, _never, qos) for topic, kind in kinds.items()
        }

    def take(self, topic: str) -> Any | None:
        """The next message that has come since the last look; None if there is none."""
        subscription = self._subscriptions[topic]
        with subscription.handle:
            taken = subscription.handle.take_message(self._kinds[topic], False)
        return None if taken is None else taken[0]

    def close(self) -> None:
        """Leave the topics."""
        self._node.destroy_node()


def _never(message: Any) -> None:
    raise AssertionError("no executor runs this node")
