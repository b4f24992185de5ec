"""Check the ground truth against the motion in the images: time, axes, scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations, product

import cv2
import numpy as np

from spslam import geometry
from spslam.check.findings import Finding
from spslam.check.tracks import Tracks, follow
from spslam.check.views import View
from spslam.clocks import nearest
from spslam.frame import Frame
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

# Largest time between a frame and its true pose, seconds.
_WITHIN_S = 0.1
# Fraction of the frames with a true pose below which the ground truth is of another time.
_MATCHED = 0.5
# Least rotation of a pair, degrees, that is compared.
_ROTATION = 1.5
# Fewest pairs.
_LEAST = 3
# Relative difference of rotations that is too large, and that of an explanation that fits.
_WRONG, _FITS = 0.5, 0.3
# Shifts of the clock that are tried, seconds.
_SHIFTS = np.arange(-1.0, 1.001, 0.05)
# Largest factor between lengths of depth and of the ground truth.
_SCALE = 1.3
# Least distance between two frames, fraction of the depth, to compare lengths.
_DISTANCE = 0.02
# Fewest points with depth.
_POINTS = 30


@dataclass
class MetricMotion:
    """Distances between frames by the depth of their points.

    Attributes:
        stamps: times of the two frames, seconds.
        length_m: distance between them, metres.
        depth_m: median depth of the points, metres.
    """

    stamps: tuple[float, float]
    length_m: float
    depth_m: float


@dataclass
class TruthEvidence:
    """Motions to compare with a ground truth."""

    metric: list[MetricMotion] = field(default_factory=list)

    def add(self, clip: Sequence[Frame], tracks: Tracks, views: list[View]) -> None:
        """Measure the distance between the first and a later frame of a clip by depth."""
        first = [view for view in views if view.rows[0] == 0]
        if not first:
            return
        row = max(view.rows[1] for view in first)
        both = tracks.alive(0) & tracks.alive(row)
        pixels = tracks.pixels[0, both]
        depth = _depths(clip[0], pixels)
        known = np.isfinite(depth) & (depth > 0)
        if known.sum() < _POINTS:
            return
        camera = clip[0].camera
        straight = camera.undistort(pixels[known])
        points = camera.unproject(straight, depth[known])
        seen = camera.undistort(tracks.pixels[row, both][known])
        fine = np.isfinite(points).all(1) & np.isfinite(seen).all(1)
        cv2.setRNGSeed(0)
        found, _, move, inliers = cv2.solvePnPRansac(
            points[fine],
            seen[fine],
            camera.without_distortion().K,
            None,
            reprojectionError=3.0 * camera.width / 640,
        )
        if not found or inliers is None or len(inliers) < _POINTS:
            return
        self.metric.append(
            MetricMotion(
                (clip[0].timestamp, clip[row].timestamp),
                float(np.linalg.norm(move)),
                float(np.median(depth[known])),
            )
        )


def _depths(frame: Frame, pixels: FloatArray) -> FloatArray:
    """Return the depth (N,) at pixels (N, 2) of a frame, metres; NaN where unknown."""
    if frame.depth is not None:
        column, row = np.rint(pixels).astype(np.int64).T
        height, width = frame.depth.shape
        depth = frame.depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return np.where(depth > 0, depth, np.nan).astype(np.float64)
    if frame.image_right is None:
        return np.full(len(pixels), np.nan)
    there, found = follow(frame.image, frame.image_right, pixels.astype(np.float32))
    disparity = pixels[:, 0] - there[:, 0]
    good = found & (disparity > 1.0) & (np.abs(pixels[:, 1] - there[:, 1]) < 2.0)
    depth = np.full(len(pixels), np.nan)
    depth[good] = frame.camera.bf / disparity[good]
    return depth


def check_truth(
    truth: Trajectory | None, stamps: FloatArray, views: Sequence[View], seen: TruthEvidence
) -> Iterator[Finding]:
    """Yield the findings about the ground truth.

    Args:
        truth: the ground truth; None: there is nothing to check.
        stamps: times of the examined frames, seconds.
        views: pairs of frames with their rotation.
        seen: distances by depth.
    """
    if truth is None or len(stamps) == 0:
        return
    apart = np.abs(truth.timestamps[nearest(stamps, truth.timestamps)] - stamps)
    matched = float(np.mean(apart <= _WITHIN_S))
    if matched < _MATCHED:
        yield Finding(
            "ground truth",
            "truth_time",
            "warning",
            f"{100 * matched:.0f} % of the frames have a true pose within {_WITHIN_S:g} s "
            f"(frames from {stamps.min():.3f} s, poses from {truth.timestamps[0]:.3f} s)",
            f"at least {100 * _MATCHED:.0f} %",
            "the ground truth is of another recording or clock",
            matched,
        )
        return
    found = [*_rotations(truth, views), *_scale(truth, seen)]
    yield from found
    if not any(finding.level == "warning" for finding in found):
        yield Finding(
            "ground truth",
            "truth",
            "ok",
            f"{100 * matched:.0f} % of the frames have a true pose"
            + _agreement(truth, views, seen),
        )


def _relative(truth: Trajectory, stamps: tuple[float, float], shift_s: float) -> FloatArray | None:
    """Return the true motion (4, 4), first camera to second; None without poses at both times."""
    times = np.array(stamps) + shift_s
    rows = nearest(times, truth.timestamps)
    if np.abs(truth.timestamps[rows] - times).max() > _WITHIN_S or rows[0] == rows[1]:
        return None
    first, second = truth.T_world_cam[rows]
    motion: FloatArray = geometry.inverse(second) @ first
    return motion


def _turns(
    truth: Trajectory, views: Sequence[View], shift_s: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Return rotation vectors (P, 3) of the images and of the ground truth, radians."""
    ours, theirs = [], []
    for view in views:
        motion = _relative(truth, view.stamps, shift_s)
        if motion is not None and view.rotation_deg >= _ROTATION:
            ours.append(geometry.so3_log(view.R))
            theirs.append(geometry.so3_log(motion[:3, :3]))
    return np.array(ours).reshape(-1, 3), np.array(theirs).reshape(-1, 3)


def _difference(ours: FloatArray, theirs: FloatArray) -> float:
    apart = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(ours, axis=1)
    return float(np.median(apart))


def _rotations(truth: Trajectory, views: Sequence[View]) -> Iterator[Finding]:
    if not truth.has_rotations:
        return
    ours, theirs = _turns(truth, views)
    if len(ours) < _LEAST:
        return
    difference = _difference(ours, theirs)
    if difference < _WRONG:
        return
    text = (
        f"rotations of the ground truth differ by {100 * difference:.0f} % from those of the images"
    )
    yield Finding(
        "ground truth",
        "truth_axes",
        "warning",
        text,
        f"below {100 * _WRONG:.0f} %",
        _explanation(truth, views, ours, theirs),
        difference,
    )


def _explanation(
    truth: Trajectory, views: Sequence[View], ours: FloatArray, theirs: FloatArray
) -> str:
    """Return what would make rotations of a ground truth fit, in words."""
    if _difference(ours, -theirs) < _FITS:
        return "its poses are inverted (camera from world instead of world from camera)"
    shifts = {}
    for shift in _SHIFTS.tolist():
        a, b = _turns(truth, views, shift)
        if len(a) >= max(_LEAST, 0.7 * len(ours)):
            shifts[shift] = _difference(a, b)
    if shifts:
        shift = min(shifts, key=shifts.__getitem__)
        if shifts[shift] < _FITS:
            return f"its clock is off: it fits when {-shift:+.2f} s are added to its stamps"
    # Turned axes, and mirrored images, change rotation vectors by a rotation (determinant +1).
    fits = {}
    for axes in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            if np.linalg.det(np.eye(3)[list(axes)] * np.array(signs)) > 0:
                fits[axes, signs] = _difference(ours, theirs[:, list(axes)] * signs)
    (axes, signs), difference = min(fits.items(), key=lambda item: item[1])
    if difference < _FITS:
        names = ", ".join(
            f"{'-' if sign < 0 else ''}{'xyz'[axis]}"
            for axis, sign in zip(axes, signs, strict=True)
        )
        return f"rotations fit about its {names}: its axes are turned, or the images are mirrored"
    return "it is of another recording, clock or body (axes of the camera: x right, z forward)"


def _ratios(truth: Trajectory, seen: TruthEvidence) -> list[float]:
    """Return the ratios of lengths by depth to true lengths."""
    ratios = []
    for motion in seen.metric:
        true = _relative(truth, motion.stamps, 0.0)
        if true is not None and motion.length_m > _DISTANCE * motion.depth_m:
            ratios.append(motion.length_m / max(float(np.linalg.norm(true[:3, 3])), 1e-9))
    return ratios


def _scale(truth: Trajectory, seen: TruthEvidence) -> Iterator[Finding]:
    ratios = _ratios(truth, seen)
    if len(ratios) < _LEAST:
        return
    ratio = float(np.median(ratios))
    if 1 / _SCALE <= ratio <= _SCALE:
        return
    yield Finding(
        "ground truth",
        "truth_scale",
        "warning",
        f"lengths by depth are {ratio:.3g} times those of the ground truth",
        f"{1 / _SCALE:.2f} to {_SCALE:.2f}",
        "check depth_scale, or the baseline and its unit",
        ratio,
    )


def _agreement(truth: Trajectory, views: Sequence[View], seen: TruthEvidence) -> str:
    text = ""
    ours, theirs = _turns(truth, views) if truth.has_rotations else (np.zeros((0, 3)),) * 2
    if len(ours) >= _LEAST:
        text += f", rotations agree within {100 * _difference(ours, theirs):.0f} %"
    ratios = _ratios(truth, seen)
    if len(ratios) >= _LEAST:
        text += f", lengths by depth are {np.median(ratios):.2f} times the true ones"
    return text
