"""The imagination node: where the policy and the forward model expect the hand to go, five times a second.

It runs copies of the controller's networks in a process of its own, so that control never waits for it, and computes
only while somebody listens.
"""

import math
import sys
from collections import OrderedDict, deque

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped, PoseStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String, UInt8MultiArray

from spiking_controller.control.activity import FAULT
from spiking_controller.errors import ModelContractError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, parse_checkpoint
from spiking_controller.networks.future import Future, FutureImagination
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import joint_names
from spiking_controller.nodes.common.frame_prefix import FRAME_PREFIX, frame_prefix
from spiking_controller.nodes.common.latest import LatestMessages
from spiking_controller.nodes.common.model_parameters import MODEL_PARAMETERS, load_model
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, repeat_until_stopped, run_bystander
from spiking_controller.units import NANOSECONDS

PAST = 10
"""Control steps that the networks are warmed up on."""
VERSIONS_KEPT = 4
"""Networks of `model_update` that the controller may run, or return to."""

PARAMETERS = [
    *MODEL_PARAMETERS,
    FRAME_PREFIX,
    ParameterSpec("steps", 25, "Control steps that are imagined.", 1, 200),
    ParameterSpec("frequency", 5.0, "Imagined futures per second (wall clock), Hz.", 0.1, 20.0),
]


class Imagination(Node):
    """Publishes imagined futures; `run` is its life."""

    def __init__(self) -> None:
        """Load the networks and join the topics.

        Raises:
            SpikingControllerError: a parameter has a wrong value, or the networks cannot be used.
        """
        super().__init__("imagination")
        declare_parameters(self, PARAMETERS)
        torch.set_num_threads(1)
        self._joint_names = joint_names(self)
        self._steps = int(value_of(self, "steps"))
        checkpoint = load_model(self)
        self._versions: OrderedDict[str, Checkpoint] = OrderedDict()
        self._task = checkpoint.task
        self._frame = frame_prefix(self) + self._task.arm.base_frame
        self._period = round(self._task.control_period * NANOSECONDS)
        self._keep(checkpoint)
        self._use(checkpoint)
        self._goal: np.ndarray | None = None
        self._is_fault = False
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=PAST)
        self._states = LatestMessages(self, {"joint_states": JointState}, messages.WAITING)
        self._path_publisher = self.create_publisher(Path, "controller/imagination", messages.LATEST)
        self._state_publisher = self.create_publisher(JointState, "controller/imagined_state", messages.LATEST)
        self.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.LATCHED)
        self.create_subscription(DiagnosticStatus, "controller/status", self._on_status, messages.LATCHED)
        self.create_subscription(UInt8MultiArray, "model_update", self._on_update, messages.LATCHED)
        self.create_subscription(String, "controller/version", self._on_version, messages.LATCHED)

    def run(self, stop: StopRequest) -> None:
        """Imagine until asked to stop."""
        period = 1.0 / value_of(self, "frequency")
        try:
            repeat_until_stopped(self, stop, lambda: period, self._imagine)
        finally:
            self._states.close()

    def _imagine(self) -> None:
        """Once, for whoever listens."""
        self._look_back()
        publishers = (self._path_publisher, self._state_publisher)
        if any(publisher.get_subscription_count() for publisher in publishers):
            self._publish()

    def _look_back(self) -> None:
        """Take the joint states that start control steps; time that jumps begins a new past."""
        while (state := self._states.take("joint_states")) is not None:
            now = messages.stamp_to_time(state.header.stamp)
            last = self._past[-1][0] if self._past else -math.inf
            if last <= now < last + self._period:
                continue
            angles, velocities = (
                dict(zip(state.name, part, strict=False)) for part in (state.position, state.velocity)
            )
            if not all(name in angles and name in velocities for name in self._joint_names):
                self.get_logger().warning(
                    f"the joint states lack one of {', '.join(self._joint_names)}; set joint_names.",
                    throttle_duration_sec=5.0,
                )
                return
            if not last < now < last + 3 * self._period:
                self._past.clear()
            position, velocity = (np.array([part[name] for name in self._joint_names]) for part in (angles, velocities))
            self._past.append((now, position, velocity))

    def _publish(self) -> None:
        """The future; nothing in a fault, and where too little is known of the past, from which the networks go on."""
        path = Path()
        path.header.frame_id = self._frame
        if self._is_fault or self._goal is None or len(self._past) < PAST:
            self._path_publisher.publish(path)
            return
        now = self._past[-1][0]
        position, velocity = (np.stack([entry[part] for entry in self._past]) for part in (1, 2))
        future = self._imagination.imagine(position, velocity, self._goal, self._steps)
        messages.set_stamp(path.header.stamp, now)
        path.poses = [self._pose(point, now + step * self._period) for step, point in enumerate(future.hand_position)]
        self._path_publisher.publish(path)
        self._state_publisher.publish(self._last_state(future, now))

    def _pose(self, point: np.ndarray, stamp: int) -> PoseStamped:
        pose = PoseStamped()
        pose.header.frame_id = self._frame
        messages.set_stamp(pose.header.stamp, stamp)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = (float(value) for value in point)
        return pose

    def _last_state(self, future: Future, now: int) -> JointState:
        state = JointState(name=list(self._joint_names))
        messages.set_stamp(state.header.stamp, now + self._steps * self._period)
        velocity = np.zeros(len(self._joint_names))
        velocity[: self._task.controlled_joints] = future.joint_velocity[-1]
        state.position, state.velocity = messages.doubles(future.joint_position[-1]), messages.doubles(velocity)
        return state

    def _on_goal(self, message: PointStamped) -> None:
        goal = np.array([message.point.x, message.point.y, message.point.z])
        self._goal = goal[: self._task.goal_dimensions]

    def _on_status(self, message: DiagnosticStatus) -> None:
        self._is_fault = message.message == FAULT

    def _on_update(self, message: UInt8MultiArray) -> None:
        """Keep networks that the controller may be about to run; it says itself why it refuses others."""
        try:
            self._keep(parse_checkpoint(bytes(message.data), "model_update"))
        except ModelContractError as error:
            self.get_logger().info(f"not kept: {error}")

    def _on_version(self, message: String) -> None:
        if message.data == self._running:
            return
        if message.data in self._versions:
            self._use(self._versions[message.data])
        else:
            self.get_logger().warning(f"the controller runs networks {message.data[:12]}, which were not heard of here")

    def _keep(self, checkpoint: Checkpoint) -> None:
        self._versions[checkpoint.metadata["sha256"]] = checkpoint
        while len(self._versions) > VERSIONS_KEPT:
            self._versions.popitem(last=False)

    def _use(self, checkpoint: Checkpoint) -> None:
        self._running = str(checkpoint.metadata["sha256"])
        self._imagination = FutureImagination(self._task, SpikingAgent(checkpoint.policy, checkpoint.forward_model))


def main(args: list[str] | None = None) -> int:
    """Run the imagination node until Ctrl-C or SIGTERM."""
    return run_bystander(Imagination, args)


if __name__ == "__main__":
    sys.exit(main())
