"""Health: why tracking was lost, from what the lost frame shows beside the frames tracked before it.

An image is judged by itself (brightness, contrast, sharpness, key points) against the median of the last tracked
frames, by what it still shows of the last one that saw the map well, and by the key points that it shares with the
frame tracked last: how many, how far they moved, how many of them the map knows. All comparisons are relative, so that
they hold for any scene and camera. The rules are tried in an order in which the causes of fewer matches come before
what fewer matches alone would tell.

Sharpness is how much the grey levels bend for how much they rise: second differences over first ones, which strong
edges dominate and which their width decides. The energy of either alone (Pertuz et al., "Analysis of focus measure
operators", Pattern Recognition 2013) tells more of the scene than of its blur: from one sharp view of EuRoC's room to
another it falls to a tenth, the ratio never below two thirds. It is taken along each axis, because motion blurs along
one only.
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
from spslam.map.map import Ids

Array = NDArray[np.float64]
Cause = Literal[
    "dark", "occlusion", "blur", "too few features", "jump", "too little parallax", "unclear"
]

# Images are reduced to about this many columns: blur that loses tracking still shows, noise is averaged out.
_COLUMNS = 160
# Grey levels below which there is no texture, or no difference, to speak of.
_LEAST_CONTRAST, _LEAST_DARKENING = 3.0, 10.0
# Squares of the reduced image that are looked for in the next, pixels: their side, how far they may go, how far apart
# two may go that move together; the correlation that finds one.
_SIDE, _REACH, _TOGETHER = 10, 16, 2.0
_FOUND = 0.75
# What covers an image leaves few of the squares, at least so many, which lie side by side: share of the neighbours of
# one that are left, too.
_LEFT, _LEAST_LEFT, _GATHERED = 0.4, 6, 0.4
# Matches agree that move within this share of the image width of each other.
_AGREE = 0.05
_FEW_MATCHED = 0.1
# An image is flat whose grey levels, but for the darkest and brightest so many per cent, differ by less; every so many
# rows and columns are looked at.
_FLAT_LEVELS, _OUTER_PERCENT, _EVERY = 24, 1.0, 4
# Share of the matches that do not move where nothing does.
_STILL = 0.8


@dataclass
class Loss:
    """Tracking was lost.

    Attributes:
        frame, timestamp: of the first frame without a pose, seconds.
        cause: see `Cause`.
        reason: the cause with its numbers, one line.
        frames: without a pose until the camera was found again, or the end.
    """

    frame: int
    timestamp: float
    cause: Cause
    reason: str
    frames: int = 0


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """What an image is like as a whole.

    Attributes:
        brightness: mean, grey levels.
        contrast: standard deviation, grey levels.
        sharpness: (2,) second differences over first ones (root mean squares), along x and y; 0 in a uniform image.
    """

    brightness: float
    contrast: float
    sharpness: Array


def reduce_image(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A (H, W) grey image, reduced by a whole factor to about 160 columns."""
    factor = max(1, round(image.shape[1] / _COLUMNS))
    width, height = max(1, image.shape[1] // factor), max(1, image.shape[0] // factor)
    # Without the rest of the division: OpenCV averages whole squares of pixels many times as fast as parts of them.
    whole = image[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)


def image_statistics(small: NDArray[np.float32]) -> ImageStatistics:
    """Statistics of a reduced image (h, w)."""
    mean, deviation = (float(value.item()) for value in cv2.meanStdDev(small))
    return ImageStatistics(
        mean, deviation, np.array([_sharpness(small, 1, 0), _sharpness(small, 0, 1)])
    )


def _sharpness(small: NDArray[np.float32], along_x: int, along_y: int) -> float:
    first = cv2.norm(cv2.Sobel(small, cv2.CV_32F, along_x, along_y, ksize=1)) / 2.0
    second = cv2.norm(cv2.Sobel(small, cv2.CV_32F, 2 * along_x, 2 * along_y, ksize=1))
    return second / first if first > 0 else 0.0


class HealthMonitor:
    """Remembers what tracked frames are like, and tells from it why a frame is not tracked.

    Args:
        max_distance: largest L2 distance of matching unit descriptors.
    """

    def __init__(self, config: Config, matcher: Matcher, max_distance: float) -> None:
        self._limits = config.loss_diagnosis
        self._config = config.tracking
        self._matcher = matcher
        self._max_distance = max_distance
        self._images: deque[ImageStatistics] = deque(maxlen=self._limits.recent_frames)
        self._keypoints: deque[int] = deque(maxlen=self._limits.recent_frames)
        self._inliers: deque[int] = deque(maxlen=self._limits.recent_frames)
        self._last: tuple[Observations, Ids] | None = None
        self._clear = np.zeros((0, 0), dtype=np.float32)
        self._levels: list[tuple[float, float]] = []

    def wait(self, image: NDArray[np.uint8]) -> None:
        """Take up an image (H, W) of a frame that came before any had a pose."""
        low, high = np.percentile(image[::_EVERY, ::_EVERY], [_OUTER_PERCENT, 100 - _OUTER_PERCENT])
        self._levels.append((float(low), float(high)))

    def why_no_pose(self, still_shares: list[float], strangers: list[int]) -> str:
        """Why no frame at all has a pose, one line; empty where that is not clear.

        Args:
            still_shares: share of the matches that did not move, of each frame that matched the first view.
            strangers: number of matches of each frame that did not match it.
        """
        frames, still = len(self._levels), float(np.median(still_shares)) if still_shares else 0.0
        flat = [(low, high) for low, high in self._levels if high - low < _FLAT_LEVELS]
        if len(still_shares) > frames / 2 and still >= _STILL:
            return (
                f"{100 * still:.0f} % of the matched points did not move in {len(still_shares) + 1} frames: "
                "a single camera needs to move sideways to start"
            )
        if len(flat) > frames / 2:
            low, high = np.median(flat, axis=0)
            return (
                f"images are nearly flat: grey levels {low:.0f} to {high:.0f} of 255 in {len(flat)} of them: "
                "check the lens cap, the exposure, and that images of more than 8 bits are scaled to 8"
            )
        if len(strangers) > frames / 2:
            return (
                f"frames do not show the same: {np.median(strangers):.0f} matches (median) with an earlier one in "
                f"{len(strangers)} of {frames} frames: are they in order, of one camera, near enough in time, and more "
                "than noise?"
            )
        return ""

    def keep(self, image: NDArray[np.uint8], observations: Observations, point_ids: Ids) -> None:
        """Take up a tracked frame: its image (H, W), and the map point each key point sees (N,), negative for none."""
        small = reduce_image(image)
        inliers = int(np.count_nonzero(point_ids >= 0))
        self._images.append(image_statistics(small))
        self._keypoints.append(len(observations))
        self._inliers.append(inliers)
        self._last = observations, point_ids
        # What covers the image may do so step by step.
        if inliers >= self._limits.few_ratio * np.median(self._inliers):
            self._clear = small

    def diagnose(
        self, image: NDArray[np.uint8], observations: Observations, camera: Camera
    ) -> Loss:
        """Why the frame that follows the ones kept has no pose."""
        assert self._last is not None, "only what was tracked can be lost"
        evidence = self._evidence(image, observations, camera)
        for cause, rule in _RULES:
            line = rule(evidence)
            if line:
                return Loss(observations.index, observations.timestamp, cause, f"{cause}: {line}")
        raise AssertionError("the last rule always has something to say")

    def _evidence(
        self, image: NDArray[np.uint8], observations: Observations, camera: Camera
    ) -> _Evidence:
        assert self._last is not None
        last, point_ids = self._last
        matches0 = self._matcher.match(
            last.descriptors, observations.descriptors, self._max_distance, self._config.ratio
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


def _agreeing(motion: Array, radius: float) -> NDArray[np.int64]:
    """Rows of the largest group of (M, 2) motions that are within a radius of one of them: wrong ones go anywhere."""
    if len(motion) == 0:
        return np.zeros(0, dtype=np.int64)
    tree = cKDTree(motion)
    densest = int(np.argmax(tree.query_ball_point(motion, radius, return_length=True)))
    return np.sort(np.asarray(tree.query_ball_point(motion[densest], radius), dtype=np.int64))


def _squares_left(
    before: NDArray[np.float32], now: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], int]:
    """Which squares (R, C) of a reduced image another still shows, moved together, and how many squares have texture
    that could be found again.
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
    """What the rules judge.

    Attributes:
        limits: from which on a cause is one.
        now, usual: statistics of the lost frame's image, and the median of those tracked before.
        keypoints, usual_keypoints: likewise.
        left: (R, C) squares of the image before that this one still shows.
        textured: number of squares that could be shown.
        matches, matchable: key points that match the frame before and move together, and how many could.
        moved: median motion of these, share of the image width.
        mapped, min_mapped: number of these that saw a point of the map, and what tracking could do with.
        mono: whether points come from the parallax of a single camera only.
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
        """Share of the usual contrast; 1 where there never was any."""
        return (
            self.now.contrast / self.usual.contrast
            if self.usual.contrast >= _LEAST_CONTRAST
            else 1.0
        )


def _dark(seen: _Evidence) -> str:
    now, usual = seen.now.brightness, seen.usual.brightness
    if now > seen.limits.dark_ratio * usual or usual - now < _LEAST_DARKENING:
        return ""
    return f"brightness {now:.0f} grey levels where {usual:.0f} are usual"


def _occlusion(seen: _Evidence) -> str:
    """A small part of the image goes on as before, in one piece, and nothing of the rest does."""
    count = int(np.count_nonzero(seen.left))
    if seen.contrast < seen.limits.faded_ratio or not _LEAST_LEFT <= count <= _LEFT * seen.textured:
        return ""
    around = cv2.blur(seen.left.astype(np.float32), (3, 3), borderType=cv2.BORDER_REFLECT)
    if np.median(around[seen.left]) < _GATHERED:
        return ""
    return f"{100 * count / seen.textured:.0f} % of the image goes on as before, in one piece, and nothing of the rest"


def _blur(seen: _Evidence) -> str:
    if seen.usual.contrast < _LEAST_CONTRAST or seen.contrast < seen.limits.faded_ratio:
        return ""
    share = float(np.min(seen.now.sharpness / np.maximum(seen.usual.sharpness, 1e-9)))
    if share > seen.limits.blurred_ratio:
        return ""
    keypoints = f"{seen.keypoints} key points where {seen.usual_keypoints:.0f} are usual"
    return f"sharpness {100 * share:.0f} % of usual, {keypoints}"


def _too_few_features(seen: _Evidence) -> str:
    if (
        seen.keypoints >= seen.limits.few_ratio * seen.usual_keypoints
        and seen.contrast >= seen.limits.faded_ratio
    ):
        return ""
    return (
        f"{seen.keypoints} key points where {seen.usual_keypoints:.0f} are usual, "
        f"contrast {100 * seen.contrast:.0f} % of usual"
    )


def _jump(seen: _Evidence) -> str:
    if seen.matches < _FEW_MATCHED * seen.matchable:
        return f"{seen.matches} of {seen.keypoints} key points match the frame before"
    if seen.moved > seen.limits.max_motion_fraction:
        return f"{seen.matches} matches with the frame before moved by {100 * seen.moved:.0f} % of the image width"
    return ""


def _too_little_parallax(seen: _Evidence) -> str:
    """The view goes on, but out of the map: a single camera maps nothing that it sees from one place only."""
    if not seen.mono or seen.mapped >= min(seen.min_mapped, seen.limits.few_ratio * seen.matches):
        return ""
    return f"{seen.matches} key points match the frame before, {seen.mapped} of them are in the map"


def _unclear(seen: _Evidence) -> str:
    return (
        f"{seen.matches} of {seen.keypoints} key points match the frame before, {seen.mapped} of them are in the map, "
        "and no pose agrees with them"
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
