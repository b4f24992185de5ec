"""A lock on a file that a command is about to write, so that no other call writes it, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spslam.errors import OutputError
from spslam.notices import notice
from spslam.process.ownership import Claim, claim_file

_LOG = logging.getLogger(__name__)


@contextmanager
def hold_output(path: Path) -> Iterator[None]:
    """Hold a file, which need not exist, until the end of the block.

    The lock is that of an empty file beside it, `.NAME.lock`, which is removed at the end. It ends
    with the process in every case: a file that a killed process left locks nothing.

    Args:
        path: the file to be written; its folder exists.

    Raises:
        OutputError: another process holds it, or the folder cannot be written to.
    """
    # One place for all names of a folder: links and relative paths.
    place = path.parent.resolve() / path.name
    lock = place.with_name(f".{place.name}.lock")
    claim = _claimed(lock, path)
    try:
        yield
    finally:
        if claim is not None:
            # Before the release: whoever waits finds that the file is gone, and makes a new one.
            lock.unlink(missing_ok=True)
            claim.release()


def _claimed(lock: Path, path: Path) -> Claim | None:
    """Return the lock; None where the file system has none, with a notice."""
    while True:
        try:
            lock.touch()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        try:
            claim = claim_file(lock)
        except FileNotFoundError:
            # The process that held it has ended and removed the file.
            continue
        except OSError as error:
            lock.unlink(missing_ok=True)
            text = "cannot lock %s (%s): do not write it with another call at the same time"
            notice(_LOG, "output_not_locked", text, path, error.strerror or error)
            return None
        if claim is None:
            raise OutputError(
                f"another process is writing {path}: wait until it ends, or give another name "
                "with --out"
            )
        return claim
