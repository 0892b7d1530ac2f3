"""An imagined future is what policy and forward model make of each other, step after step."""

import numpy as np
import pytest

from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.future import Future, FutureImagination
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmSimulation
from spiking_controller.tasks.torque import TorqueLaw

GOAL = np.array([0.4, 0.25, 0.45])


@pytest.fixture(scope="module")
def imagination() -> FutureImagination:
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    return FutureImagination(checkpoint.task, SpikingAgent(checkpoint.policy, checkpoint.forward_model))


def at_home(imagination: FutureImagination, steps: int = 25) -> Future:
    home = np.tile(imagination._task.arm.home, (10, 1))
    return imagination.imagine(home, np.zeros_like(home), GOAL, steps)


def test_the_future_begins_now_and_leads_to_the_goal(imagination: FutureImagination) -> None:
    future = at_home(imagination)
    arm = imagination._task.arm
    assert future.hand_position.shape == (26, 3)
    np.testing.assert_allclose(future.hand_position[0], arm.chain.position(arm.home), atol=1e-6)
    distance = np.linalg.norm(future.hand_position - GOAL, axis=1)
    assert distance[-1] < 0.5 * distance[0]
    np.testing.assert_array_equal(future.joint_position[:, 6], np.repeat(arm.home[6], 26))
    np.testing.assert_allclose(arm.chain.position(future.joint_position), future.hand_position)


def test_the_same_past_has_the_same_future(imagination: FutureImagination) -> None:
    np.testing.assert_array_equal(at_home(imagination).hand_position, at_home(imagination).hand_position)


def test_the_simulated_hand_goes_where_it_was_imagined(imagination: FutureImagination) -> None:
    """Within a fifth of the way, 25 steps ahead."""
    checkpoint = load_checkpoint(share_path("models", "panda_reach.safetensors"))
    task, agent = checkpoint.task, SpikingAgent(checkpoint.policy, checkpoint.forward_model)
    law, simulation = TorqueLaw(task), ArmSimulation(task.arm, task.physics_period)
    law.locked_position = np.asarray(task.arm.home)[task.controlled_joints :]
    codec = imagination._codec
    positions, velocities, hands = [], [], []
    for _ in range(35):
        reading = simulation.reading
        positions.append(reading.position.copy())
        velocities.append(reading.velocity.copy())
        hands.append(task.arm.chain.position(reading.position))
        observation = codec.encode(reading.position, reading.velocity, hands[-1])
        action = agent.act(observation[None], GOAL[None])[0]
        for _ in range(round(task.control_period / task.physics_period)):
            now = simulation.reading
            simulation.advance(law.torque(action, now.position, now.velocity))
    future = imagination.imagine(np.array(positions[:10]), np.array(velocities[:10]), GOAL, 25)
    way = np.linalg.norm(hands[34] - hands[9])
    assert way > 0.05
    assert np.linalg.norm(future.hand_position[25] - hands[34]) < 0.2 * way
