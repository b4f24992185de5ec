"""Track the camera: its pose, its motion, the points seen last, and how long it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import Components
from spslam.map.map import Map
from spslam.map.submaps import submap_of
from spslam.slam.directions import DirectionTracker, scene_distance
from spslam.slam.loops.loop_closing import ScaleCorrection
from spslam.slam.loops.similar_places import Departure, Place
from spslam.slam.mapping import RemovedKeyframe
from spslam.slam.motion import Motion, SteadyMotion
from spslam.slam.moving_objects.movers import Movers
from spslam.slam.preprocessing import undo_rolling_shutter
from spslam.slam.relocalization import Relocalizer
from spslam.slam.track_results import TrackedFrame, TrackState
from spslam.slam.tracking import Tracker
from spslam.slam.visibility import count_visibility
from spslam.typing import FloatArray, IntArray

# Directions add to a pose if this fraction of its points still agree ...
_KEPT_POINTS = 0.7
# ... and the number of keypoints that agree grows by this factor.
_MORE_AGREE = 1.5
# The camera turns on the spot if its rotation moves the image this many times as far as its motion.
_TURN_RATIO = 3.0
# A pose is doubtful with fewer inliers than this multiple of `recovery_inliers`.
_FEW_TIMES = 2


class CameraTracking:
    """Finds the pose of each frame in the local map, or in the whole map once the camera is lost.

    Attributes:
        state: of tracking.
        motion: of the camera.
        movers: points that move by themselves.
        reference_id: the keyframe that shares most points with the latest frame.
        seen: (N,) ids of the points seen last.
    """

    def __init__(self, config: Config, components: Components, tracker: Tracker) -> None:
        self.state = TrackState.INITIALIZING
        self.motion = Motion(config)
        self.movers = Movers(config, components.pose_solver)
        self._steady = SteadyMotion()
        # Id of a keyframe and the distance of the scene from it, map units.
        self._scene = (-1, 0.0)
        self.reference_id = -1
        self.seen: IntArray = np.zeros(0, dtype=np.int64)
        self._config = config.tracking
        self._min_points = config.initialization.min_points
        self._tracker = tracker
        self._directions = DirectionTracker(config, components.pose_solver, tracker)
        self._relocalizer = Relocalizer(config, tracker, components.place_recognition)
        self._anchors: IntArray = np.zeros(0, dtype=np.int64)
        self._local: tuple[IntArray, IntArray] | None = None
        self._lost_since: float | None = None
        self._lost_frames = 0

    def begin(self, keyframe_ids: list[int], newest: int, slam_map: Map, watch: bool) -> None:
        """Track in a submap that starts with keyframes.

        Args:
            keyframe_ids: the keyframes that the submap starts with.
            newest: id of the newest of them.
            slam_map: holds the submap.
            watch: whether the movers check the first frames (see `Movers.outvotes`).
        """
        for keyframe_id in keyframe_ids:
            timestamp = float(
                slam_map.keyframes["timestamp"][slam_map.keyframe_rows(np.asarray(keyframe_id))]
            )
            self.motion.update(
                timestamp, geometry.inverse(slam_map.pose(keyframe_id)), keyframe_id, slam_map
            )
        self.reference_id = newest
        self.movers.begin(slam_map, newest, watch)
        self.see_keyframe(newest, slam_map)

    # -- one frame ---------------------------------------------------------------------------------

    def find_pose(
        self, observations: Observations, slam_map: Map, camera: Camera
    ) -> TrackedFrame | None:
        """Find the pose of a frame; None if no pose agrees with the map."""
        if self.state is TrackState.TRACKING:
            prediction = self.motion.predict(observations.timestamp, slam_map)
            straightened = undo_rolling_shutter(observations, camera, self.motion.velocity)
            local_points = self.local_map(slam_map)[1]
            tracked = self._tracker.track(
                straightened, slam_map, camera, prediction, local_points, in_sequence=True
            )
            unsure = tracked is None or self._is_doubtful(tracked, camera)
            if unsure and not camera.has_depth and self._turns_on_the_spot(slam_map):
                by_directions = self._by_directions(
                    straightened, slam_map, camera, prediction, tracked
                )
                if by_directions is not None:
                    return by_directions
            if tracked is not None and self._is_doubtful(tracked, camera):
                near = self._relocalizer.find_near(
                    observations, slam_map, camera, self.reference_id
                )
                tracked = max(tracked, near or tracked, key=lambda found: found.inliers)
            if tracked is not None:
                return tracked
            self._relocalizer.lose(self.motion, self.reference_id, slam_map)
        return self._relocalizer.find(observations, slam_map, camera, self.reference_id)

    def _turns_on_the_spot(self, slam_map: Map) -> bool:
        """Whether the image moved mainly because the camera turned, until now.

        Where it moves on, as a car in a bend, guessed distances would bend the path.
        """
        if len(self._anchors):
            return True
        velocity = self.motion.velocity
        distance = scene_distance(slam_map, self.reference_id)
        turning, moving = np.linalg.norm(velocity[3:]), np.linalg.norm(velocity[:3])
        return bool(turning * distance >= _TURN_RATIO * moving)

    def _by_directions(
        self,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        prediction: FloatArray | None,
        tracked: TrackedFrame | None,
    ) -> TrackedFrame | None:
        """Track a frame of a single camera by directions too, if that tells more than its points.

        Args:
            observations: of the frame.
            slam_map: to track in.
            camera: of the frame.
            prediction: (4, 4) predicted pose; None without a prediction.
            tracked: the frame tracked by points; None if that failed.
        """
        found = self._directions.track(
            observations,
            slam_map,
            camera,
            prediction if tracked is None else tracked.estimate.T_cam_world,
            self.local_map(slam_map)[1],
        )
        if found is None or tracked is None:
            return found
        # The directions must not contradict the points, and must add to them.
        agrees = found.inliers >= _KEPT_POINTS * tracked.inliers
        more = np.count_nonzero(found.agreeing) >= _MORE_AGREE * tracked.inliers
        return found if agrees and more else None

    def found_with_it(self) -> Iterator[Place]:
        """Yield the earlier frames that were confirmed together with the frame just found."""
        waited, self._relocalizer.waited = self._relocalizer.waited, []
        yield from waited

    def without_movers(self, tracked: TrackedFrame, slam_map: Map, camera: Camera) -> TrackedFrame:
        """Return the frame at the pose that agrees with the static points."""
        if len(tracked.anchors):
            # The filter starts again after a frame that it does not see.
            self._steady.stop()
            return tracked

        observations = tracked.observations
        prediction = self.motion.predict(observations.timestamp, slam_map)

        def track_by_known() -> TrackedFrame | None:
            known = self.movers.known(slam_map, self.local_map(slam_map)[1])
            return self._tracker.track(observations, slam_map, camera, prediction, known)

        judged = self.movers.judge(tracked, slam_map, camera, prediction, track_by_known)
        return self._steadied(judged, slam_map)

    def _steadied(self, tracked: TrackedFrame, slam_map: Map) -> TrackedFrame:
        """Return the frame at a pose combined with its prediction if an object moved just now."""
        timestamp = tracked.observations.timestamp
        # The covariance assumes the extractor's standard deviations at least.
        scatter = tracked.estimate.scatter
        T_cam_world, covariance = self._steady.combine(
            self.motion.last(slam_map),
            tracked.estimate.T_cam_world,
            tracked.estimate.covariance * min(1.0, scatter**2),
            timestamp - self.motion.timestamp,
            self.motion.fastest,
            self._distance(slam_map),
        )
        if not self.movers.on_guard(tracked.observations.index):
            return tracked
        estimate = replace(tracked.estimate, T_cam_world=T_cam_world, covariance=covariance)
        return replace(tracked, estimate=estimate)

    def _distance(self, slam_map: Map) -> float:
        """Return the distance of the scene from the reference, computed once for each."""
        keyframe_id, distance = self._scene
        if keyframe_id != self.reference_id:
            distance = scene_distance(slam_map, self.reference_id)
            self._scene = self.reference_id, distance
        return distance

    def anchors(self, tracked: TrackedFrame, slam_map: Map) -> list[int]:
        """Return the keyframes that share points with a frame, best first."""
        found: list[int] = self._tracker.local_keyframes(slam_map, tracked.seen).tolist()
        return [*tracked.anchors.tolist(), *found]

    def follow(self, tracked: TrackedFrame, slam_map: Map, camera: Camera, counts: bool) -> None:
        """Update the motion model and the local map with a tracked frame.

        Args:
            tracked: the frame.
            slam_map: that it was tracked in.
            camera: of the frame.
            counts: whether to update the counts of visible and found points.
        """
        self.found()
        self.see(tracked.seen, tracked.anchors)
        local_keyframes, local_points = self.local_map(slam_map)
        self.reference_id = int(local_keyframes[0])
        slam_map.submap = submap_of(slam_map, self.reference_id)
        if counts:
            count_visibility(self._config, slam_map, camera, tracked, local_points)
        self.motion.update(
            tracked.observations.timestamp,
            tracked.estimate.T_cam_world,
            self.reference_id,
            slam_map,
        )

    def becomes_keyframe(self, tracked: TrackedFrame, keyframe_id: int, slam_map: Map) -> None:
        """Use the new keyframe, made from the latest frame, as the reference."""
        self.motion.anchor(
            tracked.observations.timestamp, tracked.estimate.T_cam_world, keyframe_id, slam_map
        )
        self.reference_id = keyframe_id
        self.see_keyframe(keyframe_id, slam_map)

    # -- what was seen last ------------------------------------------------------------------------

    def see(self, point_ids: IntArray, anchors: IntArray | None = None) -> None:
        """Set the points (ids) seen last, and drop the local map.

        Args:
            point_ids: ids of the points.
            anchors: keyframes whose directions were seen; None: not any.
        """
        self.seen, self._local = point_ids, None
        self._anchors = np.zeros(0, dtype=np.int64) if anchors is None else anchors

    def see_keyframe(self, keyframe_id: int, slam_map: Map) -> None:
        """Set the points of a keyframe as those seen last."""
        seen = slam_map.points_seen_by(np.array([keyframe_id]))
        few = len(seen) < self._config.min_inliers
        self.see(seen, np.array([keyframe_id]) if few else None)

    def local_map(self, slam_map: Map) -> tuple[IntArray, IntArray]:
        """Return keyframes and points (ids) around the points seen last, without moving points."""
        if self._local is None:
            keyframe_ids = self._tracker.local_keyframes(slam_map, self.seen)
            anchors = [k for k in self._anchors.tolist() if slam_map.has_keyframe(k)]
            if anchors:
                rest = keyframe_ids[~np.isin(keyframe_ids, anchors)]
                keyframe_ids = np.concatenate([np.array(anchors, dtype=np.int64), rest])
            point_ids = slam_map.points_seen_by(keyframe_ids)
            self._local = keyframe_ids, point_ids[~self.movers.are_moving(slam_map, point_ids)]
        return self._local

    # -- found and lost ----------------------------------------------------------------------------

    def found(self) -> None:
        """Set the state to tracking."""
        self.state = TrackState.TRACKING
        self._lost_since, self._lost_frames = None, 0

    def lose(self, observations: Observations) -> None:
        """Count a frame in which the camera was not found.

        A black or covered frame says nothing about where the camera is: only frames that could
        start a submap count.
        """
        timestamp = observations.timestamp
        self.state = TrackState.LOST
        self.motion.stop()
        self._steady.stop()
        self._lost_frames += len(observations) >= self._min_points
        if self._lost_since is None:
            self._lost_since = timestamp

    def stays_lost(self, timestamp: float) -> bool:
        """Whether the loss is long enough for a new submap, and no place is being confirmed."""
        if self._lost_since is None or self._relocalizer.is_about_to_find:
            return False
        long_enough = timestamp - self._lost_since >= self._config.new_submap_after_s
        return self._lost_frames >= self._config.new_submap_frames and long_enough

    @property
    def departure(self) -> Departure | None:
        """Where the camera was lost."""
        return self._relocalizer.departure

    def begin_again(self) -> None:
        """Forget everything except the moving points."""
        self.motion.stop()
        self._steady.stop()
        self.see(np.zeros(0, dtype=np.int64))
        self.state = TrackState.INITIALIZING
        self._lost_since, self._lost_frames = None, 0

    def tell(self) -> None:
        """Notify the user of moving points and of doubtful places."""
        self.movers.tell()
        self._relocalizer.tell()

    # -- keyframes ---------------------------------------------------------------------------------

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """Do nothing: the newest keyframe, which is the reference, is never culled."""

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """Scale the lengths of the motion model with the map around the camera."""
        self.motion.rescale(float(scale_correction.of(np.asarray(self.reference_id))))
        self._steady.stop()
        self._scene = (-1, 0.0)

    def _is_doubtful(self, tracked: TrackedFrame, camera: Camera) -> bool:
        """Whether inliers are too few, or cover too little of the image, for a sure pose."""
        few = tracked.inliers < _FEW_TIMES * self._config.recovery_inliers
        return few or tracked.inlier_coverage(camera) < self._config.min_inlier_coverage
