"""The trainer node: learns from the running graph and sends the controller networks that have proven better.

It only listens to the graph and publishes on `model_update`; whether it runs, is late or dies makes no difference to
control. It trains in a thread of its own, at low priority, and may run on another machine.
"""

import os
import queue
import sys
import threading
import traceback
from array import array
from collections import Counter
from pathlib import Path

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray

from spiking_controller.control.arm_state import ArmStateReader, Rejection
from spiking_controller.control.segments import SegmentBuilder
from spiking_controller.learning.checkpoint import write_atomically
from spiking_controller.learning.online import OnlineLearner, OnlineSettings
from spiking_controller.learning.replay import Segment
from spiking_controller.nodes import messages
from spiking_controller.nodes.model_parameters import MODEL_PARAMETERS, joint_names, load_model
from spiking_controller.nodes.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.process import StopRequest, create_executor, run_process

STREAM = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
"""A second of joint states may wait while the training thread is busy."""
LONGEST_GAP = 0.1
"""Joint states farther apart do not continue each other, s."""

_DEFAULTS = OnlineSettings()
LEARNING_PARAMETERS = [
    ParameterSpec(
        "segment_steps",
        _DEFAULTS.segment_steps,
        "Control steps of a recorded segment, all on the way to one goal.",
        20,
        1000,
    ),
    ParameterSpec("memory_segments", _DEFAULTS.memory_segments, "The latest segments that are learnt from.", 1, 100000),
    ParameterSpec(
        "held_back_segments",
        _DEFAULTS.held_back_segments,
        "The latest segments that candidates are judged on; never learnt from.",
        1,
        100000,
    ),
    ParameterSpec("hold_back_every", _DEFAULTS.hold_back_every, "One of so many segments is held back.", 2, 1000),
    ParameterSpec(
        "minimum_segments", _DEFAULTS.minimum_segments, "Learning waits for so many segments in memory.", 1, 100000
    ),
    ParameterSpec(
        "minimum_held_back", _DEFAULTS.minimum_held_back, "Learning waits for so many held-back segments.", 1, 100000
    ),
    ParameterSpec(
        "model_updates", _DEFAULTS.model_updates, "Gradient steps of the forward model per update.", 0, 10000
    ),
    ParameterSpec("policy_updates", _DEFAULTS.policy_updates, "Gradient steps of the policy per update.", 0, 10000),
    ParameterSpec(
        "model_learning_rate", _DEFAULTS.model_learning_rate, "Learning rate of the forward model (Adam).", 0.0, 0.1
    ),
    ParameterSpec(
        "policy_learning_rate", _DEFAULTS.policy_learning_rate, "Learning rate of the policy (Adam).", 0.0, 0.1
    ),
    ParameterSpec(
        "margin", _DEFAULTS.margin, "Share by which a candidate must be better than the running networks.", 0.0, 1.0
    ),
    ParameterSpec(
        "tolerance",
        _DEFAULTS.tolerance,
        "Share by which it may be worse in the other one of the two figures.",
        0.0,
        1.0,
    ),
]

PARAMETERS = [
    *MODEL_PARAMETERS,
    *LEARNING_PARAMETERS,
    ParameterSpec("update_period", 5.0, "Between two updates, s (wall clock).", 0.1, 3600.0),
    ParameterSpec("versions_directory", "", "Every accepted version is saved into this folder; empty: none is."),
    ParameterSpec("niceness", 10, "How far the training thread steps back for other work, as `nice` does.", 0, 19),
    ParameterSpec("torch_num_threads", 1, "Threads that PyTorch may use.", 1, 64),
    ParameterSpec("seed", 0, "Of all random choices in learning.", 0, 2**31 - 1),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]


class TrainerNode(Node):
    """Records segments, learns from them, publishes what is better. `close` ends the training thread."""

    def __init__(self) -> None:
        """Load the networks, join the topics and start the training thread.

        Raises:
            ConfigError: a parameter has a wrong value.
            ModelContractError: the checkpoint cannot be used.
        """
        super().__init__("trainer")
        declare_parameters(self, PARAMETERS)
        checkpoint = load_model(self)
        task = checkpoint.task
        settings = OnlineSettings(**{spec.name: value_of(self, spec.name) for spec in LEARNING_PARAMETERS})
        self._learner = OnlineLearner(checkpoint, settings, value_of(self, "seed"))
        self._reader = ArmStateReader(joint_names(self), task.arm.limits, LONGEST_GAP)
        self._builder = SegmentBuilder(task, settings.segment_steps)
        self._goal_dimensions = task.goal_dimensions
        folder = value_of(self, "versions_directory")
        self._versions = Path(folder) if folder else None
        # What the memory could not hold anyhow need not wait for the training thread.
        self._segments: queue.Queue[Segment] = queue.Queue(settings.memory_segments)
        self._counts: Counter[str] = Counter()
        self._summary = "waiting for segments"
        self._last_rejection = ""

        self._update_publisher = self.create_publisher(UInt8MultiArray, "model_update", messages.LATCHED)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self.create_subscription(JointState, "joint_states", self._on_joint_states, STREAM)
        self.create_subscription(JointState, "controller/torque", self._on_torque, STREAM)
        self.create_subscription(JointState, "controller/prediction", self._on_prediction, STREAM)
        self.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.LATCHED)
        self.create_timer(
            value_of(self, "diagnostics_period"),
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._train, name="training")
        self._thread.start()
        self.get_logger().info(f"learns from {checkpoint.source}, version {checkpoint.metadata['sha256']}")

    def close(self) -> None:
        """End the training thread after the gradient step that it is in."""
        self._closing.set()
        self._thread.join()

    def _on_joint_states(self, message: JointState) -> None:
        stamp = messages.stamp_to_time(message.header.stamp)
        sample = self._reader.read(stamp, message.name, message.position, message.velocity)
        if not isinstance(sample, Rejection):
            self._builder.add_state(sample)

    def _on_torque(self, message: JointState) -> None:
        self._builder.add_torque(messages.stamp_to_time(message.header.stamp), message.effort)

    def _on_goal(self, message: PointStamped) -> None:
        point = message.point
        self._builder.add_goal((point.x, point.y, point.z)[: self._goal_dimensions])

    def _on_prediction(self, message: JointState) -> None:
        segment = self._builder.add_prediction(messages.stamp_to_time(message.header.stamp))
        if segment is None:
            return
        if self._segments.full():
            self._counts["segment not learnt in time"] += 1
        else:
            self._segments.put_nowait(segment)

    def _train(self) -> None:
        """The training thread's life."""
        os.nice(value_of(self, "niceness"))  # on Linux, of this thread alone
        torch.set_num_threads(value_of(self, "torch_num_threads"))
        while not self._closing.wait(value_of(self, "update_period")):
            try:
                self._update()
            except Exception:
                # Such as a gradient that is not finite. The networks that run are not touched by it.
                self._counts["failed update"] += 1
                self.get_logger().error(f"update failed, the candidate is discarded:\n{traceback.format_exc()}")
                self._learner.discard()

    def _update(self) -> None:
        """Learn from what has come, and publish the candidate if it has proven better."""
        while not self._segments.empty():
            self._learner.add(self._segments.get_nowait())
        if not self._learner.is_ready:
            return
        losses = self._learner.update(self._closing.is_set)
        if self._closing.is_set():
            return
        proposal = self._learner.propose()
        self._counts["update"] += 1
        self._summary = (
            f"model loss {losses.model_loss:.4g}, imagined distance {losses.imagined_distance_m:.4g} m over an update"
        )
        if proposal.data is None:
            self._counts["rejected candidate"] += 1
            self._last_rejection = proposal.reason
            self.get_logger().info(f"rejected: {proposal.reason}")
            return
        self._counts["accepted candidate"] += 1
        self.get_logger().info(f"accepted {proposal.sha256}: {proposal.reason}")
        if self._versions is not None:
            number = self._counts["accepted candidate"]
            self._save(self._versions / f"{number:05d}_{proposal.sha256[:12]}.safetensors", proposal.data)
        self._update_publisher.publish(UInt8MultiArray(data=array("B", proposal.data)))

    def _save(self, path: Path, data: bytes) -> None:
        try:
            write_atomically(path, data)
        except OSError as error:
            self._counts["version not saved"] += 1
            self.get_logger().error(f"{path}: cannot be written ({error.strerror}); the version is sent all the same")

    def _publish_diagnostics(self) -> None:
        learner, builder = self._learner, self._builder
        figures: dict[str, object] = {
            "version": learner.running.metadata["sha256"],
            "segments recorded": builder.segments,
            "segments in memory": len(learner.memory),
            "segments held back": len(learner.held_back),
            "last rejection": self._last_rejection,
            **{f"dropped: {reason}": count for reason, count in sorted(builder.dropped.items())},
            **dict(sorted(dict(self._counts).items())),
        }
        level = DiagnosticStatus.WARN if self._counts["failed update"] else DiagnosticStatus.OK
        name = f"{self.get_fully_qualified_name()}: learning"
        message = DiagnosticArray(status=[messages.status(name, level, self._summary, figures)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def _learn(stop: StopRequest) -> int:
    """The node's life as a process."""
    node = TrainerNode()
    executor = create_executor()
    executor.add_node(node)
    try:
        while not stop:
            executor.spin_once(timeout_sec=0.1)
        return 0
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    """Run the trainer node until Ctrl-C or SIGTERM."""
    return run_process(_learn, args)


if __name__ == "__main__":
    sys.exit(main())
