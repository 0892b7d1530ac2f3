"""Hears `model_update` in a process of its own, checks what it hears, and hands on networks that are ready to run.

Taking a message from the middleware and reading networks from it hold the interpreter for as long as they take: ten
milliseconds for good networks, seconds for 200 MB of noise. In the controller's process no tick would happen meanwhile,
in whichever thread it is done.
"""

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_msgs.msg import UInt8MultiArray

from spiking_controller.errors import ModelContractError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import StopRequest, create_executor, run_process, step_back
from spiking_controller.online.signature import TrustedKeys

NETWORKS, REFUSAL = b"n", b"r"
"""First byte of what goes to the controller: a packed `Version` follows, or a sentence in UTF-8."""
NICENESS = 10
"""The arm comes first: checking takes what processor time is left."""


class UpdateListener(Node):
    """Listens to one topic and writes into one pipe."""

    def __init__(
        self,
        namespace: str,
        name: str,
        topic: str,
        largest: int,
        running: Mapping[str, Any],
        trusted: Sequence[str],
        pipe: Connection,
    ) -> None:
        """Join the topic.

        Args:
            namespace, name: of this node.
            topic: fully qualified.
            largest: size of a message that may still be networks, bytes.
            running: the contract of the running networks, as a dictionary.
            trusted: keys that networks must be signed with, as of `TrustedKeys.to_hex`; none: any are taken.
            pipe: to the controller.
        """
        super().__init__(name, namespace=namespace, start_parameter_services=False, enable_rosout=False)
        self._largest = largest
        self._running = running
        self._trusted = TrustedKeys.from_hex(trusted) if trusted else None
        self._pipe = pipe
        self.create_subscription(
            UInt8MultiArray,
            topic,
            self._on_update,
            messages.LATCHED,
            event_callbacks=SubscriptionEventCallbacks(matched=self._on_sender),
            raw=True,
        )

    def _on_sender(self, matched: object) -> None:
        """Be ready once somebody may send networks. PyTorch takes seconds and 280 MB; most graphs do without."""
        importlib.import_module("spiking_controller.online.model_update")

    def _on_update(self, serialised: bytes) -> None:
        try:
            answer = NETWORKS + self._checked(serialised)
        except ModelContractError as error:
            answer = REFUSAL + str(error).encode()
        self._pipe.send_bytes(answer)

    def _checked(self, serialised: bytes) -> bytes:
        if len(serialised) > self._largest:
            raise ModelContractError(
                f"model_update: has {len(serialised) / 1e6:.1f} MB, but networks of the running contract take less "
                f"than {self._largest / 1e6:.1f} MB; send a checkpoint made for them."
            )
        data = bytes(deserialize_message(serialised, UInt8MultiArray).data)
        if self._trusted is not None:
            self._trusted.check(data, "model_update")
        from spiking_controller.networks.checkpoint import Contract
        from spiking_controller.online.model_update import Version

        return Version.read(data, Contract(**self._running), "model_update").pack()


def main(arguments: list[str]) -> int:
    """Run until asked to stop.

    Args:
        arguments: namespace, name and enclave of the node, topic, largest size in bytes, as JSON the running contract
            and the keys to trust, file descriptor of the pipe.
    """
    namespace, name, enclave, topic, largest, running, trusted, descriptor = arguments
    step_back(NICENESS)

    def listen(stop: StopRequest) -> int:
        executor = create_executor()
        pipe = Connection(int(descriptor), readable=False)
        node = UpdateListener(namespace, name, topic, int(largest), json.loads(running), json.loads(trusted), pipe)
        executor.add_node(node)
        try:
            while not stop:
                executor.spin_once(timeout_sec=0.2)
            return 0
        finally:
            executor.shutdown()
            node.destroy_node()

    return run_process(listen, ["--ros-args", "--enclave", enclave])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
