"""Imports between the package's folders point down one list, wherever and however a module is named."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "spiking_controller"
LAYERS = (
    ("cli",),
    ("commands",),
    ("experiments",),
    ("nodes",),
    ("online", "evaluation", "viewing"),
    ("training", "streams"),
    ("networks", "control"),
    ("tasks",),
    ("robots",),
    ("snn",),
    ("resources", "files", "units", "errors", "compilation"),
)
"""From the top down. What stands on one line does not import each other, except for the plain files at the bottom."""
HEIGHT = {name: len(LAYERS) - row for row, names in enumerate(LAYERS) for name in names}
PROGRAMS = {f"{PACKAGE}.commands.up -> {PACKAGE}.cli"}
"""Where a command starts the program itself, as a user would."""
LATENCY_PROBE = f"{PACKAGE}.experiments.benchmarks.latency_probe"
ROS = {
    "action_msgs",
    "ament_index_python",
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "nav_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "tf2_ros",
    "visualization_msgs",
}
MODULE_NAME = re.compile(rf"\b{PACKAGE}(?:\.[a-z_][a-z0-9_]*)+")


class Arrow(NamedTuple):
    """One module names another.

    Attributes:
        source: the module that names.
        target: the module, or the top-level name of a library, that is named.
        on_import: whether importing the source imports the target: the import stands at the top level.
    """

    source: str
    target: str
    on_import: bool

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the package below the folder, by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def named(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, bool]]:
    """Every dotted name that is imported or stands in a string, docstrings aside, and whether import runs it."""
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
        if inner is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in deferred
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{base}.{alias.name}", id(node) not in deferred
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            for name in MODULE_NAME.findall(node.value):
                yield name, False


def arrows_of(root: Path) -> set[Arrow]:
    """Every arrow from a module of the package to another one or to a library."""
    modules = modules_of(root)
    arrows = set()
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, on_import in named(tree, module, path.stem == "__init__"):
            if name.split(".")[0] != PACKAGE:
                arrows.add(Arrow(module, name.split(".")[0], on_import))
                continue
            while name and name not in modules:  # The rest names something inside the module.
                name = name.rpartition(".")[0]
            if name not in ("", PACKAGE, module):
                arrows.add(Arrow(module, name, on_import))
    return arrows


def folder(module: str) -> str:
    """The folder or file directly below the package; empty for the package itself and for libraries."""
    first, _, rest = module.partition(".")
    return rest.split(".")[0] if first == PACKAGE else ""


def upward(arrows: set[Arrow]) -> set[Arrow]:
    """Arrows that point up the list, or to a folder beside their own."""
    return {
        arrow
        for arrow in arrows
        if folder(arrow.target)
        and folder(arrow.source) != folder(arrow.target)
        and not HEIGHT[folder(arrow.target)] < HEIGHT[folder(arrow.source)]
        and not HEIGHT[folder(arrow.target)] == HEIGHT[folder(arrow.source)] == 1
        and str(arrow) not in PROGRAMS
    }


def foreign(arrows: set[Arrow]) -> set[Arrow]:
    """Arrows to a library that the folder must not know."""

    def is_forbidden(arrow: Arrow) -> bool:
        place, library = folder(arrow.source), arrow.target
        if library in ROS:
            return place not in ("nodes", "commands") and arrow.source != LATENCY_PROBE
        if place == "robots":
            return library in ("torch", "snntorch")
        return place == "snn" and library in ("mujoco", "pinocchio")

    return {arrow for arrow in arrows if is_forbidden(arrow)}


def circular(arrows: set[Arrow]) -> set[Arrow]:
    """Arrows between modules that lie on a circle."""
    imports = {arrow for arrow in arrows if str(arrow) not in PROGRAMS}
    return {arrow for arrow in imports if arrow.source in reachable(arrow.target, imports)}


def reachable(start: str, arrows: set[Arrow]) -> set[str]:
    """What the module names, and what that names, and so on."""
    targets: dict[str, set[str]] = {}
    for arrow in arrows:
        targets.setdefault(arrow.source, set()).add(arrow.target)
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = targets.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def live_controller_in_training(arrows: set[Arrow]) -> set[Arrow]:
    """Arrows into training/ from what the live controller reaches."""
    controller = {arrow.source for arrow in arrows if arrow.source.startswith(f"{PACKAGE}.nodes.controller")}
    live = controller.union(*(reachable(module, arrows) for module in controller))
    return {arrow for arrow in arrows if arrow.source in live and folder(arrow.target) == "training"}


Rule = Callable[[set[Arrow]], set[Arrow]]
RULES: tuple[Rule, ...] = (upward, foreign, circular, live_controller_in_training)


@pytest.mark.parametrize("rule", RULES)
def test_no_arrow_is_wrong(rule: Rule, root: Path) -> None:
    assert sorted(map(str, rule(arrows_of(root)))) == []


def test_every_folder_and_file_has_its_place_in_the_list(root: Path) -> None:
    assert {folder(module) for module in modules_of(root)} - {""} == HEIGHT.keys()


WRONG = {
    "tasks imports training": (upward, "tasks/reach.py", "from spiking_controller.training import updates"),
    "beside": (upward, "networks/policy.py", "import spiking_controller.control.safety"),
    "relative": (upward, "tasks/reach.py", "from ..training import updates"),
    "inside a function": (
        upward,
        "training/updates.py",
        "def late() -> None:\n    from spiking_controller.nodes.controller.node import x",
    ),
    "import_module": (
        upward,
        "robots/arm.py",
        "import importlib\nimportlib.import_module('spiking_controller.tasks.reach')",
    ),
    "python -m": (
        upward,
        "control/safety.py",
        "COMMAND = ['python', '-m', 'spiking_controller.nodes.controller.node']",
    ),
    "inside a string": (upward, "robots/arm.py", "CODE = 'import spiking_controller.tasks.reach as reach'"),
    "snn knows MuJoCo": (foreign, "snn/network.py", "import mujoco"),
    "snn knows robots": (upward, "snn/network.py", "from spiking_controller.robots import arm"),
    "robots know torch": (foreign, "robots/arm.py", "def late() -> None:\n    import torch.nn"),
    "tasks know ROS": (foreign, "tasks/reach.py", "from sensor_msgs.msg import JointState"),
    "experiments know ROS": (foreign, "experiments/study.py", "import rclpy"),
    "a circle": (circular, "nodes/controller/report.py", "from spiking_controller.nodes.controller import node"),
    "the live controller reaches training": (
        live_controller_in_training,
        "nodes/common/helper.py",
        "from spiking_controller.training import updates",
    ),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package without a wrong arrow."""
    for name, content in {
        "__init__.py": "",
        "cli.py": "COMMANDS = {'up': 'spiking_controller.commands.up'}",
        "errors.py": "",
        "commands/up.py": "import rclpy\nfrom spiking_controller.nodes.controller import node",
        "experiments/study.py": "from spiking_controller.training import updates",
        "nodes/controller/__init__.py": "",
        "nodes/controller/node.py": "import rclpy\nfrom .report import x\nfrom ..common import helper",
        "nodes/controller/report.py": '"""See spiking_controller.cli for the commands."""\nx = 1',
        "nodes/common/helper.py": "",
        "training/updates.py": "import torch\nfrom spiking_controller.networks import policy",
        "control/safety.py": "from spiking_controller.errors import SpikingControllerError",
        "networks/policy.py": "from spiking_controller.snn import network",
        "tasks/reach.py": "import spiking_controller.robots.arm",
        "robots/arm.py": "import mujoco",
        "snn/network.py": "import torch",
    }.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.mark.parametrize("rule", RULES)
def test_a_tree_in_order_passes(rule: Rule, tree: Path) -> None:
    assert rule(arrows_of(tree)) == set()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_arrow_is_found(name: str, tree: Path) -> None:
    rule, file, line = WRONG[name]
    with (tree / PACKAGE / file).open("a") as source:
        source.write(f"\n{line}\n")
    assert {arrow.source for arrow in rule(arrows_of(tree))} >= {
        f"{PACKAGE}.{file.removesuffix('.py').replace('/', '.')}"
    }
