"""The controller node: joint states in, torques out, as a managed node.

It ticks on each joint state, by the message's stamp, so that real time, simulated time, bags and lock-step give the
same torques. What a tick does is in `control/`; this module only connects it to the graph.
"""

import gc
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from spiking_controller.control.activity import ActivityTracker
from spiking_controller.control.arm_state import ArmStateReader, Rejection
from spiking_controller.control.controller import Command, Controller, ControllerSettings
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.control.state_stream import StateStream
from spiking_controller.control.tick_times import TickTimes
from spiking_controller.errors import SpikingControllerError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.model_parameters import joint_names, load_model
from spiking_controller.nodes.common.parameters import declare_parameters, follow_changes, value_of
from spiking_controller.nodes.common.process import (
    FAILED,
    StopRequest,
    create_executor,
    keep_from_garbage_collector,
    run_process,
)
from spiking_controller.nodes.controller.goal_input import GoalInput
from spiking_controller.nodes.controller.gravity_inquiry import GravityInquiry
from spiking_controller.nodes.controller.model_updates import ModelUpdates
from spiking_controller.nodes.controller.parameters import PARAMETERS, SETTINGS
from spiking_controller.nodes.controller.report import ControllerReport
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.robots.hardware import limits_on
from spiking_controller.units import NANOSECONDS

RAMP_PERIOD = 0.002
"""Between two torques on the way to zero, s; the rate limit is kept at this period."""
REPEATS_BEFORE_ANSWER = 2
"""A joint state that is repeated so many times after our torque went out shows that the torque was lost. The first
repetition may have crossed with it, and a second answer would then be taken for that to the next state."""
LONGEST_WATCH_PERIOD = 0.02
"""What is not driven by joint states is looked after at least this often, s."""
LAST_COMMAND_TIMEOUT = Duration(seconds=0.2)
"""How long the last command may take to arrive before the process ends."""


class ControllerNode(LifecycleNode):
    """Drives the arm while active.

    configure  loads the checkpoint and checks it against the arm; fails with a sentence in the log
    activate   holds the hand where it is, or goes to the last goal, after a soft start; fails with a sentence where the
               running graph has shown that it does not fit the checkpoint
    deactivate ramps the torque to zero at the rate limit; so does shutdown from active

    What the graph shows later than that, and what goes wrong in it, is a *fault*: the torque ramps to zero, the reason
    is on `~/status`, and control resumes with a soft start when the reason is gone.
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
        follow_changes(self, PARAMETERS, self._on_parameters)

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
        """Start from zero torque and a soft start; FAILURE with the reason where the graph does not fit."""
        assert self._controller is not None
        if problem := self._misfit or self._problem:
            self.get_logger().error(problem)
            return TransitionCallbackReturn.FAILURE
        self._controller.restart()
        self._reader.forget()
        self._stream.forget()
        self._fault = ""
        self._fresh_states = self._seen_states = 0
        self._seen_at = self.get_clock().now(), self._steady.now()
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ramp the torque to zero (87 ms at most); SUCCESS."""
        self._ramp_to_zero()
        self._fault = ""
        if self._activity.idle(self._sent_time):
            self._publish_status()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the topics and forget the networks and the goal; SUCCESS."""
        self._disconnect()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ramp the torque to zero if active, leave the topics; SUCCESS."""
        self.finish()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, without torque; SUCCESS."""
        self.finish()
        return TransitionCallbackReturn.SUCCESS

    def finish(self) -> None:
        """Ramp the torque to zero and leave the topics, whatever the state; also for the end of the process."""
        self._ramp_to_zero()
        self._disconnect()

    def _configure(self) -> None:
        torch.set_num_threads(value_of(self, "torch_num_threads"))
        checkpoint = load_model(self)
        self._task = task = checkpoint.task
        limits, timeout = limits_on(value_of(self, "hardware"), task.arm.limits), value_of(self, "timeout")
        rate_limit_period = value_of(self, "rate_limit_period")
        names = joint_names(self)
        self._reader = ArmStateReader(names, limits, timeout)
        self._stream = StateStream(names, limits, task.control_period, rate_limit_period)
        self._activity = ActivityTracker(value_of(self, "reached_distance"))
        watch = TrackingWatch(value_of(self, "rollback_factor"), value_of(self, "rollback_goals"))
        self._tick_times = TickTimes()
        self._counts = Counter()
        self._reported: Counter[str] = Counter()
        self._misfit = self._fault = self._warned = ""
        self._fresh_states = self._seen_states = 0
        self._sent_time = self._repeats = 0
        self._goal_published_of = 0

        self._report = ControllerReport(self, task.arm_name, names[: task.controlled_joints])
        self._goals = GoalInput(self, task, self._take_goal, self._publish_diagnostics)
        self._gravity = GravityInquiry(
            self, "joint_states", value_of(self, "gravity_compensation"), task.gravity_convention
        )
        self._updates = ModelUpdates(self, checkpoint, watch)
        safety = SafetyFilter(limits, task.soft_limit_fraction, rate_limit_period)
        settings = ControllerSettings(**{name: value_of(self, name) for name in SETTINGS})
        self._controller = Controller(task, self._updates.first.agent, settings, safety)
        self._controller.rehearse()
        self._updates.attach(self._controller)
        self._connect(list(names))
        self._gravity.look()
        self._publish_status()
        keep_from_garbage_collector()
        self.get_logger().info(
            f"networks of {checkpoint.source}: task {task.name}, control period {task.control_period} s"
        )

    def _connect(self, names: list[str]) -> None:
        """Join the topics of a tick, built here once, and start the timers."""
        self._command_publisher = self.create_lifecycle_publisher(
            Float64MultiArray, "effort_controller/commands", messages.COMMAND
        )
        self._torque_publisher = self.create_lifecycle_publisher(JointState, "~/torque", messages.LATEST)
        self._command_message = Float64MultiArray(data=[0.0] * len(names))
        self._torque_message = JointState(name=names)
        self._state_subscription = self.create_subscription(
            JointState, "joint_states", self._on_joint_states, messages.LATEST
        )
        self._clear_goal_service = self.create_service(Trigger, "~/clear_goal", self._on_clear_goal)
        watch_period = min(value_of(self, "timeout") / 5.0, LONGEST_WATCH_PERIOD)
        self._watchdog = self.create_timer(watch_period, self._on_watchdog, clock=self._steady)
        self._ramp_timer = self.create_timer(RAMP_PERIOD, self._on_ramp_timer, clock=self._steady)
        self._ramp_timer.cancel()
        self._diagnostics_timer = self.create_timer(
            value_of(self, "diagnostics_period"), self._on_diagnostics_timer, clock=self._steady
        )

    def _disconnect(self) -> None:
        if self._controller is None:
            return
        self._controller = None
        gc.unfreeze()
        for timer in (self._watchdog, self._ramp_timer, self._diagnostics_timer):
            self.destroy_timer(timer)
        self.destroy_subscription(self._state_subscription)
        self.destroy_service(self._clear_goal_service)
        self._updates.close()
        self._gravity.close()
        self._goals.close()
        self._report.close()
        for publisher in (self._command_publisher, self._torque_publisher):
            self.destroy_lifecycle_publisher(publisher)

    @property
    def _problem(self) -> str:
        """Why the arm must not be driven in this graph, one sentence; empty if it may."""
        return self._stream.problem or self._gravity.problem

    def _on_joint_states(self, message: JointState) -> None:
        """One tick."""
        if self._controller is None:
            return
        started = time.perf_counter()
        stamp = messages.stamp_to_time(message.header.stamp)
        sample = self._reader.read(stamp, message.name, message.position, message.velocity)
        if isinstance(sample, Rejection):
            self._on_rejection(sample)
            return
        self._misfit = ""
        self._stream.add(sample)
        self._fresh_states += 1
        if not self._active:
            return
        if problem := self._problem:
            self._stop_for(problem)
            return
        if self._fault:
            self._resume()
        if not sample.continues:
            # The goal that was told last has a stamp of another time.
            self._goal_published_of = 0
        command = self._controller.tick(sample)
        self._send(command)
        if command.new_step:
            self._after_step()
        self._tick_times.add(time.perf_counter() - started, self._stream.period)

    def _on_rejection(self, rejection: Rejection) -> None:
        if rejection.reason == "repeated stamp":
            # A bridge in lock-step repeats its state when our answer, or the state, was lost. If that goes on until the
            # torque is at zero, that is the answer: without one, either would wait for the other for ever.
            self._repeats += 1
            if self._active and not self._problem and self._repeats >= REPEATS_BEFORE_ANSWER:
                self._command_publisher.publish(self._command_message)
                self._repeats = 0
        elif rejection.reason != "old stamp":
            self._misfit = rejection.sentence
            self.get_logger().warning(rejection.sentence, throttle_duration_sec=5.0)

    def _send(self, command: Command) -> None:
        torque = messages.doubles(command.torque)
        self._command_message.data = torque
        self._command_publisher.publish(self._command_message)
        self._sent_time, self._repeats = command.time, 0
        self._torque_message.effort = torque
        messages.set_stamp(self._torque_message.header.stamp, command.time)
        self._torque_publisher.publish(self._torque_message)

    def _after_step(self) -> None:
        """What can wait until the torque is on its way."""
        assert self._controller is not None
        report = self._controller.report()
        self._report.step(report)
        if self._goal_published_of != self._controller.goal_changes:
            self._publish_goal()
        if self._controller.is_reaching:
            self._updates.step(report.time, report.tracking_error)
            is_news = self._activity.step(report.time, report.tracking_error)
        else:
            is_news = self._activity.idle(report.time)
        if is_news:
            self._publish_status()

    def _take_goal(self, goal: NDArray[np.float64]) -> None:
        assert self._controller is not None
        self._updates.goal_changes()
        self._controller.set_goal(goal)
        self._publish_goal()
        if self._active and not self._fault and self._activity.new_goal(self._sent_time):
            self._publish_status()

    def _publish_goal(self) -> None:
        assert self._controller is not None
        goal = self._controller.goal
        if goal is not None:
            self._goal_published_of = self._controller.goal_changes
            self._goals.publish(goal)

    def _on_clear_goal(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._controller is not None
        self._updates.goal_changes()
        self._controller.clear_goal()
        response.success = True
        response.message = "the hand holds where it is"
        return response

    def _on_watchdog(self) -> None:
        """Look after goals, networks and questions that wait; ramp down when usable joint states stay away."""
        if self._controller is None:
            # The executor may hold an event of a timer or topic that has just been left.
            return
        self._goals.poll()
        self._updates.poll(may_swap=not (self._active and self._controller.is_reaching))
        self._gravity.poll()
        if not self._active:
            return
        if self._fresh_states != self._seen_states:
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
            if self._fresh_states:
                self._counts["stale joint states"] += not self._fault
                self._stop_for(self._misfit or "no usable joint state comes; is the driver running?")
            else:
                self._stop_for(self._misfit or "waiting for the first joint state.")

    def _stop_for(self, reason: str) -> None:
        """Ramp the torque to zero and leave it there, for a reason that lasts."""
        assert self._controller is not None
        if reason == self._fault:
            return
        self._fault = reason
        if self._controller.safety.torque.any():
            self._ramp_timer.reset()
            self.get_logger().error(f"the torque ramps to zero: {reason}")
        else:
            self.get_logger().warning(f"no torque: {reason}")
        if self._activity.fault(self._sent_time, reason):
            self._publish_status()

    def _resume(self) -> None:
        assert self._controller is not None
        self._fault = ""
        self._ramp_timer.cancel()
        self._controller.restart()
        self.get_logger().info("the reason is gone: control resumes")

    def _on_ramp_timer(self) -> None:
        if self._controller is not None and not self._ramp():
            self._ramp_timer.cancel()

    def _ramp(self) -> bool:
        """Send the next torque on the way to zero; whether it has still a way to go."""
        assert self._controller is not None
        torque = self._controller.safety.ramp_down(RAMP_PERIOD)
        self._send(Command(self._sent_time + round(RAMP_PERIOD * NANOSECONDS), torque, new_step=False))
        return bool(torque.any())

    def _ramp_to_zero(self) -> None:
        if not self._active:
            return
        self._active = False
        self._ramp_timer.cancel()
        while self._ramp():
            time.sleep(RAMP_PERIOD)
        # The process may end now; the zero must not end with it.
        self._command_publisher.wait_for_all_acked(LAST_COMMAND_TIMEOUT)

    def _on_parameters(self, changed: Mapping[str, Any]) -> None:
        if self._controller is None:
            return
        settings = {name: value for name, value in changed.items() if name in SETTINGS}
        if settings:
            self._controller.apply(replace(self._controller.settings, **settings))
        if "reached_distance" in changed:
            self._activity.reached_distance = changed["reached_distance"]

    def _publish_status(self) -> None:
        assert self._controller is not None
        goal = self._controller.goal if self._controller.is_reaching else None
        self._report.status(self._activity.now, goal)

    def _on_diagnostics_timer(self) -> None:
        if self._controller is None:
            return
        self._gravity.look()
        if self._stream.warning != self._warned:
            self._warned = self._stream.warning
            if self._warned:
                self.get_logger().warning(self._warned)
        self._publish_status()
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        self._report.diagnostics(self._control_status(), self._goals.status, self._updates.status())

    def _control_status(self) -> DiagnosticStatus:
        assert self._controller is not None
        counts = self._counts + self._goals.counts + self._updates.counts + self._controller.events
        counts.update({f"rejected: {reason}": count for reason, count in self._reader.rejections.items()})
        counts.update({f"intervention: {reason}": n for reason, n in self._controller.safety.interventions.items()})
        news = [name for name in counts if counts[name] > self._reported[name]]
        self._reported = counts
        if not self._active:
            level, summary = DiagnosticStatus.OK, "inactive"
        elif not self._fresh_states:
            level, summary = DiagnosticStatus.WARN, self._misfit or "waiting for joint states"
        elif self._fault:
            level, summary = DiagnosticStatus.ERROR, f"no torque: {self._fault}"
        elif news:
            level, summary = DiagnosticStatus.WARN, "; ".join(news)
        elif self._stream.warning:
            level, summary = DiagnosticStatus.WARN, self._stream.warning
        else:
            level, summary = DiagnosticStatus.OK, "controlling"
        figures: dict[str, object] = {
            "ticks": self._tick_times.count,
            "tick time p50 (ms)": _milliseconds(self._tick_times.quantile(0.5)),
            "tick time p99 (ms)": _milliseconds(self._tick_times.quantile(0.99)),
            "tick time max (ms)": _milliseconds(self._tick_times.quantile(1.0)),
            "overruns": self._tick_times.overruns,
            "late states": self._stream.late,
            "joint state period (ms)": _milliseconds(self._stream.period),
            "gravity compensation": self._gravity.summary,
            "estimated velocities": self._reader.estimated_velocities,
            **dict(sorted(counts.items())),
        }
        return messages.status(f"{self.get_fully_qualified_name()}: control", level, summary, figures)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3f}"


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
