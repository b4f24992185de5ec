"""Checks of the first frames of a run: what makes a run fail, or wrong, although every file can be read.

Pairs: points of the left image are followed to the right one in two dimensions (pyramidal Lucas-Kanade as in
Bouguet's note for OpenCV, 2000, forth and back), without knowing how the pair is aligned. In a pair that is
rectified they lie in the same row and farther left. Depth images: is what they hold in the range that is used?

Nothing here changes a frame. A few frames are looked at, at some milliseconds each.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence as List
from dataclasses import dataclass

import cv2
import numpy as np

from spslam.config import Config, DepthConfig
from spslam.errors import InputError
from spslam.frame import Frame
from spslam.notices import notice
from spslam.typing import BoolArray, Float32Array, FloatArray, UInt8Array

logger = logging.getLogger(__name__)

# Frames that are looked at, counted from the first one of the run. A camera often stands still at first.
_EARLY_FRAMES = 5
_LATER_FRAMES = (8, 12, 16, 20, 25, 30, 35, 40)
# Points that are followed from left to right, and how many a verdict on a pair takes.
_POINTS, _LEAST_POINTS = 60, 15
# Images are reduced to about this width before, pixels.
_WIDTH = 400
_WINDOW, _LEVELS = 15, 3
_SMALLEST_IMAGE = 32
# Forth and back a point must come home, pixels.
_CLOSED = 0.5
# Disparity, pixels, of a match that is surely on one side, and the median that swapped pairs must reach to be refused.
_SURE_DISPARITY, _SWAPPED_DISPARITY = 0.5, -2.0
# Share of the matches of each pair at negative disparity that means swapped images. In valid pairs (KITTI, EuRoC,
# rendered) it is 0; with a late right image it reaches 1 in single frames of a turn.
_SWAPPED_SHARE = 0.9
# Median offset and median distance of matches in rows, pixels, that are too large. Rendered 0.00 and 0.03, EuRoC 0.05
# and 0.1, KITTI 0.3 to 0.5 and 0.4 to 0.7.
_MISALIGNED_PX, _SCATTERED_PX = 0.8, 1.2
# Median offset in rows of each of the first pairs beyond which no patch finds its like, pixels, and how far offsets of
# the pairs may differ.
_HOPELESS_PX, _STEADY_PX = 6.0, 1.0
# Standard deviation over time of the median offset in rows, pixels, that is too large: rows that move come from
# images of different moments. KITTI 0.1, EuRoC 0.03; a right image that is one frame late 1.5 or more.
_UNSTEADY_PX = 0.4
# A right image of another frame fits when rows agree so much better, and for so many frames.
_FITS_BETTER, _LEAST_FITTING = 0.4, 3
_NEIGHBOURS = 2
# Two images that differ by less than this, grey levels on average, are the same image.
_SAME_IMAGE = 0.5
# Standard deviation, grey levels, of an image whose corners are those of its rounding.
_FLAT = 2.0
# Share of the points of each left image that must be found in its right one.
_LEAST_FOUND = 0.2
# Depth: every so many pixels, in both directions.
_DEPTH_STEP = 4
# Shares of known pixels, and of those in the range that is used, below which a notice is due.
_LEAST_KNOWN, _LEAST_IN_RANGE = 0.005, 0.1
# Share of known pixels that are nearer than any that is used, above which one is due: cameras hardly measure there.
_MOST_TOO_NEAR = 0.3
# Usual scales of depth files, and a usual depth of a scene, metres.
_USUAL_SCALES = (1.0, 100.0, 256.0, 1000.0, 5000.0, 10000.0)
_USUAL_DEPTH_M = 2.0
# Scales are named that make the depth usual up to this factor.
_ABOUT_USUAL = 3.0


@dataclass(frozen=True)
class PairOffsets:
    """How points of a left image lie in its right image.

    Attributes:
        disparity: (N,) float64, pixels, positive where the right point is farther left.
        rows: (N,) float64, pixels, positive where the right point is farther up.
        same: whether the two images are one.
        sought: points that were looked for; 0 where the left image has too few.
        brightness: mean grey level of the right image.
    """

    disparity: FloatArray
    rows: FloatArray
    same: bool = False
    sought: int = 0
    brightness: float = 0.0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def negative(self) -> int:
        """Matches that are surely at negative disparity."""
        return int(np.count_nonzero(self.disparity < -_SURE_DISPARITY))


def pair_offsets(left: UInt8Array, right: UInt8Array) -> PairOffsets:
    """Follow up to 60 corners of the left image (H, W) to the right one, forth and back."""
    nothing = PairOffsets(np.zeros(0), np.zeros(0))
    if left.shape != right.shape or min(left.shape) < _SMALLEST_IMAGE or np.std(left) < _FLAT:
        return nothing
    scale = max(round(left.shape[1] / _WIDTH), 1)
    if scale > 1:
        size = (left.shape[1] // scale, left.shape[0] // scale)
        left, right = (
            np.asarray(cv2.resize(i, size, interpolation=cv2.INTER_AREA), np.uint8)
            for i in (left, right)
        )
    corners = cv2.goodFeaturesToTrack(left, _POINTS, 0.01, left.shape[1] / 40.0)
    if corners is None or len(corners) < _LEAST_POINTS:
        return nothing
    brightness = float(np.mean(right))
    right = _same_brightness(right, left)
    there, back, found = _follow(left, right, np.asarray(corners, dtype=np.float32))
    found &= np.linalg.norm(back - corners[:, 0], axis=1) < _CLOSED
    offsets = scale * (corners[:, 0] - there)[found].astype(np.float64)
    same = float(np.mean(cv2.absdiff(left, right))) < _SAME_IMAGE
    return PairOffsets(offsets[:, 0], offsets[:, 1], same, len(corners), brightness)


def swapped_sides(pairs: List[PairOffsets]) -> str | None:
    """What is wrong when the pairs show the left camera right; None when they do not, or not clearly in each of at
    least 3 pairs.
    """
    clear = [pair for pair in pairs if len(pair) >= _LEAST_POINTS]
    if len(clear) < 3 or any(pair.negative < _SWAPPED_SHARE * len(pair) for pair in clear):
        return None
    disparity = np.concatenate([pair.disparity for pair in clear])
    if np.median(disparity) > _SWAPPED_DISPARITY:
        return None
    negative = sum(pair.negative for pair in clear)
    return (
        f"left and right images are swapped: {negative} of {len(disparity)} matches of the first {len(clear)} pairs "
        f"are at negative disparity (median {np.median(disparity):.1f} px)"
    )


def without_disparity(pairs: List[PairOffsets]) -> str | None:
    """What is wrong when left and right images are one."""
    if len(pairs) == 0 or not all(pair.same for pair in pairs):
        return None
    return (
        f"left and right images of all {len(pairs)} pairs that were compared are the same: there is no disparity and "
        "no depth; is one camera's folder a copy of the other's?"
    )


def unlike_images(pairs: List[PairOffsets]) -> str | None:
    """What is wrong when right images do not show what left ones show, in at least 3 pairs and in each of them."""
    clear = [pair for pair in pairs if pair.sought >= _LEAST_POINTS]
    if len(clear) < 3 or any(len(pair) >= _LEAST_FOUND * pair.sought for pair in clear):
        return None
    found, sought = sum(len(pair) for pair in clear), sum(pair.sought for pair in clear)
    return (
        f"{found} of {sought} points of the first {len(clear)} left images are found in the right ones (mean grey "
        f"level {np.mean([pair.brightness for pair in clear]):.0f} of 255): are right images dark, turned, "
        "mirrored, or of another recording?"
    )


def misaligned_rows(pairs: List[PairOffsets]) -> str | None:
    """What is wrong when matches of the pairs lie in other rows: always the same ones, or moving ones."""
    clear = [pair for pair in pairs if len(pair) >= _LEAST_POINTS]
    if len(clear) < 3:
        return None
    offsets = np.array([np.median(pair.rows) for pair in clear])
    apart = float(np.median([_row_distance(pair) for pair in clear]))
    if len(clear) >= _EARLY_FRAMES and np.std(offsets) > _UNSTEADY_PX + 0.1 * abs(
        float(np.median(offsets))
    ):
        return (
            f"rows of left and right images agree at times only (their offset goes from {offsets.min():.1f} to "
            f"{offsets.max():.1f} px): is the right image of another moment?"
        )
    if apart < _SCATTERED_PX and abs(float(np.median(offsets))) < _MISALIGNED_PX:
        return None
    return (
        f"matches of the pairs lie {apart:.1f} px apart in rows (median of {len(clear)} pairs): the images are not "
        "rectified with this calibration, or left and right are exchanged in one of the two"
    )


def hopeless_rows(pairs: List[PairOffsets]) -> bool:
    """Whether matches of all pairs, at least 3, lie so far apart in rows, always the same way, that the run is in
    vain.
    """
    clear = [pair for pair in pairs if len(pair) >= _LEAST_POINTS]
    offsets = np.array([np.median(pair.rows) for pair in clear])
    return len(clear) >= 3 and bool(
        np.abs(offsets).min() >= _HOPELESS_PX and np.ptp(offsets) <= _STEADY_PX
    )


def depth_out_of_range(
    known: float,
    median_m: float,
    in_range: float,
    limits: DepthConfig,
    scale: float | None,
    too_near: float = 0.0,
) -> str:
    """What is wrong with the depth of the first frames; empty for nothing.

    Args:
        known: share of the pixels that have a depth.
        median_m: of the known depths, metres.
        in_range: share of the known depths that are used.
        limits: least and largest depth that is used.
        scale: units per metre of the depth files, where known.
        too_near: share of the known depths that are nearer than what is used.
    """
    if known < _LEAST_KNOWN:
        return (
            f"the first depth images are empty: {100.0 * known:.1f} % of their pixels have a depth"
        )
    if too_near > _MOST_TOO_NEAR and in_range >= _LEAST_IN_RANGE:
        return (
            f"{100.0 * too_near:.0f} % of the first depths are below depth.min_m, {limits.min_m:g}, and not used "
            f"(median {_metres(median_m)} m): {_scale_hint(median_m, limits, scale)}"
        )
    if in_range >= _LEAST_IN_RANGE:
        return ""
    limit = (
        f"depth.max_m is {limits.max_m:g}"
        if median_m > limits.max_m
        else f"depth.min_m is {limits.min_m:g}"
    )
    return f"median depth {_metres(median_m)} m, {limit}: {_scale_hint(median_m, limits, scale)}"


class InputChecks:
    """Looks at the first frames of a run.

    Attributes:
        causes: what is wrong with them, in words, for the message of a run that fails.
    """

    def __init__(self, config: Config) -> None:
        self._limits = config.depth
        self._seen = 0
        self._last: deque[Frame] = deque(maxlen=_NEIGHBOURS + 1)
        self._pairs: list[PairOffsets] = []
        # Offsets in rows between the left image and the right one of so many frames later.
        self._others: dict[int, list[float]] = {}
        self._depths: list[Float32Array] = []
        self.causes: list[str] = []

    def see(self, frame: Frame, depth_scale: float | None = None) -> None:
        """Look at the next frame of a run.

        Args:
            depth_scale: units per metre that its depth file was divided by, where known.

        Raises:
            InputError: left and right images are swapped, or rows do not agree at all.
        """
        if self._seen > _LATER_FRAMES[-1]:
            return
        if frame.image_right is not None:
            self._see_pair(frame, frame.image_right)
        elif frame.depth is not None and self._seen < _EARLY_FRAMES:
            self._depths.append(frame.depth[::_DEPTH_STEP, ::_DEPTH_STEP])
        self._seen += 1
        if self._seen == _EARLY_FRAMES:
            self._judge_early(depth_scale)
        if self._seen > _LATER_FRAMES[-1]:
            self._judge_rows()

    def finish(self, depth_scale: float | None = None) -> None:
        """Judge what there is at the end of a run that is shorter than the checks.

        Raises:
            InputError: as `see`.
        """
        if self._seen < _EARLY_FRAMES:
            self._judge_early(depth_scale)
        if self._seen <= _LATER_FRAMES[-1]:
            self._judge_rows()
        self._seen = _LATER_FRAMES[-1] + 1

    def _see_pair(self, frame: Frame, right: UInt8Array) -> None:
        self._last.append(frame)
        if self._seen >= _EARLY_FRAMES and self._seen not in _LATER_FRAMES:
            return
        pair = pair_offsets(frame.image, right)
        self._pairs.append(pair)
        if len(pair) >= _LEAST_POINTS and _row_distance(pair) >= _SCATTERED_PX:
            self._compare_neighbours(frame)

    def _compare_neighbours(self, frame: Frame) -> None:
        """Rows do not agree: do they with a right image of another moment?"""
        for steps, other in enumerate(reversed(self._last)):
            if steps and other.image_right is not None and frame.image_right is not None:
                for late, left, right in (
                    (-steps, frame.image, other.image_right),
                    (steps, other.image, frame.image_right),
                ):
                    pair = pair_offsets(left, right)
                    if len(pair) >= _LEAST_POINTS:
                        self._others.setdefault(late, []).append(_row_distance(pair))

    def _judge_early(self, depth_scale: float | None) -> None:
        swapped = swapped_sides(self._pairs)
        if swapped is not None:
            raise InputError(
                f"{swapped}: exchange the folders of the images, or the cameras in the calibration"
            )
        rows = misaligned_rows(self._pairs)
        if rows is not None and hopeless_rows(self._pairs) and self._late_pairs() is None:
            raise InputError(rows)
        self._tell("pairs_without_disparity", without_disparity(self._pairs))
        self._tell("pairs_unlike", unlike_images(self._pairs))
        if self._depths:
            depth = np.concatenate([part.ravel() for part in self._depths])
            known = depth[depth > 0]
            inside = (known >= self._limits.min_m) & (known <= self._limits.max_m)
            median, used = (
                (float(np.median(known)), float(inside.mean())) if len(known) else (0.0, 0.0)
            )
            share = len(known) / max(len(depth), 1)
            near = float(np.mean(known < self._limits.min_m)) if len(known) else 0.0
            self._tell(
                "depth_range",
                depth_out_of_range(share, median, used, self._limits, depth_scale, near),
            )
            self._depths = []

    def _judge_rows(self) -> None:
        self._tell("pairs_misaligned", self._late_pairs() or misaligned_rows(self._pairs))
        self._last.clear()

    def _late_pairs(self) -> str | None:
        own = [_row_distance(pair) for pair in self._pairs if len(pair) >= _LEAST_POINTS]
        medians = {
            late: float(np.median(rows))
            for late, rows in self._others.items()
            if len(rows) >= _LEAST_FITTING
        }
        if not medians:
            return None
        late = min(medians, key=lambda step: medians[step])
        bad = float(np.median([rows for rows in own if rows >= _SCATTERED_PX]))
        if medians[late] > _FITS_BETTER * bad:
            return None
        # Frames farther away are not looked at.
        more = " or more" if abs(late) == _NEIGHBOURS and medians[late] > _CLOSED else ""
        when = f"{abs(late)}{more} frame{'s' if abs(late) > 1 else ''} {'earlier' if late > 0 else 'later'}"
        return (
            f"right images fit the left ones of {when} (rows {medians[late]:.1f} px apart instead of {bad:.1f} px): "
            "left and right images are paired wrongly"
        )

    def _tell(self, topic: str, text: str | None) -> None:
        if text:
            self.causes.append(text)
            notice(logger, topic, "%s", text)


def _follow(
    left: UInt8Array, right: UInt8Array, corners: Float32Array
) -> tuple[Float32Array, Float32Array, BoolArray]:
    """Where corners (N, 1, 2) of the left image are in the right one and, back from there, in the left one, (N, 2)
    each; whether they were found.
    """
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.03)
    window = (_WINDOW, _WINDOW)

    def follow(
        image: UInt8Array, other: UInt8Array, points: Float32Array
    ) -> tuple[Float32Array, UInt8Array]:
        there, found, _ = cv2.calcOpticalFlowPyrLK(
            image, other, points, points.copy(), winSize=window, maxLevel=_LEVELS, criteria=stop
        )
        return np.asarray(there, dtype=np.float32), np.asarray(found, dtype=np.uint8)

    there, ok = follow(left, right, corners)
    back, ok_back = follow(right, left, there)
    return there[:, 0], back[:, 0], (ok[:, 0] > 0) & (ok_back[:, 0] > 0)


def _same_brightness(image: UInt8Array, model: UInt8Array) -> UInt8Array:
    """An image with mean and contrast of another one: the two cameras may expose differently."""
    (mean, deviation), (wanted_mean, wanted) = (cv2.meanStdDev(each) for each in (image, model))
    gain = float(wanted[0, 0]) / max(float(deviation[0, 0]), 1e-3)
    offset = float(wanted_mean[0, 0]) - gain * float(mean[0, 0])
    return np.asarray(cv2.addWeighted(image, gain, image, 0.0, offset), dtype=np.uint8)


def _row_distance(pair: PairOffsets) -> float:
    return float(np.median(np.abs(pair.rows)))


def _metres(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _scale_hint(median_m: float, limits: DepthConfig, scale: float | None) -> str:
    if scale is None:
        factor = median_m / _USUAL_DEPTH_M
        return (
            f"depths are about {factor:,.0f} times too large"
            if factor > 1
            else "depths are too small"
        )
    fitting = [
        usual for usual in _USUAL_SCALES if limits.min_m <= median_m * scale / usual <= limits.max_m
    ]
    if not fitting:
        return f"does depth_scale, {scale:g} units per metre, fit the files?"
    odd = {
        usual: abs(float(np.log(median_m * scale / usual / _USUAL_DEPTH_M))) for usual in fitting
    }
    likely = [usual for usual in fitting if odd[usual] < np.log(_ABOUT_USUAL)] or [
        min(fitting, key=odd.__getitem__)
    ]
    return f"is depth_scale {' or '.join(f'{usual:g}' for usual in likely)} instead of {scale:g}?"
