"""Masks of the images of `spslam features`: given by the user, or found by `auto`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError
from spslam.features.extraction import read_scaled
from spslam.features.image_list import ImageList
from spslam.frame import Frame, Sensor
from spslam.interfaces import LeftOut
from spslam.io.files import write_atomic
from spslam.trajectory import Trajectory
from spslam.typing import BoolArray

if TYPE_CHECKING:
    from spslam.datasets.images.grey_levels import GreyScaling
    from spslam.datasets.masks.mask_files import PictureMasks

# Guessed focal length of images without a calibration, in units of their longer side.
_GUESSED_FOCAL = 1.2
# Frames a second that make `auto` compare neighbouring images.
_NEIGHBOURS_FPS = 5.0


class ImageMasks:
    """The masks at a path.

    Masks of images in subfolders lie in subfolders of the same names, as COLMAP has them, or all
    in one folder.

    Args:
        place: a mask image, or a folder with a mask for each image, of its name or number.

    Raises:
        DatasetError: there are no masks.
    """

    def __init__(self, place: Path) -> None:
        from spslam.datasets.images.decoding import list_files
        from spslam.datasets.masks.mask_files import PictureMasks

        self._place = place
        self._make, self._files = PictureMasks, list_files
        self._folders: dict[PurePosixPath, PictureMasks] = {}
        if not place.is_dir() or list_files(place):
            self._folders[PurePosixPath()] = PictureMasks(place, paired=False)
        elif not any(list_files(folder) for folder in place.rglob("*") if folder.is_dir()):
            raise DatasetError(f"expected masks (*.png, *.jpg) in {place}, found none")

    def of(self, name: str, shape: tuple[int, int]) -> BoolArray | None:
        """Return the mask (H, W) of an image of this shape, True where it is used; None: none.

        Raises:
            DatasetError: the mask cannot be read, has another size, or uses nothing of any image.
        """
        masks = self._masks(name)
        return None if masks is None else masks.of(name, shape)

    def check_names(self, names: tuple[str, ...]) -> None:
        """Check that no two images share the mask of a folder.

        Raises:
            DatasetError: two images have one mask.
        """
        if not self._place.is_dir():
            return
        known: dict[Path, str] = {}
        for name in names:
            masks = self._masks(name)
            file = None if masks is None else masks.file_of(name)
            first = name if file is None else known.setdefault(file, name)
            if first != name:
                raise DatasetError(
                    f"{first} and {name} would share the mask {file}: put masks into subfolders "
                    "like those of the images"
                )

    def _masks(self, name: str) -> PictureMasks | None:
        """Return the masks of the folder in which an image's mask lies."""
        folder = self._folder(name)
        masks = self._folders.get(folder)
        if masks is None and folder != PurePosixPath():
            masks = self._folders[folder] = self._make(self._place / folder, paired=False)
        return masks

    def _folder(self, name: str) -> PurePosixPath:
        """Return the folder of an image's mask, relative to the place."""
        parent = PurePosixPath(name).parent
        inside = self._place.is_dir() and self._files(self._place / parent)
        return parent if inside else PurePosixPath()


@dataclass(frozen=True)
class ChosenMasks:
    """Masks of a call of `spslam features`.

    Attributes:
        place: the mask image or folder.
        digest: changes with the masks: a hash of the image, or of the names and sizes in a folder.
    """

    place: Path
    digest: str


def choose_masks(place: Path, images: ImageList) -> ChosenMasks:
    """Check the masks that a user gave.

    Raises:
        DatasetError: there are no masks, or two images would share one of a folder.
    """
    # Absolute: workers of a cluster have other working folders.
    place = place.absolute()
    ImageMasks(place).check_names(images.names)
    digest = hashlib.sha256()
    if not place.is_dir():
        digest.update(place.read_bytes())
    else:
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(place)}\0{path.stat().st_size}\0".encode())
    return ChosenMasks(place, digest.hexdigest()[:12])


def auto_mask_file(out: Path) -> Path:
    """Return where the mask that `auto` found lies: beside the file of features."""
    return out.with_name(f"{out.stem}.mask.png")


def find_mask(images: ImageList, scaling: GreyScaling, camera: Camera | None, target: Path) -> bool:
    """Find what is fixed to the camera of images, and write the mask; see `auto_masked`.

    The images must be of one moving camera, in the order of their names.

    Args:
        images: the images.
        scaling: range of 16-bit images.
        camera: their calibration; None: the focal length is guessed.
        target: PNG file of the mask.

    Returns:
        Whether anything is fixed; else nothing is written, and a notice says why.

    Raises:
        DatasetError: the images differ in size, or the first one cannot be read.
        OutputError: the file cannot be written.
    """
    from spslam.datasets import auto_masked
    from spslam.datasets.masks.masks import StaticMask

    masks = auto_masked(_Listed(images, scaling, camera)).masks
    if masks is None or not isinstance(masks.left, StaticMask):
        return False
    white = masks.left.mask * np.uint8(255)
    write_atomic(target, cv2.imencode(".png", white)[1].tobytes())
    return True


class _Listed:
    """Images of one camera as a `spslam.interfaces.Sequence`."""

    def __init__(self, images: ImageList, scaling: GreyScaling, camera: Camera | None) -> None:
        self._images, self._scaling = images, scaling
        height, width = read_scaled(images.path(images.names[0]), scaling).shape
        focal = _GUESSED_FOCAL * max(width, height)
        centre = (width - 1) / 2, (height - 1) / 2
        self.camera = camera or Camera(width, height, focal, focal, *centre, fps=_NEIGHBOURS_FPS)
        self.name = self.source = str(images.root)
        self.dataset, self.time_unit = "images", "frames"
        self.sensor: Sensor = "mono"
        self.ground_truth: Trajectory | None = None
        self.skipped: list[tuple[int, str]] = []
        self.left_out: list[LeftOut] = []

    def __len__(self) -> int:
        return len(self._images.names)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        name = self._images.names[index]
        image: NDArray[np.uint8] = read_scaled(self._images.path(name), self._scaling)
        expected = self.camera.width, self.camera.height
        if image.shape[::-1] != expected:
            raise DatasetError(
                f"--mask auto needs images of one size, found {image.shape[1]}x{image.shape[0]} "
                f"in {name} and {expected[0]}x{expected[1]}: give a mask file"
            )
        return Frame(index, index / _NEIGHBOURS_FPS, self.camera, image)
