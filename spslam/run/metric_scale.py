"""The metric scale of a mono map, from a known length: `--scale`.

The length is `height=1.65` (camera above the ground plane, metres), `distance=A:B:METRES` (between
the camera positions at two frames), `ground-truth=A:B` (the same distance from the true poses) or
`tag=0.16` (side of the AprilTags or ArUco markers in the scene, metres).
The scale is applied once, after the run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from spslam.errors import ConfigError, ScaleError, SpslamError
from spslam.evaluation.association import associate
from spslam.interfaces import Sequence
from spslam.io.structured_text import one_line
from spslam.map.map import Map
from spslam.map.submaps import submap_numbers
from spslam.notices import counted, plural
from spslam.run.ground_plane import ground_heights
from spslam.run.tag_scale import TagSightings
from spslam.trajectory import Trajectory

if TYPE_CHECKING:
    from spslam.slam.system import Slam

logger = logging.getLogger(__name__)

# Valid forms of --scale, for error messages.
_EXPECTED = (
    "height=METRES, distance=FRAME:FRAME:METRES, ground-truth=FRAME:FRAME or "
    "tag=METRES[:DICTIONARY]"
)
# Minimum fraction and number of keyframes with a ground plane: tables and shelves are planes, too.
_LEAST_FRACTION, _LEAST_KEYFRAMES = 0.5, 3
# Maximum median deviation of the heights, fraction of their median.
_MOST_SPREAD = 0.1
# Range of lengths that are accepted, metres, and maximum number of digits of a frame number.
_LEAST_M, _MOST_M, _MOST_DIGITS = 1e-6, 1e9, 18
# Minimum distance between the two positions, fraction of the path length.
_SHORTEST_FRACTION = 1e-3


@dataclass(frozen=True)
class CameraHeight:
    """The camera is `metres` above the ground plane."""

    metres: float


@dataclass(frozen=True)
class KnownDistance:
    """The camera positions at frames `first` and `second` (indices) are `metres` apart."""

    first: int
    second: int
    metres: float


@dataclass(frozen=True)
class TrueDistance:
    """The camera positions at frames `first` and `second` are as far apart as the true ones."""

    first: int
    second: int


@dataclass(frozen=True)
class TagSize:
    """The AprilTags or ArUco markers in the scene have sides of `metres`.

    `dictionary` is OpenCV's name of their dictionary; None: one of `TAG_DICTIONARIES`.
    """

    metres: float
    dictionary: str | None = None


ScaleRequest = CameraHeight | KnownDistance | TrueDistance | TagSize


@dataclass(frozen=True)
class MetricScale:
    """A metric scale: metres per map unit, `factor`, and a one-line description of its source."""

    factor: float
    description: str


@dataclass(frozen=True)
class Scaling:
    """The metric scale of the map of a run.

    Attributes:
        source: of the scale (`Origin.scale`).
        factor: by which the map was multiplied; None if the map was not changed.
        refusal: why the requested scale could not be applied.
    """

    source: str
    factor: float | None = None
    refusal: ScaleError | None = None


def parse_scale(text: str) -> ScaleRequest:
    """Parse the value of `--scale`.

    Raises:
        ConfigError: it has none of the four forms, or impossible numbers.
    """
    kind, _, values = text.partition("=")
    cells = values.split(":")
    try:
        if kind == "height" and len(cells) == 1:
            return CameraHeight(_metres(cells[0]))
        if kind == "distance" and len(cells) == 3:
            return KnownDistance(*_frames(cells[:2]), _metres(cells[2]))
        if kind == "ground-truth" and len(cells) == 2:
            return TrueDistance(*_frames(cells))
        if kind == "tag" and len(cells) in (1, 2):
            return TagSize(_metres(cells[0]), _dictionary(cells[1]) if len(cells) == 2 else None)
    except ValueError as error:
        raise ConfigError(f"--scale {one_line(text)}: {error} (expected {_EXPECTED})") from None
    raise ConfigError(f"--scale: expected {_EXPECTED}, found {one_line(text)!r}")


def check_scale(request: ScaleRequest, sequence: Sequence, frames: range) -> None:
    """Check a request before the run.

    Args:
        request: value of `--scale`.
        sequence: to be tracked.
        frames: indices of its frames.

    Raises:
        ConfigError: the sensor is metric, the ground truth is missing, or a frame is not read.
    """
    if sequence.sensor != "mono":
        raise ConfigError(
            f"--scale is for a single camera, found {sequence.sensor}, which is metric: "
            "leave it out or give --sensor mono"
        )
    if isinstance(request, (CameraHeight, TagSize)):
        return
    for frame in (request.first, request.second):
        if frame not in frames:
            raise ConfigError(
                f"--scale: frame {frame} is not read; expected two of {_describe_frames(frames)}"
            )
    if isinstance(request, TrueDistance) and sequence.ground_truth is None:
        raise ConfigError(
            f"--scale ground-truth: {sequence.name} has none; give a height or a distance"
        )


def estimate_scale(
    request: ScaleRequest,
    slam_map: Map,
    submap: int,
    trajectory: Trajectory,
    stamps: dict[int, float],
    ground_truth: Trajectory | None = None,
    tags: TagSightings | None = None,
) -> MetricScale:
    """Estimate the metric scale of a submap.

    Args:
        request: the known length.
        slam_map: the map.
        submap: number of the submap.
        trajectory: poses of the frames in this submap, map units.
        stamps: time of each frame by its index, seconds.
        ground_truth: true poses, metres.
        tags: the tags in the keyframes, for `TagSize`.

    Raises:
        ScaleError: too few keyframes show the ground plane, a frame has no pose, or no tag was
            seen well.
    """
    if isinstance(request, CameraHeight):
        return _from_ground(request, slam_map, submap)
    if isinstance(request, TagSize):
        return _from_tags(request, slam_map, submap, tags or TagSightings())
    frames = (request.first, request.second)
    units = _distance(trajectory, _seconds(frames, stamps), frames, "pose in the main submap")
    if units <= _SHORTEST_FRACTION * trajectory.path_length_m:
        raise ScaleError(
            f"the camera was in one place at frames {frames[0]} and {frames[1]}: "
            "choose two that are farther apart"
        )
    if isinstance(request, KnownDistance):
        return MetricScale(
            request.metres / units, f"{request.metres:g} m from frame {frames[0]} to {frames[1]}"
        )
    if ground_truth is None:
        raise ScaleError(
            "there is no ground truth to take the scale from; give a height or a distance"
        )
    metres = _distance(ground_truth, _seconds(frames, stamps), frames, "ground truth")
    if not metres > 0:
        raise ScaleError(
            f"the true positions at frames {frames[0]} and {frames[1]} are one place: "
            "choose two others"
        )
    return MetricScale(
        metres / units, f"ground truth, {metres:.4g} m from frame {frames[0]} to {frames[1]}"
    )


def apply_scale(
    request: ScaleRequest | None,
    slam: Slam,
    stamps: dict[int, float],
    ground_truth: Trajectory | None,
    tags: TagSightings | None = None,
) -> Scaling:
    """Apply the metric scale to the main submap of a finished run.

    If the scale cannot be estimated, the map does not change and the result has the reason.

    Args:
        request: the known length; None: do not change the map.
        slam: the system with the map.
        stamps: time of each frame that was read by its index, seconds.
        ground_truth: true poses, metres.
        tags: the tags in the keyframes, for `TagSize`.
    """
    if request is not None:
        try:
            if slam.localization_only:
                raise ScaleError(
                    "localization does not change the scale of the map: leave --scale out"
                )
            found = estimate_scale(
                request, slam.map, slam.main_submap, slam.trajectory(), stamps, ground_truth, tags
            )
            slam.rescale(found.factor, found.description + _which_submap(slam))
        except SpslamError as error:
            logger.warning("the map keeps its scale: %s", error)
            return Scaling(
                scale_source(slam.map), refusal=ScaleError(f"results are not to scale: {error}")
            )
        logger.info("map scaled to metres, factor %.6g: %s", found.factor, found.description)
        return Scaling(scale_source(slam.map), found.factor)
    return Scaling(scale_source(slam.map))


def scale_source(slam_map: Map) -> str:
    """Return the source of the scale of a map; empty for an empty map."""
    return "" if slam_map.origin is None else slam_map.origin.scale


def _which_submap(slam: Slam) -> str:
    submaps = len(submap_numbers(slam.map))
    return f", submap {slam.main_submap} of {submaps} only" if submaps > 1 else ""


def _from_ground(request: CameraHeight, slam_map: Map, submap: int) -> MetricScale:
    found = ground_heights(slam_map, submap)
    count, of = len(found.heights), found.looked_at
    needed = max(_LEAST_KEYFRAMES, int(np.ceil(_LEAST_FRACTION * of)))
    if count < needed:
        raise ScaleError(
            f"{count} of {counted(of, 'keyframe')} {plural(count, 'shows', 'show')} the "
            f"ground plane, {needed} are needed: "
            "the camera must be level within 20° and see the ground; or give a distance"
        )
    if found.spread > _MOST_SPREAD:
        raise ScaleError(
            f"the height above the ground plane varies by {100 * found.spread:.0f} % between "
            f"keyframes, expected at most {100 * _MOST_SPREAD:.0f} %: give a distance instead"
        )
    logger.info(
        "camera %.6g map units above the ground plane, ± %.1f %%",
        found.median,
        100 * found.spread,
    )
    return MetricScale(
        request.metres / found.median,
        f"camera height {request.metres:g} m above the ground plane of "
        f"{count} of {counted(of, 'keyframe')}",
    )


def _from_tags(request: TagSize, slam_map: Map, submap: int, tags: TagSightings) -> MetricScale:
    table = slam_map.keyframes
    rows = np.flatnonzero(table["submap"] == submap)
    found = tags.measure({int(table["frame"][row]): table["T_world_cam"][row] for row in rows})
    if not len(found.sides):
        raise ScaleError(
            f"{counted(found.seen, 'tag was', 'tags were')} found in the keyframes, none of them "
            "in three that look at it from different sides: move around a flat AprilTag or ArUco "
            "marker, or give its dictionary (tag=METRES:DICT_…)"
        )
    if found.spread > _MOST_SPREAD:
        raise ScaleError(
            f"the sides of {counted(len(found.sides), 'tag')} differ by "
            f"± {100 * found.spread:.0f} %, expected at most "
            f"{100 * _MOST_SPREAD:.0f} %: tags of several sizes? Leave one size"
        )
    which = found.names[0] if len(found.names) == 1 else counted(len(found.names), "tag")
    return MetricScale(request.metres / found.median, f"side {request.metres:g} m of {which}")


def _seconds(frames: tuple[int, int], stamps: dict[int, float]) -> list[float]:
    for frame in frames:
        if frame not in stamps:
            raise ScaleError(f"frame {frame} was not read: choose another")
    return [stamps[frame] for frame in frames]


def _distance(
    trajectory: Trajectory, seconds: list[float], frames: tuple[int, int], what: str
) -> float:
    """Return the distance between two frames on a trajectory, found by their times."""
    positions = []
    for frame, second in zip(frames, seconds, strict=True):
        moment = Trajectory(np.array([second]), np.eye(4)[None])
        try:
            row = int(associate(moment, trajectory).ground_truth[0])
        except SpslamError:
            raise ScaleError(f"frame {frame} has no {what}: choose another") from None
        positions.append(trajectory.positions[row])
    return float(np.linalg.norm(positions[1] - positions[0]))


def _metres(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not _LEAST_M <= value <= _MOST_M:
        raise ValueError(
            f"metres must be a number from {_LEAST_M:g} to {_MOST_M:g}, found {one_line(text)!r}"
        )
    return value


def _dictionary(name: str) -> str:
    full = name if name.startswith("DICT_") else f"DICT_{name}"
    known = sorted(key for key in dir(cv2.aruco) if key.startswith("DICT_"))
    if full not in known:
        raise ValueError(
            f"the dictionary must be one of OpenCV's ({', '.join(known)}), found {one_line(name)!r}"
        )
    return full


def _frames(cells: list[str]) -> tuple[int, int]:
    frames = [int(cell) if cell.isdecimal() and len(cell) <= _MOST_DIGITS else -1 for cell in cells]
    if min(frames) < 0 or frames[0] == frames[1]:
        raise ValueError(
            "two different frames are needed, counted from 0, found "
            f"{' and '.join(map(one_line, cells))}"
        )
    return frames[0], frames[1]


def _describe_frames(frames: range) -> str:
    every = "" if frames.step == 1 else f", every {frames.step}th"
    return f"{frames.start} to {frames[-1]}{every}" if len(frames) else "no frames"
