"""Image pairs with known homographies for evaluation: warped photos, Oxford and HPatches layouts.

The warps are fixed here and independent of the training settings, so that metrics of different
trainings are comparable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spslam.errors import DatasetError
from spslam.typing import FloatArray, UInt8Array

from ...photos import PHOTO_SUFFIXES, evenly_spread, name_seed, read_photo

# Height and width of photographs, pixels.
PHOTO_SIZE = (240, 320)
# Largest rotation of a view, degrees.
ROTATION_DEG = 20.0
# Range of the side of the warped patch, fraction of the photograph's side.
_PATCH_RATIO = (0.75, 0.95)
# Largest shift of each corner, fraction of the patch's side.
_CORNER_SHIFT = 0.08
# Range of the gamma exponent.
_GAMMA = (0.6, 1.6)
# Range of the contrast factor.
_CONTRAST = (0.4, 1.5)
# Largest shift of the brightness, grey levels of 255.
_BRIGHTNESS = 50.0
# Range of the standard deviation of Gaussian noise, grey levels of 255.
_NOISE_SIGMA = (2.0, 15.0)
# Range of the sigma of the Gaussian blur, pixels.
_BLUR_SIGMA_PX = (0.1, 1.2)

# File names of a scene's images, without suffix: img1 or 1.
_SCENE_IMAGE = re.compile(r"(?:img)?([1-9])")
# HPatches marks the kind of a scene by the first letters of its folder.
_HPATCHES = {"i_": "illumination", "v_": "viewpoint"}


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two images of a plane or of one photograph, and their homography.

    Attributes:
        name: name for messages.
        group: group whose metrics are averaged: `photos`, an Oxford scene, `illumination`,
            `viewpoint`.
        image0: (H, W) uint8, grey.
        image1: (H, W) uint8, grey, of the same size.
        homography: (3, 3), maps pixels of image 0 to pixels of image 1.
    """

    name: str
    group: str
    image0: UInt8Array
    image1: UInt8Array
    homography: FloatArray


def photo_pairs(
    paths: Sequence[Path], limit: int = 70, seed: int = 0, size: tuple[int, int] = PHOTO_SIZE
) -> Iterator[ImagePair]:
    """Yield photographs with random views of them, turned by at most 20 degrees, with noise.

    The view of a photograph depends only on the seed and on its name.

    Args:
        paths: photographs; at most `limit` of them are used, evenly spread.
        limit: most pairs.
        seed: seed for the choice, the views and the noise.
        size: height and width to which each photograph is stretched, pixels.

    Raises:
        DatasetError: a photograph cannot be read.
    """
    for path in evenly_spread(list(paths), limit, seed):
        rng = np.random.default_rng([seed, name_seed(path)])
        image = resize_image(read_photo(path), size)
        homography = random_view(rng, size)
        view = cv2.warpPerspective(
            image, homography, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        yield ImagePair(
            path.name,
            "photos",
            image,
            photometric_noise(rng, np.asarray(view, np.uint8)),
            homography,
        )


def random_view(rng: np.random.Generator, size: tuple[int, int]) -> FloatArray:
    """Return a random homography (3, 3) from an image of `size` (height, width) to a view.

    The view shows a patch of the image, distorted, rotated and shifted inside the image. A patch
    too wide or too high for the image is centred.
    """
    height, width = size
    half = 0.5 * np.array([width, height])
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    patch = corners + rng.uniform(-2 * _CORNER_SHIFT, 2 * _CORNER_SHIFT, (4, 2))
    patch = patch * half * rng.uniform(*_PATCH_RATIO)
    angle = np.deg2rad(rng.uniform(-ROTATION_DEG, ROTATION_DEG))
    patch = patch @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    low, high = -half - patch.min(axis=0), half - patch.max(axis=0)
    shift = np.where(high > low, rng.uniform(size=2) * (high - low) + low, 0.5 * (low + high))
    centre = half - 0.5
    view_to_image = cv2.getPerspectiveTransform(
        (corners * half + centre).astype(np.float32), (patch + shift + centre).astype(np.float32)
    )
    homography = np.linalg.inv(view_to_image)
    return np.asarray(homography / homography[2, 2], np.float64)


def photometric_noise(rng: np.random.Generator, image: UInt8Array) -> UInt8Array:
    """Blur (H, W) uint8 slightly; change gamma, contrast and brightness; add Gaussian noise."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(*_BLUR_SIGMA_PX)).astype(np.float64)
    curved = 255.0 * (blurred / 255.0) ** np.exp(rng.uniform(*np.log(_GAMMA)))
    mean = curved.mean()
    changed = (
        (curved - mean) * rng.uniform(*_CONTRAST) + mean + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    )
    noisy = changed + rng.normal(0.0, rng.uniform(*_NOISE_SIGMA), image.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def scene_pairs(folder: str | Path, size: tuple[int, int]) -> Iterator[ImagePair]:
    """Yield image 1 with each other image of every scene in `folder`, or of the scene `folder`.

    Layouts: Oxford (`graf/img1.png` or `graf/1.png`, `graf/H_1_2` or `graf/H1to2p`, …) and HPatches
    (`v_x/1.ppm`, `v_x/H_1_2`, …; scenes with prefix `i_` and `v_` are averaged as illumination and
    viewpoint).

    Args:
        folder: one folder per scene.
        size: height and width to which each image is stretched, pixels; homographies are adapted.

    Raises:
        DatasetError: there is no scene, or an image or homography cannot be read.
    """
    folder = Path(folder)
    scenes = [scene for scene in (folder, *_folders(folder)) if _homography_files(scene)]
    if not scenes:
        raise DatasetError(
            f"expected folders with images 1 to 6 and homographies H_1_2 to H_1_6 in {folder}, "
            "found none: check the path"
        )
    for scene in scenes:
        images = {
            int(match[1]): path
            for path in sorted(scene.iterdir())
            if path.suffix.lower() in PHOTO_SUFFIXES
            and (match := _SCENE_IMAGE.fullmatch(path.stem))
        }
        group = _HPATCHES.get(scene.name[:2], scene.name)
        for index, path in _homography_files(scene).items():
            if 1 not in images or index not in images:
                raise DatasetError(
                    f"expected images 1 and {index} in {scene}, found images {sorted(images)}: "
                    "add the missing ones"
                )
            first, other = read_photo(images[1]), read_photo(images[index])
            homography = resize_homography(_read_homography(path), first.shape, other.shape, size)
            name = f"{scene.name} 1-{index}"
            yield ImagePair(
                name, group, resize_image(first, size), resize_image(other, size), homography
            )


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Stretch (H, W) uint8 to `size` (height, width)."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    resized = cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(resized, np.uint8)


def resize_homography(
    homography: FloatArray, shape0: tuple[int, ...], shape1: tuple[int, ...], size: tuple[int, int]
) -> FloatArray:
    """Return the homography (3, 3) between two images after both are stretched to `size`."""
    resized = _stretch(shape1, size) @ homography @ np.linalg.inv(_stretch(shape0, size))
    return np.asarray(resized / resized[2, 2], np.float64)


def _stretch(shape: tuple[int, ...], size: tuple[int, int]) -> FloatArray:
    # Pixel 0 is the centre of the first pixel: p' + 0.5 = (p + 0.5) * scale.
    x, y = size[1] / shape[1], size[0] / shape[0]
    return np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _homography_files(scene: Path) -> dict[int, Path]:
    if not scene.is_dir():
        return {}
    matches = {
        path: re.fullmatch(r"H_1_([2-9])|H1to([2-9])p", path.name)
        for path in sorted(scene.iterdir())
    }
    return {int(match[1] or match[2]): path for path, match in matches.items() if match}


def _read_homography(path: Path) -> FloatArray:
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), np.float64)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"expected a homography in {path}, found none ({error}): repair the file"
        ) from None
    if (
        values.size != 9
        or not np.isfinite(values).all()
        or abs(np.linalg.det(values.reshape(3, 3))) < 1e-12
    ):
        raise DatasetError(
            f"expected a homography of 9 numbers in {path}, found {values.size}: repair the file"
        )
    return values.reshape(3, 3)
