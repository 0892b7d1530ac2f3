"""The description node: the arm's URDF on `robot_description`, and where its links are on /tf and /tf_static.

It stands in for robot_state_publisher where no ROS installation brings that.
"""

import sys

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.arm_parameters import ARM, JOINT_NAMES, joint_names
from spiking_controller.nodes.common.frame_prefix import FRAME_PREFIX, frame_prefix
from spiking_controller.nodes.common.latest import LatestMessages
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, repeat_until_stopped, run_bystander
from spiking_controller.nodes.common.tf_message import Transform, message_type, serialised
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.link_frames import LinkFrames, LinkPose
from spiking_controller.robots.urdf import urdf

TF = QoSProfile(depth=100)

PARAMETERS = [
    ARM,
    JOINT_NAMES,
    FRAME_PREFIX,
    ParameterSpec("frequency", 30.0, "How often /tf is published, Hz (wall clock).", 1.0, 200.0),
]


class Description(Node):
    """Publishes what tools need to draw the arm; `run` is its life."""

    def __init__(self) -> None:
        """Publish what stays, and subscribe to what changes.

        Raises:
            SpikingControllerError: a parameter has a wrong value, or /tf cannot be published here.
        """
        super().__init__("description")
        declare_parameters(self, PARAMETERS)
        arm = get_arm(value_of(self, "arm"))
        self._joint_names = joint_names(self)
        self._prefix = frame_prefix(self)
        self._links = LinkFrames(arm)
        self._latest = LatestMessages(self, {"joint_states": JointState})
        self._description_publisher = self.create_publisher(String, "robot_description", messages.LATCHED)
        static = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static_publisher = self.create_publisher(message_type(), "/tf_static", static)
        self._publisher = self.create_publisher(message_type(), "/tf", TF)
        self._description_publisher.publish(String(data=urdf(arm)))
        self._static_publisher.publish(self._frames(0, self._links.fixed))

    def run(self, stop: StopRequest) -> None:
        """Publish until asked to stop."""
        period = 1.0 / value_of(self, "frequency")
        try:
            repeat_until_stopped(self, stop, lambda: period, self._publish)
        finally:
            self._latest.close()

    def _publish(self) -> None:
        state = self._latest.take("joint_states")
        if state is None:
            return
        angles = dict(zip(state.name, state.position, strict=False))
        missing = [name for name in self._joint_names if name not in angles]
        if missing:
            self.get_logger().warning(
                f"the joint states lack {', '.join(missing)}; set joint_names to the driver's names.",
                throttle_duration_sec=5.0,
            )
            return
        time_of_state = messages.stamp_to_time(state.header.stamp)
        links = self._links.moving([angles[name] for name in self._joint_names])
        self._publisher.publish(self._frames(time_of_state, links))

    def _frames(self, time_of_state: int, links: list[LinkPose]) -> bytes:
        return serialised(
            time_of_state,
            [
                Transform(self._prefix + link.parent, self._prefix + link.child, link.position, link.orientation)
                for link in links
            ],
        )


def main(args: list[str] | None = None) -> int:
    """Run the description node until Ctrl-C or SIGTERM."""
    return run_bystander(Description, args)


if __name__ == "__main__":
    sys.exit(main())
