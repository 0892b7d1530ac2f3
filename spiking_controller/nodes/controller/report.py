"""What the controller tells the graph about itself, besides the command. Everything it sends is built beforehand."""

from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, UInt8MultiArray

from spiking_controller.control.activity import FAULT, Activity
from spiking_controller.control.controller import StepReport
from spiking_controller.nodes.common import messages
from spiking_controller.units import NANOSECONDS


class ControllerReport:
    """`~/prediction`, `~/prediction_error`, `~/tracking_error`, `~/spikes`, `~/status` and `/diagnostics`."""

    def __init__(self, node: LifecycleNode, arm: str, joint_names: Sequence[str]) -> None:
        """Join the topics.

        Args:
            node: in whose name; what goes out at every control step goes out only while it is active.
            arm: name of the arm.
            joint_names: of the controlled joints, as the driver calls them.
        """
        self._node = node
        self._arm = arm
        self._prediction = JointState(name=list(joint_names))
        self._tracking_error, self._prediction_error = Float64(), Float64()
        self._prediction_publisher = node.create_lifecycle_publisher(JointState, "~/prediction", messages.LATEST)
        self._prediction_error_publisher = node.create_lifecycle_publisher(
            Float64, "~/prediction_error", messages.LATEST
        )
        self._tracking_error_publisher = node.create_lifecycle_publisher(Float64, "~/tracking_error", messages.LATEST)
        self._spikes_publisher = node.create_lifecycle_publisher(UInt8MultiArray, "~/spikes", messages.LATEST)
        self._status_publisher = node.create_publisher(DiagnosticStatus, "~/status", messages.LATCHED)
        self._diagnostics_publisher = node.create_publisher(DiagnosticArray, "/diagnostics", messages.RELIABLE)

    def close(self) -> None:
        """Leave the topics."""
        for publisher in (
            self._prediction_publisher,
            self._prediction_error_publisher,
            self._tracking_error_publisher,
            self._spikes_publisher,
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
