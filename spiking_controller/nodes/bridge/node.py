"""The bridge node: a simulated arm that looks to the graph like a real one with a torque interface.

Torques that arrive while a period passes act from its end on, as on a real arm and in training: the answer to a joint
state takes effect one period later, in real time and in lock-step alike.
"""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, WrenchStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from spiking_controller.errors import ConfigError
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import ARM
from spiking_controller.nodes.common.frame_prefix import FRAME_PREFIX, frame_prefix
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, follow_changes, value_of
from spiking_controller.nodes.common.process import (
    StopRequest,
    executed,
    keep_from_garbage_collector,
    run_process,
)
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.pacing import Pacer, Step
from spiking_controller.robots.simulation import ArmCondition, ArmSimulation
from spiking_controller.robots.viewer import DRAWING_PERIOD, Viewer
from spiking_controller.units import NANOSECONDS

_ONE_OR_EACH = "one number for all joints, or one for each"

PARAMETERS = [
    ARM,
    FRAME_PREFIX,
    ParameterSpec("state_rate", 500.0, "Joint states per simulated second, Hz.", 10.0, 2000.0),
    ParameterSpec(
        "real_time_factor",
        1.0,
        "Simulated seconds per second; 0 in lock-step: as fast as the commands come.",
        0.0,
        100.0,
        fixed=False,
    ),
    ParameterSpec("lock_step", False, "Wait for one command per joint state, for the same result in every run."),
    ParameterSpec(
        "lock_step_timeout",
        1.0,
        "In lock-step: a commander that stays silent longer is gone, s (wall clock); the arm goes on without torque.",
        0.1,
        600.0,
        fixed=False,
    ),
    ParameterSpec(
        "command_timeout",
        0.1,
        "Torque drops to zero when no command comes for this simulated time, s.",
        0.002,
        10.0,
        fixed=False,
    ),
    ParameterSpec("gravity_compensation", True, "The arm carries its own weight, as the real one does."),
    ParameterSpec("payload_mass", 0.0, "Mass that the hand holds at its tool point, kg.", 0.0, 20.0, fixed=False),
    ParameterSpec(
        "payload_compensated", False, "The arm's own gravity compensation knows of the payload.", fixed=False
    ),
    ParameterSpec(
        "friction_factor",
        [1.0],
        f"Times the joint friction of the arm's description; {_ONE_OR_EACH}.",
        0.0,
        100.0,
        fixed=False,
    ),
    ParameterSpec(
        "dry_friction", [0.0], f"Dry (Coulomb) joint friction on top, N·m; {_ONE_OR_EACH}.", 0.0, 50.0, fixed=False
    ),
    ParameterSpec(
        "motor_strength",
        [1.0],
        f"What a motor gives, as a share of the commanded torque; {_ONE_OR_EACH}.",
        0.0,
        2.0,
        fixed=False,
    ),
    ParameterSpec(
        "position_noise", 0.0, "Standard deviation of the noise on published angles, rad.", 0.0, 0.1, fixed=False
    ),
    ParameterSpec(
        "velocity_noise", 0.0, "Standard deviation of the noise on published velocities, rad/s.", 0.0, 1.0, fixed=False
    ),
    ParameterSpec(
        "effort_noise", 0.0, "Standard deviation of the noise on published efforts, N·m.", 0.0, 10.0, fixed=False
    ),
    ParameterSpec(
        "observation_delay",
        0.0,
        "Age of what joint states tell, s, in whole periods of state_rate; their stamps do not show it.",
        0.0,
        1.0,
        fixed=False,
    ),
    ParameterSpec("seed", 0, "Of the noise, which a reset starts anew.", 0, 2**31 - 1),
    ParameterSpec(
        "push_duration", 0.1, "How long a push acts unless another one comes, simulated s.", 0.001, 60.0, fixed=False
    ),
    ParameterSpec("hand_pose_rate", 50.0, "Hand poses per simulated second, Hz.", 1.0, 2000.0),
    ParameterSpec("clock_rate", 100.0, "Clock messages per simulated second, Hz.", 10.0, 2000.0),
    ParameterSpec("headless", True, "Without a window; there is none either where no display is found."),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]
CONDITION = tuple(field.name for field in fields(ArmCondition))
"""The parameters that make the arm's condition."""


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
        rate = value_of(self, "state_rate")
        period = round(NANOSECONDS / rate) / NANOSECONDS
        lock_step, factor = bool(value_of(self, "lock_step")), value_of(self, "real_time_factor")
        _check_factor(factor, lock_step)
        self._pacer = Pacer(period, lock_step, factor, value_of(self, "lock_step_timeout"))
        self._simulation = ArmSimulation(
            get_arm(value_of(self, "arm")),
            period,
            value_of(self, "gravity_compensation"),
            ArmCondition(**_condition({name: value_of(self, name) for name in CONDITION})),
            value_of(self, "seed"),
        )
        arm = self._simulation.arm
        self._hand_every = max(1, round(rate / value_of(self, "hand_pose_rate")))
        self._clock_every = max(1, round(rate / value_of(self, "clock_rate")))
        self._command_timeout = value_of(self, "command_timeout")
        self._push_duration = value_of(self, "push_duration")
        follow_changes(self, PARAMETERS, self._on_parameters)

        # Commands: the last one, the one that acts in the present period, when it came (simulated ns).
        self._no_torque: NDArray[np.float64] = np.zeros(len(arm.joint_names))
        self._torque = self._latched = self._no_torque
        self._commanded_at: int | None = None

        self._states = 0
        self._counts: Counter[str] = Counter()

        self._state_publisher = self.create_publisher(JointState, "joint_states", messages.STATE_PUBLISHER)
        self._clock_publisher = self.create_publisher(ClockMessage, "clock", messages.LATEST)
        self._hand_publisher = self.create_publisher(PoseStamped, "hand_pose", messages.LATEST)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)
        self._state_message = JointState(name=list(arm.joint_names))
        self._clock_message = ClockMessage()
        self._hand_message = PoseStamped()
        self._prefix = frame_prefix(self)
        self._hand_message.header.frame_id = self._prefix + arm.base_frame
        self.create_subscription(Float64MultiArray, "effort_controller/commands", self._on_command, messages.COMMAND)
        self.create_subscription(WrenchStamped, "~/push", self._on_push, messages.RELIABLE)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/pause", self._on_pause)
        self.create_service(Trigger, "~/step", self._on_step)
        self._diagnostics_at = time.perf_counter(), 0
        self.create_timer(
            value_of(self, "diagnostics_period"),
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._viewer = None if value_of(self, "headless") else Viewer(self._simulation.model)
        self._shown_at = 0.0

    def run(self, stop: StopRequest) -> None:
        """Simulate until asked to stop, one period after the other."""
        self._publish_state()
        self._pacer.restart(time.perf_counter())
        while not stop:
            now = time.perf_counter()
            step = self._pacer.next_step(now)
            if step is Step.ADVANCE:
                self._advance()
            elif step is Step.REPEAT:
                self._state_publisher.publish(self._state_message)
            elif step is Step.GIVE_UP:
                self._drop_torque(f"no command for {self._pacer.lock_step_timeout} s: the arm goes on, in real time")
            self._show(now)
            self._executor.spin_once(timeout_sec=self._pacer.sleep(time.perf_counter()))
        if self._viewer is not None:
            self._viewer.close()

    def _advance(self) -> None:
        """Let one period pass, under the torque that had arrived when it began, and publish the new state."""
        began = time.perf_counter()
        self._simulation.advance(self._latched)
        self._states += 1
        if not self._pacer.lock_step and self._commanded_at is not None:
            silence = (self._simulation.time - self._commanded_at) / NANOSECONDS
            if silence > self._command_timeout:
                self._drop_torque("commands stay away")
        self._latched = self._torque
        self._publish_state()
        self._pacer.advanced(began)

    def _drop_torque(self, reason: str) -> None:
        """Without torque from now on, until commands return."""
        self._torque = self._latched = self._no_torque
        self._commanded_at = None
        self._counts["silent commander"] += 1
        self.get_logger().warning(f"{reason}: torque is zero until commands return")

    def _publish_state(self) -> None:
        simulation = self._simulation
        message = self._state_message
        messages.set_stamp(message.header.stamp, simulation.time)
        message.position = messages.doubles(simulation.reading.position)
        message.velocity = messages.doubles(simulation.reading.velocity)
        message.effort = messages.doubles(simulation.reading.effort)
        if self._states % self._clock_every == 0:
            messages.set_stamp(self._clock_message.clock, simulation.time)
            self._clock_publisher.publish(self._clock_message)
        self._state_publisher.publish(message)
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
        if self._pacer.answer():
            self.get_logger().info("commands are back: lock-step resumes")
        self._torque = torque
        self._commanded_at = self._simulation.time

    def _on_push(self, message: WrenchStamped) -> None:
        """Let somebody push the arm, or say why not."""
        force, torque = message.wrench.force, message.wrench.torque
        try:
            self._simulation.push(
                (force.x, force.y, force.z),
                (torque.x, torque.y, torque.z),
                message.header.frame_id.removeprefix("/").removeprefix(self._prefix),
                self._push_duration,
            )
        except ConfigError as error:
            self._counts["refused push"] += 1
            self.get_logger().warning(f"refused: {error}", throttle_duration_sec=5.0)
        else:
            self._counts["push"] += 1

    def _on_parameters(self, changed: Mapping[str, Any]) -> None:
        """Take changed parameters over.

        Raises:
            ConfigError: one does not fit; then all stay as they were.
        """
        factor = changed.get("real_time_factor", self._pacer.real_time_factor)
        _check_factor(factor, self._pacer.lock_step)
        condition = _condition(changed)
        if condition:
            self._simulation.apply(replace(self._simulation.condition, **condition))
            self.get_logger().info(f"from now on: {', '.join(f'{name} {value}' for name, value in condition.items())}")
        self._pacer.real_time_factor = factor
        self._pacer.lock_step_timeout = changed.get("lock_step_timeout", self._pacer.lock_step_timeout)
        self._command_timeout = changed.get("command_timeout", self._command_timeout)
        self._push_duration = changed.get("push_duration", self._push_duration)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._simulation.reset()
        self._states = 0
        self._torque = self._latched = self._no_torque
        self._commanded_at = None
        self._publish_state()
        self._pacer.restart(time.perf_counter())
        response.success = True
        response.message = "the arm is at home, at time zero"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._pacer.pause(request.data, time.perf_counter())
        response.success = True
        response.message = "paused" if request.data else "running"
        return response

    def _on_step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._pacer.paused
        if self._pacer.paused:
            self._advance()
            response.message = f"time is {self._simulation.time / NANOSECONDS:.4f} s"
        else:
            response.message = "the simulation is running; pause it first"
        return response

    def _publish_diagnostics(self) -> None:
        wall, simulated = time.perf_counter(), self._simulation.time
        wall_before, simulated_before = self._diagnostics_at
        self._diagnostics_at = wall, simulated
        factor = max(simulated - simulated_before, 0) / NANOSECONDS / (wall - wall_before)
        without_commands = self._commanded_at is None
        if self._pacer.paused:
            summary = "paused"
        elif without_commands:
            summary = "no commands: no torque"
        else:
            summary = "lock-step" if self._pacer.lock_step else "real time"
        figures: dict[str, object] = {
            "real time factor": f"{factor:.3f}",
            "simulated time (s)": simulated / NANOSECONDS,
            "time slipped (s)": f"{self._pacer.slipped:.3f}",
            "gravity compensation": _text(value_of(self, "gravity_compensation")),
            **{name: _text(getattr(self._simulation.condition, name)) for name in CONDITION},
            "explosions": self._simulation.explosions,
            **dict(sorted(self._counts.items())),
        }
        level = DiagnosticStatus.WARN if without_commands or self._pacer.paused else DiagnosticStatus.OK
        name = f"{self.get_fully_qualified_name()}: simulation"
        message = DiagnosticArray(status=[messages.status(name, level, summary, figures)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _show(self, now: float) -> None:
        """Give the window the present posture, now and then."""
        if self._viewer is None or now - self._shown_at < DRAWING_PERIOD:
            return
        self._shown_at = now
        if self._viewer.ended:
            self.get_logger().warning(f"running without a window: {self._viewer.ended}")
            self._viewer = None
        else:
            self._viewer.show(self._simulation.data.qpos)


def _check_factor(real_time_factor: float, lock_step: bool) -> None:
    if real_time_factor == 0.0 and not lock_step:
        raise ConfigError(
            "parameter real_time_factor of mujoco_bridge is 0.0, which needs lock_step; give a number above 0."
        )


def _condition(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the parameters that belong to the arm's condition, as an ArmCondition takes them."""
    return {
        name: value if isinstance(value, bool | float) else tuple(value)
        for name, value in parameters.items()
        if name in CONDITION
    }


def _text(value: bool | float | tuple[float, ...]) -> str:
    """A parameter's value as /diagnostics spells it."""
    if isinstance(value, tuple):
        return " ".join(str(number) for number in value)
    return str(value).lower()


def _bridge(stop: StopRequest) -> int:
    """The node's life as a process."""
    with executed(MujocoBridge) as (node, _):
        keep_from_garbage_collector()
        node.run(stop)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the bridge node until Ctrl-C or SIGTERM."""
    return run_process(_bridge, args)


if __name__ == "__main__":
    sys.exit(main())
