"""The joint training loop: collect episodes with the policy, teach the forward model, teach the policy through it.

Every random draw of an iteration comes from generators seeded by (run seed, iteration, purpose), so that a run that
was stopped and resumed continues exactly as if it had not been. An iteration's episodes are collected by the policy
with which it begins, and are learned from in the next one: so they can be simulated while the networks train.
"""

import csv
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from spiking_controller.errors import ConfigError, TrainingDivergedError
from spiking_controller.files import write_atomically
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, build_networks, save_checkpoint
from spiking_controller.networks.config import TrainingConfig, config_from_dict, config_to_dict
from spiking_controller.networks.rest import rest_metrics
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.metrics import reach_metrics, summarise
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.segments import Segment
from spiking_controller.training.collection import Collector, InlineCollector, ProcessCollector, first_episodes
from spiking_controller.training.diagnosis import (
    FINDING_COLUMNS,
    MEASUREMENT_COLUMNS,
    Condition,
    Finding,
    Measurement,
    Monitor,
    affected_rates,
    not_finite,
)
from spiking_controller.training.fine_tuning import start_from
from spiking_controller.training.losses import POLICY_LOSS_TERMS
from spiking_controller.training.replay_memory import ReplayMemory
from spiking_controller.training.seeds import Purpose, environment_seed, generator
from spiking_controller.training.updates import NetworkName, NotFiniteError, Updater

_GOAL_POOL = 4000
_REST_EPISODES = 64
"""So many episodes of an evaluation say what the networks do at rest, which they follow step by step once more."""
STATE_FILE = "training_state.safetensors"
"""What a stopped run continues from, in the folder of the run."""
LOG_FILE = "log.csv"
"""One line per iteration, in the folder of the run."""
_FINDINGS_FILE = "diagnosis.csv"
_REST_SHIFT = 0.5
"""Adapting to a silent or saturated layer moves the resting potential of such neurons by half a threshold."""
_EVALUATION_COLUMNS = (
    "final_error_m_median",
    "final_error_m_p90",
    "share_under_5cm",
    "share_under_2cm",
    "share_under_1cm",
    "rms_final_joint_speed_median",
    "mean_torque_rate_median",
    "hand_jitter_m_median",
    "posture_drift_rad_s_median",
    "rest_action_noise",
    "frozen_rate_hz",
    "rest_rate_hz",
    "moving_rate_hz",
    "model_rest_error_rad_s",
    "model_rest_change_rad_s",
    "model_rest_error_ratio",
    "model_rest_bias_rad_s",
)
_COLUMNS = (
    "iteration",
    "seconds",
    "episodes",
    "dropped_episodes",
    "model_loss",
    "policy_loss",
    "imagined_distance_m",
    "action_change",
    *MEASUREMENT_COLUMNS,
    *_EVALUATION_COLUMNS,
    *(f"policy_loss_{term}" for term in POLICY_LOSS_TERMS),
)


@dataclass(frozen=True)
class Progress:
    """What a run reports after each iteration.

    Attributes:
        iteration, iterations: done and planned.
        row: the line of the log.
        errors: last evaluation: median, p90, shares; empty before the first.
        findings: what is wrong with the run, since the last report.
    """

    iteration: int
    iterations: int
    row: dict[str, Any]
    errors: dict[str, float | None]
    findings: tuple[Finding, ...]


_Update = TypeVar("_Update")


class TrainingRun:
    """One run in one folder: networks, optimisers, replay memory, log and checkpoints."""

    def __init__(
        self,
        config: TrainingConfig,
        directory: Path,
        *,
        resume: bool = False,
        simulate_beside: bool = False,
        recorded: Sequence[Segment] = (),
        source: Checkpoint | None = None,
    ) -> None:
        """Start a run, or continue one from its last saved state.

        Args:
            config: of the run; a resumed run must have the same.
            directory: where everything is written.
            resume: continue the run in `directory`.
            simulate_beside: collect episodes in a second process while this one trains; the results are the same.
            recorded: segments as long as an episode, of which the forward model learns beside the first, random
                episodes; as many as the replay memory has room for, evenly chosen.
            source: checkpoint whose weights a new run starts from, see `fine_tuning`; its own optimisers, memory and
                schedules are not continued.
        Raises:
            ConfigError: the folder holds another run, or nothing to resume; `source` does not fit the configuration.
        """
        self.config = config
        self.directory = directory
        self.task = config.reach_task
        state_file = directory / STATE_FILE
        if resume and not state_file.is_file():
            raise ConfigError(f"{directory}: holds no {STATE_FILE} to resume; start without --resume.")
        if not resume and (directory / LOG_FILE).exists():
            raise ConfigError(
                f"{directory}: already holds a training run; add --resume to continue it or give another --out."
            )
        torch.manual_seed(config.seed)
        policy, model = build_networks(config)
        self._parent: str | None = None
        if source is not None:
            start_from(source, config, policy, model)
            self._parent = source.metadata["sha256"]
        rng = generator(config.seed, Purpose.GOAL_POOL, 0)
        self._updater = Updater(
            config, policy, model, sample_goals(self.task, rng, _GOAL_POOL, config.policy_updates.goals.hard)
        )
        task = self.task
        self._memory = ReplayMemory(
            config.replay_episodes,
            task.steps_per_episode,
            ObservationCodec(task).size,
            task.controlled_joints,
            task.goal_dimensions,
        )
        self._simulate_beside = simulate_beside
        self._recorded = recorded
        self._evaluation_env = ReachVectorEnv(task, config.evaluation_episodes)
        self.iteration = 0
        self._seconds = 0.0
        self._dropped = 0
        self.errors: dict[str, float | None] = {}
        self._monitor = Monitor(config)
        self._findings: list[Finding] = []
        self._fatal: Finding | None = None
        directory.mkdir(parents=True, exist_ok=True)
        if resume:
            self._load_state(state_file)
        else:
            (directory / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False))
        self._rewind(directory / LOG_FILE, _COLUMNS)
        self._rewind(directory / _FINDINGS_FILE, FINDING_COLUMNS)
        self._good = self._updater.snapshot()
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=self.iteration + 1)

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.directory / f"{self.config.reach_task.name}.safetensors"

    def run(self, report: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
        """Train until the planned iterations are done or `should_stop` says so between two of them; then save.

        Args:
            report: called after each iteration.
            should_stop: asked after each iteration.
        Raises:
            TrainingDivergedError: something is wrong and the run is configured to stop at it; everything is saved.
        """
        collector = ProcessCollector(self.config) if self._simulate_beside else InlineCollector(self.config)
        with closing(collector):
            self._run(collector, report, should_stop)
        self._board.close()
        if self._fatal is not None:
            raise TrainingDivergedError(self._fatal.sentence)

    def _run(self, collector: Collector, report: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
        began = time.perf_counter() - self._seconds
        if len(self._memory) == 0:
            self._first_episodes()
            if self._fatal is not None:
                self._save(numbered=False)
        while self._fatal is None and self.iteration < self.config.iterations:
            row = self._iterate(collector)
            self.iteration += 1
            evaluated = self.iteration % self.config.evaluate_every == 0 or self.iteration == self.config.iterations
            stop = should_stop() or self._fatal is not None
            if evaluated:
                self.errors = self._evaluate()
                row.update({name: self.errors[name] for name in _EVALUATION_COLUMNS})
            self._seconds = time.perf_counter() - began
            self._log(row)
            if evaluated or stop:
                self._save(numbered=evaluated)
            report(Progress(self.iteration, self.config.iterations, row, self.errors, tuple(self._findings)))
            self._findings.clear()
            if stop:
                break

    def _first_episodes(self) -> None:
        """The first episodes and recorded segments, from which the forward model learns before the policy acts."""
        episodes = first_episodes(self.config, self._updater.policy)
        self._dropped += self._memory.add(episodes)
        room = min(self.config.replay_episodes - len(self._memory), len(self._recorded))
        for index in range(room):
            self._memory.add_segment(self._recorded[index * len(self._recorded) // room])
        if self._parent is None and self.config.model_updates.targets == "normalised":
            kept = self._memory.observation[: len(self._memory)]
            self._updater.model.fit_scale(
                torch.from_numpy(kept[:, :-1].reshape(-1, kept.shape[-1])),
                torch.from_numpy(kept[:, 1:].reshape(-1, kept.shape[-1])),
            )
        self._good = self._updater.snapshot()
        rng = generator(self.config.seed, Purpose.UPDATES, 0)
        first = self.config.model_updates.first
        self._updates("forward_model", first, 0, lambda: self._updater.update_model(self._memory, rng, 0.0))

    def _iterate(self, collector: Collector) -> dict[str, Any]:
        """Update both networks while the next episodes are collected; returns the log line without evaluation."""
        config, number = self.config, self.iteration + 1
        progress = self.iteration / config.iterations
        collector.start(self._updater.policy, self._updater.model, number)
        rng = generator(config.seed, Purpose.UPDATES, number)
        waits = self._monitor.policy_waits
        model_updates = self._updates(
            "forward_model",
            config.model_updates.per_iteration * (2 if waits else 1),
            number,
            lambda: self._updater.update_model(self._memory, rng, progress),
        )
        policy_updates = self._updates(
            "policy",
            0 if waits else config.policy_updates.per_iteration,
            number,
            lambda: self._updater.update_policy(self._memory, rng, progress),
        )
        measurement = Measurement.of(config, model_updates, policy_updates)
        self._diagnose(number, measurement)
        self._dropped += self._memory.add(collector.episodes())
        return {
            "iteration": number,
            "episodes": self._memory.added,
            "dropped_episodes": self._dropped,
            "model_loss": _mean([update.error for update in model_updates]),
            "policy_loss": _mean([update.loss for update in policy_updates]),
            "imagined_distance_m": _mean([update.distance for update in policy_updates]),
            "action_change": _mean([update.action_change for update in policy_updates]),
            **measurement.columns(),
            **{
                f"policy_loss_{term}": _mean([update.terms[term] for update in policy_updates if term in update.terms])
                for term in POLICY_LOSS_TERMS
            },
        }

    def _updates(
        self, network: NetworkName, count: int, iteration: int, update: Callable[[], _Update]
    ) -> list[_Update]:
        """Carry out so many updates of a network. After NaN the rest is carried out only if the run adapts to it."""
        done: list[_Update] = []
        for _ in range(count if self._fatal is None else 0):
            try:
                done.append(update())
            except NotFiniteError as error:
                finding = self._monitor.judge(iteration, not_finite(self.config, network, str(error)))
                self._follow(finding)
                if finding.action != "adapt":
                    break
        return done

    def _diagnose(self, iteration: int, measurement: Measurement) -> None:
        """Look for what is wrong at the end of an iteration, and keep the networks to return to after NaN."""
        for network, (module, _) in self._updater.learners.items():
            if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
                symptom = not_finite(self.config, network, "its weights hold NaN or infinity")
                self._follow(self._monitor.judge(iteration, symptom))
        for finding in self._monitor.examine(iteration, measurement):
            self._follow(finding)
        self._good = self._updater.snapshot()

    def _follow(self, finding: Finding) -> None:
        """Log a finding and do what follows from it, except that `run` stops."""
        self._findings.append(finding)
        with (self.directory / _FINDINGS_FILE).open("a", newline="") as file:
            csv.DictWriter(file, FINDING_COLUMNS).writerow(finding.row())
        symptom = finding.symptom
        if finding.action == "stop" and self._fatal is None:
            self._fatal = finding
        if symptom.condition is Condition.NOT_FINITE and finding.action != "warn":
            self._updater.restore(self._good)
        if finding.action == "adapt":
            for name in affected_rates(symptom):
                self._updater.slow_down(name, 0.5)
            if symptom.layer is not None and symptom.neurons is not None:
                shift = _REST_SHIFT if symptom.condition is Condition.SILENT_LAYER else -_REST_SHIFT
                network = self._updater.learners[symptom.network][0].network
                assert isinstance(network, SpikingNetwork)  # no other has silent neurons
                network.shift_rest(symptom.layer, symptom.neurons, shift)

    def _evaluate(self) -> dict[str, float | None]:
        """The policy alone on this run's own validation goals, the same at every evaluation; both networks at rest."""
        seed = environment_seed(self.config.seed, Purpose.EVALUATION, 0)
        policy, model = self._updater.policy, self._updater.model
        episodes = run_episodes(self._evaluation_env, SpikingAgent(policy), seed=seed)
        at_rest = rest_metrics(policy, model, episodes.first(_REST_EPISODES), self.task)
        return {**summarise(reach_metrics(episodes, self.task)), **at_rest}

    def _log(self, row: dict[str, Any]) -> None:
        row["seconds"] = round(self._seconds, 1)
        with (self.directory / LOG_FILE).open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS).writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )
        for name, value in row.items():
            if name != "iteration" and value is not None:
                self._board.add_scalar(name, value, self.iteration)

    def _rewind(self, path: Path, columns: Sequence[str]) -> None:
        """Begin a log, or drop its lines after the saved state: those iterations will be done again."""
        rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["iteration"]) <= self.iteration]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def _save(self, *, numbered: bool) -> None:
        """Write the checkpoint (and at an evaluation a numbered copy), then the state to resume from."""
        updater = self._updater
        figures = {"iteration": self.iteration, "seconds": round(self._seconds, 1), **self.errors}
        paths = [self.checkpoint]
        if numbered:
            name = f"{self.config.reach_task.name}_{self.iteration:05d}.safetensors"
            paths.append(self.directory / "checkpoints" / name)
        for path in paths:
            save_checkpoint(path, updater.policy, updater.model, self.config, evaluation=figures, parent=self._parent)
        tensors: dict[str, Tensor] = {
            "memory.observation": torch.from_numpy(self._memory.observation[: len(self._memory)]),
            "memory.action": torch.from_numpy(self._memory.action[: len(self._memory)]),
            "memory.goal": torch.from_numpy(self._memory.goal[: len(self._memory)]),
        }
        for name, (network, optimizer) in self._updater.learners.items():
            tensors.update({f"{name}.{key}": value for key, value in network.state_dict().items()})
            for index, values in optimizer.state_dict()["state"].items():
                tensors.update({f"{name}.adam.{index}.{key}": value for key, value in values.items()})
        header = {
            "iteration": self.iteration,
            "seconds": self._seconds,
            "dropped": self._dropped,
            "added": self._memory.added,
            "errors": self.errors,
            "monitor": self._monitor.state(),
            "parent": self._parent,
            "config": config_to_dict(self.config),
        }
        data = serialise({k: v.contiguous() for k, v in tensors.items()}, metadata={"state": json.dumps(header)})
        write_atomically(self.directory / STATE_FILE, data)

    def _load_state(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        if config_from_dict(header["config"], str(path)) != self.config:
            raise ConfigError(
                f"{path}: was saved by a run with another configuration; resume with {self.directory / 'config.yaml'}."
            )
        self._monitor.restore(header.get("monitor", {}))
        self._parent = header.get("parent")
        for name, (network, optimizer) in self._updater.learners.items():
            own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
            network.load_state_dict({key: t for key, t in own.items() if not key.startswith("adam.")})
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in own.items():
                if key.startswith("adam."):
                    _, index, field = key.split(".")
                    state.setdefault(int(index), {})[field] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
            self._updater.slow_down(name, 0.5 ** self._monitor.halvings[name])
        count = len(tensors["memory.goal"])
        self._memory.observation[:count] = tensors["memory.observation"].numpy()
        self._memory.action[:count] = tensors["memory.action"].numpy()
        self._memory.goal[:count] = tensors["memory.goal"].numpy()
        self._memory.added = header["added"]
        self.iteration = header["iteration"]
        self._seconds = header["seconds"]
        self._dropped = header["dropped"]
        self.errors = header["errors"]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
