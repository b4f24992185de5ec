"""Checks of the first frames of a run: faults of the input that make the results fail or wrong.

Stereo pairs: points of the left image are tracked to the right one in two dimensions (pyramidal
Lucas-Kanade, forward and backward, as in Bouguet's note for OpenCV, 2000), without assumptions
about the alignment of the pair. In a rectified pair a right point is in the same row and farther
left. Depth images: are the depths within the range that is used?

The checks do not change frames. They take a few milliseconds for each of a few frames.
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
from spslam.notices import notice, plural
from spslam.typing import BoolArray, Float32Array, FloatArray, UInt8Array

logger = logging.getLogger(__name__)

# Check each of the first 5 frames, and these later ones, counted from the first frame of the run:
# a camera often stands still at first.
_EARLY_FRAMES = 5
_LATER_FRAMES = (8, 12, 16, 20, 25, 30, 35, 40)
# Maximum number of points tracked in a pair, and minimum number of matches to judge a pair.
_POINTS, _LEAST_POINTS = 60, 15
# Reduce images to about this width first, pixels.
_WIDTH = 400
# Lucas-Kanade: side of the window, pixels, and number of the highest pyramid level.
_WINDOW, _LEVELS = 15, 3
# Minimum width and height of an image, pixels.
_SMALLEST_IMAGE = 32
# Maximum distance between a point and its backward track, pixels of the reduced image.
_CLOSED = 0.5
# Disparity below minus the first value is certainly negative, pixels. Pairs are swapped only if
# their median disparity is at most the second value, pixels.
_SURE_DISPARITY, _SWAPPED_DISPARITY = 0.5, -2.0
# Pairs are swapped only if this fraction of the matches of each has negative disparity: 0 in valid
# pairs, but a late right image can reach 1 in single frames of a turn.
_SWAPPED_FRACTION = 0.9
# Pairs are misaligned if the median row offset exceeds the first value, or the median absolute row
# offset the second, pixels.
_MISALIGNED_PX, _SCATTERED_PX = 0.8, 1.2
# Stop the run if the median row offset of each early pair is at least the first value and their
# range at most the second, pixels: stereo matching cannot work.
_HOPELESS_PX, _STEADY_PX = 6.0, 1.0
# Left and right images are of different times if the standard deviation over time of the median row
# offset exceeds this plus 10 % of the offset, pixels.
_UNSTEADY_PX = 0.4
# A right image of another frame fits if it reduces the median absolute row offset to at most this
# fraction, in at least this many frames.
_FITS_BETTER, _LEAST_FITTING = 0.4, 3
# Compare right images of up to this many frames earlier and later.
_NEIGHBOURS = 2
# Two images with a mean absolute difference below this are the same, grey levels.
_SAME_IMAGE = 0.5
# Skip images with a standard deviation below this, grey levels: their corners are rounding noise.
_FLAT = 2.0
# Minimum fraction of the points of each left image that must be found in its right image.
_LEAST_FOUND = 0.2
# Check every 4th row and column of a depth image, pixels.
_DEPTH_STEP = 4
# Minimum fraction of pixels with a depth, and of these within the range that is used.
_LEAST_KNOWN, _LEAST_IN_RANGE = 0.005, 0.1
# Maximum fraction of known depths below the range that is used: cameras rarely measure there.
_MOST_TOO_NEAR = 0.3
# Common scales of depth files, units per metre.
_USUAL_SCALES = (1.0, 100.0, 256.0, 1000.0, 5000.0, 10000.0)
# Typical depth of a scene, metres.
_USUAL_DEPTH_M = 2.0
# Suggest the scales whose median depth is within this factor of the typical depth.
_ABOUT_USUAL = 3.0


@dataclass(frozen=True)
class PairOffsets:
    """Offsets of matches between a left and a right image.

    Attributes:
        disparity: (N,) float64, pixels, positive if the right point is farther left.
        rows: (N,) float64, pixels, positive if the right point is farther up.
        same: whether the two images are the same.
        sought: number of points tracked; 0 if the left image has too few.
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
        """Number of matches with certainly negative disparity."""
        return int(np.count_nonzero(self.disparity < -_SURE_DISPARITY))


def pair_offsets(left: UInt8Array, right: UInt8Array, mask: BoolArray | None = None) -> PairOffsets:
    """Track up to 60 corners of the left image (H, W) to the right one, forward and backward.

    Corners lie where `mask` (H, W) is True; None: everywhere.
    """
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
    allowed = None
    if mask is not None:
        size = (left.shape[1], left.shape[0])
        allowed = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    corners = cv2.goodFeaturesToTrack(left, _POINTS, 0.01, left.shape[1] / 40.0, mask=allowed)
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
    """Describe the fault if left and right images are swapped.

    Returns:
        A message; None if the images are not swapped, or not clearly in each of at least 3 pairs.
    """
    clear = [pair for pair in pairs if len(pair) >= _LEAST_POINTS]
    if len(clear) < 3 or any(pair.negative < _SWAPPED_FRACTION * len(pair) for pair in clear):
        return None
    disparity = np.concatenate([pair.disparity for pair in clear])
    if np.median(disparity) > _SWAPPED_DISPARITY:
        return None
    negative = sum(pair.negative for pair in clear)
    return (
        f"left and right images are swapped: {negative} of {len(disparity)} matches of the first "
        f"{len(clear)} pairs have negative disparity (median {np.median(disparity):.1f} px)"
    )


def without_disparity(pairs: List[PairOffsets]) -> str | None:
    """Describe the fault if left and right images are the same; else None."""
    if len(pairs) == 0 or not all(pair.same for pair in pairs):
        return None
    which = plural(len(pairs), "the only compared pair", f"all {len(pairs)} compared pairs")
    return (
        f"left and right images of {which} are the same: there is no "
        "disparity and no depth; is one camera's folder a copy of the other's?"
    )


def unlike_images(pairs: List[PairOffsets]) -> str | None:
    """Describe the fault if right images do not show the scene of the left ones; else None.

    The fault must be in every pair, and there must be at least 3 pairs.
    """
    clear = [pair for pair in pairs if pair.sought >= _LEAST_POINTS]
    if len(clear) < 3 or any(len(pair) >= _LEAST_FOUND * pair.sought for pair in clear):
        return None
    found, sought = sum(len(pair) for pair in clear), sum(pair.sought for pair in clear)
    return (
        f"{found} of {sought} points of the first {len(clear)} left images are found in the right "
        f"ones (mean grey level {np.mean([pair.brightness for pair in clear]):.0f} of 255): are "
        "right images dark, turned, mirrored, or of another recording?"
    )


def misaligned_rows(pairs: List[PairOffsets]) -> str | None:
    """Describe the fault if left and right points differ in rows; else None."""
    clear = [pair for pair in pairs if len(pair) >= _LEAST_POINTS]
    if len(clear) < 3:
        return None
    offsets = np.array([np.median(pair.rows) for pair in clear])
    apart = float(np.median([_row_distance(pair) for pair in clear]))
    if len(clear) >= _EARLY_FRAMES and np.std(offsets) > _UNSTEADY_PX + 0.1 * abs(
        float(np.median(offsets))
    ):
        return (
            f"rows of left and right images agree only at times (offset {offsets.min():.1f} to "
            f"{offsets.max():.1f} px): is the right image of another moment?"
        )
    if apart < _SCATTERED_PX and abs(float(np.median(offsets))) < _MISALIGNED_PX:
        return None
    return (
        f"matches of the pairs lie {apart:.1f} px apart in rows (median of {len(clear)} pairs): "
        "the images are not rectified with this calibration, or left and right are exchanged in "
        "one of the two"
    )


def hopeless_rows(pairs: List[PairOffsets]) -> bool:
    """Return whether row offsets of all pairs, at least 3, are too large for stereo matching."""
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
    """Describe the fault of the depth of the first frames; empty if there is no fault.

    Args:
        known: fraction of pixels with a depth.
        median_m: median of the known depths, metres.
        in_range: fraction of known depths within the range that is used.
        limits: minimum and maximum depth that is used.
        scale: units per metre of the depth files; None if unknown.
        too_near: fraction of known depths below the range that is used.
    """
    if known < _LEAST_KNOWN:
        return (
            f"the first depth images are empty: {100.0 * known:.1f} % of their pixels have a depth"
        )
    if too_near > _MOST_TOO_NEAR and in_range >= _LEAST_IN_RANGE:
        return (
            f"{100.0 * too_near:.0f} % of the first depths are below depth.min_m, "
            f"{limits.min_m:g}, and not used (median {_metres(median_m)} m): "
            f"{_scale_hint(median_m, limits, scale)}"
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
    """Checks of the first frames of a run.

    Attributes:
        causes: descriptions of their faults, for the message of a run that fails.
    """

    def __init__(self, config: Config) -> None:
        self._limits = config.depth
        self._seen = 0
        self._last: deque[Frame] = deque(maxlen=_NEIGHBOURS + 1)
        self._pairs: list[PairOffsets] = []
        # Median absolute row offsets, pixels, by how many frames later the right image is.
        self._others: dict[int, list[float]] = {}
        self._depths: list[Float32Array] = []
        self.causes: list[str] = []

    def see(self, frame: Frame, depth_scale: float | None = None) -> None:
        """Check the next frame of a run.

        Args:
            frame: the frame.
            depth_scale: units per metre of its depth file; None if unknown.

        Raises:
            InputError: left and right images are swapped, or their rows do not agree at all.
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
        """Finish the checks at the end of a run that is shorter than them.

        Args:
            depth_scale: units per metre of the depth files; None if unknown.

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
        pair = pair_offsets(frame.image, right, frame.mask)
        self._pairs.append(pair)
        if len(pair) >= _LEAST_POINTS and _row_distance(pair) >= _SCATTERED_PX:
            self._compare_neighbours(frame)

    def _compare_neighbours(self, frame: Frame) -> None:
        """Compute the row offsets with the images of neighbouring frames."""
        for steps, other in enumerate(reversed(self._last)):
            if steps and other.image_right is not None and frame.image_right is not None:
                for late, left, right in (
                    (-steps, frame, other.image_right),
                    (steps, other, frame.image_right),
                ):
                    pair = pair_offsets(left.image, right, left.mask)
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
            fraction = len(known) / max(len(depth), 1)
            near = float(np.mean(known < self._limits.min_m)) if len(known) else 0.0
            self._tell(
                "depth_range",
                depth_out_of_range(fraction, median, used, self._limits, depth_scale, near),
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
        # Frames farther away are not compared.
        more = " or more" if abs(late) == _NEIGHBOURS and medians[late] > _CLOSED else ""
        when = (
            f"{abs(late)}{more} {plural(abs(late), 'frame')} {'earlier' if late > 0 else 'later'}"
        )
        return (
            f"right images fit the left ones of {when} (rows {medians[late]:.1f} px apart instead "
            f"of {bad:.1f} px): left and right images are paired wrongly"
        )

    def _tell(self, topic: str, text: str | None) -> None:
        if text:
            self.causes.append(text)
            notice(logger, topic, "%s", text)


def _follow(
    left: UInt8Array, right: UInt8Array, corners: Float32Array
) -> tuple[Float32Array, Float32Array, BoolArray]:
    """Track corners (N, 1, 2) of the left image to the right one and back.

    Returns:
        Positions in the right image (N, 2), positions tracked back to the left image (N, 2), and
        whether both were found (N,).
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
    """Match mean and contrast of an image to a model: the two cameras may expose differently."""
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
