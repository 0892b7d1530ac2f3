"""Bridge and controller as they run in a lab: real nodes, real topics, the shipped networks."""

from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from numpy.typing import NDArray

from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.nodes.common import messages
from spiking_controller.resources import share_path
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes

GOAL = (0.45, -0.25, 0.45)
LOCK_STEP = {"lock_step": True, "real_time_factor": 0.0, "lock_step_timeout": 30.0}


def positions_by_time(probe: Any) -> dict[int, NDArray[np.float64]]:
    return {messages.stamp_to_time(state.header.stamp): np.array(state.position) for state in probe.states}


def run_in_lock_step(graph: Any, probe: Any, until: float, **parameters: Any) -> dict[int, NDArray[np.float64]]:
    """The joint positions by time (ns) of a run to GOAL from a cold start, with no message missed."""
    probe.states.clear()
    probe.goals.clear()
    controller = graph.controller(use_sim_time=True, autostart=False, **parameters)
    assert probe.change_state(Transition.TRANSITION_CONFIGURE)
    probe.send_accepted_goal(*GOAL)
    bridge = graph.bridge(**LOCK_STEP)
    probe.wait_for(lambda: probe.time() == 0.0, "the first state")
    assert probe.change_state(Transition.TRANSITION_ACTIVATE)
    probe.wait_for(lambda: probe.time() >= until and probe.spikes and probe.predictions, f"{until} s in lock-step")
    assert controller.stop() == 0
    assert bridge.stop() == 0
    return positions_by_time(probe)


def test_lock_step_reaches_the_goal_and_is_the_same_in_every_run(graph: Any, probe: Any) -> None:
    runs = []
    for _ in range(2):
        runs.append(run_in_lock_step(graph, probe, until=5.0))
        assert probe.distance(GOAL) < 0.02
        probe.assert_every_torque_is_legal()
    first, second = runs
    times = [2_000_000 * step for step in range(2500)]
    assert all((first[time] == second[time]).all() for time in times)
    spikes = messages.spikes_from_message(probe.spikes[-1])
    assert any("policy" in name for name in spikes)
    assert all(set(np.unique(layer)) <= {0, 1} for layer in spikes.values())


def test_lock_step_does_what_training_did(graph: Any, probe: Any) -> None:
    live = run_in_lock_step(graph, probe, until=2.0, soft_start=0.0, integral_gain=0.0, posture_stiffness=0.0)
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    env = ReachVectorEnv(checkpoint.task, 1, threads=1)
    agent = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
    episodes = run_episodes(env, agent, start="home", goals=np.array([GOAL]))
    trained = env.codec.joint_position(episodes.observation[0])
    for step in range(100):
        np.testing.assert_allclose(live[step * 20_000_000][:6], trained[step], atol=1e-6)


def test_what_the_safety_filter_changes_is_counted_by_reason_on_diagnostics(graph: Any, probe: Any) -> None:
    graph.controller(diagnostics_period=0.1, soft_start=0.0, rate_limit_period=0.0005)
    graph.bridge()
    probe.set_in_motion(*GOAL)
    counted = "intervention: torque rate limit"
    probe.wait_for(lambda: int(probe.figure("/controller: control", counted) or 0) > 0, "a count of the rate limit")
    probe.assert_every_torque_is_legal()
