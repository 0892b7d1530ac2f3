"""Compiles functions with Numba and keeps the machine code on disk, wherever that can be written."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: `numba.njit` with a cache on disk.

    Numba keeps the machine code beside the source file, or in the user's cache folder. Where neither can be written (a
    read-only installation without a home), a folder of this user in the system's temporary folder takes their place,
    and without that the functions are compiled anew in every process, with a warning.

    The cache notices changes of the decorated file only. So a compiled function must take no constant from another
    module; `test/snn/compiled/test_cache.py` watches over that.

    Args:
        options: of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
        folder = _temporary_folder()
        if folder is not None:
            numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
            return numba.njit(cache=True, **options)(function)
        warnings.warn(
            "no folder for compiled functions can be written, so that every start compiles them anew, which takes a "
            "minute; set NUMBA_CACHE_DIR to a folder that you can write.",
            RuntimeWarning,
            stacklevel=2,
        )
        return numba.njit(**options)(function)

    return decorate


def _temporary_folder() -> Path | None:
    """A folder that only this user can write; None where there is none. The cache holds code that is executed."""
    try:
        folder = Path(tempfile.gettempdir()) / f"spiking_controller_{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return None
    is_ours = status.st_uid == os.getuid() and not folder.is_symlink() and not status.st_mode & 0o022
    return folder if is_ours else None
