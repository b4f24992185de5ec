"""Folders of photographs: what is in them, which are held out, and how one is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.io.files import visible_files
from spslam.io.given_files import read_given

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


def find_photos(folder: str | Path) -> list[Path]:
    """Visible photographs in `folder` and the folders below it, in natural order.

    Raises:
        DatasetError: there is no such folder, or no photograph in it.
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
    """An image file as (H, W) uint8, grey, as the sensor stored it: an orientation tag is ignored, as in runs.

    Raises:
        DatasetError: the file cannot be read or is no image.
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
        raise DatasetError(
            f"expected a photo at {path}, found none that can be read ({error}): remove it"
        ) from None
    if image is None:
        raise DatasetError(
            f"expected a photo at {path}, found no image that OpenCV can decode: remove it"
        )
    return np.asarray(image, np.uint8)


def fit_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of an image (H, W), scaled so that a height and width of `size` are filled."""
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


def held_out(paths: list[Path], share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split photographs into those to train with and those never to train with, each in the given order.

    The hash of the file's name, its folder's name and the seed decides for each photo by itself: adding or
    removing others moves none. About `share` of them, not exactly, is held out.
    """
    train: list[Path] = []
    kept_out: list[Path] = []
    for path in paths:
        (kept_out if _fraction(path, seed) < share else train).append(path)
    return train, kept_out


def evenly_spread(paths: list[Path], count: int, seed: int) -> list[Path]:
    """At most `count` of the paths, one at random from each of `count` equal stretches, in the given order."""
    if len(paths) <= count:
        return list(paths)
    edges = np.linspace(0, len(paths), count + 1)
    offsets = np.random.default_rng(seed).uniform(size=count)
    return [paths[int(index)] for index in edges[:-1] + offsets * np.diff(edges)]


def name_seed(path: Path) -> int:
    """A 64-bit number that depends on the name of the file and of its folder only."""
    # Names alone repeat: many collections number their files.
    name = f"{path.absolute().parent.name}/{path.name}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _fraction(path: Path, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}/{name_seed(path)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2.0**64
