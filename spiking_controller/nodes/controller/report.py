"""What the controller tells the graph about itself, besides the command. Everything it sends is built beforehand."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import WrenchStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, MultiArrayDimension, UInt8MultiArray

from spiking_controller.control.activity import FAULT, Activity
from spiking_controller.control.contact import Contact
from spiking_controller.control.controller import StepReport
from spiking_controller.control.disturbance_observer import Disturbance
from spiking_controller.nodes.common import messages
from spiking_controller.units import NANOSECONDS

LOAD: Final = ("mass", "confidence", "x", "y", "z")
"""What `~/load` tells, in this order: kg, 0 to 1, and the place in the hand's axes, m."""


class ControllerReport:
    """All that the controller publishes once per control step, or as things happen, beside torque and goal."""

    def __init__(
        self, node: LifecycleNode, arm: str, base_frame: str, joint_names: Sequence[str], controlled_joints: int
    ) -> None:
        """Join the topics.

        Args:
            node: in whose name; what goes out at every control step goes out only while it is active.
            arm: name of the arm.
            base_frame: in which forces are given, with its prefix.
            joint_names: of all joints, as the driver calls them, [n].
            controlled_joints: m, how many of them the networks drive.
        """
        self._node = node
        self._arm = arm
        controlled = list(joint_names[:controlled_joints])
        self._prediction, self._disturbance = JointState(name=controlled), JointState(name=controlled)
        self._contact_torque = JointState(name=list(joint_names))
        self._contact = WrenchStamped()
        self._contact.header.frame_id = base_frame
        self._load = Float64MultiArray()
        self._load.layout.dim = [MultiArrayDimension(label=label, size=1, stride=1) for label in LOAD]
        self._tracking_error, self._prediction_error = Float64(), Float64()
        self._prediction_publisher = node.create_lifecycle_publisher(JointState, "~/prediction", messages.LATEST)
        self._prediction_error_publisher = node.create_lifecycle_publisher(
            Float64, "~/prediction_error", messages.LATEST
        )
        self._tracking_error_publisher = node.create_lifecycle_publisher(Float64, "~/tracking_error", messages.LATEST)
        self._spikes_publisher = node.create_lifecycle_publisher(UInt8MultiArray, "~/spikes", messages.LATEST)
        self._disturbance_publisher = node.create_lifecycle_publisher(JointState, "~/disturbance", messages.LATEST)
        self._load_publisher = node.create_lifecycle_publisher(Float64MultiArray, "~/load", messages.LATEST)
        self._contact_publisher = node.create_lifecycle_publisher(WrenchStamped, "~/contact", messages.RELIABLE)
        self._contact_torque_publisher = node.create_lifecycle_publisher(
            JointState, "~/contact_torque", messages.RELIABLE
        )
        self._status_publisher = node.create_publisher(DiagnosticStatus, "~/status", messages.LATCHED)
        self._diagnostics_publisher = node.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)

    def close(self) -> None:
        """Leave the topics."""
        for publisher in (
            self._prediction_publisher,
            self._prediction_error_publisher,
            self._tracking_error_publisher,
            self._spikes_publisher,
            self._disturbance_publisher,
            self._load_publisher,
            self._contact_publisher,
            self._contact_torque_publisher,
        ):
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_publisher(self._status_publisher)
        self._node.destroy_publisher(self._diagnostics_publisher)

    def step(self, report: StepReport) -> None:
        """What a control step was about."""
        message = self._prediction
        messages.set_stamp(message.header.stamp, report.predicted_time)
        message.position = messages.doubles(report.predicted_position)
        message.velocity = messages.doubles(report.predicted_velocity)
        self._prediction_publisher.publish(message)
        self._tracking_error.data = report.tracking_error
        self._tracking_error_publisher.publish(self._tracking_error)
        if report.prediction_error is not None:
            self._prediction_error.data = report.prediction_error
            self._prediction_error_publisher.publish(self._prediction_error)
        self._spikes_publisher.publish(messages.spikes_to_message(report.spikes))
        if report.disturbance is not None:
            self._tell_disturbance(report.time, report.disturbance)
        if report.contact is not None:
            self._tell_contact(report.time, report.contact)

    def _tell_disturbance(self, time: int, disturbance: Disturbance) -> None:
        messages.set_stamp(self._disturbance.header.stamp, time)
        self._disturbance.effort = messages.doubles(disturbance.torque)
        self._disturbance_publisher.publish(self._disturbance)
        load = np.array([disturbance.mass, disturbance.confidence, *disturbance.place])
        self._load.data = messages.doubles(load)
        self._load_publisher.publish(self._load)

    def _tell_contact(self, time: int, contact: Contact) -> None:
        messages.set_stamp(self._contact.header.stamp, time)
        messages.set_stamp(self._contact_torque.header.stamp, time)
        for axis, value in zip("xyz", contact.force, strict=True):
            setattr(self._contact.wrench.force, axis, float(value))
        self._contact_torque.effort = messages.doubles(contact.torque)
        self._contact_publisher.publish(self._contact)
        self._contact_torque_publisher.publish(self._contact_torque)

    def status(self, activity: Activity, goal: NDArray[np.float64] | None) -> None:
        """The arm's state for other nodes: its name in `message`, the rest in `values`."""
        figures: dict[str, object] = {
            "since (s)": f"{activity.since / NANOSECONDS:.3f}",
            "distance (m)": "" if activity.distance is None else f"{activity.distance:.4f}",
            "goal (m)": "" if goal is None else " ".join(f"{value:.4f}" for value in goal),
            "reason": activity.reason,
        }
        level = DiagnosticStatus.ERROR if activity.state == FAULT else DiagnosticStatus.OK
        message = messages.status(self._node.get_fully_qualified_name(), level, activity.state, figures)
        message.hardware_id = self._arm
        self._status_publisher.publish(message)

    def diagnostics(self, *statuses: DiagnosticStatus) -> None:
        """One message on /diagnostics."""
        message = DiagnosticArray(status=list(statuses))
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)
