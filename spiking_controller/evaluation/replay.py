"""Judges networks on a stream of recorded messages, one after the other: the core of offline and live evaluation.

The messages of a bag and those of a running graph give the same figures, whatever the order in which topics overtake
each other: what happens is ordered by stamps, `LAG` behind the newest joint state.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.arm_state import NANOSECONDS, ArmSample, ArmStateReader, Rejection
from spiking_controller.control.controller import ControllerSettings
from spiking_controller.control.goals import GoalChecker
from spiking_controller.errors import ConfigError, GoalError
from spiking_controller.evaluation.comparison import column_names, common_task
from spiking_controller.evaluation.control_steps import ControlStepBuilder
from spiking_controller.evaluation.replay_goals import GoalJudge
from spiking_controller.evaluation.replay_model import Baselines, ModelJudge, RecordedWindows, WindowCutter
from spiking_controller.evaluation.replay_policy import PolicyJudge
from spiking_controller.learning.checkpoint import Checkpoint

FloatArray = NDArray[np.float64]

LAG = NANOSECONDS // 5
"""How far a topic may be behind the joint states, ns."""


@dataclass(frozen=True)
class ReplaySettings:
    """What the stream means.

    Attributes:
        joint_names: as the driver calls the arm's joints, from base to hand; by default the arm's own names.
        measured_torque: the torques that acted are the efforts of the joint states; otherwise they come over
            `add_torque`, as commanded.
        includes_gravity: these torques carry the arm's weight. Where the networks' torques do not, or the other way
            round, it is taken out or added, with the robot model.
        rate_limit_period: of the policies' safety filter, s; by default the task's physics period.
        longest_gap: joint states farther apart do not continue each other, s.
        controller: how the controller uses the networks.
        keep_series: keep what pictures and paired differences need: some MB per hour.
    """

    joint_names: tuple[str, ...] = ()
    measured_torque: bool = False
    includes_gravity: bool = False
    rate_limit_period: float | None = None
    longest_gap: float = 0.1
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    keep_series: bool = True


class Judges(NamedTuple):
    """Those of one checkpoint."""

    model: ModelJudge
    policy: PolicyJudge


class _Goal(NamedTuple):
    time: int
    goal: FloatArray


class ReplayEvaluator:
    """Takes messages in the order in which they come; `figures` at any time, complete after `finish`.

    Attributes:
        names: of the checkpoints, one each.
        judges: of the checkpoints, one each.
        baselines: forecasts without a model, on the same windows.
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
        self.task = task = checkpoints[0].task
        for checkpoint in checkpoints:
            if checkpoint.task.gravity_convention != task.gravity_convention:
                raise ConfigError(
                    f"{checkpoint.source} has the gravity convention '{checkpoint.task.gravity_convention}', but "
                    f"{checkpoints[0].source} has '{task.gravity_convention}'; compare checkpoints of one convention."
                )
        self.checkpoints = tuple(checkpoints)
        self.names = column_names(checkpoints)
        self.counts: Counter[str] = Counter()
        self._reader = ArmStateReader(
            settings.joint_names or task.arm.joint_names, task.arm.limits, settings.longest_gap
        )
        self._builder = ControlStepBuilder(task, settings.measured_torque, settings.includes_gravity)
        warm_up = max(max(c.config.model_updates.warm_up, c.config.policy_updates.warm_up) for c in checkpoints)
        self._cutter = WindowCutter(warm_up, len(task.arm.joint_names))
        keep, period = settings.keep_series, settings.rate_limit_period or task.physics_period
        self.baselines = Baselines(task, keep)
        self.goals = GoalJudge(task, keep)
        self.judges = [
            Judges(ModelJudge(checkpoint, keep), PolicyJudge(checkpoint, settings.controller, period, keep))
            for checkpoint in checkpoints
        ]
        self.window_times: list[int] = []
        self._torque_places = lru_cache(maxsize=8)(self._find_places)
        self._pending: deque[ArmSample] = deque()
        self._waiting_goals: list[_Goal] = []
        self._newest: int | None = None
        self._samples = 0
        self._duration = 0.0
        self._steps = 0
        self._stretches = 0
        self._published_sum, self._published_count = 0.0, 0

    def add_joint_state(
        self,
        time: int,
        names: Sequence[str],
        position: ArrayLike,
        velocity: ArrayLike = (),
        effort: ArrayLike = (),
    ) -> None:
        """A joint state; arguments as of `ArmStateReader.read`, efforts (N·m) like velocities.

        What cannot be used is counted.
        """
        sample = self._reader.read(time, names, position, velocity)
        if isinstance(sample, Rejection):
            return
        if not sample.continues:
            self._process_until(None)
            if self._newest is not None and sample.time <= self._newest:
                self._restart()
        self._newest = sample.time
        self._pending.append(sample)
        if self.settings.measured_torque:
            self._add_torque(time, names, effort, "effort")
        self._process_until(sample.time - LAG)

    def add_torque(self, time: int, names: Sequence[str], torque: ArrayLike) -> None:
        """A commanded torque, N·m, one per name, with the stamp (ns) of the joint state that it answers."""
        if not self.settings.measured_torque:
            self._add_torque(time, names, torque, "torque")

    def _add_torque(self, time: int, names: Sequence[str], torque: ArrayLike, kind: str) -> None:
        values = np.asarray(torque, dtype=np.float64)
        if values.shape != (len(names),):
            self.counts[f"{kind} without one number per joint"] += 1
            return
        index = self._torque_places(tuple(names))
        if index is None:
            self.counts[f"{kind} that lacks joints of the arm"] += 1
            return
        self._builder.add_torque(time, values[index])

    def _find_places(self, names: tuple[str, ...]) -> list[int] | None:
        """Where the arm's joints stand among the names; None where one is missing."""
        wanted = self._reader.joint_names
        return [names.index(name) for name in wanted] if set(wanted) <= set(names) else None

    def add_goal(self, time: int, point: ArrayLike, frame: str = "", accepted: bool = True) -> None:
        """A goal; one that cannot be used is counted.

        Args:
            time: its stamp, ns; 0, or one far from the joint states' time: from now on.
            point: m, [3].
            frame: of the point; empty stands for the arm's base frame.
            accepted: by the controller. Others are checked as it would check them.
        """
        if frame.removeprefix("/") not in ("", self.task.arm.base_frame):
            self.counts[f"goal in the frame {frame}"] += 1
            return
        goal = np.asarray(point, dtype=np.float64)[: self.task.goal_dimensions]
        if not np.isfinite(goal).all():
            self.counts["goal that is not finite"] += 1
            return
        if not accepted:
            try:
                self._goal_checker.check(point)
            except GoalError:
                self.counts["goal that the controller would refuse"] += 1
                return
        now = self._newest or 0
        if not time or abs(time - now) > NANOSECONDS:
            time = now
        self._waiting_goals.append(_Goal(time, goal))

    @cached_property
    def _goal_checker(self) -> GoalChecker:
        return GoalChecker(self.task)

    def add_prediction(self, time: int) -> None:
        """The stamp of a prediction that the controller published, ns: when it expected its next control step."""
        self._builder.report_step(time - round(self.task.control_period * NANOSECONDS))

    def add_prediction_error(self, error: float) -> None:
        """What the controller published as its forward model's error, rad."""
        if np.isfinite(error):
            self._published_sum += error
            self._published_count += 1

    def finish(self) -> None:
        """The stream is over: judge what is still waiting."""
        self._process_until(None)
        self.goals.finish()
        self._judge_windows(self._cutter.take())
        for model, policy in self.judges:
            model.follow()
            policy.count()

    def _process_until(self, time: int | None) -> None:
        """Everything up to a time, ns; None: all."""
        while self._pending and (time is None or self._pending[0].time <= time):
            self._process(self._pending.popleft())

    def _process(self, sample: ArmSample) -> None:
        self._samples += 1
        self._duration += sample.period
        for waiting in [goal for goal in self._waiting_goals if goal.time < sample.time]:
            self._waiting_goals.remove(waiting)
            self.goals.set_goal(waiting.goal)
            for _, policy in self.judges:
                policy.set_goal(waiting.goal)
        outcome = self._builder.add(sample)
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

    def _judge_windows(self, windows: RecordedWindows | None) -> None:
        if windows is None:
            return
        if self.settings.keep_series:
            self.window_times += windows.time.tolist()
        self.baselines.add(windows, self._cutter.warm_up)
        for model, _ in self.judges:
            model.add_windows(windows, self._cutter.warm_up)

    def _restart(self) -> None:
        """Time jumped back: stamps of the past mean nothing any more."""
        self.counts["jump back in time"] += 1
        self._builder.restart()
        self._waiting_goals = [_Goal(0, goal.goal) for goal in self._waiting_goals]
        for _, policy in self.judges:
            policy.restart()

    def figures(self) -> dict[str, Any]:
        """Everything that is known by now, as plain data; errors are means.

        Returns:
            stream: joint states `used`, `rejected` and `waiting`, `duration_s`, `rate_hz`, `control_steps`, in how many
                `stretches`, and what was `dropped`, by reason.
            published: mean of the prediction errors that the controller published, rad, and how many.
            baselines: errors of "the state stays" and of linear extrapolation, by horizon, on as many `windows`.
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
                    "rejected": dict(sorted(self._reader.rejections.items())),
                    "estimated_velocities": self._reader.estimated_velocities,
                },
                "duration_s": self._duration,
                "rate_hz": (self._samples - 1) / self._duration if self._duration else None,
                "torques": "measured" if settings.measured_torque else "commanded",
                "torques_include_gravity": settings.includes_gravity,
                "control_steps": self._steps,
                "stretches": self._stretches,
                "dropped": dict(sorted((self.counts + self._builder.dropped).items())),
            },
            "published": {
                "prediction_error_rad": self._published_sum / self._published_count if self._published_count else None,
                "count": self._published_count,
            },
            "baselines": {
                "windows": self.baselines.stay.windows,
                "warm_up_steps": self._cutter.warm_up,
                "stay": self.baselines.stay.figures(),
                "linear": self.baselines.linear.figures(),
            },
            "goals": self.goals.figures(),
            "checkpoints": [
                {
                    "name": name,
                    "source": checkpoint.source,
                    "sha256": checkpoint.metadata["sha256"],
                    "forward_model": model.figures(),
                    "policy": policy.figures(),
                    "activity": {"policy": policy.meter.figures(), "forward_model": model.meter.figures()},
                }
                for name, checkpoint, (model, policy) in zip(self.names, self.checkpoints, self.judges, strict=True)
            ],
        }
