"""Networks that arrive while others run: whatever is wrong with them is said, and good ones run at once as they are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spiking_controller.errors import ModelContractError
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint, parse_checkpoint
from spiking_controller.online.model_update import Version
from spiking_controller.resources import share_path
from spiking_controller.snn.compiled import kernels

SHIPPED = share_path("models", "panda_reach.safetensors")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(SHIPPED)


def test_networks_of_another_contract_are_refused(checkpoint: Checkpoint) -> None:
    other = share_path("models", "planar_reach.safetensors").read_bytes()
    with pytest.raises(ModelContractError, match="topic: task is 'planar_reach', but the running networks have"):
        Version.read(other, checkpoint.contract, "topic")


@pytest.mark.parametrize("scale", [0.123, [0.123] * 6])
def test_a_scale_for_all_joints_and_one_for_each_are_told_apart(checkpoint: Checkpoint, scale: Any) -> None:
    running = replace(checkpoint.contract, action_scale=scale)
    with pytest.raises(ModelContractError, match=r"topic: action_scale is .*, but the running networks have"):
        Version.read(SHIPPED.read_bytes(), running, "topic")


def test_whatever_else_goes_wrong_is_said_too(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes, source: str) -> Checkpoint:
        raise MemoryError("no room")

    monkeypatch.setattr("spiking_controller.online.model_update.parse_checkpoint", fails)
    with pytest.raises(ModelContractError, match=r"topic: cannot be read \(MemoryError: no room\)\."):
        Version.read(SHIPPED.read_bytes(), checkpoint.contract, "topic")


def test_networks_act_the_same_in_the_other_process_and_need_nothing_compiled_there(checkpoint: Checkpoint) -> None:
    sent = Version.read(SHIPPED.read_bytes(), checkpoint.contract, "topic")
    came = Version.unpack(sent.pack())
    assert (came.sha256, came.parent) == (checkpoint.metadata["sha256"], checkpoint.metadata["parent"])
    compiled = len(kernels.layer_step.signatures), len(kernels.readout_forward.signatures)
    rng = np.random.default_rng(0)
    size = 2 * checkpoint.task.controlled_joints + checkpoint.task.goal_dimensions
    for _ in range(20):
        observation, goal = rng.uniform(-1.0, 1.0, (1, size)), rng.uniform(0.2, 0.6, (1, 3))
        np.testing.assert_array_equal(came.agent.act(observation, goal), sent.agent.act(observation, goal))
        np.testing.assert_array_equal(came.agent.predict(observation), sent.agent.predict(observation))
    assert (len(kernels.layer_step.signatures), len(kernels.readout_forward.signatures)) == compiled


def test_only_a_version_is_unpacked(checkpoint: Checkpoint) -> None:
    packed = Version.of(parse_checkpoint(SHIPPED.read_bytes(), "topic")).pack()
    assert Version.unpack(packed).sha256 == checkpoint.metadata["sha256"]
    with pytest.raises(Exception, match=r"truncated|ran out"):
        Version.unpack(packed[: len(packed) // 2])
