"""The trainer node: learns from the running graph and sends the controller networks that have proven better.

It only listens to the graph and publishes on `model_update`; whether it runs, is late or dies makes no difference to
control. It trains in a thread of its own, at low priority, and may run on another machine.
"""

import queue
import sys
import threading
import time
import traceback
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String, UInt8MultiArray
from std_srvs.srv import SetBool, Trigger

from spiking_controller.control.arm_state import ArmStateReader, Rejection
from spiking_controller.errors import ModelContractError
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import parse_checkpoint
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import joint_names
from spiking_controller.nodes.common.model_parameters import MODEL_PARAMETERS, load_model
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, executed, run_process, step_back
from spiking_controller.online.experience import Experience, ExperienceSettings
from spiking_controller.online.learner import OnlineLearner, OnlineSettings
from spiking_controller.online.signature import Signer
from spiking_controller.online.version_folder import VersionFolder
from spiking_controller.streams.segments import SegmentBuilder
from spiking_controller.tasks.segments import Segment

STREAM = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
"""A second of joint states may wait while the training thread is busy."""
CANDIDATE_FILE = "candidate.safetensors"
"""What `~/save` writes into the versions' folder."""
ANSWER_TIMEOUT = 10.0
"""The controller names its version after every one that it was sent; so long the trainer waits for that, s."""
LONGEST_GAP = 0.1
"""Joint states farther apart do not continue each other, s."""

_EXPERIENCE, _ONLINE = ExperienceSettings(), OnlineSettings()
EXPERIENCE_PARAMETERS = [
    ParameterSpec(
        "segment_steps",
        _EXPERIENCE.segment_steps,
        "Control steps of a recorded segment, all on the way to one goal.",
        20,
        1000,
    ),
    ParameterSpec(
        "recent_segments", _EXPERIENCE.recent_segments, "The latest segments that are learnt from.", 1, 100000
    ),
    ParameterSpec(
        "old_segments",
        _EXPERIENCE.old_segments,
        "Segments that are kept of those before; new ones take the place of random ones.",
        1,
        1000000,
    ),
    ParameterSpec("old_share", _EXPERIENCE.old_share, "Share of old segments in what is learnt from.", 0.0, 0.99),
    ParameterSpec(
        "held_back_segments",
        _EXPERIENCE.held_back_segments,
        "The latest segments that candidates are judged on; never learnt from.",
        1,
        100000,
    ),
    ParameterSpec("hold_back_every", _EXPERIENCE.hold_back_every, "One of so many segments is held back.", 2, 1000),
]
LEARNING_PARAMETERS = [
    ParameterSpec(
        "minimum_segments", _ONLINE.minimum_segments, "Learning waits for so many recent segments.", 1, 100000
    ),
    ParameterSpec(
        "minimum_held_back", _ONLINE.minimum_held_back, "Learning waits for so many held-back segments.", 1, 100000
    ),
    ParameterSpec("model_updates", _ONLINE.model_updates, "Gradient steps of the forward model per update.", 0, 10000),
    ParameterSpec("policy_updates", _ONLINE.policy_updates, "Gradient steps of the policy per update.", 0, 10000),
    ParameterSpec(
        "model_learning_rate",
        _ONLINE.model_learning_rate,
        "Largest learning rate of the forward model (Adam).",
        0.0,
        0.1,
    ),
    ParameterSpec(
        "policy_learning_rate", _ONLINE.policy_learning_rate, "Largest learning rate of the policy (Adam).", 0.0, 0.1
    ),
    ParameterSpec(
        "model_weight_decay", _ONLINE.model_weight_decay, "Weight decay of the forward model (AdamW).", 0.0, 10.0
    ),
    ParameterSpec(
        "annealing", _ONLINE.annealing, "Updates in which the rates fall again after the arm has changed.", 1, 100000
    ),
    ParameterSpec(
        "margin", _ONLINE.margin, "Share by which a network must be better than the running one to be sent.", 0.0, 1.0
    ),
    ParameterSpec(
        "discard_margin",
        _ONLINE.discard_margin,
        "Share by which it may be worse before what it has learnt is thrown away.",
        0.0,
        100.0,
    ),
    ParameterSpec(
        "largest_move",
        _ONLINE.largest_move,
        "A network's weights move by at most this share of their norm from version to version.",
        0.0001,
        10.0,
    ),
    ParameterSpec(
        "largest_torque_change",
        _ONLINE.largest_torque_change,
        "The torques of two policies in a row differ by at most this share of the torque scale, on average.",
        0.0001,
        10.0,
    ),
]

PARAMETERS = [
    *MODEL_PARAMETERS,
    *EXPERIENCE_PARAMETERS,
    *LEARNING_PARAMETERS,
    ParameterSpec("enabled", True, "Learn from the start; the service ~/enable switches it. Recording goes on anyhow."),
    ParameterSpec("update_period", 4.0, "Between two updates, s (wall clock).", 0.1, 3600.0),
    ParameterSpec("memory_directory", "", "Recorded segments are kept in this folder; empty: they end with the node."),
    ParameterSpec("versions_directory", "", "Versions and decisions are kept in this folder; empty: they are not."),
    ParameterSpec("versions_kept", 50, "The latest versions that are kept in the folder.", 1, 100000),
    ParameterSpec("signing_key", "", "Path of the private key (.pem) that networks are signed with; empty: unsigned."),
    ParameterSpec("niceness", 10, "How far the training thread steps back for other work, as `nice` does.", 0, 19),
    ParameterSpec("torch_num_threads", 1, "Threads that PyTorch may use.", 1, 64),
    ParameterSpec("seed", 0, "Of all random choices in learning.", 0, 2**31 - 1),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]
WAITING_UPDATES = 4
"""So many versions that others have sent wait for the training thread, at most."""


class TrainerNode(Node):
    """Records segments, learns from them, publishes what is better. `close` ends the training thread.

    It always trains on from what the controller says on `controller/version`: after a rollback, a restart of either
    node, or when another trainer was faster.
    """

    def __init__(self) -> None:
        """Load the networks, join the topics and start the training thread.

        Raises:
            ConfigError: a parameter has a wrong value, or a folder or the signing key cannot be used.
            ModelContractError: the checkpoint cannot be used.
        """
        super().__init__("trainer")
        declare_parameters(self, PARAMETERS)
        checkpoint = load_model(self)
        task = checkpoint.task
        seed = value_of(self, "seed")
        settings = ExperienceSettings(**{spec.name: value_of(self, spec.name) for spec in EXPERIENCE_PARAMETERS})
        memory = value_of(self, "memory_directory")
        self._experience = Experience(task, settings, np.random.default_rng(seed), Path(memory) if memory else None)
        self._learner = OnlineLearner(
            checkpoint,
            self._experience,
            OnlineSettings(**{spec.name: value_of(self, spec.name) for spec in LEARNING_PARAMETERS}),
            seed,
        )
        self._reader = ArmStateReader(joint_names(self), task.arm.limits, LONGEST_GAP)
        self._builder = SegmentBuilder(task, settings.segment_steps)
        self._goal_dimensions = task.goal_dimensions
        versions = value_of(self, "versions_directory")
        key = value_of(self, "signing_key")
        self._signer = Signer.read(Path(key)) if key else None
        self._versions = VersionFolder(Path(versions), value_of(self, "versions_kept")) if versions else None
        # What the memory could not hold anyhow need not wait for the training thread.
        self._segments: queue.Queue[Segment] = queue.Queue(settings.recent_segments)
        self._heard: queue.Queue[bytes] = queue.Queue(WAITING_UPDATES)
        self._controller_version = ""
        self._answer_until = 0.0
        self._enabled = bool(value_of(self, "enabled"))
        self._save_wanted = threading.Event()
        self._counts: Counter[str] = Counter()
        self._summary = "waiting for segments"
        self._last_rejection = ""

        self._update_publisher = self.create_publisher(UInt8MultiArray, "model_update", messages.LATCHED)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self.create_subscription(JointState, "joint_states", self._on_joint_states, STREAM)
        self.create_subscription(JointState, "controller/torque", self._on_torque, STREAM)
        self.create_subscription(JointState, "controller/prediction", self._on_prediction, STREAM)
        self.create_subscription(JointState, "controller/disturbance", self._on_disturbance, STREAM)
        self.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.LATCHED)
        self.create_subscription(String, "controller/version", self._on_version, messages.LATCHED)
        self.create_subscription(UInt8MultiArray, "model_update", self._on_model_update, messages.LATCHED)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/save", self._on_save)
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
        self._experience.close()
        if self._versions is not None:
            self._versions.close()

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

    def _on_disturbance(self, message: JointState) -> None:
        self._builder.add_disturbance(messages.stamp_to_time(message.header.stamp), message.effort)

    def _on_prediction(self, message: JointState) -> None:
        segment = self._builder.add_prediction(messages.stamp_to_time(message.header.stamp))
        if segment is None:
            return
        if self._segments.full():
            self._counts["segment not kept in time"] += 1
        else:
            self._segments.put_nowait(segment)

    def _on_version(self, message: String) -> None:
        self._controller_version = message.data
        self._answer_until = 0.0

    def _on_model_update(self, message: UInt8MultiArray) -> None:
        """Another trainer, or this one, has sent networks."""
        if self._heard.full():
            self._counts["update of others not heard in time"] += 1
        else:
            self._heard.put_nowait(bytes(message.data))

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = "learns" if self._enabled else "records only, until it is enabled"
        self.get_logger().info(response.message)
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Have the training thread write the candidate as it is."""
        response.success = self._versions is not None
        if self._versions is None:
            response.message = "the parameter versions_directory is empty; set it to a folder"
        else:
            self._save_wanted.set()
            response.message = (
                f"the candidate will be in {self._versions.directory / CANDIDATE_FILE} within an update period"
            )
        return response

    def _train(self) -> None:
        """The training thread's life."""
        step_back(value_of(self, "niceness"))
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
        """Keep what has come, follow the controller, learn, and publish what has proven better."""
        while not self._segments.empty():
            self._experience.add(self._segments.get_nowait())
        self._remember_what_was_heard()
        if self._save_wanted.is_set():
            self._save_wanted.clear()
            self._save_candidate()
        if time.monotonic() < self._answer_until:
            self._summary = "waiting for the controller to check the last version"
            return
        problem = self._follow_controller()
        if problem or not self._enabled or not self._learner.is_ready:
            self._summary = problem or ("waiting for segments" if self._enabled else "not enabled")
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
            self._log(f"rejected: {proposal.reason}")
            return
        self._counts["accepted candidate"] += 1
        self._log(f"accepted {proposal.sha256}: {proposal.reason}")
        if self._versions is not None:
            self._write(lambda folder: folder.add(proposal.sha256, proposal.data or b""))
        self._answer_until = time.monotonic() + ANSWER_TIMEOUT
        data = proposal.data if self._signer is None else self._signer.sign(proposal.data)
        self._update_publisher.publish(UInt8MultiArray(data=array("B", data)))

    def _remember_what_was_heard(self) -> None:
        while not self._heard.empty():
            try:
                self._learner.remember(parse_checkpoint(self._heard.get_nowait(), "model_update"))
            except ModelContractError as error:
                self._counts["unusable update of others"] += 1
                self.get_logger().warning(f"ignored: {error}")

    def _follow_controller(self) -> str:
        """Train on from the version that the controller names; why that cannot be, or nothing."""
        wanted = self._controller_version
        if not wanted:
            return "waiting for a controller"
        if self._learner.known(wanted) is None:
            found = self._versions.find(wanted) if self._versions is not None else None
            if found is None:
                return f"the controller runs {wanted[:12]}, which is not known here; give it as checkpoint"
            self._learner.remember(found)
        if self._learner.follow(wanted):
            self._counts["version followed"] += 1
            self._log(f"goes on from {wanted}, which the controller names")
        return ""

    def _save_candidate(self) -> None:
        self._write(lambda folder: write_atomically(folder.directory / CANDIDATE_FILE, self._learner.dump_candidate()))

    def _write(self, write: Callable[[VersionFolder], object]) -> None:
        """Write something into the versions' folder; a full disk must not end the training."""
        assert self._versions is not None
        try:
            write(self._versions)
        except OSError as error:
            self._counts["version not saved"] += 1
            self.get_logger().error(f"{self._versions.directory}: cannot be written ({error.strerror})")

    def _log(self, decision: str) -> None:
        self.get_logger().info(decision)
        if self._versions is not None:
            self._versions.log(decision)

    def _publish_diagnostics(self) -> None:
        learner, builder, experience = self._learner, self._builder, self._experience
        figures: dict[str, object] = {
            "version": learner.running.metadata["sha256"],
            "enabled": str(self._enabled).lower(),
            "segments recorded": builder.segments,
            "segments in memory": len(experience.recent),
            "old segments": len(experience.old),
            "segments held back": len(experience.held_back),
            **{
                f"share of the largest learning rate, {name.replace('_', ' ')}": f"{detector.rate_fraction:.3f}"
                for name, detector in learner.change_detectors.items()
            },
            **{
                f"changes of the arm noticed, {name.replace('_', ' ')}": learner.changes[name]
                for name in learner.change_detectors
            },
            "memory on disk (MB)": f"{experience.bytes_on_disk / 1e6:.1f}",
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
    with executed(lambda _: TrainerNode()) as (node, executor), closing(node):
        while not stop:
            executor.spin_once(timeout_sec=0.1)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the trainer node until Ctrl-C or SIGTERM."""
    return run_process(_learn, args)


if __name__ == "__main__":
    sys.exit(main())
