"""Fit cameras to views of a board: intrinsics, distortion, the pose of a right camera.

Source: Zhang, A flexible new technique for camera calibration, PAMI 2000, as in OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from spslam.calibrate.boards import LEAST_CORNERS, BoardView
from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform
from spslam.lens import DistortionModel
from spslam.notices import counted
from spslam.typing import BoolArray, FloatArray, IntArray

# Lens models to choose from: none, radtan with 4, 5 or 8 coefficients, or equidistant.
LENSES = ("auto", "none", "radtan", "radtan5", "radtan8", "equidistant")
# Minimum number of views.
LEAST_VIEWS = 4
# A view is dropped if its error exceeds this times the median of all, and this many pixels.
_OUTLIER, _OUTLIER_PX = 3.0, 0.5
# Rounds of dropping views.
_ROUNDS = 4
# `auto` takes a lens with more coefficients only if the error falls by this fraction.
_WORTH_A_COEFFICIENT = 0.03
_STILL = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-9)
_FLAGS = {
    "none": cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2 | cv2.CALIB_FIX_K3,
    "radtan": cv2.CALIB_FIX_K3,
    "radtan5": 0,
    "radtan8": cv2.CALIB_RATIONAL_MODEL,
}
# Focal lengths of a fisheye lens to begin with, fractions of the larger side of the image.
_FISHEYE_FOCALS = (0.25, 0.33, 0.45, 0.6, 0.9)
LENS_MODELS: dict[str, DistortionModel] = {"none": "none", "equidistant": "equidistant"}
_COUNTS = {"none": 0, "radtan": 4, "radtan5": 5, "radtan8": 8}

# A camera, the poses of the board (V, 6) as rotation vector and translation, and the standard
# deviations of fx fy cx cy and the coefficients.
_Solution = tuple[Camera, FloatArray, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class BoardFit:
    """A camera, fitted to views of a board.

    Attributes:
        camera: the camera, with distortion.
        lens: one of `LENSES`.
        deviations: standard deviations of fx fy cx cy and the coefficients; NaN if unknown.
        used: (V,) bool, the views that were used.
        rms_px: root mean square error of the corners of used views, pixels.
        errors_px: (V,) root mean square error of each view, pixels; NaN if not used.
        T_camera_board: V poses (4, 4), board to camera coordinates, metres; NaN if not used.
        residuals: per view, (N, 2) pixels, projected minus found; empty if not used.
    """

    camera: Camera
    lens: str
    deviations: tuple[float, ...]
    used: BoolArray
    rms_px: float
    errors_px: FloatArray
    T_camera_board: FloatArray
    residuals: list[FloatArray]


@dataclass(frozen=True, eq=False)
class PairFit:
    """The pose of a right camera.

    Attributes:
        T_left_right: (4, 4), maps right-camera to left-camera coordinates, metres.
        rms_px: root mean square distance of the corners from the rows of their partners in the
            rectified pair, pixels.
        views: number of views of both cameras.
    """

    T_left_right: FloatArray
    rms_px: float
    views: int


def fit_camera(views: Sequence[BoardView], size: tuple[int, int], lens: str = "auto") -> BoardFit:
    """Fit a camera to views, without those that do not fit.

    Args:
        views: V views of one board.
        size: width and height of the images, pixels.
        lens: one of `LENSES`. `auto` takes the radtan lens with the fewest coefficients that fits
            about as well as the next one.

    Raises:
        CalibrationError: there are too few views, or no camera fits them.
    """
    if len(views) < LEAST_VIEWS:
        raise CalibrationError(
            f"expected at least {LEAST_VIEWS} images with the board, found {len(views)}: "
            "take 15 to 40, from near and far, tilted, and in every corner of the image"
        )
    if lens != "auto":
        return _without_outliers(views, size, lens)
    best = _without_outliers(views, size, "radtan")
    for more in ("radtan5", "radtan8"):
        try:
            fit = _fit(views, size, more, best.used)
        except CalibrationError:
            break
        if fit.rms_px > (1 - _WORTH_A_COEFFICIENT) * best.rms_px:
            break
        best = fit
    return best


def fit_pair(
    left: BoardFit, right: BoardFit, views: Sequence[tuple[BoardView, BoardView]]
) -> PairFit:
    """Find the pose of the right camera from views of both cameras at the same time.

    Args:
        left: the left camera.
        right: the right camera.
        views: the same board, seen by left and right at once.

    Raises:
        CalibrationError: too few views have corners that both cameras see.
    """
    both = [pair for pair in (_common(*pair) for pair in views) if pair is not None]
    if len(both) < LEAST_VIEWS:
        raise CalibrationError(
            f"expected at least {LEAST_VIEWS} pairs of images with the same corners of the board, "
            f"found {len(both)}"
        )
    poses = np.array([_relative(left.camera, right.camera, *pair) for pair in both])
    T = _refined(left.camera, right.camera, both, _middle(poses))
    return PairFit(inverse(T), _row_error(left.camera, right.camera, both, T), len(both))


def _without_outliers(views: Sequence[BoardView], size: tuple[int, int], lens: str) -> BoardFit:
    used = np.ones(len(views), dtype=bool)
    for _ in range(_ROUNDS):
        fit = _fit(views, size, lens, used)
        limit = max(_OUTLIER * float(np.nanmedian(fit.errors_px)), _OUTLIER_PX)
        keep = used & (np.nan_to_num(fit.errors_px, nan=np.inf) <= limit)
        if keep.sum() == used.sum() or keep.sum() < LEAST_VIEWS:
            break
        used = keep
    return fit


def _fit(views: Sequence[BoardView], size: tuple[int, int], lens: str, used: BoolArray) -> BoardFit:
    chosen = [view for view, keep in zip(views, used, strict=True) if keep]
    try:
        camera, vectors, deviations = (
            _solve_fisheye(chosen, size) if lens == "equidistant" else _solve(chosen, size, lens)
        )
    except cv2.error as error:
        reason = " ".join((error.err or error.msg or "").split())
        raise CalibrationError(
            f"no camera of the lens {lens} fits {counted(len(chosen), 'view')} ({reason})"
        ) from None
    return _described(camera, lens, deviations, views, used, vectors)


def _described(
    camera: Camera,
    lens: str,
    deviations: tuple[float, ...],
    views: Sequence[BoardView],
    used: BoolArray,
    vectors: FloatArray,
) -> BoardFit:
    poses = np.full((len(views), 4, 4), np.nan)
    errors = np.full(len(views), np.nan)
    residuals = [np.zeros((0, 2)) for _ in views]
    for row, vector in zip(np.flatnonzero(used).tolist(), vectors, strict=True):
        poses[row] = _transform(vector)
        residuals[row] = _misses(camera, poses[row], views[row])
        errors[row] = _rms(residuals[row])
    rms = _rms(np.concatenate(residuals))
    return BoardFit(camera, lens, deviations, used, rms, errors, poses, residuals)


def _rms(misses: FloatArray) -> float:
    """Root mean square length of vectors (N, 2)."""
    return float(np.sqrt(np.mean(np.sum(misses**2, axis=1))))


def _camera(size: tuple[int, int], lens: str, values: Sequence[float] | FloatArray) -> Camera:
    """Make a camera of fx fy cx cy and the coefficients of its lens."""
    fx, fy, cx, cy, *coefficients = (float(value) for value in values)
    model: DistortionModel = "radtan" if lens.startswith("radtan") else LENS_MODELS[lens]
    return Camera(*size, fx, fy, cx, cy, model, tuple(coefficients))


def _refined_camera(
    camera: Camera, lens: str, views: Sequence[BoardView], vectors: FloatArray
) -> _Solution:
    """Refine a camera and the poses of the board together."""
    from scipy.optimize import least_squares

    size = (camera.width, camera.height)
    own = np.array([camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion])
    count = len(own)

    def misses(values: FloatArray) -> FloatArray:
        moved = _camera(size, lens, values[:count])
        poses = values[count:].reshape(-1, 6)
        parts = [
            _misses(moved, _transform(vector), view)
            for vector, view in zip(poses, views, strict=True)
        ]
        return np.nan_to_num(np.concatenate(parts).ravel(), nan=100.0)

    rows = [2 * len(view) for view in views]
    solved = least_squares(
        misses,
        np.concatenate([own, vectors.ravel()]),
        jac_sparsity=_sparsity(rows, count, np.arange(len(views)), np.ones(len(views), bool)),
        x_scale="jac",
    )
    J = solved.jac.toarray()
    variance = 2 * solved.cost / max(len(J) - J.shape[1], 1)
    spread = np.sqrt(variance * np.diag(np.linalg.pinv(J.T @ J))[:count])
    refined = _camera(size, lens, solved.x[:count])
    return refined, solved.x[count:].reshape(-1, 6), tuple(float(value) for value in spread)


def _solve(views: Sequence[BoardView], size: tuple[int, int], lens: str) -> _Solution:
    points = [view.points.astype(np.float32) for view in views]
    pixels = [view.pixels.astype(np.float32)[:, None] for view in views]
    # OpenCV finds the first camera matrix itself; the stubs do not know None.
    unknown: Any = None
    _, K, bent, rotations, shifts, spread, *_ = cv2.calibrateCameraExtended(
        points, pixels, size, unknown, unknown, flags=_FLAGS[lens], criteria=_STILL
    )
    K = np.asarray(K)
    count = _COUNTS[lens]
    coefficients = np.ravel(bent)[:count]
    values = [K[0, 0], K[1, 1], K[0, 2], K[1, 2], *coefficients]
    if not (np.isfinite(values).all() and min(values[:2]) > 0):
        raise CalibrationError(
            f"the views do not determine a camera of the lens {lens}: tilt the board by 20 to 45 "
            "degrees, to all sides"
        )
    vectors = np.array(
        [
            np.concatenate([np.ravel(rotation), np.ravel(shift)])
            for rotation, shift in zip(rotations, shifts, strict=True)
        ]
    )
    deviations = tuple(float(value) for value in np.ravel(spread)[: 4 + count])
    return _camera(size, lens, values), vectors, deviations


def _solve_fisheye(views: Sequence[BoardView], size: tuple[int, int]) -> _Solution:
    """Fit an equidistant lens: the best of some focal lengths, then all numbers together.

    OpenCV's fisheye functions give no deviations, and treat rays as lines.
    """
    middle = [(side - 1) / 2 for side in size]
    best: tuple[float, Camera, FloatArray] | None = None
    for fraction in _FISHEYE_FOCALS:
        focal = fraction * max(size)
        camera = _camera(size, "equidistant", [focal, focal, *middle, 0.0, 0.0, 0.0, 0.0])
        poses = [_pose(camera, view) for view in views]
        misses = [
            np.nan_to_num(_misses(camera, pose, view), nan=1e3)
            for pose, view in zip(poses, views, strict=True)
        ]
        rms = _rms(np.concatenate(misses))
        if best is None or rms < best[0]:
            best = rms, camera, np.array([_vector(pose) for pose in poses])
    assert best is not None
    return _refined_camera(best[1], "equidistant", views, best[2])


def _misses(camera: Camera, T_camera_board: FloatArray, view: BoardView) -> FloatArray:
    """Projected minus found corners (N, 2), pixels."""
    points = view.points @ T_camera_board[:3, :3].T + T_camera_board[:3, 3]
    return camera.lens_pixels(points) - view.pixels


def _common(left: BoardView, right: BoardView) -> tuple[BoardView, BoardView] | None:
    _, in_left, in_right = np.intersect1d(left.ids, right.ids, return_indices=True)
    if len(in_left) < LEAST_CORNERS:
        return None
    return tuple(  # type: ignore[return-value]
        BoardView(view.ids[rows], view.points[rows], view.pixels[rows])
        for view, rows in ((left, in_left), (right, in_right))
    )


def _pose(camera: Camera, view: BoardView) -> FloatArray:
    """Pose (4, 4) of the board in a camera."""
    straight = camera.undistort(view.pixels)
    known = np.isfinite(straight).all(axis=1)
    _, rotation, shift = cv2.solvePnP(
        view.points[known], straight[known], camera.K, None, flags=cv2.SOLVEPNP_IPPE
    )
    rotation, shift = cv2.solvePnPRefineLM(
        view.points[known], straight[known], camera.K, None, rotation, shift
    )
    return make_transform(
        np.asarray(cv2.Rodrigues(rotation)[0], np.float64), np.asarray(shift, np.float64).ravel()
    )


def _relative(left: Camera, right: Camera, in_left: BoardView, in_right: BoardView) -> FloatArray:
    """Return `T_right_left` (4, 4) of one pair of views."""
    return _pose(right, in_right) @ inverse(_pose(left, in_left))


def _middle(poses: FloatArray) -> FloatArray:
    """The pose among (N, 4, 4) that is nearest to the others, by its translation and rotation."""
    flat = poses[:, :3].reshape(len(poses), -1)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=-1).sum(axis=1)
    return np.asarray(poses[int(np.argmin(apart))])


def _refined(
    left: Camera, right: Camera, views: Sequence[tuple[BoardView, BoardView]], T: FloatArray
) -> FloatArray:
    """Refine `T_right_left` with all corners; each view keeps a board pose of its own."""
    from scipy.optimize import least_squares

    boards = np.array([_pose(left, pair[0]) for pair in views])
    begin = np.concatenate([_vector(T)[None], [_vector(board) for board in boards]])

    def misses(values: FloatArray) -> FloatArray:
        vectors = values.reshape(-1, 6)
        T_right_left = _transform(vectors[0])
        parts = []
        for vector, (in_left, in_right) in zip(vectors[1:], views, strict=True):
            board = _transform(vector)
            parts += [_misses(left, board, in_left), _misses(right, T_right_left @ board, in_right)]
        return np.nan_to_num(np.concatenate(parts).ravel(), nan=100.0)

    rows = [2 * len(side) for pair in views for side in pair]
    owners, right_rows = np.repeat(np.arange(len(views)), 2), np.tile([False, True], len(views))
    solved = least_squares(
        misses,
        begin.ravel(),
        jac_sparsity=_sparsity(rows, 6, owners, right_rows),
        loss="huber",
        x_scale="jac",
    )
    return _transform(solved.x[:6])


def _sparsity(rows: Sequence[int], shared: int, owners: IntArray, on_shared: BoolArray) -> Any:
    """Which residuals depend on which numbers: the shared ones, then six of each board pose.

    Args:
        rows: number of residuals of each of P parts.
        shared: number of shared numbers.
        owners: (P,) which pose each part depends on.
        on_shared: (P,) whether each part depends on the shared numbers.
    """
    from scipy.sparse import lil_matrix

    pattern = lil_matrix((sum(rows), shared + 6 * (int(owners.max()) + 1)), dtype=np.int8)
    begin = 0
    for count, owner, shares in zip(rows, owners, on_shared, strict=True):
        pattern[begin : begin + count, shared + 6 * owner : shared + 6 * owner + 6] = 1
        if shares:
            pattern[begin : begin + count, :shared] = 1
        begin += count
    return pattern


def _vector(T: FloatArray) -> FloatArray:
    return np.concatenate([np.asarray(cv2.Rodrigues(T[:3, :3])[0], np.float64).ravel(), T[:3, 3]])


def _transform(vector: FloatArray) -> FloatArray:
    return make_transform(np.asarray(cv2.Rodrigues(vector[:3])[0], np.float64), vector[3:])


def _row_error(
    left: Camera, right: Camera, views: Sequence[tuple[BoardView, BoardView]], T: FloatArray
) -> float:
    """Root mean square distance, pixels, of right corners from the epipolar line of their left."""
    x, y, z = T[:3, 3]
    E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3]
    misses = []
    for in_left, in_right in views:
        rays_left, rays_right = left.lens_rays(in_left.pixels), right.lens_rays(in_right.pixels)
        lines = rays_left @ E.T
        lines /= np.linalg.norm(lines, axis=1, keepdims=True)
        misses.append(np.arcsin(np.clip(np.sum(lines * rays_right, axis=1), -1, 1)) * right.fx)
    every = np.concatenate(misses)
    return float(np.sqrt(np.nanmean(every**2)))
