"""Training diagnoses itself: each condition in a real tiny run, what follows from it, and how it is told."""

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from spiking_controller.errors import TrainingDivergedError
from spiking_controller.networks.baselines import GRUConfig, MLPConfig
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.config import Diagnosis, TrainingConfig
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.regularisers import ActivityRegulariser
from spiking_controller.training.diagnosis import (
    MEASUREMENT_COLUMNS,
    Condition,
    Measurement,
    Monitor,
    NetworkMeasurement,
    symptoms,
)
from spiking_controller.training.training_run import Progress, TrainingRun
from spiking_controller.training.updates import ModelUpdate, PolicyUpdate

AT_ONCE = Diagnosis(patience=1, model_grace=0)


def ignore(progress: Progress) -> None:
    """A report that nobody reads."""


def policy_network(run: TrainingRun) -> SpikingNetwork:
    network = run._updater.policy.network
    assert isinstance(network, SpikingNetwork)
    return network


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def train(config: TrainingConfig, directory: Path, report: Callable[[Progress], None] = ignore) -> TrainingRun:
    run = TrainingRun(config, directory)
    run.run(report, lambda: False)
    return run


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    networks = run._updater.learners
    return {
        f"{name}.{key}": value.clone()
        for name, (network, _) in networks.items()
        for key, value in network.state_dict().items()
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, right[key]) for key, value in left.items())


def learning_rates(run: TrainingRun, network: str) -> list[float]:
    _, optimizer = dict(run._updater.learners)[network]  # type: ignore[index]
    return [group["full_rate"] for group in optimizer.param_groups]


def with_silent_layer(config: TrainingConfig) -> TrainingConfig:
    """Weights between the layers are scaled for presynaptic neurons that fire at 1 GHz."""
    assert isinstance(config.policy, NetworkConfig)
    return replace(config, policy=replace(config.policy, neuron="lif", rate=1e9))


def with_huge_readout(config: TrainingConfig, gain: float = 1e5) -> TrainingConfig:
    assert isinstance(config.forward_model, NetworkConfig)
    return replace(config, forward_model=replace(config.forward_model, output_gain=gain))


class NaNInSecondIteration:
    """A report that makes the recorded goals NaN after the first iteration, and puts them back after the second.

    The forward model does not see goals, so its updates of that iteration are done when the policy meets NaN.
    """

    def __init__(self) -> None:
        self.run: TrainingRun | None = None
        self.weights: list[dict[str, torch.Tensor]] = []

    def __call__(self, progress: Progress) -> None:
        assert self.run is not None
        memory = self.run._memory
        if progress.iteration == 1:
            self._kept = memory.goal.copy()
            memory.goal[:] = np.nan
        elif progress.iteration == 2:
            memory.goal[:] = self._kept
        self.weights.append(weights(self.run))


# What is measured


def test_an_iteration_is_summed_up(small_config: TrainingConfig) -> None:
    quiet, busy = torch.tensor([0.0, 0.0, 0.5, 1.0]), torch.tensor([0.0, 0.1, 0.5, 1.0])
    measurement = Measurement.of(
        small_config,
        [ModelUpdate(1.0, 4.0, norm, (busy,)) for norm in (1.0, 3.0, 50.0)],
        [PolicyUpdate(0.0, {}, 0.0, 0.0, 2.0, (busy, layer)) for layer in (quiet, busy)],
    )
    columns = measurement.columns()
    assert tuple(columns) == MEASUREMENT_COLUMNS
    assert columns["model_error_ratio"] == pytest.approx(0.25)
    assert columns["model_gradient_norm"] == 3.0
    assert columns["policy_gradient_norm"] == 2.0
    assert columns["model_rate_hz"] == pytest.approx(0.4 / small_config.forward_model.tick)
    assert columns["policy_rate_hz"] == pytest.approx(0.39375 / small_config.policy.tick)
    assert columns["model_silent_share"] == pytest.approx(1 / 4)
    assert columns["policy_silent_share"] == pytest.approx(2 / 8)
    assert columns["policy_saturated_share"] == pytest.approx(2 / 8)
    assert [layer.tolist() for layer in measurement.policy.silent] == [
        [True, False, False, False],
        [True, False, False, False],
    ]


def test_networks_without_spikes_and_iterations_without_updates_are_measured_as_far_as_they_go(
    small_config: TrainingConfig,
) -> None:
    measurement = Measurement.of(small_config, [ModelUpdate(1.0, 2.0, 5.0, ())], [])
    columns = measurement.columns()
    assert columns.pop("model_error_ratio") == 0.5
    assert columns.pop("model_gradient_norm") == 5.0
    assert set(columns.values()) == {None}
    assert list(symptoms(small_config, measurement, 100)) == []


def test_the_log_holds_the_measurements(small_config: TrainingConfig, tmp_path: Path) -> None:
    train(small_config, tmp_path)
    for row in table(tmp_path / "log.csv"):
        assert all(float(row[name]) >= 0.0 for name in MEASUREMENT_COLUMNS)
        assert 1.0 < float(row["policy_rate_hz"]) < 1.0 / small_config.policy.tick


def test_a_run_of_networks_that_do_not_spike_leaves_rates_empty(small_config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(
        small_config,
        forward_model=GRUConfig(small_config.forward_model.hidden),
        policy=MLPConfig(small_config.policy.hidden),
        policy_updates=replace(small_config.policy_updates, activity=ActivityRegulariser(lower=10.0)),
        diagnosis=replace(AT_ONCE, model_worse_than_nothing="warn", silent_layer="stop"),
    )
    train(config, tmp_path)
    for row in table(tmp_path / "log.csv"):
        measured = {name for name in MEASUREMENT_COLUMNS if row[name]}
        assert measured == {"model_error_ratio", "policy_gradient_norm", "model_gradient_norm"}


def test_a_healthy_run_has_no_findings(small_config: TrainingConfig, tmp_path: Path) -> None:
    options = replace(small_config.model_updates, first=300, per_iteration=40, batch=16, unroll=8)
    reports: list[Progress] = []
    train(replace(small_config, model_updates=options, diagnosis=AT_ONCE), tmp_path, reports.append)
    assert [report.findings for report in reports] == [()] * small_config.iterations
    assert table(tmp_path / "diagnosis.csv") == []
    assert max(float(row["model_error_ratio"]) for row in table(tmp_path / "log.csv")) < 0.95


# Patience


def silent_measurement(share: float, ratio: float = 0.1) -> Measurement:
    silent = torch.arange(100) < 100 * share
    policy = NetworkMeasurement(0.1, 20.0, (silent,), (torch.zeros(100, dtype=torch.bool),))
    return Measurement(policy, NetworkMeasurement(0.1, 20.0, (), ()), ratio)


def test_only_what_lasts_is_a_finding_and_then_the_count_starts_anew(small_config: TrainingConfig) -> None:
    monitor = Monitor(replace(small_config, diagnosis=Diagnosis(patience=2, silent_share=0.5)))
    shares = [0.6, 0.4, 0.6, 0.6, 0.6, 0.6, 0.5]
    found = [len(monitor.examine(i, silent_measurement(share))) for i, share in enumerate(shares, start=1)]
    assert found == [0, 0, 0, 1, 0, 1, 0]


def test_a_restored_monitor_goes_on_counting(small_config: TrainingConfig) -> None:
    config = replace(small_config, diagnosis=Diagnosis(patience=2))
    before, after = Monitor(config), Monitor(config)
    assert before.examine(1, silent_measurement(1.0)) == []
    after.restore(before.state())
    assert len(after.examine(2, silent_measurement(1.0))) == 1


def test_the_policy_waits_as_long_as_the_model_is_worse_than_nothing(small_config: TrainingConfig) -> None:
    monitor = Monitor(replace(small_config, diagnosis=Diagnosis(patience=2, model_grace=1)))
    waits = []
    for iteration, ratio in enumerate([2.0, 2.0, 1.5, 1.0, 1.2, 0.9, 1.1], start=1):
        monitor.examine(iteration, silent_measurement(0.0, ratio))
        waits.append(monitor.policy_waits)
    assert waits == [False, False, True, True, True, False, False]


# Not finite


def test_after_nan_both_networks_go_back_and_learn_more_slowly(small_config: TrainingConfig, tmp_path: Path) -> None:
    report = NaNInSecondIteration()
    report.run = TrainingRun(small_config, tmp_path)
    report.run.run(report, lambda: False)
    after_first, after_second, after_third, _ = report.weights
    assert same(after_first, after_second)
    assert not same(after_second, after_third)
    findings = table(tmp_path / "diagnosis.csv")
    found = {(row["iteration"], row["condition"], row["where"], row["action"]) for row in findings}
    assert found == {("2", "not_finite", "policy", "adapt")}
    assert len(findings) == small_config.policy_updates.per_iteration == 3
    assert "non-finite update, loss nan" in findings[0]["sentence"]
    assert "lower policy_updates.learning_rate (now 0.002)" in findings[0]["sentence"]
    assert set(learning_rates(report.run, "policy")) == {0.002 / 8, 0.01 / 8}
    assert set(learning_rates(report.run, "forward_model")) == {0.003 / 8, 0.01 / 8}
    second = table(tmp_path / "log.csv")[1]
    assert float(second["model_loss"]) > 0.0
    assert second["policy_loss"] == ""


def test_nan_in_the_weights_is_found_although_the_neuron_just_stays_silent(
    small_config: TrainingConfig, tmp_path: Path
) -> None:
    run = TrainingRun(small_config, tmp_path)
    good: list[dict[str, torch.Tensor]] = []

    @torch.no_grad()
    def report(progress: Progress) -> None:
        if progress.iteration == 1:
            good.append(weights(run))
            policy_network(run).bias[0][3] = torch.nan

    run.run(report, lambda: False)
    assert {row["condition"] for row in table(tmp_path / "diagnosis.csv")} == {"not_finite"}
    assert all(bool(value.isfinite().all()) for value in weights(run).values())
    assert not same(good[0], weights(run))


def test_a_run_that_only_warns_of_nan_leaves_those_updates_out(small_config: TrainingConfig, tmp_path: Path) -> None:
    report = NaNInSecondIteration()
    report.run = TrainingRun(replace(small_config, diagnosis=Diagnosis(not_finite="warn")), tmp_path)
    report.run.run(report, lambda: False)
    changed = {key for key, value in report.weights[1].items() if not torch.equal(value, report.weights[0][key])}
    assert {key.partition(".")[0] for key in changed} == {"forward_model"}
    assert [row["action"] for row in table(tmp_path / "diagnosis.csv")] == ["warn"]
    assert set(learning_rates(report.run, "policy")) == {0.002, 0.01}


def test_a_run_that_stops_at_nan_saves_the_last_good_networks(small_config: TrainingConfig, tmp_path: Path) -> None:
    report = NaNInSecondIteration()
    report.run = TrainingRun(replace(small_config, diagnosis=Diagnosis(not_finite="stop")), tmp_path)
    with pytest.raises(TrainingDivergedError, match="policy, iteration 2: non-finite update, loss nan"):
        report.run.run(report, lambda: False)
    assert same(report.weights[0], report.weights[1])
    assert [row["iteration"] for row in table(tmp_path / "log.csv")] == ["1", "2"]
    assert [row["action"] for row in table(tmp_path / "diagnosis.csv")] == ["stop"]
    saved = load_checkpoint(report.run.checkpoint).policy.state_dict()
    assert all(torch.equal(value, report.weights[0][f"policy.{key}"]) for key, value in saved.items())
    assert TrainingRun(report.run.config, tmp_path, resume=True).iteration == 2


def test_a_run_that_halving_does_not_help_stops(small_config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(with_huge_readout(small_config, 1e30), diagnosis=Diagnosis(most_halvings=3))
    with pytest.raises(TrainingDivergedError, match="after 3 halvings of the learning rates"):
        train(config, tmp_path)
    findings = table(tmp_path / "diagnosis.csv")
    assert [row["action"] for row in findings] == ["adapt"] * 3 + ["stop"]
    assert all("lower model_updates.learning_rate (now 0.003)" in row["sentence"] for row in findings)
    assert TrainingRun(config, tmp_path, resume=True).iteration == 0


# Silent and saturated layers


def test_a_silent_layer_is_named_and_its_bias_raised_until_it_fires(
    small_config: TrainingConfig, tmp_path: Path
) -> None:
    bounds = replace(AT_ONCE, silent_layer="adapt", model_worse_than_nothing="warn")
    reports: list[Progress] = []
    train(replace(with_silent_layer(small_config), diagnosis=bounds), tmp_path, reports.append)
    found = [f for report in reports for f in report.findings if f.symptom.condition is Condition.SILENT_LAYER]
    assert found[0].symptom.where == "policy/hidden2"
    assert found[0].iteration == 1
    assert found[0].sentence.startswith(
        "policy/hidden2, iteration 1: 100.0% of its neurons did not fire once (bound 90.0%); "
        "raise policy_updates.activity.lower (now 0 Hz)"
    )
    shares = [float(row["policy_silent_share"]) for row in table(tmp_path / "log.csv")]
    assert shares[-1] < shares[0]
    assert len(found) < small_config.iterations


def test_a_run_that_only_warns_goes_on_unchanged(small_config: TrainingConfig, tmp_path: Path) -> None:
    config = with_silent_layer(small_config)
    warned = train(replace(config, diagnosis=Diagnosis(patience=1, silent_layer="warn")), tmp_path / "warned")
    blind = train(replace(config, diagnosis=Diagnosis(patience=1, silent_share=1.0)), tmp_path / "blind")
    assert same(weights(warned), weights(blind))
    assert len(table(tmp_path / "warned" / "diagnosis.csv")) == config.iterations
    assert table(tmp_path / "blind" / "diagnosis.csv") == []


def test_a_saturated_layer_is_named_and_the_bias_of_those_neurons_lowered(
    small_config: TrainingConfig, tmp_path: Path
) -> None:
    config = replace(
        small_config,
        iterations=1,
        diagnosis=replace(AT_ONCE, saturated_layer="adapt", model_worse_than_nothing="warn"),
        policy_updates=replace(small_config.policy_updates, learning_rate=1e-9),
        time_constant_learning_rate=1e-9,
    )
    run = TrainingRun(config, tmp_path)
    network = policy_network(run)
    with torch.no_grad():
        network.bias[0][:12] = 50.0
    before, decay = network.bias[0].detach().clone(), network.effective().decays[0].synaptic.detach()
    reports: list[Progress] = []
    run.run(reports.append, lambda: False)
    (finding,) = (f for f in reports[0].findings if f.symptom.condition is Condition.SATURATED_LAYER)
    assert finding.symptom.value == 0.75
    assert "policy/hidden1, iteration 1: 75.0% of its neurons fired in more than 95.0%" in finding.sentence
    assert "set policy_updates.activity.upper (now off) below the network's" in finding.sentence
    lowered = before - network.bias[0].detach()
    torch.testing.assert_close(lowered[:12], 0.5 * (1.0 - decay[:12]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(lowered[12:], torch.zeros(4), rtol=0.0, atol=1e-6)


def test_the_upper_bound_that_is_set_is_the_one_to_lower(small_config: TrainingConfig) -> None:
    updates = replace(small_config.model_updates, activity=ActivityRegulariser(upper=150.0))
    config = replace(small_config, model_updates=updates)
    saturated = NetworkMeasurement(0.1, 190.0, (torch.zeros(4, dtype=torch.bool),), (torch.ones(4, dtype=torch.bool),))
    (symptom,) = symptoms(config, Measurement(NetworkMeasurement(0.1, 20.0, (), ()), saturated, 0.1), 1)
    assert symptom.fix == "lower model_updates.activity.upper (now 150 Hz) below the network's 190 Hz"


# Exploding gradient


def test_exploding_gradients_halve_the_learning_rates_of_that_network(
    small_config: TrainingConfig, tmp_path: Path
) -> None:
    bounds = replace(AT_ONCE, patience=2, exploding_gradient="adapt", model_worse_than_nothing="warn")
    reports: list[Progress] = []
    run = train(replace(with_huge_readout(small_config), diagnosis=bounds, gradient_norm=0.5), tmp_path, reports.append)
    found = [f for report in reports for f in report.findings if f.symptom.condition is Condition.EXPLODING_GRADIENT]
    assert {f.iteration for f in found} == {2, 4}
    assert all(f.symptom.value > f.symptom.bound == 50.0 for f in found)
    on_model = next(f for f in found if f.symptom.network == "forward_model")
    assert "median norm of its gradient before clipping is" in on_model.sentence
    assert "(bound 50)" in on_model.sentence
    assert "lower model_updates.unroll (now 3) or lower model_updates.learning_rate (now 0.003)" in on_model.sentence
    assert set(learning_rates(run, "forward_model")) == {0.003 / 4, 0.01 / 4}


def test_exploding_gradients_can_stop_the_run(small_config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(with_huge_readout(small_config), diagnosis=replace(AT_ONCE, exploding_gradient="stop"))
    with pytest.raises(TrainingDivergedError, match="median norm of its gradient"):
        train(config, tmp_path)
    assert [row["iteration"] for row in table(tmp_path / "log.csv")] == ["1"]
    assert TrainingRun(config, tmp_path, resume=True).iteration == 1


# A forward model that is worse than nothing


def test_the_policy_learns_only_while_the_model_is_better_than_nothing(
    small_config: TrainingConfig, tmp_path: Path
) -> None:
    bound = 0.9
    config = replace(
        small_config,
        iterations=10,
        evaluate_every=10,
        model_updates=replace(small_config.model_updates, per_iteration=15, batch=16, unroll=8, learning_rate=1e-2),
        diagnosis=replace(AT_ONCE, model_error_ratio=bound),
    )
    policies: list[torch.Tensor] = []
    run = TrainingRun(config, tmp_path)
    run.run(lambda _: policies.append(policy_network(run).input_weight.detach().clone()), lambda: False)
    rows, findings = table(tmp_path / "log.csv"), table(tmp_path / "diagnosis.csv")
    worse = [float(row["model_error_ratio"]) >= bound for row in rows]
    assert worse[0]
    assert not all(worse[:-1])
    for index in range(1, len(rows)):
        assert (rows[index]["policy_loss"] == "") == worse[index - 1]
        assert torch.equal(policies[index], policies[index - 1]) == worse[index - 1]
    assert [int(row["iteration"]) for row in findings] == [i for i, is_worse in enumerate(worse, start=1) if is_worse]
    first = findings[0]
    assert first["condition"] == "model_worse_than_nothing"
    assert "times that of predicting 'nothing moves' (bound 0.9)" in first["sentence"]
    assert "raise model_updates.per_iteration (now 15)" in first["sentence"]


# How it is told


def test_the_command_prints_findings_and_ends_with_the_sentence_and_exit_code_2(
    small_config: TrainingConfig, tmp_path: Path
) -> None:
    bounds = replace(AT_ONCE, patience=2, exploding_gradient="warn", model_worse_than_nothing="stop")
    config = replace(with_huge_readout(small_config), diagnosis=bounds)
    TrainingRun(config, tmp_path / "configuration")
    values: dict[str, Any] = yaml.safe_load((tmp_path / "configuration" / "config.yaml").read_text())
    assert values["diagnosis"]["model_worse_than_nothing"] == "stop"
    command = [sys.executable, "-m", "spiking_controller.cli", "train", "planar_reach"]
    command += ["--config", str(tmp_path / "configuration" / "config.yaml"), "--out", str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "warn: forward_model, iteration 2: the median norm of its gradient" in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: forward_model, iteration 2: its error is")
    assert "raise model_updates.per_iteration (now 3)" in last
    assert load_checkpoint(tmp_path / "run" / "planar_reach.safetensors").metadata["evaluation"]["iteration"] == 2
