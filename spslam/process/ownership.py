"""Whose a file or folder is while somebody works with it, so that nobody else takes or removes it.

Held by a lock of the operating system, which ends with the process however that ends: nothing has to be tidied up, and
no process id can be mistaken for that of another machine, container or day.
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

# In the folders of processes that are at work.
OWNER = ".owner"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Who started a machine anew cannot say whether a process of another machine is alive: one that has written nothing for
# so long is not.
_QUIET_S = 86400.0
# Between making a mark and saying in it whose it is, seconds.
_STEP_S = 60.0


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

    The mark is the file `OWNER` in it, which is locked and says on which machine that holds.
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
            # It would say nothing.
            (folder / OWNER).unlink()
    os.close(descriptor)
    return None


def is_abandoned(folder: Path) -> bool:
    """Whether the process that marked a folder is dead. False wherever that is not certain: a folder with something but
    no mark, a file system without locks, another machine's folder on a shared disk.
    """
    try:
        descriptor = os.open(folder / OWNER, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return _is_empty_for_long(folder)
    except OSError:
        return False
    try:
        told, here = os.read(descriptor, 1000).decode("utf-8", "replace"), _this_boot()
        boot, _, host = told.partition("\n")
        if not told:
            # Killed between two steps, or about to take the second one.
            if _age(folder) < _STEP_S:
                return False
        # A lock may be seen by the machine alone that holds it.
        elif boot != here[0] and (host != here[1] or _age(folder) < _QUIET_S):
            return False
        return _lock(descriptor) is True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a marked folder, the mark last: who is killed meanwhile leaves one that is known as abandoned."""
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


def _age(folder: Path) -> float:
    """Since when nothing in it was written, seconds."""
    return time.time() - max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))


def _is_empty_for_long(folder: Path) -> bool:
    try:
        return _age(folder) >= _QUIET_S and not any(folder.iterdir())
    except OSError:
        return False
