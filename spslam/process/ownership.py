"""Ownership of files and folders by a running process, so that no other process changes them.

A lock of the operating system marks the ownership. It ends with the process in every case, so that
nothing has to be cleaned up, and it does not rely on process ids, which are reused and differ
between machines and containers.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; files in use cannot be removed there anyway.
    fcntl = None  # type: ignore[assignment]

# Name of the mark in the folder of a running process.
OWNER = ".owner"
# Id of the current boot of the machine.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Seconds without a write after which a folder is abandoned: one of an earlier boot, or an empty
# one without a mark.
_QUIET_S = 86400.0
# Longest time between creating a mark and writing its content, seconds.
_STEP_S = 60.0


class Claim:
    """A lock that is held until it is released or the process ends.

    Args:
        descriptor: Descriptor of the open, locked file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock; a second call has no effect."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def claim_folder(folder: Path) -> Claim | None:
    """Mark a folder as owned by this process; None if the file system has no locks or is read-only.

    The mark is the file `OWNER` in the folder. It is locked and names the boot and the machine.
    """
    try:
        descriptor = os.open(
            folder / OWNER, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666
        )
    except OSError:
        return None
    with suppress(OSError):
        locked = _lock(descriptor)
        if locked:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, "\n".join(_this_boot()).encode())
            return Claim(descriptor)
        if locked is None:
            # Without a lock, the mark means nothing.
            (folder / OWNER).unlink()
    os.close(descriptor)
    return None


def is_abandoned(folder: Path) -> bool:
    """Return whether the process that marked a folder is dead.

    False if that is not certain: for a folder with files but no mark, a file system without locks,
    or another machine's folder on a shared disk.
    """
    try:
        descriptor = os.open(folder / OWNER, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return _is_empty_for_long(folder)
    except OSError:
        return False
    try:
        content, here = os.read(descriptor, 1000).decode("utf-8", "replace"), _this_boot()
        boot, _, host = content.partition("\n")
        if not content:
            # The owner was killed before it wrote the mark's content, or is about to write it.
            if _age(folder) < _STEP_S:
                return False
        # The lock of another machine may be invisible here.
        elif boot != here[0] and (host != here[1] or _age(folder) < _QUIET_S):
            return False
        return _lock(descriptor) is True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a marked folder, the mark last, so that an interrupted removal leaves it abandoned."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.name == OWNER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def claim_file(path: Path) -> Claim | None:
    """Lock an existing file, which others may still read; None: another process has locked it.

    Nothing is written, so the file and its folder may be read-only. A file that replaces it later
    is not locked.

    Raises:
        OSError: The file does not exist or cannot be opened, or its file system has no locks.
    """
    while True:
        try:
            # Network file systems lock only files opened for writing.
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            descriptor = os.open(path, os.O_RDONLY)
        claim = Claim(descriptor)
        try:
            locked = _lock(descriptor)
            if locked is None:
                raise OSError("its file system has no locks")
            if not locked:
                claim.release()
                return None
            # The previous owner may have replaced the file before the lock was acquired.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return claim
        except OSError:
            claim.release()
            raise
        claim.release()


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; False: another process has locked it; None: locks are not supported."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _this_boot() -> tuple[str, str]:
    """Return the id of the current boot, or the host name if it is unknown, and the host name."""
    boot = platform.node()
    with suppress(OSError):
        boot = _BOOT.read_text(encoding="ascii").strip()
    return boot, platform.node()


def _age(folder: Path) -> float:
    """Return the time since the last write in a folder, seconds."""
    return time.time() - max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))


def _is_empty_for_long(folder: Path) -> bool:
    try:
        return _age(folder) >= _QUIET_S and not any(folder.iterdir())
    except OSError:
        return False
