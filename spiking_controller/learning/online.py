"""Learning while the arm works: improves running networks on recorded segments, and lets only better ones out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from spiking_controller.errors import ConfigError
from spiking_controller.learning.checkpoint import Checkpoint, build_networks, dump_checkpoint, parse_checkpoint
from spiking_controller.learning.config import TrainingConfig
from spiking_controller.learning.prediction import (
    imagined_final_distance,
    open_loop_predictions,
    prediction_error,
)
from spiking_controller.learning.replay import ReplayMemory, Segment, Windows
from spiking_controller.learning.updates import Updater
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.observation import ObservationCodec

_GOAL_POOL = 1000
_STARTS_PER_SEGMENT = 4


@dataclass(frozen=True)
class OnlineSettings:
    """How the networks learn from segments.

    Attributes:
        segment_steps: control steps of a segment.
        memory_segments: the latest segments that are learnt from.
        held_back_segments: the latest segments that are only judged on.
        hold_back_every: one of so many segments is held back.
        minimum_segments, minimum_held_back: nothing is learnt before there are so many of each.
        model_updates, policy_updates: gradient steps per call of `update`.
        model_learning_rate, policy_learning_rate: of Adam. That of the time constants is the policy's.
        margin: share by which a candidate must improve on the running networks.
        tolerance: share by which it may be worse in the other figure.
    """

    segment_steps: int = 50
    memory_segments: int = 600
    held_back_segments: int = 60
    hold_back_every: int = 5
    minimum_segments: int = 16
    minimum_held_back: int = 4
    model_updates: int = 20
    policy_updates: int = 10
    model_learning_rate: float = 3e-4
    policy_learning_rate: float = 1e-4
    margin: float = 0.05
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        for name in ("memory_segments", "held_back_segments", "minimum_segments", "minimum_held_back"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.hold_back_every < 2:
            raise ConfigError(f"hold_back_every = {self.hold_back_every} must be at least 2.")
        for fewest, most in (("minimum_segments", "memory_segments"), ("minimum_held_back", "held_back_segments")):
            if getattr(self, fewest) > getattr(self, most):
                raise ConfigError(f"{fewest} = {getattr(self, fewest)} must not exceed {most} = {getattr(self, most)}.")


class Losses(NamedTuple):
    """Means over the gradient steps of one call: the forward model's loss, and the imagined distance in m."""

    model_loss: float
    imagined_distance_m: float


class Judgement(NamedTuple):
    """Figures of networks on held-back segments.

    Attributes:
        joint_rad, hand_m: error of the forward model `PREDICTED_STEPS` steps ahead in open loop.
        final_distance_m: at the end of imagined roll-outs of the policy.
    """

    joint_rad: float
    hand_m: float
    final_distance_m: float


class Proposal(NamedTuple):
    """What came of a candidate.

    Attributes:
        data: the bytes of its checkpoint; None if it is not let out.
        sha256: of the checkpoint, empty if there is none.
        reason: why it was or was not let out, a sentence.
    """

    data: bytes | None
    sha256: str
    reason: str


PREDICTED_STEPS = 10
"""The gate judges the forward model this many control steps ahead."""
IMAGINED_STEPS = 100
"""The gate judges the policy at the end of this many imagined control steps: where it ends, not how fast it starts."""


class OnlineLearner:
    """Trains a copy of the running networks, the candidate, and decides when it may take over.

    Attributes:
        running: the version that is in use as far as the learner knows.
        memory, held_back: the segments to learn from and those to judge on; both first in, first out.
        policy, forward_model: the candidate.
    """

    def __init__(self, checkpoint: Checkpoint, settings: OnlineSettings | None = None, seed: int = 0) -> None:
        """Start from a checkpoint.

        Args:
            checkpoint: the version that runs.
            settings: by default those of OnlineSettings.
            seed: of windows and imagined goals.
        Raises:
            ConfigError: the segments are shorter than the windows that the checkpoint's configuration learns from.
        """
        self.settings = settings or OnlineSettings()
        self.running = checkpoint
        self._rng = np.random.default_rng(seed)
        self._task = checkpoint.task
        self._codec = ObservationCodec(self._task)
        self._config = _gentle(checkpoint.config, self.settings)
        options = self._config.model_updates
        self._warm_up = max(options.warm_up, self._config.policy_updates.warm_up)
        longest = max(options.warm_up + options.unroll, self._warm_up + PREDICTED_STEPS)
        if self.settings.segment_steps < longest:
            raise ConfigError(
                f"segment_steps = {self.settings.segment_steps} is shorter than the {longest} control steps of a "
                "training window; make segments longer."
            )
        self._reachable = sample_goals(self._task, self._rng, _GOAL_POOL)
        self.memory = self._new_memory(self.settings.memory_segments)
        self.held_back = self._new_memory(self.settings.held_back_segments)
        self._segments = 0
        self.policy, self.forward_model = build_networks(self._config)
        self.discard()

    def _new_memory(self, capacity: int) -> ReplayMemory:
        task = self._task
        steps = self.settings.segment_steps
        return ReplayMemory(capacity, steps, self._codec.size, task.controlled_joints, task.goal_dimensions)

    def add(self, segment: Segment) -> None:
        """Keep a segment, to learn from or to judge on."""
        self._segments += 1
        memory = self.held_back if self._segments % self.settings.hold_back_every == 0 else self.memory
        memory.add_segment(segment)

    @property
    def is_ready(self) -> bool:
        """Whether there are enough segments to learn from and to judge on."""
        settings = self.settings
        return len(self.memory) >= settings.minimum_segments and len(self.held_back) >= settings.minimum_held_back

    def discard(self) -> None:
        """Go back from the candidate to the running networks, and forget the optimisers' momentum."""
        self.policy.load_state_dict(self.running.policy.state_dict())
        self.forward_model.load_state_dict(self.running.forward_model.state_dict())
        self._updater = Updater(self._config, self.policy, self.forward_model, self._reachable)

    def update(self, should_stop: Callable[[], bool] = lambda: False) -> Losses:
        """Improve the candidate: first its forward model, then its policy through that. Needs `is_ready`.

        Args:
            should_stop: asked before every gradient step; true breaks off.
        Raises:
            NotFiniteError: a loss or gradient is not finite; `discard` mends it.
        """
        model_losses, distances = [], []
        for _ in range(self.settings.model_updates):
            if not should_stop():
                model_losses.append(self._updater.update_model(self.memory, self._rng, 1.0).error)
        for _ in range(self.settings.policy_updates):
            if not should_stop():
                distances.append(self._updater.update_policy(self.memory, self._rng, 1.0).distance)
        return Losses(*(float(np.mean(values)) if values else float("nan") for values in (model_losses, distances)))

    def propose(self) -> Proposal:
        """Judge the candidate against the running networks. Needs `is_ready`.

        The policies are compared by their imagined roll-outs through the better one of the two forward models. A
        candidate that is not yet better goes on learning; one that is clearly worse is discarded.
        """
        weights = [*self.policy.parameters(), *self.forward_model.parameters()]
        if not all(bool(weight.isfinite().all()) for weight in weights):
            # The figures need not show it: a neuron with NaN just stays silent.
            self.discard()
            return Proposal(None, "", "the candidate's weights hold NaN or infinity; it is discarded.")
        running, candidate = self._judge()
        settings = self.settings
        gains = {
            "10-step prediction error (rad)": (candidate.joint_rad, running.joint_rad),
            "imagined final distance (m)": (candidate.final_distance_m, running.final_distance_m),
        }
        comparison = "; ".join(f"{name} {new:.5f}, running {old:.5f}" for name, (new, old) in gains.items())
        share = {name: 1.0 - new / max(old, 1e-9) for name, (new, old) in gains.items()}
        if not np.isfinite([*candidate, *share.values()]).all():
            self.discard()
            return Proposal(None, "", f"the candidate's figures are not finite and it is discarded: {comparison}.")
        worst = min(share, key=lambda name: share[name])
        if share[worst] < -settings.tolerance:
            discarded = share[worst] < -settings.margin
            if discarded:
                self.discard()
            verdict = "discarded" if discarded else "goes on learning"
            return Proposal(None, "", f"the candidate is worse in {worst} and {verdict}: {comparison}.")
        if max(share.values()) < settings.margin:
            return Proposal(None, "", f"the candidate is not better by {settings.margin:.0%}: {comparison}.")
        figures = {f"running_{name}": value for name, value in running._asdict().items()} | candidate._asdict()
        data = dump_checkpoint(
            self.policy,
            self.forward_model,
            self.running.config,
            evaluation={"held_back_segments": len(self.held_back), **figures},
            parent=self.running.metadata["sha256"],
        )
        self.running = parse_checkpoint(data, "candidate")
        return Proposal(data, self.running.metadata["sha256"], f"the candidate is better: {comparison}.")

    def _judge(self) -> tuple[Judgement, Judgement]:
        """Running and candidate networks on the same held-back windows and goals."""
        length = self._warm_up + PREDICTED_STEPS
        starts = np.linspace(0, self.settings.segment_steps - length, _STARTS_PER_SEGMENT).astype(int)
        grid = np.meshgrid(np.arange(len(self.held_back)), starts, indexing="ij")
        segment, start = (values.reshape(-1) for values in grid)
        windows = self.held_back.windows_at(segment, start, length)
        measured = windows.observation[-1]
        errors = [
            prediction_error(self._codec, open_loop_predictions(model, windows, self._warm_up)[-1], measured)
            for model in (self.running.forward_model, self.forward_model)
        ]
        # Half of the roll-outs hold or reach what was asked for, half go somewhere else; the same in every judgement.
        elsewhere = self._reachable[np.arange(len(segment)) % len(self._reachable)]
        goal = np.where((np.arange(len(segment)) % 2 == 0)[:, None], windows.goal, elsewhere)
        better = self.forward_model if errors[1].joint_rad < errors[0].joint_rad else self.running.forward_model
        start_windows = _last_steps(windows, self._warm_up)
        distances = [
            imagined_final_distance(policy, better, start_windows, goal, IMAGINED_STEPS)
            for policy in (self.running.policy, self.policy)
        ]
        running, candidate = (
            Judgement(error.joint_rad, error.hand_m, distance)
            for error, distance in zip(errors, distances, strict=True)
        )
        return running, candidate


def _gentle(config: TrainingConfig, settings: OnlineSettings) -> TrainingConfig:
    """The configuration of a run with the learning rates of online learning, constant over time."""
    return replace(
        config,
        constant_share=1.0,
        time_constant_learning_rate=settings.policy_learning_rate,
        model_updates=replace(config.model_updates, learning_rate=settings.model_learning_rate),
        policy_updates=replace(config.policy_updates, learning_rate=settings.policy_learning_rate),
    )


def _last_steps(windows: Windows, steps: int) -> Windows:
    """The last steps of windows."""
    return Windows(
        windows.observation[-steps - 1 :], windows.action[-steps:], windows.previous_action[-steps:], windows.goal
    )
