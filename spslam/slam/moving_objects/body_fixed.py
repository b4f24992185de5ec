"""Points that belong to what carries the camera: a bonnet, a robot's arm, dirt on the lens, text in the image.

They stay in place in the image while the camera moves, so that they contradict every motion but none, and a map that
takes them in follows them. A point of the world stays in place, too, where the camera stands still, where it is far
away and the camera does not turn, or where turning and moving cancel out at its depth. So that a point counts as fixed
to the body only where the motion of all the other points allows no depth at which a point of the world would have
stayed there; with a measured depth: where a point of the world at that depth would have left.

Key points are followed as long as they are found again in the same place with the same look, which is cheap and which
hardly any point of the world is for long. Only where some are is the motion of the others looked at.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import Matcher, PoseSolver, TwoViewSolver
from spslam.map.map import Map
from spslam.map.table import Table
from spslam.notices import notice
from spslam.slam.loops.loop_closing import keyframe_observations
from spslam.slam.tracking import hull_share

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]

# So many frames are all taken in, so that what is there from the beginning is found early; then every other is.
_EVERY_FRAME = 30
# Frames that a point may be missed in a row; one that is known to be fixed to the body.
_GRACE, _FIXED_GRACE = 5, 60
# A candidate was followed so long, frames, and found in this share of them.
_LEAST_AGE, _FOUND_SHARE = 3, 0.6
# Least number of candidates that are tested where some points are known to be fixed.
_LEAST_MORE = 3
# How far back the other points are compared with, frames: at most, at first, and at least.
_REACH, _FIRST_REACH, _LEAST_REACH = 30, 8, 3
# The others: how many are compared with, how many must be found, at how much a point counts as moved, pixels; the share
# of them that must move alike.
_MOST_OTHERS, _LEAST_OTHERS, _MOVED_PX, _AGREE = 300, 30, 1.5, 0.5
# By depth: what they may be off and move alike still, pixels and share of the motion.
_AGREE_PX, _AGREE_SHARE = 2.0, 0.1
# As good as infinitely far, metres.
_FAR_M = 1e6
# Their hull covers at least this share of the image, and this share of that of the candidates: otherwise it is they
# that move in front of a camera that stands still.
_LEAST_HULL, _HULL_RATIO = 0.25, 0.8
# Fewer than this share of the candidates are those of which a depth is wrong.
_AGAINST = 0.2
# Frames from one look to the next: at first, at most where the others moved too little to tell, and at most where
# they told of no contradiction.
_PAUSE, _SLOW_PAUSE, _LONGEST_PAUSE = 2, 4, 32
# Cells of the image that hold fixed points: columns; fixed points in and around one that make all of it fixed, and how
# many times those that move these must be.
_COLUMNS, _LEAST_AROUND, _MAJORITY = 40, 3.0, 3.0
_FORGET = 0.9


@dataclass(frozen=True, eq=False)
class _Past:
    """A frame, and some of its key points that were not followed in their places."""

    number: int
    others: Observations


class BodyFixed:
    """Finds the key points that are fixed to the body which carries the camera.

    Args:
        max_distance: largest L2 distance of matching unit descriptors.

    Attributes:
        found: number of points that the latest frame proved to be fixed and that were not known before.
        first_frame: index of the first frame that showed one of these.
        left_out: share of the key points that `without` left out, by the index of the frame.
    """

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        two_view: TwoViewSolver,
        pose_solver: PoseSolver,
        max_distance: float,
    ) -> None:
        self._config = config.body_fixed
        self._ratio = config.tracking.ratio
        self._matcher = matcher
        self._two_view = two_view
        self._pose_solver = pose_solver
        self._max_distance = max_distance
        self.found = self.first_frame = 0
        self.left_out: dict[int, float] = {}
        self._number = 0
        self._passed = False
        self._past: deque[_Past] = deque(maxlen=_REACH)
        # The frame before, and which of its key points were not followed.
        self._fresh: tuple[Observations, Mask] | None = None
        self._points: Table | None = None
        self._reach = float(_FIRST_REACH)
        self._pause, self._next_look = _PAUSE, 0
        self._moving: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self._cells: Mask | None = None

    @property
    def any(self) -> bool:
        """Whether anything is fixed to the body."""
        return self._points is not None and bool(self._points["fixed"].any())

    def without(self, observations: Observations, camera: Camera) -> Observations:
        """The observations without those of what carries the camera; what share that was is remembered."""
        if not self.any:
            return observations
        fixed = self.of(observations, camera)
        if not fixed.any():
            return observations
        self.left_out[observations.index] = float(np.mean(fixed))
        return observations.select(~fixed)

    def take_out(self, slam_map: Map, camera: Camera) -> None:
        """Remove the points of this run that keyframes see where the camera's carrier is."""
        keyframes = slam_map.keyframes
        mine = (keyframes["session"] == slam_map.session) & (keyframes["frame"] >= self.first_frame)
        for keyframe_id in keyframes["id"][mine].tolist():
            rows = slam_map.observation_rows(keyframe_id)
            fixed = self.of(keyframe_observations(slam_map, keyframe_id), camera)
            slam_map.remove_points(np.unique(slam_map.observations["point"][rows][fixed]))

    def tell(self) -> None:
        """Notice how many key points were left out."""
        if self.left_out:
            notice(
                logger,
                "body_fixed_points",
                "%.0f %% of the key points stayed in place in the image while the rest moved, and were left out in %d "
                "frames: they belong to the vehicle or robot, to dirt on the lens or to text in the image",
                100 * np.mean(list(self.left_out.values())),
                len(self.left_out),
                count=len(self.left_out),
            )

    def update(self, observations: Observations, camera: Camera) -> None:
        """Take in the next frame, whole."""
        self.found = 0
        if len(observations) < _LEAST_OTHERS:
            # A black frame says nothing.
            return
        self._passed = not self._passed and self._number >= _EVERY_FRAME
        if self._passed:
            return
        self._number += 1
        others = self._follow(observations)
        candidates = self._candidates()
        if len(candidates) >= self._least(observations) and self._number >= self._next_look:
            self._look(observations, others, candidates, camera)
        # Some of them, and not the whole frame: thirty frames of descriptors are 15 MB.
        some = others[:: -(-max(len(others), 1) // _MOST_OTHERS)]
        self._past.append(_Past(self._number, observations.select(some)))

    def of(self, observations: Observations, camera: Camera) -> Mask:
        """Which key points (N,) of a frame are fixed to the body, as far as is known now."""
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
            self._max_distance,
        )
        mask[matches0[matches0 >= 0]] = True
        if self._cells is not None:
            mask |= self._cells[_cell(observations.pixels, camera)]
        return mask

    # -- steps of `update` -------------------------------------------------------------------------

    def _follow(self, observations: Observations) -> Ids:
        """Find the points in their places again; the key points (M,) that are none of them."""
        if self._points is None:
            self._points = _table(observations.descriptors.shape[1])
        points = self._points
        matches0 = self._matcher.match_near(
            points["pixel"],
            points["descriptor"],
            observations.pixels,
            observations.descriptors,
            self._config.radius_px,
            self._max_distance,
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
            # Pixels that are no numbers match nothing.
            matches0 = self._matcher.match_near(
                np.where(free[:, None], before.pixels, np.nan),
                before.descriptors,
                np.where(left[:, None], observations.pixels, np.nan),
                observations.descriptors,
                self._config.radius_px,
                self._max_distance,
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
        """How many points are enough to count: where some are fixed, a few more may well be."""
        return (
            _LEAST_MORE
            if self.any
            else max(self._config.min_points, self._config.min_fraction * len(observations))
        )

    def _candidates(self) -> Ids:
        """Rows of the points that stay in place and are not known to be fixed."""
        points = self._points
        assert points is not None
        age = self._number - points["born"]
        stays = (
            (age >= _LEAST_AGE)
            & (points["hits"] >= _FOUND_SHARE * (age + 1))
            & (points["seen"] == self._number)
        )
        return np.flatnonzero(stays & ~points["fixed"])

    def _look(
        self, observations: Observations, others: Ids, candidates: Ids, camera: Camera
    ) -> None:
        """Compare the candidates with how the other points move."""
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
        self, past: _Past, observations: Observations, others: Ids, old: Ids, camera: Camera
    ) -> Array | None:
        """How far candidates (M,) are from where a point of the world could be now, pixels; None where the others do
        not tell.
        """
        points = self._points
        assert points is not None
        matches0 = self._matcher.match(
            past.others.descriptors,
            observations.descriptors[others],
            self._max_distance,
            self._ratio,
        )
        before = np.flatnonzero(matches0 >= 0)
        now = others[matches0[before]]
        motion = np.linalg.norm(observations.pixels[now] - past.others.pixels[before], axis=1)
        moved = motion > _MOVED_PX
        if np.count_nonzero(moved) < _LEAST_OTHERS:
            # Either hardly anything is found again, or hardly anything moves.
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
        hull = hull_share(observations.pixels[now[agree]], camera)
        if hull < max(_LEAST_HULL, _HULL_RATIO * hull_share(points["pixel"][old], camera)):
            return None
        self._count_moving(observations.pixels[now[agree]], camera)
        return distance

    def _by_depth(
        self,
        past: _Past,
        observations: Observations,
        before: Ids,
        now: Ids,
        old: Ids,
        camera: Camera,
    ) -> tuple[Mask, Array] | None:
        """Which of the others agree with a motion, and how far candidates would have moved with it; NaN where no depth
        is known. None where too few depths are.
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
            world, observations.pixels[now], observations.u_right[now], camera
        )
        if estimate is None:
            return None
        motion = np.linalg.norm(observations.pixels[now] - past.others.pixels[before], axis=1)
        error = np.linalg.norm(
            camera.project(geometry.apply(estimate.T_cam_world, world)) - observations.pixels[now],
            axis=1,
        )
        # What is wrong with a depth is wrong with a part of the motion.
        right = error < _AGREE_PX + _AGREE_SHARE * motion
        # Those without a depth neither agree nor disagree: they are counted with the others.
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
        return agree, np.linalg.norm(there - pixels, axis=1) - _AGREE_SHARE * parallax

    def _count_moving(self, pixels: Array, camera: Camera) -> None:
        """Remember where the world is seen."""
        counts = _histogram(pixels, camera)
        if self._moving.shape != counts.shape:
            self._moving = np.zeros_like(counts)
        self._moving *= np.float32(_FORGET)
        self._moving += counts

    def _fixed_cells(self, camera: Camera) -> Mask:
        """Cells of the image in which everything is fixed to the body."""
        points = self._points
        assert points is not None
        fixed = _around(_histogram(points["pixel"][points["fixed"]], camera))
        moving = _around(self._moving)
        cells = (fixed >= _LEAST_AROUND) & (fixed >= _MAJORITY * moving)
        square = np.ones((3, 3), np.uint8)
        closed = cv2.morphologyEx(cells.astype(np.uint8), cv2.MORPH_CLOSE, square) > 0
        inside = closed & (fixed >= _MAJORITY * moving)
        # At the edge of the body there are few fixed points, and others that slide along it.
        beside = cv2.dilate(inside.astype(np.uint8), square) > 0
        return inside | (beside & (fixed >= 1.0) & (fixed >= _MAJORITY * moving))


def _table(descriptor_size: int) -> Table:
    """Points that stay in place: `pixel` (2,) where they were seen first, `descriptor`, `depth` m, `born` (number of
    the frame), `frame` (its index), `hits`, `seen` (number of the last frame), `evidence`, `fixed`.
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


def _cell(pixels: Array, camera: Camera) -> tuple[Ids, Ids]:
    """Row and column of the cell of each pixel (N, 2)."""
    side = camera.width / _COLUMNS
    rows = -(-camera.height * _COLUMNS // camera.width)
    place = np.floor((pixels + 0.5) / side).astype(np.int64)
    return np.clip(place[:, 1], 0, rows - 1), np.clip(place[:, 0], 0, _COLUMNS - 1)


def _histogram(pixels: Array, camera: Camera) -> NDArray[np.float32]:
    """Number of pixels (N, 2) in each cell."""
    counts = np.zeros((-(-camera.height * _COLUMNS // camera.width), _COLUMNS), dtype=np.float32)
    np.add.at(counts, _cell(pixels, camera), 1.0)
    return counts


def _around(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of each cell and its eight neighbours."""
    summed = cv2.boxFilter(counts, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return summed.astype(np.float32, copy=False)
