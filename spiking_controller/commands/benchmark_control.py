"""`spiking_controller benchmark control`: how fast a tick is, and what the live graph makes of it in real time."""

import argparse
import json
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import rclpy
import torch
from rclpy.executors import Executor

from spiking_controller.commands.up import command_line
from spiking_controller.errors import ConfigError
from spiking_controller.experiments.benchmarks.control_benchmark import LiveRun, measure_ticks, report, summed_up, table
from spiking_controller.experiments.benchmarks.latency_probe import LatencyProbe
from spiking_controller.experiments.benchmarks.training_benchmark import processor_name, software_versions
from spiking_controller.files import write_atomically
from spiking_controller.nodes.clients.graph import SILENCE_LIMIT, START_LIMIT, Graph, GraphError, keep_to_ourselves
from spiking_controller.nodes.common.process import create_executor, start_ros
from spiking_controller.resources import share_path
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.reach import ReachTask, get_task

TASK: Final = "panda_reach"
GOAL_DURATION: Final = 4.0
"""Between two goals, s."""
_SETTLING: Final = 2.0
"""From the first torque to the first goal, longer than the soft start, s."""
_LOOK_PERIOD: Final = 0.02
_SEED: Final = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `benchmark control`."""
    parser.add_argument(
        "--minutes", type=float, default=10.0, metavar="N", help="real time per run of the live graph (default: 10)"
    )
    parser.add_argument(
        "--steps", type=int, default=3000, metavar="N", help="control steps to time the networks on (default: 3000)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads (default: 1)")
    parser.add_argument("--model", type=Path, help="checkpoint to measure; by default the shipped one of the Panda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to this file")


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit code.

    Raises:
        ConfigError: an option out of range, or ROS does not start in this environment.
        GraphError: the graph does not come up or dies.
    """
    if args.minutes <= 0 or args.steps < 1 or args.threads < 1:
        raise ConfigError(
            f"--minutes {args.minutes:g} must be above 0, --steps {args.steps} and --threads {args.threads} at least 1."
        )
    keep_to_ourselves()
    model = args.model or share_path("models", f"{TASK}.safetensors")
    load = os.getloadavg()[0]
    torch.set_num_threads(args.threads)
    print(f"Timing the networks of {model}", flush=True)
    ticks = measure_ticks(str(model), args.steps)
    runs = [measure_live(str(model), 60.0 * args.minutes, trainer) for trainer in (False, True)]
    machine = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "versions": software_versions() | {"rclpy": version("rclpy")},
        "steps": args.steps,
        "model": str(model),
    }
    metrics = report(ticks, runs, machine, load)
    print(f"\n{table(metrics)}")
    if args.json:
        write_atomically(args.json, (json.dumps(metrics, indent=2) + "\n").encode())
        print(f"\nWritten to {args.json}")
    return 0


def measure_live(model: str, duration: float, trainer: bool) -> LiveRun:
    """Bring the graph up in real time, send goals for some wall time (s), and measure.

    Raises:
        GraphError: the graph does not come up or dies.
    """
    task = get_task(TASK)
    print(f"Live graph {'with' if trainer else 'without'} the trainer, {duration:.0f} s", flush=True)
    start_ros([])
    try:
        with tempfile.TemporaryDirectory() as folder:
            options = command_line(["--model", model, "--train", str(trainer).lower()])
            graph = Graph(options, Path(folder) / "graph.log")
            try:
                return _listen(graph, task, duration, trainer)
            finally:
                graph.stop()
    finally:
        rclpy.try_shutdown()


def _listen(graph: Graph, task: ReachTask, duration: float, trainer: bool) -> LiveRun:
    probe = LatencyProbe(task.arm.base_frame)
    executor = create_executor()
    executor.add_node(probe.node)
    goals = sample_goals(task, np.random.default_rng(_SEED), 2 + int(duration / GOAL_DURATION))
    try:
        _wait_for_torque(graph, probe, executor)
        _pass(graph, probe, executor, _SETTLING)
        before = _next_counts(graph, probe, executor)
        probe.clear()
        end = time.monotonic() + duration
        for goal in goals:
            probe.send_goal(goal)
            _pass(graph, probe, executor, min(GOAL_DURATION, end - time.monotonic()))
            if time.monotonic() >= end:
                break
        after = _next_counts(graph, probe, executor)
        return summed_up(
            probe.states.traffic,
            probe.torques.traffic,
            task.control_period,
            {name: after[name] - before[name] for name in after},
            trainer=trainer,
            goals=probe.goals,
            training_updates=probe.training_updates,
            model_updates=probe.model_updates,
        )
    finally:
        executor.shutdown()
        probe.close()


def _wait_for_torque(graph: Graph, probe: LatencyProbe, executor: Executor) -> None:
    """Wait until the controller drives the arm and takes goals."""
    limit = time.monotonic() + START_LIMIT
    while not (probe.torques.drain() and probe.takes_goals):
        graph.check()
        if time.monotonic() > limit:
            raise GraphError(f"no torque came within {START_LIMIT:.0f} s; the graph's log says: {graph.last_words()}")
        executor.spin_once(timeout_sec=0.1)


def _pass(graph: Graph, probe: LatencyProbe, executor: Executor, seconds: float) -> None:
    """Let some time pass while the probe listens."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        time.sleep(min(_LOOK_PERIOD, end - now))
        executor.spin_once(timeout_sec=0.0)
        probe.drain()
    graph.check()


def _next_counts(graph: Graph, probe: LatencyProbe, executor: Executor) -> dict[str, int]:
    """What the controller has counted by now."""
    heard, limit = probe.diagnostics, time.monotonic() + SILENCE_LIMIT
    while probe.diagnostics == heard:
        if time.monotonic() > limit:
            graph.check()
            raise GraphError(
                f"the controller sent no diagnostics for {SILENCE_LIMIT:.0f} s; the graph's log says: "
                f"{graph.last_words()}"
            )
        _pass(graph, probe, executor, _LOOK_PERIOD)
    return probe.counts
