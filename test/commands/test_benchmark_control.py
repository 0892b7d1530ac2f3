"""The benchmark of the live graph hears what real nodes say to each other."""

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from spiking_controller.cli import main
from spiking_controller.commands.benchmark_control import measure_live
from spiking_controller.experiments.benchmarks.latency_probe import LatencyProbe
from spiking_controller.resources import share_path

STATE_RATE = 500.0
"""Of the shipped parameters, Hz."""
CONTROL_PERIOD = 0.02
"""Of the shipped networks, s."""


def test_a_short_run_of_the_live_graph_is_measured() -> None:
    run = measure_live(str(share_path("models", "panda_reach.safetensors")), 2.0, trainer=False)
    assert run.goals >= 1
    assert (run.trainer, run.training_updates, run.model_updates) == (False, 0, 0)
    # However busy the machine: real time, and what the rates of bridge and controller make of it.
    assert 0.1 < run.real_time_factor < 1.1
    simulated = run.real_time_factor * run.duration
    assert run.states == pytest.approx(1 + STATE_RATE * simulated, abs=1)
    assert run.control_steps == pytest.approx(simulated / CONTROL_PERIOD, abs=1)
    assert 50 < len(run.latency) <= run.states
    assert run.unanswered < run.states
    assert 0.0 < run.latency.min() < run.latency.max() < run.duration
    assert run.late == np.count_nonzero(run.latency > 1.0 / STATE_RATE)
    assert set(run.counts) == {"missed control step", "overruns", "late states"}
    assert all(count >= 0 for count in run.counts.values())


def test_what_the_trainer_did_is_counted_from_the_first_goal_on() -> None:
    rclpy.init(args=[])
    probe = LatencyProbe("panda_link0")
    try:
        for times, counted in (("3", 3), ("3", 0), ("5", 2)):
            figures = [KeyValue(key="update", value=times)]
            trainer = DiagnosticStatus(name="/trainer: learning", values=figures)
            probe.node.create_publisher(DiagnosticArray, "/diagnostics", 1).publish(DiagnosticArray(status=[trainer]))
            rclpy.spin_once(probe.node, timeout_sec=10.0)
            assert probe.training_updates == counted
            if times == "3":
                probe.clear()
    finally:
        probe.close()
        rclpy.shutdown()


def test_wrong_options_end_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for option, sentence in (("--minutes", "--minutes 0 must be above 0"), ("--steps", "--steps 0 and")):
        assert main(["benchmark", "control", option, "0"]) == 2
        message = capsys.readouterr().err
        assert sentence in message
        assert len(message.splitlines()) == 1
