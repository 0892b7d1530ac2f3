"""Judges policies on a recorded stream: what the controller would have commanded in their name."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.controller import Controller, ControllerSettings
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.evaluation.complexity import CostMeter
from spiking_controller.evaluation.replay.model_judge import FOLLOWED
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.features import State
from spiking_controller.streams.control_steps import ControlStep

FloatArray = NDArray[np.float64]

SHOWN_STEPS = 1500
"""So many first control steps are kept to be drawn."""


class _MeteredAgent(SpikingAgent):
    """A policy whose steps are counted."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint.policy)
        self.meter = CostMeter(checkpoint.policy)
        self._steps: list[tuple[torch.Tensor, ...]] = []
        self._states: list[State] = []
        self._fired: list[tuple[torch.Tensor, ...]] = []

    def act(self, observation: NDArray[np.floating], goal: NDArray[np.floating]) -> FloatArray:
        """See `SpikingAgent.act`."""
        self._states.append(self._policy_state)
        seen = (torch.from_numpy(values.astype(np.float32)) for values in (observation, goal))
        self._steps.append((*seen, self._previous_action))
        action = super().act(observation, goal)
        self._fired.append(tuple(self._spikes.values()))
        if len(self._steps) == FOLLOWED:
            self.count()
        return action

    def count(self) -> None:
        """Count the steps that wait."""
        if not self._steps:
            return
        observation, goal, previous = (torch.cat(parts) for parts in zip(*self._steps, strict=True))
        with torch.inference_mode():
            features = self._policy.inputs(observation, previous, goal)
        self.meter.add_singles(features, self._states, self._fired)
        for waiting in (self._steps, self._states, self._fired):
            waiting.clear()


class PolicyJudge:
    """One checkpoint's policy inside the controller: the same torque law, soft start, set-point integral and filter.

    The arm does not follow it: every joint state is the recorded one. Its own last action is what it remembers.

    Attributes:
        meter: what its steps cost, FOLLOWED of them at a time.
        shown: time (ns), recorded and wanted torque, N·m, [n] each, of the first control steps.
        differences: of each compared control step: time (ns) and root mean square over the controlled joints, N·m.
    """

    def __init__(self, checkpoint: Checkpoint, settings: ControllerSettings, rate_limit_period: float, keep: bool):
        """Judge a checkpoint.

        Args:
            checkpoint: with the policy.
            settings: of the controller.
            rate_limit_period: between two joint states, s; see `SafetyFilter`.
            keep: fill `shown` and `differences`.
        """
        task = checkpoint.task
        agent = _MeteredAgent(checkpoint)
        safety = SafetyFilter(task.arm.limits, task.soft_limit_fraction, rate_limit_period)
        self.meter = agent.meter
        self.count = agent.count
        self.shown: list[tuple[int, FloatArray, FloatArray]] = []
        self.differences: list[tuple[int, float]] = []
        self._controller = Controller(task, agent, settings, safety)
        self._joints = task.controlled_joints
        self._keep = keep
        self._commands: dict[int, FloatArray] = {}
        self._torques = 0
        self._compared = 0
        self._difference = np.zeros(len(task.arm.joint_names))
        self._recorded = np.zeros(len(task.arm.joint_names))

    def set_goal(self, goal: FloatArray) -> None:
        """Another goal from now on, m, [d]."""
        self._controller.set_goal(goal)

    def tick(self, sample: ArmSample) -> None:
        """A joint state."""
        self._commands[sample.time] = self._controller.update(sample).torque
        self._torques += 1

    def compare(self, step: ControlStep) -> None:
        """A control step is over: compare what was done with what would have been."""
        wanted = self._commands.get(step.torque_time)
        for time in [time for time in self._commands if time < step.time]:
            del self._commands[time]
        if step.torque is None or wanted is None:
            return
        difference = wanted - step.torque
        self._compared += 1
        self._difference += np.square(difference)
        self._recorded += np.square(step.torque)
        if self._keep:
            size = float(np.sqrt(np.mean(np.square(difference[: self._joints]))))
            self.differences.append((step.time, size))
            if len(self.shown) < SHOWN_STEPS:
                self.shown.append((step.torque_time, step.torque, wanted))

    def restart(self) -> None:
        """Time jumped."""
        self._commands.clear()

    def metrics(self) -> dict[str, Any]:
        """See `evaluator.ReplayEvaluator.metrics`."""
        interventions = self._controller.safety.interventions
        joints, count = self._joints, self._compared
        rms = np.sqrt(self._difference / count) if count else None
        recorded = np.sqrt(self._recorded / count) if count else None
        return {
            "compared_steps": count,
            "torque_difference_rms": None if rms is None else float(np.sqrt(np.mean(np.square(rms[:joints])))),
            "torque_difference_rms_by_joint": None if rms is None else rms.tolist(),
            "recorded_torque_rms": None if recorded is None else float(np.sqrt(np.mean(np.square(recorded[:joints])))),
            "recorded_torque_rms_by_joint": None if recorded is None else recorded.tolist(),
            "torques": self._torques,
            "interventions": dict(sorted(interventions.items())),
            "events": dict(sorted(self._controller.events.items())),
        }
