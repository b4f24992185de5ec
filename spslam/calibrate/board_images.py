"""Read the pictures of a board: a folder, a video, or two of them for a stereo pair."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2

from spslam.calibrate.board import Picture
from spslam.errors import DatasetError
from spslam.io.files import visible_files
from spslam.notices import counted, notice

logger = logging.getLogger(__name__)

# Number of images in which the board is searched; of longer recordings, evenly spread ones.
MOST_IMAGES = 300
# Subfolders with the left and right images of a pair.
_SIDES = (("left", "right"), ("cam0", "cam1"), ("image_0", "image_1"))


def board_folders(path: Path, right: Path | None) -> tuple[Path, Path | None]:
    """Return where the left and the right images lie; None without right images.

    Args:
        path: a folder or video; a folder with left/ and right/ holds a pair.
        right: folder or video of the right images, if given.
    """
    if right is None:
        for left_name, right_name in _SIDES:
            if (path / left_name).is_dir() and (path / right_name).is_dir():
                return path / left_name, path / right_name
    return path, right


def read_board_images(path: Path) -> Iterator[Picture]:
    """Yield names and grey images (H, W) of a folder or video, at most about 300, evenly spread.

    Raises:
        DatasetError: there are none, or none can be decoded.
    """
    from spslam.datasets import read_pictures

    total = _total(path)
    step = max(1, -(-total // MOST_IMAGES))
    if step > 1:
        text = "%s has about %s: the board is searched in every %d-th"
        notice(logger, "thinned_images", text, path, counted(total, "image"), step)
    for index, picture in enumerate(read_pictures(path)):
        if index % step == 0:
            yield picture


def read_board_pairs(left: Path, right: Path) -> tuple[list[Picture], list[Picture]]:
    """Read the pairs of a stereo camera: of equal name, else, if equally many, in their order.

    Raises:
        DatasetError: which images belong together is not known.
    """
    sides = [*read_board_images(left)], [*read_board_images(right)]
    names = [[name for name, _ in side] for side in sides]
    if set(names[0]) & set(names[1]):
        return sides
    if len(names[0]) != len(names[1]):
        raise DatasetError(
            f"which images belong together is not known: {left} has "
            f"{counted(len(names[0]), 'image')} and {right} {len(names[1])}, without equal names"
        )
    text = "%s and %s: images are paired in their order, because no names are equal"
    notice(logger, "paired_in_order", text, left, right)
    renamed = [(name, image) for name, (_, image) in zip(names[0], sides[1], strict=True)]
    return sides[0], renamed


def _total(path: Path) -> int:
    """About how many images a folder or video has; 0 if unknown."""
    from spslam.datasets.images.decoding import IMAGE_SUFFIXES

    if path.is_dir():
        return len(visible_files(path, IMAGE_SUFFIXES, deep=True))
    if not path.is_file():
        return 0
    capture = cv2.VideoCapture(str(path))
    try:
        return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    finally:
        capture.release()
