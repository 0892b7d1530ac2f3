"""The controller between configure and cleanup: topics, services and timers around a `Supervisor`."""

import gc
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from spiking_controller.control.activity import ActivityTracker
from spiking_controller.control.arm_state import ArmStateReader
from spiking_controller.control.controller import Command, Controller, ControllerSettings
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.control.state_stream import StateStream
from spiking_controller.control.supervisor import RAMP_PERIOD, FaultBegan, FaultEnded, Instant, Supervisor, Timeouts
from spiking_controller.control.update_times import UpdateTimes
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import joint_names
from spiking_controller.nodes.common.frame_prefix import frame_prefix
from spiking_controller.nodes.common.model_parameters import load_model
from spiking_controller.nodes.common.parameters import value_of
from spiking_controller.nodes.common.process import keep_from_garbage_collector
from spiking_controller.nodes.controller.goal_input import GoalInput
from spiking_controller.nodes.controller.gravity_inquiry import GravityInquiry
from spiking_controller.nodes.controller.model_updates import ModelUpdates
from spiking_controller.nodes.controller.parameters import PARAMETERS, SETTINGS
from spiking_controller.nodes.controller.report import ControllerReport
from spiking_controller.nodes.controller.rivals import Rivals
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.robots.hardware import limits_on
from spiking_controller.units import NANOSECONDS

LONGEST_WATCH_PERIOD = 0.02
"""What is not driven by joint states is looked after at least this often, s."""
GAP_PERIOD = 0.005
"""Between two looks for a gap in the joint states, s."""
LOG_PERIOD = 5.0
"""The same fault is in the log once in this time, s, however often it comes and goes."""
LAST_COMMAND_TIMEOUT = Duration(seconds=0.2)
"""How long the last command may take to arrive before the process ends."""


class ControllerSession:
    """A loaded checkpoint that drives the arm while activated, and everything that tells the graph about it."""

    def __init__(self, node: LifecycleNode, steady: Clock) -> None:
        """Load the checkpoint, check it against the arm, and join the graph; inactive.

        Args:
            node: in whose name, with the parameters of `parameters.PARAMETERS` declared.
            steady: a clock that never stands still.
        Raises:
            SpikingControllerError: the checkpoint cannot be used, or does not fit the arm or the parameters.
        """
        self._node = node
        self._steady = steady
        self._is_closed = False
        parameters = {spec.name: value_of(node, spec.name) for spec in PARAMETERS}
        torch.set_num_threads(parameters["torch_num_threads"])
        checkpoint = load_model(node)
        task = checkpoint.task
        limits = limits_on(parameters["hardware"], task.arm.limits)
        timeout, rate_limit_period = parameters["timeout"], parameters["rate_limit_period"]
        names = joint_names(node)
        reader = ArmStateReader(names, limits, timeout)
        stream = StateStream(names, limits, task.control_period, rate_limit_period)
        watch = TrackingWatch(parameters["rollback_factor"], parameters["rollback_goals"])
        self._update_times = UpdateTimes()
        self._reported: Counter[str] = Counter()
        self._warned = ""
        self._logged: dict[str, float] = {}
        self._goal_published_of = 0

        base_frame = frame_prefix(node) + task.arm.base_frame
        self._report = ControllerReport(node, task.arm.name, base_frame, names, task.controlled_joints)
        self._goals = GoalInput(
            node, task, self._take_goal, self._publish_diagnostics, lambda: self._supervisor.latest_time
        )
        self._gravity = GravityInquiry(
            node, "joint_states", parameters["gravity_compensation"], task.gravity_convention
        )
        self._rivals = Rivals(node, "joint_states", "effort_controller/commands")
        self._updates = ModelUpdates(node, checkpoint, watch)
        safety = SafetyFilter(limits, task.soft_limit_fraction, rate_limit_period)
        settings = ControllerSettings(**{name: parameters[name] for name in SETTINGS})
        self._controller = Controller(task, self._updates.first.agent, settings, safety)
        self._controller.warm_up()
        self._updates.attach(self._controller)
        simulated = value_of(node, "use_sim_time")
        self._supervisor = Supervisor(
            self._controller,
            reader,
            stream,
            ActivityTracker(parameters["reached_distance"]),
            Timeouts(node=timeout, steady=parameters["wall_timeout"] if simulated else timeout),
        )
        self._connect(list(names), min(timeout / 5.0, LONGEST_WATCH_PERIOD), parameters["diagnostics_period"])
        self._look_for_problems()
        self._publish_status()
        keep_from_garbage_collector()
        node.get_logger().info(
            f"networks of {checkpoint.source}: task {task.name}, control period {task.control_period} s"
        )

    def _connect(self, names: list[str], watch_period: float, diagnostics_period: float) -> None:
        """Join the topics of an update, whose messages are built here once, and start the timers."""
        node, steady = self._node, self._steady
        self._command_publisher = node.create_lifecycle_publisher(
            Float64MultiArray, "effort_controller/commands", messages.COMMAND
        )
        self._torque_publisher = node.create_lifecycle_publisher(JointState, "~/torque", messages.LATEST)
        self._command_message = Float64MultiArray(data=[0.0] * len(names))
        self._torque_message = JointState(name=names)
        self._state_subscription = node.create_subscription(
            JointState, "joint_states", self._on_joint_states, messages.LATEST
        )
        self._clear_goal_service = node.create_service(Trigger, "~/clear_goal", self._on_clear_goal)
        self._watchdog = node.create_timer(watch_period, self._on_watchdog, clock=steady)
        self._gap_timer = node.create_timer(GAP_PERIOD, self._on_gap_timer, clock=steady)
        self._ramp_timer = node.create_timer(RAMP_PERIOD, self._on_ramp_timer, clock=steady)
        self._ramp_timer.cancel()
        self._diagnostics_timer = node.create_timer(diagnostics_period, self._on_diagnostics_timer, clock=steady)

    def activate(self) -> bool:
        """Start from zero torque and a soft start; whether it did. The reason why not is in the log."""
        if refused := self._supervisor.activate(self._now()):
            self._node.get_logger().error(refused.sentence)
        return refused is None

    def deactivate(self) -> None:
        """Ramp the torque to zero (87 ms at most)."""
        if not self._supervisor.is_active:
            return
        self._ramp_timer.cancel()
        self._supervisor.deactivate()
        while self._ramp():
            time.sleep(RAMP_PERIOD)
        # The process may end now; the zero must not end with it.
        self._command_publisher.wait_for_all_acked(LAST_COMMAND_TIMEOUT)
        self._tell()

    def close(self) -> None:
        """Leave the graph; deactivate first."""
        self._is_closed = True
        gc.unfreeze()
        for timer in (self._watchdog, self._gap_timer, self._ramp_timer, self._diagnostics_timer):
            self._node.destroy_timer(timer)
        self._node.destroy_subscription(self._state_subscription)
        self._node.destroy_service(self._clear_goal_service)
        self._updates.close()
        self._gravity.close()
        self._goals.close()
        self._report.close()
        for publisher in (self._command_publisher, self._torque_publisher):
            self._node.destroy_lifecycle_publisher(publisher)

    def change_parameters(self, changed: Mapping[str, Any]) -> None:
        """Apply parameters that may change while the node runs."""
        settings = {name: value for name, value in changed.items() if name in SETTINGS}
        if settings:
            self._controller.apply(replace(self._controller.settings, **settings))
        if "reached_distance" in changed:
            self._supervisor.activity.reached_distance = changed["reached_distance"]

    def _now(self) -> Instant:
        return Instant(
            self._node.get_clock().now().nanoseconds / NANOSECONDS, self._steady.now().nanoseconds / NANOSECONDS
        )

    def _on_joint_states(self, message: JointState) -> None:
        """One update."""
        if self._is_closed:
            # The executor may hold an event of a topic that has just been left.
            return
        started = time.perf_counter()
        supervisor = self._supervisor
        stamp = messages.stamp_to_time(message.header.stamp)
        command = supervisor.receive(stamp, message.name, message.position, message.velocity)
        if command is not None and not command.repeated:
            if not command.continues:
                # The goal that was told last has a stamp of another time.
                self._goal_published_of = 0
            self._send(command)
            if command.new_step:
                self._after_step()
            self._update_times.add(time.perf_counter() - started, supervisor.stream.period)
        elif command is not None:
            self._command_publisher.publish(self._command_message)
        elif rejected := supervisor.latest_rejection:
            self._node.get_logger().warning(rejected.sentence, throttle_duration_sec=5.0)
        self._tell()

    def _send(self, command: Command) -> None:
        torque = messages.doubles(command.torque)
        self._command_message.data = torque
        self._command_publisher.publish(self._command_message)
        self._torque_message.effort = torque
        messages.set_stamp(self._torque_message.header.stamp, command.time)
        self._torque_publisher.publish(self._torque_message)

    def _after_step(self) -> None:
        """What can wait until the torque is on its way."""
        report = self._supervisor.report()
        self._report.step(report)
        if self._goal_published_of != self._controller.goal_changes:
            self._publish_goal()
        if self._controller.is_reaching:
            self._updates.step(report.time, report.tracking_error)

    def _tell(self) -> None:
        """Tell the graph and the log what has happened."""
        logger = self._node.get_logger()
        for event in self._supervisor.take_events():
            if isinstance(event, FaultBegan):
                self._look_for_problems()
                if event.has_torque:
                    self._ramp_timer.reset()
                # The logger wants a line of code for each severity.
                if event.has_torque and self._may_log(event.fault.kind):
                    logger.error(f"the torque ramps to zero: {event.fault.sentence}")
                elif self._may_log(event.fault.kind):
                    logger.warning(f"no torque: {event.fault.sentence}")
            elif isinstance(event, FaultEnded):
                self._ramp_timer.cancel()
                if self._may_log("resumed"):
                    logger.info("the reason is gone: control resumes")
            else:
                self._publish_status()

    def _may_log(self, kind: str) -> bool:
        """Whether a line of this kind is due; notes that it is written then."""
        now = self._now().steady
        is_due = now - self._logged.get(kind, -math.inf) >= LOG_PERIOD
        if is_due:
            self._logged[kind] = now
        return is_due

    def _take_goal(self, goal: NDArray[np.float64], time: int) -> None:
        if self._supervisor.set_goal(goal, time):
            self._updates.goal_changes()
        else:
            self._updates.goal_moved()
        self._publish_goal()
        self._tell()

    def _publish_goal(self) -> None:
        goal = self._controller.goal
        if goal is not None:
            self._goal_published_of = self._controller.goal_changes
            self._goals.publish(goal)

    def _on_clear_goal(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._updates.goal_changes()
        self._controller.clear_goal()
        response.success = True
        response.message = "the hand holds where it is"
        return response

    def _on_watchdog(self) -> None:
        """Look after goals, networks and questions that wait, and after joint states that stay away."""
        if self._is_closed:
            return
        self._goals.poll()
        self._updates.poll(may_swap=not (self._supervisor.is_active and self._controller.is_reaching))
        self._gravity.poll()
        self._supervisor.outside_problem("gravity", self._gravity.problem, is_misfit=True)
        self._supervisor.check_silence(self._now())
        self._tell()

    def _on_ramp_timer(self) -> None:
        if self._is_closed:
            return
        goes_on = self._ramp() if self._supervisor.fault else self._bridge()
        if not goes_on:
            self._ramp_timer.cancel()

    def _on_gap_timer(self) -> None:
        if not self._is_closed and self._bridge():
            self._ramp_timer.reset()

    def _bridge(self) -> bool:
        """Send a torque where joint states have a gap; whether they have."""
        command = self._supervisor.bridge(self._now().node)
        if command is not None:
            self._send(command)
        return command is not None

    def _ramp(self) -> bool:
        """Send the next torque on the way to zero; whether it has still a way to go."""
        self._send(self._supervisor.ramp(self._now().node))
        return self._supervisor.is_ramping

    def _look_for_problems(self) -> None:
        """Look at who takes part in the graph."""
        supervisor = self._supervisor
        supervisor.outside_problem("rivals", self._rivals.problem(supervisor.states_conflict))
        self._gravity.look()
        supervisor.outside_problem("gravity", self._gravity.problem, is_misfit=True)

    def _publish_status(self) -> None:
        goal = self._controller.goal if self._controller.is_reaching else None
        self._report.status(self._supervisor.activity.now, goal)

    def _on_diagnostics_timer(self) -> None:
        if self._is_closed:
            return
        self._look_for_problems()
        warning = self._supervisor.check.contradiction or self._supervisor.stream.warning
        if warning != self._warned:
            self._warned = warning
            if warning:
                self._node.get_logger().warning(warning)
        self._publish_status()
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        self._report.diagnostics(self._control_status(), self._goals.status, self._updates.status())

    def _control_status(self) -> DiagnosticStatus:
        supervisor, controller = self._supervisor, self._controller
        counts = supervisor.counts + self._goals.counts + self._updates.counts + controller.events
        counts += controller.observer.events
        counts.update({f"rejected: {reason}": count for reason, count in supervisor.reader.rejections.items()})
        counts.update({f"intervention: {reason}": n for reason, n in controller.safety.interventions.items()})
        news = [name for name in counts if counts[name] > self._reported[name]]
        self._reported = counts
        if not supervisor.is_active:
            level, summary = DiagnosticStatus.OK, "inactive"
        elif not supervisor.fresh_states:
            rejected = supervisor.latest_rejection
            level, summary = DiagnosticStatus.WARN, rejected.sentence if rejected else "waiting for joint states"
        elif supervisor.fault:
            level, summary = DiagnosticStatus.ERROR, f"no torque: {supervisor.fault.sentence}"
        elif news:
            level, summary = DiagnosticStatus.WARN, "; ".join(news)
        elif warning := supervisor.check.contradiction or supervisor.stream.warning:
            level, summary = DiagnosticStatus.WARN, warning
        else:
            level, summary = DiagnosticStatus.OK, "controlling"
        times = self._update_times
        metrics: dict[str, object] = {
            "ticks": times.count,
            "tick time p50 (ms)": _milliseconds(times.quantile(0.5)),
            "tick time p99 (ms)": _milliseconds(times.quantile(0.99)),
            "tick time max (ms)": _milliseconds(times.quantile(1.0)),
            "overruns": times.overruns,
            "late states": supervisor.stream.late,
            "joint state period (ms)": _milliseconds(supervisor.stream.period),
            "gravity compensation": self._gravity.summary,
            "estimated velocities": supervisor.reader.estimated_velocities,
            "contradicted velocities": supervisor.check.contradictions,
            "outliers": supervisor.check.outliers,
            **dict(sorted(counts.items())),
        }
        return messages.status(f"{self._node.get_fully_qualified_name()}: control", level, summary, metrics)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3f}"
