"""Differentiable forward kinematics for imagined roll-outs: joint angles in, hand position out, gradients through J."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiking_controller.robots.kinematics import KinematicChain


class _HandPosition(torch.autograd.Function):
    """Hand position of a chain; the backward pass multiplies by the transposed Jacobian, Jᵀ·g."""

    @staticmethod
    def forward(ctx: Any, joint_position: Tensor, chain: KinematicChain, held: np.ndarray) -> Tensor:
        position, jacobian = chain.position_and_jacobian(_all_joints(joint_position, held))
        controlled = joint_position.shape[-1]
        ctx.save_for_backward(torch.from_numpy(jacobian[:, :, :controlled]).to(joint_position.dtype))
        return torch.from_numpy(position).to(joint_position.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (jacobian,) = ctx.saved_tensors
        return torch.einsum("bij,bi->bj", jacobian, grad), None, None


def hand_position(joint_position: Tensor, chain: KinematicChain, held: np.ndarray) -> Tensor:
    """Hand position of the arm, exact and differentiable.

    Args:
        joint_position: angles of the controlled joints, [batch, controlled], rad.
        chain: the arm's kinematics.
        held: angles of the joints after the controlled ones, [joints - controlled], rad.
    Returns:
        Position in the base frame, [batch, 3], m.
    """
    position: Tensor = _HandPosition.apply(joint_position, chain, held)
    return position


def hand_jacobian(joint_position: Tensor, chain: KinematicChain, held: np.ndarray) -> Tensor:
    """Jacobian of `hand_position`, which takes the same arguments: [batch, 3, controlled], m/rad."""
    _, jacobian = chain.position_and_jacobian(_all_joints(joint_position, held))
    return torch.from_numpy(jacobian[:, :, : joint_position.shape[-1]]).to(joint_position.dtype)


def _all_joints(joint_position: Tensor, held: np.ndarray) -> np.ndarray:
    controlled = joint_position.shape[-1]
    full = np.empty((joint_position.shape[0], controlled + held.size))
    full[:, :controlled] = joint_position.detach().numpy()
    full[:, controlled:] = held
    return full
