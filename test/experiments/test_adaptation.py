"""The adaptation experiment runs the controller's and the trainer's own parts, and can be repeated to the last bit."""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spiking_controller.commands import adapt as adapt_command
from spiking_controller.errors import ConfigError, ModelContractError
from spiking_controller.experiments.adaptation.closed_loop import ClosedLoop
from spiking_controller.experiments.adaptation.harm import spoil
from spiking_controller.experiments.adaptation.plan import CHANGES, MEASURED, AdaptationPlan, change_of
from spiking_controller.experiments.adaptation.report import write_report
from spiking_controller.experiments.adaptation.results import (
    RunKey,
    check_same_plan,
    is_complete,
    load_runs,
    run_directory,
    save_run,
)
from spiking_controller.experiments.adaptation.run import FIRST_SECONDS, AdaptationRun
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.online.experience import ExperienceSettings
from spiking_controller.online.learner import OnlineSettings
from spiking_controller.online.tracking_watch import TrackingWatch
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes

torch.set_num_threads(1)

# A margin of everything: no version is let out, so that only what is injected can take over.
PLAN = AdaptationPlan(
    change="none",
    learning="harmed",
    observer="off",
    minutes=0.75,
    goal_duration=2.5,
    block=3,
    lead=1,
    update_period=2.5,
    experience=ExperienceSettings(recent_segments=40, old_segments=40, held_back_segments=8),
    online=OnlineSettings(minimum_segments=4, minimum_held_back=1, model_updates=2, policy_updates=1, margin=1.0),
)


@pytest.fixture(scope="module")
def planar() -> Checkpoint:
    return load_checkpoint(share_path("models", "planar_reach.safetensors"))


def complete(checkpoint: Checkpoint, plan: AdaptationPlan, directory: Path | None = None) -> AdaptationRun:
    run = AdaptationRun(checkpoint, plan, directory)
    while not run.is_over:
        run.advance()
    run.close()
    return run


@pytest.fixture(scope="module")
def harmed(planar: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> AdaptationRun:
    return complete(planar, PLAN, tmp_path_factory.mktemp("harmed"))


def test_the_loop_moves_the_arm_as_the_training_environment_does(planar: Checkpoint) -> None:
    """Same delay, same limits, same networks: the same way to the goal."""
    goal = np.array([0.3, 0.5])
    env = ReachVectorEnv(planar.task, 1, threads=1)
    episodes = run_episodes(env, SpikingAgent(planar.policy), start="home", goals=goal, seed=1)
    loop = ClosedLoop(planar, TrackingWatch(0.0, 1))
    loop.controller.apply(replace(loop.controller.settings, soft_start=0.0, integral_gain=0.0))
    outcome = loop.reach(goal, planar.task.episode_duration)
    steps = len(outcome.segments) * 32
    recorded = np.concatenate([segment.observation[:-1] for segment in outcome.segments])
    assert steps > 150
    assert np.allclose(recorded, episodes.observation[0, 1 : 1 + steps], atol=2e-3)


def test_a_change_of_the_arm_changes_the_motion(planar: Checkpoint) -> None:
    loop, other = (ClosedLoop(planar, TrackingWatch(0.0, 1)) for _ in range(2))
    other.change(ArmCondition(motor_strength=(0.5,)))
    goals = np.array([[0.3, 0.5]])
    assert loop.errors(goals, 2.0) != other.errors(goals, 2.0)


def test_the_same_goals_are_measured_before_after_and_at_the_end(harmed: AdaptationRun) -> None:
    assert harmed.goal == PLAN.goals == 1 + 3 + 18
    phases = [row.phase for row in harmed.rows]
    assert phases == ["lead"] + ["before"] * 3 + ["after"] * 3 + ["adapting"] * 12 + ["end"] * 3
    blocks = [harmed._goals[[phase == name for phase in phases]] for name in MEASURED]
    assert (blocks[0] == blocks[1]).all()
    assert (blocks[0] == blocks[2]).all()
    assert harmed.rows[PLAN.change_at].time_s == pytest.approx(PLAN.hold)


def test_harm_is_refused_by_the_gate_and_rolled_back_within_three_goals_when_it_is_forced(
    harmed: AdaptationRun, planar: Checkpoint
) -> None:
    kinds = [event.kind for event in harmed.events]
    first = kinds.index("harm")
    assert kinds[first + 1] == "rejected"
    second = kinds.index("harm", first + 1)
    forced, taken, followed, back, followed_back = (
        event for event in harmed.events[second:] if event.kind not in ("rejected", "noticed")
    )
    spoilt_sha, planar_sha = forced.text[:12], planar.metadata["sha256"][:12]
    assert forced.text == f"{spoilt_sha} is sent past the gate."
    assert (taken.kind, taken.text) == ("takes over", spoilt_sha)
    assert (followed.kind, followed.text) == ("follows", f"the learner goes on from {spoilt_sha}.")
    assert back.kind == "rollback"
    assert back.text.startswith(f"{spoilt_sha} gives way to {planar_sha}: over the last 3 goals the hand stayed ")
    assert (followed_back.kind, followed_back.text) == ("follows", f"the learner goes on from {planar_sha}.")
    assert forced.time_s == taken.time_s == followed.time_s < back.time_s == followed_back.time_s
    spoilt = [row for row in harmed.rows if taken.time_s <= row.time_s < back.time_s]
    assert len(spoilt) == 3
    assert min(row.final_error_m for row in spoilt) > 0.05
    assert harmed.running.metadata["sha256"] == planar.metadata["sha256"]
    assert harmed.rows[-1].final_error_m < 0.05


def test_learning_stays_within_its_memory(harmed: AdaptationRun) -> None:
    experience = harmed.experience
    assert len(experience.held_back) == 8
    assert 0 < len(experience.recent) <= 40
    assert 0 < len(experience.old) <= 40
    assert len(experience.recent) + len(experience.old) > 40, "there was more to keep than one store has room for"
    assert len(harmed.footprints) == PLAN.goals
    disk = [footprint.disk_mb for footprint in harmed.footprints]
    assert disk[0] > experience.bytes_on_disk / 1e6
    assert disk[-1] - disk[0] < 0.03, "only the log of decisions grows, and that up to its limit"
    assert harmed.footprints[-1].resident_mb > 50.0


def test_a_run_leaves_its_versions_and_decisions_in_its_folder(planar: Checkpoint, tmp_path: Path) -> None:
    plan = replace(PLAN, learning="on", minutes=0.25, online=replace(PLAN.online, margin=0.0))
    run = complete(planar, plan, tmp_path)
    accepted = [event.text for event in run.events if event.kind == "accepted"]
    names = [path.name for path in sorted((tmp_path / "versions").glob("*.safetensors"))]
    assert names == [f"{number:06d}_{text[:12]}.safetensors" for number, text in enumerate(accepted, 1)]
    assert len(accepted) > 0
    decisions = (tmp_path / "versions" / "decisions.log").read_text()
    assert decisions.count("accepted: ") == len(accepted)


def test_a_run_can_be_repeated_to_the_last_bit(planar: Checkpoint) -> None:
    plan = replace(PLAN, learning="on", minutes=0.25, online=replace(PLAN.online, margin=0.0))
    one, other = complete(planar, plan), complete(planar, plan)
    assert one.rows == other.rows
    assert one.events == other.events
    assert any(event.kind == "takes over" for event in one.events), "learning must matter here"


def test_without_learning_the_first_networks_run_to_the_end(planar: Checkpoint) -> None:
    run = complete(planar, replace(PLAN, learning="off", minutes=0.25))
    assert {row.version for row in run.rows} == {planar.metadata["sha256"]}
    assert [event.kind for event in run.events] == ["change"]
    assert all(row.prediction_rad == row.first_prediction_rad for row in run.rows)


def test_a_spoilt_policy_does_the_opposite(planar: Checkpoint) -> None:
    observation, goal = np.zeros((1, 6)), np.array([[0.3, 0.5]])
    good = load_checkpoint(share_path("models", "planar_reach.safetensors")).policy
    bad = load_checkpoint(share_path("models", "planar_reach.safetensors")).policy
    spoil(bad)
    wanted = SpikingAgent(good).act(observation, goal)
    assert np.allclose(SpikingAgent(bad).act(observation, goal), -wanted)
    assert np.abs(wanted).max() > 0.01


def test_results_are_saved_and_drawn(harmed: AdaptationRun, planar: Checkpoint, tmp_path: Path) -> None:
    directory = run_directory(tmp_path, PLAN)
    assert directory.name == "none-harmed-seed1"
    assert not is_complete(directory)
    held_out = {"with_integral": 0.002, "network_alone": 0.003}
    more = {"held_out_final_error_m": {"start": held_out, "end": held_out}, "checkpoint_sha256": "abc"}
    save_run(directory, harmed, more)
    assert is_complete(directory)
    check_same_plan(directory, PLAN, "abc")
    with pytest.raises(ConfigError, match=r"made with minutes = 0\.75, but 60\.0 is asked for; give another folder"):
        check_same_plan(directory, replace(PLAN, minutes=60.0), "abc")
    with pytest.raises(ConfigError, match="made with checkpoint_sha256 = abc, but xyz is asked for"):
        check_same_plan(directory, PLAN, "xyz")
    key = RunKey("none", "harmed", "off", 1)
    saved = load_runs(tmp_path)[key]
    assert len(saved.rows) == PLAN.goals
    assert saved.rows[3].final_error_m == pytest.approx(harmed.rows[3].final_error_m, rel=1e-4)
    assert [event.kind for event in saved.events] == [event.kind for event in harmed.events]
    last = load_checkpoint(directory / "networks.safetensors")
    assert torch.equal(next(last.policy.parameters()), next(harmed.running.policy.parameters()))
    assert saved.first_steps[0].time == pytest.approx(0.0, abs=0.021)
    assert saved.first_steps[-1].time >= FIRST_SECONDS
    report, *figures = write_report({key: saved}, tmp_path)
    assert "candidate: rejected; past the gate: rolled back after 3 goals" in report.read_text()
    text = re.sub(" +", " ", report.read_text())
    assert "| none | learning, harm injected | 1 | 0.75 | 2.0 | 2.0 | 1.00 | 3.0 | 3.0 |" in text
    assert [figure.name for figure in figures] == ["adaptation_none.png", "first_seconds_none.png"]
    assert all(figure.stat().st_size > 10_000 for figure in figures)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no complete adaptation run"):
        load_runs(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("minutes", 0.0), ("update_period", -1.0), ("minutes", float("nan"))])
def test_times_that_are_not_above_zero_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value} must be a finite number above 0"):
        AdaptationPlan(**{name: value})  # type: ignore[arg-type]


def test_the_command_wants_networks_of_the_panda(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    adapt_command.add_arguments(parser)
    planar_file = str(share_path("models", "planar_reach.safetensors"))
    with pytest.raises(ModelContractError, match="arm is 'planar_arm', but the parameter arm is 'panda'"):
        adapt_command.run(parser.parse_args(["--checkpoint", planar_file, "--out", str(tmp_path)]))


def test_the_changes_fit_the_panda() -> None:
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    loop = ClosedLoop(checkpoint, TrackingWatch(0.0, 1))
    for name in CHANGES:
        loop.change(*change_of(name, 7))
        assert np.isfinite(loop.reach(np.array([0.4, 0.2, 0.5]), 0.6).final_error_m)


def test_with_the_observer_the_load_is_weighed_and_the_actions_are_the_networks_own() -> None:
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    plan = AdaptationPlan(learning="off", minutes=0.1, goal_duration=3.0, block=1, lead=1)
    run = complete(checkpoint, plan)
    assert run.first_steps[-1].mass == pytest.approx(2.0, rel=0.15)
    held = [step for step in run.first_steps if 2.0 < run.step_since_change(step).time < plan.hold]
    assert max(step.distance for step in held) < 0.01
    weight_in_action = np.abs(np.concatenate([s.action for s in run.loop.hold(2.0).segments])[:, 1]).max()
    assert weight_in_action < 0.5, "the torque of 2 kg would be most of the full action"


@pytest.mark.parametrize(("change", "is_noticed"), [("payload", False), ("friction", True)])
def test_a_load_that_the_observer_explains_is_no_change_of_the_arm_and_friction_is(
    change: str, is_noticed: bool
) -> None:
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    plan = AdaptationPlan(
        change=change,
        minutes=0.35,
        goal_duration=2.0,
        block=5,
        lead=7,
        update_period=2.0,
        experience=ExperienceSettings(recent_segments=200, held_back_segments=9, hold_back_every=2),
        online=OnlineSettings(minimum_segments=1, minimum_held_back=1, model_updates=0, policy_updates=0, margin=1.0),
    )
    run = complete(checkpoint, plan)
    assert run.learner.is_ready
    noticed = [event for event in run.events if event.kind == "noticed" and "forward model" in event.text]
    assert bool(noticed) == is_noticed, noticed
    assert all(event.time_s > 0.0 for event in noticed)
    assert run.learner.changes["forward_model"] == len(noticed)
    assert bool(len(run.experience.old)) == is_noticed, "what is known of the arm counts as old only if it has changed"
