"""Atomic writing of files, listing of files, and the folders of public data and caches."""

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

USE_ANOTHER_TMPDIR = "set TMPDIR to a writable folder with free space"
# Largest number of characters of a file's name in the name of its hidden file. A character takes up
# to 4 bytes, and a name at most 255 bytes.
_MOST_NAME = 50
# Largest number of links to follow, as in Linux.
_MOST_LINKS = 40
# Seconds to wait for a reader of a pipe, and between two attempts.
_PIPE_WAIT_S, _POLL_S = 5.0, 0.02

# Arguments of `renameat2`: relative to the working directory (AT_FDCWD); swap two paths.
_HERE, _RENAME_EXCHANGE = -100, 2


def write_atomic(path: Path | str, data: bytes | str, *, durable: bool = True) -> None:
    """Write `data` to a file atomically: a failure leaves the old file.

    Args:
        path: The file.
        data: Content; text is written as UTF-8, see `printable`.
        durable: Wait for the disk, so that the file also survives a power cut.

    Raises:
        OutputError: The folder is missing or cannot be written to.
    """
    with atomic_file(path, durable=durable) as file:
        file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


def printable(text: str) -> str:
    r"""Escape lone surrogates, so that every Unicode encoding can write the text.

    Python decodes bytes of a path that are not UTF-8 to lone surrogates; they become, for example,
    `\udcff`.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_printable(path: Path) -> None:
    """Check a path for a library that accepts paths only as text.

    Raises:
        OutputError: The path has bytes that are not UTF-8.
    """
    if printable(str(path)) != str(path):
        raise OutputError(
            f"cannot write {path}: its name has bytes that are not UTF-8; choose another name"
        )


@contextmanager
def atomic_file(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` at the end of the block, or is removed on an error.

    Only regular files are replaced. A link stays, and its target is replaced. Pipes and devices are
    written to at the end of the block.

    Args:
        path: The file.
        durable: As for `write_atomic`.

    Yields:
        The new file, open for writing and reading.

    Raises:
        OutputError: The folder is missing or cannot be written to, `path` is a folder, a socket or
            a disk, or no process reads from the pipe.
    """
    path = Path(path)
    if is_stream(path):
        content = io.BytesIO()
        yield content
        _write_through(path, content.getbuffer())
        return
    part = PartFile(path)
    try:
        # Readable, because a map's checksum is computed from the written bytes.
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
    """A hidden file in the folder of its final path, for libraries that write to a path.

    `publish` moves it to the final path.

    Args:
        path: The final path; a link stays, and its target is replaced.
        suffix: End of the hidden file's name.

    Attributes:
        path: Path of the hidden file, which exists and is empty at first.

    Raises:
        OutputError: The final path cannot be a regular file (see `final_path`), or the folder is
            missing or cannot be written to.
    """

    def __init__(self, path: Path, suffix: str = ".tmp") -> None:
        self._wanted, self._final = path, final_path(path)
        try:
            # Cut long names, so that the hidden file's name is not too long for the file system.
            prefix = f".{self._final.name[:_MOST_NAME]}."
            descriptor, name = tempfile.mkstemp(
                dir=self._final.parent, prefix=prefix, suffix=suffix
            )
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        os.close(descriptor)
        self.path = Path(name)

    def publish(self) -> None:
        """Move the file to its final path.

        Raises:
            OutputError: The file cannot be moved.
        """
        try:
            self._take_over_rights()
            self.path.replace(self._final)
        except OSError as error:
            raise OutputError(f"cannot write {self._wanted}: {error.strerror or error}") from None

    def discard(self) -> None:
        """Remove the file if it was not published."""
        self.path.unlink(missing_ok=True)

    def _take_over_rights(self) -> None:
        """Copy mode and owner of the replaced file; for a new file use the mode of the umask.

        Files of mkstemp are readable by their owner only.
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
            # Root may replace another user's file: the user keeps it.
            with suppress(OSError):
                os.chown(self.path, before.st_uid, before.st_gid)


@contextmanager
def temporary_folder(prefix: str = "spslam-") -> Iterator[Path]:
    """Create a temporary folder and remove it at the end of the block.

    Args:
        prefix: Start of its name.

    Yields:
        The folder.

    Raises:
        OutputError: The system has no writable temporary folder.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"cannot create a temporary folder ({reason}): {USE_ANOTHER_TMPDIR}"
        ) from None
    with folder as name:
        yield Path(name)


def final_path(path: Path) -> Path:
    """Return the path of the regular file that writing to `path` creates: links are resolved.

    Raises:
        OutputError: The path exists and is not a regular file, or is read-only.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        # Writing to a dangling link creates its target.
        return Path(os.path.realpath(path)) if path.is_symlink() else path
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    if is_stream(path) or not stat.S_ISREG(mode):
        raise OutputError(
            f"cannot write {path}: expected a file or a new name, found {_kind(mode)}"
        )
    if not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is read-only")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def folder_of(path: Path) -> Path | None:
    """Return the folder of the file that writing to `path` creates; None for a pipe or a device.

    Raises:
        OutputError: As for `final_path`.
    """
    return None if is_stream(path) else final_path(path).parent


def is_stream(path: Path) -> bool:
    """Return whether `path` is a stream: a pipe, a character device or a file of this process.

    The last is a file that this process has open, such as `/dev/stdout`.
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
        # A regular file by its name in /dev/fd.
        (stat.S_ISREG, "a file that is open already"),
    )
    return next((word for is_it, word in kinds if is_it(mode)), "something else")


def _own_descriptor(path: Path) -> int | None:
    """Return the descriptor of this process that a path stands for, or None.

    Such paths are `/dev/stdout`, `/dev/fd/63` of a shell's `>(…)`, and links to them.
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
            # Write the text that was printed before first.
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            descriptor = os.dup(own)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _open_stream(path: Path) -> int:
    """Open a pipe or device for writing; wait some seconds for a reader of a pipe."""
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
    """Swap two paths of one file system atomically; False if the system cannot (only Linux can).

    Raises:
        OSError: One of them is missing or must not be moved.
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
    """Return the files of a folder by suffix, in natural order; none if the folder is missing.

    Files and folders whose name begins with a dot are left out, such as the files with attributes
    that some systems create (`._0001.png`).

    Args:
        folder: The folder.
        suffixes: Suffixes in lower case; a file's may be in any case.
        deep: Include files in subfolders.
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
    # Dangling links are kept: each is a missing image.
    return sorted((path for path in visible if not path.is_dir()), key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sorting key of a path by which frame9 comes before frame10, folders included."""
    name = path.as_posix()
    parts = re.split(r"(\d+)", name)
    # The name distinguishes equal numbers that are written differently (1, 01).
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def data_folder() -> Path:
    """Return the folder of public sequences: `$SPSLAM_DATA` or `spslam-data` in the home folder."""
    if chosen := os.environ.get("SPSLAM_DATA"):
        return Path(chosen).expanduser()
    return Path.home() / "spslam-data"


def cache_folder() -> Path:
    """Return the cache folder: `$SPSLAM_CACHE`, else the platform's cache folder for spslam."""
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
