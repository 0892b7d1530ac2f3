"""Online learning: it improves what runs, lets nothing worse out, and stays within its memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spiking_controller.errors import ConfigError, ModelContractError
from spiking_controller.networks.agent import ExploringAgent
from spiking_controller.networks.checkpoint import (
    Checkpoint,
    build_networks,
    dump_checkpoint,
    load_checkpoint,
    parse_checkpoint,
)
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.deployment import Precision, deployed
from spiking_controller.online.experience import Experience, ExperienceSettings
from spiking_controller.online.learner import OnlineLearner, OnlineSettings
from spiking_controller.resources import share_path
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes
from spiking_controller.tasks.segments import Segment

STEPS = 32
KEPT = ExperienceSettings(segment_steps=STEPS)
QUICK = OnlineSettings(
    minimum_segments=16,
    minimum_held_back=4,
    model_updates=60,
    policy_updates=5,
    model_learning_rate=1e-1,
    policy_learning_rate=1e-2,
    largest_move=10.0,
)


@pytest.fixture
def segments(small_config: TrainingConfig) -> list[Segment]:
    """Of an arm moved by noise, cut from whole episodes."""
    env = ReachVectorEnv(small_config.reach_task, 8, threads=1)
    agent = ExploringAgent(None, 2, 0.4, 0.9, np.random.default_rng(5))
    episodes = run_episodes(env, agent, seed=5)
    found = []
    for row in range(8):
        for start in range(STEPS, episodes.action.shape[1] - STEPS + 1, STEPS):
            found.append(
                Segment(
                    episodes.observation[row, start : start + STEPS + 1],
                    episodes.action[row, start : start + STEPS],
                    episodes.action[row, start - 1],
                    episodes.goal[row],
                )
            )
    return found


@pytest.fixture
def untrained(small_config: TrainingConfig, segments: list[Segment]) -> Checkpoint:
    """A checkpoint whose forward model knows the size of the changes and nothing more."""
    policy, model = build_networks(small_config)
    seen = torch.from_numpy(np.stack([segment.observation for segment in segments]))
    model.fit_scale(seen[:, :-1].flatten(0, 1), seen[:, 1:].flatten(0, 1))
    return parse_checkpoint(dump_checkpoint(policy, model, small_config), "untrained")


def experience(checkpoint: Checkpoint, kept: ExperienceSettings = KEPT) -> Experience:
    return Experience(checkpoint.task, kept, np.random.default_rng(0))


def filled(checkpoint: Checkpoint, segments: list[Segment], settings: OnlineSettings = QUICK) -> OnlineLearner:
    learner = OnlineLearner(checkpoint, experience(checkpoint), settings)
    for segment in segments:
        learner.experience.add(segment)
    return learner


def shipped() -> Checkpoint:
    return load_checkpoint(share_path("models", "planar_reach.safetensors"))


def disturb(network: torch.nn.Module, deviation: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(deviation * torch.randn(parameter.shape, generator=generator))


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_learning_lowers_the_prediction_error_and_the_better_candidate_is_let_out(
    untrained: Checkpoint, segments: list[Segment]
) -> None:
    learner = filled(untrained, segments, replace(QUICK, policy_updates=0))
    first = learner.update().model_loss
    for _ in range(5):
        last = learner.update().model_loss
    assert last < first
    proposal = learner.propose()
    assert proposal.data is not None, proposal.reason
    candidate = parse_checkpoint(proposal.data, "candidate")
    assert candidate.metadata["parent"] == untrained.metadata["sha256"]
    assert candidate.metadata["sha256"] == proposal.sha256
    assert candidate.contract == untrained.contract
    assert proposal.networks == ("forward_model",)
    figures = candidate.metadata["evaluation"]
    assert figures["joint_rad"] < 0.95 * figures["running_joint_rad"]
    assert same_weights(candidate.policy, untrained.policy)
    assert learner.running.metadata["sha256"] == proposal.sha256


def test_a_candidate_that_has_learnt_nothing_is_not_let_out(untrained: Checkpoint, segments: list[Segment]) -> None:
    proposal = filled(untrained, segments).propose()
    assert proposal.data is None
    assert proposal.reason.count("not better by 3%") == 2


@pytest.mark.parametrize("network", ["policy", "forward_model"])
def test_a_harmful_network_is_refused_by_its_figures_and_discarded(segments: list[Segment], network: str) -> None:
    learner = filled(shipped(), segments, replace(QUICK, largest_torque_change=10.0))
    harmed = getattr(learner, network)
    disturb(harmed, 0.3)
    proposal = learner.propose()
    assert proposal.data is None
    assert "worse and discarded" in proposal.reason
    assert same_weights(harmed, getattr(learner.running, network))


def test_a_policy_whose_torques_differ_too_much_is_refused(segments: list[Segment]) -> None:
    learner = filled(shipped(), segments)
    disturb(learner.policy, 0.3)
    proposal = learner.propose()
    assert proposal.data is None
    assert "policy: changes the torque by" in proposal.reason
    assert proposal.judgement is not None
    assert proposal.judgement.torque_change > QUICK.largest_torque_change


@pytest.mark.parametrize("network", ["policy", "forward_model"])
def test_weights_that_moved_too_far_are_refused_unseen(segments: list[Segment], network: str) -> None:
    learner = filled(shipped(), segments, replace(QUICK, largest_move=0.05))
    disturb(getattr(learner, network), 0.3)
    proposal = learner.propose()
    assert proposal.data is None
    assert "the weights moved by" in proposal.reason
    assert same_weights(getattr(learner, network), getattr(learner.running, network))


def changed_arm(segments: list[Segment], times: int) -> list[Segment]:
    """Of an arm whose motors give less than they are told to."""
    return [segment._replace(action=0.3 * segment.action) for segment in segments] * times


def test_a_forward_model_that_errs_more_than_usual_learns_fast_and_from_what_is_new(segments: list[Segment]) -> None:
    checkpoint = shipped()
    learner = OnlineLearner(checkpoint, experience(checkpoint, replace(KEPT, held_back_segments=6)), QUICK)
    for segment in segments:
        learner.experience.add(segment)
    usual, detectors = checkpoint.config.final_rate, learner.change_detectors
    adam = learner._updater.model_optimizer
    assert adam.param_groups[0]["full_rate"] == pytest.approx(usual * QUICK.model_learning_rate)
    learner.propose()
    learner.propose()
    assert detectors["forward_model"].rate_fraction == pytest.approx(usual)
    known = len(learner.experience.recent)
    for segment in changed_arm(segments, 1):
        learner.experience.add(segment)
    added = len(learner.experience.recent) - known
    learner.propose()
    assert detectors["forward_model"].rate_fraction == 1.0
    assert adam.param_groups[0]["full_rate"] == pytest.approx(QUICK.model_learning_rate)
    assert len(learner.experience.recent) == 9, "the latest, as many as half of the held-back ones stand for"
    assert len(learner.experience.old) == known + added
    assert detectors["policy"].rate_fraction == pytest.approx(usual), "goals end where they always did"


def test_a_policy_whose_goals_end_farther_away_than_usual_learns_fast(segments: list[Segment]) -> None:
    learner = filled(shipped(), segments)
    detectors, distances = learner.change_detectors, learner.experience.final_distances
    for distance in (0.001, 0.004, 0.001, 0.02):
        distances.extend([distance] * 10)
        learner.propose()
        assert (detectors["policy"].rate_fraction == 1.0) == (distance > 0.01), distance
    assert detectors["forward_model"].rate_fraction < 1.0


def test_learning_never_moves_weights_farther_than_allowed(segments: list[Segment]) -> None:
    learner = filled(shipped(), segments, replace(QUICK, largest_move=0.001))
    learner.update()
    assert learner._move("forward_model") == pytest.approx(0.001, rel=1e-3)
    assert 0.0 < learner._move("policy") < 0.001 * 1.001


def test_only_the_network_that_is_better_is_let_out(untrained: Checkpoint, segments: list[Segment]) -> None:
    learner = filled(untrained, segments, replace(QUICK, policy_updates=0))
    for _ in range(8):
        learner.update()
    disturb(learner.policy, 1e-4)
    proposal = learner.propose()
    assert proposal.networks == ("forward_model",), proposal.reason
    assert same_weights(learner.running.policy, untrained.policy)
    assert not same_weights(learner.policy, untrained.policy), "the policy learns on"


def test_after_a_rollback_learning_goes_on_from_the_earlier_version(
    untrained: Checkpoint, segments: list[Segment]
) -> None:
    learner = filled(untrained, segments, QUICK)
    for _ in range(8):
        learner.update()
    proposal = learner.propose()
    assert not learner.follow(proposal.sha256), "that is where it is"
    assert learner.known(untrained.metadata["sha256"]) is not None
    assert learner.follow(untrained.metadata["sha256"])
    assert same_weights(learner.policy, untrained.policy)
    # What the forward model has learnt of the arm stays true.
    proposed = learner.known(proposal.sha256)
    assert proposed is not None
    assert same_weights(learner.forward_model, proposed.forward_model)
    again = learner.propose()
    assert again.networks == ("forward_model",)
    assert learner.known("unheard of") is None


def test_versions_of_others_are_followed_if_they_are_made_for_the_same(
    untrained: Checkpoint, segments: list[Segment]
) -> None:
    learner = filled(untrained, segments)
    policy, model = build_networks(replace(untrained.config, seed=77))
    other = parse_checkpoint(dump_checkpoint(policy, model, untrained.config), "other")
    learner.remember(other)
    assert learner.follow(other.metadata["sha256"])
    assert same_weights(learner.policy, policy)
    with pytest.raises(ModelContractError, match="task is 'panda_reach'"):
        learner.remember(load_checkpoint(share_path("models", "panda_reach.safetensors")))


def test_the_candidate_can_be_saved_as_it_is(untrained: Checkpoint, segments: list[Segment]) -> None:
    learner = filled(untrained, segments)
    learner.update()
    saved = parse_checkpoint(learner.dump_candidate(), "candidate")
    assert same_weights(saved.policy, learner.policy)
    assert saved.metadata["parent"] == untrained.metadata["sha256"]


def test_a_candidate_with_nan_is_refused_and_discarded(untrained: Checkpoint, segments: list[Segment]) -> None:
    learner = filled(untrained, segments)
    with torch.no_grad():
        next(learner.forward_model.parameters()).fill_(torch.nan)
    proposal = learner.propose()
    assert proposal.data is None
    assert "NaN" in proposal.reason
    assert all(parameter.isfinite().all() for parameter in learner.forward_model.parameters())


def test_an_update_that_is_told_to_stop_changes_nothing(untrained: Checkpoint, segments: list[Segment]) -> None:
    learner = filled(untrained, segments)
    learner.update(lambda: True)
    for network in ("policy", "forward_model"):
        for name, tensor in getattr(learner, network).state_dict().items():
            assert torch.equal(tensor, getattr(untrained, network).state_dict()[name])


def test_learning_waits_for_enough_segments(untrained: Checkpoint, segments: list[Segment]) -> None:
    kept = experience(untrained, replace(KEPT, hold_back_every=2))
    learner = OnlineLearner(untrained, kept, replace(QUICK, minimum_segments=4, minimum_held_back=1))
    of_first_goal = [segment for segment in segments if np.array_equal(segment.goal, segments[0].goal)]
    for segment in of_first_goal:
        learner.experience.add(segment)
    assert len(of_first_goal) >= 4
    assert not learner.is_ready, "nothing is held back yet"
    learner.experience.add(segments[len(of_first_goal)])
    assert learner.is_ready


def test_segments_that_are_too_short_to_learn_from_are_refused(untrained: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="segment_steps = 5 is shorter than the 12 control steps"):
        OnlineLearner(untrained, experience(untrained, replace(KEPT, segment_steps=5)), QUICK)


def test_learning_that_would_wait_for_ever_is_refused(untrained: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="minimum_segments = 16 must not exceed recent_segments = 8"):
        OnlineLearner(untrained, experience(untrained, replace(KEPT, recent_segments=8)), QUICK)


def test_a_deployed_checkpoint_learns_as_the_one_it_came_from(untrained: Checkpoint, segments: list[Segment]) -> None:
    precision = Precision(weight_bits=8, state_bits=16, state_fraction_bits=8, delta=1e-3)
    settings = replace(QUICK, model_updates=15, policy_updates=1, model_learning_rate=3e-2)
    losses = []
    for running in (untrained, deployed(untrained, precision)):
        learner = filled(running, segments, settings)
        losses.append([learner.update().model_loss for _ in range(3)])
        assert not same_weights(learner.policy, running.policy)
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]
