"""`spiking_controller demo`: brings the graph up, sends goals over ROS, and shows what the spiking controller does."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import rclpy
import yaml
from rclpy.executors import Executor

from spiking_controller.commands.up import command_line
from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.demo import report as live_report
from spiking_controller.evaluation.demo.plots import draw_distance, draw_spikes
from spiking_controller.evaluation.demo.recording import Recording
from spiking_controller.evaluation.demo.rendering import RenderingError, render
from spiking_controller.networks.checkpoint import load_checkpoint_of
from spiking_controller.nodes.clients.goal_sender import GoalSender
from spiking_controller.nodes.clients.graph import SILENCE_LIMIT, START_LIMIT, Graph, GraphError, keep_to_ourselves
from spiking_controller.nodes.common.process import create_executor, start_ros
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm
from spiking_controller.tasks.goals import sample_goals
from spiking_controller.tasks.reach import ReachTask

GOAL_DURATION = 4.0
"""How long each goal is held, s of stamped time."""
REST = 1.5
"""Stamped time from an active controller to the first goal, longer than its soft start, s."""
ENOUGH_STEPS = 0.97
"""With a smaller share of the control steps, the run says more about the machine than about the controller."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the demo."""
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for figures, animation and report")
    parser.add_argument("--seed", type=int, default=7, help="of the goals, which are drawn over the whole workspace")
    parser.add_argument("--goals", type=int, default=8, help="how many goals")
    parser.add_argument("--arm", default="panda", help="the arm: a name, or the path of an arm's file")
    parser.add_argument("--model", type=Path, help="checkpoint to run; default: that of the arm")
    parser.add_argument(
        "--real-time-factor",
        type=float,
        help="simulated seconds per second; default: 1, and with --lock-step as fast as it goes",
    )
    parser.add_argument("--view", action="store_true", help="also serve a page for the browser: see the demo live")
    parser.add_argument("--lock-step", action="store_true", help="simulation and controller wait for each other")


def run(args: argparse.Namespace) -> int:
    """Run the demo; see `add_arguments`.

    Raises:
        ConfigError: an option has an impossible value, or ROS does not start in this environment.
        ModelContractError: the checkpoint cannot be used.
        RobotModelError: there is no such arm.
        GraphError: the graph does not come up or dies.
    """
    if args.goals < 1:
        raise ConfigError(f"--goals {args.goals} is no number of goals; give 1 or more.")
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed} is negative; give 0 or more.")
    keep_to_ourselves()
    task = load_checkpoint_of(get_arm(args.arm), args.model or "").task
    goals = sample_goals(task, np.random.default_rng(args.seed), args.goals)
    goals = np.pad(goals, ((0, 0), (0, 3 - task.goal_dimensions)))
    args.out.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    recording = _record(args, task, goals)
    wall_time = time.monotonic() - started
    fraction = recording.control_step_fraction(task.control_period)
    if fraction < ENOUGH_STEPS:
        print(
            f"Note: {100 * (1 - fraction):.0f} % of the control steps are missing, because the machine was too busy "
            "for real time; the errors are larger than they need be. Close other programs, or use --lock-step.",
            flush=True,
        )
    summary = live_report.summary(recording)
    report = live_report.report(recording) | {
        "seed": args.seed,
        "model": str(args.model) if args.model else "shipped",
        "lock_step": args.lock_step,
        "wall_time_s": round(wall_time, 1),
        "control_step_share": round(fraction, 4),
    }
    _write(args.out, task, recording, report)
    print(json.dumps(summary), flush=True)
    return 0


def _record(args: argparse.Namespace, task: ReachTask, goals: np.ndarray) -> Recording:
    """Bring the graph up, send the goals, take the graph down."""
    factor = args.real_time_factor if args.real_time_factor is not None else 0.0 if args.lock_step else 1.0
    options = ["--arm", task.arm_name, "--real-time-factor", str(factor), "--params-file", str(_parameters(args))]
    options += ["--model", str(args.model)] if args.model else []
    options += ["--view", "true"] if args.view else []
    print(f"Starting the graph (ROS domain {os.environ['ROS_DOMAIN_ID']})", flush=True)
    graph = Graph(command_line(options), args.out / "graph.log")
    try:
        start_ros([])
        sender = GoalSender(goals, task.arm.base_frame, GOAL_DURATION, REST)
        executor = create_executor()
        executor.add_node(sender)
        try:
            _wait_until_active(graph, sender, executor)
            if args.view:
                print(f"See it live: {graph.page_address()}", flush=True)
            _send_goals(graph, sender, executor)
            return sender.recording()
        finally:
            executor.shutdown()
            sender.destroy_node()
    finally:
        rclpy.try_shutdown()
        graph.stop()


def _parameters(args: argparse.Namespace) -> Path:
    """The parameters of the graph: the shipped ones, with the bridge in lock-step if that is wanted."""
    shipped = share_path("config", "panda.yaml")
    if not args.lock_step:
        return shipped
    parameters = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    parameters["/**/mujoco_bridge"]["ros__parameters"]["lock_step"] = True
    path: Path = args.out / "parameters.yaml"
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return path


def _wait_until_active(graph: Graph, sender: GoalSender, executor: Executor) -> None:
    limit = time.monotonic() + START_LIMIT
    while not sender.controller_is_active:
        graph.check()
        if time.monotonic() > limit:
            raise GraphError(
                f"the graph did not come up within {START_LIMIT:.0f} s: {sender.missing}; "
                f"its log says: {graph.last_words()}"
            )
        sender.ask_state()
        executor.spin_once(timeout_sec=0.1)


def _send_goals(graph: Graph, sender: GoalSender, executor: Executor) -> None:
    progress = Progress(sender)
    sender.start()
    heard, heard_at = sender.time, time.monotonic()
    while not sender.finished:
        executor.spin_once(timeout_sec=0.1)
        now = time.monotonic()
        if sender.time != heard:
            heard, heard_at = sender.time, now
        elif now - heard_at > SILENCE_LIMIT:
            graph.check()
            raise GraphError(
                f"no joint state has come for {SILENCE_LIMIT:.0f} s; the graph's log says: {graph.last_words()}"
            )
        progress.show()
    progress.finish()


class Progress:
    """One line per goal: on a terminal it changes while the hand approaches, elsewhere it is written at the end."""

    def __init__(self, sender: GoalSender) -> None:
        """Watch this sender."""
        self._sender = sender
        self._is_terminal = sys.stdout.isatty()
        self._shown_at = 0.0
        self._goal = 0
        self._distance = 0.0

    def show(self) -> None:
        """Call often; prints at most ten times a second."""
        now = time.monotonic()
        if self._sender.goals_sent != self._goal:
            self.finish()
            self._goal = self._sender.goals_sent
        elif now - self._shown_at < 0.1:
            return
        self._shown_at = now
        self._distance = self._sender.distance() or 0.0
        if self._is_terminal and self._goal:
            print(f"\r{self._line()}", end="", flush=True)

    def finish(self) -> None:
        """End the line of the present goal."""
        if self._goal:
            start = "\r" if self._is_terminal else ""
            print(f"{start}{self._line()}", flush=True)

    def _line(self) -> str:
        x, y, z = self._sender.goals[self._goal - 1]
        place = f"({x:+.2f}, {y:+.2f}, {z:+.2f}) m"
        total = len(self._sender.goals)
        return f"goal {self._goal} of {total} at {place}: hand is {100 * self._distance:6.2f} cm away"


def _write(out: Path, task: ReachTask, recording: Recording, report: dict[str, Any]) -> None:
    """Write the files of the demo; where no animation can be drawn, say so and go on."""
    if np.isnan(recording.final_error()).any() or not recording.spike_time.size:
        raise GraphError(
            "hand_pose or ~/spikes went missing while the goals were sent; is another node publishing them?"
        )
    recording.save(out / "recording.npz")
    draw_distance(recording, out / "distance.png")
    if recording.spikes:
        draw_spikes(recording, out / "spike_raster.png")
    else:
        (out / "spike_raster.png").unlink(missing_ok=True)  # The networks have no spikes; this is an earlier run's.
    print("Drawing the animation", flush=True)
    try:
        render(out / "recording.npz", task.arm_name, out / "arm.gif")
    except RenderingError as error:
        (out / "arm.gif").unlink(missing_ok=True)
        print(f"No animation: {error}", flush=True)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for name in ("distance.png", "spike_raster.png", "arm.gif", "report.json"):
        if (out / name).exists():
            print(f"Wrote {out / name}", flush=True)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave in order, so that the graph is stopped; also where SIGINT was ignored when we were started."""
    raise KeyboardInterrupt
