"""Recorded runs in training: the forward model learns from them, mixed with simulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from spiking_controller import cli
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.streams.bag_segments import read_segments
from spiking_controller.tasks.segments import Segment
from spiking_controller.training.training_run import TrainingRun

BAG = Path(__file__).parents[1] / "data" / "panda_three_goals"


@pytest.fixture
def panda_config(small_config: TrainingConfig) -> TrainingConfig:
    return replace(small_config, task="panda_reach", iterations=1, evaluate_every=1)


@pytest.fixture(scope="module")
def segments() -> list[Segment]:
    return read_segments(BAG, TrainingConfig("panda_reach").reach_task).segments


def memory_after(config: TrainingConfig, folder: Path, recorded: list[Segment]) -> TrainingRun:
    run = TrainingRun(config, folder, recorded=recorded)
    run.run(lambda _: None, lambda: True)
    return run


def test_recorded_segments_stand_beside_the_random_episodes(
    panda_config: TrainingConfig, segments: list[Segment], tmp_path: Path
) -> None:
    assert len(segments) == 3
    alone = memory_after(panda_config, tmp_path / "alone", [])._memory
    mixed = memory_after(panda_config, tmp_path / "mixed", segments)._memory
    simulated, recorded = panda_config.random_episodes, len(segments)
    np.testing.assert_array_equal(mixed.observation[:simulated], alone.observation[:simulated])
    for slot, segment in enumerate(segments, start=simulated):
        np.testing.assert_array_equal(mixed.observation[slot], segment.observation)
        np.testing.assert_array_equal(mixed.action[slot, 1:], segment.action)
        np.testing.assert_array_equal(mixed.action[slot, 0], segment.previous_action)
    assert mixed.added == simulated + recorded + panda_config.episodes_per_iteration


def test_more_segments_than_there_is_room_for_are_chosen_evenly(
    panda_config: TrainingConfig, segments: list[Segment], tmp_path: Path
) -> None:
    room = panda_config.replay_episodes - panda_config.random_episodes
    many = [segments[0]._replace(goal=np.full(3, number, np.float32)) for number in range(5 * room)]
    config = replace(panda_config, episodes_per_iteration=1)
    memory = memory_after(config, tmp_path / "run", many)._memory
    # The first slot has gone to the first episode of the policy since.
    assert memory.goal[config.random_episodes :, 0].tolist() == [5.0 * number for number in range(room)]


def test_train_says_what_each_bag_gives(
    panda_config: TrainingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    small = {"hidden": [16], "rank": 4}
    file.write_text(
        yaml.safe_dump(
            {
                "task": "panda_reach",
                "iterations": 1,
                "random_episodes": 2,
                "episodes_per_iteration": 1,
                "replay_episodes": 8,
                "evaluate_every": 1,
                "evaluation_episodes": 2,
                "forward_model": small,
                "policy": small,
                "model_updates": {"first": 2, "per_iteration": 1, "batch": 4, "warm_up": 2, "unroll": 3},
                "policy_updates": {"per_iteration": 1, "batch": 4, "warm_up": 2, "unroll": 5},
            }
        )
    )
    arguments = ["train", "panda_reach", "--config", str(file), "--out", str(tmp_path / "run"), "--one-process"]
    assert cli.main([*arguments, "--bags", str(BAG.parent)]) == 0
    assert f"{BAG}: 3 segments; not used: " in capsys.readouterr().out
    assert (tmp_path / "run" / "panda_reach.safetensors").is_file()
    assert cli.main([*arguments, "--resume", "--bags", str(BAG)]) == 2
    assert "--bags counts only at the start of a run" in capsys.readouterr().err


def test_bags_of_another_arm_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "planar_reach", "--out", str(tmp_path / "run"), "--bags", str(BAG)]) == 2
    assert "has no joint states of planar_joint1, planar_joint2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
