"""Writing files so that nobody ever meets half of one; listing them; where public data and caches are."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO

from spslam.errors import OutputError

USE_ANOTHER_TMPDIR = "set TMPDIR to a folder that can be written to and has room"
# Characters of a name that are kept in that of a hidden file: at most 4 bytes each, of 255.
_MOST_NAME = 50
# As Linux has it.
_MOST_LINKS = 40
_PIPE_WAIT_S, _POLL_S = 5.0, 0.02

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
    surrogates, become `\\udcff`.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_printable(path: Path) -> None:
    """For files that a library writes which takes no path but text.

    Raises:
        OutputError: the path holds bytes that are no UTF-8.
    """
    if printable(str(path)) != str(path):
        raise OutputError(
            f"cannot write {path}: its name holds bytes that are no UTF-8; choose another one"
        )


@contextmanager
def atomic_file(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and disappears when it does not; `durable` as
    for `write_atomic`.

    Only regular files are replaced. A link stays, and the file that it leads to is replaced. Pipes and devices are
    written to, once the block ended well.

    Raises:
        OutputError: the folder is missing, or it cannot be written to; `path` is a folder, a socket or a disk; nobody
            reads from the pipe.
    """
    path = Path(path)
    if is_stream(path):
        content = io.BytesIO()
        yield content
        _write_through(path, content.getbuffer())
        return
    part = PartFile(path)
    try:
        # What seals itself reads what it wrote.
        with part.path.open("w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.publish()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.discard()


class PartFile:
    """A hidden file beside its final place, for libraries that write to a name: `publish` puts it there.

    Args:
        path: the final place; a link stays, and the file that it leads to is replaced.
        suffix: that the hidden file's name ends with.

    Attributes:
        path: of the hidden file, which is there and empty.

    Raises:
        OutputError: no regular file can be there: see `final_path`; or the folder is missing or cannot be written to.
    """

    def __init__(self, path: Path, suffix: str = ".tmp") -> None:
        self._wanted, self._final = path, final_path(path)
        try:
            # Of long names the beginning: the hidden one may not be too long where theirs is not.
            prefix = f".{self._final.name[:_MOST_NAME]}."
            descriptor, name = tempfile.mkstemp(
                dir=self._final.parent, prefix=prefix, suffix=suffix
            )
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        os.close(descriptor)
        self.path = Path(name)

    def publish(self) -> None:
        """Put the file to its final place.

        Raises:
            OutputError: that cannot be done.
        """
        try:
            self._take_over_rights()
            self.path.replace(self._final)
        except OSError as error:
            raise OutputError(f"cannot write {self._wanted}: {error.strerror or error}") from None

    def discard(self) -> None:
        """Remove the file, if it was not published."""
        self.path.unlink(missing_ok=True)

    def _take_over_rights(self) -> None:
        """Those of the file that is replaced; mkstemp makes files for the owner only, results are for everybody the
        umask allows.
        """
        try:
            before = self._final.stat()
        except FileNotFoundError:
            mask = os.umask(0)
            os.umask(mask)
            self.path.chmod(0o666 & ~mask)
            return
        self.path.chmod(before.st_mode & 0o777)
        if hasattr(os, "chown") and before.st_uid != os.geteuid():
            # Root writes for others, too: a file of theirs stays theirs.
            with suppress(OSError):
                os.chown(self.path, before.st_uid, before.st_gid)


@contextmanager
def temporary_folder(prefix: str = "spslam-") -> Iterator[Path]:
    """A folder for a while, where the system has such.

    Raises:
        OutputError: there is none, or nothing can be written there.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"no temporary folder can be made ({reason}): {USE_ANOTHER_TMPDIR}"
        ) from None
    with folder as name:
        yield Path(name)


def final_path(path: Path) -> Path:
    """Where a regular file that is written as `path` comes to be: the same, or what a link leads to.

    Raises:
        OutputError: there is something else (a folder, a pipe, a device, a socket), or a file that may not be written.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        # A link to nothing makes the file that it leads to.
        return Path(os.path.realpath(path)) if path.is_symlink() else path
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    if is_stream(path) or not stat.S_ISREG(mode):
        raise OutputError(
            f"cannot write {path}: expected a file or a name that is free, found {_kind(mode)}"
        )
    if not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is read-only")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def folder_of(path: Path) -> Path | None:
    """The folder in which a file that is written as `path` comes to be; None: in none, it is a pipe or a device.

    Raises:
        OutputError: as `final_path`.
    """
    return None if is_stream(path) else final_path(path).parent


def is_stream(path: Path) -> bool:
    """Whether what is written to `path` goes through it: a pipe, a device but no disk, or a file that this process has
    open already, as `/dev/stdout`.
    """
    if _own_descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a disk"),
        (stat.S_ISSOCK, "a socket"),
        # Behind /dev/fd.
        (stat.S_ISREG, "a file that is open already"),
    )
    return next((word for is_it, word in kinds if is_it(mode)), "something else")


def _own_descriptor(path: Path) -> int | None:
    """The number of an open file of this process that a path stands for: `/dev/stdout`, `/dev/fd/63` of a shell's
    `>(…)`, links to them.
    """
    for _ in range(_MOST_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) in (
            "/dev/fd",
            f"/proc/{os.getpid()}/fd",
        ):
            return int(path.name)
        try:
            path = path.parent / path.readlink()
        except OSError:
            return None
    return None


def _write_through(path: Path, content: memoryview) -> None:
    try:
        own = _own_descriptor(path)
        if own is None:
            descriptor = _open_stream(path)
        else:
            # What was printed before comes first.
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            descriptor = os.dup(own)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _open_stream(path: Path) -> int:
    """Opened for writing; who is to read from a pipe has some seconds to come."""
    end = monotonic() + _PIPE_WAIT_S
    while True:
        try:
            descriptor = os.open(
                path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
            )
        except OSError as error:
            if error.errno != errno.ENXIO or not path.is_fifo():
                raise
            if monotonic() >= end:
                raise OutputError(f"cannot write {path}: nobody reads from this pipe") from None
            sleep(_POLL_S)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


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
    found = (
        path
        for path in (folder.rglob("*") if deep else folder.iterdir())
        if path.suffix.lower() in suffixes
    )
    visible = (
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
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
        return (
            Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
            / "spslam"
            / "cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "spslam"
    return Path.home() / ".cache" / "spslam"
