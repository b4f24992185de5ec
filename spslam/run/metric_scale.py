"""The size of a map that a single camera made: from something known in metres.

`height=1.65` (of the camera over the ground), `distance=A:B:METRES` (between the camera's positions at two frames) or
`ground-truth=A:B` (the same from the sequence's true poses, which says so). Applied once, when the run is over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import ConfigError, ScaleError, SpslamError
from spslam.evaluation.association import associate
from spslam.interfaces import Sequence
from spslam.io.structured_text import one_line
from spslam.map.map import Map
from spslam.run.ground_plane import ground_heights
from spslam.trajectory import Trajectory

if TYPE_CHECKING:
    from spslam.slam.system import Slam

logger = logging.getLogger(__name__)

_EXPECTED = "height=METRES, distance=FRAME:FRAME:METRES or ground-truth=FRAME:FRAME"
# Which share of the key frames must show a ground, and how many at least: tables and shelves make planes, too.
_LEAST_SHARE, _LEAST_KEYFRAMES = 0.5, 3
# How much the heights may differ (median deviation, as a share) for one to be known.
_MOST_SPREAD = 0.1
# Metres, and digits of a frame's number, that somebody means.
_LEAST_M, _MOST_M, _MOST_DIGITS = 1e-6, 1e9, 18
# Positions this much closer than the path is long tell nothing.
_SHORTEST_SHARE = 1e-3


@dataclass(frozen=True)
class CameraHeight:
    """The camera is `metres` over the ground."""

    metres: float


@dataclass(frozen=True)
class KnownDistance:
    """The camera's positions at the frames `first` and `second` (indices in the sequence) are `metres` apart."""

    first: int
    second: int
    metres: float


@dataclass(frozen=True)
class TrueDistance:
    """They are as far apart as the ground truth says."""

    first: int
    second: int


ScaleRequest = CameraHeight | KnownDistance | TrueDistance


@dataclass(frozen=True)
class MetricScale:
    """What makes map units metres: a `factor`, and where it comes from, one line."""

    factor: float
    description: str


@dataclass(frozen=True)
class Scaling:
    """What became of the size of a run's map.

    Attributes:
        source: where it comes from (`Origin.scale`).
        factor: what the map was multiplied by; None if it was left as it is.
        refusal: why it could not be given the size that was asked for.
    """

    source: str
    factor: float | None = None
    refusal: ScaleError | None = None


def parse_scale(text: str) -> ScaleRequest:
    """What `--scale` asks for.

    Raises:
        ConfigError: it is none of the three, or has impossible numbers.
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
    except ValueError as error:
        raise ConfigError(f"--scale {one_line(text)}: {error} (expected {_EXPECTED})") from None
    raise ConfigError(f"--scale: expected {_EXPECTED}, found {one_line(text)!r}")


def check_scale(request: ScaleRequest, sequence: Sequence, frames: range) -> None:
    """Refuse before the run what cannot be done after it.

    Args:
        request: what is asked for.
        sequence: to be tracked.
        frames: indices of its frames.

    Raises:
        ConfigError: the sensor knows metres by itself, there is no ground truth, or no such frame.
    """
    if sequence.sensor != "mono":
        raise ConfigError(
            f"--scale is for a single camera, found {sequence.sensor}, which measures metres itself: "
            "leave it out or give --sensor mono"
        )
    if isinstance(request, CameraHeight):
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
    part: int,
    trajectory: Trajectory,
    stamps: dict[int, float],
    ground_truth: Trajectory | None = None,
) -> MetricScale:
    """What makes the units of a map metres.

    Args:
        request: what is known.
        slam_map, part: whose size is asked for.
        trajectory: poses of the frames in that part, map units.
        stamps: seconds, of each frame by its index.
        ground_truth: true poses, metres.

    Raises:
        ScaleError: too few key frames show a ground, or a frame has no pose.
    """
    if isinstance(request, CameraHeight):
        return _from_ground(request, slam_map, part)
    frames = (request.first, request.second)
    units = _distance(
        trajectory, _seconds(frames, stamps), frames, "pose in the main part of the map"
    )
    if units <= _SHORTEST_SHARE * trajectory.path_length_m:
        raise ScaleError(
            f"the camera was in one place at frames {frames[0]} and {frames[1]}: choose two that are farther apart"
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
            f"the ground truth of frames {frames[0]} and {frames[1]} is one place: choose two others"
        )
    return MetricScale(
        metres / units, f"ground truth, {metres:.4g} m from frame {frames[0]} to {frames[1]}"
    )


def apply_scale(
    request: ScaleRequest | None,
    slam: Slam,
    stamps: dict[int, float],
    ground_truth: Trajectory | None,
) -> Scaling:
    """Give the main part of a finished run's map its size in metres.

    Where that cannot be done, the map stays as it is: the reason is in the result.

    Args:
        request: what is known; None leaves the map as it is.
        slam: whose map it is.
        stamps: seconds, of each frame that was read by its index.
        ground_truth: true poses, metres.
    """
    if request is not None:
        try:
            if not slam.mapping:
                raise ScaleError(
                    "a map that is only tracked against keeps its size: leave --scale out"
                )
            found = estimate_scale(
                request, slam.map, slam.main_part, slam.trajectory(), stamps, ground_truth
            )
            slam.rescale(found.factor, found.description + _which_part(slam))
        except SpslamError as error:
            logger.warning("the map keeps its size: %s", error)
            return Scaling(
                scale_source(slam.map), refusal=ScaleError(f"results are not to scale: {error}")
            )
        logger.info("map units made metres, factor %.6g: %s", found.factor, found.description)
        return Scaling(scale_source(slam.map), found.factor)
    return Scaling(scale_source(slam.map))


def scale_source(slam_map: Map) -> str:
    """Where the size of a map comes from; empty as long as it holds nothing."""
    return "" if slam_map.origin is None else slam_map.origin.scale


def _which_part(slam: Slam) -> str:
    parts = len(slam.map.parts)
    return f", part {slam.main_part} of {parts} only" if parts > 1 else ""


def _from_ground(request: CameraHeight, slam_map: Map, part: int) -> MetricScale:
    found = ground_heights(slam_map, part)
    count, of = len(found.heights), found.looked_at
    needed = max(_LEAST_KEYFRAMES, int(np.ceil(_LEAST_SHARE * of)))
    if count < needed:
        raise ScaleError(
            f"{count} of {of} key frames show the ground below the camera, {needed} are needed: "
            "the camera must be level within 20° and see it; or give a distance"
        )
    if found.spread > _MOST_SPREAD:
        raise ScaleError(
            f"the height over the ground varies by {100 * found.spread:.0f} % between key frames, "
            f"expected at most {100 * _MOST_SPREAD:.0f} %: give a distance instead"
        )
    logger.info(
        "camera %.6g map units over the ground, ± %.1f %%", found.median, 100 * found.spread
    )
    return MetricScale(
        request.metres / found.median,
        f"camera height {request.metres:g} m over the ground of {count} of {of} key frames",
    )


def _seconds(frames: tuple[int, int], stamps: dict[int, float]) -> list[float]:
    for frame in frames:
        if frame not in stamps:
            raise ScaleError(f"frame {frame} was not read: choose another")
    return [stamps[frame] for frame in frames]


def _distance(
    trajectory: Trajectory, seconds: list[float], frames: tuple[int, int], what: str
) -> float:
    """How far apart two frames are on a trajectory, each by its time."""
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


def _frames(cells: list[str]) -> tuple[int, int]:
    frames = [int(cell) if cell.isdecimal() and len(cell) <= _MOST_DIGITS else -1 for cell in cells]
    if min(frames) < 0 or frames[0] == frames[1]:
        raise ValueError(
            f"two different frames are needed, counted from 0, found {' and '.join(map(one_line, cells))}"
        )
    return frames[0], frames[1]


def _describe_frames(frames: range) -> str:
    every = "" if frames.step == 1 else f", every {frames.step}th"
    return f"{frames.start} to {frames[-1]}{every}" if len(frames) else "no frames"
