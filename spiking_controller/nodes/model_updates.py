"""Brings networks from `model_update` into the running controller, and back out again: nothing of it blocks a tick.

Listening happens in another process (`update_listener`), checking in another thread (`learning.model_update`), and the
swap is an assignment between two ticks: when no goal is being reached, or as the goal changes.
"""

import os
import subprocess
import sys
import threading
from collections import Counter, deque
from multiprocessing.connection import Connection

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger

from spiking_controller.control.controller import Controller
from spiking_controller.control.tracking_watch import TrackingWatch
from spiking_controller.errors import ModelContractError
from spiking_controller.learning.checkpoint import Checkpoint
from spiking_controller.learning.model_update import UpdateReader, Version
from spiking_controller.nodes import messages
from spiking_controller.nodes.up import start_process
from spiking_controller.nodes.update_listener import DATA

RESTART_AFTER = 5.0
"""A listening process that has died is started again after this time, s."""
STOP_TIMEOUT = 1.0
"""One that has not ended this long after it was asked to is killed, s."""
SIZE_MARGIN = 2
"""Networks of one contract differ in size only by their headers; so many times the running file is no update."""


class UpdateIntake:
    """Keeps the listening process and passes on what it hears, in a thread that mostly waits."""

    def __init__(self, node: LifecycleNode, updates: UpdateReader, largest: int) -> None:
        """Start listening to `model_update`.

        Args:
            node: whose namespace and remaps count.
            updates: gets the bytes, and the refusals of what was too large.
            largest: size of a message that is still looked at, bytes.
        """
        self._topic = node.resolve_topic_name("model_update")
        self._name = node.get_fully_qualified_name().removeprefix("/") + "_updates"
        self._largest = largest
        self._updates = updates
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
        namespace, _, name = self._name.rpartition("/")
        process = start_process(
            [
                sys.executable,
                "-m",
                "spiking_controller.nodes.update_listener",
                f"/{namespace}",
                name,
                self._topic,
                str(self._largest),
                str(writing),
            ],
            pass_fds=(writing,),
        )
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
                self._pipe.close()
                if self._closing.is_set():
                    return
                code = self._listener.wait()
                self._updates.refuse(
                    f"model_update: the process that listens has ended (exit code {code}); it is started again."
                )
                if self._closing.wait(RESTART_AFTER):
                    return
                self._listener = self._start()
                if self._closing.is_set():
                    self._end()
                continue
            kind, content = received[:1], received[1:]
            if kind == DATA:
                self._updates.submit(content)
            else:
                self._updates.refuse(content.decode())


class ModelUpdates:
    """Which networks run, which wait, and which ran before.

    Attributes:
        counts: refused updates and returns to earlier networks.
        running: the networks that run.
    """

    def __init__(self, node: LifecycleNode, checkpoint: Checkpoint, watch: TrackingWatch, torch_threads: int) -> None:
        """Run the networks of a checkpoint and listen for others of the same contract.

        Args:
            node: in whose name.
            checkpoint: loaded from a file.
            watch: judges new networks.
            torch_threads: that PyTorch may use for checking.
        """
        self.counts: Counter[str] = Counter()
        self.running = Version.of(checkpoint)
        self._node = node
        self._watch = watch
        self._controller: Controller | None = None
        self._waiting: Version | None = None
        self._previous: Version | None = None
        self._given_up: deque[str] = deque(maxlen=100)
        self._taken = 0
        self._last_refusal = ""
        self._reader = UpdateReader(checkpoint.contract, "model_update", torch_threads)
        self._intake = UpdateIntake(node, self._reader, SIZE_MARGIN * os.path.getsize(checkpoint.source))
        self._service = node.create_service(Trigger, "~/rollback", self._on_rollback)

    def attach(self, controller: Controller) -> None:
        """Name the controller whose networks are replaced."""
        self._controller = controller

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_service(self._service)
        self._intake.close()
        self._reader.close()

    def poll(self, may_swap: bool) -> None:
        """Hear what came of the updates; what fits takes over now, or waits for `goal_changes`."""
        while not self._reader.results.empty():
            result = self._reader.results.get()
            if isinstance(result, Version):
                self._consider(result)
            else:
                self._refuse(result)
        if may_swap:
            self._let_waiting_take_over()

    def goal_changes(self) -> None:
        """One goal ends and another begins: the moment to judge new networks, and to let others take over."""
        if reason := self._watch.goal_ended():
            self._node.get_logger().warning(f"rollback: {reason}")
            self._go_back()
        self._let_waiting_take_over()

    def status(self) -> DiagnosticStatus:
        """For /diagnostics."""
        figures: dict[str, object] = {
            "running": self.running.sha256,
            "parent": self.running.parent or "",
            "waiting for the next goal": self._waiting.sha256 if self._waiting else "",
            "updates taken": self._taken,
            "updates refused": self.counts["refused model update"],
            "rollbacks": self.counts["rollback"],
            "last refusal": self._last_refusal,
        }
        name = f"{self._node.get_fully_qualified_name()}: model"
        return messages.status(name, DiagnosticStatus.OK, f"running {self.running.sha256[:12]}", figures)

    def _consider(self, version: Version) -> None:
        if version.sha256 in self._given_up:
            self._refuse(
                ModelContractError(f"model_update: {version.sha256} was rolled back before; send other networks.")
            )
        elif version.sha256 != self.running.sha256:
            self._waiting = version

    def _refuse(self, error: ModelContractError) -> None:
        self.counts["refused model update"] += 1
        self._last_refusal = str(error)
        self._node.get_logger().warning(f"refused: {error}")

    def _let_waiting_take_over(self) -> None:
        if self._waiting is None:
            return
        self._previous = self.running
        self._run(self._waiting)
        self._waiting = None
        self._watch.new_networks()
        self._taken += 1
        self._node.get_logger().info(f"model update: now running {self.running.sha256}")

    def _go_back(self) -> bool:
        """Whether there are earlier networks; then they run again."""
        if self._previous is None:
            return False
        self._given_up.append(self.running.sha256)
        self._run(self._previous)
        self._previous = self._waiting = None
        self._watch.settle()
        self.counts["rollback"] += 1
        self._node.get_logger().warning(f"rollback: now running {self.running.sha256}")
        return True

    def _run(self, version: Version) -> None:
        assert self._controller is not None
        self._controller.replace_networks(version.agent)
        self.running = version

    def _on_rollback(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Go back to the networks before the last update at once."""
        response.success = self._go_back()
        response.message = (
            f"now running {self.running.sha256}" if response.success else "there is no earlier version to go back to"
        )
        return response
