"""The folder of a run: written beside its final place and moved there whole; and the log that lands in it."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType

from spslam.errors import OutputError
from spslam.notices import Notice, NoticeHandler, notice

_LOG = logging.getLogger(__name__)

GROUND_TRUTH = "ground_truth.tum"
MARKERS = frozenset({"metrics.json", "config.yaml"})
OUTPUT_NAMES = MARKERS | {
    "trajectory.tum",
    "trajectory.kitti",
    "keyframes.tum",
    GROUND_TRUTH,
    "frames.csv",
    "map.ply",
    "map.npz",
    "trajectory.png",
    "map.png",
    "report.html",
    "log.txt",
}
_LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
_EARLY_RECORDS = 10_000


class OutputFolder:
    """Where a run writes: a hidden folder next to the final one, until `publish` puts it there in one step.

    A folder that an earlier run wrote is replaced; any other that is not empty is refused, at once and not after the
    run.

    Args:
        wanted: the final folder.
        numbered: take `wanted-2`, `wanted-3`, … where `wanted` is taken, rather than replacing it.

    Attributes:
        partial: the hidden folder.

    Raises:
        OutputError: `wanted` is a file or holds something else than a run, or nothing can be written there.
    """

    def __init__(self, wanted: Path, *, numbered: bool = False) -> None:
        self._wanted = Path(os.path.abspath(wanted.expanduser()))  # noqa: PTH100 - resolve() would follow links
        self._numbered = numbered
        if not numbered:
            _refuse_foreign(self._wanted)
        try:
            self._wanted.parent.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(dir=self._wanted.parent, prefix=f".{self._wanted.name}.", suffix=".partial")
        except OSError as error:
            raise OutputError(f"cannot write results to {wanted}: {error.strerror or error}") from None
        self.partial = Path(name)
        mask = os.umask(0)
        os.umask(mask)
        self.partial.chmod(0o777 & ~mask)

    def publish(self) -> Path:
        """Move the folder to its final place; returns that.

        Raises:
            OutputError: something else came to be there meanwhile, or moving failed; `partial` stays.
        """
        final = self._free_name() if self._numbered else self._wanted
        try:
            _refuse_foreign(final)
            if final.exists():
                replaced = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".replaced"))
                final.rename(replaced / final.name)
                self.partial.rename(final)
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                self.partial.rename(final)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot move results to {final}: {reason}; they are in {self.partial}") from None
        except OutputError as error:
            raise OutputError(f"{error}; the results are in {self.partial}") from None
        return final

    def discard(self) -> None:
        """Remove what was written, if it was not published."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _free_name(self) -> Path:
        names = (self._wanted if n == 1 else self._wanted.with_name(f"{self._wanted.name}-{n}") for n in count(1))
        return next(path for path in names if not os.path.lexists(path))


def default_output(name: str, sensor: str, extractor: str) -> Path:
    """`runs/<name>-<sensor>-<extractor>`, fit for any file system."""
    return Path("runs") / re.sub(r"[^\w.]+", "-", f"{name}-{sensor}-{extractor}").strip("-.")


def _refuse_foreign(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        raise OutputError(
            f"--out must be a folder of its own, found a {'link' if path.is_symlink() else 'file'}: {path}"
        )
    names = {entry.name for entry in path.iterdir()}
    if not names or (names >= MARKERS and names <= OUTPUT_NAMES):
        return
    foreign = sorted(names - OUTPUT_NAMES) or sorted(names)
    raise OutputError(
        f"{path} holds something else than an earlier run ({foreign[0]}) and is left alone: "
        "give --out a new or an empty folder"
    )


class _LogFile(logging.FileHandler):
    """A log in a file that a run goes on without: a notice says that it is not complete."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="w", encoding="utf-8", errors="backslashreplace")
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._failed:
            self._failed = True
            error = sys.exc_info()[1]
            notice(_LOG, "output_failed", "%s is not complete: %s", Path(self.baseFilename).name, error)


class RunLog:
    """Collects spslam's log from `with` on, and writes it to a file once there is one; notices are kept beside it."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("spslam")
        self._early = logging.handlers.MemoryHandler(_EARLY_RECORDS, flushLevel=logging.CRITICAL + 1)
        self._file: logging.FileHandler | None = None
        self._notices = NoticeHandler()
        self._level_before = self._logger.level

    @property
    def notices(self) -> list[Notice]:
        """What was dropped, guessed, ignored, scaled or doubted so far."""
        return self._notices.notices

    def __enter__(self) -> RunLog:
        self._level_before = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._early)
        self._logger.addHandler(self._notices)
        return self

    def open(self, path: Path) -> None:
        """Write what was collected, and all that follows, to `path`."""
        try:
            self._file = _LogFile(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        self._file.setFormatter(logging.Formatter(_LOG_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
        self._early.setTarget(self._file)
        self._early.flush()
        self._logger.removeHandler(self._early)
        self._logger.addHandler(self._file)

    def close(self) -> None:
        """Finish the file: a folder with an open file cannot be moved everywhere."""
        for handler in (self._early, self._file):
            if handler is not None:
                self._logger.removeHandler(handler)
                # What is left of it finds no room: that was told when the first line found none.
                with suppress(OSError):
                    handler.close()
        self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        self._logger.removeHandler(self._notices)
        self._logger.setLevel(self._level_before)
