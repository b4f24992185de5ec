"""Moving objects: keep them out of the camera pose and out of the map.

A slowly moving object stays within the tracking gates. The pose settles between its motion and the static
scene, every point is an inlier, and the next key frame makes the error permanent. Close points weigh more, so
an object over a quarter of the image can drag the camera along. Three checks, in this order for each frame:

1. Takeover: most proven points vanish from one frame to the next while new points are inliers. The frame is
   tracked again with the proven points alone.
2. Probation: a new point is proven after it agreed for some frames with the pose of the proven points. New
   points that contradict this pose and pull the camera away from it are moving; the pose of the proven points
   is used.
3. Consensus over the image, for objects whose points are proven or when all points are new: see
   `spslam.slam.moving_objects.two_motions`.

An object that is there from the first frame on is part of the first map. In the first frames after it, another motion
of more of the image outvotes the pose, and the map begins anew without the object.

How and why: docs/decisions/0015-what-moves.md.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.config import Config, MoversConfig
from spslam.interfaces import PoseEstimate, PoseSolver
from spslam.map.map import NO_POINT, Ids, Map
from spslam.notices import notice
from spslam.slam.moving_objects.two_motions import Cells, consensus, find_split, residuals, rival
from spslam.slam.tracking import Tracked, hull_share

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int16]

# Least number of new points to check; of proven points to estimate a pose from, and the share of the image they span.
_LEAST_NEW, _LEAST_PROVEN, _LEAST_HULL = 10, 30, 0.05
# Least number of contradicting points: new points for the probation, points in coherent cells for the consensus.
_LEAST_AGAINST, _LEAST_TOGETHER = 5, 10
# Pull of the new points on the pose: factors on the least chi-square where most of the new points (half) contradict in
# one direction (90 %), and where they do so in each cell alone; least shift (RMS, pixels), and floor of the standard
# deviation (pixels).
_PULLED_BY_MOST, _PULLED_IN_CELLS, _MOST_NEW, _VERY_ALIKE = 0.4, 4.0, 0.5, 0.9
_PULLED_PX, _LEAST_SIGMA_PX = 0.15, 0.05
# Takeover: tracking with the proven points alone gives twice as many. A result that spans less than 35 % of the image
# is doubtful.
_MORE, _LITTLE = 2, 0.35
# Doubt: one of the last 3 frames, without a gap over 0.25 s, had 100 proven inliers, and less than 10 % of them
# are left.
_KNOWN, _RECENT, _GAP_S, _LEFT = 100, 3, 0.25, 0.1
# Consensus: an inlier is within 2.5 standard deviations or 0.5 px.
_NEAR_SIGMAS, _NEAR_PX = 2.5, 0.5
# Doubt: this share of the cells moves.
_HALF = 0.45
# Median length of a vector of two normal deviates.
_MEDIAN_LENGTH = 1.1774
_MOST = np.int16(1000)


@dataclass
class MovingPoints:
    """What moved by itself in a run.

    Attributes:
        shares: of the matches, by index of the frame, where any does.
        doubts: frames in which about as much of the image moves as stands still, or something hid all that was known.
    """

    shares: dict[int, float] = field(default_factory=dict)
    doubts: set[int] = field(default_factory=set)


class Movers:
    """Finds the points that move by themselves, and keeps the pose of the camera free of them.

    Attributes:
        moving: what was found so far.
    """

    def __init__(self, config: Config, pose_solver: PoseSolver) -> None:
        self._config = config.movers
        self._pose_solver = pose_solver
        self.moving = MovingPoints()
        # By id of the point, with room for more: frames in which it agreed, and whether it moves by itself.
        self._agreed: Counts = np.zeros(0, dtype=np.int16)
        self._moves: Mask = np.zeros(0, dtype=bool)
        self._proven_before = 0
        # Positions of the first points, by id, and the frames that they were looked at in; pixels in the first key
        # frame of those that proved to move.
        self._first: Array = np.zeros((0, 3))
        self._looked = self._config.first_frames
        self._began_moving: Array | None = None
        # Of the last frames: when they were, and how many proven points they saw.
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def trust(self, slam_map: Map) -> None:
        """Take all points of the map for proven: there is nothing else yet that could tell."""
        self._reserve(slam_map)
        self._agreed[: slam_map.next_ids[0]] = self._config.probation_frames
        self._proven_before = 0

    def begin(self, slam_map: Map, keyframe_id: int, watch: bool) -> None:
        """Take the points of a map that begins with a key frame for proven, less those of `outvotes`, which go.

        Args:
            watch: `outvotes` looks at the frames to come.
        """
        rows = slam_map.observation_rows(keyframe_id)
        ids, pixels = slam_map.observations["point"][rows], slam_map.observations["pixel"][rows]
        if self._began_moving is None:
            self._looked = 0 if watch else self._config.first_frames
        else:
            moving = np.any(np.all(pixels[:, None] == self._began_moving, axis=2), axis=1)
            slam_map.remove_points(ids[moving & (ids >= 0)])
            self._began_moving = np.zeros((0, 2))
        self._first = np.full((slam_map.next_ids[0], 3), np.nan)
        self._first[slam_map.points["id"]] = slam_map.positions
        self.trust(slam_map)

    def outvotes(self, tracked: Tracked, slam_map: Map, camera: Camera) -> bool:
        """Whether most of the image moves in another way than the pose of one of the first frames: the first points
        that go along with it prove to move by themselves, and the map must begin anew.
        """
        if self._looked >= self._config.first_frames:
            return False
        self._looked += 1
        matched = _matched(tracked, slam_map)
        first = matched.ids < len(self._first)
        ids, pixels = matched.ids[first], matched.pixels[first]
        gain = self._config.min_rival_gain
        other = rival(
            gain,
            tracked.estimate.T_cam_world,
            self._first[ids],
            pixels,
            matched.inlier[first],
            camera,
        )
        if other is not None and other.even:
            self.moving.doubts.add(tracked.observations.index)
        if other is None or not other.wins:
            return False
        moving = other.moving
        self._note(tracked, matched, camera, np.isin(matched.ids, ids[moving]))
        rows = slam_map.observation_rows(int(slam_map.keyframes["id"][0]))
        seen = np.isin(slam_map.observations["point"][rows], ids[moving])
        self._began_moving = slam_map.observations["pixel"][rows][seen].copy()
        self._looked = self._config.first_frames
        return True

    def drop(self, tracked: Tracked, slam_map: Map) -> Tracked:
        """The frame without the key points that show what moves by itself; the map loses these points."""
        ids = slam_map.points["id"]
        slam_map.remove_points(ids[self.are_moving(slam_map, ids)])
        shown = self.are_moving(slam_map, tracked.rejected)
        return tracked.moved(tracked.estimate.T_cam_world, slam_map).select(~shown)

    def tell(self) -> None:
        """Notice how much moved by itself, and where it may have been the rest that did."""
        shares, doubts = self.moving.shares, self.moving.doubts
        if shares:
            notice(
                logger,
                "moving_points",
                "%.0f %% of the matched points moved by themselves in %d frames, from frame %d on, and were left out",
                100 * np.mean(list(shares.values())),
                len(shares),
                min(shares),
                count=len(shares),
            )
        if doubts:
            notice(
                logger,
                "moving_view",
                "as much of the image moved by itself as stood still, or hid what was known, in %d frames, from frame "
                "%d on: the motion of the camera is a guess there",
                len(doubts),
                min(doubts),
                count=len(doubts),
            )

    def are_moving(self, slam_map: Map, ids: Ids) -> Mask:
        """(N,) which of the points (ids, NO_POINT for none) are known to move by themselves."""
        self._reserve(slam_map)
        return (ids >= 0) & self._moves[ids]

    def proven(self, slam_map: Map, ids: Ids) -> Ids:
        """Those of the points (ids) that were seen to stand still."""
        self._reserve(slam_map)
        return ids[self._agreed[ids] >= self._config.probation_frames]

    def judge(
        self,
        tracked: Tracked,
        slam_map: Map,
        camera: Camera,
        track_by_proven: Callable[[], Tracked | None],
    ) -> Tracked:
        """The frame at the pose that what stands still tells, seeing that alone.

        Args:
            track_by_proven: tracks the frame by its proven points alone.
        """
        self._reserve(slam_map)
        tracked = self._not_taken_over(tracked, camera, track_by_proven)
        judged = self._by_proven(tracked, _matched(tracked, slam_map), camera)
        if judged is tracked:
            judged = self._by_most_of_the_image(tracked, _matched(tracked, slam_map), camera)
        tracked = judged
        self._proven_before = int(
            np.count_nonzero(self._agreed[tracked.seen] >= self._config.probation_frames)
        )
        self._doubt_what_is_left(tracked)
        return tracked

    # -- steps of `judge` --------------------------------------------------------------------------

    def _not_taken_over(
        self, tracked: Tracked, camera: Camera, track_by_proven: Callable[[], Tracked | None]
    ) -> Tracked:
        """The frame as its proven points alone see it, where new ones took over at once; these are matched still."""
        proven = int(np.count_nonzero(self._agreed[tracked.seen] >= self._config.probation_frames))
        if (
            proven >= self._config.takeover_fraction * self._proven_before
            or tracked.inliers - proven < max(proven, _LEAST_NEW)
        ):
            return tracked
        again = track_by_proven()
        least = max(
            _LEAST_PROVEN, self._config.takeover_fraction * self._proven_before, _MORE * proven
        )
        if again is None or again.inliers < least or again.coverage(camera) < _LEAST_HULL:
            return tracked
        if again.coverage(camera) < _LITTLE:
            self.moving.doubts.add(tracked.observations.index)
        new = np.where(tracked.point_ids >= 0, tracked.point_ids, tracked.rejected)
        new[
            (new < 0)
            | (self._agreed[new] >= self._config.probation_frames)
            | (again.point_ids >= 0)
        ] = NO_POINT
        return replace(again, rejected=np.where(new >= 0, new, again.rejected))

    def _doubt_what_is_left(self, tracked: Tracked) -> None:
        """Note a frame in which hardly any of the points that were seen just now is left among others."""
        timestamp, left = tracked.observations.timestamp, self._proven_before
        if self._recent and timestamp - self._recent[-1][0] > _GAP_S:
            self._recent.clear()
        most = max((count for _, count in self._recent), default=0)
        if most >= _KNOWN and left < _LEFT * most and tracked.inliers - left > left:
            self.moving.doubts.add(tracked.observations.index)
        self._recent.append((timestamp, left))

    def _by_proven(self, tracked: Tracked, matched: _Matched, camera: Camera) -> Tracked:
        """The frame at the pose that the proven points tell, where new ones pull it away from there."""
        proven = self._agreed[matched.ids] >= self._config.probation_frames
        new = ~proven
        agree = new & matched.inlier
        if (
            np.count_nonzero(new) < _LEAST_NEW
            or np.count_nonzero(proven) < _LEAST_PROVEN
            or hull_share(matched.pixels[proven], camera) < _LEAST_HULL
        ):
            _count(self._agreed, matched.ids[agree])
            return tracked
        # Those that do not agree with the pose, too: they may be right.
        estimate = self._refine(tracked.estimate.T_cam_world, matched, proven, camera, coarse=True)
        telling = proven.copy()
        telling[proven] = estimate.inliers
        if np.count_nonzero(telling) < _LEAST_PROVEN:
            _count(self._agreed, matched.ids[agree])
            return tracked
        off = matched.residuals(estimate.T_cam_world, camera)
        far = np.hypot(*off.T)
        sigma = max(float(np.median(far[telling])) / _MEDIAN_LENGTH, _LEAST_SIGMA_PX)
        against = new & ~(far <= self._contradiction(sigma))
        moved = (off - matched.residuals(tracked.estimate.T_cam_world, camera))[telling]
        pull = float(np.sum(moved**2))
        new_points = int(np.count_nonzero(new))
        least = _pull_that_tells(
            self._config, off[against], matched.pixels[against], new_points, camera
        )
        if pull < max(least * sigma**2, _PULLED_PX**2 * len(moved)):
            _count(self._agreed, matched.ids[agree & ~against])
            return tracked
        estimate = self._refine(estimate.T_cam_world, matched, proven, camera)
        far = np.hypot(*matched.residuals(estimate.T_cam_world, camera).T)
        inlier = new & ~against & (far <= self._contradiction(sigma))
        _count(self._agreed, matched.ids[inlier])
        inlier[proven] = estimate.inliers
        self._note(tracked, matched, camera, against)
        return _seeing(tracked, matched, estimate, inlier)

    def _by_most_of_the_image(self, tracked: Tracked, matched: _Matched, camera: Camera) -> Tracked:
        """The frame at the pose that most of the image agrees with, where its own lies between two motions."""
        T_cam_world = tracked.estimate.T_cam_world
        off = matched.residuals(T_cam_world, camera)
        found = find_split(self._config.min_explained, matched.pixels, off, matched.inlier, camera)
        if found is None:
            return tracked
        T, standing = consensus(found, T_cam_world, matched.points, matched.pixels, camera)
        for coarse in (True, False):
            if np.count_nonzero(standing) < _LEAST_PROVEN:
                return tracked
            T = self._refine(T, matched, standing, camera, coarse=coarse).T_cam_world
            off = matched.residuals(T, camera)
            far = np.hypot(*off.T)
            standing = far <= self._contradiction(found.sigma_px)
        cells = Cells.over(matched.pixels, camera)
        moving = cells.together(~standing, off)
        if (
            np.count_nonzero(moving) < _LEAST_TOGETHER
            or np.count_nonzero(standing & ~moving) < _LEAST_PROVEN
        ):
            return tracked
        # In the first frames two motions are still close to each other: `outvotes` tells them apart later.
        if not found.between or self._looked < self._config.first_frames:
            near = max(_NEAR_PX, _NEAR_SIGMAS * float(np.median(far[standing])) / _MEDIAN_LENGTH)
            before = np.hypot(*matched.residuals(T_cam_world, camera).T)
            if (
                cells.agreement(far <= near)
                < cells.agreement(before <= near) + self._config.min_agreement_gain
            ):
                return tracked
        estimate = self._refine(T, matched, standing & ~moving, camera)
        inlier = standing & ~moving
        inlier[inlier] = estimate.inliers
        self._agreed[matched.ids[moving]] = 0
        self._note(tracked, matched, camera, moving)
        return _seeing(tracked, matched, estimate, inlier)

    def _contradiction(self, sigma: float) -> float:
        """Largest reprojection error, pixels, of points with this standard deviation that agree with a pose."""
        return max(self._config.outlier_px, self._config.outlier_sigmas * sigma)

    def _refine(
        self,
        T_cam_world: Array,
        matched: _Matched,
        mask: Mask,
        camera: Camera,
        *,
        coarse: bool = False,
    ) -> PoseEstimate:
        return self._pose_solver.refine(
            T_cam_world,
            matched.points[mask],
            matched.pixels[mask],
            matched.u_right[mask],
            camera,
            coarse=coarse,
        )

    def _note(self, tracked: Tracked, matched: _Matched, camera: Camera, moving: Mask) -> None:
        """Remember what moves in a frame."""
        index = tracked.observations.index
        self._moves[matched.ids[moving]] = True
        self.moving.shares[index] = max(float(np.mean(moving)), self.moving.shares.get(index, 0.0))
        if Cells.over(matched.pixels, camera).share(moving) >= _HALF:
            self.moving.doubts.add(index)

    def _reserve(self, slam_map: Map) -> None:
        """Make room for all ids that were given, and as many again."""
        wanted = slam_map.next_ids[0]
        if len(self._agreed) < wanted:
            room = np.zeros(2 * wanted - len(self._agreed), dtype=np.int16)
            self._agreed, self._moves = (
                np.append(self._agreed, room),
                np.append(self._moves, room > 0),
            )


@dataclass(frozen=True, eq=False)
class _Matched:
    """The matches (M) of a frame with points of the map.

    Attributes:
        keypoints, ids: of each.
        inlier: which agree with the pose that was found.
        points: (M, 3) in the world.
        pixels, u_right: (M, 2), (M,) where they are seen.
    """

    keypoints: NDArray[np.int64]
    ids: Ids
    inlier: Mask
    points: Array
    pixels: Array
    u_right: Array

    def residuals(self, T_cam_world: Array, camera: Camera) -> Array:
        """(M, 2) pixels, from a pose."""
        return residuals(T_cam_world, self.points, self.pixels, camera)


def _matched(tracked: Tracked, slam_map: Map) -> _Matched:
    ids = np.where(tracked.point_ids >= 0, tracked.point_ids, tracked.rejected)
    keypoints = np.flatnonzero(ids >= 0)
    ids = ids[keypoints]
    return _Matched(
        keypoints=keypoints,
        ids=ids,
        inlier=tracked.point_ids[keypoints] >= 0,
        points=slam_map.positions[slam_map.point_rows(ids)],
        pixels=tracked.observations.pixels[keypoints],
        u_right=tracked.observations.u_right[keypoints],
    )


def _seeing(tracked: Tracked, matched: _Matched, estimate: PoseEstimate, inlier: Mask) -> Tracked:
    """The frame at another pose, seeing those of its matches (M,) alone that are marked."""
    ids = np.full((2, len(tracked.point_ids)), NO_POINT, dtype=np.int64)
    ids[np.where(inlier, 0, 1), matched.keypoints] = matched.ids
    return replace(
        tracked, estimate=replace(estimate, inliers=inlier), point_ids=ids[0], rejected=ids[1]
    )


def _pull_that_tells(
    config: MoversConfig, off: Array, pixels: Array, new: int, camera: Camera
) -> float:
    """Least pull, in variances, that new points with residuals (K, 2) at pixels (K, 2) must have for them to move.

    Args:
        new: number of new points, these among them.
    """
    if len(off) < _LEAST_AGAINST:
        return np.inf
    most = len(off) > _MOST_NEW * new
    alike = float(np.hypot(*off.sum(axis=0))) / float(np.hypot(*off.T).sum())
    if alike >= config.min_alignment:
        return config.min_pull_chi2 * (_PULLED_BY_MOST if most and alike >= _VERY_ALIKE else 1.0)
    cells = Cells.over(pixels, camera)
    by_cells = np.mean(cells.together(np.ones(len(off), dtype=bool), off))
    return (
        config.min_pull_chi2 * _PULLED_IN_CELLS
        if most and by_cells >= config.min_alignment
        else np.inf
    )


def _count(counts: Counts, ids: Ids) -> None:
    counts[ids] = np.minimum(counts[ids] + 1, _MOST)
