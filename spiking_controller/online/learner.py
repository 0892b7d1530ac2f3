"""Learning while the arm works: improves running networks on recorded steps, and lets only better ones out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import (
    Checkpoint,
    build_networks,
    check_same_contract,
    dump_checkpoint,
    parse_checkpoint,
)
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.online.change_detector import ChangeDetector
from spiking_controller.online.experience import Experience
from spiking_controller.online.gate import PREDICTED_STEPS, Gate, Judgement, NetworkPair
from spiking_controller.online.symmetry import TurnedWindows
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.training.updates import NETWORKS, NetworkName, Updater

Network: TypeAlias = Policy | ForwardModel

_GOAL_POOL = 1000
_REMEMBERED = 10
_CHANGED_ERROR = 1.35
"""The arm has changed if the running forward model's relative error is so many times its usual one."""
_CHANGED_DISTANCE = 3.0
"""It needs another policy if goals end so many times farther away than usual."""


@dataclass(frozen=True)
class OnlineSettings:
    """How the networks learn, and what a candidate must show.

    Attributes:
        minimum_segments, minimum_held_back: nothing is learnt before there are so many of each.
        model_updates, policy_updates: gradient steps per call of `update`.
        model_learning_rate, policy_learning_rate: largest ones, of Adam. The forward model's is for while it errs
            clearly more than usual, the policy's for while goals end clearly farther away than usual. Usually it is the
            training's `final_rate`.
        model_weight_decay: λ of AdamW for the forward model; keeps it from remembering the few goals there are.
        annealing: calls of `update` in which the rates fall from the largest to the usual ones, as half a cosine
            (warm restarts; Loshchilov, Hutter 2017).
        margin: share by which a network's figure must improve on that of the running one.
        discard_margin: share by which a figure may be worse before the network's learning is thrown away.
        largest_move: the weights of a network move by at most this share of their Euclidean norm between two versions.
        largest_torque_change: the torques of two policies in a row differ by at most this share of the torque scale, on
            average over recorded states.
    """

    minimum_segments: int = 12
    minimum_held_back: int = 6
    model_updates: int = 20
    policy_updates: int = 20
    model_learning_rate: float = 1e-3
    policy_learning_rate: float = 5e-4
    model_weight_decay: float = 1.0
    annealing: int = 150
    margin: float = 0.03
    discard_margin: float = 0.25
    largest_move: float = 0.05
    largest_torque_change: float = 0.15

    def __post_init__(self) -> None:
        for name in ("minimum_segments", "minimum_held_back", "annealing"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1.")
        for name in ("largest_move", "largest_torque_change"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be above 0.")


class Losses(NamedTuple):
    """Means over the gradient steps of one call: the forward model's loss, and the imagined distance in m."""

    model_loss: float
    imagined_distance_m: float


class Proposal(NamedTuple):
    """What came of a candidate.

    Attributes:
        data: the bytes of its checkpoint; None if nothing is let out.
        sha256: of the checkpoint, empty if there is none.
        networks: which of the two networks were let out.
        reason: what became of either network and why, a sentence.
        judgement: of the candidate; None if it was not even judged.
        running: of the networks that ran.
    """

    data: bytes | None
    sha256: str
    networks: tuple[NetworkName, ...]
    reason: str
    judgement: Judgement | None = None
    running: Judgement | None = None


USUALLY_REACHED = 0.005
"""Goals that end closer than this are equally good, m."""


class OnlineLearner:
    """Trains copies of the running networks, and decides when they may take over.

    What may take over, the candidate, is the running mean of the trained weights, over about the gradient steps of one
    `update` (Polyak, Juditsky 1992): at rates that learn a changed arm in minutes, single steps scatter widely.
    Either network is judged by its own figure, so that a forward model that has learnt need not wait for the policy.

    Attributes:
        running: the version that candidates are compared with and trained on from.
        experience: what there is to learn from and to judge on.
        policy, forward_model: the candidate.
        change_detectors: of either network; they say at which share of the largest learning rates it learns now.
        changes: how many each of them has noticed.
    """

    def __init__(
        self, checkpoint: Checkpoint, experience: Experience, settings: OnlineSettings | None = None, seed: int = 0
    ) -> None:
        """Start from a checkpoint.

        Args:
            checkpoint: the version that runs.
            experience: segments are added to it elsewhere.
            settings: by default those of OnlineSettings.
            seed: of windows and imagined goals.
        Raises:
            ConfigError: the segments are shorter than the windows that the checkpoint's configuration learns from, or
                learning would wait for more segments than are kept.
        """
        self.settings = settings = settings or OnlineSettings()
        self.running = checkpoint
        self.experience = experience
        self._rng = np.random.default_rng(seed)
        task = checkpoint.task
        self._source = TurnedWindows(experience, task)
        self._candidate_predicts_better = False
        self._config = _gentle(checkpoint.config, settings)
        options = self._config.model_updates
        self._warm_up = max(options.warm_up, self._config.policy_updates.warm_up)
        longest = max(options.warm_up + options.unroll, self._warm_up + PREDICTED_STEPS)
        kept = experience.settings
        if kept.segment_steps < longest:
            raise ConfigError(
                f"segment_steps = {kept.segment_steps} is shorter than the {longest} control steps of a training "
                "window; make segments longer."
            )
        for fewest, most in (("minimum_segments", "recent_segments"), ("minimum_held_back", "held_back_segments")):
            if getattr(settings, fewest) > getattr(kept, most):
                raise ConfigError(
                    f"{fewest} = {getattr(settings, fewest)} must not exceed {most} = {getattr(kept, most)}."
                )
        reachable = sample_goals(task, self._rng, _GOAL_POOL, self._config.policy_updates.goals.hard)
        self._gate = Gate(task, reachable, self._warm_up, settings)
        self._updater = Updater(self._config, *build_networks(self._config), reachable)
        steps = {"policy": settings.policy_updates, "forward_model": settings.model_updates}
        self._means = {
            name: AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1.0 - 1.0 / max(steps[name], 1)))
            for name, (network, _) in self._updater.learners.items()
        }
        self.policy = cast(Policy, self._means["policy"].module)
        self.forward_model = cast(ForwardModel, self._means["forward_model"].module)
        usual_rate = checkpoint.config.final_rate
        self.change_detectors: dict[NetworkName, ChangeDetector] = {
            "policy": ChangeDetector(_CHANGED_DISTANCE, USUALLY_REACHED, settings.annealing, usual_rate),
            "forward_model": ChangeDetector(_CHANGED_ERROR, 0.0, settings.annealing, usual_rate),
        }
        self.changes: Counter[NetworkName] = Counter()
        for name in NETWORKS:
            self._updater.set_rate(name, usual_rate)
        self._known: dict[str, Checkpoint] = {}
        self.remember(checkpoint)
        self.discard()

    @property
    def is_ready(self) -> bool:
        """Whether there are enough segments to learn from and to judge on."""
        settings, experience = self.settings, self.experience
        enough = len(experience.recent) >= settings.minimum_segments
        return enough and len(experience.held_back) >= settings.minimum_held_back

    def remember(self, checkpoint: Checkpoint) -> None:
        """Know of a version that may be followed later.

        Raises:
            ModelContractError: it was made for something else than the networks that run.
        """
        check_same_contract(checkpoint.contract, self.running.contract, checkpoint.source)
        self._known[checkpoint.metadata["sha256"]] = checkpoint
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def known(self, sha256: str) -> Checkpoint | None:
        """The version of that hash, if it can be followed."""
        return self._known.get(sha256)

    def follow(self, sha256: str) -> bool:
        """Train on from a known version: after a rollback an earlier one, or one that somebody else has sent.

        If that is another one than the learner's own last, what the candidate's policy has learnt is lost. Its forward
        model goes on: what it knows of the arm is as true as before, and the gate compares it with the followed one.

        Returns:
            Whether anything changes.
        """
        if sha256 == self.running.metadata["sha256"]:
            return False
        self.running = self._known[sha256]
        self.discard(("policy",))
        self._limit_move("forward_model")
        return True

    def discard(self, names: tuple[NetworkName, ...] = NETWORKS) -> None:
        """Go back from the candidate to the running networks, and forget the optimisers' momentum."""
        for name in names:
            network, optimizer = self._updater.learners[name]
            for each in (network, self._candidate(name)):
                each.load_state_dict(self._running(name).state_dict())
            self._means[name].n_averaged.fill_(1)
            optimizer.state.clear()

    def update(self, should_stop: Callable[[], bool] = lambda: False) -> Losses:
        """Improve the networks: the forward model, then the policy through the better model. Needs `is_ready`.

        Args:
            should_stop: asked before every gradient step; true breaks off.
        Raises:
            NotFiniteError: a loss or gradient is not finite; `discard` restores the networks.
        """
        model_losses, distances = [], []
        imagined = self.forward_model if self._candidate_predicts_better else self.running.forward_model
        for _ in range(self.settings.model_updates):
            if not should_stop():
                model_losses.append(self._updater.update_model(self._source, self._rng, 1.0).error)
                self._means["forward_model"].update_parameters(self._updater.model)
        for _ in range(self.settings.policy_updates):
            if not should_stop():
                step = self._updater.update_policy(self._source, self._rng, 1.0, imagined)
                distances.append(step.distance)
                self._means["policy"].update_parameters(self._updater.policy)
        for name in NETWORKS:
            self._limit_move(name)
        return Losses(*(float(np.mean(values)) if values else float("nan") for values in (model_losses, distances)))

    def propose(self) -> Proposal:
        """Judge the candidate against the running networks. Needs `is_ready`.

        The policies are compared by their imagined roll-outs through the better one of the two forward models. A
        network that is not yet better goes on learning; one that is clearly worse is discarded.
        """
        if refused := [problem for name in NETWORKS if (problem := self._check_weights(name))]:
            return Proposal(None, "", (), " ".join(refused))
        running, candidate = self._gate.judge(
            self.experience.held_back,
            NetworkPair(self.running.policy, self.running.forward_model),
            NetworkPair(self.policy, self.forward_model),
        )
        self._candidate_predicts_better = candidate.joint_rad < running.joint_rad
        if not np.isfinite([*candidate, *running]).all():
            self.discard()
            return Proposal(None, "", (), f"the candidate's figures are not finite: {candidate}; it is discarded.")
        verdicts = self._gate.verdicts(running, candidate)
        self.discard(tuple(name for name, verdict in verdicts.items() if verdict.discarded))
        self._watch_for_changes(running.relative_error)
        accepted = tuple(name for name in NETWORKS if verdicts[name].accepted)
        reason = "; ".join(f"{name.replace('_', ' ')}: {verdicts[name].reason}" for name in reversed(NETWORKS)) + "."
        if not accepted:
            return Proposal(None, "", (), reason, candidate, running)
        data = self._dump(accepted, candidate, running)
        self.running = parse_checkpoint(data, "candidate")
        self.remember(self.running)
        return Proposal(data, self.running.metadata["sha256"], accepted, reason, candidate, running)

    def dump_candidate(self) -> bytes:
        """The candidate as a checkpoint file, whether it is good or not."""
        parent = self.running.metadata["sha256"]
        return dump_checkpoint(self.policy, self.forward_model, self.running.config, parent=parent)

    def _running(self, name: NetworkName) -> Network:
        return self.running.policy if name == "policy" else self.running.forward_model

    def _candidate(self, name: NetworkName) -> Network:
        return self.policy if name == "policy" else self.forward_model

    def _watch_for_changes(self, relative_error: float) -> None:
        """Learn fast, and mostly from what comes now, if the arm has changed.

        A few segments, or goals, tell little; no change is noticed until there are as many as are kept.
        """
        experience = self.experience
        held_back, distances = experience.held_back, experience.final_distances
        if len(held_back) == held_back.capacity and self._has_changed("forward_model", relative_error):
            # A change shows when about half of the held-back segments are of the changed arm.
            experience.start_anew(keep=held_back.capacity // 2 * (experience.settings.hold_back_every - 1))
        if len(distances) == distances.maxlen:
            self._has_changed("policy", float(np.median(distances)))
        for name, detector in self.change_detectors.items():
            self._updater.set_rate(name, detector.rate_fraction)

    def _has_changed(self, name: NetworkName, figure: float) -> bool:
        """Whether a change of the arm begins with a network's next figure."""
        begins = self.change_detectors[name].see(figure)
        self.changes[name] += begins
        return begins

    def _move(self, name: NetworkName) -> float:
        """How far the candidate's weights are from the running ones, as a share of the norm of these."""
        return _distance(self._candidate(name), self._running(name))

    def _limit_move(self, name: NetworkName) -> None:
        """Pull weights back towards the running ones if they went too far."""
        running = self._running(name)
        for network in (self._updater.learners[name][0], self._candidate(name)):
            fraction = self.settings.largest_move / max(_distance(network, running), 1e-12)
            if fraction >= 1.0:
                continue
            with torch.no_grad():
                for own, other in zip(network.parameters(), running.parameters(), strict=True):
                    own.copy_(other + fraction * (own - other))

    def _check_weights(self, name: NetworkName) -> str:
        """Discard a network whose weights are unusable; why, one sentence, or nothing."""
        if not all(bool(weight.isfinite().all()) for weight in self._candidate(name).parameters()):
            # The figures need not show it: a neuron with NaN just stays silent.
            self.discard((name,))
            return f"{name.replace('_', ' ')}: the weights hold NaN or infinity; it is discarded."
        move, largest = self._move(name), self.settings.largest_move
        if move > 1.001 * largest:
            self.discard((name,))
            return f"{name.replace('_', ' ')}: the weights moved by {move:.3f}, more than {largest:g}; it is discarded."
        return ""

    def _dump(self, accepted: tuple[NetworkName, ...], candidate: Judgement, running: Judgement) -> bytes:
        """The checkpoint of the networks that are let out, beside the running one of the other."""
        figures = {f"running_{name}": value for name, value in running._asdict().items()} | candidate._asdict()
        return dump_checkpoint(
            self.policy if "policy" in accepted else self.running.policy,
            self.forward_model if "forward_model" in accepted else self.running.forward_model,
            self.running.config,
            evaluation={
                "held_back_segments": len(self.experience.held_back),
                "networks": list(accepted),
                **{f"moved_{name}": self._move(name) for name in accepted},
                **figures,
            },
            parent=self.running.metadata["sha256"],
        )


def _gentle(config: TrainingConfig, settings: OnlineSettings) -> TrainingConfig:
    """The configuration of a run with the learning rates of online learning, constant over time."""
    return replace(
        config,
        constant_share=1.0,
        time_constant_learning_rate=settings.policy_learning_rate,
        model_updates=replace(
            config.model_updates,
            learning_rate=settings.model_learning_rate,
            weight_decay=settings.model_weight_decay,
        ),
        policy_updates=replace(config.policy_updates, learning_rate=settings.policy_learning_rate),
    )


def _distance(network: Network, other: Network) -> float:
    """Euclidean distance of the weights of two networks, as a share of the norm of the other's."""
    own, theirs = (torch.cat([p.detach().reshape(-1) for p in each.parameters()]) for each in (network, other))
    return float((own - theirs).norm() / theirs.norm())
