"""Pairs of frames of a clip with their matches, rotation and parallax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from spslam.check.lens_fit import PairMatches, rotation_only
from spslam.check.tracks import Tracks
from spslam.frame import Frame
from spslam.typing import BoolArray, FloatArray

# Fewest matches of a pair, and the number below which a shorter time between its frames is tried.
LEAST_MATCHES, _WANTED = 50, 120
# Most matches of a pair that are kept.
_MOST = 100
# Largest distance to an epipolar line in RANSAC, fraction of the width (1.5 px of 640): wide,
# because a wrong lens model also moves matches off their lines.
_INLIER = 1.5 / 640


@dataclass(frozen=True, eq=False)
class View:
    """A pair of frames of one clip.

    Attributes:
        start_s: time of the first frame of the clip, seconds.
        rows: their rows in the clip.
        stamps: their times, seconds.
        matches: inliers of a fundamental matrix.
        inliers: fraction of the tracked points that agree with it.
        R: (3, 3) rotation that fits the matches best without a translation.
        rotation_deg: its angle.
        parallax_deg: median angle that is left between the rays after this rotation, degrees.
        motion_px: median motion, pixels.
    """

    start_s: float
    rows: tuple[int, int]
    stamps: tuple[float, float]
    matches: PairMatches
    inliers: float
    R: FloatArray
    rotation_deg: float
    parallax_deg: float
    motion_px: float


def views_of(clip: Sequence[Frame], tracks: Tracks) -> list[View]:
    """Return up to three pairs of frames of a clip, as far apart as enough points are tracked."""
    last = len(clip) - 1
    found: dict[tuple[int, int], View] = {}
    for first, second in ((0, last), (0, last // 2), (last // 3, last)):
        while second > first + 1 and _both(tracks, first, second).sum() < _WANTED:
            second -= 1
        if second <= first or (first, second) in found:
            continue
        view = _view(clip, tracks, first, second)
        if view is not None:
            found[first, second] = view
    return list(found.values())


def _both(tracks: Tracks, first: int, second: int) -> BoolArray:
    return tracks.alive(first) & tracks.alive(second)


def _view(clip: Sequence[Frame], tracks: Tracks, first: int, second: int) -> View | None:
    both = _both(tracks, first, second)
    if both.sum() < LEAST_MATCHES:
        return None
    camera = clip[0].camera
    matches = PairMatches(
        tracks.pixels[first, both],
        tracks.pixels[second, both],
        _velocity(tracks, first)[both],
        _velocity(tracks, second)[both],
    )
    cv2.setRNGSeed(0)
    _, mask = cv2.findFundamentalMat(
        matches.first, matches.second, cv2.FM_RANSAC, _INLIER * camera.width, 0.999
    )
    if mask is None or np.count_nonzero(mask) < LEAST_MATCHES:
        return None
    keep = np.asarray(mask).ravel() > 0
    share = float(np.mean(keep))
    chosen = matches.select(keep)
    step = -(-len(chosen.first) // _MOST)
    chosen = chosen.select(np.arange(len(chosen.first)) % step == 0)
    a, b = (camera.undistort(pixels) for pixels in (chosen.first, chosen.second))
    seen = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    if seen.sum() < LEAST_MATCHES // 2:
        return None
    a, b = camera.bearings(a[seen]), camera.bearings(b[seen])
    R = rotation_only(a, b)
    left = np.median(np.linalg.norm(a @ R.T - b, axis=1))
    angle = np.arccos(np.clip((np.trace(R) - 1.0) / 2.0, -1.0, 1.0))
    return View(
        clip[0].timestamp,
        (first, second),
        (clip[first].timestamp, clip[second].timestamp),
        chosen,
        share,
        R,
        float(np.degrees(angle)),
        float(np.degrees(left)),
        float(np.median(np.linalg.norm(chosen.second - chosen.first, axis=1))),
    )


def _velocity(tracks: Tracks, row: int) -> FloatArray:
    """Motion (N, 2) of each point in one frame step around a frame, pixels; 0 where unknown."""
    pixels = tracks.pixels
    before = pixels[row] - pixels[row - 1] if row > 0 else np.full(pixels.shape[1:], np.nan)
    after = (
        pixels[row + 1] - pixels[row]
        if row + 1 < len(pixels)
        else np.full(pixels.shape[1:], np.nan)
    )
    mean = 0.5 * (before + after)
    mean = np.where(np.isfinite(mean), mean, np.where(np.isfinite(before), before, after))
    return np.nan_to_num(mean)
