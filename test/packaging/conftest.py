"""What setup.py and package.xml say, read once for the tests of the packaging."""

import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout that is under test."""
    return ROOT


@pytest.fixture(scope="session")
def setup_arguments() -> dict[str, Any]:
    """The keyword arguments that setup.py gives to setuptools."""
    arguments: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
        runpy.run_path(str(ROOT / "setup.py"))
    return arguments


@pytest.fixture(scope="session")
def manifest() -> ElementTree.Element:
    """The root element of package.xml."""
    return ElementTree.parse(ROOT / "package.xml").getroot()
