"""Imports point one way: nodes to control, learning, evaluation; those to tasks and snn; those to robots."""

import ast
from pathlib import Path

import pytest

# What the modules of each folder must never import.
LAYERS = ["robots", "tasks", "snn", "control", "learning", "evaluation", "nodes"]
FORBIDDEN = {
    "robots": {
        "torch",
        "snntorch",
        "rclpy",
        *(f"spiking_controller.{layer}" for layer in LAYERS if layer != "robots"),
    },
    "tasks": {"torch", "snntorch", "rclpy"}
    | {f"spiking_controller.{layer}" for layer in ("snn", "control", "learning", "evaluation", "nodes")},
    "snn": {"rclpy", "mujoco"} | {f"spiking_controller.{layer}" for layer in LAYERS if layer != "snn"},
    "control": {"rclpy", "mujoco", "spiking_controller.nodes"},
    "learning": {"rclpy", "mujoco", "spiking_controller.nodes"},
    "evaluation": {"rclpy", "spiking_controller.nodes"},
}


def imports(path: Path) -> set[str]:
    """Every absolute module name that a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_layer_imports_nothing_from_above_it(layer: str, root: Path) -> None:
    folder = root / "spiking_controller" / layer
    found = {
        f"{path.relative_to(root)} imports {name}"
        for path in folder.rglob("*.py")
        for name in imports(path)
        for forbidden in FORBIDDEN[layer]
        if name == forbidden or name.startswith(f"{forbidden}.")
    }
    assert folder.is_dir()
    assert not found
