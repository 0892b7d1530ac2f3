"""Writes a policy as one ONNX file: joint state, goal and the network's state in; action, torque and the state out."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.robots.kinematics import KinematicChain
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.tasks.torque import TorqueLaw

OPSET: Final = 18
INPUTS: Final = ("joint_position", "joint_velocity", "goal", "previous_action")
"""Before the state; float64 [1, n], [1, n], [1, d] and float32 [1, m]."""
OUTPUTS: Final = ("action", "torque")
"""Before the state; float32 [1, m] and float64 [1, m]."""
_UNREAD: Final = {"none": (".mean_spikes",), "step": (), "tick": ()}
_PLAIN: Final = (".adaptation", ".threshold_base")


class StateEntry(NamedTuple):
    """One tensor of a network's state.

    Attributes:
        name: of the input; the output is called next_ and this.
        leaf: its place among the leaves of the state.
        initial: at the start of an episode, float32, [1, ...].
    """

    name: str
    leaf: int
    initial: Tensor


class _Kinematics(nn.Module):
    """The hand's position [1, 3] of joint angles [1, n], both float64; `KinematicChain` in operations ONNX has."""

    rotation: Tensor
    translation: Tensor

    def __init__(self, chain: KinematicChain) -> None:
        super().__init__()
        rotation, translation, self.columns = chain.links
        self.register_buffer("rotation", torch.tensor(rotation))
        self.register_buffer("translation", torch.tensor(translation))

    def forward(self, joint_position: Tensor) -> Tensor:
        point = self.translation[len(self.columns)]
        for link in range(len(self.columns) - 1, -1, -1):
            angle = joint_position[0, self.columns[link]]
            cosine, sine = torch.cos(angle), torch.sin(angle)
            turned = torch.stack((cosine * point[0] - sine * point[1], sine * point[0] + cosine * point[1], point[2]))
            point = self.rotation[link] @ turned + self.translation[link]
        return point.unsqueeze(0)


class PolicyModule(nn.Module):
    """A policy between the arm's joint state and its torque, as it is exported."""

    centre: Tensor
    half_range: Tensor
    velocity_scale: Tensor
    torque_scale: Tensor
    damping: Tensor

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Take the policy of a checkpoint.

        Raises:
            ConfigError: its numbers are rounded, or its features are sent on change.
        """
        super().__init__()
        config = checkpoint.config.policy
        if isinstance(config, NetworkConfig) and (config.fixed_point is not None or config.delta is not None):
            raise ConfigError(
                f"{checkpoint.source}: its state is in fixed point or its features are sent on change, which the ONNX "
                "file would not do; export the checkpoint that was deployed from."
            )
        task = checkpoint.task
        self._policy = checkpoint.policy
        self._kinematics = _Kinematics(task.arm.chain)
        self._joints, self._dimensions = task.controlled_joints, task.goal_dimensions
        for name, values in (
            ("centre", task.position_centre),
            ("half_range", task.position_half_range),
            ("velocity_scale", task.velocity_scale),
            ("torque_scale", task.torque_scale),
            ("damping", task.damping),
        ):
            self.register_buffer(name, torch.tensor(np.asarray(values, dtype=np.float64)))
        self._leaves, self._structure = pytree.tree_flatten(self._policy.initial_state(1))
        self.state = tuple(_read_entries(self._policy.initial_state(1), config))

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of all inputs and of all outputs."""
        state = [entry.name for entry in self.state]
        return (*INPUTS, *state), (*OUTPUTS, *(f"next_{name}" for name in state))

    def forward(
        self, joint_position: Tensor, joint_velocity: Tensor, goal: Tensor, previous_action: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """One control step; see INPUTS and OUTPUTS."""
        m = self._joints
        hand = self._kinematics(joint_position)[:, : self._dimensions]
        position = (joint_position[:, :m] - self.centre) / self.half_range
        velocity = joint_velocity[:, :m]
        observation = torch.cat((position, velocity / self.velocity_scale, hand), -1).float()
        leaves = list(self._leaves)
        for entry, values in zip(self.state, state, strict=True):
            leaves[entry.leaf] = values
        before = pytree.tree_unflatten(leaves, self._structure)
        action, _, after, _ = self._policy.step(
            observation, previous_action, goal.float(), before, self._policy.effective()
        )
        after_leaves = pytree.tree_leaves(after)
        torque = self.torque_scale * action.double() - self.damping * velocity
        return (action, torque, *(after_leaves[entry.leaf] for entry in self.state))


def _read_entries(state: Any, config: Any) -> Iterator[StateEntry]:
    """The tensors of a state that the network reads; neurons and recurrences that it lacks leave theirs as they are."""
    unread: tuple[str, ...] = ()
    if isinstance(config, NetworkConfig):
        unread = _UNREAD[config.recurrence] + (() if config.threshold.moves else _PLAIN)
    for index, (path, leaf) in enumerate(pytree.tree_flatten_with_path(state)[0]):
        name = pytree.keystr(path)
        if leaf is not None and not name.endswith(unread):
            yield StateEntry(_entry_name(name), index, leaf.clone())


def _entry_name(path: str) -> str:
    """`.layers[0].neurons.membrane` becomes `layer_1_membrane`."""
    layer, _, rest = path.partition("].")
    if not rest:
        return path.strip(".[]").replace(".", "_")
    return f"layer_{int(layer.rpartition('[')[2]) + 1}_{rest.rpartition('.')[2]}"


def to_onnx(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The policy of a checkpoint with feature computation, kinematics and torque law, as one ONNX model.

    Metadata, each JSON: `contract` (see `checkpoint.Contract`), `torque_law` (of the joints in the contract's order),
    `initial_state` (names, shapes and the value that fills each) and `checkpoint` (its sha256).

    Raises:
        ConfigError: the checkpoint's policy cannot be written, see `PolicyModule`.
    """
    policy = checkpoint.policy
    module = PolicyModule(checkpoint).eval()
    task = checkpoint.task
    n = len(task.arm.joint_names)
    example = (
        torch.zeros(1, n, dtype=torch.float64),
        torch.zeros(1, n, dtype=torch.float64),
        torch.zeros(1, task.goal_dimensions, dtype=torch.float64),
        torch.zeros(1, task.controlled_joints),
        *(entry.initial for entry in module.state),
    )
    inputs, outputs = module.names
    # The compiled kernels are no PyTorch operations; the reference backend gives the same values.
    backend, policy.network.backend = policy.network.backend, "torch"
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                module,
                example,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        policy.network.backend = backend
    assert program is not None
    model = program.model_proto
    law = TorqueLaw(task)
    arm = task.arm
    metadata = {
        "contract": asdict(checkpoint.contract),
        "torque_law": {
            "controlled": "torque = torque_scale * action - damping * velocity",
            "torque_scale": task.torque_scale.tolist(),
            "damping": task.damping.tolist(),
            "locked": "torque = stiffness * (locked_position - position) - damping * velocity",
            "locked_position": law.locked_position.tolist(),
            "locked_stiffness": np.broadcast_to(arm.locked_stiffness, law.locked_position.shape).tolist(),
            "locked_damping": np.broadcast_to(arm.locked_damping, law.locked_position.shape).tolist(),
        },
        "initial_state": {
            entry.name: {"shape": list(entry.initial.shape), "value": float(entry.initial.flatten()[0])}
            for entry in module.state
        },
        "checkpoint": checkpoint.metadata["sha256"],
    }
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    return model
