"""The observation codec loses nothing and scales as its layout says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import get_task

TASKS = ["panda_reach", "planar_reach"]
NUMBERS = st.floats(-10.0, 10.0, allow_subnormal=False)


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_state_comes_back_from_its_observation(name: str, data: st.DataObject) -> None:
    task = get_task(name)
    codec = ObservationCodec(task)
    m, n, d = task.controlled_joints, len(task.arm.joint_names), task.goal_dimensions
    batch = data.draw(st.sampled_from([(), (1,), (3,), (2, 4)]))
    position = data.draw(arrays(np.float64, (*batch, n), elements=NUMBERS))
    velocity = data.draw(arrays(np.float64, (*batch, n), elements=NUMBERS))
    hand = data.draw(arrays(np.float64, (*batch, 3), elements=NUMBERS))

    observation = codec.encode(position, velocity, hand)

    assert observation.shape == (*batch, codec.size)
    np.testing.assert_allclose(codec.joint_position(observation), position[..., :m], atol=1e-12)
    np.testing.assert_allclose(codec.joint_velocity(observation), velocity[..., :m], atol=1e-12)
    np.testing.assert_array_equal(codec.hand_position(observation), hand[..., :d])


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_observation_comes_back_from_its_state(name: str, data: st.DataObject) -> None:
    task = get_task(name)
    codec = ObservationCodec(task)
    observation = data.draw(arrays(np.float64, (2, codec.size), elements=NUMBERS))
    hand = np.zeros((2, 3))
    hand[:, : task.goal_dimensions] = codec.hand_position(observation)
    again = codec.encode(codec.joint_position(observation), codec.joint_velocity(observation), hand)
    np.testing.assert_allclose(again, observation, atol=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_layout_describes_the_encoding(name: str) -> None:
    task = get_task(name)
    codec = ObservationCodec(task)
    layout = json.loads(json.dumps(codec.layout))
    rng = np.random.default_rng(0)
    values = {
        "joint_position": rng.normal(size=task.controlled_joints),
        "joint_velocity": rng.normal(size=task.controlled_joints),
        "hand_position": rng.normal(size=3),
    }
    expected = [
        (values[block["name"]][: block["size"]] - block["offset"]) / np.array(block["scale"]) for block in layout
    ]
    np.testing.assert_array_equal(codec.encode(**values), np.concatenate(expected))


@pytest.mark.parametrize("name", TASKS)
def test_soft_bounds_and_velocity_limits_become_plus_and_minus_one(name: str) -> None:
    task = get_task(name)
    codec = ObservationCodec(task)
    m = task.controlled_joints
    for sign, bound in zip((-1.0, 1.0), task.soft_bounds, strict=True):
        observation = codec.encode(bound, sign * task.arm.limits.velocity, np.zeros(3))
        np.testing.assert_allclose(observation[: 2 * m], sign)
