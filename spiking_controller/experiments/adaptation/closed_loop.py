"""A simulated arm and its controller in one process, in lock-step: the parts of the nodes, without a ROS graph.

The same seed gives the same numbers, as fast as the machine can.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.controller import ControllerSettings
from spiking_controller.evaluation.lock_step import FOR_EVER, LockStep
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.online.model_update import Version
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.online.versions import VersionChain
from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.streams.segments import SegmentBuilder
from spiking_controller.tasks.segments import Segment
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

FINAL_TIME: Final = 0.5
"""The error of a goal is the mean distance over the last part of the time that it is held, s, as in `tasks.metrics`."""


class Step(NamedTuple):
    """One control step.

    Attributes:
        time: simulated, s.
        distance: from hand to goal, m.
        mass: that the observer thinks is in the hand, kg; 0 without observer.
    """

    time: float
    distance: float
    mass: float


class GoalOutcome(NamedTuple):
    """One goal, from when it was set to when the next one is.

    Attributes:
        start: simulated time, s.
        final_error_m: mean hand-to-goal distance in the last FINAL_TIME.
        segments: recorded on the way.
        version: of the networks that ran, sha256.
        steps: of its control steps.
    """

    start: float
    final_error_m: float
    segments: tuple[Segment, ...]
    version: str
    steps: tuple[Step, ...]


class ClosedLoop(LockStep):
    """Sends a simulated arm to one goal after the other; its condition may be changed at any time.

    Attributes:
        chain: the versions of the networks.
        builder: of what is recorded.
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
        task, version = checkpoint.task, Version.of(checkpoint)
        super().__init__(task, version.agent, settings=settings)
        self.chain = VersionChain(self.controller, version, watch)
        self.builder = SegmentBuilder(task, segment)
        self._task = task

    def change(self, condition: ArmCondition, push: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        """Change the arm, and push its hand from now on, N, [3]; nobody tells the controller."""
        self.arm.apply(condition)
        if any(push):
            self.arm.push(push, duration=FOR_EVER)

    def reach(self, goal: FloatArray, duration: float) -> GoalOutcome:
        """Send the hand to a goal and let the time pass that it is given, s."""
        self.controller.set_goal(goal)
        self.builder.add_goal(goal)
        return self.hold(duration)

    def hold(self, duration: float) -> GoalOutcome:
        """Let time pass on the way to the present goal, or at it, s."""
        start, version = self.time, self.chain.running.sha256
        steps: list[Step] = []
        segments: list[Segment] = []
        for _ in range(round(duration / self._task.physics_period)):
            self._record_tick(steps, segments)
        final = [step.distance for step in steps[-round(FINAL_TIME / self._task.control_period) :]]
        return GoalOutcome(start, float(np.mean(final)), tuple(segments), version, tuple(steps))

    def errors(self, goals: FloatArray, duration: float) -> list[float]:
        """Final errors of goals [n, d] one after the other, m; the networks stay as they are."""
        return [self.reach(goal, duration).final_error_m for goal in goals]

    def goal_changes(self) -> str:
        """Between two goals: see `VersionChain.goal_changes`."""
        return self.chain.goal_changes()

    def _record_tick(self, steps: list[Step], segments: list[Segment]) -> None:
        sample, command = self.tick()
        self.builder.add_state(sample)
        self.builder.add_torque(command.time, command.torque)
        if command.new_step:
            report = self.controller.report()
            mass = 0.0 if report.disturbance is None else report.disturbance.mass
            steps.append(Step(report.time / NANOSECONDS, report.tracking_error, mass))
            if report.disturbance is not None:
                self.builder.add_disturbance(report.time, report.disturbance.torque)
            self.chain.step(report.time, report.tracking_error)
            segment = self.builder.add_prediction(report.predicted_time)
            if segment is not None:
                segments.append(segment)
