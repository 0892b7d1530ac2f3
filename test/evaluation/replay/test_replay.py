"""Networks judged on the recorded bag in test/data, whose networks are beside it."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rosbags.typesys import Stores, get_typestore

from spiking_controller import cli
from spiking_controller.commands.replay import replay
from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.complexity import CostMeter
from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator, ReplaySettings
from spiking_controller.evaluation.replay.report import paired_differences
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from spiking_controller.resources import share_path
from spiking_controller.streams.bag_reader import opened, read
from spiking_controller.streams.bag_stream import StreamOptions
from spiking_controller.units import NANOSECONDS

TYPES = get_typestore(Stores.ROS2_JAZZY)
DATA = Path(__file__).parents[2] / "data"
BAG = DATA / "panda_three_goals"
MODEL = DATA / "panda_three_goals.safetensors"
Event = tuple[str, int, tuple[Any, ...]]


def tell(evaluator: ReplayEvaluator, events: list[Event]) -> dict[str, Any]:
    for name, _, arguments in events:
        getattr(evaluator, name)(*arguments)
    evaluator.finish()
    return evaluator.metrics()


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    evaluator, _ = replay(BAG, [MODEL], StreamOptions())
    return evaluator.metrics()


@pytest.fixture
def worse(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    """The same policy with a forward model that predicts three times every change."""
    broken = load_checkpoint(MODEL)
    with torch.no_grad():
        broken.forward_model.change_scale.mul_(3.0)
    save_checkpoint(tmp_path / "worse.safetensors", broken.policy, broken.forward_model, broken.config)
    return tmp_path / "worse.safetensors"


def test_the_bag_gives_the_error_that_the_controller_published(metrics: dict[str, Any]) -> None:
    published = metrics["published"]
    model = metrics["checkpoints"][0]["forward_model"]
    assert published["count"] > 500
    assert model["following_reported_steps"] == pytest.approx(published["count"], abs=2)
    # Live, the model is told the policy's action; from a bag, the torque, with the spring that holds the posture.
    assert 0.6 < model["following_reported_rad"] / published["prediction_error_rad"] < 1.01


def test_control_that_starts_again_gives_the_error_that_was_published(
    events: list[Event], checkpoint: Checkpoint
) -> None:
    first = events[: next(index for index, (_, due, _) in enumerate(events) if due > 2 * NANOSECONDS)]
    standing = next(event for event in events if event[0] == "add_joint_state")[2][1:]
    evaluator = ReplayEvaluator([checkpoint])
    later = 3 * NANOSECONDS + 7_000_000  # no whole number of control steps
    for offset in (0, later):
        for name, _, arguments in first:
            moved = arguments if name == "add_prediction_error" else (arguments[0] + offset, *arguments[1:])
            getattr(evaluator, name)(*moved)
        # Without control the arm stands still.
        for time in range(offset + 2 * NANOSECONDS + 2_000_000, offset + later, 2_000_000):
            evaluator.add_joint_state(time, *standing)
    evaluator.finish()
    metrics = evaluator.metrics()
    model, published = metrics["checkpoints"][0]["forward_model"], metrics["published"]
    assert metrics["stream"]["stretches"] == 2
    assert model["following_reported_steps"] == pytest.approx(published["count"], abs=2)
    assert 0.6 < model["following_reported_rad"] / published["prediction_error_rad"] < 1.01


def test_the_policy_that_drove_the_arm_would_command_the_same_again(metrics: dict[str, Any]) -> None:
    policy = metrics["checkpoints"][0]["policy"]
    assert policy["compared_steps"] > 500
    assert policy["recorded_torque_rms"] > 1.0
    assert policy["torque_difference_rms"] < 0.01 * policy["recorded_torque_rms"]
    assert policy["torques"] == metrics["stream"]["joint_states"]["used"]


def test_the_forward_model_beats_what_needs_no_model(metrics: dict[str, Any]) -> None:
    model, baselines = metrics["checkpoints"][0]["forward_model"]["horizons"], metrics["baselines"]
    for steps in ("1", "10", "50"):
        for kind in ("joint_rad", "hand_m"):
            assert 0.0 < model[steps][kind] < min(baselines[name][steps][kind] for name in ("stay", "linear"))
        assert np.mean(model[steps]["joints_rad"]) == pytest.approx(model[steps]["joint_rad"])


def test_goals_of_the_recorded_run_are_measured(metrics: dict[str, Any]) -> None:
    goals = metrics["goals"]
    np.testing.assert_allclose(
        [goal["goal"] for goal in goals["each"]], [[0.45, 0.25, 0.45], [0.35, -0.35, 0.6], [0.55, 0.0, 0.3]]
    )
    assert goals["not_counted"] == {"the hand's own place": 1}  # where the arm waited for its first goal
    assert goals["summary"]["share_under_1cm"] == 1.0
    assert 1.0 < goals["summary"]["mean_torque_rate_median"] < 100.0
    assert "intervention_share_mean" not in goals["summary"]


def test_the_policy_fires_as_it_did_in_the_recorded_run(metrics: dict[str, Any]) -> None:
    total, steps, ticks, neurons = 0, 0, 0, 0
    with opened(BAG) as bag:
        connections = [connection for connection in bag.connections if connection.topic == "/controller/spikes"]
        for _, _, data in read(bag, connections):
            message: Any = TYPES.deserialize_cdr(data, "std_msgs/msg/UInt8MultiArray")
            ticks = message.layout.dim[0].size
            layers = [dim for dim in message.layout.dim[1:] if dim.label.startswith("policy")]
            neurons = sum(layer.size for layer in layers)
            total += int(message.data[: sum(layer.stride for layer in layers)].sum())
            steps += 1
    recorded = total / (steps * ticks * neurons * 0.005)
    activity = metrics["checkpoints"][0]["activity"]["policy"]
    assert activity["spikes_per_neuron_per_second"] == pytest.approx(recorded, rel=0.05)
    assert 0.5 < activity["activation_sparsity"] < 1.0


def test_the_same_bag_gives_identical_files_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for name in ("run_a", "run_b"):
        json_file, html_file = tmp_path / f"{name}.json", tmp_path / f"{name}.html"
        arguments = ["replay", str(BAG), "--model", str(MODEL), "--json", str(json_file), "--html", str(html_file)]
        assert cli.main(arguments) == 0
        printed = capsys.readouterr().out.replace(name, "")
        texts.append((json_file.read_text(), html_file.read_text(), printed))
    assert texts[0] == texts[1]


def test_topics_that_overtake_each_other_change_nothing(
    events: list[Event], metrics: dict[str, Any], checkpoint: Checkpoint
) -> None:
    delay = {"add_torque": 150, "add_goal": 60, "add_prediction": -100, "add_prediction_error": 0, "add_joint_state": 0}
    # A goal whose stamp is zero counts from when it comes; that one is not delayed.
    order = sorted(events, key=lambda e: e[1] + (0 if e[:2] == ("add_goal", 0) else delay[e[0]] * 1_000_000))
    assert order != events
    assert tell(ReplayEvaluator([checkpoint]), order) == metrics


def test_figures_on_the_way_do_not_disturb_those_at_the_end(
    events: list[Event], metrics: dict[str, Any], checkpoint: Checkpoint
) -> None:
    evaluator = ReplayEvaluator([checkpoint])
    most = 3 * len(events) // 4
    for name, _, arguments in events[:most]:
        getattr(evaluator, name)(*arguments)
    on_the_way = evaluator.metrics()
    assert 0 < on_the_way["baselines"]["windows"] < metrics["baselines"]["windows"]
    assert on_the_way["checkpoints"][0]["forward_model"]["following_rad"] > 0.0
    assert tell(evaluator, events[most:]) == metrics


def test_a_bag_in_a_loop_is_judged_round_after_round(
    events: list[Event], metrics: dict[str, Any], checkpoint: Checkpoint
) -> None:
    looped = tell(ReplayEvaluator([checkpoint]), events + events)
    assert looped["stream"]["dropped"]["jump back in time"] == 1
    assert looped["stream"]["control_steps"] == pytest.approx(2 * metrics["stream"]["control_steps"], abs=15)
    assert looped["stream"]["stretches"] == 2 * metrics["stream"]["stretches"]
    assert looped["goals"]["goals"] == 2 * metrics["goals"]["goals"]
    once, twice = (result["checkpoints"][0]["forward_model"]["following_rad"] for result in (metrics, looped))
    assert twice == pytest.approx(once, rel=0.05)


def test_a_live_evaluator_needs_no_series(events: list[Event], metrics: dict[str, Any], checkpoint: Checkpoint) -> None:
    evaluator = ReplayEvaluator([checkpoint], ReplaySettings(keep_series=False))
    assert tell(evaluator, events) == metrics
    assert not evaluator.window_times
    assert not evaluator.judges[0].model.errors
    assert not evaluator.goals.distances


def test_checkpoints_are_compared_pair_by_pair(worse: Path) -> None:
    evaluator, _ = replay(BAG, [MODEL, worse, MODEL], StreamOptions())
    broken, same = paired_differences(evaluator)
    assert broken["against"] == evaluator.names[0]
    errors = [c["forward_model"]["horizons"]["10"]["joint_rad"] for c in evaluator.metrics()["checkpoints"]]
    figure = broken["figures"]["joint_rad_10"]
    assert figure["mean"] == pytest.approx(errors[1] - errors[0])
    assert figure["mean"] > 0.0
    assert figure["interval"][0] < figure["mean"] < figure["interval"][1]
    assert figure["better"] < 0.5
    assert figure["count"] == evaluator.metrics()["baselines"]["windows"]
    assert {value["mean"] for value in same["figures"].values()} == {0.0}
    assert broken["figures"]["torque_difference_rms"]["mean"] == 0.0  # the policies are the same


def test_the_report_is_one_file_with_its_pictures_inside(
    tmp_path: Path, worse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, plain = tmp_path / "report.html", tmp_path / "report.json"
    arguments = ["replay", str(BAG), "--model", str(MODEL), str(worse), "--html", str(page), "--json", str(plain)]
    assert cli.main(arguments) == 0
    text = page.read_text()
    pictures = re.findall(r'<img alt="[^"]+" src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 5
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert not re.search(r'(src|href)="(?!data:)', text)
    printed = capsys.readouterr().out
    for heading in ("Forward model", "Policy", "Differences", "Recorded run", "Activity per control step"):
        assert f"<h2>{heading}</h2>" in text
        assert f"**{heading}**" in printed
    metrics = json.loads(plain.read_text())
    assert metrics["paired"][0]["figures"]["joint_rad_10"]["mean"] > 0.0
    assert metrics["topics"]["read"]["/joint_states"] == 6772
    assert metrics["topics"]["left_out"]["/hand_pose"] > 0


def test_the_shipped_networks_are_the_default(metrics: dict[str, Any]) -> None:
    evaluator, _ = replay(BAG, [], StreamOptions())
    assert evaluator.checkpoints[0].source == str(share_path("models", "panda_reach.safetensors"))


def test_networks_of_another_task_are_refused() -> None:
    planar = share_path("models", "planar_reach.safetensors")
    with pytest.raises(ConfigError, match="compare checkpoints of one task"):
        replay(BAG, [MODEL, planar], StreamOptions())
    with pytest.raises(ConfigError, match=r"has no joint states of planar_joint1, planar_joint2 .*--joint-names"):
        replay(BAG, [planar], StreamOptions())


def test_single_steps_cost_what_they_cost_in_a_batch(checkpoint: Checkpoint) -> None:
    model = checkpoint.forward_model
    features = torch.randn(6, model.network.inputs, generator=torch.Generator().manual_seed(1))
    together, one_by_one = CostMeter(model), CostMeter(model)
    states, spikes = [], []
    with torch.inference_mode():
        effective, state = model.for_inference(), model.initial_state(1)
        for row in features:
            states.append(state)
            _, state, fired = model.network.step(row[None], state, effective)
            spikes.append(fired)
            one_by_one.add(row[None], states[-1], fired)
    together.add_singles(features, states, spikes)
    assert together.metrics() == one_by_one.metrics()


def test_goals_that_the_controller_would_refuse_are_counted(checkpoint: Checkpoint) -> None:
    evaluator = ReplayEvaluator([checkpoint])
    evaluator.add_goal(NANOSECONDS, (5.0, 0.0, 0.5), "", False)
    evaluator.add_goal(NANOSECONDS, (0.4, 0.0, float("nan")), "")
    evaluator.add_goal(NANOSECONDS, (0.4, 0.0, 0.5), "camera")
    evaluator.add_goal(NANOSECONDS, (0.4, 0.0, 0.5), "panda_link0", False)
    evaluator.add_goal(NANOSECONDS, (0.4, 0.0, 0.5), "left/panda_link0")
    assert dict(evaluator.counts) == {
        "goal that the controller would refuse": 1,
        "goal that is not finite": 1,
        "goal in the frame camera": 1,
    }


def test_a_recorded_bag_raises_no_alarm(metrics: dict[str, Any]) -> None:
    assert metrics["stream"]["joint_states"]["implausible"] == {}
