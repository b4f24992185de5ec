"""Sets of synthetic shapes: drawn once, cached on disk, memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import secrets
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from spslam.errors import OutputError
from spslam.io.structured_text import parse_json
from spslam.notices import counted
from spslam.process.signals import children_spared, cleaned_up, end_with_parent, nothing_kept

from ..reading import Batch, padded_labels
from .drawing import PRIMITIVES, draw_shape

_log = logging.getLogger(__name__)

_Labels = NDArray[np.float32]

# Version of the drawings; raise it when the same seed gives another image or other labels.
_VERSION = 1
# Arrays of a set, one .npy file each.
_FILES = ("images", "primitives", "corners", "offsets")
# Images that a process draws at a time.
_BLOCK = 256


class ShapeDataset:
    """Drawn shapes in memory-mapped files.

    Attributes:
        images: (N, H, W) uint8, memory-mapped.
        primitives: (N,) uint8, index into PRIMITIVES.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        primitives: NDArray[np.uint8],
        corners: NDArray[np.float32],
        offsets: NDArray[np.int64],
    ) -> None:
        """Take the junctions (M, 2) of all images; image i has `offsets[i]` to `offsets[i + 1]`."""
        self.images = images
        self.primitives = primitives
        self._corners = corners
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self.images)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a worker process: the file name instead of memory-mapped content."""
        images = self.images
        mapped = images.filename if isinstance(images, np.memmap) else None
        return self.__dict__ | {"images": images if mapped is None else Path(mapped)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        self.__dict__.update(
            state, images=np.load(images, mmap_mode="r") if isinstance(images, Path) else images
        )

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """Return images with their junctions, all of mass 1; see `Reader`."""
        corners = [self.corners(int(index)) for index in indices]
        images = torch.from_numpy(np.stack([self.images[index] for index in indices]))
        return {"images": images} | padded_labels(
            [(xy, np.ones(len(xy), np.float32)) for xy in corners]
        )

    def corners(self, index: int) -> NDArray[np.float32]:
        """Return the junctions (n, 2) x y of one image, pixels.

        Raises:
            IndexError: there is no such image.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"shape {index} of {len(self)}")
        index %= len(self)
        return self._corners[self._offsets[index] : self._offsets[index + 1]].copy()


def open_shapes(
    folder: Path, count: int, size: tuple[int, int], seed: int, processes: int = 1
) -> ShapeDataset:
    """Open a set of shapes from the cache in `folder`, or draw and cache it.

    Image i shows primitive i modulo their number, and depends only on the seed and i. A damaged
    cache is drawn again.

    Args:
        folder: folder of the caches; created if missing.
        count: number of images.
        size: height and width, pixels.
        seed: seed of all random numbers.
        processes: number of processes that draw; the result is the same.

    Raises:
        OutputError: the folder cannot be written to.
    """
    path = folder / _cache_name(count, size, seed)
    if (found := _load(path, count, size)) is not None:
        return found
    temporary = folder / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with nothing_kept(), cleaned_up(lambda: shutil.rmtree(temporary, ignore_errors=True)):
            temporary.mkdir(parents=True)
            _store(temporary, count, size, seed, processes)
            _move(temporary, path, count, size)
    except OSError as error:
        raise OutputError(
            f"cannot cache shapes in {folder}: {error.strerror or error}; choose another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if (drawn := _load(path, count, size)) is None:
        raise OutputError(f"cannot read the shapes just drawn in {path}; check the disk")
    return drawn


def _cache_name(count: int, size: tuple[int, int], seed: int) -> str:
    # Other versions of OpenCV and NumPy may draw other pixels or random numbers.
    settings = (_VERSION, cv2.__version__, np.__version__, PRIMITIVES, count, tuple(size), seed)
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    return f"shapes-{size[0]}x{size[1]}-{count}-seed{seed}-{digest}"


def _draw_range(
    size: tuple[int, int], seed: int, first: int, last: int
) -> tuple[NDArray[np.uint8], list[_Labels]]:
    images = np.empty((last - first, *size), np.uint8)
    labels: list[_Labels] = []
    for i in range(first, last):
        images[i - first], corners = draw_shape(
            PRIMITIVES[i % len(PRIMITIVES)], size, np.random.default_rng([seed, i])
        )
        labels.append(corners)
    return images, labels


def _draw_blocks(
    count: int, size: tuple[int, int], seed: int, processes: int
) -> Iterator[tuple[NDArray[np.uint8], list[_Labels]]]:
    starts = range(0, count, _BLOCK)
    jobs = (
        [size] * len(starts),
        [seed] * len(starts),
        starts,
        [min(start + _BLOCK, count) for start in starts],
    )
    if processes <= 1 or len(starts) == 1:
        yield from map(_draw_range, *jobs)
        return
    # Not fork: a forked process inherits locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_start_drawing) as pool:
        with children_spared():
            drawn = pool.map(_draw_range, *jobs)
        yield from drawn


def _start_drawing() -> None:
    end_with_parent()
    cv2.setNumThreads(1)


def _store(folder: Path, count: int, size: tuple[int, int], seed: int, processes: int) -> None:
    labels: list[_Labels] = []
    # Written, not memory-mapped: with a full disk, writing to a mapped file kills the process.
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *size)}
        np.lib.format.write_array_header_1_0(file, header)
        for block, corners in _draw_blocks(count, size, seed, processes):
            file.write(block.tobytes())
            labels.extend(corners)
            _log.info("drew %d of %d shapes", len(labels), count)
    np.save(folder / "primitives.npy", (np.arange(count) % len(PRIMITIVES)).astype(np.uint8))
    np.save(folder / "corners.npy", np.concatenate(labels))
    np.save(
        folder / "offsets.npy",
        np.concatenate([[0], np.cumsum([len(corners) for corners in labels])]),
    )
    checks = {name: _checksum(folder / f"{name}.npy") for name in _FILES}
    (folder / "checksums.json").write_text(json.dumps(checks, indent=2) + "\n", encoding="utf-8")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def _load(path: Path, count: int, size: tuple[int, int]) -> ShapeDataset | None:
    """Return the cached set, or None if it is missing or damaged."""
    if not path.is_dir():
        return None
    try:
        checks = parse_json((path / "checksums.json").read_text(encoding="utf-8"))
        if any(_checksum(path / f"{name}.npy") != checks[name] for name in _FILES):
            raise ValueError("checksums differ")
        images = np.load(path / "images.npy", mmap_mode="r")
        primitives, corners, offsets = (np.load(path / f"{name}.npy") for name in _FILES[1:])
        if images.shape != (count, *size) or len(offsets) != count + 1:
            raise ValueError(counted(len(images), "image"))
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        _log.warning("cannot use cached shapes %s (%s); drawing them again", path, error)
        return None
    return ShapeDataset(images, primitives, corners, offsets)


def _move(temporary: Path, path: Path, count: int, size: tuple[int, int]) -> None:
    """Move the finished folder into place; another process may be faster."""
    if path.exists() and _load(path, count, size) is None:
        shutil.rmtree(path)
    try:
        temporary.rename(path)
    except OSError:
        if not path.is_dir():
            raise
