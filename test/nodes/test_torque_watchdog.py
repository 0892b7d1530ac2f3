"""Between a controller and an arm, a real watchdog passes commands on, and leaves no torque where they go wrong."""

import math
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from spiking_controller.commands.up import WATCHED
from spiking_controller.nodes import torque_watchdog
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.torque_watchdog import UNCHECKED_COMMANDS

COMMANDS = "/torque_watchdog: commands"
GOAL, OTHER_GOAL = (0.45, -0.25, 0.45), (0.35, 0.35, 0.6)
TIMEOUT = 0.1
HELD = 0.09
"""An arm that is under the same torque for longer has lost its controller, s."""
RAMP = 0.087
"""From the largest torque to zero at the rate limit, s."""
SLACK = 0.4
"""What a busy machine may take on top, s."""
TORQUES = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7]
LONG = 5.0
"""A command timeout that no pause of the test's own reaches, s."""


def time_under_the_last_torque_and_the_ramp(probe: Any) -> float:
    """From the last torque of a controller that has died until there was none, simulated s."""
    effort = np.array([state.effort for state in probe.states])
    (changed,) = np.nonzero(np.any(np.diff(effort, axis=0) != 0.0, axis=1))
    # The ramp changes the torque from state to state, but for some pauses of a busy machine.
    ended = changed[-1] + 1
    assert not effort[ended].any()
    held = next(
        now for before, now in pairwise(changed[::-1]) if probe_time(probe, before) - probe_time(probe, now) > HELD
    )
    return probe_time(probe, ended) - probe_time(probe, held + 1)


def probe_time(probe: Any, number: int) -> float:
    """Stamp of a joint state that was heard, s."""
    return messages.stamp_to_time(probe.states[number].header.stamp) / messages.NANOSECONDS


def with_torque(probe: Any) -> bool:
    return bool(probe.commands and np.any(probe.commands[-1].data))


def test_a_controller_that_is_killed_in_motion_leaves_no_torque_and_another_one_takes_over(
    graph: Any, probe: Any
) -> None:
    watchdog = graph.start("torque_watchdog", use_sim_time=True, command_timeout=TIMEOUT, diagnostics_period=0.1)
    # The bridge's own timeout must not do the watchdog's work.
    graph.bridge(command_timeout=10.0)
    controller = graph.controller("--remap", WATCHED, use_sim_time=True)
    probe.set_in_motion(*GOAL)
    controller.kill()
    probe.wait_for(lambda: probe.status(COMMANDS).startswith("no torque: no command comes"), "an error")
    probe.wait_for(lambda: not np.any(probe.states[-1].effort), "the arm to have no torque")
    assert time_under_the_last_torque_and_the_ramp(probe) < TIMEOUT + RAMP + SLACK
    assert "the torque ramps to zero: no command comes" in watchdog.output
    rest = probe.time()
    probe.wait_for(lambda: probe.time() > rest + 0.5, "the arm to be left alone")
    assert not with_torque(probe)

    probe.goals.clear()
    graph.controller("--remap", WATCHED, use_sim_time=True)
    probe.set_in_motion(*OTHER_GOAL)
    probe.wait_for(lambda: probe.distance(OTHER_GOAL) < 0.05, "the goal")
    probe.wait_for(lambda: probe.status(COMMANDS) == "passing commands on", "the watchdog to be content")
    assert int(probe.figure(COMMANDS, "silence")) >= 1
    assert probe.figure(COMMANDS, "torque rate limit") == ""
    probe.assert_every_torque_is_legal()
    assert watchdog.stop() == 0
    assert "Traceback" not in watchdog.output


@pytest.fixture
def send(probe: Any) -> Callable[[list[float]], None]:
    """Sends a command as a controller does."""
    publisher = probe.create_publisher(Float64MultiArray, UNCHECKED_COMMANDS, QoSProfile(depth=100))

    def send_command(torques: list[float]) -> None:
        message = Float64MultiArray(data=torques)
        message.layout.dim = [MultiArrayDimension(label="joints", size=len(torques), stride=len(torques))]
        publisher.publish(message)

    return send_command


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([math.nan] * 7, "not finite"),
        (TORQUES[:6], "wrong length"),
        ([*TORQUES[:6], 12.5], "torque limit"),
        # More than the rate limit allows in half a second.
        ([-600.0 * 0.125, *TORQUES[1:]], "torque rate limit"),
    ],
)
def test_a_bad_command_brings_the_torque_to_zero_and_good_ones_bring_it_back(
    bad: list[float], reason: str, graph: Any, probe: Any, send: Callable[[list[float]], None]
) -> None:
    watchdog = graph.start("torque_watchdog", command_timeout=LONG, diagnostics_period=0.1)
    probe.repeat(lambda: send(TORQUES), lambda: len(probe.commands) > 20, "commands to be passed on")
    assert all(list(command.data) == TORQUES for command in probe.commands)
    assert probe.commands[-1].layout.dim[0].label == "joints"
    probe.repeat(lambda: send(bad), lambda: not with_torque(probe), "zero torque", period=0.002)
    probe.repeat(
        lambda: send([math.nan]), lambda: probe.status(COMMANDS).startswith("no torque: a command"), "an error"
    )
    assert int(probe.figure(COMMANDS, reason)) >= 1
    assert "the torque ramps to zero: a command" in watchdog.output
    probe.repeat(
        lambda: send(TORQUES), lambda: list(probe.commands[-1].data) == TORQUES, "the torque to return", period=0.002
    )
    probe.repeat(
        lambda: send(TORQUES), lambda: probe.status(COMMANDS) == "passing commands on", "the watchdog to be content"
    )
    commands = np.array([command.data for command in probe.commands])
    assert np.isfinite(commands).all()
    # A change that comes late on a busy machine is limited and no fault.
    assert (np.abs(commands) <= (probe.arm.limits.torque if reason == "torque rate limit" else 1.0)).all()


def test_a_watchdog_that_is_ended_leaves_no_torque(graph: Any, probe: Any, send: Callable[[list[float]], None]) -> None:
    watchdog = graph.start("torque_watchdog", command_timeout=LONG)
    probe.repeat(lambda: send(TORQUES), lambda: with_torque(probe), "commands to be passed on")
    assert watchdog.stop(signal.SIGTERM) == 0
    probe.wait_for_rest("the last command to be zero")


def test_a_wrong_parameter_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [sys.executable, "--ros-args", "--param", "hardware:=fr4"]
    assert torque_watchdog.main(arguments) == 2
    assert "there is no arm 'fr4'; the arms are fr3, panda" in capfd.readouterr().err


def test_hardware_with_another_number_of_joints_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [sys.executable, "--ros-args", "--param", "hardware:=fr3", "--param", "arm:=planar_arm"]
    assert torque_watchdog.main(arguments) == 2
    assert "set hardware to as_trained" in capfd.readouterr().err
