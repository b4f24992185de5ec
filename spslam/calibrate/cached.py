"""Self-calibrations in the cache folder: a recording is calibrated once."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from spslam import __version__
from spslam.calibrate.frames import open_uncalibrated
from spslam.calibrate.mapping import load_pycolmap
from spslam.calibrate.self_calibration import SelfCalibration, calibrate_frames
from spslam.calibrate.writing import calibration_text
from spslam.callbacks import ignore
from spslam.camera import Camera
from spslam.config import MatchingConfig
from spslam.errors import OutputError, SpslamError
from spslam.interfaces import Sequence
from spslam.io.files import cache_folder, write_atomic
from spslam.notices import notice

_LOG = logging.getLogger(__name__)
_NEAREST = MatchingConfig()
# Bytes that are read at a time for the digest.
_CHUNK = 1 << 20
# Change it with every change of the results.
_FORMAT = 3


@dataclass(frozen=True)
class Calibrated:
    """A self-calibration and its file.

    Attributes:
        found: the result.
        text: content of the calibration file.
    """

    found: SelfCalibration
    text: str


def self_calibrate(
    path: str | Path,
    sequence: str | None = None,
    dataset: str = "auto",
    time_unit: str = "auto",
    progress: Callable[[str, int, int], None] = ignore,
    matching: MatchingConfig = _NEAREST,
) -> Calibrated:
    """Find the camera of a recording, or read it from the cache.

    Args:
        path: the recording, as for `open_sequence`.
        sequence: name of the sequence where `path` holds several.
        dataset: format of the recording.
        time_unit: unit of its time stamps.
        progress: see `calibrate_frames`.
        matching: see `calibrate_frames`; only results of nearest neighbours are cached.

    Raises:
        CalibrationError: the images do not determine the camera.
        ConfigError, WeightsError: see `calibrate_frames`.
        DatasetError: the recording cannot be read.
        MissingDependencyError: pycolmap is not installed.
    """
    load_pycolmap()
    frames = open_uncalibrated(path, sequence, dataset, time_unit)
    file = _file(frames) if matching.learned == "off" else None
    found = None if file is None else _read(file)
    if found is None:
        found = calibrate_frames(frames, progress, matching)
        if file is not None:
            _store(file, found)
    else:
        _LOG.info("self-calibration read from %s", file)
    return Calibrated(found, calibration_text(found, frames.name))


def stored_text(text: str) -> Path:
    """Write a calibration file into the cache folder, by its content, and return its path.

    If the cache folder cannot be written, the file lies in a temporary folder that is deleted when
    the process ends, with a note.

    Raises:
        OutputError: that cannot be written, either.
    """
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.yaml"
    file = cache_folder() / "calibrations" / name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            write_atomic(file, text, durable=False)
    except (OSError, OutputError):
        notice(_LOG, "no_cache", "%s cannot be written: nothing is cached", file.parent)
        folder = Path(tempfile.mkdtemp(prefix="spslam-calibration-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        file = folder / name
        write_atomic(file, text, durable=False)
    return file


def _file(frames: Sequence) -> Path | None:
    """Return the place in the cache for the images of a recording; None if they have no files."""
    source = Path(frames.source)
    if not source.exists():
        return None
    digest = hashlib.sha256()
    about = [_FORMAT, __version__, metadata.version("pycolmap"), len(frames), frames.camera.fps]
    digest.update(json.dumps([*about, frames.time_unit, frames.name]).encode())
    try:
        for path in _images(source):
            digest.update(path.name.encode("utf-8", "surrogateescape"))
            with path.open("rb") as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
    except OSError:
        return None
    return cache_folder() / "calibrations" / f"{digest.hexdigest()[:32]}.json"


def _images(source: Path) -> list[Path]:
    from spslam.datasets.images.decoding import IMAGE_SUFFIXES
    from spslam.io.files import visible_files

    return [source] if source.is_file() else visible_files(source, IMAGE_SUFFIXES, deep=True)


def _read(file: Path) -> SelfCalibration | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        camera = {**content["camera"], "distortion": tuple(content["camera"]["distortion"])}
        doubts = tuple(content["doubts"])
        return SelfCalibration(**{**content, "camera": Camera(**camera), "doubts": doubts})
    except (OSError, ValueError, TypeError, KeyError, SpslamError):
        return None


def _store(file: Path, found: SelfCalibration) -> None:
    # Without a cache the next run calibrates again.
    with suppress(OSError, SpslamError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(asdict(found)), durable=False)
