"""A simulated arm and its controller in one process, in lock-step: the parts of the nodes, without a ROS graph.

The same seed gives the same numbers, as fast as the machine can.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmStateReader, Rejection
from spiking_controller.control.controller import Controller, ControllerSettings
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.online.model_update import Version
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.online.versions import VersionChain
from spiking_controller.robots.simulation import ArmCondition, ArmSimulation
from spiking_controller.streams.segments import SegmentBuilder
from spiking_controller.tasks.segments import Segment
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

FINAL_TIME = 0.5
"""The error of a goal is the mean distance over the last part of the time that it is held, s, as in `tasks.metrics`."""


class GoalOutcome(NamedTuple):
    """One goal, from when it was set to when the next one is.

    Attributes:
        start: simulated time, s.
        final_error_m: mean hand-to-goal distance in the last FINAL_TIME.
        segments: recorded on the way.
        version: of the networks that ran, sha256.
    """

    start: float
    final_error_m: float
    segments: tuple[Segment, ...]
    version: str


class ClosedLoop:
    """Sends a simulated arm to one goal after the other.

    Attributes:
        arm: the simulation; its condition may be changed at any time.
        controller: with its safety filter.
        chain: the versions of the networks.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        watch: TrackingWatch,
        settings: ControllerSettings | None = None,
        segment: int = 32,
    ) -> None:
        """Start at home with the networks of a checkpoint.

        Args:
            checkpoint: also says the task.
            watch: judges versions that take over.
            settings: of the controller.
            segment: control steps of a recorded segment.
        """
        task = checkpoint.task
        self.arm = ArmSimulation(task.arm, task.physics_period, task.gravity_convention == "compensated")
        version = Version.of(checkpoint)
        self.controller = Controller(task, version.agent, settings)
        self.chain = VersionChain(self.controller, version, watch)
        self.builder = SegmentBuilder(task, segment)
        self._task = task
        self._reader = ArmStateReader(task.arm.joint_names, task.arm.limits)
        self._names = list(task.arm.joint_names)
        self._torque: FloatArray = np.zeros(len(self._names))

    @property
    def time(self) -> float:
        """Simulated time, s."""
        return self.arm.time / NANOSECONDS

    def change(self, condition: ArmCondition) -> None:
        """Change the arm; nobody tells the controller."""
        self.arm.apply(condition)

    def reach(self, goal: FloatArray, duration: float) -> GoalOutcome:
        """Send the hand to a goal and let the time pass that it is given, s."""
        self.controller.set_goal(goal)
        self.builder.add_goal(goal)
        start, version = self.time, self.chain.running.sha256
        distances: list[float] = []
        segments: list[Segment] = []
        for _ in range(round(duration / self._task.physics_period)):
            self._tick(distances, segments)
        final = distances[-round(FINAL_TIME / self._task.control_period) :]
        return GoalOutcome(start, float(np.mean(final)), tuple(segments), version)

    def errors(self, goals: FloatArray, duration: float) -> list[float]:
        """Final errors of goals [n, d] one after the other, m; the networks stay as they are."""
        return [self.reach(goal, duration).final_error_m for goal in goals]

    def goal_changes(self) -> str:
        """Between two goals: see `VersionChain.goal_changes`."""
        return self.chain.goal_changes()

    def _tick(self, distances: list[float], segments: list[Segment]) -> None:
        """One joint state and its torque, which acts from the next one on, as in the live graph."""
        arm = self.arm
        sample = self._reader.read(arm.time, self._names, arm.reading.position, arm.reading.velocity)
        if isinstance(sample, Rejection):
            raise RuntimeError(f"the simulated arm gave a joint state that is of no use: {sample.sentence}")
        self.builder.add_state(sample)
        command = self.controller.update(sample)
        self.builder.add_torque(command.time, command.torque)
        arm.advance(self._torque)
        self._torque = command.torque
        if command.new_step:
            report = self.controller.report()
            distances.append(report.tracking_error)
            self.chain.step(report.time, report.tracking_error)
            segment = self.builder.add_prediction(report.predicted_time)
            if segment is not None:
                segments.append(segment)
