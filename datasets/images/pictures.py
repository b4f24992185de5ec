"""Read images without calibration and time, for example to train a network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError, FrameError
from spslam.io.files import visible_files
from spslam.notices import counted, notice, plural

from ..euroc import is_euroc
from ..factory import open_sequence
from ..kitti import is_kitti
from ..paths import absolute
from ..tum import is_tum
from ..video import is_video, open_video
from .decoding import IMAGE_SUFFIXES, estimate_orientation, to_grey
from .grey_levels import GreyReader
from .image_names import describe_kinds

_LOG = logging.getLogger(__name__)
# Folders of a recording that hold right or depth images, which are left out.
_PARTNERS = frozenset({"right", "depth"})

Picture = tuple[str, NDArray[np.uint8]]


def read_pictures(path: str | Path, sequence: str | None = None) -> Iterator[Picture]:
    """Read the names and grey images (H, W) of a recording; no calibration is needed.

    Args:
        path: a video, a KITTI, TUM or EuRoC sequence, the name of a built-in world, or a folder.
            Of a folder all image files in it and below it are read, in natural order.
        sequence: name of the sequence where `path` holds several.

    Raises:
        DatasetError: no format fits, or no image can be decoded.
    """
    place = absolute(path)
    if is_video(place):
        return _video_frames(place)
    if place.is_dir() and not any(test(place) for test in (is_kitti, is_euroc, is_tum)):
        return _image_files(place)
    frames = open_sequence(path, sequence=sequence, sensor="mono")
    return ((f"frame{frame.index:06d}", frame.image) for frame in frames)


def _video_frames(path: Path) -> Iterator[Picture]:
    capture = open_video(path)
    try:
        decoded, pixels = capture.read()
        if not decoded:
            raise DatasetError(f"not one frame of the video {path} can be decoded")
        index = 0
        while decoded:
            yield f"frame{index:06d}", to_grey(np.asarray(pixels, dtype=np.uint8), f"frame {index}")
            decoded, pixels = capture.read()
            index += 1
    finally:
        capture.release()


def _image_files(folder: Path) -> Iterator[Picture]:
    """Read the images in a folder and below it, without right and depth images.

    Images that cannot be decoded are skipped and counted.
    """
    files = visible_files(folder, IMAGE_SUFFIXES, deep=True)
    if not files:
        raise DatasetError(
            f"expected a video, a sequence or image files in {folder}, found none of them"
        )
    partners = [
        path for path in files if _PARTNERS.intersection(path.relative_to(folder).parts[:-1])
    ]
    if 0 < len(partners) < len(files):
        text = "%s: %s in folders called %s %s left out"
        notice(
            _LOG,
            "partner_images",
            text,
            folder,
            counted(len(partners), "image"),
            " or ".join(sorted(_PARTNERS)),
            plural(len(partners), "is", "are"),
            count=len(partners),
        )
        files = [path for path in files if path not in set(partners)]
    for place in {path.parent for path in files}:
        if kinds := describe_kinds([path for path in files if path.parent == place]):
            notice(_LOG, "mixed_images", "%s holds %s: all of them are used", place, kinds)
    estimate_orientation(files[0])
    return _read_files(files, folder)


def _read_files(files: list[Path], folder: Path) -> Iterator[Picture]:
    # Each folder may be of another camera: scale 16 bits folder by folder.
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    readers = {place: GreyReader(f"images {place.name}", paths) for place, paths in folders.items()}
    broken: list[str] = []
    for path in files:
        try:
            image = readers[path.parent].read(path)
        except FrameError as error:
            broken.append(str(error))
            continue
        yield path.relative_to(folder).as_posix(), image
    if len(broken) == len(files):
        raise DatasetError(
            f"none of the {counted(len(files), 'image')} in {folder} can be decoded: {broken[0]}"
        )
    if broken:
        text = "%s: %d of %d images cannot be decoded and %s skipped, the first: %s"
        notice(
            _LOG,
            "unreadable_images",
            text,
            folder,
            len(broken),
            len(files),
            plural(len(broken), "is", "are"),
            broken[0],
            count=len(broken),
        )
