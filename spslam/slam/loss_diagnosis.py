"""Loss diagnosis: find out why tracking was lost, by comparing the lost frame with earlier ones.

The evidence is: brightness, contrast, sharpness and keypoints against the median of the last
tracked frames; the regions still visible from the last frame with many inliers; the matches with
the last tracked frame (number, motion, map points). All comparisons are relative, and hold for any
scene and camera. Most causes also reduce the matches: the rules for these causes come before the
rules that only look at matches.

Sharpness is the ratio of second to first differences of the grey levels. Strong edges dominate it,
and their width determines it. The energy of either difference alone (Pertuz et al., "Analysis of
focus measure operators", Pattern Recognition 2013) depends more on the scene than on its blur. It
is computed along each axis, because motion blurs along one only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spslam.camera import Camera
from spslam.config import Config, LossDiagnosisConfig
from spslam.frame import Observations
from spslam.interfaces import Matcher
from spslam.notices import counted, plural
from spslam.typing import FloatArray, IntArray

Cause = Literal[
    "dark", "occlusion", "blur", "too few features", "jump", "too little parallax", "unclear"
]

# Approximate width of reduced images, pixels: they still show blur, and noise is averaged out.
_COLUMNS = 160
# Contrast below which there is no texture, grey levels.
_LEAST_CONTRAST = 3.0
# Least drop of the brightness of a dark image, grey levels.
_LEAST_DARKENING = 10.0
# Side of the squares of the reduced image that are searched in the next one, pixels.
_SIDE = 10
# Largest motion of a square, pixels.
_REACH = 16
# Largest difference of the motions of two squares that move together, pixels.
_TOGETHER = 2.0
# Least correlation of a square that is found.
_FOUND = 0.75
# Occlusion: largest fraction of the textured squares that are left ...
_LEFT = 0.4
# ... and least number of them ...
_LEAST_LEFT = 6
# ... which lie side by side: least fraction left in their 3 x 3 neighbourhood (median).
_GATHERED = 0.4
# Largest difference of the motions of two matches that agree, fraction of the image width.
_AGREE = 0.05
# Jump: fraction of matches among the keypoints (of the frame with fewer) below which it is one.
_FEW_MATCHED = 0.1
# Range of grey levels below which an image is flat.
_FLAT_LEVELS = 24
# Darkest and brightest pixels that this range excludes, per cent of the image each.
_OUTER_PERCENT = 1.0
# Step between the rows and columns that are read, pixels.
_EVERY = 4
# A camera stands still if at least this fraction of the matches does not move.
_STILL = 0.8


@dataclass
class Loss:
    """A loss of tracking.

    Attributes:
        frame: index of the first frame without a pose.
        timestamp: of this frame, seconds.
        cause: see `Cause`.
        reason: the cause with its numbers, one line.
        frames: number of frames without a pose until the camera was found again, or the end.
    """

    frame: int
    timestamp: float
    cause: Cause
    reason: str
    frames: int = 0


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Statistics of a whole image.

    Attributes:
        brightness: mean, grey levels.
        contrast: standard deviation, grey levels.
        sharpness: (2,) second differences over first ones (root mean squares), along x and y; 0 in
            a uniform image.
    """

    brightness: float
    contrast: float
    sharpness: FloatArray


def reduce_image(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce a (H, W) grey image by an integer factor to about 160 columns."""
    factor = max(1, round(image.shape[1] / _COLUMNS))
    width, height = max(1, image.shape[1] // factor), max(1, image.shape[0] // factor)
    # Crop to a multiple of the factor: OpenCV averages whole blocks of pixels much faster.
    whole = image[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)


def image_statistics(small: NDArray[np.float32]) -> ImageStatistics:
    """Compute the statistics of a reduced image (h, w)."""
    mean, deviation = (float(value.item()) for value in cv2.meanStdDev(small))
    return ImageStatistics(
        mean, deviation, np.array([_sharpness(small, 1, 0), _sharpness(small, 0, 1)])
    )


def _sharpness(small: NDArray[np.float32], along_x: int, along_y: int) -> float:
    first = cv2.norm(cv2.Sobel(small, cv2.CV_32F, along_x, along_y, ksize=1)) / 2.0
    second = cv2.norm(cv2.Sobel(small, cv2.CV_32F, 2 * along_x, 2 * along_y, ksize=1))
    return second / first if first > 0 else 0.0


class LossMonitor:
    """Keeps statistics of tracked frames, and diagnoses why a frame is not tracked.

    Args:
        config: of all stages.
        matcher: matches keypoints.
        max_descriptor_distance: largest L2 distance of matching unit descriptors.
    """

    def __init__(self, config: Config, matcher: Matcher, max_descriptor_distance: float) -> None:
        self._limits = config.loss_diagnosis
        self._config = config.tracking
        self._matcher = matcher
        self._max_descriptor_distance = max_descriptor_distance
        self._images: deque[ImageStatistics] = deque(maxlen=self._limits.recent_frames)
        self._keypoints: deque[int] = deque(maxlen=self._limits.recent_frames)
        self._inliers: deque[int] = deque(maxlen=self._limits.recent_frames)
        self._last: tuple[Observations, IntArray] | None = None
        self._clear = np.zeros((0, 0), dtype=np.float32)
        self._levels: list[tuple[float, float]] = []

    def wait(self, image: NDArray[np.uint8]) -> None:
        """Keep the grey levels of an image (H, W) from before the first pose."""
        low, high = np.percentile(image[::_EVERY, ::_EVERY], [_OUTER_PERCENT, 100 - _OUTER_PERCENT])
        self._levels.append((float(low), float(high)))

    def why_no_pose(self, still_fractions: list[float], strangers: list[int]) -> str:
        """Explain in one line why no frame has a pose; return an empty string if it is not clear.

        Args:
            still_fractions: for each frame that matched the first view, fraction of the matches
                that did not move.
            strangers: number of matches of each frame that did not match the first view.
        """
        frames, still = (
            len(self._levels),
            float(np.median(still_fractions)) if still_fractions else 0.0,
        )
        flat = [(low, high) for low, high in self._levels if high - low < _FLAT_LEVELS]
        if len(still_fractions) > frames / 2 and still >= _STILL:
            return (
                f"{100 * still:.0f} % of the matched points did not move in "
                f"{len(still_fractions) + 1} frames: "
                "a single camera needs to move sideways to start"
            )
        if len(flat) > frames / 2:
            low, high = np.median(flat, axis=0)
            return (
                f"images are nearly flat: grey levels {low:.0f} to {high:.0f} of 255 in "
                f"{len(flat)} of them: "
                "check the lens cap, the exposure, and the scaling of images of more than 8 bits"
            )
        if len(strangers) > frames / 2:
            return (
                f"frames do not show the same scene: {np.median(strangers):.0f} matches (median) "
                f"with an earlier one in {len(strangers)} of {counted(frames, 'frame')}: "
                "check their order, camera, time steps and noise"
            )
        return ""

    def keep(
        self, image: NDArray[np.uint8], observations: Observations, point_ids: IntArray
    ) -> None:
        """Keep the statistics of a tracked frame.

        Args:
            image: (H, W).
            observations: of the frame.
            point_ids: (N,) the map point of each keypoint, negative for none.
        """
        small = reduce_image(image)
        inliers = int(np.count_nonzero(point_ids >= 0))
        self._images.append(image_statistics(small))
        self._keypoints.append(len(observations))
        self._inliers.append(inliers)
        self._last = observations, point_ids
        # Occlusion may grow step by step: keep the last image with many inliers.
        if inliers >= self._limits.few_ratio * np.median(self._inliers):
            self._clear = small

    def diagnose(
        self, image: NDArray[np.uint8], observations: Observations, camera: Camera
    ) -> Loss:
        """Diagnose why the frame after the last tracked one has no pose."""
        assert self._last is not None, "diagnosis needs a tracked frame"
        evidence = self._evidence(image, observations, camera)
        for cause, rule in _RULES:
            line = rule(evidence)
            if line:
                return Loss(observations.index, observations.timestamp, cause, f"{cause}: {line}")
        raise AssertionError("the last rule always gives a reason")

    def _evidence(
        self, image: NDArray[np.uint8], observations: Observations, camera: Camera
    ) -> _Evidence:
        assert self._last is not None
        last, point_ids = self._last
        matches0 = self._matcher.match(
            last.descriptors,
            observations.descriptors,
            self._max_descriptor_distance,
            self._config.ratio,
        )
        hit = np.flatnonzero(matches0 >= 0)
        motion = (observations.pixels[matches0[hit]] - last.pixels[hit]) / camera.width
        together = _agreeing(motion, _AGREE)
        small = reduce_image(image)
        left, textured = _squares_left(self._clear, small)
        return _Evidence(
            limits=self._limits,
            now=image_statistics(small),
            usual=_median(list(self._images)),
            keypoints=len(observations),
            usual_keypoints=float(np.median(self._keypoints)),
            left=left,
            textured=textured,
            matches=len(together),
            matchable=min(len(last), len(observations)),
            moved=float(np.median(np.linalg.norm(motion[together], axis=1)))
            if len(together)
            else 0.0,
            mapped=int(np.count_nonzero(point_ids[hit[together]] >= 0)),
            min_mapped=2 * self._config.min_inliers,
            mono=not camera.has_depth,
        )


def _agreeing(motion: FloatArray, radius: float) -> NDArray[np.int64]:
    """Rows of the largest group of motions (M, 2) within a radius of one of them.

    Wrong matches move in random directions.
    """
    if len(motion) == 0:
        return np.zeros(0, dtype=np.int64)
    tree = cKDTree(motion)
    densest = int(np.argmax(tree.query_ball_point(motion, radius, return_length=True)))
    return np.sort(np.asarray(tree.query_ball_point(motion[densest], radius), dtype=np.int64))


def _squares_left(
    before: NDArray[np.float32], now: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], int]:
    """Find the squares of a reduced image that another one still shows.

    Returns:
        Which squares (R, C) are found and move together, and the number of squares with texture.
    """
    rows, columns = before.shape[0] // _SIDE, before.shape[1] // _SIDE
    around = cv2.copyMakeBorder(now, *(_REACH,) * 4, cv2.BORDER_REPLICATE)
    left, places, motion, textured = np.zeros((rows, columns), dtype=bool), [], [], 0
    for y, x in np.ndindex(rows, columns):
        top, start = y * _SIDE, x * _SIDE
        square = before[top : top + _SIDE, start : start + _SIDE]
        if square.std() < _LEAST_CONTRAST:
            continue
        textured += 1
        window = around[top : top + _SIDE + 2 * _REACH, start : start + _SIDE + 2 * _REACH]
        _, correlation, _, place = cv2.minMaxLoc(
            cv2.matchTemplate(window, square, cv2.TM_CCOEFF_NORMED)
        )
        if correlation > _FOUND:
            places.append((y, x))
            motion.append(place)
    together = _agreeing(np.array(motion, dtype=np.float64).reshape(-1, 2), _TOGETHER)
    left[tuple(np.array(places, dtype=np.int64).reshape(-1, 2)[together].T)] = True
    return left, textured


def _median(images: list[ImageStatistics]) -> ImageStatistics:
    return ImageStatistics(
        brightness=float(np.median([image.brightness for image in images])),
        contrast=float(np.median([image.contrast for image in images])),
        sharpness=np.median([image.sharpness for image in images], axis=0),
    )


# -- rules -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Evidence:
    """The evidence for the rules.

    Attributes:
        limits: thresholds of the causes.
        now, usual: statistics of the lost frame's image, and their median over the tracked frames.
        keypoints, usual_keypoints: the same for the number of keypoints.
        left: (R, C) squares of the last clear image that this image still shows.
        textured: number of squares with texture.
        matches, matchable: number of keypoints that match the frame before and move together, and
            largest possible number.
        moved: median motion of these matches, fraction of the image width.
        mapped: number of these matches that saw a point of the map.
        min_mapped: number of such matches that is enough for tracking.
        mono: whether all points come from the parallax of a single camera.
    """

    limits: LossDiagnosisConfig
    now: ImageStatistics
    usual: ImageStatistics
    keypoints: int
    usual_keypoints: float
    left: NDArray[np.bool_]
    textured: int
    matches: int
    matchable: int
    moved: float
    mapped: int
    min_mapped: int
    mono: bool

    @property
    def contrast(self) -> float:
        """Contrast over the usual contrast; 1 if the usual contrast is too low."""
        return (
            self.now.contrast / self.usual.contrast
            if self.usual.contrast >= _LEAST_CONTRAST
            else 1.0
        )


def _dark(seen: _Evidence) -> str:
    now, usual = seen.now.brightness, seen.usual.brightness
    if now > seen.limits.dark_ratio * usual or usual - now < _LEAST_DARKENING:
        return ""
    return f"brightness {now:.0f} grey levels, usually {usual:.0f}"


def _occlusion(seen: _Evidence) -> str:
    """Check whether only a small connected region of the image is still visible."""
    count = int(np.count_nonzero(seen.left))
    if seen.contrast < seen.limits.faded_ratio or not _LEAST_LEFT <= count <= _LEFT * seen.textured:
        return ""
    around = cv2.blur(seen.left.astype(np.float32), (3, 3), borderType=cv2.BORDER_REFLECT)
    if np.median(around[seen.left]) < _GATHERED:
        return ""
    return f"only {100 * count / seen.textured:.0f} % of the image, in one piece, is as before"


def _blur(seen: _Evidence) -> str:
    if seen.usual.contrast < _LEAST_CONTRAST or seen.contrast < seen.limits.faded_ratio:
        return ""
    fraction = float(np.min(seen.now.sharpness / np.maximum(seen.usual.sharpness, 1e-9)))
    if fraction > seen.limits.blurred_ratio:
        return ""
    keypoints = f"{counted(seen.keypoints, 'keypoint')}, usually {seen.usual_keypoints:.0f}"
    return f"sharpness {100 * fraction:.0f} % of usual, {keypoints}"


def _too_few_features(seen: _Evidence) -> str:
    if (
        seen.keypoints >= seen.limits.few_ratio * seen.usual_keypoints
        and seen.contrast >= seen.limits.faded_ratio
    ):
        return ""
    return (
        f"{counted(seen.keypoints, 'keypoint')}, usually {seen.usual_keypoints:.0f}, "
        f"contrast {100 * seen.contrast:.0f} % of usual"
    )


def _matched(seen: _Evidence) -> str:
    of = counted(seen.keypoints, "keypoint")
    return f"{seen.matches} of {of} {plural(seen.matches, 'matches', 'match')}"


def _jump(seen: _Evidence) -> str:
    if seen.matches < _FEW_MATCHED * seen.matchable:
        return f"{_matched(seen)} the frame before"
    if seen.moved > seen.limits.max_motion_fraction:
        return (
            f"{counted(seen.matches, 'match', 'matches')} with the frame before moved by "
            f"{100 * seen.moved:.0f} % of the image width"
        )
    return ""


def _too_little_parallax(seen: _Evidence) -> str:
    """Check whether the view left the map: one camera cannot map a view without parallax."""
    if not seen.mono or seen.mapped >= min(seen.min_mapped, seen.limits.few_ratio * seen.matches):
        return ""
    known = counted(seen.mapped, "of them is", "of them are")
    return (
        f"{counted(seen.matches, 'keypoint matches', 'keypoints match')} the frame before, "
        f"{known} in the map"
    )


def _unclear(seen: _Evidence) -> str:
    return (
        f"{_matched(seen)} the frame before, "
        f"{counted(seen.mapped, 'of them is', 'of them are')} in the map, and no pose agrees "
        "with them"
    )


_RULES: tuple[tuple[Cause, Callable[[_Evidence], str]], ...] = (
    ("dark", _dark),
    ("occlusion", _occlusion),
    ("blur", _blur),
    ("too few features", _too_few_features),
    ("jump", _jump),
    ("too little parallax", _too_little_parallax),
    ("unclear", _unclear),
)
