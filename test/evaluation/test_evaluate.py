"""`spiking_controller evaluate`: the figures are those of the episodes, the same every time, and say what they mean."""

import json
from pathlib import Path

import numpy as np
import pytest

from spiking_controller.cli import main
from spiking_controller.control.controller import ControllerSettings
from spiking_controller.evaluation.evaluate import evaluate_checkpoint, prediction_errors
from spiking_controller.evaluation.following import RATE, follow_goal, sample_circles
from spiking_controller.evaluation.holding import hold_goal
from spiking_controller.networks.checkpoint import build_networks, dump_checkpoint, load_checkpoint, parse_checkpoint
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.features import Features
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig, Recurrence
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import Episodes

PLANAR = share_path("models", "planar_reach.safetensors")


def test_evaluation_repeats_exactly_and_the_integral_does_not_hurt() -> None:
    checkpoint = load_checkpoint(PLANAR)
    first = evaluate_checkpoint(checkpoint, goals=30)
    assert first == evaluate_checkpoint(checkpoint, goals=30)
    assert first["network_alone"]["final_error_m_median"] < 1.5 * 0.00005
    assert first["with_integral"]["final_error_m_median"] < first["network_alone"]["final_error_m_median"] + 0.001
    for part in first["complexity"].values():
        assert 1 < part["spikes_per_neuron_per_second"] < 200
    model = first["forward_model"]
    assert model["forward_model_10_joint_rad"] < model["linear_10_joint_rad"] < model["state_stays_10_joint_rad"]


@pytest.mark.parametrize(
    ("name", "alone", "as_run"), [("panda_reach", 0.00014, 0.00014), ("planar_reach", 0.00005, 0.00003)]
)
def test_the_shipped_networks_are_as_exact_as_documented(name: str, alone: float, as_run: float) -> None:
    """The medians of docs/results.md, m, of which 60 goals may show one and a half times as much."""
    metrics = evaluate_checkpoint(load_checkpoint(share_path("models", f"{name}.safetensors")), goals=60)
    assert metrics["network_alone"]["final_error_m_median"] < 1.5 * alone
    assert metrics["with_integral"]["final_error_m_median"] < 1.5 * as_run


def test_the_trivial_predictors_are_exact_where_they_should_be() -> None:
    checkpoint = load_checkpoint(PLANAR)
    task = checkpoint.task
    env = ReachVectorEnv(task, 2)
    q = np.tile(task.arm.home, (2, task.steps_per_episode + 1, 1))
    speed = np.array([0.2, -0.1])
    q[1] += speed * task.control_period * np.arange(task.steps_per_episode + 1)[:, None]
    velocity = np.stack((np.zeros_like(q[0]), np.broadcast_to(speed, q[1].shape)))
    hand = task.arm.chain.position(q.reshape(-1, 2)).reshape(2, -1, 3)
    steps = task.steps_per_episode
    episodes = Episodes(
        observation=env.codec.encode(q, velocity, hand).astype(np.float32),
        action=np.zeros((2, steps, 2), np.float32),
        goal=np.zeros((2, 2), np.float32),
        distance=np.zeros((2, steps + 1)),
        torque=np.zeros((2, steps, 2), np.float32),
        torque_rate=np.zeros((2, steps), np.float32),
        intervened=np.zeros((2, steps), np.float32),
        valid_steps=np.full(2, steps),
    )
    errors = prediction_errors(checkpoint, episodes)
    for k in (1, 10, 50):
        assert errors[f"linear_{k}_joint_rad"] == pytest.approx(0.0, abs=1e-5)
        moved = np.abs(speed).mean() * k * task.control_period / 2
        assert errors[f"state_stays_{k}_joint_rad"] == pytest.approx(moved, rel=1e-3)


@pytest.mark.parametrize("recurrence", ["none", "step", "tick"])
def test_accumulates_are_the_weights_that_every_spike_passes(recurrence: Recurrence) -> None:
    config = TrainingConfig(
        task="planar_reach",
        predicts="everything",
        features=Features(velocity=False),
        forward_model=NetworkConfig(hidden=(24,), recurrence=recurrence, rank=5, output_gain=0.1),
        policy=NetworkConfig(hidden=(16, 12), recurrence=recurrence, rank=0),
    )
    checkpoint = parse_checkpoint(dump_checkpoint(*build_networks(config), config), "untrained")
    metrics = evaluate_checkpoint(checkpoint, goals=2)
    fed_back = recurrence == "tick"
    fan_out = {"policy": (12 + 2 + 16 * fed_back, 2 + 12 * fed_back), "forward_model": (4 + 5 * fed_back,)}
    for part, weights in fan_out.items():
        rates = metrics["complexity"][part]["spikes_per_neuron_per_second_by_layer"].values()
        hidden = getattr(config, part).hidden
        expected = sum(
            rate * neurons * config.reach_task.control_period * weight
            for rate, neurons, weight in zip(rates, hidden, weights, strict=True)
        )
        # The spikes of the very last tick are not fed back any more.
        assert metrics["complexity"][part]["effective_acs"] == pytest.approx(expected, rel=5e-3)
        assert expected > 1
    assert np.isfinite(metrics["forward_model"]["forward_model_10_joint_rad"])


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(PLANAR), "--goals", "5", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "final error, median" in printed
    metrics = json.loads((tmp_path / "figures.json").read_text())
    assert metrics["goals"] == 5
    assert f"{metrics['network_alone']['final_error_m_median']:.4g} m" in printed
    assert f"{metrics['rest']['model_rest_error_rad_s']:.4g} rad/s" in printed
    assert "hold" not in metrics


def test_an_arm_that_holds_a_goal_neither_drifts_nor_leaves_it() -> None:
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    held = hold_goal(checkpoint, np.asarray(checkpoint.task.arm.home), 25.0)
    assert 0.0 < held.drift_rad < 0.001
    assert held.last_error_m < 0.0005


def test_holding_says_what_every_arm_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spiking_controller.commands.evaluate.ARMS", 2)
    file = tmp_path / "figures.json"
    assert main(["evaluate", str(PLANAR), "--goals", "2", "--hold", "0.2", "--json", str(file)]) == 0
    held = json.loads(file.read_text())["hold"]
    assert held["minutes"] == 0.2
    assert len(held["drift_rad"]) == len(held["last_error_m"]) == held["arms"] == 2
    assert all(0.0 <= drift < 0.2 for drift in held["drift_rad"])
    assert all(error < 0.01 for error in held["first_error_m"])
    assert f"{max(held['drift_rad']):.4g} rad" in capsys.readouterr().out


def test_the_hand_follows_a_goal_that_moves() -> None:
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    (circle,) = sample_circles(checkpoint.task, np.random.default_rng(1), 1)
    led, chased = (
        follow_goal(checkpoint, circle, 0.2, RATE, ControllerSettings(following_gain=gain)) for gain in (1.0, 0.0)
    )
    assert led.median_m < 0.008
    assert led.overshoot_m < 0.03
    assert chased.median_m > 0.025


def test_following_says_how_every_arm_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spiking_controller.evaluation.following.ARMS", 1)
    monkeypatch.setattr("spiking_controller.evaluation.following.SPEEDS", (0.2,))
    file = tmp_path / "figures.json"
    assert main(["evaluate", str(PLANAR), "--goals", "2", "--moving", "50", "--json", str(file)]) == 0
    followed = json.loads(file.read_text())["moving"]
    assert followed["rate_hz"] == 50.0
    ((median,),) = followed["median_m"]
    assert median < 0.008
    assert f"{median:.4g} m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.safetensors"], "nowhere.safetensors: there is no such checkpoint"),
        ([str(PLANAR), "--goals", "0"], "--goals 0"),
        ([str(PLANAR), "--hold", "0.1"], "--hold 0.1 must be a finite number of minutes, at least 0.2"),
        ([str(PLANAR), "--hold", "inf"], "--hold inf"),
        ([str(PLANAR), "--moving", "1"], "--moving 1 must be a rate from 10 to 500 Hz"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments]) == 2
    assert sentence in capsys.readouterr().err
