"""Finds the shipped files (models, config, launch) in a checkout, a pip install or a colcon install."""

from functools import cache
from pathlib import Path

from spiking_controller.errors import ConfigError

_PACKAGE = "spiking_controller"


@cache
def share_directory() -> Path:
    """The folder that holds `package.xml`, `models/` and `config/`.

    A checkout (or an editable install) is its own share folder. `pip install` and `colcon build` put the files in
    `share/spiking_controller` under the prefix that also holds the Python package.

    Raises:
        ConfigError: no such folder exists beside the installed package.
    """
    package = Path(__file__).resolve().parent
    for prefix in package.parents:
        for candidate in (prefix / "share" / _PACKAGE, prefix):
            if (candidate / "package.xml").is_file() and (candidate / "models").is_dir():
                return candidate
    raise ConfigError(
        f"no share/{_PACKAGE} folder was found above {package}; reinstall the package with pip or colcon."
    )


def share_path(*parts: str) -> Path:
    """A path below the share folder, such as `share_path("models", "panda.xml")`; it need not exist."""
    return share_directory().joinpath(*parts)
