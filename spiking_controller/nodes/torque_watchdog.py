"""The torque watchdog: a process between the controller and the arm, so that a dead controller leaves no torque.

It passes `effort_controller/unchecked_commands` on as `effort_controller/commands`, at once and bit-equal, as long as
they are legal; what is decided is in `control/torque_watch.py`.
"""

import sys
import time
from array import array

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray

from spiking_controller.control.supervisor import FaultBegan, Instant, Timeouts
from spiking_controller.control.torque_watch import TorqueWatch
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import ARM
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, executed, keep_from_garbage_collector, run_process
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.hardware import AS_TRAINED, limits_on
from spiking_controller.units import NANOSECONDS

COMMANDS = "effort_controller/commands"
UNCHECKED_COMMANDS = "effort_controller/unchecked_commands"
EVERY_COMMAND = QoSProfile(depth=100)
"""A command that is left out makes the next one look like a jump."""
LONGEST_LOOK_PERIOD = 0.01
"""Silence is looked for at least this often, s."""
LAST_COMMAND_TIMEOUT = Duration(seconds=1.0)
"""How long the last command may take to arrive before the process ends."""
LOG_PERIOD = 0.2
"""Between two lines about faults, s, however many there are."""

PARAMETERS = [
    ARM,
    ParameterSpec(
        "hardware",
        AS_TRAINED,
        "The real arm, by name or file, where its torque limits differ from those of training: the stricter are kept.",
    ),
    ParameterSpec(
        "command_timeout",
        0.1,
        "Commands that stay away longer ramp the torque to zero, s (of the node's clock).",
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
        "rate_limit_period",
        0.002,
        "As the controller's: the torque changes by at most what the rate limit allows in this time, s.",
        0.0005,
        0.1,
    ),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]


class TorqueWatchdog(Node):
    """Passes legal commands on and ramps to zero torque otherwise; `run` is its life."""

    def __init__(self, executor: Executor) -> None:
        """Join the topics.

        Args:
            executor: runs the callbacks.
        Raises:
            SpikingControllerError: a parameter has a wrong value, or the hardware is not such an arm.
        """
        super().__init__("torque_watchdog")
        declare_parameters(self, PARAMETERS)
        self._executor = executor
        limits = limits_on(value_of(self, "hardware"), get_arm(value_of(self, "arm")).limits)
        timeout, self._period = value_of(self, "command_timeout"), value_of(self, "rate_limit_period")
        wall_timeout = value_of(self, "wall_timeout") if value_of(self, "use_sim_time") else timeout
        self._watch = TorqueWatch(limits, self._period, Timeouts(node=timeout, steady=wall_timeout))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._message = Float64MultiArray()
        self._news = ""
        self._publisher = self.create_publisher(Float64MultiArray, COMMANDS, messages.COMMAND)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self._subscription = self.create_subscription(
            Float64MultiArray, UNCHECKED_COMMANDS, self._on_command, EVERY_COMMAND
        )
        self._ramp_timer = self.create_timer(self._period, self._on_ramp_timer, clock=steady)
        self._ramp_timer.cancel()
        self.create_timer(min(timeout / 10.0, LONGEST_LOOK_PERIOD), self._on_look_timer, clock=steady)
        self.create_timer(value_of(self, "diagnostics_period"), self._publish_diagnostics, clock=steady)

    def run(self, stop: StopRequest) -> None:
        """Watch until asked to stop, then ramp the torque to zero."""
        keep_from_garbage_collector()
        while not stop:
            self._executor.spin_once(timeout_sec=0.1)
        self._ramp_timer.cancel()
        while any(self._watch.torque):
            self._send_ramp()
            time.sleep(self._period)
        # The process ends now; the zero must not end with it.
        self._publisher.wait_for_all_acked(LAST_COMMAND_TIMEOUT)

    def _on_command(self, message: Float64MultiArray) -> None:
        torque = self._watch.receive(message.data, time.monotonic())
        if torque is not None:
            message.data = array("d", torque)
            self._publisher.publish(message)
        self._tell()

    def _on_look_timer(self) -> None:
        self._watch.check_silence(Instant(self.get_clock().now().nanoseconds / NANOSECONDS, time.monotonic()))
        self._tell()

    def _on_ramp_timer(self) -> None:
        self._send_ramp()
        if not any(self._watch.torque):
            self._ramp_timer.cancel()

    def _send_ramp(self) -> None:
        self._message.data = array("d", self._watch.ramp())
        self._publisher.publish(self._message)

    def _tell(self) -> None:
        """Start a ramp, and tell the log, where something has happened."""
        logger = self.get_logger()
        for event in self._watch.take_events():
            if not isinstance(event, FaultBegan):
                logger.info("commands are legal again: the torque follows them", throttle_duration_sec=LOG_PERIOD)
                continue
            self._news = event.fault.sentence
            if event.has_torque:
                self._ramp_timer.reset()
                logger.error(f"the torque ramps to zero: {event.fault.sentence}", throttle_duration_sec=LOG_PERIOD)
            else:
                logger.warning(f"no torque: {event.fault.sentence}", throttle_duration_sec=LOG_PERIOD)

    def _publish_diagnostics(self) -> None:
        watch = self._watch
        if watch.fault:
            level, summary = DiagnosticStatus.ERROR, f"no torque: {watch.fault.sentence}"
        elif self._news:
            level, summary = DiagnosticStatus.WARN, f"there was no torque for a while: {self._news}"
        elif watch.is_quiet:
            level, summary = DiagnosticStatus.OK, "no commands: no torque"
        else:
            level, summary = DiagnosticStatus.OK, "passing commands on"
        self._news = ""
        name = f"{self.get_fully_qualified_name()}: commands"
        message = DiagnosticArray(status=[messages.status(name, level, summary, dict(sorted(watch.counts.items())))])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def _watch(stop: StopRequest) -> int:
    """The node's life as a process."""
    with executed(TorqueWatchdog) as (node, _):
        node.run(stop)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the torque watchdog until Ctrl-C or SIGTERM."""
    return run_process(_watch, args)


if __name__ == "__main__":
    sys.exit(main())
