"""Hears `model_update` in a process of its own, and hands on what is small enough to be networks.

Taking a message from the middleware and turning it into Python objects holds the interpreter for as long as it takes:
seconds for 200 MB. In the controller's process no tick would happen meanwhile, in whichever thread it is done.
"""

import sys
from multiprocessing.connection import Connection

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_msgs.msg import UInt8MultiArray

from spiking_controller.nodes import messages
from spiking_controller.nodes.process import StopRequest, create_executor, run_process

DATA, REFUSAL = b"d", b"r"
"""First byte of what goes to the controller: a checkpoint file follows, or a sentence in UTF-8."""


class UpdateListener(Node):
    """Listens to one topic and writes into one pipe."""

    def __init__(self, namespace: str, name: str, topic: str, largest: int, pipe: Connection) -> None:
        """Join the topic.

        Args:
            namespace, name: of this node.
            topic: fully qualified.
            largest: size of a message that may still be networks, bytes.
            pipe: to the controller.
        """
        super().__init__(name, namespace=namespace, start_parameter_services=False, enable_rosout=False)
        self._largest = largest
        self._pipe = pipe
        self.create_subscription(UInt8MultiArray, topic, self._on_update, messages.LATCHED, raw=True)

    def _on_update(self, serialised: bytes) -> None:
        if len(serialised) > self._largest:
            self._pipe.send_bytes(
                REFUSAL
                + (
                    f"model_update: has {len(serialised) / 1e6:.1f} MB, but networks of the running contract take less "
                    f"than {self._largest / 1e6:.1f} MB; send a checkpoint made for them."
                ).encode()
            )
            return
        self._pipe.send_bytes(DATA + bytes(deserialize_message(serialised, UInt8MultiArray).data))


def main(arguments: list[str]) -> int:
    """Run until asked to stop.

    Args:
        arguments: namespace and name of the node, topic, largest size in bytes, file descriptor of the pipe.
    """
    namespace, name, topic, largest, descriptor = arguments

    def listen(stop: StopRequest) -> int:
        executor = create_executor()
        pipe = Connection(int(descriptor), readable=False)
        node = UpdateListener(namespace, name, topic, int(largest), pipe)
        executor.add_node(node)
        try:
            while not stop:
                executor.spin_once(timeout_sec=0.2)
            return 0
        finally:
            executor.shutdown()
            node.destroy_node()

    return run_process(listen, [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
