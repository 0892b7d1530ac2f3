"""The controller node: joint states in, torques out, as a managed node.

It ticks on each joint state, by the message's stamp, so that real time, simulated time, bags and lock-step give the
same torques. What a tick does is in `control/`; this module only connects it to the graph.
"""

import sys
import time
import traceback
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, UInt8MultiArray
from std_srvs.srv import Trigger

from spiking_controller.control.arm_state import NANOSECONDS, ArmStateReader, Rejection
from spiking_controller.control.controller import Command, Controller, ControllerSettings
from spiking_controller.control.goals import checked_goal
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.errors import GoalError, SpikingControllerError
from spiking_controller.learning.model_update import UpdateReader, Version
from spiking_controller.nodes import messages
from spiking_controller.nodes.model_parameters import MODEL_PARAMETERS, joint_names, load_model
from spiking_controller.nodes.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.process import FAILED, StopRequest, create_executor, run_process

RAMP_PERIOD = 0.002
"""Between two torques on the way to zero, s; the rate limit is kept at this period."""
REPEAT_AFTER = 0.02
"""A repeated joint state is answered with the last torque again if that was sent longer ago than this, s."""
TICKS_TIMED = 1000
"""How many of the latest ticks the published tick time is taken over."""

PARAMETERS = [
    ParameterSpec("autostart", True, "Configure and activate at start; false: wait for a lifecycle manager."),
    *MODEL_PARAMETERS,
    ParameterSpec(
        "timeout",
        0.1,
        "Joint states that stay away longer ramp the torque to zero, s (of the node's clock).",
        0.005,
        10.0,
    ),
    ParameterSpec(
        "wall_timeout",
        2.0,
        "With simulated time: the same on the wall clock, s; simulated time may stand still.",
        0.1,
        600.0,
    ),
    ParameterSpec(
        "soft_start",
        1.0,
        "The action grows to its full size in this time after activation or a gap, s.",
        0.0,
        60.0,
        fixed=False,
    ),
    ParameterSpec(
        "integral_gain",
        1.0,
        "Gain of the set-point integral near the goal, 1/s; 0 switches it off.",
        0.0,
        10.0,
        fixed=False,
    ),
    ParameterSpec(
        "integral_zone", 0.03, "The set-point integral grows only this close to the goal, m.", 0.0, 1.0, fixed=False
    ),
    ParameterSpec("integral_clamp", 0.015, "Longest set-point integral, m.", 0.0, 0.1, fixed=False),
    ParameterSpec(
        "rate_limit_period",
        0.002,
        "The torque changes by at most what the rate limit allows in this time, s, also after lost messages.",
        0.0005,
        0.1,
    ),
    ParameterSpec("torch_num_threads", 1, "Threads that PyTorch may use.", 1, 64),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]
SETTINGS = ("soft_start", "integral_gain", "integral_zone", "integral_clamp")


class ControllerNode(LifecycleNode):
    """Drives the arm while active.

    configure  loads the checkpoint and checks it against the arm; fails with a sentence in the log
    activate   holds the hand where it is, or goes to the last goal, after a soft start
    deactivate ramps the torque to zero at the rate limit; so does shutdown from active
    """

    def __init__(self) -> None:
        """Declare the parameters.

        Raises:
            ConfigError: a parameter has a wrong value.
        """
        self._controller: Controller | None = None
        self._active = False
        self._counts: Counter[str] = Counter()
        super().__init__("controller")
        declare_parameters(self, PARAMETERS)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and connect everything; FAILURE with the reason in the log where that cannot be."""
        try:
            self._configure()
        except SpikingControllerError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # rclpy would swallow it.
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start from zero torque and a soft start; SUCCESS."""
        assert self._controller is not None
        self._controller.restart()
        self._reader.forget()
        self._stale = False
        self._fresh_states = self._seen_states = 0
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ramp the torque to zero (87 ms at most); SUCCESS."""
        self._ramp_to_zero()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the topics and forget the networks and the goal; SUCCESS."""
        self._disconnect()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ramp the torque to zero if active, leave the topics; SUCCESS."""
        self._ramp_to_zero()
        self._disconnect()
        return super().on_shutdown(state)

    def finish(self) -> None:
        """Ramp the torque to zero, whatever the state; for the end of the process."""
        self._ramp_to_zero()

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, without torque; SUCCESS."""
        self._ramp_to_zero()
        self._disconnect()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        torch.set_num_threads(value_of(self, "torch_num_threads"))
        checkpoint = load_model(self)
        self._task = checkpoint.task
        arm = self._task.arm
        self._reader = ArmStateReader(joint_names(self), arm.limits, value_of(self, "timeout"))
        safety = SafetyFilter(arm.limits, self._task.soft_limit_fraction, value_of(self, "rate_limit_period"))
        self._version = Version.of(checkpoint)
        self._waiting_version: Version | None = None
        self._previous_version: Version | None = None
        self._updates = UpdateReader(checkpoint.contract, "model_update", value_of(self, "torch_num_threads"))
        self._updates_taken = 0
        self._last_refusal = ""
        self._controller = Controller(self._task, self._version.agent, self._settings(), safety)
        self._controller.rehearse()
        self._counts = Counter()
        self._tick_times = np.zeros(TICKS_TIMED)
        self._ticks = 0
        self._stale = False
        self._fresh_states = self._seen_states = 0
        self._ramp_time = 0
        self._connect()
        self.get_logger().info(
            f"networks of {checkpoint.source}: task {self._task.name}, control period {self._task.control_period} s"
        )

    def _settings(self) -> ControllerSettings:
        return ControllerSettings(**{name: value_of(self, name) for name in SETTINGS})

    def _connect(self) -> None:
        """Join the topics. Everything that is published in a tick is built here."""
        names = list(self._reader.joint_names)
        controlled = names[: self._task.controlled_joints]
        self._command_publisher = self.create_lifecycle_publisher(
            Float64MultiArray, "effort_controller/commands", messages.COMMAND
        )
        self._torque_publisher = self.create_lifecycle_publisher(JointState, "~/torque", messages.LATEST)
        self._prediction_publisher = self.create_lifecycle_publisher(JointState, "~/prediction", messages.LATEST)
        self._prediction_error_publisher = self.create_lifecycle_publisher(
            Float64, "~/prediction_error", messages.LATEST
        )
        self._tracking_error_publisher = self.create_lifecycle_publisher(Float64, "~/tracking_error", messages.LATEST)
        self._spikes_publisher = self.create_lifecycle_publisher(UInt8MultiArray, "~/spikes", messages.LATEST)
        self._goal_publisher = self.create_publisher(PointStamped, "~/goal", messages.LATCHED)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self._command_message = Float64MultiArray()
        self._torque_message = JointState(name=names)
        self._prediction_message = JointState(name=controlled)
        self._last_sent = 0.0
        self._our_subscriptions = [
            self.create_subscription(JointState, "joint_states", self._on_joint_states, messages.LATEST),
            self.create_subscription(PointStamped, "goal_point", self._on_goal_point, messages.RELIABLE),
            self.create_subscription(PoseStamped, "goal_pose", self._on_goal_pose, messages.RELIABLE),
            self.create_subscription(UInt8MultiArray, "model_update", self._on_model_update, messages.LATCHED),
        ]
        self._our_services = [
            self.create_service(Trigger, "~/clear_goal", self._on_clear_goal),
            self.create_service(Trigger, "~/rollback", self._on_rollback),
        ]
        self._watchdog = self.create_timer(value_of(self, "timeout") / 5.0, self._on_watchdog, clock=self._steady)
        self._ramp_timer = self.create_timer(RAMP_PERIOD, self._on_ramp_timer, clock=self._steady)
        self._ramp_timer.cancel()
        self._diagnostics_timer = self.create_timer(
            value_of(self, "diagnostics_period"), self._publish_diagnostics, clock=self._steady
        )
        self._goal_published_of = 0
        self._set_goal_status(DiagnosticStatus.OK, "no goal was asked for")
        self._reported: Counter[str] = Counter()

    def _disconnect(self) -> None:
        if self._controller is None:
            return
        self._controller = None
        for publisher in (
            self._command_publisher,
            self._torque_publisher,
            self._prediction_publisher,
            self._prediction_error_publisher,
            self._tracking_error_publisher,
            self._spikes_publisher,
        ):
            self.destroy_lifecycle_publisher(publisher)
        self.destroy_publisher(self._goal_publisher)
        self.destroy_publisher(self._diagnostics_publisher)
        for subscription in self._our_subscriptions:
            self.destroy_subscription(subscription)
        for service in self._our_services:
            self.destroy_service(service)
        self._updates.close()
        for timer in (self._watchdog, self._ramp_timer, self._diagnostics_timer):
            self.destroy_timer(timer)

    def _on_joint_states(self, message: JointState) -> None:
        """One tick."""
        if not self._active or self._controller is None:
            return
        started = time.perf_counter()
        stamp = messages.stamp_to_time(message.header.stamp)
        sample = self._reader.read(stamp, message.name, message.position, message.velocity)
        if isinstance(sample, Rejection):
            self._on_rejection(sample, started)
            return
        self._fresh_states += 1
        if self._stale:
            self._stale = False
            self._ramp_timer.cancel()
            self.get_logger().info("joint states are back: control resumes")
        command = self._controller.tick(sample)
        self._send(command)
        if command.new_step:
            self._publish_report()
        self._tick_times[self._ticks % TICKS_TIMED] = time.perf_counter() - started
        self._ticks += 1

    def _on_rejection(self, rejection: Rejection, now: float) -> None:
        if rejection.reason == "repeated stamp":
            # A bridge in lock-step repeats its state when our answer, or the state, was lost.
            if now - self._last_sent > REPEAT_AFTER and not self._stale:
                self._command_publisher.publish(self._command_message)
                self._last_sent = now
        elif rejection.reason != "old stamp":
            self.get_logger().warning(rejection.sentence, throttle_duration_sec=5.0)

    def _send(self, command: Command) -> None:
        torque = messages.doubles(command.torque)
        self._command_message.data = torque
        self._command_publisher.publish(self._command_message)
        self._last_sent = time.perf_counter()
        self._ramp_time = command.time
        self._torque_message.effort = torque
        messages.set_stamp(self._torque_message.header.stamp, command.time)
        self._torque_publisher.publish(self._torque_message)

    def _publish_report(self) -> None:
        assert self._controller is not None
        report = self._controller.report()
        if self._goal_published_of != self._controller.goal_changes:
            self._publish_goal()
        message = self._prediction_message
        messages.set_stamp(message.header.stamp, report.predicted_time)
        message.position = messages.doubles(report.predicted_position)
        message.velocity = messages.doubles(report.predicted_velocity)
        self._prediction_publisher.publish(message)
        self._tracking_error_publisher.publish(Float64(data=report.tracking_error))
        if report.prediction_error is not None:
            self._prediction_error_publisher.publish(Float64(data=report.prediction_error))
        self._spikes_publisher.publish(messages.spikes_to_message(report.spikes))

    def _on_goal_point(self, message: PointStamped) -> None:
        self._take_goal(message.point, message.header.frame_id)

    def _on_goal_pose(self, message: PoseStamped) -> None:
        self.get_logger().info("goal_pose: the position is used, the orientation is not", once=True)
        self._take_goal(message.pose.position, message.header.frame_id)

    def _take_goal(self, point: Point, frame: str) -> None:
        """Go there, or say why not and keep the last goal."""
        assert self._controller is not None
        try:
            goal = checked_goal(self._task, (point.x, point.y, point.z), frame)
        except GoalError as error:
            self._counts["refused goal"] += 1
            self.get_logger().warning(f"refused: {error}")
            self._set_goal_status(DiagnosticStatus.WARN, str(error), point)
            self._publish_diagnostics()
            return
        self._let_waiting_version_take_over()
        self._controller.set_goal(goal)
        self._publish_goal()
        self._set_goal_status(DiagnosticStatus.OK, "accepted", point)

    def _set_goal_status(self, level: bytes, summary: str, point: Point | None = None) -> None:
        """What /diagnostics says about the last goal that was asked for."""
        asked = {"asked": messages.point_text(point.x, point.y, point.z)} if point else {}
        self._goal_status = messages.status(f"{self.get_fully_qualified_name()}: goal", level, summary, asked)

    def _on_clear_goal(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._controller is not None
        self._controller.clear_goal()
        response.success = True
        response.message = "the hand holds where it is"
        return response

    def _on_model_update(self, message: UInt8MultiArray) -> None:
        """Have new networks checked, in another thread."""
        self._updates.submit(bytes(message.data))

    def _take_updates(self) -> None:
        """Hear what came of the updates. Networks that fit wait for the next goal if one is being reached."""
        assert self._controller is not None
        while not self._updates.results.empty():
            result = self._updates.results.get()
            if not isinstance(result, Version):
                self._counts["refused model update"] += 1
                self._last_refusal = str(result)
                self.get_logger().warning(f"refused: {result}")
            elif result.sha256 != self._version.sha256:
                self._waiting_version = result
        if not (self._active and self._controller.is_reaching):
            self._let_waiting_version_take_over()

    def _let_waiting_version_take_over(self) -> None:
        if self._waiting_version is None:
            return
        self._previous_version = self._version
        self._run_version(self._waiting_version)
        self._updates_taken += 1
        self.get_logger().info(f"model update: now running {self._version.sha256}")

    def _run_version(self, version: Version) -> None:
        assert self._controller is not None
        self._controller.replace_networks(version.agent)
        self._version = version
        self._waiting_version = None

    def _on_rollback(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Go back to the networks before the last update at once."""
        response.success = self._previous_version is not None
        if self._previous_version is None:
            response.message = "there is no earlier version to go back to"
            return response
        self._run_version(self._previous_version)
        self._previous_version = None
        response.message = f"now running {self._version.sha256}"
        self.get_logger().warning(f"rollback: {response.message}")
        return response

    def _publish_goal(self) -> None:
        assert self._controller is not None
        goal = self._controller.goal
        if goal is None:
            return
        self._goal_published_of = self._controller.goal_changes
        message = PointStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self._task.arm.base_frame
        for axis, value in zip("xyz", goal, strict=False):
            setattr(message.point, axis, float(value))
        self._goal_publisher.publish(message)

    def _on_watchdog(self) -> None:
        """Ramp the torque to zero when usable joint states stay away; take over what the update thread has ready."""
        self._take_updates()
        if not self._active or self._stale:
            return
        if self._fresh_states != self._seen_states or not self._fresh_states:
            self._seen_states = self._fresh_states
            self._seen_at = self.get_clock().now(), self._steady.now()
            return
        node_age, wall_age = (
            (clock.now() - seen).nanoseconds / NANOSECONDS
            for clock, seen in zip((self.get_clock(), self._steady), self._seen_at, strict=True)
        )
        simulated = value_of(self, "use_sim_time")
        longest = value_of(self, "wall_timeout" if simulated else "timeout")
        if wall_age > longest or (simulated and node_age > value_of(self, "timeout")):
            self._stale = True
            self._counts["stale joint states"] += 1
            self.get_logger().warning(
                f"no usable joint state for {wall_age:.2f} s: the torque ramps to zero until they return"
            )
            self._ramp_timer.reset()

    def _on_ramp_timer(self) -> None:
        if not self._ramp():
            self._ramp_timer.cancel()

    def _ramp(self) -> bool:
        """Send the next torque on the way to zero; whether it has still a way to go."""
        assert self._controller is not None
        torque = self._controller.safety.ramp_down(RAMP_PERIOD)
        self._send(Command(self._ramp_time + round(RAMP_PERIOD * NANOSECONDS), torque, new_step=False))
        return bool(torque.any())

    def _ramp_to_zero(self) -> None:
        if not self._active:
            return
        self._active = False
        self._ramp_timer.cancel()
        while self._ramp():
            time.sleep(RAMP_PERIOD)

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        changed = {parameter.name: parameter.value for parameter in parameters if parameter.name in SETTINGS}
        if changed and self._controller is not None:
            self._controller.apply(replace(self._controller.settings, **changed))
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        assert self._controller is not None
        counts = Counter(self._counts)
        counts.update({f"rejected: {reason}": count for reason, count in self._reader.rejections.items()})
        counts.update({f"intervention: {reason}": n for reason, n in self._controller.safety.interventions.items()})
        counts.update(self._controller.events)
        news = [name for name in counts if counts[name] > self._reported[name]]
        self._reported = counts
        if self._stale:
            level, summary = DiagnosticStatus.ERROR, "joint states are missing: no torque"
        elif not self._active:
            level, summary = DiagnosticStatus.OK, "inactive"
        elif not self._fresh_states:
            level, summary = DiagnosticStatus.WARN, "waiting for joint states"
        elif news:
            level, summary = DiagnosticStatus.WARN, "; ".join(news)
        else:
            level, summary = DiagnosticStatus.OK, "controlling"
        times = 1e3 * np.sort(self._tick_times[: min(self._ticks, TICKS_TIMED)])
        figures: dict[str, object] = {
            "ticks": self._ticks,
            "tick time p50 (ms)": f"{np.quantile(times, 0.5):.3f}" if times.size else "",
            "tick time p99 (ms)": f"{np.quantile(times, 0.99):.3f}" if times.size else "",
            "estimated velocities": self._reader.estimated_velocities,
            **dict(sorted(counts.items())),
        }
        name = self.get_fully_qualified_name()
        message = DiagnosticArray(
            status=[
                messages.status(f"{name}: control", level, summary, figures),
                self._goal_status,
                self._model_status(),
            ]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _model_status(self) -> DiagnosticStatus:
        waiting = self._waiting_version
        figures: dict[str, object] = {
            "running": self._version.sha256,
            "parent": self._version.parent or "",
            "waiting for the next goal": waiting.sha256 if waiting else "",
            "updates taken": self._updates_taken,
            "last refusal": self._last_refusal,
        }
        summary = f"running {self._version.sha256[:12]}"
        return messages.status(f"{self.get_fully_qualified_name()}: model", DiagnosticStatus.OK, summary, figures)


def _control(stop: StopRequest) -> int:
    """The node's life as a process: start, tick until asked to stop, ramp down."""
    node = ControllerNode()
    executor = create_executor()
    executor.add_node(node)
    try:
        if value_of(node, "autostart"):
            for transition in (node.trigger_configure, node.trigger_activate):
                if transition() != TransitionCallbackReturn.SUCCESS:
                    return FAILED
        while not stop:
            executor.spin_once(timeout_sec=0.1)
        return 0
    finally:
        node.finish()
        executor.shutdown()
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    """Run the controller node until Ctrl-C or SIGTERM."""
    return run_process(_control, args)


if __name__ == "__main__":
    sys.exit(main())
