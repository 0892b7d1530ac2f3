"""package.xml, setup.py and the package must tell ROS, pip and the user the same thing."""

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import spiking_controller

# Under which rosdep key a Python distribution is had, where the key is not python3-<name>.
ROSDEP_KEYS = {
    "gymnasium": "python3-gymnasium-pip",
    "mujoco": "python3-mujoco-pip",
    "pillow": "python3-pil",
    "pyyaml": "python3-yaml",
    "tensorboard": "python3-tensorboard-pip",
    "trimesh": "python3-trimesh-pip",
}
# Which ROS package brings a module, where the two differ in name.
ROS_PACKAGES = {"tf2_ros": "tf2_ros_py"}
WITHOUT_ROSDEP_KEY = {"dacite", "ray", "rosbags", "safetensors", "snntorch", "viser"}
# Which distribution brings a module, where the two differ in name.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}


def distribution_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower()


def declared(manifest: ElementTree.Element) -> set[str]:
    return {element.text or "" for tag in ("depend", "exec_depend") for element in manifest.findall(tag)}


def imported_modules(folder: Path) -> set[str]:
    """Top-level names of every absolute import in the Python files below the folder."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names


def test_manifest_is_an_ament_python_package_of_format_3(manifest: ElementTree.Element) -> None:
    assert manifest.tag == "package"
    assert manifest.get("format") == "3"
    assert manifest.findtext("export/build_type") == "ament_python"


def test_name_version_and_licence_agree_everywhere(
    manifest: ElementTree.Element, setup_arguments: dict[str, Any], root: Path
) -> None:
    assert manifest.findtext("name") == setup_arguments["name"] == spiking_controller.__name__
    assert manifest.findtext("version") == setup_arguments["version"] == spiking_controller.__version__
    assert manifest.findtext("license") == setup_arguments["license"] == "Apache-2.0"
    assert "Apache License" in (root / "LICENSE").read_text(encoding="utf-8")


def test_every_import_is_declared_to_pip_or_to_ros(
    manifest: ElementTree.Element, setup_arguments: dict[str, Any], root: Path
) -> None:
    imported = imported_modules(root / "spiking_controller") | imported_modules(root / "launch")
    imported = {ROS_PACKAGES.get(name, name) for name in imported}
    foreign = imported - set(sys.stdlib_module_names) - {"spiking_controller"}
    extras = setup_arguments["extras_require"]
    requirements = [
        *setup_arguments["install_requires"],
        *extras["export"],
        *extras["sign"],
        *extras["view"],
        *extras["viz"],
        *extras["sweep"],
    ]
    from_pip = {distribution_name(text) for text in requirements}
    unknown = {name for name in foreign if DISTRIBUTIONS.get(name, name) not in from_pip} - declared(manifest)
    assert not unknown, f"add to setup.py or package.xml: {sorted(unknown)}"


def test_every_python_requirement_has_its_rosdep_key(
    manifest: ElementTree.Element, setup_arguments: dict[str, Any]
) -> None:
    names = {distribution_name(text) for text in setup_arguments["install_requires"]}
    extras = setup_arguments["extras_require"]
    names |= {distribution_name(text) for text in (*extras["sign"], *extras["view"], *extras["viz"], *extras["sweep"])}
    keys = {ROSDEP_KEYS.get(name, f"python3-{name}") for name in names - WITHOUT_ROSDEP_KEY}
    assert keys <= declared(manifest), f"add to package.xml: {sorted(keys - declared(manifest))}"


def test_pip_brings_nothing_of_ros_unless_the_extra_is_asked_for(setup_arguments: dict[str, Any]) -> None:
    extras = setup_arguments["extras_require"]
    without_ros = [
        *setup_arguments["install_requires"],
        *extras["dev"],
        *extras["view"],
        *extras["viz"],
        *extras["sweep"],
    ]
    assert not [text for text in without_ros if distribution_name(text).startswith(("ros-", "rclpy"))]
    assert "ros-jazzy-rclpy" in extras["ros"]
