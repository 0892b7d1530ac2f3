"""The bridge node: a simulated arm that looks to the graph like a real one with a torque interface.

Torques that arrive while a period passes act from its end on, as on a real arm and in training: the answer to a joint
state takes effect one period later, in real time and in lock-step alike.
"""

import os
import sys
import time
from collections import Counter

import mujoco.viewer
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from spiking_controller.errors import ConfigError
from spiking_controller.nodes import messages
from spiking_controller.nodes.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.process import StopRequest, create_executor, run_process
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.simulation import ArmSimulation

REPEAT_PERIOD = 0.05
"""In lock-step, a joint state that nobody has answered is sent again after this time, s."""
LONGEST_WAIT = 0.1
"""The loop looks at least this often whether it shall stop, s."""
LONGEST_CATCH_UP = 0.05
"""A delay behind real time beyond this is not made up for, s."""
VIEWER_PERIOD = 1.0 / 30.0

PARAMETERS = [
    ParameterSpec("arm", "panda", "The arm that is simulated.", choices=("panda", "planar_arm")),
    ParameterSpec("state_rate", 500.0, "Joint states per simulated second, Hz.", 10.0, 2000.0),
    ParameterSpec(
        "real_time_factor",
        1.0,
        "Simulated seconds per second; 0 in lock-step: as fast as the commands come.",
        0.0,
        100.0,
    ),
    ParameterSpec("lock_step", False, "Wait for one command per joint state, for the same result in every run."),
    ParameterSpec(
        "lock_step_timeout",
        1.0,
        "In lock-step: a commander that stays silent longer is gone, s (wall clock); the arm goes on without torque.",
        0.1,
        600.0,
    ),
    ParameterSpec(
        "command_timeout", 0.1, "Torque drops to zero when no command comes for this simulated time, s.", 0.002, 10.0
    ),
    ParameterSpec("gravity_compensation", True, "The arm carries its own weight, as the real one does."),
    ParameterSpec("hand_pose_rate", 50.0, "Hand poses per simulated second, Hz.", 1.0, 2000.0),
    ParameterSpec("clock_rate", 100.0, "Clock messages per simulated second, Hz.", 10.0, 2000.0),
    ParameterSpec("headless", True, "Without a window; there is none either where no display is found."),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]


class MujocoBridge(Node):
    """Simulates one arm in real time or in lock-step; `run` is its life."""

    def __init__(self, executor: Executor) -> None:
        """Load the arm and join the topics.

        Args:
            executor: runs the callbacks, in the same thread as the physics.
        Raises:
            ConfigError: a parameter has a wrong value.
        """
        super().__init__("mujoco_bridge")
        declare_parameters(self, PARAMETERS)
        self._executor = executor
        self._lock_step = bool(value_of(self, "lock_step"))
        factor = value_of(self, "real_time_factor")
        if factor == 0.0 and not self._lock_step:
            raise ConfigError(
                "parameter real_time_factor of mujoco_bridge is 0.0, which needs lock_step; give a number above 0."
            )
        rate = value_of(self, "state_rate")
        self._period = round(messages.NANOSECONDS / rate)
        self._simulation = ArmSimulation(
            get_arm(value_of(self, "arm")), self._period / messages.NANOSECONDS, value_of(self, "gravity_compensation")
        )
        arm = self._simulation.arm
        self._wall_period = 1.0 / rate / factor if factor else 0.0
        self._hand_every = max(1, round(rate / value_of(self, "hand_pose_rate")))
        self._clock_every = max(1, round(rate / value_of(self, "clock_rate")))
        self._command_timeout = round(value_of(self, "command_timeout") * messages.NANOSECONDS)
        self._lock_step_timeout = value_of(self, "lock_step_timeout")

        # Commands: the last one, the one that acts in the present period, when it came (simulated ns).
        self._no_torque: NDArray[np.float64] = np.zeros(len(arm.joint_names))
        self._torque = self._latched = self._no_torque
        self._commanded_at: int | None = None
        # Lock-step: whether the last state was answered, whether the commander is gone, since when we wait (s).
        self._answered = False
        self._silent = False
        self._waiting_since = 0.0
        self._published_at = 0.0

        self._paused = False
        self._states = 0
        self._due = 0.0
        self._slipped = 0.0
        self._counts: Counter[str] = Counter()

        self._state_publisher = self.create_publisher(JointState, "joint_states", messages.STATE_PUBLISHER)
        self._clock_publisher = self.create_publisher(ClockMessage, "clock", messages.LATEST)
        self._hand_publisher = self.create_publisher(PoseStamped, "hand_pose", messages.LATEST)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self._state_message = JointState(name=list(arm.joint_names))
        self._clock_message = ClockMessage()
        self._hand_message = PoseStamped()
        self._hand_message.header.frame_id = arm.base_frame
        self.create_subscription(Float64MultiArray, "effort_controller/commands", self._on_command, messages.COMMAND)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/pause", self._on_pause)
        self.create_service(Trigger, "~/step", self._on_step)
        self._diagnostics_at = time.perf_counter(), 0
        self.create_timer(
            value_of(self, "diagnostics_period"),
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._viewer = self._open_viewer()
        self._viewer_synced = 0.0

    def run(self, stop: StopRequest) -> None:
        """Simulate until asked to stop, one period after the other."""
        self._due = time.perf_counter()
        self._publish_state()
        while not stop:
            now = time.perf_counter()
            if self._is_due(now):
                self._advance()
                now = time.perf_counter()
                self._due = self._next_due(now)
            self._sync_viewer(now)
            self._executor.spin_once(timeout_sec=min(max(self._next_look(now) - now, 0.0), LONGEST_WAIT))
        if self._viewer is not None:
            self._viewer.close()

    def _is_due(self, now: float) -> bool:
        """Whether the next period starts now. In lock-step, an unanswered state is sent again meanwhile."""
        if self._paused or now < self._due:
            return False
        if not self._lock_step or self._answered or self._silent:
            return True
        if now - self._published_at > REPEAT_PERIOD:
            self._published_at = now
            self._state_publisher.publish(self._state_message)
        if self._commanded_at is not None and now - self._waiting_since > self._lock_step_timeout:
            self._silent = True
            self._torque = self._latched = self._no_torque
            self._counts["silent commander"] += 1
            self.get_logger().warning(
                f"no command for {self._lock_step_timeout} s: the arm goes on without torque, in real time"
            )
            self._due = now
        return self._silent

    def _next_due(self, now: float) -> float:
        """When the period after the one that has just begun is due.

        A small delay is caught up at twice the speed at most: in a quicker burst, whoever is subscribed would lose all
        but the last state. A long one is given up: simulated time slips.
        """
        period = self._wall_period
        if self._silent:
            # Without a commander, "as fast as the commands come" has no meaning.
            period = period or self._period / messages.NANOSECONDS
        due = self._due + period
        if now - due > LONGEST_CATCH_UP:
            if not self._lock_step:
                self._slipped += now - due
            return now
        return max(due, now + 0.5 * period)

    def _next_look(self, now: float) -> float:
        """When the loop has to act at the latest if no message comes."""
        if self._paused:
            return now + LONGEST_WAIT
        if self._lock_step and not self._answered and not self._silent:
            return max(self._due, self._published_at + REPEAT_PERIOD)
        return self._due

    def _advance(self) -> None:
        """Let one period pass, under the torque that had arrived when it began, and publish the new state."""
        self._simulation.advance(self._latched)
        self._states += 1
        if (
            not self._lock_step
            and self._commanded_at is not None
            and self._simulation.time - self._commanded_at > self._command_timeout
        ):
            self._commanded_at = None
            self._torque = self._no_torque
            self._counts["silent commander"] += 1
            self.get_logger().warning("commands stay away: torque is zero until they return")
        self._latched = self._torque
        self._publish_state()

    def _forget_commands(self) -> None:
        self._torque = self._latched = self._no_torque
        self._commanded_at = None
        self._answered = False
        self._silent = False

    def _publish_state(self) -> None:
        simulation = self._simulation
        message = self._state_message
        messages.set_stamp(message.header.stamp, simulation.time)
        message.position = messages.doubles(simulation.joint_position)
        message.velocity = messages.doubles(simulation.joint_velocity)
        message.effort = messages.doubles(simulation.joint_effort)
        self._answered = False
        if self._states % self._clock_every == 0:
            messages.set_stamp(self._clock_message.clock, simulation.time)
            self._clock_publisher.publish(self._clock_message)
        self._state_publisher.publish(message)
        self._published_at = self._waiting_since = time.perf_counter()
        if self._states % self._hand_every == 0:
            self._publish_hand_pose()

    def _publish_hand_pose(self) -> None:
        hand = self._simulation.hand_pose
        message = self._hand_message
        messages.set_stamp(message.header.stamp, self._simulation.time)
        position, orientation = message.pose.position, message.pose.orientation
        position.x, position.y, position.z = hand.position.tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = hand.orientation.tolist()
        self._hand_publisher.publish(message)

    def _on_command(self, message: Float64MultiArray) -> None:
        """Take a torque, or refuse it and keep the last one."""
        torque = np.array(message.data, dtype=np.float64)
        if torque.shape != self._no_torque.shape or not np.isfinite(torque).all():
            self._counts["refused command"] += 1
            self.get_logger().warning(
                f"refused the command {torque.tolist()}: give {self._no_torque.size} finite torques",
                throttle_duration_sec=5.0,
            )
            return
        if self._silent:
            self._silent = False
            self.get_logger().info("commands are back: lock-step resumes")
        self._torque = torque
        self._commanded_at = self._simulation.time
        self._answered = True

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._simulation.reset()
        self._states = 0
        self._forget_commands()
        self._due = time.perf_counter()
        self._publish_state()
        response.success = True
        response.message = "the arm is at home, at time zero"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        self._due = self._waiting_since = time.perf_counter()
        response.success = True
        response.message = "paused" if request.data else "running"
        return response

    def _on_step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._paused
        if self._paused:
            self._advance()
            response.message = f"time is {self._simulation.time / messages.NANOSECONDS:.4f} s"
        else:
            response.message = "the simulation is running; pause it first"
        return response

    def _publish_diagnostics(self) -> None:
        wall, simulated = time.perf_counter(), self._simulation.time
        wall_before, simulated_before = self._diagnostics_at
        self._diagnostics_at = wall, simulated
        factor = max(simulated - simulated_before, 0) / messages.NANOSECONDS / (wall - wall_before)
        without_commands = self._silent or (self._commanded_at is None)
        if self._paused:
            summary = "paused"
        elif without_commands:
            summary = "no commands: no torque"
        else:
            summary = "lock-step" if self._lock_step else "real time"
        figures: dict[str, object] = {
            "real time factor": f"{factor:.3f}",
            "simulated time (s)": simulated / messages.NANOSECONDS,
            "time slipped (s)": f"{self._slipped:.3f}",
            "explosions": self._simulation.explosions,
            **dict(sorted(self._counts.items())),
        }
        level = DiagnosticStatus.WARN if without_commands or self._paused else DiagnosticStatus.OK
        name = f"{self.get_fully_qualified_name()}: simulation"
        message = DiagnosticArray(status=[messages.status(name, level, summary, figures)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _open_viewer(self) -> "mujoco.viewer.Handle | None":
        if value_of(self, "headless"):
            return None
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            self.get_logger().warning("headless is false, but there is no display: running without a window")
            return None
        return mujoco.viewer.launch_passive(self._simulation.model, self._simulation.data)

    def _sync_viewer(self, now: float) -> None:
        """Show the present state in the window, which draws in a thread of its own."""
        if self._viewer is None or now - self._viewer_synced < VIEWER_PERIOD:
            return
        self._viewer_synced = now
        if self._viewer.is_running():
            self._viewer.sync()
        else:
            self._viewer = None
            self.get_logger().info("the window was closed: running on without it")


def _bridge(stop: StopRequest) -> int:
    """The node's life as a process."""
    executor = create_executor()
    node = MujocoBridge(executor)
    executor.add_node(node)
    try:
        node.run(stop)
        return 0
    finally:
        executor.shutdown()
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    """Run the bridge node until Ctrl-C or SIGTERM."""
    return run_process(_bridge, args)


if __name__ == "__main__":
    sys.exit(main())
