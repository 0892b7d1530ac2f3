"""Terms of the policy's loss, and the goals that training draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spiking_controller.networks.checkpoint import build_networks
from spiking_controller.networks.config import GoalMix, PolicyLoss, TrainingConfig
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.regularisers import ActivityRegulariser
from spiking_controller.tasks.goals import is_hard
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.segments import Windows
from spiking_controller.training.collection import PolicyEpisodes
from spiking_controller.training.losses import Exercise, PolicyPenalties, policy_loss, self_motion

BATCH, STEPS = 6, 3


def random_observation(model: ForwardModel, *shape: int) -> torch.Tensor:
    size = 2 * model.arm.controlled_joints + model.arm.goal_dimensions
    return torch.rand(*shape, size, generator=torch.Generator().manual_seed(1)) - 0.5


def test_self_motion_is_the_joint_velocity_that_does_not_move_the_hand() -> None:
    model = ForwardModel(get_task("panda_reach"), NetworkConfig(hidden=(8,)), "velocities", seed=1)
    observation = random_observation(model, 4, BATCH).requires_grad_()
    motion = self_motion(model, observation)
    jacobian = model.hand_jacobian(observation.detach())
    assert float(motion.detach().norm(dim=-1).min()) > 0.01
    moved = (jacobian @ motion.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(moved, torch.zeros(4, BATCH, 3), atol=1e-4, rtol=0)
    motion.square().sum().backward()
    assert observation.grad is not None
    assert observation.grad[..., 6:12].abs().min() > 0
    assert not observation.grad[..., :6].any()


def test_an_arm_that_is_not_redundant_has_no_self_motion() -> None:
    model = ForwardModel(get_task("planar_reach"), NetworkConfig(hidden=(8,)), "velocities", seed=1)
    observation = random_observation(model, BATCH)
    assert float(self_motion(model, observation).abs().max()) < 0.02
    assert float(model.features.joint_velocity(observation).abs().max()) > 0.3


@pytest.mark.parametrize(
    "weights",
    [
        PolicyLoss(precision=1.0),
        PolicyLoss(guidance=1.0),
        PolicyLoss(rest=1.0, rest_zone=10.0),
        PolicyLoss(self_motion=1.0, self_motion_zone=10.0),
    ],
)
def test_each_term_adds_to_the_loss_and_can_be_switched_off(small_config: TrainingConfig, weights: PolicyLoss) -> None:
    config = replace(small_config, task="panda_reach")
    policy, model = build_networks(config)
    model.requires_grad_(False)
    rng = np.random.default_rng(2)
    observation = random_observation(model, STEPS + 1, BATCH).numpy()
    action = rng.uniform(-1.0, 1.0, (STEPS, BATCH, 6)).astype(np.float32)
    windows = Windows(observation, action, action, rng.uniform(0.2, 0.5, (BATCH, 3)).astype(np.float32))
    posture = rng.uniform(-1.0, 1.0, (BATCH, 6)) if weights.guidance > 0 else None

    def loss(chosen: PolicyLoss) -> float:
        exercise = Exercise(windows, windows.goal, posture, unroll=5)
        penalties = PolicyPenalties(chosen, smoothness=1.0, regulariser=ActivityRegulariser())
        terms = policy_loss(policy, model, exercise, penalties)
        assert sum(terms.terms.values()) == pytest.approx(float(terms.total.detach()), rel=1e-5)
        return float(terms.total.detach())

    plain = PolicyLoss()
    assert loss(weights) > loss(plain) + 1e-3
    assert loss(replace(weights, precision=0.0, guidance=0.0, rest=0.0, self_motion=0.0)) == loss(plain)


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_collected_episodes_have_the_asked_for_share_of_hard_goals(
    small_config: TrainingConfig, share: float, expected: bool
) -> None:
    updates = replace(small_config.policy_updates, goals=GoalMix(hard=share))
    config = replace(small_config, task="panda_reach", episodes_per_iteration=8, policy_updates=updates)
    goals = PolicyEpisodes(config).collect(*build_networks(config), iteration=1).goal.astype(np.float64)
    if expected:
        assert is_hard(config.reach_task, goals).all()
    else:
        assert not is_hard(config.reach_task, goals).all()
