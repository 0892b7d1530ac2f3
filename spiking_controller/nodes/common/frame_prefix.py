"""What stands before the names of frames, so that several arms share one tree of transforms."""

from rclpy.node import Node

from spiking_controller.nodes.common.parameters import ParameterSpec, value_of

FROM_NAMESPACE = "from_namespace"
FRAME_PREFIX = ParameterSpec(
    "frame_prefix",
    FROM_NAMESPACE,
    "Before every frame's name, such as left/; from_namespace: the node's namespace, nothing without one.",
)


def frame_prefix(node: Node) -> str:
    """What stands before the names of frames; the node has the parameter `FRAME_PREFIX`."""
    given = str(value_of(node, "frame_prefix"))
    if given != FROM_NAMESPACE:
        return given
    namespace = node.get_namespace().strip("/")
    return f"{namespace}/" if namespace else ""
