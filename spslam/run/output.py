"""The output folder of a run, moved to its place when complete, and the log in it."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, get_args

from spslam.config import Config, load_config
from spslam.errors import ConfigError, OutputError
from spslam.io.files import exchange
from spslam.io.given_files import read_given
from spslam.io.structured_text import parse_json
from spslam.notices import Notice, NoticeHandler, notice, notice_renamed
from spslam.process.ownership import OWNER, Claim, claim_folder, is_abandoned, remove_folder
from spslam.timestamps import TimeUnitChoice

_LOG = logging.getLogger(__name__)

# Names of files in the folder of a run.
GROUND_TRUTH = "ground_truth.tum"
METRICS = "metrics.json"
# Keys of metrics.json in older releases and their names today, both for one release.
RENAMED_METRICS = {
    "share_tracked": "tracking_rate",
    "coverage_median": "inlier_coverage_median",
    "coverage_p5": "inlier_coverage_p5",
    "map_parts": "submaps",
    "tracked_in_other_parts": "tracked_in_other_submaps",
    "body_fixed_share": "body_fixed_fraction",
}
CONFIG = "config.yaml"
# Masks that `--mask auto` found, and its value in metrics.json.
MASKS = ("mask.png", "mask_right.png")
AUTO_MASK = "auto"
CALIBRATION = "calibration.yaml"
# Files that identify the folder of a run.
MARKERS = frozenset({METRICS, CONFIG})
# Keys that metrics.json of every run has.
RUN_LABELS = ("sequence", "sensor", "extractor")
# Maximum size of metrics.json, bytes.
logger = logging.getLogger(__name__)

_LONGEST_METRICS = 10_000_000
# The files of a run, each of which may be missing.
OUTPUT_NAMES = MARKERS | {
    "trajectory.tum",
    "trajectory.kitti",
    "keyframes.tum",
    "poses.csv",
    GROUND_TRUTH,
    "frames.csv",
    "map.ply",
    "map.npz",
    "trajectory.png",
    "map.png",
    "report.html",
    "log.txt",
}
# Files that only some runs write.
SOMETIMES_NAMES = frozenset({*MASKS, CALIBRATION})
# Files that `spslam mesh` writes into the folder of a finished run.
MESH_NAMES = frozenset({"mesh.ply", "cloud.ply", "mesh.json"})
# Start of the source of a built-in world in the metrics.
_WORLD_SOURCE = "built-in world "
# Topics of a bag that a user may choose.
_TOPICS = ("topic", "right_topic", "depth_topic", "truth_topic")
# The default of `--pair-within`, seconds.
_PAIR_WITHIN_S = 0.02
# Format of a line of log.txt.
_LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
# Maximum number of log records kept before the log file is open.
_EARLY_RECORDS = 10_000
# Ends of the names of hidden folders: of an unfinished run, and of a run that is being replaced.
_PARTIAL, _REPLACED = ".partial", ".replaced"
# Maximum time to wait for `publish` to move the folder, seconds.
_MOVING_S = 5.0


class OutputFolder:
    """The output folder of a run: hidden until `publish` moves it to its final place in one step.

    The folder of an earlier run is replaced; any other folder that is not empty is refused before
    the run. Hidden folders that killed processes left beside it are removed.

    Args:
        wanted: the final folder.
        numbered: use `wanted-2`, `wanted-3`, … if `wanted` exists, instead of replacing it.

    Attributes:
        partial: the hidden folder.

    Raises:
        OutputError: `wanted` is a file or holds other files than a run, or cannot be written.
    """

    def __init__(self, wanted: Path, *, numbered: bool = False) -> None:
        self._wanted = Path(os.path.abspath(wanted.expanduser()))  # noqa: PTH100 - resolve() would follow links
        self._numbered = numbered
        _tidy_up(self._wanted.parent)
        if not numbered:
            _refuse_foreign(self._wanted)
        try:
            self._wanted.parent.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(
                dir=self._wanted.parent, prefix=f".{self._wanted.name}.", suffix=_PARTIAL
            )
        except OSError as error:
            raise OutputError(
                f"cannot write results to {wanted}: {error.strerror or error}"
            ) from None
        self.partial = Path(name)
        self._claim = claim_folder(self.partial)
        self._moving = Lock()
        self._final: Path | None = None
        self._kept = False
        mask = os.umask(0)
        os.umask(mask)
        self.partial.chmod(0o777 & ~mask)

    def publish(self) -> Path:
        """Move the folder to its final place, unless it is there already; return the final folder.

        Raises:
            OutputError: another file is there now, or moving failed. The error names the folder
                that keeps the results.
        """
        with self._moving:
            if self._final is not None:
                return self._final
            try:
                final = self._move_to_free() if self._numbered else self._move()
            except OutputError as error:
                kept = self._keep()
                self._kept = True
                raise OutputError(f"{error}; the results are in {kept}") from None
            self._final = final
            _unmark(final, self._claim)
        return final

    def discard(self) -> None:
        """Remove the folder unless it was published."""
        # Do not disturb a thread that is publishing it.
        if not self._moving.acquire(timeout=_MOVING_S):
            return
        try:
            if self._final is None and not self._kept:
                remove_folder(self.partial)
                if self._claim is not None:
                    self._claim.release()
        finally:
            self._moving.release()

    def _move(self) -> Path:
        """Move the folder to the wanted place; replace an earlier run."""
        final = self._wanted
        try:
            _refuse_foreign(final)
            if final.exists():
                _replace(final, self.partial)
            else:
                self.partial.rename(final)
        except OSError as error:
            raise OutputError(
                f"cannot move results to {final}: {error.strerror or error}"
            ) from None
        return final

    def _move_to_free(self) -> Path:
        """Move the folder to the first numbered place that is free."""
        for number in count(1):
            path = (
                self._wanted
                if number == 1
                else self._wanted.with_name(f"{self._wanted.name}-{number}")
            )
            if os.path.lexists(path):
                continue
            try:
                self.partial.rename(path)
            except OSError as error:
                # Another run took this place first.
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    continue
                raise OutputError(
                    f"cannot move results to {path}: {error.strerror or error}"
                ) from None
            return path
        raise AssertionError("numbers do not end")

    def _keep(self) -> Path:
        """Keep results that cannot be moved to the wanted place; return their folder."""
        kept = self.partial
        with suppress(OutputError):
            kept = self._move_to_free()
        _unmark(kept, self._claim)
        return kept


def default_output(name: str, sensor: str, extractor: str) -> Path:
    """Return `runs/<name>-<sensor>-<extractor>`, valid on any file system."""
    return Path("runs") / re.sub(r"[^\w.]+", "-", f"{name}-{sensor}-{extractor}").strip("-.")


def recording_of(metrics: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Return how a run opened its recording: arguments of `open_sequence`, without the sensor.

    Args:
        metrics: the run's `metrics.json`. Earlier versions wrote fewer of the arguments.
        folder: the run's folder, which holds the mask that `--mask auto` found.

    Returns:
        The arguments. `path` is empty where nothing says it, and for a live camera whose frames
        were not recorded: its images are gone.
    """
    unit, dataset = metrics.get("time_unit"), metrics.get("dataset")
    # The stamps of videos and built-in worlds have no unit that can be given.
    unit = unit if unit in get_args(TimeUnitChoice) else "auto"
    live = bool(metrics.get("input_live"))
    source = "" if live else str(metrics.get("source", ""))
    return {
        "path": metrics.get("input_path") or source.removeprefix(_WORLD_SOURCE),
        "dataset": metrics.get("input_dataset", "auto" if live else dataset or "auto"),
        "sequence": metrics.get("input_sequence"),
        "calibration": metrics.get("input_calibration"),
        "time_unit": metrics.get("input_time_unit", unit),
        "pair_within_s": float(metrics.get("input_pair_within_s", _PAIR_WITHIN_S)),
        "mask": _mask_of(metrics, folder),
        **{name: metrics.get(f"input_{name}") for name in _TOPICS},
    }


def _mask_of(metrics: Mapping[str, Any], folder: Path | None) -> Path | None:
    """Return the mask of a run; None if it had none. A notice reports one that is missing."""
    given = metrics.get("input_mask")
    if given is None or (given == AUTO_MASK and metrics.get("mask_source") is None):
        return None
    place = Path(given)
    if given == AUTO_MASK:
        place = (Path() if folder is None else folder) / MASKS[0]
    if place.exists():
        return place
    text = "the mask of the run is not at %s: its images are used as a whole"
    notice(_LOG, "mask_missing", text, place)
    return None


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read `metrics.json` of a run.

    Raises:
        OutputError: the folder has no such file, or a run did not write it.
    """
    path = folder / METRICS
    try:
        metrics = parse_json(read_given(path, _LONGEST_METRICS).decode("utf-8"))
        if not isinstance(metrics, dict) or not metrics.keys() >= set(RUN_LABELS):
            raise ValueError("it has no sequence, sensor or extractor")
    except FileNotFoundError:
        raise OutputError(f"{folder} is not the folder of a run: it has no {METRICS}") from None
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} cannot be read, or was not written by a run: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from None
    old = [
        name for name in RENAMED_METRICS if name in metrics and RENAMED_METRICS[name] not in metrics
    ]
    if old:
        notice_renamed(logger, path, old[0], RENAMED_METRICS[old[0]], count=len(old))
    today = {RENAMED_METRICS[name]: metrics[name] for name in old}
    return {key: value for key, value in metrics.items() if key not in RENAMED_METRICS} | today


def with_old_names(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics that also have their values under the keys of `RENAMED_METRICS`."""
    known = {old: metrics[new] for old, new in RENAMED_METRICS.items() if new in metrics}
    return {**metrics, **known}


def read_run_config(folder: Path) -> Config:
    """Read the configuration in the folder of a run; the built-in one if it cannot be read."""
    path = folder / CONFIG
    if not path.is_file():
        return Config()
    try:
        return load_config(path)
    except ConfigError as error:
        notice(
            _LOG, "run_config_unreadable", "the built-in configuration is used instead: %s", error
        )
        return Config()


def _replace(final: Path, partial: Path) -> None:
    """Replace the folder of an earlier run; one of the two is in place at any time."""
    claim = claim_folder(final)
    try:
        if exchange(final, partial):
            remove_folder(partial)
            return
        # The system cannot exchange folders: use two renames. If the process is killed between
        # them, the next run in the same parent folder puts the earlier run back.
        replaced = Path(
            tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=_REPLACED)
        )
        moved = claim_folder(replaced)
        try:
            final.rename(replaced / final.name)
            try:
                partial.rename(final)
            except OSError:
                (replaced / final.name).rename(final)
                raise
        finally:
            if not (replaced / final.name).exists() or final.exists():
                remove_folder(replaced)
            if moved is not None:
                moved.release()
    except OSError:
        _unmark(final, claim)
        claim = None
        raise
    finally:
        if claim is not None:
            claim.release()


def _unmark(folder: Path, claim: Claim | None) -> None:
    """End the claim to a folder and keep the folder."""
    if claim is not None:
        with suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)
        claim.release()


def _tidy_up(parent: Path) -> None:
    """Remove hidden folders of killed processes and put back the runs they were replacing."""
    try:
        left = [
            path
            for path in parent.iterdir()
            if path.name.startswith(".") and path.suffix in (_PARTIAL, _REPLACED)
        ]
    except OSError:
        return
    for folder in left:
        if not is_abandoned(folder):
            continue
        if folder.suffix == _REPLACED:
            for run in folder.iterdir():
                # Put back a run only if its place is free.
                if run.is_dir() and not os.path.lexists(parent / run.name):
                    with suppress(OSError):
                        run.rename(parent / run.name)
                        notice(
                            _LOG,
                            "run_put_back",
                            "%s was put back: the run that was replacing it was killed",
                            run.name,
                        )
        remove_folder(folder)
        _LOG.info("removed %s, left by a killed process", folder)


def _refuse_foreign(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        raise OutputError(
            f"--out must be a folder, found a {'link' if path.is_symlink() else 'file'}: {path}"
        )
    if os.path.ismount(path):
        raise OutputError(
            f"{path} is a mount point and cannot be replaced: give --out a folder in it"
        )
    # A killed process may leave its mark (OWNER).
    names = {entry.name for entry in path.iterdir()} - {OWNER}
    if not names:
        return
    replaced = OUTPUT_NAMES | SOMETIMES_NAMES | MESH_NAMES
    found = (sorted(names - replaced) or sorted(names))[0]
    if names >= MARKERS and names <= replaced:
        # Other programs also write files named config.yaml and metrics.json.
        try:
            read_metrics(path)
            return
        except OutputError as error:
            found = str(error)
    raise OutputError(
        f"{path} holds other files than an earlier run ({found}) and is left alone: "
        "give --out a new or an empty folder"
    )


class _LogFile(logging.FileHandler):
    """A log file whose write errors do not end the run; a notice says that it is incomplete."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="w", encoding="utf-8", errors="backslashreplace")
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._failed:
            self._failed = True
            error = sys.exc_info()[1]
            notice(
                _LOG, "output_failed", "%s is not complete: %s", Path(self.baseFilename).name, error
            )


class RunLog:
    """The log of a run: collected from `with` on, written to a file after `open`, with notices."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("spslam")
        self._early = logging.handlers.MemoryHandler(
            _EARLY_RECORDS, flushLevel=logging.CRITICAL + 1
        )
        self._file: logging.FileHandler | None = None
        self._notices = NoticeHandler()
        self._level_before = self._logger.level

    @property
    def notices(self) -> list[Notice]:
        """The notices of the run until now."""
        return self._notices.notices

    def __enter__(self) -> RunLog:
        self._level_before = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._early)
        self._logger.addHandler(self._notices)
        return self

    def open(self, path: Path) -> None:
        """Write the collected and all later records to `path`.

        Raises:
            OutputError: the file cannot be written.
        """
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
        """Close the file: some systems cannot move a folder with an open file."""
        for handler in (self._early, self._file):
            if handler is not None:
                self._logger.removeHandler(handler)
                # The disk is full: the notice of the first failed line reported it.
                with suppress(OSError):
                    handler.close()
        self._file = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._logger.removeHandler(self._notices)
        self._logger.setLevel(self._level_before)
