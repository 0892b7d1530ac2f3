"""Judges networks on a stream of messages, one after the other: the core of offline and live evaluation.

The messages of a bag and those of a running graph give the same figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.controller import ControllerSettings
from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.checkpoint_names import column_names, common_task
from spiking_controller.evaluation.replay.goal_judge import GoalJudge
from spiking_controller.evaluation.replay.model_judge import ModelJudge, RecordedWindows, UntrainedErrors, WindowCutter
from spiking_controller.evaluation.replay.policy_judge import PolicyJudge
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.streams.control_steps import Outcome
from spiking_controller.streams.step_stream import StepStream, StreamSettings

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ReplaySettings(StreamSettings):
    """What the messages mean (see `StreamSettings`), and how to judge.

    Attributes:
        rate_limit_period: of the policies' safety filter, s; by default the task's physics period.
        controller: how the controller uses the networks; by default with the spring that holds the posture, and without
            the disturbance observer, which needs an arm that answers.
        keep_series: keep what pictures and paired differences need: some MB per hour.
    """

    rate_limit_period: float | None = None
    controller: ControllerSettings = field(default_factory=lambda: ControllerSettings(disturbance_gain=0.0))
    keep_series: bool = True


class Judges(NamedTuple):
    """Those of one checkpoint."""

    model: ModelJudge
    policy: PolicyJudge


class ReplayEvaluator(StepStream):
    """Takes messages in the order in which they come; `metrics` at any time, complete after `finish`.

    Attributes:
        names: of the checkpoints, one each.
        judges: of the checkpoints, one each.
        untrained: predictions without a model, on the same windows.
        goals: how the recorded run reached its goals.
        counts: what came and was not used, by reason.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], settings: ReplaySettings | None = None) -> None:
        """Judge these checkpoints side by side.

        Args:
            checkpoints: one or more, for the same task and gravity convention.
            settings: what the stream means.
        Raises:
            ConfigError: checkpoints that cannot be compared, or wrong joint names.
        """
        self.settings = settings = settings or ReplaySettings()
        common_task(checkpoints)
        task = checkpoints[0].task
        super().__init__(task, settings)
        for checkpoint in checkpoints:
            if checkpoint.task.gravity_convention != task.gravity_convention:
                raise ConfigError(
                    f"{checkpoint.source} has the gravity convention '{checkpoint.task.gravity_convention}', but "
                    f"{checkpoints[0].source} has '{task.gravity_convention}'; compare checkpoints of one convention."
                )
        self.checkpoints = tuple(checkpoints)
        self.names = column_names(checkpoints)
        warm_up = max(max(c.config.model_updates.warm_up, c.config.policy_updates.warm_up) for c in checkpoints)
        self._cutter = WindowCutter(warm_up, len(task.arm.joint_names))
        keep, period = settings.keep_series, settings.rate_limit_period or task.physics_period
        self.untrained = UntrainedErrors(task, keep)
        self.goals = GoalJudge(task, keep)
        self.judges = [
            Judges(ModelJudge(checkpoint, keep), PolicyJudge(checkpoint, settings.controller, period, keep))
            for checkpoint in checkpoints
        ]
        self.window_times: list[int] = []
        self._samples = 0
        self._duration = 0.0
        self._steps = 0
        self._stretches = 0
        self._published_sum, self._published_count = 0.0, 0

    def add_prediction_error(self, error: float) -> None:
        """What the controller published as its forward model's error, rad."""
        if np.isfinite(error):
            self._published_sum += error
            self._published_count += 1

    def finish(self) -> None:
        """The stream is over: judge what is still waiting."""
        super().finish()
        self.goals.finish()
        self._judge_windows(self._cutter.take())
        for model, policy in self.judges:
            model.follow()
            policy.count()

    def _on_goal(self, goal: FloatArray) -> None:
        self.goals.set_goal(goal)
        for _, policy in self.judges:
            policy.set_goal(goal)

    def _on_sample(self, sample: ArmSample, outcome: Outcome) -> None:
        self._samples += 1
        self._duration += sample.period
        if outcome.begins:
            self._stretches += 1
            sample = sample._replace(continues=False, period=0.0)
        for step in outcome.steps:
            self._steps += 1
            self.goals.add(step)
            for model, _ in self.judges:
                model.add(step)
            self._judge_windows(self._cutter.add(step))
        for _, policy in self.judges:
            policy.tick(sample)
            for step in outcome.steps:
                policy.compare(step)

    def _on_jump(self) -> None:
        super()._on_jump()
        for _, policy in self.judges:
            policy.restart()

    def _judge_windows(self, windows: RecordedWindows | None) -> None:
        if windows is None:
            return
        if self.settings.keep_series:
            self.window_times += windows.time.tolist()
        self.untrained.add(windows, self._cutter.warm_up)
        for model, _ in self.judges:
            model.add_windows(windows, self._cutter.warm_up)

    def metrics(self) -> dict[str, Any]:
        """Everything that is known by now, as plain data; errors are means.

        Returns:
            stream: joint states `used` and `waiting`, and what is `implausible` about them; `duration_s`, `rate_hz`,
                `control_steps`, in how many `stretches`, and what was `dropped`, by reason.
            published: mean of the prediction errors that the controller published, rad, and how many.
            baselines: by horizon, errors of persistence, `stay`, and constant velocity, `linear`, on as many `windows`.
            goals: of the recorded run: `summary` (see `tasks.metrics.summarise`) and `each`.
            checkpoints: for each `forward_model` (errors by horizon; `following_rad`, the error that the controller
                would publish, and the same of the steps that it reported), `policy` (root mean squares of recorded
                torque and of the difference to it, N·m; interventions of the safety filter by reason, of so many
                `torques`) and `activity` of both networks (see `complexity.measure_complexity`).
        """
        settings, task = self.settings, self.task
        return {
            "task": task.name,
            "control_period_s": task.control_period,
            "gravity_convention": task.gravity_convention,
            "stream": {
                "joint_states": {
                    "used": self._samples,
                    "waiting": len(self._pending),
                    "estimated_velocities": self.estimated_velocities,
                    "implausible": self.implausible,
                },
                "duration_s": self._duration,
                "rate_hz": (self._samples - 1) / self._duration if self._duration else None,
                "torques": "measured" if settings.measured_torque else "commanded",
                "torques_include_gravity": settings.includes_gravity,
                "control_steps": self._steps,
                "stretches": self._stretches,
                "dropped": dict(sorted(self.dropped.items())),
            },
            "published": {
                "prediction_error_rad": self._published_sum / self._published_count if self._published_count else None,
                "count": self._published_count,
            },
            "baselines": {
                "windows": self.untrained.persistence.windows,
                "warm_up_steps": self._cutter.warm_up,
                "stay": self.untrained.persistence.metrics(),
                "linear": self.untrained.constant_velocity.metrics(),
            },
            "goals": self.goals.metrics(),
            "checkpoints": [
                {
                    "name": name,
                    "source": checkpoint.source,
                    "sha256": checkpoint.metadata["sha256"],
                    "forward_model": model.metrics(),
                    "policy": policy.metrics(),
                    "activity": {"policy": policy.meter.metrics(), "forward_model": model.meter.metrics()},
                }
                for name, checkpoint, (model, policy) in zip(self.names, self.checkpoints, self.judges, strict=True)
            ],
        }
