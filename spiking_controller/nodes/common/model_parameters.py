"""Which networks a node works with: the parameters that say so, and the checkpoint that they name, checked."""

from rclpy.node import Node

from spiking_controller.errors import ModelContractError
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint_of
from spiking_controller.nodes.common.arm_parameters import ARM, JOINT_NAMES
from spiking_controller.nodes.common.parameters import ParameterSpec, value_of
from spiking_controller.robots.arm import get_arm

MODEL_PARAMETERS = [
    ARM,
    ParameterSpec("checkpoint", "", "Path of the networks' .safetensors file; empty: the one of the arm."),
    ParameterSpec(
        "gravity_compensation",
        True,
        "The robot or bridge carries the arm's weight itself; must fit what the checkpoint was trained for.",
    ),
    JOINT_NAMES,
]


def load_checkpoint_of_arm(node: Node, path: str) -> Checkpoint:
    """A checkpoint for the node's arm; empty: the one that the arm's file names.

    Raises:
        ModelContractError: the file is unusable, or made for another arm.
    """
    return load_checkpoint_of(get_arm(value_of(node, "arm")), path)


def load_model(node: Node) -> Checkpoint:
    """The checkpoint that the node's MODEL_PARAMETERS name, checked against what they say about the robot.

    Raises:
        ModelContractError: the file is unusable, or made for another arm or gravity convention.
    """
    checkpoint = load_checkpoint_of_arm(node, value_of(node, "checkpoint"))
    expected = "compensated" if value_of(node, "gravity_compensation") else "raw"
    found = checkpoint.task.gravity_convention
    if found != expected:
        raise ModelContractError(
            f"{checkpoint.source}: trained with gravity_convention '{found}', but gravity_compensation is "
            f"{str(expected == 'compensated').lower()}; start with gravity_compensation:="
            f"{str(found == 'compensated').lower()}, or use a model trained with '{expected}'."
        )
    return checkpoint
