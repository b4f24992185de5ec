"""Moving objects: keep them out of the camera pose and out of the map.

A slowly moving object stays within the search radii of tracking. The pose settles between its
motion and the static scene, every point is an inlier, and the next keyframe makes the error
permanent. Close points weigh more, so an object over a quarter of the image can drag the camera
along. Three checks, in this order for each frame:

1. Takeover: most proven points vanish from one frame to the next while new points are inliers. The
   frame is tracked again with the proven points alone. While few are left behind an object, all
   inliers of the frame before count as proven here.
2. Probation: a new point is proven after it agreed for some frames with the pose of the proven
   points. New points that contradict this pose and pull the camera away from it are moving; the
   pose of the proven points is used.
3. Consensus over the image, for objects whose points are proven or when all points are new: see
   `spslam.slam.moving_objects.two_motions`.

Where points moved a moment ago, new points do not take part in the pose until they are proven, and
that takes longer: a few static points on a distant wall cannot tell a step of the camera from the
motion of an object.

An object that is there from the first frame on is part of the first map. In the first frames after
it, another motion of more of the image outvotes the pose, and the map starts again without the
object.

How and why: docs/decisions/0015-what-moves.md.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spslam.backend_interfaces import MEDIAN_LENGTH, PoseEstimate, PoseSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.map.map import NO_POINT, Map
from spslam.notices import counted, notice
from spslam.slam.moving_objects.matched_points import MatchedPoints
from spslam.slam.moving_objects.pull import LEAST_TOGETHER, alignment, least_pull
from spslam.slam.moving_objects.two_motions import Cells, consensus, find_split, rival
from spslam.slam.track_results import TrackedFrame, hull_fraction
from spslam.typing import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)
Counts = NDArray[np.int16]
_NONE: IntArray = np.zeros(0, dtype=np.int64)

# Least number of new points to check.
_LEAST_NEW = 10
# Least number of proven points to estimate a pose from.
_LEAST_PROVEN = 30
# Least fraction of the image inside their convex hull.
_LEAST_HULL = 0.05
# Probation: least RMS shift of the projected points by the pull, pixels.
_PULLED_PX = 0.15
# Probation: floor of the standard deviation of the residuals, pixels.
_LEAST_SIGMA_PX = 0.05
# Takeover: tracking with the known points alone must give this multiple of their inliers.
_MORE = 2
# Takeover: the frame is doubtful if its inliers cover a smaller fraction of the image.
_LITTLE = 0.35
# A frame is doubtful if a recent frame had at least this number of proven inliers ...
_KNOWN = 100
# ... among this number of frames before it ...
_RECENT = 3
# ... without a longer gap between frames, seconds ...
_GAP_S = 0.25
# ... and less than this fraction of them is left.
_LEFT = 0.1
# Consensus: an inlier is within this multiple of the standard deviation ...
_NEAR_SIGMAS = 2.5
# ... or within this distance, pixels.
_NEAR_PX = 0.5
# A frame is doubtful if at least this fraction of the cells moves.
_HALF = 0.45
# Number of frames for which a place is remembered.
_MEMORY_FRAMES = 20
# Largest distance from a point that moved, as a fraction of the longer side of the image.
_NEIGHBOURHOOD = 1 / 16
# With fewer proven inliers while points move, the inliers of a frame count as known in the next,
# and with measured depths new points take part in the pose ...
_MANY = 100
# ... if they shift it by less than this χ².
_SAME_POSE_CHI2 = 16.0
# With fewer proven points, as many of those that agreed most often take their place.
_ENOUGH = 45
# Largest residual of a point that agrees with the predicted pose, pixels.
_EXPECTED_PX = 4.0
# Number of additional frames of probation of a point that is new while points move.
_LONGER = 3
# Upper limit of the number of agreeing frames per point: prevents overflow.
_MOST = np.int16(1000)


@dataclass
class MovingPoints:
    """Statistics of the moving points of a run.

    Attributes:
        fractions: fraction of the matches that moved, by index of the frame, where any did.
        doubts: indices of frames in which the motion of the camera is uncertain. About as much of
            the image moved as stood still, or most known points were hidden.
    """

    fractions: dict[int, float] = field(default_factory=dict)
    doubts: set[int] = field(default_factory=set)


class Movers:
    """Finds points that move by themselves, and keeps the pose of the camera free of them.

    Attributes:
        moving: statistics of the points found until now.
    """

    def __init__(self, config: Config, pose_solver: PoseSolver) -> None:
        self._config = config.movers
        self._pose_solver = pose_solver
        self.moving = MovingPoints()
        # By id of the point, with spare room: number of frames in which it agreed (negative at the
        # start of a longer probation), whether it moves, and whether its probation was prolonged.
        self._agreed: Counts = np.zeros(0, dtype=np.int16)
        self._moves: BoolArray = np.zeros(0, dtype=bool)
        self._doubted: BoolArray = np.zeros(0, dtype=bool)
        # Number of known points of the last frame, and its inliers (ids) if few were proven.
        self._known_before = 0
        self._companions = _NONE
        # (P, 3) first positions of the first points by id, number of frames checked against them,
        # and pixels in the first keyframe of the points that proved to move.
        self._first: FloatArray = np.zeros((0, 3))
        self._looked = self._config.first_frames
        self._began_moving: FloatArray | None = None
        # Timestamps and numbers of proven points of the last frames.
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)
        self._places = MovedPlaces()

    def trust(self, slam_map: Map) -> None:
        """Mark all points of the map as proven, because nothing can test them yet."""
        self._reserve(slam_map)
        self._agreed[: slam_map.next_ids[0]] = self._config.probation_frames
        self._known_before, self._companions = 0, _NONE

    def begin(self, slam_map: Map, keyframe_id: int, watch: bool) -> None:
        """Mark the points of a new map as proven, and remove those that `outvotes` found to move.

        Args:
            slam_map: the new map.
            keyframe_id: of its newest keyframe.
            watch: whether `outvotes` checks the next frames.
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

    def outvotes(self, tracked: TrackedFrame, slam_map: Map, camera: Camera) -> bool:
        """Whether another motion explains more of the image than the pose of an early frame.

        If so, the first points that follow the pose move by themselves, and the map must start
        again.
        """
        if self._looked >= self._config.first_frames:
            return False
        self._looked += 1
        matched = MatchedPoints.of(tracked, slam_map)
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

    def drop(self, tracked: TrackedFrame, slam_map: Map) -> TrackedFrame:
        """Remove moving points from the map; return the frame without their keypoints."""
        ids = slam_map.points["id"]
        slam_map.remove_points(ids[self.are_moving(slam_map, ids)])
        shown = self.are_moving(slam_map, tracked.rejected)
        return tracked.moved(tracked.estimate.T_cam_world, slam_map).select(~shown)

    def tell(self) -> None:
        """Notify the user how much moved, and where the camera's motion is uncertain."""
        fractions, doubts = self.moving.fractions, self.moving.doubts
        if fractions:
            notice(
                logger,
                "moving_points",
                "%.0f %% of the matched points moved by themselves in %s, from frame %d on, "
                "and were left out",
                100 * np.mean(list(fractions.values())),
                counted(len(fractions), "frame"),
                min(fractions),
                count=len(fractions),
            )
        if doubts:
            notice(
                logger,
                "moving_view",
                "as much of the image moved by itself as stood still, or hid known points, in "
                "%s, from frame %d on: the motion of the camera is uncertain there",
                counted(len(doubts), "frame"),
                min(doubts),
                count=len(doubts),
            )

    def are_moving(self, slam_map: Map, ids: IntArray) -> BoolArray:
        """(N,) which of the points (ids, NO_POINT for none) are known to move by themselves."""
        self._reserve(slam_map)
        return (ids >= 0) & self._moves[ids]

    def known(self, slam_map: Map, ids: IntArray) -> IntArray:
        """Return those of the points (ids) that are known to stand still.

        They are the proven ones. While few of these are left behind an object, they are also the
        inliers of the frame before.
        """
        self._reserve(slam_map)
        return ids[self._are_known(ids)]

    def judge(
        self,
        tracked: TrackedFrame,
        slam_map: Map,
        camera: Camera,
        predicted: FloatArray | None,
        track_by_known: Callable[[], TrackedFrame | None],
    ) -> TrackedFrame:
        """Return the frame at the pose of the static points, with these points alone.

        Args:
            tracked: the frame, tracked by all points.
            slam_map: that it was tracked in.
            camera: of the frame.
            predicted: (4, 4) predicted pose; None without a prediction.
            track_by_known: tracks the frame by its `known` points alone.
        """
        self._reserve(slam_map)
        tracked = self._not_taken_over(tracked, camera, track_by_known)
        matched = MatchedPoints.of(tracked, slam_map)
        self._doubt_new(tracked.observations.index, matched.ids)
        suspect = self._are_suspect(tracked.observations.index, matched.ids)
        voters = self._voters(tracked, matched, suspect, predicted, camera)
        if voters is not None:
            tracked = self._at_pose_of(voters, tracked, matched, suspect, camera)
        matched = MatchedPoints.of(tracked, slam_map)
        judged = self._by_proven(tracked, matched, camera)
        if judged is tracked:
            # Suspects do not vote in the consensus, either.
            votes = np.ones(len(matched.ids), dtype=bool) if voters is None else voters.mask
            judged = self._by_most_of_the_image(tracked, matched, votes, camera)
        tracked = judged
        proven = int(np.count_nonzero(self._are_proven(tracked.seen)))
        few = proven < _MANY and self.on_guard(tracked.observations.index)
        self._companions = tracked.seen if few else _NONE
        self._known_before = len(tracked.seen) if few else proven
        self._doubt_what_is_left(tracked, proven)
        return tracked

    def on_guard(self, index: int) -> bool:
        """Whether points moved in this frame (index) or in one of the last frames."""
        return self._places.any_lately(index)

    # -- steps of `judge` --------------------------------------------------------------------------

    def _doubt_new(self, index: int, ids: IntArray) -> None:
        """Prolong the probation of new points (ids) if points moved in the last frames."""
        if self.on_guard(index):
            new = ids[~self._doubted[ids] & (self._agreed[ids] < self._config.probation_frames)]
            self._doubted[new] = True
            self._agreed[new] = -_LONGER

    def _not_taken_over(
        self,
        tracked: TrackedFrame,
        camera: Camera,
        track_by_known: Callable[[], TrackedFrame | None],
    ) -> TrackedFrame:
        """Return the frame tracked by known points if new ones took over; keep their matches."""
        known = int(np.count_nonzero(self._are_known(tracked.seen)))
        enough = self._config.takeover_fraction * self._known_before
        if known >= enough or tracked.inliers - known < max(known, _LEAST_NEW):
            return tracked
        again = track_by_known()
        least = max(_LEAST_PROVEN, enough, _MORE * known)
        if again is None or again.inliers < least or again.inlier_coverage(camera) < _LEAST_HULL:
            return tracked
        if again.inlier_coverage(camera) < _LITTLE:
            self.moving.doubts.add(tracked.observations.index)
        new = np.where(tracked.point_ids >= 0, tracked.point_ids, tracked.rejected)
        new[(new < 0) | self._are_known(new) | (again.point_ids >= 0)] = NO_POINT
        return replace(again, rejected=np.where(new >= 0, new, again.rejected))

    def _are_known(self, ids: IntArray) -> BoolArray:
        """(N,) which points (ids) are proven, or were inliers of the last frame with few such."""
        proven = self._are_proven(ids)
        return proven | np.isin(ids, self._companions) if len(self._companions) else proven

    def _are_proven(self, ids: IntArray) -> BoolArray:
        return np.asarray(self._agreed[ids] >= self._config.probation_frames)

    def _voters(
        self,
        tracked: TrackedFrame,
        matched: MatchedPoints,
        suspect: BoolArray,
        predicted: FloatArray | None,
        camera: Camera,
    ) -> _Voters | None:
        """Return the matches that decide about the pose; None: all of them.

        Suspects (M,) do not vote. If the others are too few, or all in one place, those vote that
        agreed most often; without them, the others and the suspects that are not where points
        moved. Last come those that agree with the predicted pose, where most do not: the camera
        does not follow an object at once.
        """

        def are_enough(mask: BoolArray) -> bool:
            return bool(
                np.count_nonzero(mask) >= _LEAST_PROVEN
                and hull_fraction(matched.pixels[mask], camera) >= _LEAST_HULL
            )

        if not np.any(suspect & matched.inlier):
            return None
        if are_enough(~suspect & matched.inlier):
            few = bool(np.count_nonzero(~suspect & matched.inlier) < _MANY)
            return _Voters(
                ~suspect, tracked.estimate.T_cam_world, others_join=few and camera.has_depth
            )
        expected = np.zeros(len(suspect), dtype=bool)
        if predicted is not None:
            expected = np.hypot(*matched.residuals(predicted, camera).T) <= _EXPECTED_PX
            for least in range(self._config.probation_frames - 1, -_LONGER, -1):
                longest = expected & (self._agreed[matched.ids] >= least)
                if np.count_nonzero(longest) >= _ENOUGH and are_enough(longest):
                    return _Voters(longest, predicted)
        index = tracked.observations.index
        elsewhere = ~(suspect & self._places.are_near(matched.pixels, index, camera))
        if are_enough(elsewhere & matched.inlier):
            return None if elsewhere.all() else _Voters(elsewhere, tracked.estimate.T_cam_world)
        if (
            predicted is not None
            and np.mean(expected[matched.inlier]) < 0.5
            and are_enough(expected)
        ):
            return _Voters(expected, predicted)
        return None

    def _at_pose_of(
        self,
        voters: _Voters,
        tracked: TrackedFrame,
        matched: MatchedPoints,
        suspect: BoolArray,
        camera: Camera,
    ) -> TrackedFrame:
        """Return the frame at the pose of some matches, with those of the others that agree.

        Those that do not agree begin their probation again. Only suspects (M,) may be moving.
        """
        mask = voters.mask
        estimate = self._refine(voters.T_cam_world, matched, mask, camera, coarse=True)
        estimate = self._refine(estimate.T_cam_world, matched, mask, camera)
        if np.count_nonzero(estimate.inliers) < _LEAST_PROVEN:
            return tracked
        if voters.others_join:
            estimate, mask = self._joined(estimate, mask, matched, camera)
        off = matched.weighted_residuals(estimate.T_cam_world, camera)
        far = np.hypot(*off.T)
        inlier, sigma = _inliers_and_sigma(estimate, mask, far)
        against = ~mask & ~(far <= self._contradiction(sigma))
        inlier |= ~mask & ~against
        self._agreed[matched.ids[against]] = -_LONGER
        against &= suspect
        if alignment(off[against]) >= self._config.min_alignment:
            self._note(tracked, matched, camera, against)
        return matched.at_pose(estimate, tracked, inlier)

    def _joined(
        self, estimate: PoseEstimate, mask: BoolArray, matched: MatchedPoints, camera: Camera
    ) -> tuple[PoseEstimate, BoolArray]:
        """Return the pose of the voters (mask) and all that agree with it, and the mask of both.

        A few distant points leave the position uncertain. The common pose must hardly move the
        projections of the voters: an object among the others would pull it away.
        """
        off = matched.weighted_residuals(estimate.T_cam_world, camera)
        far = np.hypot(*off.T)
        inlier, sigma = _inliers_and_sigma(estimate, mask, far)
        all_agreeing = mask | (far <= self._contradiction(sigma))
        joined = self._refine(estimate.T_cam_world, matched, all_agreeing, camera)
        shift = (matched.weighted_residuals(joined.T_cam_world, camera) - off)[inlier]
        within = float(np.sum(shift**2)) < _SAME_POSE_CHI2 * sigma**2
        return (joined, all_agreeing) if within else (estimate, mask)

    def _are_suspect(self, index: int, ids: IntArray) -> BoolArray:
        """(M,) which points (ids) are new, if points moved in the last frames."""
        if not self.on_guard(index):
            return np.zeros(len(ids), dtype=bool)
        return np.asarray(self._agreed[ids] < self._config.probation_frames)

    def _doubt_what_is_left(self, tracked: TrackedFrame, left: int) -> None:
        """Mark a frame as doubtful if few recently proven points are `left` among new ones."""
        timestamp = tracked.observations.timestamp
        if self._recent and timestamp - self._recent[-1][0] > _GAP_S:
            self._recent.clear()
        most = max((count for _, count in self._recent), default=0)
        if most >= _KNOWN and left < _LEFT * most and tracked.inliers - left > left:
            self.moving.doubts.add(tracked.observations.index)
        self._recent.append((timestamp, left))

    def _by_proven(
        self, tracked: TrackedFrame, matched: MatchedPoints, camera: Camera
    ) -> TrackedFrame:
        """Return the frame at the pose of the proven points if new points pull it away."""
        proven = self._are_proven(matched.ids)
        new = ~proven
        agree = new & matched.inlier
        if (
            np.count_nonzero(new) < _LEAST_NEW
            or np.count_nonzero(proven) < _LEAST_PROVEN
            or hull_fraction(matched.pixels[proven], camera) < _LEAST_HULL
        ):
            _count(self._agreed, matched.ids[agree])
            return tracked
        # Use proven outliers as well: they may be right.
        estimate = self._refine(tracked.estimate.T_cam_world, matched, proven, camera, coarse=True)
        telling = proven.copy()
        telling[proven] = estimate.inliers
        if np.count_nonzero(telling) < _LEAST_PROVEN:
            _count(self._agreed, matched.ids[agree])
            return tracked
        off = matched.weighted_residuals(estimate.T_cam_world, camera)
        far = np.hypot(*off.T)
        sigma = max(float(np.median(far[telling])) / MEDIAN_LENGTH, _LEAST_SIGMA_PX)
        against = new & ~(far <= self._contradiction(sigma))
        moved = (off - matched.weighted_residuals(tracked.estimate.T_cam_world, camera))[telling]
        pull = float(np.sum(moved**2))
        new_points = int(np.count_nonzero(new))
        least = least_pull(
            self._config, off, against, Cells.over(matched.pixels, camera), new_points
        )
        if pull < max(least * sigma**2, _PULLED_PX**2 * len(moved)):
            _count(self._agreed, matched.ids[agree & ~against])
            return tracked
        estimate = self._refine(estimate.T_cam_world, matched, proven, camera)
        far = np.hypot(*matched.weighted_residuals(estimate.T_cam_world, camera).T)
        inlier = new & ~against & (far <= self._contradiction(sigma))
        _count(self._agreed, matched.ids[inlier])
        inlier[proven] = estimate.inliers
        self._note(tracked, matched, camera, against)
        return matched.at_pose(estimate, tracked, inlier)

    def _by_most_of_the_image(
        self, tracked: TrackedFrame, all_matched: MatchedPoints, votes: BoolArray, camera: Camera
    ) -> TrackedFrame:
        """Return the frame at the pose of most cells if its own lies between two motions.

        Only some of the matches vote (M,). The others stay inliers if they agree with that pose.
        """
        matched = all_matched.select(votes)
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
            np.count_nonzero(moving) < LEAST_TOGETHER
            or np.count_nonzero(standing & ~moving) < _LEAST_PROVEN
        ):
            return tracked
        # In the first frames two motions are still close to each other: `outvotes` separates them
        # later.
        if not found.between or self._looked < self._config.first_frames:
            near = max(_NEAR_PX, _NEAR_SIGMAS * float(np.median(far[standing])) / MEDIAN_LENGTH)
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
        far = np.hypot(*all_matched.residuals(estimate.T_cam_world, camera).T)
        agree = all_matched.inlier & (far <= self._contradiction(found.sigma_px))
        agree[votes] = inlier
        return all_matched.at_pose(estimate, tracked, agree)

    def _contradiction(self, sigma: float) -> float:
        """Largest reprojection error (pixels) of an agreeing point, for a standard deviation."""
        return max(self._config.outlier_px, self._config.outlier_sigmas * sigma)

    def _refine(
        self,
        T_cam_world: FloatArray,
        matched: MatchedPoints,
        mask: BoolArray,
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
            relative_sigma=matched.relative_sigma[mask],
            coarse=coarse,
        )

    def _note(
        self, tracked: TrackedFrame, matched: MatchedPoints, camera: Camera, moving: BoolArray
    ) -> None:
        """Mark the moving points of a frame."""
        index = tracked.observations.index
        self._moves[matched.ids[moving]] = True
        self._places.add(index, matched.pixels[moving])
        self.moving.fractions[index] = max(
            float(np.mean(moving)), self.moving.fractions.get(index, 0.0)
        )
        if Cells.over(matched.pixels, camera).fraction(moving) >= _HALF:
            self.moving.doubts.add(index)

    def _reserve(self, slam_map: Map) -> None:
        """Make room for all ids in use, and the same number again."""
        wanted = slam_map.next_ids[0]
        if len(self._agreed) < wanted:
            room = np.zeros(2 * wanted - len(self._agreed), dtype=np.int16)
            self._agreed, self._moves, self._doubted = (
                np.append(self._agreed, room),
                np.append(self._moves, room > 0),
                np.append(self._doubted, room > 0),
            )


class MovedPlaces:
    """The pixels of the points that moved in each of the last frames."""

    def __init__(self) -> None:
        # Index of the frame and pixels (K, 2).
        self._places: deque[tuple[int, FloatArray]] = deque()

    def add(self, index: int, pixels: FloatArray) -> None:
        """Remember the pixels (K, 2) of the points that moved in a frame (index)."""
        self._places.append((index, pixels))
        while index - self._places[0][0] > _MEMORY_FRAMES:
            self._places.popleft()

    def any_lately(self, index: int) -> bool:
        """Whether points moved in this frame (index) or in one of the last frames."""
        return bool(self._lately(index))

    def are_near(self, pixels: FloatArray, index: int, camera: Camera) -> BoolArray:
        """(N,) which pixels (N, 2) of a frame (index) are near a point that moved lately."""
        places = self._lately(index)
        if not places:
            return np.zeros(len(pixels), dtype=bool)
        reach = _NEIGHBOURHOOD * max(camera.width, camera.height)
        nearest, _ = cKDTree(np.concatenate(places)).query(pixels, distance_upper_bound=reach)
        return np.asarray(np.isfinite(nearest))

    def _lately(self, index: int) -> list[FloatArray]:
        return [pixels for frame, pixels in self._places if index - frame <= _MEMORY_FRAMES]


@dataclass(frozen=True, eq=False)
class _Voters:
    """The matches that decide about a pose.

    Attributes:
        mask: (M,) which of the matches.
        T_cam_world: (4, 4) pose near theirs.
        others_join: whether the others that agree take part if that hardly changes the pose.
    """

    mask: BoolArray
    T_cam_world: FloatArray
    others_join: bool = False


def _inliers_and_sigma(
    estimate: PoseEstimate, mask: BoolArray, far: FloatArray
) -> tuple[BoolArray, float]:
    """Return the inliers (M,) of the pose of some matches, and their standard deviation, pixels.

    Args:
        estimate: the pose.
        mask: (M,) the matches that it was estimated from.
        far: (M,) weighted reprojection errors at that pose, pixels.
    """
    inlier = mask.copy()
    inlier[mask] = estimate.inliers
    return inlier, max(float(np.median(far[inlier])) / MEDIAN_LENGTH, _LEAST_SIGMA_PX)


def _count(counts: Counts, ids: IntArray) -> None:
    counts[ids] = np.minimum(counts[ids] + 1, _MOST)
