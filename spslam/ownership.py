"""Whose a file or folder is while somebody works with it, so that nobody else takes or removes it.

Held by a lock of the operating system, which ends with the process however that ends: nothing has to be tidied up, and
no process id can be mistaken for that of another machine, container or day.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; files in use cannot be removed there anyway.
    fcntl = None  # type: ignore[assignment]

# In the folders of processes that are at work.
OWNER = ".owner"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Who started a machine anew cannot say whether a process of another machine is alive: one that has written nothing for
# so long is not.
_QUIET_S = 86400.0


class Claim:
    """A lock that is held until it is released or the process ends.

    Args:
        descriptor: of the open, locked file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it; doing so twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def claim_folder(folder: Path) -> Claim | None:
    """Mark a folder as that of this process; None where the file system has no locks, or takes no file.

    The mark is the file `OWNER` in it, which is locked before it has that name.
    """
    mark = folder / f"{OWNER}.{os.getpid()}"
    try:
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError:
        return None
    claim = Claim(descriptor)
    try:
        if _lock(descriptor) is not True:
            raise OSError
        os.write(descriptor, "\n".join(_this_boot()).encode())
        mark.rename(folder / OWNER)
    except OSError:
        claim.release()
        mark.unlink(missing_ok=True)
        return None
    return claim


def is_abandoned(folder: Path) -> bool:
    """Whether the process that marked a folder is dead. False wherever that is not certain: a folder without a mark, a
    file system without locks, another machine's folder on a shared disk."""
    try:
        descriptor = os.open(folder / OWNER, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        boot, _, host = os.read(descriptor, 1000).decode("utf-8", "replace").partition("\n")
        here = _this_boot()
        # A lock may be seen by the machine alone that holds it.
        if boot != here[0] and (host != here[1] or time.time() - _last_change(folder) < _QUIET_S):
            return False
        return _lock(descriptor) is True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def claim_file(path: Path) -> Claim | None:
    """Hold an existing file, which others may read; None: another process holds it.

    Nothing is written, so that the file and its folder may be read-only. A file that takes its place is not held.

    Raises:
        OSError: there is no such file, it cannot be opened, or its file system has no locks.
    """
    while True:
        try:
            # Across a network, only who may write may lock.
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
            # Who held it before may have put another in its place meanwhile.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return claim
        except OSError:
            claim.release()
            raise
        claim.release()


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; False: somebody else has; None: that cannot be had here."""
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
    """What runs here since when, where the system tells, and the host's name."""
    boot = platform.node()
    with suppress(OSError):
        boot = _BOOT.read_text(encoding="ascii").strip()
    return boot, platform.node()


def _last_change(folder: Path) -> float:
    return max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))
