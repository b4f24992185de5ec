"""Find points fixed to the camera's carrier: a bonnet, a robot's arm, dirt on the lens, text.

They keep their place in the image while the camera moves. They therefore contradict every motion
except standstill, and a map that contains them follows them. A point of the world also keeps its
place if the camera stands still, if the point is far away and the camera does not turn, or if
rotation and translation cancel at its depth. A point therefore counts as fixed only if the motion
of the other points allows no depth at which a point of the world would keep its place. With a
measured depth the test is whether a point of the world at that depth would have moved.

Keypoints are followed while they are found at the same place with a similar descriptor. This is
cheap, and few points of the world last long. Only the points that last are compared with the motion
of the others.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.backend_interfaces import PoseSolver, TwoViewSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import Matcher
from spslam.map.map import Map
from spslam.map.table import Table
from spslam.notices import counted, notice
from spslam.slam.track_results import hull_fraction
from spslam.typing import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)

# Number of first frames that are all processed, to find fixed points early; then every other frame.
_EVERY_FRAME = 30
# Processed frames in a row without a match after which a point is dropped.
_GRACE = 5
# The same for a point that is known to be fixed.
_FIXED_GRACE = 60
# Least age of a candidate, processed frames.
_LEAST_AGE = 3
# Least fraction of its frames in which a candidate was found.
_FOUND_FRACTION = 0.6
# Least number of candidates to test once some points are known to be fixed.
_LEAST_MORE = 3
# Age of the past frame that the other points are compared with, processed frames: largest, initial
# and smallest.
_REACH = 30
_FIRST_REACH = 8
_LEAST_REACH = 3
# Largest number of other keypoints to keep of a past frame.
_MOST_OTHERS = 300
# Least number of other points that must be found again and have moved.
_LEAST_OTHERS = 30
# Motion above which another point has moved, pixels.
_MOVED_PX = 1.5
# Least fraction of the moved points that must agree with one motion.
_AGREE = 0.5
# With measured depth, a point agrees with a motion within this error, pixels ...
_AGREE_PX = 2.0
# ... plus this fraction of its own motion (error of its depth).
_AGREE_FRACTION = 0.1
# A depth without parallax, metres.
_FAR_M = 1e6
# The convex hull of the agreeing points must cover at least this fraction of the image ...
_LEAST_HULL = 0.25
# ... and that of the points that stay in place. Otherwise the agreeing points may be an object that
# moves while the camera stands still. Text in the corners of the image has a large hull, but few
# points in between: this fraction of its hull suffices if the agreeing points occupy ...
_HULL_RATIO = 0.8
# ... this multiple of the cells that the points in place occupy ...
_CELL_RATIO = 1.5
# ... with this number of cells in a row.
_AREA_COLUMNS = 16
# Least fraction of the tested candidates that contradict the motion; fewer have a wrong depth.
_AGAINST = 0.2
# Processed frames between two tests: initially and after a contradiction.
_PAUSE = 2
# The same at most where the other points moved too little for a test.
_SLOW_PAUSE = 4
# The same at most after tests without a contradiction; each such test doubles the pause.
_LONGEST_PAUSE = 32
# Columns of the grid of image cells that marks fixed areas.
_COLUMNS = 40
# A cell is fixed with at least this number of fixed points in its 3 x 3 neighbourhood ...
_LEAST_AROUND = 3.0
# ... and if this number is at least this multiple of the moving points there.
_MAJORITY = 3.0
# Factor on the counts of moving points at each test.
_FORGET = 0.9


@dataclass(frozen=True, eq=False)
class _Past:
    """A past frame with some of its keypoints that were not followed."""

    number: int
    others: Observations


class BodyFixed:
    """Finds the keypoints that are fixed to the camera's carrier.

    Args:
        config: of all stages.
        matcher: matches keypoints.
        two_view: tests points without depth.
        pose_solver: estimates the motion of points with depth.
        max_descriptor_distance: largest L2 distance of matching unit descriptors.

    Attributes:
        found: number of points that the latest frame newly proved to be fixed.
        first_frame: index of the first frame with one of these points.
        left_out: fraction of the keypoints that `without` removed, by index of the frame.
    """

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        two_view: TwoViewSolver,
        pose_solver: PoseSolver,
        max_descriptor_distance: float,
    ) -> None:
        self._config = config.body_fixed
        self._ratio = config.tracking.ratio
        self._matcher = matcher
        self._two_view = two_view
        self._pose_solver = pose_solver
        self._max_descriptor_distance = max_descriptor_distance
        self.found = self.first_frame = 0
        self.left_out: dict[int, float] = {}
        self._number = 0
        self._passed = False
        self._past: deque[_Past] = deque(maxlen=_REACH)
        # The frame before, and which of its keypoints were not followed.
        self._fresh: tuple[Observations, BoolArray] | None = None
        self._points: Table | None = None
        self._reach = float(_FIRST_REACH)
        self._pause, self._next_look = _PAUSE, 0
        self._moving: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self._cells: BoolArray | None = None

    @property
    def any(self) -> bool:
        """Whether any point is fixed."""
        return self._points is not None and bool(self._points["fixed"].any())

    def without(self, observations: Observations, camera: Camera) -> Observations:
        """Return the observations without fixed points, and record the fraction removed."""
        if not self.any:
            return observations
        fixed = self.of(observations, camera)
        if not fixed.any():
            return observations
        self.left_out[observations.index] = float(np.mean(fixed))
        return observations.select(~fixed)

    def take_out(self, slam_map: Map, camera: Camera) -> None:
        """Remove the points of this run that keyframes see in fixed areas of the image."""
        keyframes = slam_map.keyframes
        mine = (keyframes["session"] == slam_map.session) & (keyframes["frame"] >= self.first_frame)
        for keyframe_id in keyframes["id"][mine].tolist():
            rows = slam_map.observation_rows(keyframe_id)
            fixed = self.of(slam_map.observations_of(keyframe_id), camera)
            slam_map.remove_points(np.unique(slam_map.observations["point"][rows][fixed]))

    def tell(self) -> None:
        """Notify the user how many keypoints were left out."""
        if self.left_out:
            notice(
                logger,
                "body_fixed_points",
                "%.0f %% of the keypoints stayed in place in the image while the rest moved, and "
                "were left out in %s: they belong to the vehicle or robot, to dirt on the "
                "lens or to text in the image; --mask auto leaves them out from the first frame on",
                100 * np.mean(list(self.left_out.values())),
                counted(len(self.left_out), "frame"),
                count=len(self.left_out),
            )

    def update(self, observations: Observations, camera: Camera) -> None:
        """Process the next frame, with all its observations."""
        self.found = 0
        if len(observations) < _LEAST_OTHERS:
            # A black frame has no information.
            return
        self._passed = not self._passed and self._number >= _EVERY_FRAME
        if self._passed:
            return
        self._number += 1
        others = self._follow(observations)
        candidates = self._candidates()
        if len(candidates) >= self._least(observations) and self._number >= self._next_look:
            self._look(observations, others, candidates, camera)
        # Keep a subset only: 30 frames with all descriptors take 15 MB.
        some = others[:: -(-max(len(others), 1) // _MOST_OTHERS)]
        self._past.append(_Past(self._number, observations.select(some)))

    def of(self, observations: Observations, camera: Camera) -> BoolArray:
        """(N,) which keypoints of a frame are fixed, by current knowledge."""
        mask = np.zeros(len(observations), dtype=bool)
        if not self.any or self._points is None or len(observations) == 0:
            return mask
        fixed = self._points["fixed"]
        matches0 = self._matcher.match_near(
            self._points["pixel"][fixed],
            self._points["descriptor"][fixed],
            observations.pixels,
            observations.descriptors,
            self._config.radius_px,
            self._max_descriptor_distance,
        )
        mask[matches0[matches0 >= 0]] = True
        if self._cells is not None:
            mask |= self._cells[_cell(observations.pixels, camera)]
        return mask

    # -- steps of `update` -------------------------------------------------------------------------

    def _follow(self, observations: Observations) -> IntArray:
        """Find the followed points again; return the rows (M,) of the other keypoints."""
        if self._points is None:
            self._points = _table(observations.descriptors.shape[1])
        points = self._points
        matches0 = self._matcher.match_near(
            points["pixel"],
            points["descriptor"],
            observations.pixels,
            observations.descriptors,
            self._config.radius_px,
            self._max_descriptor_distance,
        )
        seen = np.flatnonzero(matches0 >= 0)
        points["hits"][seen] += 1
        points["seen"][seen] = self._number
        depth = observations.depth[matches0[seen]]
        points["depth"][seen] = np.where(np.isfinite(depth), depth, points["depth"][seen])
        left = np.ones(len(observations), dtype=bool)
        left[matches0[seen]] = False
        grace = np.where(points["fixed"], _FIXED_GRACE, _GRACE)
        points.keep(self._number - points["seen"] <= grace)

        others = np.flatnonzero(left)
        if self._fresh is not None:
            before, free = self._fresh
            # NaN pixels match nothing.
            matches0 = self._matcher.match_near(
                np.where(free[:, None], before.pixels, np.nan),
                before.descriptors,
                np.where(left[:, None], observations.pixels, np.nan),
                observations.descriptors,
                self._config.radius_px,
                self._max_descriptor_distance,
            )
            there = np.flatnonzero(matches0 >= 0)
            now = matches0[there]
            points.append(
                len(there),
                pixel=before.pixels[there],
                descriptor=observations.descriptors[now],
                depth=observations.depth[now],
                born=self._number - 1,
                frame=before.index,
                hits=2,
                seen=self._number,
                evidence=0,
                fixed=False,
            )
            left[now] = False
        self._fresh = observations, left
        return others

    def _least(self, observations: Observations) -> float:
        """Least number of points that count: lower once some points are known to be fixed."""
        return (
            _LEAST_MORE
            if self.any
            else max(self._config.min_points, self._config.min_fraction * len(observations))
        )

    def _candidates(self) -> IntArray:
        """Rows of the points that keep their place and are not known to be fixed."""
        points = self._points
        assert points is not None
        age = self._number - points["born"]
        stays = (
            (age >= _LEAST_AGE)
            & (points["hits"] >= _FOUND_FRACTION * (age + 1))
            & (points["seen"] == self._number)
        )
        return np.flatnonzero(stays & ~points["fixed"])

    def _look(
        self, observations: Observations, others: IntArray, candidates: IntArray, camera: Camera
    ) -> None:
        """Test the candidates against the motion of the other points."""
        points = self._points
        assert points is not None
        past = next(
            (past for past in self._past if self._number - past.number <= self._reach),
            self._past[0],
        )
        old = candidates[points["born"][candidates] <= past.number]
        distance = self._contradictions(past, observations, others, old, camera)
        if distance is None:
            self._next_look = self._number + min(self._pause, _SLOW_PAUSE)
            return
        against = distance > self._config.contradiction_px
        enough = np.count_nonzero(against) >= max(self._least(observations), _AGAINST * len(old))
        weight = np.where(distance > 2 * self._config.contradiction_px, 2, 1)
        evidence = points["evidence"]
        evidence[old] = np.where(
            against, evidence[old] + enough * weight, np.maximum(evidence[old] - 1, 0)
        )
        proven = old[evidence[old] >= self._config.min_evidence]
        points["fixed"][proven] = True
        self.found = len(proven)
        self._pause = _PAUSE if enough else min(2 * self._pause, _LONGEST_PAUSE)
        self._next_look = self._number + self._pause
        if self.found:
            self.first_frame = int(points["frame"][proven].min())
            self._cells = self._fixed_cells(camera)

    def _contradictions(
        self,
        past: _Past,
        observations: Observations,
        others: IntArray,
        old: IntArray,
        camera: Camera,
    ) -> FloatArray | None:
        """Distance of candidates (M,) from any position possible for a point of the world, pixels.

        Returns:
            None if the other points do not determine the motion.
        """
        points = self._points
        assert points is not None
        matches0 = self._matcher.match(
            past.others.descriptors,
            observations.descriptors[others],
            self._max_descriptor_distance,
            self._ratio,
        )
        before = np.flatnonzero(matches0 >= 0)
        now = others[matches0[before]]
        motion = np.linalg.norm(observations.pixels[now] - past.others.pixels[before], axis=1)
        moved = motion > _MOVED_PX
        if np.count_nonzero(moved) < _LEAST_OTHERS:
            # Either few points were found again, or few moved.
            self._reach *= 0.7 if len(motion) < _LEAST_OTHERS else 1.4
            self._reach = float(np.clip(self._reach, _LEAST_REACH, _REACH))
            return None
        if np.median(motion[moved]) < self._config.min_motion_px:
            self._reach = min(1.4 * self._reach, float(_REACH))
            return None
        if len(old) == 0:
            return None
        before, now = before[moved], now[moved]
        judged = self._by_depth(past, observations, before, now, old, camera)
        without = np.ones(len(old), dtype=bool) if judged is None else np.isnan(judged[1])
        if without.any():
            by_lines = self._two_view.standstill(
                past.others.pixels[before],
                observations.pixels[now],
                points["pixel"][old[without]],
                camera,
            )
            if judged is None:
                judged = by_lines
            else:
                judged[1][without] = 0.0 if by_lines is None else by_lines[1]
        if judged is None:
            return None
        agree, distance = judged
        if np.count_nonzero(agree) < max(_LEAST_OTHERS, _AGREE * len(agree)):
            return None
        if not _cover_more(observations.pixels[now[agree]], self._in_place(old), camera):
            return None
        self._count_moving(observations.pixels[now[agree]], camera)
        return distance

    def _in_place(self, old: IntArray) -> FloatArray:
        """Pixels (K, 2) of the points that stay in place: `old` (rows), and the fixed points.

        Before any point is fixed, all candidates count: a wall behind a moving object has few
        corners that last. Later, points of the world stay whenever the camera stops.
        """
        points = self._points
        assert points is not None
        fixed = np.flatnonzero(points["fixed"])
        others = fixed if len(fixed) else self._candidates()
        return np.asarray(points["pixel"][np.union1d(old, others)])

    def _by_depth(
        self,
        past: _Past,
        observations: Observations,
        before: IntArray,
        now: IntArray,
        old: IntArray,
        camera: Camera,
    ) -> tuple[BoolArray, FloatArray] | None:
        """Test candidates with measured depth.

        Returns:
            Which of the other points agree with a motion, and how far each candidate would have
            moved with it, pixels (NaN without depth). None if too few depths are known.
        """
        points = self._points
        assert points is not None
        depth = past.others.depth[before]
        known = np.flatnonzero(np.isfinite(depth))
        if not camera.has_depth or len(known) < _LEAST_OTHERS:
            return None
        before, now = before[known], now[known]
        world = camera.unproject(past.others.pixels[before], depth[known])
        estimate = self._pose_solver.ransac(
            world,
            observations.pixels[now],
            observations.u_right[now],
            camera,
            relative_sigma=observations.relative_sigma[now],
        )
        if estimate is None:
            return None
        motion = np.linalg.norm(observations.pixels[now] - past.others.pixels[before], axis=1)
        error = np.linalg.norm(
            camera.project(geometry.apply(estimate.T_cam_world, world)) - observations.pixels[now],
            axis=1,
        )
        # The error of a depth causes a proportional error of the motion.
        right = error < _AGREE_PX + _AGREE_FRACTION * motion
        # Points without depth are counted as the majority of the points with depth.
        agree = np.full(len(depth), np.mean(right) >= _AGREE)
        agree[known] = right
        pixels = points["pixel"][old]
        there = camera.project(
            geometry.apply(estimate.T_cam_world, camera.unproject(pixels, points["depth"][old]))
        )
        far = camera.unproject(pixels, np.full(len(pixels), _FAR_M))
        parallax = np.linalg.norm(
            there - camera.project(geometry.apply(estimate.T_cam_world, far)), axis=1
        )
        return agree, np.linalg.norm(there - pixels, axis=1) - _AGREE_FRACTION * parallax

    def _count_moving(self, pixels: FloatArray, camera: Camera) -> None:
        """Add moving points to the counts of the cells."""
        counts = _histogram(pixels, camera)
        if self._moving.shape != counts.shape:
            self._moving = np.zeros_like(counts)
        self._moving *= np.float32(_FORGET)
        self._moving += counts

    def _fixed_cells(self, camera: Camera) -> BoolArray:
        """Return which cells of the image are fixed."""
        points = self._points
        assert points is not None
        fixed = _around(_histogram(points["pixel"][points["fixed"]], camera))
        moving = _around(self._moving)
        cells = (fixed >= _LEAST_AROUND) & (fixed >= _MAJORITY * moving)
        square = np.ones((3, 3), np.uint8)
        closed = cv2.morphologyEx(cells.astype(np.uint8), cv2.MORPH_CLOSE, square) > 0
        inside = closed & (fixed >= _MAJORITY * moving)
        # At the edge of the carrier there are few fixed points, and others that slide along it.
        beside = cv2.dilate(inside.astype(np.uint8), square) > 0
        return inside | (beside & (fixed >= 1.0) & (fixed >= _MAJORITY * moving))


def _table(descriptor_size: int) -> Table:
    """Make the table of points that keep their place.

    Columns: `pixel` (2,) first position, `descriptor`, `depth` m, `born` (number of the first
    processed frame), `frame` (its index), `hits` (number of matches), `seen` (number of the last
    frame), `evidence`, `fixed`.
    """
    return Table(
        pixel=(np.float64, (2,)),
        descriptor=(np.float32, (descriptor_size,)),
        depth=(np.float64, ()),
        born=(np.int64, ()),
        frame=(np.int64, ()),
        hits=(np.int64, ()),
        seen=(np.int64, ()),
        evidence=(np.int64, ()),
        fixed=(np.bool_, ()),
    )


def _cover_more(moving: FloatArray, in_place: FloatArray, camera: Camera) -> bool:
    """Whether pixels (M, 2) that move cover more of the image than those (K, 2) in place."""
    hull, other = hull_fraction(moving, camera), hull_fraction(in_place, camera)
    if hull < _LEAST_HULL:
        return False
    if hull >= other:
        return True
    occupied, other_cells = (
        len(np.unique(np.floor(pixels * (_AREA_COLUMNS / camera.width)), axis=0))
        for pixels in (moving, in_place)
    )
    return hull >= _HULL_RATIO * other and occupied >= _CELL_RATIO * other_cells


def _cell(pixels: FloatArray, camera: Camera) -> tuple[IntArray, IntArray]:
    """Row and column of the cell of each pixel (N, 2)."""
    side = camera.width / _COLUMNS
    rows = -(-camera.height * _COLUMNS // camera.width)
    place = np.floor((pixels + 0.5) / side).astype(np.int64)
    return np.clip(place[:, 1], 0, rows - 1), np.clip(place[:, 0], 0, _COLUMNS - 1)


def _histogram(pixels: FloatArray, camera: Camera) -> NDArray[np.float32]:
    """Number of pixels (N, 2) in each cell."""
    counts = np.zeros((-(-camera.height * _COLUMNS // camera.width), _COLUMNS), dtype=np.float32)
    np.add.at(counts, _cell(pixels, camera), 1.0)
    return counts


def _around(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of each cell and its eight neighbours."""
    summed = cv2.boxFilter(counts, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return summed.astype(np.float32, copy=False)
