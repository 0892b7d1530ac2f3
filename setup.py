"""Builds the package for pip and for colcon (ament_python) from the same description."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "spiking_controller"
ROOT = Path(__file__).resolve().parent  # `colcon build --symlink-install` runs a link to this file


def version() -> str:
    """The version as the package itself states it, read without importing the package's dependencies."""
    source = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', source, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{PACKAGE}/__init__.py states no __version__.")
    return found.group(1)


def share_files(*folders: str) -> list[tuple[str, list[str]]]:
    """Every file below the folders, to be installed under the same path in `share/spiking_controller`."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    relative = [path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts]
    return [(f"share/{PACKAGE}/{path.parent.as_posix()}", [path.as_posix()]) for path in relative]


# The wheels that stand in for a ROS 2 installation where there is none. They are an extra, so that a machine
# with a full ROS 2 keeps its own rclpy.
ROS = [
    "ros-jazzy-common-interfaces",
    "ros-jazzy-diagnostic-msgs",
    "ros-jazzy-lifecycle-msgs",
    "ros-jazzy-rclpy",
    "ros-jazzy-rmw-fastrtps-cpp",
    "ros-jazzy-rosgraph-msgs",
]
SIGN = ["cryptography>=42"]
VIZ = ["matplotlib>=3.8", "pillow>=10.1"]
# The guard of the page uses internals of viser (viewing/guard.py).
VIEW = ["trimesh>=4.4", "viser>=1.1.1,<1.2", "websockets>=13.1,<17"]
# Ray from the version on that keeps to the loopback interface when it is told to.
SWEEP = [*VIZ, "pandas>=2.1", "ray>=2.60", "scipy>=1.15"]
# onnxruntime runs what `export` writes; PyTorch writes ONNX through onnxscript.
EXPORT = ["nir>=1.0.6", "onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
DEV = [
    *EXPORT,
    *SIGN,
    *SWEEP,
    *VIEW,
    "example-robot-data>=4.3",
    "hypothesis>=6.90",
    "mcap>=1.2",
    "mcap-ros2-support>=0.5",
    "mypy>=1.11",
    "neurobench>=2.3",
    "pandas-stubs",
    "pin>=3.1",
    "playwright>=1.48",
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "rockpool>=3.1",
    "ruff>=0.6",
    "types-PyYAML",
    "types-setuptools",
    "types-tabulate",
    "types-tqdm",
]

DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]

setup(
    name=PACKAGE,
    version=version(),
    description="A spiking controller for robot arms in ROS 2, trained through a spiking forward model",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="spiking_controller maintainers",
    author_email="maintainers@spiking-controller.example",
    maintainer="spiking_controller maintainers",
    maintainer_email="maintainers@spiking-controller.example",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *share_files("launch", "config", "models"),
    ],
    python_requires=">=3.11",
    install_requires=[
        "dacite>=1.8",
        "gymnasium>=1.0",
        "mujoco>=4.0",
        "numba>=0.60",
        "numpy>=1.26",
        "pyyaml>=6.0",
        # Bags are written and read with internals of rosbags, too (`dump_qos_v9`, `DirectoryReader`, ...).
        "rosbags>=0.11,<0.12",
        "safetensors>=0.4",
        "scipy>=1.11",
        "snntorch>=1.0",
        "tabulate>=0.9",
        "tensorboard>=2.15",
        "torch>=2.4",
        "tqdm>=4.64",
    ],
    extras_require={
        "ros": ROS,
        "sign": SIGN,
        "view": VIEW,
        "viz": VIZ,
        "export": EXPORT,
        "sweep": SWEEP,
        "dev": DEV,
        "docs": DOCS,
    },
    entry_points={
        "console_scripts": [
            f"spiking_controller = {PACKAGE}.cli:main",
            f"controller = {PACKAGE}.nodes.controller.node:main",
            f"mujoco_bridge = {PACKAGE}.nodes.bridge.node:main",
            f"torque_watchdog = {PACKAGE}.nodes.torque_watchdog:main",
            f"trainer = {PACKAGE}.nodes.trainer:main",
            f"recorder = {PACKAGE}.nodes.recorder:main",
            f"evaluator = {PACKAGE}.nodes.evaluator:main",
            f"description = {PACKAGE}.nodes.description:main",
            f"imagination = {PACKAGE}.nodes.imagination:main",
            f"markers = {PACKAGE}.nodes.markers:main",
            f"viewer = {PACKAGE}.nodes.viewer.node:main",
        ]
    },
    zip_safe=False,
)
