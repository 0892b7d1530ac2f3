"""The parameters that say which arm a node is about, for nodes without networks: PyTorch takes seconds and 280 MB."""

from pathlib import Path

import yaml
from rclpy.node import Node

from spiking_controller.nodes.common.parameters import ParameterSpec, value_of
from spiking_controller.robots.arm import get_arm, shipped_arms

ARM = ParameterSpec("arm", "panda", f"The arm: {', '.join(shipped_arms())}, or the path of an arm's file.")
JOINT_NAMES = ParameterSpec(
    "joint_names", [""], "The driver's names of the arm's joints, base to hand; [\"\"]: those of the arm."
)


def arm_in(parameter_file: Path) -> str:
    """The arm that a parameter file gives to all nodes."""
    content = yaml.safe_load(parameter_file.read_text(encoding="utf-8")) or {}
    return str(content.get("/**", {}).get("ros__parameters", {}).get(ARM.name, ARM.default))


def joint_names(node: Node) -> tuple[str, ...]:
    """The driver's names of the joints, base to hand."""
    given = value_of(node, "joint_names")
    return get_arm(value_of(node, "arm")).joint_names if given == [""] else tuple(given)
