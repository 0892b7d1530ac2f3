"""The adaptation experiment: the arm changes while it works, with and without learning, goal by goal.

One run is one change, one way of learning and one seed. It is the controller and the trainer without the ROS graph
between them; learning happens at stated simulated times, between two control steps, so that a run is reproducible.
"""

import resource
from pathlib import Path
from typing import Final

import numpy as np

from spiking_controller.control.controller import ControllerSettings
from spiking_controller.experiments.adaptation.closed_loop import ClosedLoop, GoalOutcome, Step
from spiking_controller.experiments.adaptation.harm import spoil, spoilt
from spiking_controller.experiments.adaptation.plan import AdaptationPlan, Change, change_of
from spiking_controller.experiments.adaptation.records import Event, Footprint, GoalRow
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.prediction import PredictionError
from spiking_controller.online.experience import Experience
from spiking_controller.online.gate import held_back_windows, ten_step_error
from spiking_controller.online.learner import OnlineLearner, Proposal
from spiking_controller.online.model_update import Version
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.online.version_folder import VersionFolder
from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.segments import Segment
from spiking_controller.training.replay_memory import ReplayMemory

FIRST_SECONDS: Final = 10.0
"""After the change, of which every control step is kept, s; to the end of the goal that is under way then."""
VERSIONS_KEPT: Final = 50
"""In the folder of a run, as the trainer node does."""


class AdaptationRun:
    """One run, goal by goal.

    Attributes:
        rows: of the goals so far.
        footprints: likewise.
        first_steps: control steps after the change, see FIRST_SECONDS.
        running: the networks that drive the arm.
        events: versions that were let out, took over, were refused or rolled back.
    """

    def __init__(self, checkpoint: Checkpoint, plan: AdaptationPlan, directory: Path | None = None) -> None:
        """Prepare a run.

        Args:
            checkpoint: the networks to start with.
            plan: what is to happen.
            directory: an empty or new folder for what the trainer node would keep on disk: its memory, its versions and
                its decisions. None: in memory only.
        Raises:
            ConfigError: the folder cannot be used.
        """
        self.plan = plan
        self.rows: list[GoalRow] = []
        self.footprints: list[Footprint] = []
        self.first_steps: list[Step] = []
        self._directory = directory
        self.events: list[Event] = []
        self._first = checkpoint
        self._change = change_of(plan.change, len(checkpoint.task.arm.joint_names))
        self._codec = ObservationCodec(checkpoint.task)
        self.loop = ClosedLoop(
            checkpoint,
            TrackingWatch(plan.rollback_factor, plan.rollback_goals),
            ControllerSettings(disturbance_gain=float(plan.observer == "on")),
            plan.experience.segment_steps,
        )
        # Every arm of the experiment draws the same goals.
        task, rng = checkpoint.task, np.random.default_rng([plan.seed, *b"goals"])
        block = sample_goals(task, rng, plan.block)
        others = sample_goals(task, rng, plan.goals - 3 * plan.block)
        self._block = block
        self._goals = np.concatenate((others[: plan.lead], block, block, others[plan.lead :], block))
        learner_rng = np.random.default_rng([plan.seed, *b"experience"])
        memory = directory / "memory" if directory else None
        self.experience = Experience(task, plan.experience, learner_rng, memory)
        self._versions = VersionFolder(directory / "versions", VERSIONS_KEPT) if directory else None
        self.learner = OnlineLearner(checkpoint, self.experience, plan.online, plan.seed)
        self.running = checkpoint
        self._next_update = 0.0
        adapting = plan.change_at + plan.block
        span = plan.goals - plan.block - adapting
        # Harm is done well into the adaptation, when tracking has settled; the second time past the gate.
        self._spoil_at, self._force_from = adapting + span // 3, adapting + 2 * span // 3
        self._has_forced = plan.learning != "harmed"

    @property
    def goal(self) -> int:
        """Number of goals that are over."""
        return len(self.rows)

    @property
    def is_over(self) -> bool:
        """Whether the run is complete."""
        return self.goal >= self.plan.goals

    def advance(self) -> GoalRow:
        """One goal, and what happens between it and the next."""
        plan = self.plan
        if self.goal == plan.change_at:
            self.loop.change(*self._change)
            self._note("change", f"the arm changes: {plan.change}.")
            self.first_steps += self.loop.hold(plan.hold).steps
        if plan.learning == "harmed" and self.goal == self._spoil_at:
            self._harm_candidate()
        outcome = self.loop.reach(self._goals[self.goal], plan.goal_duration)
        if self.goal >= plan.change_at and self._since_change(outcome.start) < FIRST_SECONDS:
            self.first_steps += outcome.steps
        row = self._measure(outcome)
        self.rows.append(row)
        if plan.learning != "off":
            for segment in outcome.segments:
                self.experience.add(segment)
            if self.loop.time >= self._next_update:
                self._next_update += plan.update_period
                self._learn()
        if not self._has_forced and self.goal > self._force_from and self.loop.chain.is_settled:
            # Now, so that it takes over before the learner proposes what would take its place.
            self._has_forced = True
            self._force_harm()
        self._change_goal()
        self.footprints.append(self._footprint())
        return row

    def close(self) -> None:
        """Give the folder free."""
        self.experience.close()
        if self._versions is not None:
            self._versions.close()

    def without_integral(self) -> dict[str, float]:
        """Median final error over the measured goals with the networks alone, from home, m: no integral, no observer.

        Returns:
            `before` and `after`: of the first networks on the arm as it was and as it is; `end`: of the running ones.
        """
        changed = self._change
        cases = {
            "before": (self._first, Change(ArmCondition())),
            "after": (self._first, changed),
            "end": (self.running, changed),
        }
        errors = {}
        for phase, (checkpoint, condition) in cases.items():
            alone = ControllerSettings(integral_gain=0.0, disturbance_gain=0.0)
            loop = ClosedLoop(checkpoint, TrackingWatch(0.0, 1), alone)
            loop.change(*condition)
            errors[phase] = float(np.median(loop.errors(self._block, self.plan.goal_duration)))
        return errors

    def step_since_change(self, step: Step) -> Step:
        """The step with its time counted from the change."""
        return step._replace(time=self._since_change(step.time))

    def _since_change(self, time: float) -> float:
        return time - self.plan.change_at * self.plan.goal_duration

    def _note(self, kind: str, text: str) -> None:
        self.events.append(Event(self._since_change(self.loop.time), kind, text))

    def _footprint(self) -> Footprint:
        files = (path.stat() for path in self._directory.rglob("*")) if self._directory else ()
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Footprint(self._since_change(self.loop.time), kilobytes / 1e3, sum(file.st_size for file in files) / 1e6)

    def _measure(self, outcome: GoalOutcome) -> GoalRow:
        running = self._prediction_error(self.running, outcome.segments)
        is_first = self.running is self._first
        first = running if is_first else self._prediction_error(self._first, outcome.segments)
        return GoalRow(
            self.goal,
            self._since_change(outcome.start),
            self.plan.phase(self.goal),
            outcome.final_error_m,
            *running,
            *first,
            outcome.version,
        )

    def _prediction_error(self, checkpoint: Checkpoint, segments: tuple[Segment, ...]) -> PredictionError:
        """On the segments of one goal."""
        if not segments:
            return PredictionError(float("nan"), float("nan"))
        task, steps = checkpoint.task, self.plan.experience.segment_steps
        memory = ReplayMemory(len(segments), steps, self._codec.size, task.controlled_joints, task.goal_dimensions)
        for segment in segments:
            memory.add_segment(segment)
        warm_up = checkpoint.config.policy_updates.warm_up
        windows = held_back_windows(memory, warm_up)
        return ten_step_error(self._codec, checkpoint.forward_model, windows, warm_up)

    def _learn(self) -> None:
        """One update, and what comes of it."""
        if not self.learner.is_ready:
            return
        self.learner.update()
        before = self.learner.changes.copy()
        proposal = self.learner.propose()
        for name in self.learner.changes - before:
            self._note("noticed", f"the arm has changed, says the {name.replace('_', ' ')}.")
        self._offer(proposal)

    def _offer(self, proposal: Proposal) -> None:
        accepted = proposal.data is not None
        decision = (
            ("accepted", f"{proposal.sha256[:12]} {proposal.reason}") if accepted else ("rejected", proposal.reason)
        )
        self._note(*decision)
        if self._versions is not None:
            self._versions.log(": ".join(decision))
        if proposal.data is not None:
            if self._versions is not None:
                self._versions.add(proposal.sha256, proposal.data)
            self._send(self.learner.running)

    def _send(self, checkpoint: Checkpoint) -> None:
        """As over `model_update`."""
        if refusal := self.loop.chain.offer(Version.of(checkpoint)):
            self._note("refused", refusal)

    def _change_goal(self) -> None:
        """Versions take over and are rolled back; the learner follows."""
        chain = self.loop.chain
        before = chain.running.sha256
        if reason := self.loop.goal_changes():
            self._note("rollback", f"{before[:12]} gives way to {chain.running.sha256[:12]}: {reason}")
        elif chain.running.sha256 != before:
            self._note("takes over", chain.running.sha256[:12])
        if self.learner.follow(chain.tip):
            self._note("follows", f"the learner goes on from {chain.tip[:12]}.")
        if chain.running.sha256 != self.running.metadata["sha256"]:
            running = self.learner.known(chain.running.sha256)
            assert running is not None  # nothing is offered here that the learner does not know
            self.running = running

    def _harm_candidate(self) -> None:
        """Spoil what the learner is about to propose, and let it propose that."""
        spoil(self.learner.policy)
        self._note("harm", "the candidate's policy is spoilt.")
        self._offer(self.learner.propose())

    def _force_harm(self) -> None:
        """Send spoilt networks past the gate, as if they came from the trainer."""
        forced = spoilt(self.learner.running, self.loop.chain.tip)
        self._note("harm", f"{forced.metadata['sha256'][:12]} is sent past the gate.")
        self.learner.remember(forced)
        self._send(forced)
