"""Measures how a recorded run reached its goals, with the metrics that training and evaluation use."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiking_controller.streams.control_steps import ControlStep
from spiking_controller.tasks.episodes import Episodes
from spiking_controller.tasks.metrics import FINAL_TIME, Metrics, reach_metrics, summarise
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask

FloatArray = NDArray[np.float64]

MOVED = 0.16
"""A goal that was in force for no longer than this, s, before another one close to it"""
NEAR = 0.17
"""by this, m, was one of a stream that moves: see `control.moving_goal`."""
HELD = 1e-3
"""A goal that the hand is closer to than this when it is set is the hand's own place, where it waits, m."""


class GoalJudge:
    """Follows a run goal by goal.

    Attributes:
        goal: that is in force, m, [d]; None before the first.
        distances: of each control step on the way to a goal, time (ns) and hand-to-goal distance, m.
        goals: of each goal when it was set, ns, where it lies, m, and its metrics.
    """

    def __init__(self, task: ReachTask, keep_series: bool) -> None:
        self.distances: list[tuple[int, float]] = []
        self.goals: list[tuple[int, FloatArray, Metrics]] = []
        self._task = task
        self._codec = ObservationCodec(task)
        self._keep_series = keep_series
        self.goal: FloatArray | None = None
        self._steps: list[ControlStep] = []
        self._not_counted = {"too short": 0, "the hand's own place": 0, "moving": 0}
        self._is_moving = False

    def set_goal(self, goal: FloatArray) -> None:
        """Another goal from the next control step on, m, [d]."""
        was_brief = len(self._steps) * self._task.control_period <= MOVED
        if self.goal is not None and was_brief and np.linalg.norm(goal - self.goal) < NEAR:
            if not np.array_equal(goal, self.goal):
                self._not_counted["moving"] += not self._is_moving
                self._is_moving = True
                self._steps.clear()
        else:
            self._is_moving = False
            self.finish()
        self.goal = goal

    def add(self, step: ControlStep) -> None:
        """A control step."""
        if self._steps and not step.continues:
            self.finish()
        if self.goal is None:
            return
        self._steps.append(step)
        if self._keep_series:
            self.distances.append((step.time, float(self._distance(step.observation, self.goal))))

    def _distance(self, observation: FloatArray, goal: FloatArray) -> FloatArray:
        """From the hand to the goal, m, [...], in observations [..., observation]."""
        return np.asarray(np.linalg.norm(self._codec.hand_position(observation) - goal, axis=-1))

    def finish(self) -> None:
        """The way to the present goal ends here, or goes on after a gap as another one."""
        steps, self._steps = self._steps, []
        if not steps or self.goal is None:
            return
        observation = np.array([*(step.observation for step in steps), steps[-1].following])
        distance = self._distance(observation, self.goal)
        if distance[0] < HELD:
            self._not_counted["the hand's own place"] += 1
        elif len(steps) * self._task.control_period < 2 * FINAL_TIME:
            self._not_counted["too short"] += 1
        else:
            self.goals.append((steps[0].time, self.goal, self._metrics(steps, observation, distance)))

    def _metrics(self, steps: list[ControlStep], observation: FloatArray, distance: FloatArray) -> Metrics:
        assert self.goal is not None
        nothing = np.zeros((1, len(steps), 1), np.float32)
        rate = np.array([step.torque_rate for step in steps])
        known = np.isfinite(rate)
        # Steps of which no torque is known count like the others on average.
        rate = np.where(known, rate, rate[known].mean() if known.any() else 0.0)
        episode = Episodes(
            observation=observation[None].astype(np.float32),
            action=nothing,
            goal=self.goal[None].astype(np.float32),
            distance=distance[None],
            torque=nothing,
            torque_rate=rate[None].astype(np.float32),
            intervened=nothing[..., 0],
            valid_steps=np.array([len(steps)]),
        )
        metrics = reach_metrics(episode, self._task)
        # A bag does not tell what the filter that was there has changed.
        del metrics["intervention_share"], metrics["ended_early"]
        if not known.any():
            del metrics["mean_torque_rate"]
        return metrics

    def metrics(self) -> dict[str, Any]:
        """See `evaluator.ReplayEvaluator.metrics`."""
        names = set.intersection(*(set(metrics) for _, _, metrics in self.goals)) if self.goals else set()
        together = {
            name: np.concatenate([metrics[name] for _, _, metrics in self.goals])
            for name in (self.goals[0][2] if self.goals else ())
            if name in names
        }
        return {
            "goals": len(self.goals),
            "not_counted": {reason: count for reason, count in self._not_counted.items() if count},
            "summary": summarise(together) if together else {},
            "each": [
                {
                    "time_ns": time,
                    "goal": goal.tolist(),
                    **{name: float(value[0]) for name, value in metrics.items()},
                }
                for time, goal, metrics in self.goals
            ],
        }
