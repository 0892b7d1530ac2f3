"""The machine code that Numba keeps on disk: never older than its source, and never needed."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "spiking_controller"
CACHED = [
    path for path in sorted(PACKAGE.rglob("*.py")) if "@compiled(" in path.read_text() and path.stem != "compilation"
]
SMALL_KERNEL = """

@compiled(**_OPTIONS)
def sigmoid_derivative(above):
    _apply_surrogate(above, SURROGATE_CODES_SIGMOID)

SURROGATE_CODES_SIGMOID = SURROGATE_CODES["sigmoid"]
"""
"""A kernel that compiles within a second, for the end of kernels.py."""
SIGMOID_AT_ZERO = """
import numpy as np
from spiking_controller.snn.compiled import kernels
from spiking_controller.snn.surrogate import sigmoid
import torch

above = np.zeros(1, np.float32)
kernels.sigmoid_derivative(above)
print(sum(kernels.sigmoid_derivative.stats.cache_hits.values()), above[0], sigmoid(torch.zeros(1)).item())
"""
COMPILE_ONE = """
import numpy as np
from spiking_controller.robots.arm import get_arm
print(get_arm("planar_arm").chain.position(np.zeros(2)).shape)
"""


@pytest.mark.parametrize("path", CACHED, ids=lambda path: path.stem)
def test_compiled_modules_take_nothing_but_the_decorator_from_modules_that_the_cache_does_not_watch(path: Path) -> None:
    """Python code may use other modules; compiled functions must not."""
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spiking_controller")
        for alias in node.names
    }
    used = {
        name.id
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
        for statement in node.body
        for name in ast.walk(statement)
        if isinstance(name, ast.Name)
    }
    # Constants that are computed from something imported would be as stale.
    constants = {
        name.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for name in ast.walk(node.value)
        if isinstance(name, ast.Name)
    }
    assert CACHED
    assert not imported & (used | constants)


def test_a_changed_constant_is_seen_through_the_cache(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "spiking_controller", ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "derivative.py"
    script.write_text(SIGMOID_AT_ZERO)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    kernels = tmp_path / "spiking_controller" / "snn" / "compiled" / "kernels.py"
    with kernels.open("a") as source:
        source.write(SMALL_KERNEL)

    def derivatives() -> list[float]:
        """Hits of the cache, the derivative in the kernel, and that in PyTorch."""
        result = subprocess.run(
            [sys.executable, str(script)], env=environment, check=True, capture_output=True, text=True
        )
        return [float(value) for value in result.stdout.split()]

    assert derivatives() == pytest.approx([0, 25.0 / 4, 25.0 / 4])
    assert derivatives() == pytest.approx([1, 25.0 / 4, 25.0 / 4])
    kernels.write_text(kernels.read_text().replace("SIGMOID_SLOPE: Final = 25.0", "SIGMOID_SLOPE: Final = 40.0"))
    assert derivatives() == pytest.approx([0, 10.0, 10.0])
    assert derivatives() == pytest.approx([1, 10.0, 10.0])


@pytest.mark.parametrize("temporary", ["writable", "unwritable"])
def test_where_no_cache_can_be_written_the_functions_are_compiled_all_the_same(temporary: str, tmp_path: Path) -> None:
    """A file stands where each folder would be, which stops root, too."""
    shutil.copytree(PACKAGE, tmp_path / "spiking_controller", ignore=shutil.ignore_patterns("__pycache__"))
    share = PACKAGE.parent
    for name in ("package.xml", "models", "config"):
        (tmp_path / name).symlink_to(share / name)
    (tmp_path / "spiking_controller" / "robots" / "__pycache__").touch()
    (tmp_path / "no_home").touch()
    folder = tmp_path / "temporary"
    folder.mkdir()
    if temporary == "unwritable":
        (folder / f"spiking_controller_{os.getuid()}").touch()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG"))},
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "no_home"),
        "XDG_CACHE_HOME": str(tmp_path / "no_home" / "cache"),
        "TMPDIR": str(folder),
    }
    result = subprocess.run(
        [sys.executable, "-c", COMPILE_ONE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(3,)"
    if temporary == "writable":
        assert "NUMBA_CACHE_DIR" not in result.stderr
        assert list(folder.rglob("*.nbi"))
    else:
        assert "set NUMBA_CACHE_DIR to a folder that you can write" in result.stderr
