"""Recorded runs in training: the forward model learns from them, mixed with simulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from spiking_controller import cli
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.streams.bag_segments import read_segments
from spiking_controller.streams.bag_writer import BagWriter
from spiking_controller.tasks.segments import Segment
from spiking_controller.tasks.torque import TorqueLaw
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


def bag_of(folder: Path, taken_off: bool, told: bool) -> list[Segment]:
    """Segments of a bag in which the controller took something off the torques, or not, and told of it, or not."""
    types = get_typestore(Stores.ROS2_JAZZY)
    kinds, task = types.types, TrainingConfig("panda_reach").reach_task
    rng, law, arm = np.random.default_rng(3), TorqueLaw(task), task.arm
    bag = BagWriter(folder, "mcap", {}, 2**30)
    names = ("/joint_states", "/controller/torque", "/controller/disturbance")
    topics = [bag.add_topic(name, "sensor_msgs/msg/JointState", []) for name in names[: 3 if told else 2]]

    def write(topic: int, time: int, joints: int, *values: NDArray[np.float64]) -> None:
        header = kinds["std_msgs/msg/Header"](
            stamp=kinds["builtin_interfaces/msg/Time"](*divmod(time, 1_000_000_000)), frame_id=""
        )
        parts = [*values, *[np.empty(0)] * (3 - len(values))] if topic == 0 else [np.empty(0), np.empty(0), *values]
        message = kinds["sensor_msgs/msg/JointState"](header, list(arm.joint_names[:joints]), *parts)
        data = bytes(types.serialize_cdr(message, "sensor_msgs/msg/JointState"))
        bag.write(topics[topic], time, data)

    home, still = np.asarray(arm.home, dtype=np.float64), np.zeros(7)
    for step in range(242):
        action, off = rng.uniform(-0.5, 0.5, 6), rng.uniform(-9.0, 9.0, 6)
        for tick in range(10):
            time = 1_000_000_000 + (10 * step + tick) * 2_000_000
            torque = law.torque(action, home, still)
            if taken_off:
                torque[:6] -= off
            write(0, time, 7, home, still)
            write(1, time, 7, torque)
            if told and tick == 0:
                write(2, time, 6, off)
    bag.close()
    return read_segments(folder, task).segments


def test_the_networks_own_actions_are_learned_from_without_what_was_taken_off(tmp_path: Path) -> None:
    plain = bag_of(tmp_path / "plain", taken_off=False, told=False)
    corrected = bag_of(tmp_path / "corrected", taken_off=True, told=True)
    untold = bag_of(tmp_path / "untold", taken_off=True, told=False)
    assert len(plain) == len(corrected) == len(untold) == 1
    assert np.abs(untold[0].action - plain[0].action).max() > 0.3
    # What the first 0.4 s held nobody knew yet.
    np.testing.assert_allclose(corrected[0].action[:-20], plain[0].action[20:], atol=1e-6)


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
