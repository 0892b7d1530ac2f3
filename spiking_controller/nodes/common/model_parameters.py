"""Which networks a node works with: the parameters that say so, and the checkpoint that they name, checked."""

from rclpy.node import Node

from spiking_controller.errors import ModelContractError
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.nodes.common.parameters import ParameterSpec, value_of
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm

SHIPPED_CHECKPOINTS = {"panda": "panda_reach.safetensors", "planar_arm": "planar_reach.safetensors"}

ARM = ParameterSpec("arm", "panda", "The arm that is controlled.", choices=tuple(SHIPPED_CHECKPOINTS))
JOINT_NAMES = ParameterSpec(
    "joint_names", [""], "The driver's names of the arm's joints, base to hand; [\"\"]: those of the arm."
)
MODEL_PARAMETERS = [
    ARM,
    ParameterSpec("checkpoint", "", "Path of the networks' .safetensors file; empty: the shipped one of the arm."),
    ParameterSpec(
        "gravity_compensation",
        True,
        "The robot or bridge carries the arm's weight itself; must fit what the checkpoint was trained for.",
    ),
    JOINT_NAMES,
]


def load_checkpoint_of_arm(node: Node, path: str) -> Checkpoint:
    """A checkpoint for the node's arm; empty: the shipped one.

    Raises:
        ModelContractError: the file is unusable, or made for another arm.
    """
    arm = get_arm(value_of(node, "arm"))
    checkpoint = load_checkpoint(path or share_path("models", SHIPPED_CHECKPOINTS[arm.name]))
    if checkpoint.task.arm_name != arm.name:
        raise ModelContractError(
            f"{checkpoint.source}: arm is '{checkpoint.task.arm_name}', but the parameter arm is '{arm.name}'; "
            "give a checkpoint of this arm, or set arm."
        )
    return checkpoint


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


def joint_names(node: Node) -> tuple[str, ...]:
    """The driver's names of the joints, base to hand."""
    given = value_of(node, "joint_names")
    return get_arm(value_of(node, "arm")).joint_names if given == [""] else tuple(given)
