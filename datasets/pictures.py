"""The images of whatever a path names, without calibration and time: what a network can be trained with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError

from .decoding import IMAGE_SUFFIXES, to_grey
from .euroc import is_euroc
from .grey_levels import GreyReader
from .kitti import is_kitti
from .layout import absolute
from .opening import open_sequence
from .tum import is_tum
from .video import is_video

Picture = tuple[str, NDArray[np.uint8]]


def read_pictures(path: str | Path, sequence: str | None = None) -> Iterator[Picture]:
    """Names and grey images (H, W) of a video, of a KITTI, TUM or EuRoC sequence, of a built-in world, or of all
    image files in a folder and below it, in their order.

    Args:
        path: of any of these; no calibration is needed.
        sequence: which one, where `path` holds several.

    Raises:
        DatasetError: nothing fits, or an image cannot be decoded.
    """
    place = absolute(path)
    if is_video(place):
        return _video_frames(place)
    if place.is_dir() and not any(test(place) for test in (is_kitti, is_euroc, is_tum)):
        return _image_files(place)
    frames = open_sequence(path, sequence=sequence, sensor="mono")
    return ((f"frame{frame.index:06d}", frame.image) for frame in frames)


def read_camera(number: int) -> Iterator[Picture]:
    """Names and grey images (H, W) of a camera that is connected to this machine, as they come, without end.

    Args:
        number: which one, counted from 0 as the system does.

    Raises:
        DatasetError: there is no such camera, or it stopped.
    """
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise DatasetError(
                f"expected a camera with the number {number}, found none that can be opened: is it connected and free, "
                "and may you read it?"
            )
        for index in count():
            decoded, pixels = capture.read()
            if not decoded:
                raise DatasetError(f"camera {number} gave no image after {index}: was it disconnected?")
            yield f"frame{index:06d}", to_grey(np.asarray(pixels, dtype=np.uint8), f"frame {index}")
    finally:
        capture.release()


def _video_frames(path: Path) -> Iterator[Picture]:
    capture = cv2.VideoCapture(str(path))
    try:
        decoded, pixels = capture.read()
        if not decoded:
            raise DatasetError(f"{path} is no video that OpenCV can decode: convert it, for example to H.264 in .mp4")
        index = 0
        while decoded:
            yield f"frame{index:06d}", to_grey(np.asarray(pixels, dtype=np.uint8), f"frame {index}")
            decoded, pixels = capture.read()
            index += 1
    finally:
        capture.release()


def _image_files(folder: Path) -> Iterator[Picture]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        raise DatasetError(f"expected a video, a sequence or image files in {folder}, found none of them")
    return _read_files(folder, files)


def _read_files(folder: Path, files: list[Path]) -> Iterator[Picture]:
    # A folder below may be of another camera: each has its own scaling of 16 bits.
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    readers = {place: GreyReader(f"images {place.name}", paths) for place, paths in folders.items()}
    for path in files:
        yield path.relative_to(folder).as_posix(), readers[path.parent].read(path)
