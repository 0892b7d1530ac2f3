"""Keeps the versions that online learning let out, and a log of what it decided, in a folder that does not grow."""

import logging
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

from spiking_controller.errors import ConfigError
from spiking_controller.files import write_atomically
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint

_VERSION_FILE = re.compile(r"(\d+)_([0-9a-f]{12})\.safetensors")
_LOG_BYTES = 1_000_000
_LOG_FILES = 3


class VersionFolder:
    """Files NUMBER_HASH.safetensors, the latest of them, and decisions.log."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Go on with what the folder holds.

        Args:
            directory: made if it is not there.
            keep: versions; when there are more, the oldest go.
        Raises:
            ConfigError: the folder cannot be used.
        """
        self.directory = directory
        self._keep = keep
        try:
            directory.mkdir(parents=True, exist_ok=True)
            handler = RotatingFileHandler(directory / "decisions.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES - 1)
        except OSError as error:
            raise ConfigError(f"{directory}: cannot be used ({error.strerror}); give another folder.") from None
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        # Not from the registry of loggers: two folders must not share one.
        self._log = logging.Logger("decisions", logging.INFO)
        self._log.addHandler(handler)

    def close(self) -> None:
        """Close the log."""
        for handler in self._log.handlers:
            handler.close()

    def versions(self) -> list[Path]:
        """The kept versions, oldest first."""
        return sorted(path for path in self.directory.iterdir() if _VERSION_FILE.fullmatch(path.name))

    def add(self, sha256: str, data: bytes) -> Path:
        """Save a version.

        Args:
            sha256: of the checkpoint.
            data: of its file.
        Raises:
            OSError: it cannot be written.
        """
        versions = self.versions()
        number = int(versions[-1].name.split("_")[0]) + 1 if versions else 1
        path = self.directory / f"{number:06d}_{sha256[:12]}.safetensors"
        write_atomically(path, data)
        for old in versions[: max(len(versions) + 1 - self._keep, 0)]:
            old.unlink()
        return path

    def find(self, sha256: str) -> Checkpoint | None:
        """The kept version of that hash, if there is one.

        Raises:
            ModelContractError: its file is damaged.
        """
        for path in reversed(self.versions()):
            if path.name.endswith(f"_{sha256[:12]}.safetensors"):
                checkpoint = load_checkpoint(path)
                if checkpoint.metadata["sha256"] == sha256:
                    return checkpoint
        return None

    def log(self, decision: str) -> None:
        """Write a line into the log."""
        self._log.info(decision)
