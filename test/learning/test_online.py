"""Online learning: it improves what runs, lets nothing worse out, and stays within its memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.learning.agent import ExploringAgent
from spiking_controller.learning.checkpoint import (
    Checkpoint,
    build_networks,
    dump_checkpoint,
    load_checkpoint,
    parse_checkpoint,
)
from spiking_controller.learning.config import TrainingConfig
from spiking_controller.learning.online import OnlineLearner, OnlineSettings
from spiking_controller.learning.replay import Segment
from spiking_controller.resources import share_path
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes

STEPS = 50
QUICK = OnlineSettings(
    segment_steps=STEPS, model_updates=60, policy_updates=5, model_learning_rate=1e-2, policy_learning_rate=1e-3
)


@pytest.fixture
def segments(small_config: TrainingConfig) -> list[Segment]:
    """Of an arm moved by noise, cut from whole episodes."""
    env = ReachVectorEnv(small_config.reach_task, 8, threads=1)
    agent = ExploringAgent(None, 2, 0.4, 0.9, np.random.default_rng(5))
    episodes = run_episodes(env, agent, seed=5)
    found = []
    for row in range(8):
        for start in range(STEPS, episodes.action.shape[1], STEPS):
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


def filled(checkpoint: Checkpoint, segments: list[Segment], settings: OnlineSettings = QUICK) -> OnlineLearner:
    learner = OnlineLearner(checkpoint, settings)
    for segment in segments:
        learner.add(segment)
    return learner


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
    figures = candidate.metadata["evaluation"]
    assert figures["joint_rad"] < 0.95 * figures["running_joint_rad"]
    assert learner.running.metadata["sha256"] == proposal.sha256


def test_a_candidate_that_has_learnt_nothing_is_not_let_out(untrained: Checkpoint, segments: list[Segment]) -> None:
    proposal = filled(untrained, segments).propose()
    assert proposal.data is None
    assert "not better by 5%" in proposal.reason


@pytest.mark.parametrize("network", ["policy", "forward_model"])
def test_a_harmful_candidate_is_refused_and_discarded(segments: list[Segment], network: str) -> None:
    learner = filled(load_checkpoint(share_path("models", "planar_reach.safetensors")), segments)
    harmed = getattr(learner, network)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in harmed.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    proposal = learner.propose()
    assert proposal.data is None
    assert "worse in" in proposal.reason
    assert "discarded" in proposal.reason
    for name, tensor in harmed.state_dict().items():
        assert torch.equal(tensor, getattr(learner.running, network).state_dict()[name])


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


def test_memory_is_bounded_and_part_of_the_segments_is_held_back(
    untrained: Checkpoint, segments: list[Segment]
) -> None:
    settings = replace(QUICK, memory_segments=10, held_back_segments=3, minimum_segments=10, minimum_held_back=2)
    learner = OnlineLearner(untrained, settings)
    assert not learner.is_ready
    for number in range(100):
        learner.add(segments[number % len(segments)])
    assert learner.is_ready
    assert (len(learner.memory), len(learner.held_back)) == (10, 3)
    assert (learner.memory.added, learner.held_back.added) == (80, 20)
    assert len(learner.memory.observation) == 10


def test_segments_that_are_too_short_to_learn_from_are_refused(untrained: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="segment_steps = 5 is shorter than the 12 control steps"):
        OnlineLearner(untrained, replace(QUICK, segment_steps=5))
