"""The evaluator node: judges networks on a running graph, or on a bag that is played, with the figures of `replay`.

Messages go as bytes to where those of a bag go; everything that is judged, and when a run ends, is in `evaluation/`.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, String
from std_srvs.srv import Trigger

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.replay.evaluator import ReplaySettings
from spiking_controller.evaluation.replay.live import LiveEvaluation, Metrics
from spiking_controller.evaluation.replay.live_status import series, statuses
from spiking_controller.evaluation.replay.report import tables
from spiking_controller.evaluation.tables import text, to_json
from spiking_controller.files import write_atomically
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import ARM, JOINT_NAMES, joint_names
from spiking_controller.nodes.common.joint_state_input import BEST_EFFORT, EVERY_LATCHED, JOINT_STATES, JointStateInput
from spiking_controller.nodes.common.model_parameters import load_checkpoint_of_arm
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, executed, run_process, spin_until_stopped
from spiking_controller.streams.message_feed import (
    ACCEPTED_GOAL,
    DISTURBANCE,
    PREDICTION,
    PREDICTION_ERROR,
    TORQUE,
    ArmTopics,
    DamagedMessageError,
    MessageFeed,
)
from spiking_controller.units import NANOSECONDS

WATCH_PERIOD = 0.1
"""Between two looks whether the stream has fallen silent and how its driver publishes, s."""
ASKED_GOALS: dict[str, Any] = {"goal_point": PointStamped, "goal_pose": PoseStamped}
"""They count where there is no controller that says which goal is in force."""

PARAMETERS = [
    ARM,
    JOINT_NAMES,
    ParameterSpec(
        "checkpoints",
        [""],
        'Paths of the networks\' .safetensors files, judged side by side; [""]: the shipped one of the arm.',
    ),
    ParameterSpec(
        "torque",
        "commanded",
        "The torques that act: as commanded on controller/torque, or as measured, the efforts of the joint states.",
        choices=("commanded", "measured"),
    ),
    ParameterSpec(
        "gravity_compensation", True, "The robot or bridge carries the arm's weight itself; commands do not."
    ),
    ParameterSpec(
        "effort",
        "auto",
        "Whether these torques carry the arm's weight, which the robot model takes out; auto: if the robot does not.",
        choices=("auto", "with-gravity", "without-gravity"),
    ),
    ParameterSpec(
        "rate_limit_period",
        0.002,
        "Of the policies' safety filter: period of the joint states, s, as the controller has it.",
        0.0005,
        0.1,
    ),
    ParameterSpec(
        "silence", 3.0, "When no joint state came for so long, the figures are complete, s (wall clock).", 0.2, 3600.0
    ),
    ParameterSpec("json", "", "Complete figures of a run are also written to this file; empty: they are not."),
    ParameterSpec("torch_num_threads", 1, "Threads that PyTorch may use.", 1, 64),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics and of figures, s.", 0.05, 60.0),
]


class Evaluator(Node):
    """Judges while messages come; `finish` when they end."""

    def __init__(self) -> None:
        """Load the networks and join the topics.

        Raises:
            ConfigError: a parameter has a wrong value, or the checkpoints cannot be compared.
            ModelContractError: a checkpoint cannot be used.
        """
        super().__init__("evaluator")
        declare_parameters(self, PARAMETERS)
        torch.set_num_threads(value_of(self, "torch_num_threads"))
        checkpoints = [load_checkpoint_of_arm(self, path) for path in value_of(self, "checkpoints")]
        measured = value_of(self, "torque") == "measured"
        effort = value_of(self, "effort")
        carries = not value_of(self, "gravity_compensation") if effort == "auto" else effort == "with-gravity"
        settings = ReplaySettings(
            joint_names=joint_names(self),
            measured_torque=measured,
            includes_gravity=carries,
            rate_limit_period=value_of(self, "rate_limit_period"),
            keep_series=False,
        )
        self._live = LiveEvaluation(checkpoints, settings, self._on_complete)
        self._live.rehearse()
        name = self.resolve_topic_name
        self._accepted_goals = name(ACCEPTED_GOAL)
        topics = ArmTopics(
            name(JOINT_STATES),
            None if measured else name(TORQUE),
            name(DISTURBANCE),
            (self._accepted_goals, *map(name, ASKED_GOALS)),
            name(PREDICTION),
            name(PREDICTION_ERROR),
        )
        self._feed = MessageFeed(topics, True, self._live)
        self._counts: Counter[str] = Counter()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._heard = self._judged = 0
        self._heard_at = self._steady.now()
        self._silence = value_of(self, "silence")
        self._json = Path(value_of(self, "json"))
        if not self._json.parent.is_dir():
            raise ConfigError(
                f"parameter json of evaluator is {self._json}, but {self._json.parent} is no folder; create it first."
            )
        self._run = self._live.number

        self._metrics_publisher = self.create_publisher(String, "~/figures", messages.LATCHED)
        self._complete_publisher = self.create_publisher(String, "~/complete_figures", messages.LATCHED)
        self._series_publishers = {
            name: self.create_publisher(Float64MultiArray, f"~/{name}", messages.LATCHED)
            for name in series(self._live.metrics())
        }
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self._joint_states = JointStateInput(self, self._listening(JointState, JOINT_STATES))
        if not measured:
            self._listen(JointState, TORQUE, BEST_EFFORT)
        self._listen(JointState, DISTURBANCE, BEST_EFFORT)
        self._listen(JointState, PREDICTION, BEST_EFFORT)
        self._listen(Float64, PREDICTION_ERROR, BEST_EFFORT)
        self._listen(PointStamped, ACCEPTED_GOAL, EVERY_LATCHED)
        for topic, kind in ASKED_GOALS.items():
            self._listen(kind, topic, messages.RELIABLE)
        self.create_service(Trigger, "~/restart", self._on_restart)
        self.create_timer(WATCH_PERIOD, self._on_watchdog, clock=self._steady)
        self.create_timer(value_of(self, "diagnostics_period"), self._publish, clock=self._steady)
        self.get_logger().info(f"judges {', '.join(checkpoint.source for checkpoint in checkpoints)}")

    @property
    def received(self) -> int:
        """Messages taken so far."""
        return self._heard

    def finish(self) -> None:
        """No more comes: complete the figures."""
        self._live.complete()

    def _listen(self, kind: Any, topic: str, qos: QoSProfile) -> None:
        self.create_subscription(kind, topic, self._listening(kind, topic), qos, raw=True)

    def _listening(self, kind: Any, topic: str) -> Callable[[bytes], None]:
        """What takes the serialised messages of a topic."""
        message_type = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        resolved = self.resolve_topic_name(topic)

        def take(data: bytes) -> None:
            self._heard += 1
            if topic == JOINT_STATES:
                self._heard_at = self._steady.now()
            if topic in ASKED_GOALS and self.count_publishers(self._accepted_goals):
                return
            try:
                self._feed.add(resolved, message_type, data, self.get_clock().now().nanoseconds)
            except DamagedMessageError as error:
                self._counts[f"damaged message on {topic}"] += 1
                self.get_logger().warning(f"a message on {resolved} is {error}", throttle_duration_sec=5.0)
            if self._live.number != self._run:
                self._run = self._live.number
                self.get_logger().info(f"time jumped back: run {self._run} begins")

        return take

    def _on_watchdog(self) -> None:
        self._joint_states.heed_best_effort()
        if (self._steady.now() - self._heard_at).nanoseconds > self._silence * NANOSECONDS:
            self._live.complete()

    def _on_restart(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._live.restart()
        self._run = self._live.number
        response.success = True
        response.message = f"run {self._live.number} begins"
        return response

    def _on_complete(self, metrics: Metrics) -> None:
        if self._json.name:
            try:
                write_atomically(self._json, f"{to_json(metrics, indent=2)}\n".encode())
            except OSError as error:
                self.get_logger().error(f"{self._json} cannot be written ({error.strerror})")
        self._complete_publisher.publish(String(data=to_json(metrics)))
        self._tell(metrics)
        self.get_logger().info(f"run {metrics['run']} is complete:\n{text(tables(metrics, []))}")

    def _publish(self) -> None:
        self._tell(self._live.metrics())

    def _tell(self, metrics: Metrics) -> None:
        """Tell everybody the figures of the present run."""
        if self._heard != self._judged or metrics["complete"]:
            self._judged = self._heard
            # One for each goal grows without end; the complete figures have them.
            goals = {name: value for name, value in metrics["goals"].items() if name != "each"}
            self._metrics_publisher.publish(String(data=to_json({**metrics, "goals": goals})))
            for name, (axes, values) in series(metrics).items():
                self._series_publishers[name].publish(messages.numbers_to_message(values, axes))
        self._publish_diagnostics(metrics)

    def _publish_diagnostics(self, metrics: Metrics) -> None:
        name = self.get_fully_qualified_name()
        counts = self._counts + Counter({f"stamped at its receipt: {t}": n for t, n in self._feed.unstamped.items()})
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        for status in statuses(metrics, self._live.problem, counts):
            level = DiagnosticStatus.WARN if status.is_warning else DiagnosticStatus.OK
            array.status.append(messages.status(f"{name}: {status.name}", level, status.summary, status.values))
        self._diagnostics_publisher.publish(array)


def _evaluate(stop: StopRequest) -> int:
    """The node's life as a process."""
    with executed(lambda _: Evaluator()) as (node, executor):
        spin_until_stopped(executor, stop, lambda: node.received)
        node.finish()
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the evaluator node until Ctrl-C or SIGTERM."""
    return run_process(_evaluate, args)


if __name__ == "__main__":
    sys.exit(main())
