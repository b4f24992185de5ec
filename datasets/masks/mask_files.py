"""Find the masks that a user gives: an image, a folder with one for each image, a pair of these."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence as Listed
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spslam.errors import DatasetError
from spslam.notices import counted, notice, plural
from spslam.timestamps import to_seconds

from ..calibration.mask_paths import MaskPaths
from ..images.decoding import list_files
from .mask_images import RawView, check_used, fitted, read_mask
from .masks import MaskFiles, Masks, MaskSource, StaticMask

_LOG = logging.getLogger(__name__)
# Folders or files of masks of the left and right camera in a folder of masks.
_PAIRS = (("left", "right"), ("cam0", "cam1"), ("image_0", "image_1"), ("image_2", "image_3"))
_FILE_PAIRS = (*_PAIRS, ("mask", "mask_right"))
# End of the name of a right mask beside a left one.
_RIGHT = "_right"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Numbers at least this large, or with a point, are times and no frame numbers.
_LIKELY_TIME = 10**6
# Largest distance of a mask's time from its frame's, fraction of the median step of the frames.
_NEAR = 0.5


class MaskedImages(Protocol):
    """What masks need to know of a sequence."""

    @property
    def name(self) -> str:
        """Short name for messages."""
        ...

    @property
    def sensor(self) -> str:
        """Kind of sensor: `mono`, `stereo` or `rgbd`."""
        ...

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images are made from raw images."""
        ...

    def image_names(self, right: bool = False) -> list[str] | None:
        """Return the file name of each frame's image; None if images have no names."""
        ...

    def __len__(self) -> int: ...


def open_masks(place: Path, sequence: MaskedImages) -> Masks:
    """Open the masks at a path that a user gave.

    Args:
        place: an image, or a folder: with one mask an image, with `left` and `right` folders or
            images, or with `mask.png` and `mask_right.png` as a run writes them. For pairs, the
            right mask may also lie beside the image: `NAME_right.png`.
        sequence: the recording.

    Raises:
        DatasetError: there are no masks, or they do not fit the images.
    """
    left, right = _sides(place)
    stereo = sequence.sensor == "stereo"
    masks = _open(MaskPaths(left, right if stereo else None), sequence, "")
    if stereo and right is None:
        text = "mask %s is for the left images; right images have none (%s%s beside it would be)"
        suffix = left.suffix or "/"
        notice(_LOG, "mask_of_left_only", text, left, f"{left.stem}{_RIGHT}", suffix)
    return masks


def masks_of_calibration(paths: MaskPaths, sequence: MaskedImages) -> Masks:
    """Open the masks that a calibration names.

    Raises:
        DatasetError: there are no masks, or they do not fit the images.
    """
    stereo = sequence.sensor == "stereo"
    return _open(MaskPaths(paths.left, paths.right if stereo else None), sequence, "calibration")


class PictureMasks:
    """Masks of pictures that only have names, as those of `read_pictures`.

    Args:
        place: a mask image, or a folder with a mask for each picture, of its name or number.
        paired: whether masks called left and right, or in such folders, are those of a stereo
            pair, and only those of the left pictures are wanted.

    Raises:
        DatasetError: there are no masks.
    """

    def __init__(self, place: Path, paired: bool = True) -> None:
        left = _sides(place)[0] if paired else _single(place)
        self._files = list_files(left) if left.is_dir() else None
        self._static = None if left.is_dir() else read_mask(left)
        self._path = left
        self._fitted: NDArray[np.bool_] | None = None

    def of(self, name: str, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the mask (H, W) of a picture of this shape; None: it has no mask.

        Raises:
            DatasetError: the mask cannot be read or has another size.
        """
        view = RawView(shape[1], shape[0])
        if self._static is not None:
            if self._fitted is None or self._fitted.shape != shape:
                self._fitted = fitted(self._static, view, self._path)
                check_used(self._fitted, self._path, self._static)
            return self._fitted
        found = self.file_of(name)
        return None if found is None else fitted(read_mask(found), view, found)

    def file_of(self, name: str) -> Path | None:
        """Return the file of a picture's mask; None: it has no mask."""
        if self._files is None:
            return self._path
        stem = Path(name).name
        return _by_name(self._files, [stem])[0] or _by_number(self._files, [_number(stem)])[0]


def _single(place: Path) -> Path:
    """Return the masks of a camera that is not one of a pair."""
    _check_exists(place)
    if place.is_dir() and not list_files(place):
        raise DatasetError(f"expected masks (*.png, *.jpg) in {place}, found none")
    return place


def _check_exists(place: Path) -> None:
    if not place.exists():
        raise DatasetError(f"expected a mask image or a folder of masks, found nothing at {place}")


def _sides(place: Path) -> tuple[Path, Path | None]:
    """Return the masks of the left and, if any, right camera."""
    _check_exists(place)
    if not place.is_dir():
        beside = place.with_name(f"{place.stem}{_RIGHT}{place.suffix}")
        return place, beside if beside.is_file() else None
    for left, right in _PAIRS:
        if list_files(place / left):
            return place / left, place / right if list_files(place / right) else None
    files = {path.stem: path for path in list_files(place)}
    for left, right in _FILE_PAIRS:
        if left in files and files.keys() <= {left, right}:
            return files[left], files.get(right)
    if not files:
        raise DatasetError(f"expected masks (*.png, *.jpg) in {place}, found none")
    return place, None


def _open(paths: MaskPaths, sequence: MaskedImages, source: str) -> Masks:
    views = sequence.raw_views()
    sides = [
        None if path is None else _source(path, view, sequence, right)
        for path, view, right in zip((paths.left, paths.right), views, (False, True), strict=True)
    ]
    given = paths.left or paths.right
    assert given is not None
    return Masks(sides[0], sides[1], source or ("folder" if given.is_dir() else "file"))


def _source(path: Path, view: RawView, sequence: MaskedImages, right: bool) -> MaskSource:
    if not path.is_dir():
        raw = fitted(read_mask(path), view, path)
        mask = view.from_raw(raw)
        check_used(mask, path, raw)
        text = "mask %s: %.2g %% of the %s is not used"
        images = "right image" if right else "image"
        notice(_LOG, "mask", text, path, 100 * np.mean(~mask), images)
        return StaticMask(mask)
    found = _matched(path, sequence, right)
    files = {row: file for row, file in enumerate(found) if file is not None}
    if not files:
        raise DatasetError(
            f"none of the masks in {path} belongs to an image of {sequence.name}: a mask is called "
            "like its image (0001.png or 0001.jpg.png), or has its number"
        )
    first = next(iter(files.values()))
    raw = fitted(read_mask(first), view, first)
    check_used(view.from_raw(raw), first, raw)
    if missing := len(found) - len(files):
        text = "%s: %s no mask and %s used as a whole"
        what = counted(missing, "image has", "images have")
        notice(_LOG, "masks_missing", text, path, what, plural(missing, "is", "are"), count=missing)
    return MaskFiles(files, view)


def _matched(folder: Path, sequence: MaskedImages, right: bool) -> list[Path | None]:
    """Return the mask of each frame, or None: by name, else by number, else by time."""
    files = list_files(folder)
    names = sequence.image_names(right)
    if names is not None:
        found = _by_name(files, names)
        if any(found):
            return found
        numbers: list[str | None] = [_number(Path(name).stem) for name in names]
    else:
        numbers = [str(row) for row in range(len(sequence))]
    found = _by_number(files, numbers)
    stamps = getattr(sequence, "timestamps", None)
    if not any(found) and stamps is not None:
        found = _by_time(files, stamps)
    if any(found):
        row, first = next((row, file.name) for row, file in enumerate(found) if file is not None)
        text = "masks in %s are matched by the numbers in their names: frame %d has %s"
        notice(_LOG, "masks_by_number", text, folder, row, first)
    return found


def _by_name(files: list[Path], names: Listed[str]) -> list[Path | None]:
    known = {path.stem: path for path in files}
    # COLMAP calls the mask of a.jpg a.jpg.png; others call it a.png.
    return [known.get(name) or known.get(Path(name).stem) for name in names]


def _number(stem: str) -> str | None:
    """Return the last number in a name, without leading zeros."""
    numbers = _NUMBER.findall(stem)
    return (numbers[-1].lstrip("0") or "0") if numbers else None


def _by_number(files: list[Path], numbers: Listed[str | None]) -> list[Path | None]:
    masks = {path: _number(path.stem) for path in files}
    if max(Counter(masks.values()).values(), default=0) > 1:
        return [None] * len(numbers)
    known = {number: path for path, number in masks.items() if number is not None}
    return [None if number is None else known.get(number) for number in numbers]


def _by_time(files: list[Path], stamps: ArrayLike) -> list[Path | None]:
    times: NDArray[np.float64] = np.asarray(stamps, dtype=np.float64)
    nothing: list[Path | None] = [None] * len(times)
    numbers = [_number(path.stem) for path in files]
    if min(len(times), len(numbers)) < 2 or None in numbers:
        return nothing
    values = np.array([float(number) for number in numbers if number is not None])
    if not ((values >= _LIKELY_TIME) | np.array(["." in str(n) for n in numbers])).all():
        return nothing
    order = np.argsort(values)
    seconds, _ = to_seconds(values[order], None, str(files[0].parent))
    nearest = np.clip(np.searchsorted(seconds, times), 1, len(seconds) - 1)
    nearest -= times - seconds[nearest - 1] < seconds[nearest] - times
    near = np.abs(seconds[nearest] - times) <= _NEAR * np.median(np.diff(times))
    return [files[order[at]] if close else None for at, close in zip(nearest, near, strict=True)]
