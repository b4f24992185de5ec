"""Boards for calibration, and the corners of one in an image: checkerboard, ChArUco, AprilGrid.

A board lies in its plane z = 0, x right and y down in its upright picture, metres.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from spslam.errors import ConfigError
from spslam.typing import FloatArray, UInt8Array

# Minimum number of corners of a view that is used.
LEAST_CORNERS = 8
# Half the side of the window in which a tag's corners are refined, fraction of the gap to the next
# tag, and when the refinement ends.
_WINDOW = 0.6
_SUBPIX = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
# A tag's corners fit the grid if they miss its homography by less than this fraction of its side.
_FITS_GRID = 0.15
# Black border of the tags of Kalibr's AprilGrid, and of others, bits.
_TAG_BORDERS = (2, 1)
# Dictionaries of ArUco markers by name.
DICTIONARIES = tuple(sorted(name for name in dir(cv2.aruco) if name.startswith("DICT_")))


@dataclass(frozen=True, eq=False)
class BoardView:
    """The corners of a board in one image.

    Attributes:
        ids: (N,) int64, number of each corner on the board.
        points: (N, 3) float64, the corners on the board, metres.
        pixels: (N, 2) float64, the corners in the image.
    """

    ids: np.ndarray
    points: FloatArray
    pixels: FloatArray

    def __len__(self) -> int:
        return len(self.ids)


class Board(ABC):
    """A board of known size.

    Attributes:
        columns, rows: its size; what they count is up to the board.
        symmetric: whether the board looks the same after half a turn, so that two views of it may
            count its corners from different ends.
    """

    columns: int
    rows: int
    symmetric: bool = False

    @abstractmethod
    def find(self, image: UInt8Array) -> BoardView | None:
        """Find the board in a grey image (H, W); None with fewer than 8 corners."""

    @property
    @abstractmethod
    def corners(self) -> FloatArray:
        """All corners (N, 3), metres."""

    @abstractmethod
    def describe(self) -> str:
        """Name and size, for messages."""

    def _view(self, ids: np.ndarray, pixels: FloatArray) -> BoardView | None:
        ids = np.asarray(ids, dtype=np.int64).ravel()
        if len(ids) < LEAST_CORNERS:
            return None
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        return BoardView(ids, self.corners[ids], pixels)


@dataclass(frozen=True)
class Checkerboard(Board):
    """A checkerboard of `columns` x `rows` inner corners, with squares of `square_m` metres.

    The whole board must be in the image.
    """

    columns: int
    rows: int
    square_m: float

    def __post_init__(self) -> None:
        _check_size(self.columns, self.rows, 3, "inner corners")

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether half a turn maps the board onto itself: with two odd or two even numbers."""
        return (self.columns - self.rows) % 2 == 0

    @cached_property
    def corners(self) -> FloatArray:
        """All inner corners (N, 3), metres."""
        return _grid(self.columns, self.rows, self.square_m)

    def find(self, image: UInt8Array) -> BoardView | None:
        """Find the board in a grey image (H, W); None if it is not wholly seen."""
        found, pixels = cv2.findChessboardCornersSB(
            image,
            (self.columns, self.rows),
            flags=cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY,
        )
        if not found:
            return None
        return self._view(np.arange(len(self.corners)), np.asarray(pixels, np.float64))

    def describe(self) -> str:
        """Name and size, for messages."""
        return f"checkerboard of {self.columns}x{self.rows} inner corners"


@dataclass(frozen=True)
class CharucoBoard(Board):
    """A ChArUco board of `columns` x `rows` squares; any part of it may be seen.

    Attributes:
        square_m, marker_m: sides of the squares and of the markers, metres.
        dictionary: name of OpenCV's dictionary, for example `DICT_5X5_100`.
        legacy: whether the board was drawn by OpenCV before 4.6 with an even number of rows.
    """

    columns: int
    rows: int
    square_m: float
    marker_m: float
    dictionary: str = "DICT_5X5_100"
    legacy: bool = False

    def __post_init__(self) -> None:
        _check_size(self.columns, self.rows, 3, "squares")
        if not 0 < self.marker_m < self.square_m:
            raise ConfigError(
                f"--marker must be less than --square ({self.square_m:g} m), "
                f"found {self.marker_m:g} m"
            )

    @cached_property
    def corners(self) -> FloatArray:
        """All inner corners (N, 3), metres."""
        return _grid(self.columns - 1, self.rows - 1, self.square_m)

    def find(self, image: UInt8Array) -> BoardView | None:
        """Find the board in a grey image (H, W); None with fewer than 8 corners."""
        pixels, ids, *_ = self._detector.detectBoard(image)
        return None if ids is None else self._view(ids, np.asarray(pixels, np.float64))

    def describe(self) -> str:
        """Name and size, for messages."""
        return f"ChArUco board of {self.columns}x{self.rows} squares, {self.dictionary}"

    @cached_property
    def _detector(self) -> Any:
        board = cv2.aruco.CharucoBoard(
            (self.columns, self.rows), self.square_m, self.marker_m, _dictionary(self.dictionary)
        )
        board.setLegacyPattern(self.legacy)
        return cv2.aruco.CharucoDetector(board)


@dataclass(frozen=True)
class AprilGrid(Board):
    """Kalibr's grid of `columns` x `rows` AprilTags 36h11; any part of it may be seen.

    Attributes:
        tag_m: side of a tag, metres.
        spacing: gap between tags as a fraction of `tag_m`.
    """

    columns: int
    rows: int
    tag_m: float
    spacing: float = 0.3

    def __post_init__(self) -> None:
        _check_size(self.columns, self.rows, 2, "tags")
        if not 0 < self.spacing < 10:
            raise ConfigError(f"--spacing must be 0 to 10 tags, found {self.spacing:g}")

    @cached_property
    def corners(self) -> FloatArray:
        """Corners (4 N, 3), metres: of each tag clockwise from the top left, tags by number."""
        column, row = (
            axis.ravel() for axis in np.meshgrid(np.arange(self.columns), np.arange(self.rows))
        )
        step = self.tag_m * (1 + self.spacing)
        # Kalibr counts from the lower left; y points down here.
        origin = np.stack([column * step, (self.rows - 1 - row) * step], axis=-1)
        tag = self.tag_m * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        flat = (origin[:, None] + tag).reshape(-1, 2)
        return np.concatenate([flat, np.zeros((len(flat), 1))], axis=1)

    def find(self, image: UInt8Array) -> BoardView | None:
        """Find the grid in a grey image (H, W); None with fewer than 8 corners."""
        for detector in self._detectors:
            corners, ids, _ = detector.detectMarkers(image)
            if ids is None:
                continue
            numbers = np.asarray(ids).ravel()
            known = numbers < self.columns * self.rows
            if 4 * np.count_nonzero(known) >= LEAST_CORNERS:
                found = np.asarray(corners, np.float64).reshape(-1, 4, 2)[known]
                return self._turned(image, numbers[known], found)
        return None

    def _turned(
        self, image: UInt8Array, numbers: np.ndarray, found: FloatArray
    ) -> BoardView | None:
        """Find the corner at which the tags begin, by the grid that they form.

        Printed tags begin at another corner than OpenCV's, depending on who drew them.
        """
        ids = 4 * numbers[:, None] + np.arange(4)
        flat = self.corners[ids][..., :2]
        best: tuple[float, FloatArray] | None = None
        for turn in range(4):
            pixels = np.roll(found, turn, axis=1)
            H, _ = cv2.findHomography(flat.reshape(-1, 2), pixels.reshape(-1, 2), cv2.RANSAC, 8.0)
            if H is None:
                continue
            seen = cv2.perspectiveTransform(flat.reshape(-1, 1, 2), H).reshape(-1, 4, 2)
            side = np.linalg.norm(np.diff(pixels[:, [0, 1, 2, 3, 0]], axis=1), axis=-1).mean()
            miss = float(np.median(np.linalg.norm(seen - pixels, axis=-1)) / side)
            if best is None or miss < best[0]:
                best = miss, pixels
        if best is None or best[0] > _FITS_GRID:
            return None
        return self._view(ids, self._sharpened(image, best[1]))

    def _sharpened(self, image: UInt8Array, pixels: FloatArray) -> FloatArray:
        """Refine the corners (N, 4, 2) of tags, which small squares turn into crossings."""
        side = np.linalg.norm(np.diff(pixels[:, [0, 1, 2, 3, 0]], axis=1), axis=-1).min(axis=1)
        # The window must not reach the next crossing, at the other end of the gap or of a bit.
        reach = np.clip((_WINDOW * min(self.spacing, 0.2) * side).astype(np.int64), 2, 8)
        refined = pixels.astype(np.float32)
        for window in np.unique(reach):
            rows = reach == window
            corners = np.ascontiguousarray(refined[rows].reshape(-1, 1, 2))
            found = cv2.cornerSubPix(image, corners, (int(window),) * 2, (-1, -1), _SUBPIX)
            refined[rows] = np.asarray(found).reshape(-1, 4, 2)
        return refined.astype(np.float64)

    def describe(self) -> str:
        """Name and size, for messages."""
        return f"AprilGrid of {self.columns}x{self.rows} tags 36h11"

    @cached_property
    def _detectors(self) -> tuple[Any, ...]:
        return tuple(_tag_detector(border) for border in _TAG_BORDERS)


def _tag_detector(border: int) -> Any:
    settings = cv2.aruco.DetectorParameters()
    settings.markerBorderBits = border
    settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_NONE
    return cv2.aruco.ArucoDetector(_dictionary("DICT_APRILTAG_36h11"), settings)


def _dictionary(name: str) -> Any:
    if name not in DICTIONARIES:
        raise ConfigError(
            f"--dictionary must be one of OpenCV's ({', '.join(DICTIONARIES)}), found {name!r}"
        )
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


def _check_size(columns: int, rows: int, least: int, what: str) -> None:
    if min(columns, rows) < least or max(columns, rows) > 100:
        raise ConfigError(f"--size must be {least} to 100 {what} a side, found {columns}x{rows}")


def _grid(columns: int, rows: int, side: float) -> FloatArray:
    x, y = np.meshgrid(np.arange(1, columns + 1) * side, np.arange(1, rows + 1) * side)
    return np.stack([x.ravel(), y.ravel(), np.zeros(columns * rows)], axis=1)
