"""Choose the views of a board that tell most, and say which views are missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spslam.calibrate.board_fit import BoardFit
from spslam.calibrate.boards import BoardView
from spslam.notices import counted
from spslam.typing import FloatArray, IntArray

# Number of views that are enough; of more, the most different ones are used.
MOST_VIEWS = 60
# Number of views below which more are suggested.
_FEW_VIEWS = 10
# The image is divided into this many columns and rows; each should hold corners.
_CELLS = 3
_CELL_NAMES = (
    ("upper left", "upper middle", "upper right"),
    ("middle left", "centre", "middle right"),
    ("lower left", "lower middle", "lower right"),
)
# Minimum number of corners in a cell.
_LEAST_IN_CELL = 4
# Minimum angle between the board and the image plane, radians, of views that fix the focal length,
# and their minimum number.
_TILT, _LEAST_TILTED = np.radians(15.0), 4
# Minimum ratio of the farthest and the nearest distance of the board.
_LEAST_DEPTH_RATIO = 1.3


def choose_views(views: Sequence[BoardView], size: tuple[int, int]) -> IntArray:
    """Return rows (M,), increasing, of at most 60 views that differ most.

    Views differ by the place, size and slant of the board in the image.

    Args:
        views: N views.
        size: width and height of the images, pixels.
    """
    if len(views) <= MOST_VIEWS:
        return np.arange(len(views))
    shapes = np.array([_shape(view, size) for view in views])
    taken = [int(np.argmax(shapes[:, 2]))]
    nearest = np.linalg.norm(shapes - shapes[taken[0]], axis=1)
    while len(taken) < MOST_VIEWS:
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(shapes - shapes[taken[-1]], axis=1))
    return np.sort(np.array(taken))


def missing_views(fit: BoardFit, views: Sequence[BoardView]) -> list[str]:
    """Say what further images would make the calibration surer, one line each."""
    used = [view for view, keep in zip(views, fit.used, strict=True) if keep]
    lines = []
    if len(used) < _FEW_VIEWS:
        lines.append(f"{counted(len(used), 'view')}: take 15 to 40")
    empty = _empty_cells(used, (fit.camera.width, fit.camera.height))
    if empty:
        lines.append(f"no views in the {', '.join(empty)}: hold the board there, too")
    poses = fit.T_camera_board[fit.used]
    tilts = np.arccos(np.clip(np.abs(poses[:, 2, 2]), 0.0, 1.0))
    if np.count_nonzero(tilts >= _TILT) < _LEAST_TILTED:
        lines.append(
            f"the board is tilted by {np.degrees(tilts.max()):.0f} degrees at most: "
            "tilt it by 20 to 45 degrees, to all sides"
        )
    depths = np.median(_depths(poses, used), axis=-1) if len(used) else np.ones(1)
    if depths.max() < _LEAST_DEPTH_RATIO * depths.min():
        lines.append(
            f"all views are {depths.min():.2g} to {depths.max():.2g} m away: "
            "take some from nearer and some from farther away"
        )
    return lines


def _depths(poses: FloatArray, used: Sequence[BoardView]) -> FloatArray:
    middles = np.array([view.points.mean(axis=0) for view in used])
    depth = np.einsum("nj,nj->n", poses[:, 2, :3], middles) + poses[:, 2, 3]
    return np.asarray(depth[:, None])


def _empty_cells(views: Sequence[BoardView], size: tuple[int, int]) -> list[str]:
    pixels = np.concatenate([view.pixels for view in views])
    cells = np.clip((pixels / size * _CELLS).astype(np.int64), 0, _CELLS - 1)
    counts = np.zeros((_CELLS, _CELLS), dtype=np.int64)
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    return [_CELL_NAMES[row][column] for row, column in np.argwhere(counts < _LEAST_IN_CELL)]


def _shape(view: BoardView, size: tuple[int, int]) -> FloatArray:
    """Place, size and slant of a board in the image: five numbers of about 0 to 1."""
    scaled = view.pixels / max(size)
    middle = scaled.mean(axis=0)
    # The affine map from the board to the image, relative to the board's own extent.
    flat = view.points[:, :2] - view.points[:, :2].mean(axis=0)
    A = np.linalg.lstsq(flat, scaled - middle, rcond=None)[0]
    extent = max(float(np.ptp(view.points[:, :2])), 1e-9)
    (a, b), (c, d) = A
    length = np.hypot(np.hypot(a, b), np.hypot(c, d)) + 1e-12
    stretch = (np.hypot(a, b) - np.hypot(c, d)) / length
    shear = (a * c + b * d) / length**2
    return np.array([*middle, extent * length, stretch, shear])
