"""Folders of photographs: find, read and scale them, and hold some out of a training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.io.files import visible_files
from spslam.io.given_files import read_given

# Suffixes of image files that count as photographs, in lower case.
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


def find_photos(folder: str | Path) -> list[Path]:
    """Find the visible photographs in `folder` and the folders below it, in natural order.

    Raises:
        DatasetError: the folder is missing or holds no photograph.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"expected a folder of photos, found none at {folder}: check the path")
    found = visible_files(folder, PHOTO_SUFFIXES, deep=True)
    if not found:
        raise DatasetError(
            f"expected photos ({', '.join(PHOTO_SUFFIXES)}) in {folder}, found none: check the path"
        )
    return found


def read_photo(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file as a grey (H, W) uint8 image, ignoring its orientation tag, as runs do.

    Raises:
        DatasetError: the file cannot be read, or is no image.
    """
    path = Path(path)
    try:
        data = np.frombuffer(read_given(path), np.uint8)
        image = (
            cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
            if len(data)
            else None
        )
    except (OSError, cv2.error) as error:
        raise DatasetError(f"the photo {path} cannot be read ({error}): remove it") from None
    if image is None:
        raise DatasetError(
            f"expected a photo at {path}, found a file that OpenCV cannot decode: remove it"
        )
    return np.asarray(image, np.uint8)


def fit_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale an image (H, W) to cover `size` (height, width), and return its middle of that size."""
    height, width = size
    factor = max(height / image.shape[0], width / image.shape[1])
    if image.shape[:2] == size:
        return image
    scaled = (
        max(round(image.shape[1] * factor), width),
        max(round(image.shape[0] * factor), height),
    )
    image = np.asarray(
        cv2.resize(image, scaled, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def held_out(paths: list[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split photographs into a training set and a held-out set, each in the given order.

    A hash of the photo's file name, its folder's name and the seed decides for each photo.
    Adding or removing other photos therefore moves no photo to the other set.

    Args:
        paths: the photographs.
        fraction: the fraction to hold out, from 0 to 1; the result has it only roughly.
        seed: another seed gives another split.

    Returns:
        The photographs to train with, and those to hold out.
    """
    train: list[Path] = []
    kept_out: list[Path] = []
    for path in paths:
        (kept_out if _fraction(path, seed) < fraction else train).append(path)
    return train, kept_out


def evenly_spread(paths: list[Path], count: int, seed: int) -> list[Path]:
    """Return at most `count` paths, one random path from each of `count` equal stretches.

    The paths stay in the given order.
    """
    if len(paths) <= count:
        return list(paths)
    edges = np.linspace(0, len(paths), count + 1)
    offsets = np.random.default_rng(seed).uniform(size=count)
    return [paths[int(index)] for index in edges[:-1] + offsets * np.diff(edges)]


def name_seed(path: Path) -> int:
    """Return a 64-bit number that depends only on the names of the file and its folder."""
    # File names alone repeat: many collections number their files.
    name = f"{path.absolute().parent.name}/{path.name}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _fraction(path: Path, seed: int) -> float:
    """Hash a path and a seed to a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}/{name_seed(path)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2.0**64
