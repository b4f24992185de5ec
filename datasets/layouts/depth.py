"""Depth files of data sets: packed floats, text, distances along the ray, other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import FrameError
from spslam.io.given_files import read_given

from ..images.decoding import read_pixels
from ..images.depth_files import DepthReader, DepthUnits
from .schema import Depth

# Largest relative difference of two shapes (width / height) at which depth is of the same view.
_SAME_SHAPE = 0.02


class TableDepthReader(DepthReader):
    """Read the depth files of a sequence as a table describes them.

    Args:
        name: name of the sequence, for notices.
        units: units of the files per metre.
        depth: the entry of the table.
        camera: camera of the images, unrectified.
        depth_camera: camera of depth of another size, in the place of `camera`; None: the whole
            depth image shows what the whole image shows.
    """

    def __init__(
        self,
        name: str,
        units: DepthUnits,
        depth: Depth,
        camera: Camera,
        depth_camera: Camera | None = None,
    ) -> None:
        super().__init__(name, units)
        self._depth, self._camera, self._depth_camera = depth, camera, depth_camera
        self._rays: NDArray[np.float32] | None = None
        self._places: tuple[tuple[int, ...], tuple[NDArray[np.int64], NDArray[np.int64]]] | None
        self._places = None

    def read(self, path: Path) -> NDArray[np.float32]:
        """Read a depth file as (H, W) float32, metres along z, 0 where unknown.

        Raises:
            FrameError: the file is missing, cut short, damaged, holds no depth, or is of another
                shape than the images.
        """
        metres = super().read(path)
        size = (self._camera.height, self._camera.width)
        if metres.shape != size:
            metres = self._resampled(metres, path)
        if self._depth.measured_along == "ray":
            metres = metres / self._ray_lengths()
        if self._depth.farthest_m is not None:
            metres[metres >= self._depth.farthest_m] = 0.0
        return metres

    def _read_raw(self, path: Path) -> NDArray[Any]:
        match self._depth.encoding:
            case "packed_floats":
                raw: NDArray[Any] = _packed_floats(path)
            case "text":
                raw = _text(path, self._camera)
            case _:
                raw = super()._read_raw(path)
        none = np.isin(raw, self._depth.no_measurement)
        return np.where(none, raw.dtype.type(0), raw) if none.any() else raw

    def _ray_lengths(self) -> NDArray[np.float32]:
        """Return (H, W) float32: length of each pixel's ray to depth 1; infinite without a ray."""
        if self._rays is None:
            rows, columns = np.indices((self._camera.height, self._camera.width))
            pixels = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
            points = self._camera.unproject(self._camera.undistort(pixels), np.ones(len(pixels)))
            lengths = np.nan_to_num(np.linalg.norm(points, axis=1), nan=np.inf)
            self._rays = lengths.reshape(rows.shape).astype(np.float32)
        return self._rays

    def _resampled(self, metres: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
        """Take the nearest depth of each pixel of the image, because means mix two surfaces."""
        if self._places is None or self._places[0] != metres.shape:
            self._places = (metres.shape, self._nearest(metres.shape, path))
            height, width = metres.shape
            text = "depth of %dx%d pixels is resampled to the %dx%d of the images (nearest%s)"
            of = "" if self._depth_camera is None else ", by the intrinsics of both"
            self._tell(
                "depth_resampled", text, width, height, self._camera.width, self._camera.height, of
            )
        rows, columns = self._places[1]
        out: NDArray[np.float32] = metres[np.maximum(rows, 0), np.maximum(columns, 0)]
        out[(rows < 0) | (columns < 0)] = 0.0
        return out

    def _nearest(
        self, shape: tuple[int, ...], path: Path
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns (H, W) in a depth image for each pixel of the image; -1 outside."""
        camera, own = self._camera, self._depth_camera
        height, width = shape
        if own is not None and (own.width, own.height) != (width, height):
            raise FrameError(
                f"depth image {path.parent.name}/{path.name}: expected {own.width}x{own.height} "
                f"pixels, found {width}x{height}"
            )
        if own is None and abs(width / height * camera.height / camera.width - 1) > _SAME_SHAPE:
            raise FrameError(
                f"depth image {path.parent.name}/{path.name}: expected "
                f"{camera.width}x{camera.height} pixels or this shape, found {width}x{height}: "
                "depth must show what the image shows"
            )
        columns, rows = np.arange(camera.width), np.arange(camera.height)
        if own is None:
            x = (columns + 0.5) * (width / camera.width) - 0.5
            y = (rows + 0.5) * (height / camera.height) - 0.5
        else:
            x = (columns - camera.cx) * (own.fx / camera.fx) + own.cx
            y = (rows - camera.cy) * (own.fy / camera.fy) + own.cy
        inside = [np.rint(places).astype(np.int64) for places in (x, y)]
        for places, size in zip(inside, (width, height), strict=True):
            places[(places < 0) | (places >= size)] = -1
        grid = np.meshgrid(inside[1], inside[0], indexing="ij")
        return grid[0], grid[1]


def _packed_floats(path: Path) -> NDArray[np.float32]:
    """Read 32-bit floats, low byte first, from the four channels of a PNG, blue first."""
    pixels = read_pixels(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4:
        raise FrameError(
            f"depth image {path.parent.name}/{path.name}: expected four channels of 8 bits that "
            f"hold a float, found {pixels.dtype} {pixels.shape}"
        )
    packed = np.ascontiguousarray(pixels).view("<f4")[:, :, 0]
    return packed.astype(np.float32)


def _text(path: Path, camera: Camera) -> NDArray[np.float32]:
    try:
        values = np.array(read_given(path).split(), dtype=np.float32)
    except OSError as error:
        raise FrameError(
            f"{path.name}: cannot be read from {path.parent} ({error.strerror or error})"
        ) from None
    except ValueError:
        values = np.zeros(0, dtype=np.float32)
    count = camera.width * camera.height
    if len(values) != count:
        raise FrameError(
            f"depth file {path.parent.name}/{path.name}: expected {count} numbers "
            f"({camera.width}x{camera.height}), found {len(values)}"
        )
    return values.reshape(camera.height, camera.width)
