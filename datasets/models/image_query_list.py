"""Read lists of images with intrinsics, as hloc and the benchmarks of visual localisation use them.

A line is `name MODEL width height params…`, with COLMAP's models, or a name alone. Source: Sarlin
et al., From coarse to fine: Robust hierarchical localization at large scale, CVPR 2019.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import SequenceRequest
from spslam.io.given_files import read_given
from spslam.notices import counted, notice

from ..base import FileSequence
from ..calibration.calibration import find_calibration
from ..paths import reason
from .cameras import MODELS, colmap_camera
from .posed_images import FPS, PosedImage, Reconstruction, open_reconstruction

_LOG = logging.getLogger(__name__)
_IMAGE = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)
# Largest size of a list, bytes.
_LONGEST = 100_000_000
# Lines in which a list is recognised.
_SAMPLE = 5
# Folders of the images, relative to the list.
_FOLDERS = (".", "images", "..", "../images", "../..", "images/images_upright")


def is_image_query_list(path: Path) -> bool:
    """Return whether a text file lists images, each with or without intrinsics."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    try:
        lines = _lines(path)[:_SAMPLE]
    except DatasetError:
        return False
    words = [line.split() for line in lines]
    return bool(words) and all(
        _IMAGE.search(row[0]) and (len(row) == 1 or row[1] in MODELS) for row in words
    )


def open_image_query_list(path: Path, request: SequenceRequest) -> FileSequence:
    """Open the images of a list.

    Names are relative to the folder of the list, to `images/` in it, or to the folder above. Images
    without intrinsics need a calibration, which also replaces those of the list.

    Args:
        path: the list.
        request: the user's choices; `sequence` is the name of a folder of images.

    Raises:
        DatasetError: the list or the images cannot be read, or hold something else.
    """
    entries = [_entry(path, line) for line in _lines(path)]
    if not entries:
        raise DatasetError(f"{path} lists no images")
    camera = None
    if request.calibration is not None or any(found is None for _, found in entries):
        camera = find_calibration(request.calibration, [path.parent], f"the list {path}").camera
        given = sum(found is not None for _, found in entries)
        if given:
            text = "%s: the calibration replaces the intrinsics of %s"
            notice(_LOG, "calibration_given", text, path, counted(given, "image"))
    root = _folder(path, [name for name, _ in entries])
    images = [PosedImage(root / name, camera or own, "") for name, own in entries]
    found = Reconstruction("imagelist", f"imagelist {path.stem}", path, path, images, None)
    return open_reconstruction(found, request)


def _lines(path: Path) -> list[str]:
    try:
        text = read_given(path, _LONGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}") from None
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _entry(path: Path, line: str) -> tuple[str, Camera | None]:
    name, *rest = line.split()
    if not rest:
        return name, None
    try:
        model, width, height, *params = rest
        size = float(width), float(height)
        numbers = tuple(float(value) for value in params)
        return name, colmap_camera(model, size, numbers, FPS)
    except CalibrationError as error:
        raise CalibrationError(f"{path}, {name}: {error}") from None
    except ValueError:
        raise DatasetError(
            f"{path}: expected 'name MODEL width height params', found {line[:60]!r}"
        ) from None


def _folder(path: Path, names: list[str]) -> Path:
    """Return the folder that the names are relative to: where most of them are."""
    places = [path.parent / place for place in _FOLDERS]
    sample = names[:: max(1, len(names) // 20)]
    counts = [sum((place / name).is_file() for name in sample) for place in places]
    return places[counts.index(max(counts))].resolve()
