"""A stream without an end is judged run after run; each run gives the figures of its bag."""

import json
from typing import Any

import numpy as np
import pytest

from spiking_controller.evaluation.replay.evaluator import ReplayEvaluator, ReplaySettings
from spiking_controller.evaluation.replay.live import LiveEvaluation
from spiking_controller.evaluation.replay.live_status import Status, series, statuses
from spiking_controller.evaluation.tables import to_json
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.units import NANOSECONDS

Event = tuple[str, int, tuple[Any, ...]]
Metrics = dict[str, Any]
LIVE = ReplaySettings(keep_series=False)
SECONDS = 3.0
"""So much of the bag is told: the first goal is under way, and windows are complete."""


def tell(listener: Any, events: list[Event]) -> None:
    for name, _, arguments in events:
        getattr(listener, name)(*arguments)


@pytest.fixture(scope="module")
def start(events: list[Event]) -> list[Event]:
    """The first seconds of the bag."""
    late = next(index for index, (_, due, _) in enumerate(events) if due > SECONDS * NANOSECONDS)
    return events[:late]


@pytest.fixture(scope="module")
def metrics(start: list[Event], checkpoint: Checkpoint) -> Metrics:
    """Of them as a bag of their own."""
    evaluator = ReplayEvaluator([checkpoint])
    tell(evaluator, start)
    evaluator.finish()
    return evaluator.metrics()


class Listened:
    """A live evaluation whose complete figures are kept."""

    def __init__(self, *checkpoints: Checkpoint) -> None:
        self.complete: list[Metrics] = []
        self.live = LiveEvaluation(checkpoints, LIVE, self.complete.append)


@pytest.fixture
def listened(checkpoint: Checkpoint) -> Listened:
    return Listened(checkpoint)


def of_run(number: int, jumps: int, metrics: Metrics) -> Metrics:
    return {"run": number, "jumps_back": jumps, "complete": True, **metrics}


def goal_in_force(live: LiveEvaluation) -> Any:
    goal = live._run.goals.goal
    assert goal is not None
    return goal.tolist()


def test_each_round_of_a_loop_gives_the_figures_of_the_bag(
    start: list[Event], metrics: Metrics, listened: Listened
) -> None:
    for _ in range(2):
        tell(listened.live, start)
    assert listened.complete == [of_run(1, 0, metrics)]
    listened.live.complete()
    assert listened.complete[1:] == [of_run(2, 1, metrics)]
    assert "jump back in time" not in metrics["stream"]["dropped"]
    assert metrics["baselines"]["windows"] > 0


def test_silence_completes_a_run_once_and_the_run_goes_on_after_it(
    start: list[Event], metrics: Metrics, listened: Listened
) -> None:
    half = len(start) // 2
    listened.live.complete()
    assert not listened.complete  # nothing came
    tell(listened.live, start[:half])
    for _ in range(2):
        listened.live.complete()
    tell(listened.live, start[half:])
    assert not listened.live.metrics()["complete"]
    listened.live.complete()
    first, second = listened.complete
    assert first["run"] == second["run"] == 1
    assert 0 < first["stream"]["control_steps"] < metrics["stream"]["control_steps"]
    for key in ("joint_states", "control_steps", "stretches", "dropped"):
        assert second["stream"][key] == metrics["stream"][key]


def test_another_run_on_request_keeps_the_goal(start: list[Event], listened: Listened) -> None:
    goals = [index for index, (name, _, _) in enumerate(start) if name == "add_goal"]
    middle = goals[-1] + 1000
    tell(listened.live, start[:middle])
    listened.live.restart()
    tell(listened.live, start[middle:])
    listened.live.complete()
    first, second = listened.complete
    assert (first["run"], second["run"], second["jumps_back"]) == (1, 2, 0)
    steps = [metrics["stream"]["control_steps"] for metrics in (first, second)]
    assert sum(steps) == pytest.approx(SECONDS / 0.02, abs=15)
    assert goal_in_force(listened.live) == [0.45, 0.25, 0.45]


def test_a_goal_that_overtakes_the_jump_counts_in_the_run_after_it(
    start: list[Event], checkpoint: Checkpoint, listened: Listened
) -> None:
    states = [event for event in start if event[0] == "add_joint_state"]
    tell(listened.live, states[500:600])
    listened.live.add_goal(1, (0.3, 0.1, 0.4))
    tell(listened.live, states[:200])
    assert listened.live.number == 2
    assert goal_in_force(listened.live) == [0.3, 0.1, 0.4]


def test_velocities_that_are_estimated_count_in_their_own_run(start: list[Event], listened: Listened) -> None:
    bare = {due: (name, due, (*values[:3], ())) for name, due, values in start if name == "add_joint_state"}
    for _ in range(2):
        tell(listened.live, list(bare.values())[:100])
    listened.live.complete()
    assert [metrics["stream"]["joint_states"]["estimated_velocities"] for metrics in listened.complete] == [100, 100]


def test_complete_figures_are_json(start: list[Event], listened: Listened) -> None:
    tell(listened.live, start[:300])
    listened.live.complete()
    assert json.loads(to_json(listened.complete[0])) == listened.complete[0]


def test_the_rehearsal_goes_through_all_that_judges(listened: Listened, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Metrics] = []
    metrics_of = ReplayEvaluator.metrics

    def metrics(evaluator: ReplayEvaluator) -> Metrics:
        judged.append(metrics_of(evaluator))
        return judged[-1]

    monkeypatch.setattr(ReplayEvaluator, "metrics", metrics)
    listened.live.rehearse()
    (rehearsed,) = judged
    assert rehearsed["baselines"]["windows"] > 0
    assert rehearsed["checkpoints"][0]["policy"]["compared_steps"] > 0
    assert listened.live.metrics()["stream"]["control_steps"] == 0


def entries(metrics: Metrics, problem: str = "", **counts: int) -> dict[str, Status]:
    return {status.name: status for status in statuses(metrics, problem, counts)}


def test_what_is_read_on_diagnostics_is_what_replay_prints(metrics: Metrics) -> None:
    stream, stay, linear, spiking, *others = statuses(of_run(1, 0, metrics), "", {})
    assert not stream.is_warning
    assert stream.summary == f"run 1, {metrics['stream']['duration_s']:.1f} s, is complete"
    assert int(stream.values["control steps"]) == metrics["stream"]["control_steps"]
    assert (stay.name, linear.name) == ("the state stays", "linear extrapolation")
    assert not spiking.is_warning
    assert spiking.summary.startswith("predicts this arm: ")
    assert spiking.values["recorded torque, rms (N·m)"] != "–"
    assert spiking.values["policy: spikes per neuron per second"] != "–"
    assert stay.values.keys() <= spiking.values.keys()
    assert [other.name for other in others] == ["recorded run"]


def test_what_needs_attention_is_said(metrics: Metrics, listened: Listened, start: list[Event]) -> None:
    empty = listened.live.metrics()
    assert entries(empty)["stream"][1:3] == (True, "waiting for joint states")
    assert entries(empty, "joint_states lacks panda_joint1")["stream"].summary == "joint_states lacks panda_joint1"
    tell(listened.live, [event for event in start[:1000] if event[0] == "add_joint_state"])
    without = entries(listened.live.metrics(), odd=3)["stream"]
    assert without.is_warning
    assert "none came on controller/torque; with torque: measured" in without.summary
    assert without.values["odd"] == "3"
    (checkpoint,) = metrics["checkpoints"]
    horizons = {key: {**errors, "joint_rad": 1.0} for key, errors in checkpoint["forward_model"]["horizons"].items()}
    model = {**checkpoint["forward_model"], "horizons": horizons}
    wrong = {**of_run(1, 0, metrics), "checkpoints": [{**checkpoint, "forward_model": model}]}
    judged = entries(wrong)[checkpoint["name"]]
    assert judged.is_warning
    assert judged.summary.startswith("does not predict this arm: 1000 mrad 10 steps ahead")


def test_what_is_plotted_has_a_row_for_each_forecast(metrics: Metrics, listened: Listened) -> None:
    plotted = series(metrics)
    (checkpoint,) = metrics["checkpoints"]
    model = checkpoint["forward_model"]
    errors = plotted["joint_error"]
    assert errors.axes == ("the state stays, linear extrapolation, spiking", "1, 10, 50 steps ahead")
    assert errors.values.shape == (3, 3)
    assert errors.values[0, 1] == metrics["baselines"]["stay"]["10"]["joint_rad"]
    assert errors.values[2, 2] == model["horizons"]["50"]["joint_rad"]
    assert plotted["hand_error"].values[2, 0] == model["horizons"]["1"]["hand_m"]
    assert plotted["following_error"].values.tolist() == [model["following_rad"]]
    assert plotted["torque_difference"].values.tolist() == [checkpoint["policy"]["torque_difference_rms"]]
    assert plotted["firing_rate"].values.shape == (1, 2)
    nothing = series(listened.live.metrics())
    assert nothing.keys() == plotted.keys()
    assert all(np.isnan(part.values).all() for part in nothing.values())
