"""The ONNX file acts as the package does, step by step, with everything between joint states and torques inside."""

import json
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.networks.deployment import Precision, deployed
from spiking_controller.networks.onnx_export import to_onnx
from spiking_controller.resources import share_path
from spiking_controller.tasks.environment import ReachVectorEnv

EPISODES = 10


class OnnxPolicy:
    """One arm's policy in onnxruntime."""

    def __init__(self, session: onnxruntime.InferenceSession, controlled: int) -> None:
        self.session = session
        entries = json.loads(session.get_modelmeta().custom_metadata_map["initial_state"])
        self.state = {name: np.full(entry["shape"], entry["value"], np.float32) for name, entry in entries.items()}
        self.action = np.zeros((1, controlled), np.float32)

    def act(self, **inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the arm's state, [n] each, the torque [m]."""
        given = {name: values[None] for name, values in inputs.items()}
        self.action, torque, *after = self.session.run(None, {**given, "previous_action": self.action, **self.state})
        self.state = dict(zip(self.state, after, strict=True))
        return np.asarray(torque[0])


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "panda_reach.safetensors"))


@pytest.fixture(scope="module")
def session(checkpoint: Checkpoint) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = to_onnx(checkpoint).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_it_acts_as_the_package_does_over_ten_closed_loop_episodes(checkpoint: Checkpoint, session: Any) -> None:
    task = checkpoint.task
    env = ReachVectorEnv(task, EPISODES)
    env.reset(seed=5)
    agents = [SpikingAgent(checkpoint.policy) for _ in range(EPISODES)]
    exported = [OnnxPolicy(session, task.controlled_joints) for _ in range(EPISODES)]
    goal = env.goal
    for _ in range(task.steps_per_episode):
        position, velocity, hand = env.joint_position, env.joint_velocity, env.hand_position
        actions = []
        for arm in range(EPISODES):
            torque = exported[arm].act(joint_position=position[arm], joint_velocity=velocity[arm], goal=goal[arm])
            action = exported[arm].action[0]
            observation = env.codec.encode(position[arm], velocity[arm], hand[arm])
            expected = agents[arm].act(observation[None], goal[arm][None])[0]
            np.testing.assert_allclose(action, expected, rtol=0.0, atol=1e-5)
            law = task.torque_scale * action - task.damping * velocity[arm, : task.controlled_joints]
            np.testing.assert_allclose(torque, law, rtol=1e-9)
            actions.append(action)
        env.step(np.array(actions))
    assert np.median(np.linalg.norm(env.hand_position - goal, axis=1)) < 0.005


def test_it_carries_the_contract_and_what_the_torque_law_needs(checkpoint: Checkpoint, session: Any) -> None:
    metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata["contract"]["joint_names"] == list(checkpoint.task.arm.joint_names)
    assert metadata["contract"]["control_period"] == checkpoint.task.control_period
    assert metadata["torque_law"]["torque_scale"] == checkpoint.task.torque_scale.tolist()
    assert metadata["checkpoint"] == checkpoint.metadata["sha256"]
    names = [entry.name for entry in session.get_inputs()]
    assert names[4:] == list(metadata["initial_state"])
    assert [entry.name for entry in session.get_outputs()][2:] == [f"next_{name}" for name in names[4:]]


def test_what_a_chip_would_round_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="fixed point"):
        to_onnx(deployed(checkpoint, Precision(weight_bits=8, state_bits=16, state_fraction_bits=8)))
