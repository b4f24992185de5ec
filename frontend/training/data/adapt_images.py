"""Images for an adaptation: a sample of the given ones, at one size, with held-out stretches."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError, OutputError
from spslam.io.files import write_atomic
from spslam.io.structured_text import parse_json
from spslam.notices import counted

from ...photos import fit_image

NamedImages = Iterable[tuple[str, NDArray[np.uint8]]]

# Fewest images for an adaptation.
LEAST_IMAGES = 20
# File in the image folder that records the settings and the given images.
MANIFEST = "images.json"
# Subfolders of the three sets.
_PARTS = _TRAIN, _VALIDATION, _HELD_OUT = ("train", "validation", "held-out")
# Usual length of a held-out stretch, images.
_STRETCH = 20
# Least length of a held-out stretch, images.
_LEAST_STRETCH = 3
# Most unused images on each side of a stretch.
_GAP = 5
# Largest fraction of the images that is held out.
_MOST_FRACTION = 0.4
# Every n-th row and column of an image goes into the digest.
_DIGEST_STEP = 8
# Most characters of an image's name in its file name.
_NAME_LENGTH = 40


@dataclass(frozen=True)
class DomainImages:
    """Images of an adaptation (PNG, grey, of one size) in three folders.

    Attributes:
        folder: parent of the three folders.
        given: number of images to choose from.
    """

    folder: Path
    given: int

    @property
    def train(self) -> Path:
        """Folder of the training images."""
        return self.folder / _TRAIN

    @property
    def validation(self) -> Path:
        """Folder of the images that choose the best weights."""
        return self.folder / _VALIDATION

    @property
    def held_out(self) -> Path:
        """Folder of the images for the evaluation, used only at the end."""
        return self.folder / _HELD_OUT


@dataclass(frozen=True)
class _Request:
    """Settings that choose the written images; later calls for the folder must have the same."""

    size: tuple[int, int]
    most: int
    share: float


def split_stretches(
    count: int, share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Split image indices into training, validation and held-out images.

    Neighbouring frames of a sequence are nearly equal. Therefore evenly spread stretches are
    removed from the training images, alternately for evaluation and for validation. A few images on
    both sides of each stretch are not used.

    Args:
        count: number of images, at least `LEAST_IMAGES`.
        share: fraction of the images for validation and evaluation together, at most 0.4.

    Returns:
        Indices for training, for validation, and held out.
    """
    wanted = max(count * min(share, _MOST_FRACTION), 2 * _LEAST_STRETCH)
    stretches = 2 * max(1, round(wanted / (2 * _STRETCH)))
    length = max(round(wanted / stretches), _LEAST_STRETCH)
    gap = min(_GAP, length // 3)
    middles = (np.arange(stretches) + 0.5) * count / stretches
    starts = np.rint(middles - length / 2).astype(np.int64)
    free = np.ones(count, np.bool_)
    for start in starts:
        free[max(start - gap, 0) : start + length + gap] = False
    taken = starts[:, None] + np.arange(length)
    return np.flatnonzero(free), taken[1::2].ravel(), taken[::2].ravel()


def gather_images(
    images: NamedImages,
    folder: Path,
    size: tuple[int, int],
    most: int,
    share: float,
    seen: Callable[[int], None] | None = None,
) -> DomainImages:
    """Write at most `most` of the images, evenly spread and fitted to `size`, to `folder`.

    If the folder exists already, the given images are only checked against those it was made from.

    Args:
        images: name and (H, W) uint8 grey of each image, in order; iterated once, one at a time.
        folder: output folder; created if missing.
        size: height and width, pixels.
        most: most images to keep.
        share: fraction for validation and evaluation, see `split_stretches`.
        seen: called with the number of images read; an exception that it raises ends the call.

    Raises:
        DatasetError: too few images, or `folder` was made from others.
        OutputError: `folder` cannot be written to.
    """
    request = _Request(size, most, share)
    stream = _Stream(images, seen)
    make = _check_same if (folder / MANIFEST).is_file() else _write_images
    return DomainImages(folder, make(folder, request, stream))


class _Stream:
    """Iterates over images; then knows their number and digest."""

    def __init__(self, images: NamedImages, seen: Callable[[int], None] | None) -> None:
        self._images, self._seen = images, seen
        self._digest = hashlib.sha256()
        self.count = 0

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for name, image in self._images:
            # Names alone are not unique: many sequences number their frames.
            self._digest.update(f"{name} {image.shape} ".encode())
            self._digest.update(image[::_DIGEST_STEP, ::_DIGEST_STEP].tobytes())
            self.count += 1
            if self._seen is not None:
                self._seen(self.count)
            yield name, image

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def _check_same(folder: Path, request: _Request, stream: _Stream) -> int:
    manifest = folder / MANIFEST
    try:
        found = parse_json(manifest.read_text("utf-8"))
        requested = {key: found[key] for key in ("size", "most", "share")}
        count, digest = int(found["count"]), found["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(f"{manifest} is damaged: remove its folder to start again") from None
    now = json.loads(json.dumps(asdict(request)))
    if requested != now:
        different = ", ".join(
            f"{key} {requested[key]} instead of {now[key]}"
            for key in now
            if requested[key] != now[key]
        )
        raise DatasetError(
            f"{folder} holds images chosen with other settings ({different}): use the same, "
            "or give another file for the weights"
        )
    for _ in stream:
        pass
    if (count, digest) != (stream.count, stream.digest):
        raise DatasetError(
            f"{folder} holds other images: they were chosen from {counted(count, 'image')}, "
            "not from the "
            f"{stream.count} given now; give another file for the weights, or remove the folder"
        )
    return count


def _write_images(folder: Path, request: _Request, stream: _Stream) -> int:
    if folder.exists():
        raise DatasetError(
            f"{folder} exists but holds no {MANIFEST}: give another file for the weights, or "
            "remove the folder"
        )
    # A folder with this name is incomplete; only a complete set gets the final name.
    part_folder = folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(part_folder, ignore_errors=True)
        for part in _PARTS:
            (part_folder / part).mkdir(parents=True)
        kept = _keep_some(stream, part_folder, request)
        if len(kept) < LEAST_IMAGES:
            raise DatasetError(
                f"expected at least {LEAST_IMAGES} images to adapt to (better 300 or more), "
                f"found {len(kept)}: give more of the same kind"
            )
        for part, indices in zip(_PARTS, split_stretches(len(kept), request.share), strict=True):
            for index in indices:
                kept[index].rename(part_folder / part / kept[index].name)
        # The rest are the unused images beside the stretches.
        for path in kept:
            path.unlink(missing_ok=True)
        values = {**asdict(request), "count": stream.count, "digest": stream.digest}
        write_atomic(part_folder / MANIFEST, json.dumps(values, indent=2) + "\n")
        part_folder.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write images to {folder}: {error.strerror or error}") from None
    return stream.count


def _keep_some(stream: _Stream, folder: Path, request: _Request) -> list[Path]:
    """Write at most `request.most` evenly spread images of a stream of unknown length."""
    kept: list[Path] = []
    every = 1
    for index, (name, image) in enumerate(stream):
        if index % every:
            continue
        path = folder / f"{index:06d}-{_plain(name)}.png"
        _, data = cv2.imencode(".png", fit_image(image, request.size))
        path.write_bytes(data.tobytes())
        kept.append(path)
        if len(kept) == 2 * request.most:
            _remove(kept[1::2])
            kept, every = kept[::2], 2 * every
    spread = np.linspace(0, len(kept), min(len(kept), request.most), endpoint=False).astype(
        np.int64
    )
    chosen = [kept[index] for index in spread]
    _remove(sorted({*kept} - {*chosen}))
    return chosen


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", Path(name).stem)[-_NAME_LENGTH:].strip("_") or "image"
