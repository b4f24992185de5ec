"""The size of AprilTags and ArUco markers in the units of a map, for `--scale tag=METRES`.

The corners of each tag are triangulated from the keyframes that see them. The sides of a square
tag are equal; the metres of one of them over its map units are the scale.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from spslam.frame import Frame
from spslam.geometry import inverse
from spslam.typing import FloatArray, UInt8Array

# Dictionaries in which tags are searched, by OpenCV's names: the common ones with few mistakes.
# Of each size of ArUco markers the largest dictionary holds the smaller ones.
TAG_DICTIONARIES = (
    "DICT_APRILTAG_36h11",
    "DICT_4X4_1000",
    "DICT_5X5_1000",
    "DICT_6X6_1000",
    "DICT_7X7_1000",
    "DICT_ARUCO_ORIGINAL",
    "DICT_APRILTAG_25h9",
)
# Minimum number of keyframes that see a tag, and minimum angle between two of its rays, radians.
_LEAST_VIEWS, _LEAST_PARALLAX = 3, np.radians(2.0)
# Number of keyframes with one tag after which only tags of its dictionary are searched.
_SURE_VIEWS = 3
# Minimum side of a tag in the image, pixels.
_LEAST_SIDE_PX = 12.0
# Maximum distance of a corner from its projection, pixels, and rounds of dropping views.
_MOST_MISS_PX, _ROUNDS = 3.0, 4
# Maximum difference of the sides of a tag, fraction of their mean.
_MOST_UNEQUAL = 0.1


@dataclass(frozen=True, eq=False)
class TagSides:
    """Sides of tags in a map.

    Attributes:
        sides: (N,) float64, mean side of each measured tag, map units.
        names: N names, for example `36h11 number 4`.
        seen: number of tags that were seen at all, in any submap.
    """

    sides: FloatArray
    names: list[str]
    seen: int

    @property
    def median(self) -> float:
        """Median side, map units."""
        return float(np.median(self.sides))

    @property
    def spread(self) -> float:
        """Half of the difference between the largest and the smallest side, fraction."""
        return float(np.ptp(self.sides) / 2 / self.median)


class TagSightings:
    """The tags in the keyframes of a run: a viewer (see `spslam.visualization.viewer.Viewer`).

    Args:
        dictionary: OpenCV's name of the dictionary of the tags; None: one of `TAG_DICTIONARIES`.
    """

    def __init__(self, dictionary: str | None = None) -> None:
        # By frame: the name of each tag, and its undistorted corners (4, 2), pixels.
        self._seen: dict[int, list[tuple[str, FloatArray]]] = {}
        self._names = list(TAG_DICTIONARIES) if dictionary is None else [dictionary]
        self._counts: Counter[str] = Counter()
        self._K: FloatArray | None = None

    def update(self, slam: Any, frame: Frame, result: Any) -> None:
        """Look for tags in a frame that became a keyframe."""
        if not result.is_keyframe:
            return
        self._K = frame.camera.K
        found = []
        for name, corners in find_tags(frame.image, self._names):
            straight = frame.camera.undistort(corners)
            if np.isfinite(straight).all():
                found.append((name, straight))
        self._seen[frame.index] = found
        self._counts.update(name for name, _ in found)
        if len(self._names) > 1 and self._counts:
            name, count = self._counts.most_common(1)[0]
            if count >= _SURE_VIEWS:
                # The tags of one place are of one kind: later searches take less time.
                self._names = [kind for kind in self._names if name.startswith(f"{_short(kind)} ")]

    def close(self) -> None:
        """Do nothing: the sightings are kept."""

    def measure(self, T_world_cam: dict[int, FloatArray]) -> TagSides:
        """Measure the sides of the tags.

        Args:
            T_world_cam: pose (4, 4) of each keyframe of one submap, by its frame.
        """
        views: dict[str, list[tuple[FloatArray, FloatArray]]] = defaultdict(list)
        for frame, tags in self._seen.items():
            for name, corners in tags:
                if frame in T_world_cam:
                    views[name].append((T_world_cam[frame], corners))
        sides = {}
        for name, seen in views.items():
            side = tag_side(np.array([T for T, _ in seen]), np.array([c for _, c in seen]), self._K)
            if side is not None:
                sides[name] = side
        return TagSides(np.array([*sides.values()]), [*sides], len(self._counts))


def find_tags(image: UInt8Array, names: list[str]) -> list[tuple[str, FloatArray]]:
    """Find tags in a grey image (H, W).

    Args:
        image: the image.
        names: OpenCV's names of the dictionaries to search in.

    Returns:
        Name of each tag, and its corners (4, 2), pixels.
    """
    found = []
    for name in names:
        settings = cv2.aruco.DetectorParameters()
        settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
        corners, ids, _ = cv2.aruco.ArucoDetector(dictionary, settings).detectMarkers(image)
        if ids is None:
            continue
        for number, square in zip(np.ravel(ids).tolist(), corners, strict=True):
            pixels = np.asarray(square, dtype=np.float64).reshape(4, 2)
            if _sides(pixels).min() >= _LEAST_SIDE_PX:
                found.append((f"{_short(name)} number {number}", pixels))
    return found


def tag_side(T_world_cam: FloatArray, corners: FloatArray, K: FloatArray | None) -> float | None:
    """Measure the mean side of a tag, map units; None if it is not sure.

    Args:
        T_world_cam: (N, 4, 4) poses of the cameras that see it.
        corners: (N, 4, 2) undistorted corners, pixels.
        K: camera matrix (3, 3).
    """
    if K is None:
        return None
    used = np.ones(len(corners), dtype=bool)
    for _ in range(_ROUNDS):
        if used.sum() < _LEAST_VIEWS:
            return None
        points = _triangulated(T_world_cam[used], corners[used], K)
        misses = np.full(len(corners), np.inf)
        misses[used] = _misses(T_world_cam[used], corners[used], points, K)
        bad = used & ~(misses <= _MOST_MISS_PX)
        if not bad.any():
            break
        # A second tag of the same number elsewhere, or a wrong pose: drop the worst view.
        used[int(np.argmax(np.where(used, misses, -1)))] = False
    else:
        return None
    if _parallax(T_world_cam[used], points.mean(axis=0)) < _LEAST_PARALLAX:
        return None
    sides = _sides(points)
    mean = float(sides.mean())
    return mean if np.ptp(sides) <= _MOST_UNEQUAL * mean else None


def _short(name: str) -> str:
    return name.removeprefix("DICT_").removeprefix("APRILTAG_")


def _sides(square: FloatArray) -> FloatArray:
    """Lengths (4,) of the sides of a square, corners (4, D)."""
    return np.asarray(np.linalg.norm(square - np.roll(square, 1, axis=0), axis=1))


def _triangulated(T_world_cam: FloatArray, corners: FloatArray, K: FloatArray) -> FloatArray:
    """Triangulate corners (N, 4, 2) linearly from N cameras: (4, 3), map units."""
    P = K @ inverse(T_world_cam)[:, :3]
    rows = corners[..., None] * P[:, None, None, 2] - P[:, None, :2]
    points = []
    for corner in range(4):
        A = rows[:, corner].reshape(-1, 4)
        solved = np.linalg.lstsq(A[:, :3], -A[:, 3], rcond=None)[0]
        points.append(solved)
    return np.array(points)


def _misses(
    T_world_cam: FloatArray, corners: FloatArray, points: FloatArray, K: FloatArray
) -> FloatArray:
    """Largest distance (N,), pixels, of the corners in each view; infinite behind the camera."""
    T_cam_world = inverse(T_world_cam)
    seen = np.einsum("nij,cj->nci", T_cam_world[:, :3, :3], points) + T_cam_world[:, None, :3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (seen @ K.T)[..., :2] / seen[..., 2:]
    misses = np.linalg.norm(pixels - corners, axis=2).max(axis=1)
    return np.where((seen[..., 2] > 0).all(axis=1), misses, np.inf)


def _parallax(T_world_cam: FloatArray, point: FloatArray) -> float:
    """Largest angle, radians, at a point between the cameras."""
    rays = T_world_cam[:, :3, 3] - point
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return float(np.arccos(np.clip((rays @ rays.T).min(), -1.0, 1.0)))
