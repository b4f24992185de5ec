"""Points that move by themselves, before a camera that stands still or moves otherwise.

What moves slowly stays within the gates of tracking: the pose settles between it and the rest, every point agrees, and
the next key frame makes that last. Nearer points weigh more, so that a box before a quarter of the image drags the
camera along. Three things tell it.

New points are on probation: they are proven once they agreed, for some frames, with the pose that the proven ones give.
Where new points contradict that pose and pull the camera away from it, they are left out.

Where new points take over at once from proven ones that were seen in the frame before, the camera is looked for by the
proven ones alone.

Where proven points begin to move, or all are new, the residuals tell: see `spslam.two_motions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.map import NO_POINT, Ids, Map
from spslam.ports import PoseEstimate, PoseSolver
from spslam.tracking import Tracked, hull_share
from spslam.two_motions import Cells, consensus, find_split, residuals

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int16]

# Frames in which a point agrees before it is proven.
_PROBATION = 3
# New points that are worth a look; proven ones that tell a pose by themselves, and the share of the image they span.
_LEAST_NEW, _LEAST_PROVEN, _LEAST_HULL = 10, 30, 0.05
# A point contradicts a pose that it is so far off, pixels and standard deviations of those that made the pose.
_OFF_PX, _OFF_SIGMAS = 1.0, 3.0
# So many new points contradict a pose, and regions that do hold so many points, before anything follows from it.
_LEAST_AGAINST, _LEAST_TOGETHER = 5, 10
# χ² by which new points pull the camera away from where the proven ones see it: noise and poor depth stayed below 40 in
# recordings of rooms and streets, boxes that move pull by hundreds. Least standard deviation, pixels.
_PULLED, _LEAST_SIGMA_PX = 100.0, 0.05
# New points take over where so small a share of the proven ones is left after one frame, and so many times as many are
# found without the new ones. So many times as many new points as there were proven ones may be anything,
# so may proven ones that span less than this share of the image.
_GONE, _MORE, _KNOWN, _MANY_TIMES, _LITTLE = 0.5, 2, 50, 5, 0.35
# A pose that most of the image agrees with is better where the mean share of points that agree, over its cells, is so
# much higher; how near a point is that agrees, standard deviations and at least pixels.
_CLEARLY, _NEAR_SIGMAS, _NEAR_PX = 0.1, 2.5, 0.5
# Share of the cells that move by themselves from which on it may as well be the rest that does.
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

    def __init__(self, pose_solver: PoseSolver) -> None:
        self._pose_solver = pose_solver
        self.moving = MovingPoints()
        # By id of the point, with room for more: frames in which it agreed, and whether it moves by itself.
        self._agreed: Counts = np.zeros(0, dtype=np.int16)
        self._moves: Mask = np.zeros(0, dtype=bool)
        self._proven_before = 0

    def trust(self, slam_map: Map) -> None:
        """Take all points of the map for proven: there is nothing else yet that could tell."""
        self._reserve(slam_map)
        self._agreed[: slam_map.next_ids[0]] = _PROBATION
        self._proven_before = 0

    def are_moving(self, slam_map: Map, ids: Ids) -> Mask:
        """(N,) which of the points (ids, NO_POINT for none) are known to move by themselves."""
        self._reserve(slam_map)
        return (ids >= 0) & self._moves[ids]

    def proven(self, slam_map: Map, ids: Ids) -> Ids:
        """Those of the points (ids) that were seen to stand still."""
        self._reserve(slam_map)
        return ids[self._agreed[ids] >= _PROBATION]

    def judge(
        self, tracked: Tracked, slam_map: Map, camera: Camera, track_by_proven: Callable[[], Tracked | None]
    ) -> Tracked:
        """The frame at the pose that what stands still tells, seeing that alone.

        Args:
            track_by_proven: tracks the frame by its proven points alone.
        """
        self._reserve(slam_map)
        tracked = self._not_taken_over(tracked, camera, track_by_proven)
        tracked = self._by_proven(tracked, _matched(tracked, slam_map), camera)
        tracked = self._by_most_of_the_image(tracked, _matched(tracked, slam_map), camera)
        self._proven_before = int(np.count_nonzero(self._agreed[tracked.seen] >= _PROBATION))
        return tracked

    # -- steps of `judge` ------------------------------------------------------------------------------------

    def _not_taken_over(
        self, tracked: Tracked, camera: Camera, track_by_proven: Callable[[], Tracked | None]
    ) -> Tracked:
        """The frame as its proven points alone see it, where new ones took over at once; these are matched still."""
        proven = int(np.count_nonzero(self._agreed[tracked.seen] >= _PROBATION))
        if proven >= _GONE * self._proven_before or tracked.inliers - proven < max(proven, _LEAST_NEW):
            return tracked
        again = track_by_proven()
        least = max(_LEAST_PROVEN, _GONE * self._proven_before, _MORE * proven)
        if again is None or again.inliers < least or again.coverage(camera) < _LEAST_HULL:
            if self._proven_before >= _KNOWN and tracked.inliers >= _MANY_TIMES * self._proven_before:
                self.moving.doubts.add(tracked.observations.index)
            return tracked
        if again.coverage(camera) < _LITTLE:
            self.moving.doubts.add(tracked.observations.index)
        new = np.where(tracked.point_ids >= 0, tracked.point_ids, tracked.rejected)
        new[(new < 0) | (self._agreed[new] >= _PROBATION) | (again.point_ids >= 0)] = NO_POINT
        return replace(again, rejected=np.where(new >= 0, new, again.rejected))

    def _by_proven(self, tracked: Tracked, matched: _Matched, camera: Camera) -> Tracked:
        """The frame at the pose that the proven points tell, where new ones pull it away from there."""
        proven = self._agreed[matched.ids] >= _PROBATION
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
        against = new & ~(far <= max(_OFF_PX, _OFF_SIGMAS * sigma))
        _count(self._agreed, matched.ids[agree & ~against])
        pulled = (off - matched.residuals(tracked.estimate.T_cam_world, camera))[telling] / sigma
        if np.sum(pulled**2) < _PULLED or np.count_nonzero(against) < _LEAST_AGAINST:
            return tracked
        estimate = self._refine(estimate.T_cam_world, matched, proven, camera)
        far = np.hypot(*matched.residuals(estimate.T_cam_world, camera).T)
        inlier = new & ~against & (far <= max(_OFF_PX, _OFF_SIGMAS * sigma))
        inlier[proven] = estimate.inliers
        self._note(tracked, matched, camera, against)
        return _seeing(tracked, matched, estimate, inlier)

    def _by_most_of_the_image(self, tracked: Tracked, matched: _Matched, camera: Camera) -> Tracked:
        """The frame at the pose that most of the image agrees with, where its own lies between two motions."""
        T_cam_world = tracked.estimate.T_cam_world
        found = find_split(matched.pixels, matched.residuals(T_cam_world, camera), matched.inlier, camera)
        if found is None:
            return tracked
        T, standing = consensus(found, T_cam_world, matched.points, matched.pixels, camera)
        for coarse in (True, False):
            if np.count_nonzero(standing) < _LEAST_PROVEN:
                return tracked
            T = self._refine(T, matched, standing, camera, coarse=coarse).T_cam_world
            off = matched.residuals(T, camera)
            far = np.hypot(*off.T)
            standing = far <= max(_OFF_PX, _OFF_SIGMAS * found.sigma_px)
        cells = Cells.over(matched.pixels, camera)
        moving = cells.together(~standing, off)
        if np.count_nonzero(moving) < _LEAST_TOGETHER or np.count_nonzero(standing & ~moving) < _LEAST_PROVEN:
            return tracked
        if not found.between:
            near = max(_NEAR_PX, _NEAR_SIGMAS * float(np.median(far[standing])) / _MEDIAN_LENGTH)
            before = np.hypot(*matched.residuals(T_cam_world, camera).T)
            if cells.agreement(far <= near) < cells.agreement(before <= near) + _CLEARLY:
                return tracked
        estimate = self._refine(T, matched, standing & ~moving, camera)
        inlier = standing & ~moving
        inlier[inlier] = estimate.inliers
        self._agreed[matched.ids[moving]] = 0
        self._note(tracked, matched, camera, moving)
        return _seeing(tracked, matched, estimate, inlier)

    def _refine(
        self, T_cam_world: Array, matched: _Matched, mask: Mask, camera: Camera, *, coarse: bool = False
    ) -> PoseEstimate:
        return self._pose_solver.refine(
            T_cam_world, matched.points[mask], matched.pixels[mask], matched.u_right[mask], camera, coarse=coarse
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
            self._agreed, self._moves = np.append(self._agreed, room), np.append(self._moves, room > 0)


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
    return replace(tracked, estimate=replace(estimate, inliers=inlier), point_ids=ids[0], rejected=ids[1])


def _count(counts: Counts, ids: Ids) -> None:
    counts[ids] = np.minimum(counts[ids] + 1, _MOST)
