"""Calibrate a camera or a stereo pair from pictures of a board."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from spslam.calibrate.board_fit import BoardFit, PairFit, fit_camera, fit_pair
from spslam.calibrate.board_views import MOST_VIEWS, choose_views, missing_views
from spslam.calibrate.boards import Board, BoardView
from spslam.callbacks import ignore
from spslam.errors import CalibrationError, DatasetError
from spslam.notices import counted, notice
from spslam.typing import UInt8Array

logger = logging.getLogger(__name__)

# Maximum root mean square error, pixels, of a calibration without a doubt.
_GOOD_PX = 1.0
# A baseline outside of this range, metres, is doubted: the unit of --square is probably wrong.
_BASELINES_M = (0.005, 5.0)

Picture = tuple[str, UInt8Array]


@dataclass(frozen=True, eq=False)
class FoundViews:
    """The board in the images of one camera.

    Attributes:
        size: width and height of the images, pixels.
        names: names of the images with the board.
        views: the board in each of them.
        images: number of images that were searched.
    """

    size: tuple[int, int]
    names: list[str]
    views: list[BoardView]
    images: int

    def select(self, rows: Iterable[int]) -> FoundViews:
        """The views at `rows`."""
        rows = list(rows)
        return FoundViews(
            self.size, [self.names[i] for i in rows], [self.views[i] for i in rows], self.images
        )


@dataclass(frozen=True, eq=False)
class BoardCalibration:
    """A calibrated camera or pair.

    Attributes:
        left: of the only or left camera.
        right: of the right camera, or None.
        pair: pose of the right camera, or None.
        views: the views of each camera, in the order of `left` and `right`.
        missing: what further images would help, one line each.
        doubts: why the result should not be trusted, one line each.
    """

    left: BoardFit
    right: BoardFit | None
    pair: PairFit | None
    views: tuple[FoundViews, ...]
    missing: list[str]
    doubts: list[str]


def calibrate_board(
    board: Board,
    left: Iterable[Picture],
    right: Iterable[Picture] | None = None,
    lens: str = "auto",
    on_image: Callable[[int], None] = ignore,
) -> BoardCalibration:
    """Calibrate a camera from pictures of a board, or a pair from pictures taken at once.

    Args:
        board: the board.
        left: names and grey images (H, W) of the only or left camera.
        right: the same of the right camera; images of one name were taken at once.
        lens: one of `board_fit.LENSES`.
        on_image: called with the number of images searched until now.

    Raises:
        CalibrationError: the board is found too rarely, or no camera fits.
        DatasetError: the images of a camera have several sizes.
    """
    found = find_views(board, left, on_image)
    if right is None:
        found = found.select(choose_views(found.views, found.size))
        fit = _fit(found, lens, "")
        return BoardCalibration(
            fit, None, None, (found,), missing_views(fit, found.views), _doubts(fit)
        )
    return _calibrate_pair(board, found, find_views(board, right, on_image), lens)


def find_views(
    board: Board, images: Iterable[Picture], on_image: Callable[[int], None] = ignore
) -> FoundViews:
    """Find a board in images of one size.

    Args:
        board: the board.
        images: names and grey images (H, W).
        on_image: called with the number of images searched until now.

    Raises:
        DatasetError: the images have several sizes.
        CalibrationError: the board is in none of them.
    """
    size, names, views, count = None, list[str](), list[BoardView](), 0
    for name, image in images:
        here = (image.shape[1], image.shape[0])
        if size is not None and here != size:
            raise DatasetError(
                f"{name} has {here[0]}x{here[1]} pixels, the images before {size[0]}x{size[1]}: "
                "give the images of one camera"
            )
        size, count = here, count + 1
        view = board.find(image)
        if view is not None:
            names.append(name)
            views.append(view)
        on_image(count)
    if size is None or not views:
        raise CalibrationError(
            f"the {board.describe()} is in none of {counted(count, 'image')}: check its kind, "
            "--size and --dictionary, and that all of a checkerboard is in the image"
        )
    return FoundViews(size, names, views, count)


def _fit(found: FoundViews, lens: str, side: str) -> BoardFit:
    fit = fit_camera(found.views, found.size, lens)
    dropped = [name for name, keep in zip(found.names, fit.used, strict=True) if not keep]
    if dropped:
        text = "%s%s: %s"
        what = counted(
            len(dropped),
            "image that does not fit the others is left out",
            "images that do not fit the others are left out",
        )
        notice(logger, "board_outliers", text, side, what, ", ".join(dropped[:5]))
    return fit


def _calibrate_pair(
    board: Board, left: FoundViews, right: FoundViews, lens: str
) -> BoardCalibration:
    if board.symmetric:
        notice(
            logger,
            "symmetric_board",
            "the %s looks the same after half a turn: keep it upright in both images of a pair, "
            "or use one with an odd and an even number of corners",
            board.describe(),
        )
    left, right = _chosen_pairs(left, right)
    fits = _fit(left, lens, "left: "), _fit(right, lens, "right: ")
    usable = [
        {
            name: view
            for name, view, keep in zip(found.names, found.views, fit.used, strict=True)
            if keep
        }
        for found, fit in zip((left, right), fits, strict=True)
    ]
    together = [(usable[0][name], usable[1][name]) for name in usable[0] if name in usable[1]]
    pair = fit_pair(*fits, together)
    missing = [
        f"{side}: {line}"
        for side, fit, found in zip(("left", "right"), fits, (left, right), strict=True)
        for line in missing_views(fit, found.views)
    ]
    doubts = [
        f"{side}: {line}"
        for side, fit in zip(("left", "right"), fits, strict=True)
        for line in _doubts(fit)
    ]
    return BoardCalibration(*fits, pair, (left, right), missing, doubts + _pair_doubts(pair))


def _chosen_pairs(left: FoundViews, right: FoundViews) -> tuple[FoundViews, FoundViews]:
    """Choose views of both cameras at once, and further ones of each camera alone."""
    both = [row for row, name in enumerate(left.names) if name in set(right.names)]
    together = left.select(both)
    names = [together.names[row] for row in choose_views(together.views, left.size)]
    chosen = []
    for found in (left, right):
        rows = [found.names.index(name) for name in names]
        alone = found.select(
            [row for row, name in enumerate(found.names) if name not in set(together.names)]
        )
        more = [
            found.names.index(alone.names[row]) for row in choose_views(alone.views, found.size)
        ]
        chosen.append(found.select(rows + more[: max(MOST_VIEWS - len(rows), 0)]))
    return chosen[0], chosen[1]


def _doubts(fit: BoardFit) -> list[str]:
    lines = []
    if fit.rms_px > _GOOD_PX:
        lines.append(
            f"the corners miss the lens {fit.lens} by {fit.rms_px:.2f} px (expected below "
            f"{_GOOD_PX:g}): blurred images, a bent board, or another lens (--lens)"
        )
    spread = np.array(fit.deviations[:2]) / (fit.camera.fx, fit.camera.fy)
    if np.isfinite(spread).all() and spread.max() > 0.01:
        lines.append(
            f"the focal length is known to {100 * spread.max():.1f} % only (expected below 1 %)"
        )
    return lines


def _pair_doubts(pair: PairFit) -> list[str]:
    lines = []
    baseline = float(np.linalg.norm(pair.T_left_right[:3, 3]))
    if not _BASELINES_M[0] <= baseline <= _BASELINES_M[1]:
        lines.append(f"the cameras are {baseline:.4g} m apart: is --square in metres?")
    if pair.rms_px > _GOOD_PX:
        lines.append(
            f"corners of the right images miss the rows of the left ones by {pair.rms_px:.2f} px "
            f"(expected below {_GOOD_PX:g}): were the images of a pair taken at once?"
        )
    if pair.T_left_right[0, 3] < 0:
        lines.append("the right camera stands left of the left one: exchange the two")
    return lines
