"""A controller with trusted keys takes the networks of the trainer that has the key, and no others."""

import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from std_msgs.msg import UInt8MultiArray

from spiking_controller.networks.checkpoint import parse_checkpoint
from spiking_controller.nodes import trainer
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.controller import node as controller
from spiking_controller.online.signature import Signer, TrustedKeys, create_key_pair
from spiking_controller.resources import share_path

GOAL = (0.45, -0.25, 0.45)
OTHER_GOAL = (0.35, 0.35, 0.6)
MODEL = "/controller: model"
# No faster than real time: training steps back behind the arm, and shall get its share of the processors. A margin of
# nothing: the way of a version matters here, not how much better it is.
LOCK_STEP = {"lock_step": True, "lock_step_timeout": 30.0}
QUICK: dict[str, Any] = {
    "segment_steps": 25,
    "minimum_segments": 4,
    "minimum_held_back": 1,
    "hold_back_every": 3,
    "update_period": 1.0,
    "model_updates": 4,
    "policy_updates": 1,
    "margin": 0.0,
}


def test_only_networks_of_the_trainer_with_the_key_take_over(graph: Any, probe: Any, tmp_path: Path) -> None:
    private, public, _ = create_key_pair(tmp_path / "lab")
    stranger, _, fingerprint = create_key_pair(tmp_path / "stranger")
    updates: list[UInt8MultiArray] = []
    probe.create_subscription(UInt8MultiArray, "model_update", updates.append, messages.LATCHED)
    publisher = probe.create_publisher(UInt8MultiArray, "model_update", messages.LATCHED)
    running = graph.controller(diagnostics_period=0.1, trusted_keys=[str(public)])
    probe.wait_for(lambda: publisher.get_subscription_count() > 1, "a controller that takes networks")
    networks = share_path("models", "panda_reach.safetensors").read_bytes()
    changed = bytearray(Signer.read(private).sign(networks))
    changed[-5] ^= 1
    for data, reason in [
        (networks, "is not signed"),
        (Signer.read(stranger).sign(networks), f"is signed with the key {fingerprint[:12]}"),
        (bytes(changed), "does not fit the content"),
    ]:
        # Again where it was lost: discovery may be one-sided.
        probe.repeat(
            lambda data=data: publisher.publish(UInt8MultiArray(data=array("B", data))),
            lambda reason=reason: reason in probe.figure(MODEL, "last refusal"),
            f"the refusal of networks: {reason}",
            period=15.0,
        )
        assert reason in running.output.splitlines()[-1]
    refused = probe.figure(MODEL, "updates refused")
    assert int(refused) >= 3
    first = probe.status(MODEL)

    sent = len(updates)
    graph.start("trainer", signing_key=private, **QUICK)
    probe.wait_for(lambda: probe.status("/trainer: learning"), "the trainer")
    probe.send_accepted_goal(*GOAL)
    graph.bridge(**LOCK_STEP)
    probe.wait_for(lambda: len(updates) > sent, "a new version")
    # A version is taken at a goal change; on a slow machine it may arrive just after one.
    for _ in range(40):
        probe.send_accepted_goal(*GOAL)
        probe.send_accepted_goal(*OTHER_GOAL)
        if probe.happens(lambda: probe.status(MODEL) != first, 1.0):
            break
    taken = probe.status(MODEL).removeprefix("running ")
    sender = TrustedKeys.read([str(public)])
    by_trainer = [bytes(update.data) for update in updates[sent:]]
    for data in by_trainer:
        sender.check(data, "model_update")
    assert taken in [parse_checkpoint(data, "model_update").metadata["sha256"][:12] for data in by_trainer]
    assert probe.figure(MODEL, "updates refused") == refused
    probe.assert_every_torque_is_legal()


@pytest.mark.parametrize(("node", "parameter"), [(controller, "trusted_keys:=[{}]"), (trainer, "signing_key:={}")])
@pytest.mark.parametrize("installed", [True, False])
def test_a_node_does_not_start_without_its_key(
    node: Any,
    parameter: str,
    installed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sentence = "nothing.pem: the key cannot be read"
    if not installed:
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
        sentence = "need the Python package 'cryptography', which is not installed"
    assert node.main(["node", "--ros-args", "-p", parameter.format(tmp_path / "nothing.pem")]) == 2
    assert sentence in "".join(capfd.readouterr())


def test_without_keys_nothing_of_cryptography_is_needed() -> None:
    program = (
        "import sys\n"
        "import spiking_controller.nodes.controller.node, spiking_controller.nodes.controller.update_listener\n"
        "import spiking_controller.nodes.trainer, spiking_controller.online.model_update\n"
        "print('cryptography' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
