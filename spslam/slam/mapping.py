"""Mapping: insert keyframes and cull redundant ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.backend_interfaces import BundleAdjuster, BundleProblem, BundleResult, TwoViewSolver
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import Matcher
from spslam.map.map import NO_POINT, Map
from spslam.map.submaps import first_keyframes
from spslam.slam.directions import scene_distance
from spslam.slam.track_results import TrackedFrame
from spslam.typing import FloatArray, IntArray

# A frame tracked by directions becomes a keyframe if it looks more than this angle, radians, away
# from the keyframes of the directions, or is farther from them, in typical distances of the scene.
_MAX_TURN, _MAX_SHIFT = 0.15, 0.03
# Minimum number of points with which bundle adjustment moves a keyframe tracked by directions.
FIRM_LINKS = 40
_NO_KEYFRAMES: IntArray = np.zeros(0, dtype=np.int64)
# Fraction of a keyframe's new points: triangulation ends with the neighbour that adds fewer.
_LEAST_GAIN = 0.1


@dataclass(frozen=True, eq=False)
class RemovedKeyframe:
    """A culled keyframe and its pose relative to its parent keyframe.

    Attributes:
        keyframe_id: id of the culled keyframe.
        parent_id: id of the parent keyframe, which is still in the map.
        T_parent_removed: (4, 4) float64 pose of the culled keyframe in the parent.
    """

    keyframe_id: int
    parent_id: int
    T_parent_removed: FloatArray


@dataclass(frozen=True, eq=False)
class _Neighbourhood:
    """A copy of the map around a keyframe, to refine.

    Attributes:
        problem: the copy.
        keyframe_ids, point_ids: ids of its rows.
        observation_rows: rows of its observations in the map.
    """

    problem: BundleProblem
    keyframe_ids: IntArray
    point_ids: IntArray
    observation_rows: IntArray


class KeyframeRule:
    """Decides which frames become keyframes.

    A frame does if the least interval has passed and one of these holds: the longest interval has
    passed; the fraction of the reference keyframe's points that is still tracked is too low; close
    points run short while the frame has new ones; the median point has moved far in the image.
    """

    def __init__(self, config: Config, camera: Camera) -> None:
        self._config = config.keyframes
        self._close_m = close_distance(config, camera)
        self._has_depth = camera.has_depth
        self._max_flow_px = self._config.max_flow_fraction * camera.width
        self._frames_since = 0

    def reset(self) -> None:
        """Restart the count of frames after a new keyframe."""
        self._frames_since = 0

    def wants(self, tracked: TrackedFrame, slam_map: Map, reference_id: int) -> str:
        """Return the reason for a keyframe; an empty string if the frame should not be one."""
        self._frames_since += 1
        if self._frames_since < self._config.min_interval:
            return ""
        if len(tracked.anchors):
            return "turn" if self._turned(tracked, slam_map) else ""
        if self._frames_since >= self._config.max_interval:
            return "interval"
        reference = slam_map.observation_rows(reference_id)
        reference_points = slam_map.observations["point"][reference]
        reference_count = int(np.count_nonzero(self._established(slam_map, reference_points)))
        if self._tracks_few(tracked.inliers, reference_count):
            return "few tracked points"
        if self._close_points_run_short(tracked):
            return "close points"
        return "flow" if self._flow(tracked, slam_map, reference) > self._max_flow_px else ""

    def _tracks_few(self, count: int, reference_count: int) -> bool:
        """Whether a frame sees too few of the reference keyframe's points.

        With many points the pose of a single camera is sure, and a smaller fraction of them is
        enough. A camera with depth measures new points in each keyframe: there, fewer keyframes
        cost accuracy.
        """
        least = self._config.min_tracked_fraction
        if not self._has_depth and count >= self._config.many_points:
            least = min(least, self._config.min_fraction_of_many)
        return count < least * reference_count

    @staticmethod
    def _turned(tracked: TrackedFrame, slam_map: Map) -> bool:
        """Whether a frame tracked by directions left those of all its keyframes."""
        there = tracked.anchors[[slam_map.has_keyframe(int(k)) for k in tracked.anchors]]
        poses = slam_map.T_world_keyframe[slam_map.keyframe_rows(there)]
        pose = tracked.T_world_cam
        apart = np.arccos(np.clip(poses[:, :3, 2] @ pose[:3, 2], -1.0, 1.0)) > _MAX_TURN
        distance = scene_distance(slam_map, int(there[0])) if len(there) else 0.0
        apart |= np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1) > _MAX_SHIFT * distance
        return bool(apart.all())

    @staticmethod
    def _established(slam_map: Map, point_ids: IntArray) -> NDArray[np.bool_]:
        """(N,) which points at least two keyframes see: points of one keyframe may be noise."""
        established: NDArray[np.bool_] = slam_map.views(point_ids) >= min(
            2, len(slam_map.keyframes)
        )
        return established

    def _close_points_run_short(self, tracked: TrackedFrame) -> bool:
        close = tracked.observations.depth < self._close_m
        tracked_close = np.count_nonzero(close & (tracked.point_ids >= 0))
        new_close = np.count_nonzero(close & (tracked.point_ids < 0))
        return bool(
            tracked_close < self._config.min_close_points
            and new_close > self._config.min_new_close_ratio * self._config.min_close_points
        )

    @staticmethod
    def _flow(tracked: TrackedFrame, slam_map: Map, reference: slice) -> float:
        """Median motion of the points since the reference keyframe, pixels."""
        mine = np.flatnonzero(tracked.point_ids >= 0)
        _, in_frame, in_reference = np.intersect1d(
            tracked.point_ids[mine], slam_map.observations["point"][reference], return_indices=True
        )
        if len(in_frame) == 0:
            return 0.0
        moved = (
            tracked.observations.pixels[mine[in_frame]]
            - slam_map.observations["pixel"][reference][in_reference]
        )
        return float(np.median(np.linalg.norm(moved, axis=1)))


def close_distance(config: Config, camera: Camera) -> float:
    """Largest depth (metres) at which stereo constrains the translation; 0 for a single camera."""
    return config.keyframes.close_baselines * (camera.baseline_m or 0.0)


class Mapper:
    """Inserts keyframes: new points, fusion, culling, local bundle adjustment."""

    def __init__(
        self,
        config: Config,
        matcher: Matcher,
        two_view: TwoViewSolver,
        bundle: BundleAdjuster,
        max_descriptor_distance: float,
    ) -> None:
        self._config = config
        self._matcher = matcher
        self._two_view = two_view
        self._bundle = bundle
        self._max_descriptor_distance = max_descriptor_distance
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="local bundle")
        # Keyframes that were tracked by directions.
        self._turned: set[int] = set()

    def insert(
        self,
        slam_map: Map,
        camera: Camera,
        observations: Observations,
        T_world_cam: FloatArray,
        point_ids: IntArray,
        anchors: IntArray = _NO_KEYFRAMES,
    ) -> int:
        """Add a keyframe with its points, without refinement (see `refine`); return its id.

        Args:
            slam_map: to extend.
            camera: of the observations.
            observations: of the new keyframe.
            T_world_cam: (4, 4) its pose.
            point_ids: (N,) the point that each keypoint sees, or NO_POINT.
            anchors: ids of keyframes whose directions it sees; they may triangulate them with it.
        """
        keyframe_id = slam_map.add_keyframe(observations, T_world_cam, point_ids)
        slam_map.refresh_normals(point_ids[point_ids >= 0])
        slam_map.describe_from(keyframe_id)
        self._cull_points(slam_map, keyframe_id)
        self._create_from_depth(slam_map, camera, keyframe_id)
        neighbors, _ = slam_map.covisible(keyframe_id, least=self._config.mapping.min_shared_points)
        neighbors = neighbors[: self._config.mapping.neighbors]
        if len(anchors):
            self._turned.add(keyframe_id)
            there = anchors[[slam_map.has_keyframe(int(k)) for k in anchors]]
            # First: triangulation ends where neighbours add few points.
            neighbors = np.concatenate([there, neighbors[~np.isin(neighbors, there)]])
        self._triangulate(slam_map, camera, keyframe_id, neighbors)
        self._fuse(slam_map, camera, keyframe_id, neighbors)
        return keyframe_id

    def refine(self, slam_map: Map, camera: Camera, keyframe_id: int) -> None:
        """Run local bundle adjustment around a keyframe, and remove links that are outliers."""
        around = self._neighbourhood(slam_map, camera, keyframe_id)
        if around is not None:
            self._take_up(slam_map, camera, around, self._bundle.adjust(around.problem, camera))

    def refine_beside(self, slam_map: Map, camera: Camera, keyframe_id: int) -> Callable[[], None]:
        """Run `refine` in a thread.

        Until the returned function is called, no keyframe, point or link may be added or removed.

        Args:
            slam_map: to refine.
            camera: of the map.
            keyframe_id: to refine around.

        Returns:
            A function that waits for the result and writes it to the map.
        """
        around = self._neighbourhood(slam_map, camera, keyframe_id)
        if around is None:
            return lambda: None
        result = self._pool.submit(self._bundle.adjust, around.problem, camera)
        return lambda: self._take_up(slam_map, camera, around, result.result())

    def cull_keyframes(self, slam_map: Map, keyframe_id: int) -> list[RemovedKeyframe]:
        """Remove redundant keyframes around `keyframe_id`, never the newest or a submap's first."""
        removed: list[RemovedKeyframe] = []
        candidates, _ = slam_map.covisible(keyframe_id)
        newest = int(slam_map.keyframes["id"][-1])
        never = np.array([*first_keyframes(slam_map), newest, *self._turned], dtype=np.int64)
        waiting = np.sort(candidates[~np.isin(candidates, never)])
        # A removal changes how many keyframes see a point: then look at the next ones again.
        while len(redundant := waiting[self._are_redundant(slam_map, waiting)]):
            candidate = int(redundant[0])
            waiting = waiting[waiting > candidate]
            parents, _ = slam_map.covisible(candidate)
            T_parent_removed = geometry.inverse(slam_map.pose(int(parents[0]))) @ slam_map.pose(
                candidate
            )
            removed.append(RemovedKeyframe(candidate, int(parents[0]), T_parent_removed))
            seen = slam_map.points_seen_by(np.array([candidate]))
            slam_map.remove_keyframe(candidate)
            # Points seen by one keyframe only would pile up where the camera passes again and
            # again.
            drop_single_views(slam_map, seen)
        return removed

    # -- new points --------------------------------------------------------------------------------

    def _create_from_depth(self, slam_map: Map, camera: Camera, keyframe_id: int) -> None:
        """Add points from stereo or depth for keypoints without a point."""
        rows = slam_map.observation_rows(keyframe_id)
        depth = slam_map.observations["depth"][rows]
        fresh = (
            np.flatnonzero((slam_map.observations["point"][rows] == NO_POINT) & np.isfinite(depth))
            + rows.start
        )
        if len(fresh) == 0:
            return
        points_cam = camera.unproject(
            slam_map.observations["pixel"][fresh], slam_map.observations["depth"][fresh]
        )
        slam_map.add_points(
            keyframe_id, geometry.apply(slam_map.pose(keyframe_id), points_cam), fresh
        )

    def _triangulate(
        self, slam_map: Map, camera: Camera, keyframe_id: int, neighbors: IntArray
    ) -> None:
        """Triangulate matches with covisible keyframes between keypoints without a point."""
        T_cam_world = geometry.inverse(slam_map.pose(keyframe_id))
        pixels, descriptors = slam_map.observations["pixel"], slam_map.observations["descriptor"]
        first = slam_map.next_ids[0]
        for neighbor in neighbors:
            T_other_world = geometry.inverse(slam_map.pose(int(neighbor)))
            if not self._has_baseline(slam_map, T_cam_world, T_other_world, int(neighbor)):
                continue
            mine = self._unlinked(slam_map, keyframe_id)
            theirs = self._unlinked(slam_map, int(neighbor))
            if len(mine) == 0 or len(theirs) == 0:
                continue
            matches0 = self._matcher.match_epipolar(
                pixels[mine],
                descriptors[mine],
                pixels[theirs],
                descriptors[theirs],
                fundamental_matrix(T_cam_world, T_other_world, camera),
                self._config.mapping.max_epipolar_px,
                self._max_descriptor_distance,
            )
            hit = np.flatnonzero(matches0 >= 0)
            mine, theirs = mine[hit], theirs[matches0[hit]]
            points = self._two_view.triangulate(
                T_cam_world, T_other_world, pixels[mine], pixels[theirs], camera
            )
            good = np.isfinite(points).all(axis=1)
            ids = slam_map.add_points(keyframe_id, points[good], mine[good], complete=False)
            slam_map.link(theirs[good], ids)
            if len(ids) < _LEAST_GAIN * (slam_map.next_ids[0] - first):
                # Neighbours that share fewer points give even less.
                break
        slam_map.refresh_normals(np.arange(first, slam_map.next_ids[0]))

    def _has_baseline(
        self, slam_map: Map, T_cam_world: FloatArray, T_other_world: FloatArray, neighbor: int
    ) -> bool:
        """Whether two keyframes are far enough apart, relative to the depth, to triangulate."""
        baseline = float(np.linalg.norm((T_other_world @ geometry.inverse(T_cam_world))[:3, 3]))
        points = slam_map.points_seen_by(np.array([neighbor]))
        if neighbor in self._turned:
            distance = scene_distance(slam_map, neighbor)
            return baseline > self._config.mapping.min_baseline_depth_ratio * distance
        if len(points) == 0:
            return False
        in_other = geometry.apply(T_other_world, slam_map.positions[slam_map.point_rows(points)])
        depth = float(np.median(in_other[:, 2]))
        return baseline > self._config.mapping.min_baseline_depth_ratio * depth

    @staticmethod
    def _unlinked(slam_map: Map, keyframe_id: int) -> IntArray:
        rows = slam_map.observation_rows(keyframe_id)
        unlinked: IntArray = (
            np.flatnonzero(slam_map.observations["point"][rows] == NO_POINT) + rows.start
        )
        return unlinked

    # -- fusion ------------------------------------------------------------------------------------

    def _fuse(self, slam_map: Map, camera: Camera, keyframe_id: int, neighbors: IntArray) -> None:
        """Fuse the neighbours' points into the new keyframe, and its points into each neighbour."""
        self.fuse_into(slam_map, camera, keyframe_id, slam_map.points_seen_by(neighbors))
        for neighbor in neighbors:
            mine = slam_map.points_seen_by(np.array([keyframe_id]))
            self.fuse_into(slam_map, camera, int(neighbor), mine)

    def fuse_into(
        self, slam_map: Map, camera: Camera, keyframe_id: int, point_ids: IntArray
    ) -> int:
        """Link points to the keypoints of a keyframe that they match; return the number of matches.

        A keypoint without a point is linked. If it already has a point, the two points are merged.

        Args:
            slam_map: to change.
            camera: of the map.
            keyframe_id: the keyframe.
            point_ids: the points to project into it.
        """
        candidates = point_ids[~slam_map.sees(keyframe_id, point_ids)]
        point_rows = slam_map.point_rows(candidates)
        candidates, point_rows = candidates[point_rows >= 0], point_rows[point_rows >= 0]
        T_cam_world = geometry.inverse(slam_map.pose(keyframe_id))
        points_cam = geometry.apply(T_cam_world, slam_map.positions[point_rows])
        pixels = camera.project(points_cam)
        visible = camera.in_image(pixels)
        candidates, point_rows, pixels = candidates[visible], point_rows[visible], pixels[visible]
        points_cam = points_cam[visible]
        rows = slam_map.observation_rows(keyframe_id)
        if len(candidates) == 0 or rows.start == rows.stop:
            return 0
        matches0 = self._matcher.match_near(
            pixels,
            slam_map.points["descriptor"][point_rows],
            slam_map.observations["pixel"][rows],
            slam_map.observations["descriptor"][rows],
            self._config.mapping.fuse_radius_px,
            self._max_descriptor_distance,
        )
        hit = np.flatnonzero(matches0 >= 0)
        observation_rows = matches0[hit] + rows.start
        depth_agrees = self._depth_agrees(slam_map, camera, observation_rows, points_cam[hit, 2])
        hit, observation_rows = hit[depth_agrees], observation_rows[depth_agrees]
        other = slam_map.observations["point"][observation_rows]
        free = other == NO_POINT
        slam_map.link(observation_rows[free], candidates[hit[free]])
        slam_map.refresh_normals(candidates[hit[free]])
        ours, theirs = candidates[hit[~free]], other[~free]
        ours_wins = slam_map.views(ours) >= slam_map.views(theirs)
        slam_map.merge_points(np.where(ours_wins, theirs, ours), np.where(ours_wins, ours, theirs))
        return len(hit)

    def _depth_agrees(
        self, slam_map: Map, camera: Camera, observation_rows: IntArray, depth: FloatArray
    ) -> NDArray[np.bool_]:
        """Whether points at `depth` fit the measured disparities; True without a measurement."""
        measured = (
            slam_map.observations["pixel"][observation_rows, 0]
            - slam_map.observations["u_right"][observation_rows]
        )
        expected = camera.bf / np.maximum(depth, 1e-9)
        disagrees: NDArray[np.bool_] = (
            np.abs(measured - expected) > self._config.mapping.fuse_radius_px
        )
        return ~disagrees

    # -- culling -----------------------------------------------------------------------------------

    def _cull_points(self, slam_map: Map, keyframe_id: int) -> None:
        """Remove points that failed their probation, and older points that are rarely found.

        Without this they pile up where the camera passes again and again.
        """
        config = self._config.mapping
        age = keyframe_id - slam_map.points["born"]
        found_ratio = slam_map.points["found"] / np.maximum(slam_map.points["visible"], 1)
        counts = slam_map.observation_counts()
        on_probation = age <= config.probation_keyframes
        least = np.where(
            age >= config.probation_keyframes, config.min_observations, np.where(age >= 2, 2, 1)
        )
        bad = on_probation & ((found_ratio < config.min_found_ratio) | (counts < least))
        bad |= (slam_map.points["visible"] >= config.proof_frames) & (
            found_ratio < config.min_proven_ratio
        )
        slam_map.remove_points(slam_map.points["id"][bad])

    def _are_redundant(self, slam_map: Map, keyframe_ids: IntArray) -> NDArray[np.bool_]:
        """(K,) of which keyframes (ids, ascending) enough others see nearly all points."""
        config = self._config.mapping
        rows = slam_map.rows_of_keyframes(keyframe_ids)
        views = slam_map.views(slam_map.observations["point"][rows])
        owner = np.searchsorted(keyframe_ids, slam_map.observations["keyframe"][rows])
        seen, often = (
            np.bincount(owner[chosen], minlength=len(keyframe_ids))
            for chosen in (views > 0, views > config.redundant_views)
        )
        redundant: NDArray[np.bool_] = often / np.maximum(seen, 1) >= config.redundant_fraction
        return redundant

    # -- bundle adjustment -------------------------------------------------------------------------

    def _neighbourhood(
        self, slam_map: Map, camera: Camera, keyframe_id: int
    ) -> _Neighbourhood | None:
        """Copy the most covisible keyframes, their points, and fixed keyframes around them.

        The fixed ones are other keyframes that see the same points.

        Returns:
            None if there is nothing to refine.
        """
        if not self._config.bundle.enabled or len(slam_map.keyframes) < 2:
            return None
        weak = self._weak(slam_map)
        if keyframe_id in weak:
            return None
        neighbors, _ = slam_map.covisible(keyframe_id, least=self._config.mapping.min_shared_points)
        neighbors = neighbors[~np.isin(neighbors, weak)]
        moving = np.append(neighbors[: self._config.bundle.window - 1], keyframe_id)
        point_ids = slam_map.points_seen_by(moving)
        point_ids = point_ids[slam_map.views(point_ids) >= (1 if camera.has_depth else 2)]
        if len(point_ids) == 0:
            return None
        others, _ = slam_map.keyframes_seeing(point_ids)
        border = others[~np.isin(others, moving) & ~np.isin(others, weak)][
            : self._config.bundle.max_fixed
        ]
        keyframe_ids = np.sort(np.concatenate([moving, border]))
        fixed = np.isin(keyframe_ids, border)
        # Gauge: fix the first keyframe of each submap; without any fixed keyframe, fix the oldest.
        fixed |= np.isin(keyframe_ids, first_keyframes(slam_map))
        if not fixed.any():
            fixed[0] = True
        problem, rows = bundle_problem(slam_map, keyframe_ids, fixed, point_ids)
        return _Neighbourhood(problem, keyframe_ids, point_ids, rows)

    def _weak(self, slam_map: Map) -> list[int]:
        """Keyframes tracked by directions, with too few points to refine their poses."""
        return [
            k
            for k in self._turned
            if slam_map.has_keyframe(k) and len(slam_map.points_seen_by(np.array([k]))) < FIRM_LINKS
        ]

    @staticmethod
    def _take_up(
        slam_map: Map, camera: Camera, around: _Neighbourhood, result: BundleResult
    ) -> None:
        free = ~around.problem.fixed
        slam_map.T_world_keyframe[slam_map.keyframe_rows(around.keyframe_ids[free])] = (
            geometry.orthonormalize(geometry.inverse(result.T_cam_world[free]))
        )
        slam_map.positions[slam_map.point_rows(around.point_ids)] = result.points
        slam_map.unlink(around.observation_rows[~result.inliers])
        if not camera.has_depth:
            # Without depth, a point seen by one keyframe has no defined position.
            drop_single_views(slam_map, around.point_ids)
        slam_map.refresh_normals(around.point_ids)


def bundle_problem(
    slam_map: Map, keyframe_ids: IntArray, fixed: NDArray[np.bool_], point_ids: IntArray
) -> tuple[BundleProblem, IntArray]:
    """Copy keyframes, points and the observations between them as a problem to refine.

    Args:
        slam_map: to copy from.
        keyframe_ids: (K,) ids, ascending.
        fixed: (K,) which keyframes do not move.
        point_ids: (P,) ids, ascending.

    Returns:
        The problem, and the rows (O,) of its observations in the map.
    """
    rows = slam_map.rows_of_keyframes(keyframe_ids)
    rows = rows[np.isin(slam_map.observations["point"][rows], point_ids)]
    problem = BundleProblem(
        T_cam_world=geometry.inverse(
            slam_map.T_world_keyframe[slam_map.keyframe_rows(keyframe_ids)]
        ),
        fixed=fixed,
        points=slam_map.positions[slam_map.point_rows(point_ids)],
        camera_index=np.searchsorted(keyframe_ids, slam_map.observations["keyframe"][rows]),
        point_index=np.searchsorted(point_ids, slam_map.observations["point"][rows]),
        pixels=slam_map.observations["pixel"][rows],
        u_right=slam_map.observations["u_right"][rows],
        relative_sigma=slam_map.observations["relative_sigma"][rows],
    )
    return problem, rows


def drop_single_views(slam_map: Map, point_ids: IntArray) -> None:
    """Remove those of the points that only one keyframe sees."""
    slam_map.remove_points(point_ids[slam_map.views(point_ids) == 1])


def fundamental_matrix(
    T_cam0_world: FloatArray, T_cam1_world: FloatArray, camera: Camera
) -> FloatArray:
    """(3, 3) fundamental matrix F with x1^T F x0 = 0 for undistorted pixels of two poses.

    Source: Hartley & Zisserman, Multiple View Geometry, section 9.2.
    """
    T_1_0 = T_cam1_world @ geometry.inverse(T_cam0_world)
    K_inv = np.linalg.inv(camera.K)
    F: FloatArray = K_inv.T @ geometry.hat(T_1_0[:3, 3]) @ T_1_0[:3, :3] @ K_inv
    return F
