"""What the forward model did not expect is told on topics, in the names and units that the documents give."""

from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import WrenchStamped
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from spiking_controller.nodes.common import messages

GOAL = (0.45, -0.25, 0.45)
LOCK_STEP = {"lock_step": True, "real_time_factor": 0.0, "lock_step_timeout": 30.0}
TOPICS: dict[str, Any] = {
    "disturbance": JointState,
    "load": Float64MultiArray,
    "contact": WrenchStamped,
    "contact_torque": JointState,
}


def test_a_load_that_is_picked_up_is_told_with_its_mass_and_its_torques(graph: Any, probe: Any) -> None:
    heard: dict[str, list[Any]] = {name: [] for name in TOPICS}
    for name, kind in TOPICS.items():
        qos = messages.RELIABLE if name.startswith("contact") else messages.LATEST
        probe.create_subscription(kind, f"controller/{name}", heard[name].append, qos)
    graph.controller(use_sim_time=True, autostart=False)
    assert probe.change_state(Transition.TRANSITION_CONFIGURE)
    probe.send_accepted_goal(*GOAL)
    bridge = graph.bridge(**LOCK_STEP, payload_mass=2.0)
    probe.wait_for(lambda: probe.time() == 0.0, "the first state")
    assert probe.change_state(Transition.TRANSITION_ACTIVATE)
    probe.wait_for(lambda: probe.time() >= 5.0, "5 s in lock-step")
    assert probe.distance(GOAL) < 0.01
    load = heard["load"][-1]
    assert [dimension.label for dimension in load.layout.dim] == ["mass", "confidence", "x", "y", "z"]
    mass, confidence, *place = load.data
    assert mass == pytest.approx(2.0, rel=0.1)
    assert 0.5 < confidence <= 1.0
    assert np.abs(place).max() < 0.1
    disturbance = heard["disturbance"][-1]
    assert list(disturbance.name) == list(probe.arm.joint_names[:6])
    jacobian = probe.arm.chain.position_and_jacobian(np.array(probe.states[-1].position))[1][:, :6]
    weight = jacobian.T @ [0.0, 0.0, -2.0 * 9.81]
    assert np.abs(np.array(disturbance.effort) - weight).max() < 2.0
    assert not heard["contact"], "what was there from the start is none"
    push = probe.create_publisher(WrenchStamped, "mujoco_bridge/push", messages.RELIABLE)
    wrench = WrenchStamped()
    wrench.wrench.force.y = 20.0
    probe.wait_for(lambda: push.get_subscription_count() == 1, "the bridge's ear for pushes")
    push.publish(wrench)
    probe.wait_for(lambda: heard["contact"] and heard["contact_torque"], "a contact")
    contact, torque = heard["contact"][0], heard["contact_torque"][0]
    assert contact.header.frame_id == "panda_link0"
    assert contact.header.stamp == torque.header.stamp
    assert contact.wrench.force.y > 5.0
    assert list(torque.name) == list(probe.arm.joint_names)
    assert bridge.is_running
