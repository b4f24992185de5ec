"""Writing files so that nobody ever meets half of one; listing them; where public data and caches are."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from spslam.errors import OutputError

# Of Linux: paths that are not absolute begin here; let two of them change places.
_HERE, _RENAME_EXCHANGE = -100, 2


def write_atomic(path: Path | str, data: bytes | str, *, durable: bool = True) -> None:
    """Write `data` to `path` (text as UTF-8, see `printable`): the old file or the whole new one is there, never part.

    Args:
        durable: hold this through a power cut, too, for which the disk is waited for.

    Raises:
        OutputError: the folder is missing, or it cannot be written to.
    """
    with atomic_file(path, durable=durable) as file:
        file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


def printable(text: str) -> str:
    """Text that every encoding of Unicode can write: bytes of a path that are no UTF-8, which Python keeps as lone
    surrogates, become `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_printable(path: Path) -> None:
    """For files that a library writes which takes no path but text.

    Raises:
        OutputError: the path holds bytes that are no UTF-8.
    """
    if printable(str(path)) != str(path):
        raise OutputError(f"cannot write {path}: its name holds bytes that are no UTF-8; choose another one")


@contextmanager
def atomic_file(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and disappears when it does not; `durable` as
    for `write_atomic`.

    Raises:
        OutputError: the folder is missing, or it cannot be written to.
    """
    path = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes files for the owner only; results are for everybody the umask allows.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def exchange(first: Path, second: Path) -> bool:
    """Let two paths of one file system change places in one step; False where the system cannot (only Linux can).

    Raises:
        OSError: one of them is missing, or may not be moved.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(first))


def visible_files(folder: Path, suffixes: tuple[str, ...], *, deep: bool = False) -> list[Path]:
    """Files of `folder` with one of `suffixes` (lower case; theirs may be any) in natural order; none without a folder.

    What begins with a dot is not visible: files, the copies of attributes that some systems leave (`._0001.png`), and
    folders.

    Args:
        deep: those in the folders below, too.
    """
    if not folder.is_dir():
        return []
    found = (path for path in (folder.rglob("*") if deep else folder.iterdir()) if path.suffix.lower() in suffixes)
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    # A link to nothing is an image that is missing, and counts.
    return sorted((path for path in visible if not path.is_dir()), key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key of a path by which frame9 comes before frame10, in the names of folders, too."""
    name = path.as_posix()
    parts = re.split(r"(\d+)", name)
    # Equal numbers that are written differently (1, 01) are told apart by the text.
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def data_folder() -> Path:
    """Where public sequences are: `$SPSLAM_DATA`, else `spslam-data` in the user's folder."""
    if chosen := os.environ.get("SPSLAM_DATA"):
        return Path(chosen).expanduser()
    return Path.home() / "spslam-data"


def cache_folder() -> Path:
    """Where spslam keeps what it can make again: `$SPSLAM_CACHE`, else the platform's cache folder."""
    if chosen := os.environ.get("SPSLAM_CACHE"):
        return Path(chosen)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "spslam"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "spslam" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "spslam"
    return Path.home() / ".cache" / "spslam"
