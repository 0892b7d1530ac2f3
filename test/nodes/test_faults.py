"""The fault campaign: whatever goes wrong in the graph, torque and arm keep their limits, and control resumes.

In real time and in lock-step. A relay between bridge and controller spoils the joint states (`relay.py`).
"""

import math
import signal
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import UInt8MultiArray
from std_srvs.srv import Trigger

from spiking_controller.nodes.common import messages
from spiking_controller.resources import share_path

PLACES = ((0.45, -0.25, 0.45), (0.35, 0.35, 0.6))
NEAR = 0.05
SIMULATION = "/mujoco_bridge: simulation"
CONTROL = "/controller: control"
MODEL = "/controller: model"
PACES: dict[str, dict[str, Any]] = {
    "real time": {"bridge": {}, "controller": {}},
    "lock-step": {
        "bridge": {"lock_step": True, "real_time_factor": 0.0, "lock_step_timeout": 2.0},
        "controller": {"use_sim_time": True},
    },
}


class Campaign:
    """An arm at work, and what can be done to it. Every torque and every posture since the last check is remembered."""

    def __init__(self, graph: Any, probe: Any, make_spoiler: Callable[..., Any], pace: str) -> None:
        self.probe = probe
        self.in_lock_step = pace == "lock-step"
        self._graph = graph
        self._parameters = PACES[pace]
        self._place = 0
        self._update_publisher = probe.create_publisher(UInt8MultiArray, "model_update", messages.LATCHED)
        relay = graph.run(Path(__file__).with_name("relay.py"))
        self.start_controller()
        self.start_bridge()
        self.spoil = make_spoiler(probe, relay).spoil

    def start_controller(self) -> None:
        self.controller = self._graph.controller(diagnostics_period=0.2, **self._parameters["controller"])

    def start_bridge(self) -> None:
        self.bridge = self._graph.bridge(
            "--remap", "joint_states:=joint_states_raw", diagnostics_period=0.2, **self._parameters["bridge"]
        )

    def set_in_motion(self) -> tuple[float, float, float]:
        """Send the hand to the place where it is not, and return that place with the arm on its way."""
        self._place = 1 - self._place
        self.probe.set_in_motion(*PLACES[self._place])
        return PLACES[self._place]

    def send_networks(self, data: bytes) -> None:
        self._update_publisher.publish(UInt8MultiArray(data=array("B", data)))

    def counted(self, name: str) -> int:
        """What the controller has counted under that name."""
        return int(self.probe.figure(CONTROL, name) or 0)

    def wait_for_arrival(self, place: tuple[float, float, float], after: str) -> None:
        """Without a further word from outside."""
        self.probe.wait_for(lambda: self.probe.distance(place) < NEAR, f"the hand to arrive after: {after}")

    def check(self) -> None:
        """Torque, torque rate and joint angles were within limits at every message; then forget them."""
        self.probe.assert_every_torque_is_legal()
        self.forget()

    def forget(self) -> None:
        """Begin anew with what `check` looks at."""
        for heard in (self.probe.commands, self.probe.torques, self.probe.states):
            heard.clear()

    def end(self) -> None:
        """On SIGTERM in the middle of a motion, the torque ramps to zero before the controller is gone."""
        self.set_in_motion()
        assert self.controller.stop(signal.SIGTERM) == 0
        self.probe.wait_for_rest("the last torque to be zero")
        self.check()
        assert self.bridge.stop() == 0


def joint_states_stop(campaign: Campaign) -> None:
    place = campaign.set_in_motion()
    missed = campaign.counted("stale joint states")
    campaign.spoil("stopped", 0.3)
    if not campaign.in_lock_step:  # There, time stands still, and so does the arm.
        campaign.probe.wait_for(
            lambda: campaign.counted("stale joint states") > missed, "the controller to miss the joint states"
        )
    campaign.wait_for_arrival(place, "joint states that stopped")


def joint_states_hold_nan(campaign: Campaign) -> None:
    place = campaign.set_in_motion()
    rejected = campaign.counted("rejected: non-finite position")
    campaign.spoil("nan_position", 0.3)
    campaign.probe.wait_for(
        lambda: campaign.counted("rejected: non-finite position") > rejected, "the controller to reject NaN"
    )
    campaign.wait_for_arrival(place, "NaN angles")
    place = campaign.set_in_motion()
    campaign.spoil("infinite_velocity", 0.3)
    campaign.wait_for_arrival(place, "an infinite velocity")


def joints_come_in_another_order(campaign: Campaign) -> None:
    campaign.spoil("swapped", 600.0)
    place = campaign.set_in_motion()
    campaign.wait_for_arrival(place, "joints in another order")
    campaign.spoil("swapped", 0.0)


def goals_flood_in(campaign: Campaign) -> None:
    probe = campaign.probe
    goals = [*PLACES, (math.nan, 0.0, 0.5), (3.0, 0.0, 0.3)]
    sent = 0

    def send_next() -> None:
        nonlocal sent
        probe.send_goal(*goals[sent % len(goals)])
        sent += 1

    probe.repeat(send_next, lambda: sent == 1000, "a thousand goals to be sent", period=0.001)
    place = campaign.set_in_motion()
    campaign.wait_for_arrival(place, "a thousand goals")


def the_clock_is_reset(campaign: Campaign) -> None:
    probe = campaign.probe
    place = campaign.set_in_motion()
    before = probe.time()
    assert probe.call(Trigger, "mujoco_bridge/reset", Trigger.Request()).success
    probe.wait_for(lambda: probe.time() < before, "time to jump back")
    campaign.wait_for_arrival(place, "a reset of arm and clock")


def networks_come_corrupt(campaign: Campaign) -> None:
    campaign.probe.next_status(CONTROL)
    missed = campaign.counted("missed control step")
    good = share_path("models", "panda_reach.safetensors").read_bytes()
    damaged = bytearray(good)
    damaged[-5] ^= 0xFF
    noise = np.random.default_rng(1).bytes(len(good))
    for data in (good[: len(good) // 2], bytes(damaged), noise):
        place = campaign.set_in_motion()
        refused = campaign.controller.output.count("refused: model_update")
        campaign.send_networks(data)
        campaign.probe.wait_for(
            lambda refused=refused: campaign.controller.output.count("refused: model_update") > refused, "a refusal"
        )
        campaign.wait_for_arrival(place, "corrupt networks")
    campaign.probe.wait_for(lambda: campaign.probe.figure(MODEL, "updates refused") == "3", "the count of refusals")
    campaign.probe.next_status(CONTROL)
    if campaign.in_lock_step:
        assert campaign.counted("missed control step") == missed


def the_controller_is_killed(campaign: Campaign) -> None:
    probe = campaign.probe
    campaign.set_in_motion()
    campaign.controller.kill()
    probe.wait_for(lambda: not np.any(probe.states[-1].effort), "the bridge to drop the torque")
    dropped_at = probe.time()
    probe.wait_for(lambda: probe.time() > dropped_at + 0.3, "time to go on without a controller")
    assert not np.any(probe.states[-1].effort), "and it stays so"
    probe.assert_torques_keep_their_limits()
    probe.goals.clear()
    campaign.start_controller()
    place = campaign.set_in_motion()
    # An arm that nobody drives coasts, on a busy machine for long enough to come to its stops.
    campaign.forget()
    if campaign.in_lock_step:
        probe.wait_for(lambda: probe.status(SIMULATION) == "lock-step", "lock-step to resume")
    campaign.wait_for_arrival(place, "a new controller")


def the_bridge_is_killed(campaign: Campaign) -> None:
    probe = campaign.probe
    place = campaign.set_in_motion()
    before = probe.time()
    campaign.bridge.kill()
    probe.wait_for(lambda: not np.any(probe.torques[-1].effort), "the torque to ramp to zero")
    campaign.start_bridge()
    probe.wait_for(lambda: probe.time() < before, "the new bridge")
    campaign.wait_for_arrival(place, "a new bridge")


CAMPAIGN: tuple[Callable[[Campaign], None], ...] = (
    joint_states_stop,
    joint_states_hold_nan,
    joints_come_in_another_order,
    goals_flood_in,
    the_clock_is_reset,
    networks_come_corrupt,
    the_controller_is_killed,
    the_bridge_is_killed,
)


@pytest.mark.parametrize("pace", PACES)
def test_no_fault_brings_torque_or_arm_out_of_its_limits_and_control_resumes(
    pace: str, graph: Any, make_probe: Callable[..., Any], make_spoiler: Callable[..., Any]
) -> None:
    # The probe hears what the bridge says, not what the relay makes of it.
    probe = make_probe(remaps=["joint_states:=joint_states_raw"])
    campaign = Campaign(graph, probe, make_spoiler, pace)
    for fault in CAMPAIGN:
        print(f"--- {pace}: {fault.__name__}")
        fault(campaign)
        campaign.check()
    campaign.end()
