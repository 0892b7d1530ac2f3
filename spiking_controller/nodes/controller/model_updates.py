"""Brings networks from `model_update` into the running controller, and back out again: nothing of it blocks a tick.

Listening and checking happen in another process (`update_listener`), from which networks come ready to run; the swap is
an assignment between two ticks: when no goal is being reached, or as the goal changes.
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from queue import SimpleQueue

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from std_srvs.srv import Trigger

from spiking_controller.control.controller import Controller
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.child_process import start_process
from spiking_controller.nodes.common.parameters import value_of
from spiking_controller.nodes.controller.update_listener import REFUSAL
from spiking_controller.online.model_update import Version
from spiking_controller.online.signature import TrustedKeys
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.online.versions import VersionChain

RESTART_AFTER = 5.0
"""A listening process that has died is started again after this time, s."""
STOP_TIMEOUT = 1.0
"""One that has not ended this long after it was asked to is killed, s."""
SIZE_MARGIN = 2
"""Networks of one contract differ in size only by their headers; so many times the running file is no update."""


class UpdateIntake:
    """Keeps the listening process and takes what it says, in a thread that mostly waits.

    Attributes:
        results: networks that are ready to run, and sentences that say why there are none.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start listening.

        Args:
            command: of the listening process (`update_listener`), to which the descriptor of its pipe is added.
        """
        self.results: SimpleQueue[Version | str] = SimpleQueue()
        self._command = command
        self._closing = threading.Event()
        self._listener = self._start()
        self._thread = threading.Thread(target=self._run, name="model_update_intake", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the process and the thread."""
        self._closing.set()
        self._end()
        self._thread.join()

    def _start(self) -> "subprocess.Popen[bytes]":
        reading, writing = os.pipe()
        process = start_process([*self._command, str(writing)], pass_fds=(writing,))
        os.close(writing)
        self._pipe = Connection(reading, writable=False)
        return process

    def _end(self) -> None:
        self._listener.terminate()
        try:
            self._listener.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._listener.kill()
            self._listener.wait()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                received = self._pipe.recv_bytes()
            except (EOFError, OSError):
                # Also in the middle of a message: what a dying process leaves behind is never taken for networks.
                self._pipe.close()
                if self._closing.is_set():
                    return
                code = self._listener.wait()
                self.results.put(
                    f"model_update: the process that listens has ended (exit code {code}); it is started again."
                )
                if self._closing.wait(RESTART_AFTER):
                    return
                self._listener = self._start()
                if self._closing.is_set():
                    self._end()
                continue
            self.results.put(_result(received))


class ModelUpdates:
    """Which networks run, which wait, and which ran before: a `VersionChain` on the graph.

    `~/version` (latched) says which version others must be trained on from.
    """

    def __init__(self, node: LifecycleNode, checkpoint: Checkpoint, watch: TrackingWatch) -> None:
        """Listen for networks of the contract of a checkpoint; `attach` comes next.

        Args:
            node: in whose name.
            checkpoint: loaded from a file.
            watch: judges new networks.
        """
        self.first = Version.of(checkpoint)
        """The networks to start with."""
        self._node = node
        self._watch = watch
        self._refused: Counter[str] = Counter()
        self._last_refusal = ""
        self._intake = UpdateIntake(_listening_command(node, checkpoint))
        self._service = node.create_service(Trigger, "~/rollback", self._on_rollback)
        self._version_publisher = node.create_publisher(String, "~/version", messages.LATCHED)

    def attach(self, controller: Controller) -> None:
        """Name the controller, which runs the `first` networks."""
        self._chain = VersionChain(controller, self.first, self._watch)
        self._publish_version()

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_service(self._service)
        self._node.destroy_publisher(self._version_publisher)
        self._intake.close()

    @property
    def counts(self) -> Counter[str]:
        """Refused updates and returns to earlier networks."""
        return self._refused + Counter({"rollback": self._chain.counts["rollback"]})

    def step(self, time: int, distance: float) -> None:
        """See `VersionChain.step`."""
        self._chain.step(time, distance)

    def poll(self, may_swap: bool) -> None:
        """Hear what came of the updates; what fits takes over now, or waits for `goal_changes`."""
        while not self._intake.results.empty():
            result = self._intake.results.get()
            if isinstance(result, str):
                self._refuse(result)
            elif refusal := self._chain.offer(result):
                self._refuse(f"model_update: {refusal}")
            # After a refusal too: whoever sent it learns where to go on from.
            self._publish_version()
        if may_swap and self._chain.take_over():
            self._tell_takeover()

    def goal_changes(self) -> None:
        """One goal ends and another begins: the moment to judge new networks, and to let others take over."""
        before = self._chain.running
        if reason := self._chain.goal_changes():
            self._tell_rollback(reason)
        elif self._chain.running is not before:
            self._tell_takeover()

    def goal_moved(self) -> None:
        """See `VersionChain.goal_moved`."""
        self._chain.goal_moved()

    def status(self) -> DiagnosticStatus:
        """For /diagnostics."""
        chain = self._chain
        figures: dict[str, object] = {
            "running": chain.running.sha256,
            "parent": chain.running.parent or "",
            "waiting for the next goal": chain.waiting.sha256 if chain.waiting else "",
            "on trial": str(self._watch.on_trial).lower(),
            "updates taken": chain.counts["model update"],
            "updates refused": self._refused["refused model update"],
            "rollbacks": chain.counts["rollback"],
            "last refusal": self._last_refusal,
            "last rollback": chain.last_rollback,
        }
        name = f"{self._node.get_fully_qualified_name()}: model"
        return messages.status(name, DiagnosticStatus.OK, f"running {chain.running.sha256[:12]}", figures)

    def _refuse(self, sentence: str) -> None:
        self._refused["refused model update"] += 1
        self._last_refusal = sentence
        self._node.get_logger().warning(f"refused: {sentence}")

    def _tell_takeover(self) -> None:
        self._node.get_logger().info(f"model update: now running {self._chain.running.sha256}")

    def _tell_rollback(self, reason: str) -> None:
        self._node.get_logger().warning(f"rollback: {reason} Now running {self._chain.running.sha256}")
        self._publish_version()

    def _publish_version(self) -> None:
        self._version_publisher.publish(String(data=self._chain.tip))

    def _on_rollback(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Go back to the networks before the last update at once."""
        reason = "asked for by service."
        response.success = self._chain.go_back(reason)
        if response.success:
            self._tell_rollback(reason)
        response.message = (
            f"now running {self._chain.running.sha256}"
            if response.success
            else "there is no earlier version to go back to"
        )
        return response


def _result(received: bytes) -> Version | str:
    kind, content = received[:1], received[1:]
    if kind == REFUSAL:
        return content.decode()
    try:
        return Version.unpack(content)
    except Exception as error:
        # The other process may run a newer release that was installed meanwhile.
        return f"model_update: checked, but cannot be taken ({type(error).__name__}: {error}); restart the controller."


def _listening_command(node: LifecycleNode, checkpoint: Checkpoint) -> list[str]:
    """Listens in the node's namespace, and with its remaps, for networks of the checkpoint's contract."""
    namespace, _, name = node.get_fully_qualified_name().rpartition("/")
    paths = value_of(node, "trusted_keys")
    trusted = [] if paths == [""] else _trusted(node, paths)
    return [
        sys.executable,
        "-m",
        "spiking_controller.nodes.controller.update_listener",
        namespace or "/",
        f"{name}_updates",
        _enclave(node),
        node.resolve_topic_name("model_update"),
        str(SIZE_MARGIN * os.path.getsize(checkpoint.source)),
        json.dumps(asdict(checkpoint.contract)),
        json.dumps(trusted),
    ]


def _trusted(node: LifecycleNode, paths: Sequence[str]) -> list[str]:
    """The keys in the files, for the listening process."""
    keys = TrustedKeys.read(paths)
    node.get_logger().info(f"takes only networks signed with {', '.join(keys.fingerprints)}")
    return keys.to_hex()


def _enclave(node: LifecycleNode) -> str:
    """The node's security enclave, which the listening process shares; "/" where it was given none."""
    own = node.get_name(), node.get_namespace()
    found = node.get_node_names_and_namespaces_with_enclaves()
    return next((enclave for *names, enclave in found if tuple(names) == own), "/")
