"""`spiking_controller benchmark control`: what the figures mean, and that both sides of the ratio do the same work."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spiking_controller.errors import ConfigError
from spiking_controller.experiments.benchmarks.control_benchmark import (
    TickTimes,
    Traffic,
    measure_ticks,
    report,
    summed_up,
    table,
    with_snntorch_modules,
)
from spiking_controller.experiments.benchmarks.snntorch_network import SnntorchNetwork
from spiking_controller.networks.checkpoint import build_networks, load_checkpoint, save_checkpoint
from spiking_controller.networks.config import load_config
from spiking_controller.resources import share_path

MODEL = str(share_path("models", "panda_reach.safetensors"))
MACHINE = {"processor": "a processor", "cores": 2, "threads": 1, "versions": {"torch": "2"}}


def traffic(stamps: list[int], sent: list[int], received: list[int], numbers: list[int]) -> Traffic:
    """From stamps in ms and times in µs."""
    return Traffic(np.array(stamps) * 1_000_000, np.array(sent) * 1000, np.array(received) * 1000, np.array(numbers))


def states(count: int) -> Traffic:
    """Joint states every 2 ms, each 100 µs on its way."""
    stamps = [2 * number for number in range(count)]
    sent = [2000 * number for number in range(count)]
    return traffic(stamps, sent, [time + 100 for time in sent], list(range(7, 7 + count)))


def test_latency_is_from_the_joint_state_to_the_arrival_of_its_torque() -> None:
    torques = traffic([0, 2, 6], [400, 2600, 6400], [500, 2700, 8500], [20, 21, 22])
    run = summed_up(states(4), torques, 0.002, {}, trainer=False, goals=0, training_updates=0, model_updates=0)
    assert run.latency == pytest.approx([0.0005, 0.0007, 0.0025])
    assert run.late == 1
    assert (run.states, run.unanswered, run.control_steps) == (4, 1, 3)
    assert run.real_time_factor == pytest.approx(1.0)


def test_messages_that_only_the_listener_lost_are_not_unanswered() -> None:
    heard = traffic([0, 6], [400, 6400], [500, 6500], [20, 23])
    run = summed_up(states(4), heard, 0.002, {}, trainer=False, goals=0, training_updates=0, model_updates=0)
    assert (run.states, run.unanswered) == (4, 0)
    assert len(run.latency) == 2


def test_a_torque_on_the_way_to_zero_answers_nothing() -> None:
    torques = traffic([0, 3, 6], [400, 3400, 6400], [500, 3500, 6500], [20, 21, 22])
    run = summed_up(states(4), torques, 0.002, {}, trainer=False, goals=0, training_updates=0, model_updates=0)
    assert run.latency == pytest.approx([0.0005, 0.0005])


def test_a_silent_controller_is_said_so() -> None:
    nothing = traffic([], [], [], [])
    with pytest.raises(ConfigError, match="answered no joint states"):
        summed_up(states(4), nothing, 0.02, {}, trainer=False, goals=0, training_updates=0, model_updates=0)


def times(policy: float, forward_model: float) -> TickTimes:
    return TickTimes(np.full(5, policy), np.full(5, forward_model))


def test_the_ratio_is_that_of_the_medians_of_whole_steps() -> None:
    metrics = report((times(0.001, 0.001), times(0.008, 0.004)), [], MACHINE, 0.0)
    assert {part: row["ratio"] for part, row in metrics["ticks"].items()} == pytest.approx(
        {"policy": 8.0, "forward_model": 4.0, "both": 6.0}
    )


@pytest.mark.parametrize(("load", "said"), [(0.1, False), (1.9, True)])
def test_a_busy_machine_is_mentioned(load: float, said: bool) -> None:
    metrics = report((times(1e-3, 1e-3), times(1e-3, 1e-3)), [], MACHINE, load)
    assert ("load average 1.9 on 2 cores" in table(metrics)) == said


def test_table_and_json_say_what_a_run_showed() -> None:
    torques = traffic([0, 2, 6], [400, 2600, 6400], [500, 2700, 8500], [20, 21, 22])
    counts = {"missed control step": 3}
    run = summed_up(states(4), torques, 0.002, counts, trainer=True, goals=5, training_updates=9, model_updates=2)
    metrics = json.loads(json.dumps(report((times(1e-3, 1e-3), times(1e-2, 1e-2)), [run], MACHINE, 0.0)))
    printed = table(metrics)
    assert "with the trainer: 0 s at 1.000 of real time, 5 goals, trained 9 times, networks sent 2 times" in printed
    assert "p50 0.700, p99 2.464, max 2.500" in printed
    assert "of 4 joint states: 1 unanswered, 1 answered late" in printed
    assert "of 3 control steps, by the controller's count: 3 missed control step" in printed


def test_both_sides_of_the_ratio_are_measured_on_every_step() -> None:
    ours, snntorch = measure_ticks(MODEL, 7)
    for measured in (ours, snntorch):
        assert measured.both.shape == (7,)
        assert min(measured.policy.min(), measured.forward_model.min()) > 0.0
    assert not np.array_equal(ours.both, snntorch.both)


def test_the_other_side_has_the_sizes_of_the_checkpoint() -> None:
    ours, theirs = load_checkpoint(MODEL), load_checkpoint(MODEL)
    agent = with_snntorch_modules(theirs)
    assert agent.act(np.zeros((1, 15)), np.full((1, 3), 0.4)).shape == (1, 6)
    for before, after in ((ours.policy, theirs.policy), (ours.forward_model, theirs.forward_model)):
        assert isinstance(before.network, torch.nn.Module)
        assert isinstance(after.network, SnntorchNetwork)
        assert weights(after.network) == weights(before.network)


def weights(network: torch.nn.Module) -> list[tuple[int, ...]]:
    """Shapes of all matrices between inputs, neurons and outputs."""
    named = network.named_parameters()
    return sorted(tuple(value.shape) for name, value in named if value.ndim == 2 and "log_tau" not in name)


def test_networks_without_spikes_are_refused(tmp_path: Path) -> None:
    config = load_config(share_path("config", "train", "panda_reach_gru.yaml"))
    path = tmp_path / "gru.safetensors"
    save_checkpoint(path, *build_networks(config), config)
    with pytest.raises(ConfigError, match="holds no spiking networks"):
        measure_ticks(str(path), 3)
