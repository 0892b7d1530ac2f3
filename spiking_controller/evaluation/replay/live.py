"""Judges networks on a stream that has no end, run after run: the core of the evaluator node.

A run ends where time jumps back, as it does when a bag starts again or a simulation is reset. What came before stays
apart from what comes then, so that each round of a bag gives the figures of `spiking_controller replay`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator, ReplaySettings
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.units import NANOSECONDS

Metrics = dict[str, Any]


_REHEARSED = 2.0
"""Long enough for windows that are complete, s."""


class _JumpBackError(Exception):
    """The joint state that was added belongs to another run; nothing of it was taken."""


class _Run(ReplayEvaluator):
    """Everything until time jumps back."""

    def _on_jump(self) -> None:
        raise _JumpBackError


class LiveEvaluation:
    """Takes messages as they come, see `message_feed.Listener`.

    Attributes:
        number: of the present run, from 1.
        jumps: back in time so far.
        is_complete: the figures of the present run hold all that came.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], settings: ReplaySettings, on_complete: Callable[[Metrics], None]
    ) -> None:
        """Judge these checkpoints side by side.

        Args:
            checkpoints: one or more, for the same task and gravity convention.
            settings: what the stream means.
            on_complete: is given the figures of every run when they are complete.
        Raises:
            ConfigError: checkpoints that cannot be compared, or wrong joint names.
        """
        self.number = 1
        self.jumps = 0
        self.is_complete = False
        self._checkpoints = checkpoints
        self._settings = settings
        self._on_complete = on_complete
        self._run = _Run(checkpoints, settings)
        self._has_states = False

    def rehearse(self) -> None:
        """Judge an arm at rest once, so that no message has to wait for anything to be compiled or loaded."""
        run = _Run(self._checkpoints, self._settings)
        arm = run.task.arm
        names = self._settings.joint_names or arm.joint_names
        at_rest = np.zeros(len(names))
        for time in range(0, round(_REHEARSED * NANOSECONDS), round(run.task.physics_period * NANOSECONDS)):
            run.add_joint_state(time, names, arm.home, at_rest, at_rest)
            run.add_torque(time, names, at_rest)
        run.finish()
        run.metrics()

    def add_joint_state(
        self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike = (), effort: ArrayLike = ()
    ) -> None:
        """See `StepStream.add_joint_state`; one from before the last begins another run."""
        try:
            self._run.add_joint_state(time, names, position, velocity, effort)
        except _JumpBackError:
            waiting = self._run.waiting_goals
            self._begin_another()
            self.jumps += 1
            for goal in waiting:
                self._run.add_goal(0, goal)
            self._run.add_joint_state(time, names, position, velocity, effort)
        self._has_states = True
        self.is_complete = False

    def add_torque(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """See `StepStream.add_torque`."""
        self._run.add_torque(time, names, torque)

    def add_disturbance(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """See `StepStream.add_disturbance`."""
        self._run.add_disturbance(time, names, torque)

    def add_goal(self, time: int, point: ArrayLike, frame: str = "", accepted: bool = True) -> None:
        """See `StepStream.add_goal`."""
        self._run.add_goal(time, point, frame, accepted)

    def add_prediction(self, time: int) -> None:
        """See `StepStream.add_prediction`."""
        self._run.add_prediction(time)

    def add_prediction_error(self, error: float) -> None:
        """See `StepStream.add_prediction_error`."""
        self._run.add_prediction_error(error)

    def complete(self) -> None:
        """Nothing comes for now: judge what is still waiting. The run goes on with the next joint state."""
        if self._has_states and not self.is_complete:
            self._run.finish()
            self.is_complete = True
            self._on_complete(self.metrics())

    def restart(self) -> None:
        """Begin another run in the middle of the stream; the goal in force stays in force."""
        goals = [] if self._run.goals.goal is None else [self._run.goals.goal]
        goals += self._run.waiting_goals
        self._begin_another()
        for goal in goals:
            self._run.add_goal(0, goal)

    def _begin_another(self) -> None:
        self.complete()
        self._run = _Run(self._checkpoints, self._settings)
        self.number += 1
        self._has_states = self.is_complete = False

    @property
    def problem(self) -> str:
        """Why the latest joint state was of no use, a sentence; empty if it was."""
        return self._run.problem

    def metrics(self) -> Metrics:
        """Of the present run: `run`, `jumps_back` before it, whether it is `complete`; `ReplayEvaluator.metrics`."""
        return {"run": self.number, "jumps_back": self.jumps, "complete": self.is_complete, **self._run.metrics()}
