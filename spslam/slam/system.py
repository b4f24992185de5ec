"""The SLAM system: takes frames, returns poses, and builds the map."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config, load_config
from spslam.errors import MapError, Refusal
from spslam.frame import Frame, FrameAssociations, Observations
from spslam.interfaces import Components
from spslam.map.io import SavedMap, save_map
from spslam.map.map import NO_POINT, Map
from spslam.map.submaps import keyframes_of, rescale_submap
from spslam.slam.camera_tracking import CameraTracking
from spslam.slam.frame_checks import FrameChecks, check_descriptors, check_front_end, set_origin
from spslam.slam.loops.loop_closing import ScaleCorrection
from spslam.slam.loss_diagnosis import LossMonitor
from spslam.slam.map_start import MapStart
from spslam.slam.map_updates import MapUpdates
from spslam.slam.moving_objects.body_fixed import BodyFixed
from spslam.slam.preprocessing import Preprocessor
from spslam.slam.recorder import FramePoses, Recorder, Statistics
from spslam.slam.track_results import TrackedFrame, TrackResult, TrackState
from spslam.slam.tracking import Tracker
from spslam.trajectory import Trajectory

logger = logging.getLogger(__name__)


class Slam:
    """Visual SLAM on a sequence of frames.

    The first frame sets sensor and camera. A camera that stays lost starts a submap; a loop joins
    submaps.

    Args:
        config: of all stages.
        submaps: the components that do the work.
        saved: a map to localize in; None: start with an empty one.
        localization_only: only localize in the saved map; it does not change.

    Attributes:
        map: keyframes and points.
        localization_only: only localize in the saved map; it does not change.
        statistics: counts and timings.
        preprocessor: extracts features; knows the inference engine and the number of threads.
        associations: keypoints and points of the latest frame; None before the first frame.

    Raises:
        MapError: the saved map was made with another front end, or missing for localization.
    """

    def __init__(
        self,
        config: Config,
        components: Components,
        saved: SavedMap | None = None,
        localization_only: bool = False,
    ) -> None:
        if saved is None and localization_only:
            raise MapError("tracking without mapping needs a saved map")
        self.config = config
        self.map = Map(descriptor_size=0) if saved is None else saved.map
        self.localization_only = localization_only
        self.statistics = Statistics()
        self.associations: FrameAssociations | None = None
        self.preprocessor = Preprocessor(config, components.extractor, components.stereo_matcher)
        distance = components.extractor.max_descriptor_distance
        tracker = Tracker(config, components.matcher, components.pose_solver, distance)
        self._checks = FrameChecks(config)
        self._place_recognition = components.place_recognition
        self._matcher = components.matcher
        self._recorder = Recorder()
        self._tracking = CameraTracking(config, components, tracker)
        self._updates = MapUpdates(
            config, components, tracker, self.statistics, self._recorder, self._tracking
        )
        self._start = MapStart(config, components, tracker, remember=saved is None)
        self._body_fixed = BodyFixed(
            config, components.matcher, components.two_view, components.pose_solver, distance
        )
        self._loss_monitor = LossMonitor(config, components.matcher, distance)
        if saved is not None:
            check_front_end(self.map, self.preprocessor.extractor)
            self._updates.restore_places(saved)
            self._tracking.movers.trust(self.map)
            self._tracking.state = TrackState.LOST
            self._updates.count(self.map)

    @classmethod
    def from_config(
        cls,
        config: Config | str,
        overrides: list[str] | None = None,
        saved: SavedMap | None = None,
        localization_only: bool = False,
        cache: Path | None = None,
        offline: bool = False,
    ) -> Slam:
        """Make a system from a configuration or the name of a built-in one.

        Args:
            config: a configuration, or a name or path for `load_config`.
            overrides: `key=value` settings for `load_config`; only used with a name or path.
            saved: a map to localize in.
            localization_only: only localize in `saved`; the map does not change.
            cache: folder that caches extracted features (see `build_components`).
            offline: whether frames need not keep up with a camera (see `build_components`).
        """
        from spslam.factory import build_components

        resolved = load_config(config, overrides) if isinstance(config, str) else config
        return cls(resolved, build_components(resolved, cache, offline), saved, localization_only)

    @property
    def state(self) -> TrackState:
        """State of tracking."""
        return self._tracking.state

    def track(self, frame: Frame, observations: Observations | None = None) -> TrackResult:
        """Track one frame; timestamps must increase.

        Args:
            frame: the next frame.
            observations: the result of `preprocessor.observe` for it; None: compute it here.

        Raises:
            DatasetError: the timestamps do not increase, or the images do not fit the camera.
        """
        with self.statistics.stage("frame"):
            self._checks.check_stamp(frame)
            if self._checks.camera is not None and self._checks.is_late(frame):
                self._updates.take_up(self._tracking, None, self.map, self._checks.camera)
            camera = self._checks.admit(frame)
            if self._checks.camera is None and not self.localization_only:
                set_origin(self.map, frame.sensor, camera, self.preprocessor.extractor)
            self._checks.camera = camera
            if observations is None:
                with self.statistics.stage("features"):
                    observations = self.preprocessor.observe(frame)
            check_descriptors(self.map, observations, self.preprocessor.extractor)
            with self.statistics.stage("body-fixed points"):
                self._body_fixed.update(observations, camera)
            if self._body_fixed.found and not self.localization_only:
                self._leave_out_body(camera)
            self._start.remember(frame, observations)
            result = self._track(frame, observations, camera)
            if len(self._recorder) == 0:
                self._loss_monitor.wait(frame.used_image)
            return result

    def finish(self) -> None:
        """End the run: finish refinement, remove unconfirmed points, complete the statistics."""
        if self._checks.camera is not None:
            self._updates.take_up(self._tracking, None, self.map, self._checks.camera)
        self._updates.count(self.map)
        self.statistics.left_out = self._body_fixed.left_out
        self.statistics.learned_pairs = self._matcher.learned_pairs
        self._body_fixed.tell()
        self._tracking.tell()
        self._updates.tell()
        self.statistics.tell()
        if len(self._recorder) == 0:
            two_view = self._start.two_view
            self.statistics.no_pose = self._loss_monitor.why_no_pose(
                two_view.still_fractions, two_view.strangers
            )
        self.statistics.frames_elsewhere = int(
            np.count_nonzero(self._recorder.submaps(self.map) != self.main_submap)
        )
        if len(self.map.keyframes) >= 2 and not self.localization_only:
            self._updates.finish(self.map)

    def rescale(self, factor: float, source: str) -> None:
        """Multiply all lengths of the main submap and its trajectory by a factor.

        Args:
            factor: new length over old length.
            source: where the scale comes from, one line.
        """
        submap = self.main_submap
        rescale_submap(self.map, submap, factor)
        keyframes = self.map.keyframes
        scales = np.where(keyframes["submap"] == submap, factor, 1.0)
        correction = ScaleCorrection(keyframes["id"].copy(), scales)
        self._recorder.keyframes_rescaled(correction)
        if self.map.has_keyframe(self._tracking.reference_id):
            self._tracking.keyframes_rescaled(correction)
        if self.map.origin is not None:
            self.map.origin = replace(self.map.origin, scale=source)

    @property
    def main_submap(self) -> int:
        """The submap that most frames of this run were tracked in."""
        submaps = self._recorder.submaps(self.map)
        return int(np.bincount(submaps).argmax()) if len(submaps) else int(self.map.submap)

    def trajectory(self, keyframes_only: bool = False) -> Trajectory:
        """Return the trajectory in the main submap, with the poses of today's map.

        Args:
            keyframes_only: whether to return only the keyframes of this run; False: all its frames.
        """
        if not keyframes_only:
            return self._recorder.trajectory(self.map, self.main_submap)
        keyframes = self.map.keyframes
        mine = (keyframes["submap"] == self.main_submap) & (
            keyframes["session"] == self.map.session
        )
        return Trajectory(keyframes["timestamp"][mine], keyframes["T_world_cam"][mine])

    def frame_poses(self) -> FramePoses:
        """Return the poses of all tracked frames in today's map, also those in other submaps."""
        return self._recorder.poses(self.map)

    def save_map(self, path: Path | str) -> None:
        """Write the map with its place recognition index; see `spslam.map.io.save_map`.

        Raises:
            OutputError: the file cannot be written.
        """
        save_map(path, self.map, self._place_recognition.arrays())

    # -- steps of `track` --------------------------------------------------------------------------

    def _track(self, frame: Frame, observations: Observations, camera: Camera) -> TrackResult:
        """Track a frame without the points fixed to the camera."""
        tracking = self._tracking
        observations = self._body_fixed.without(observations, camera)
        self.associations = FrameAssociations(
            observations.pixels, np.full(len(observations), NO_POINT, dtype=np.int64)
        )
        if tracking.state is TrackState.INITIALIZING:
            return self._initialize(frame, observations, camera)
        with self.statistics.stage("tracking"):
            tracked = tracking.find_pose(observations, self.map, camera)
        for place in tracking.found_with_it():
            self._recorder.add(
                place.tracked.observations.timestamp,
                place.tracked.T_world_cam,
                place.keyframe_id,
                self.map,
            )
        if tracked is not None:
            with self.statistics.stage("moving points"):
                if self._start.watches(
                    self.map, not self.localization_only
                ) and tracking.movers.outvotes(tracked, self.map, camera):
                    self._updates.take_up(tracking, None, self.map, camera)
                    return self._begin_again(camera)
                tracked = tracking.without_movers(tracked, self.map, camera)
        tracked = self._updates.take_up(tracking, tracked, self.map, camera)
        if tracked is None:
            return self._lose(frame, observations, camera)
        return self._follow(tracked, frame, observations, camera)

    def _initialize(self, frame: Frame, observations: Observations, camera: Camera) -> TrackResult:
        """Start a submap with a frame if possible."""
        tracking = self._tracking
        with self.statistics.stage("tracking"):
            initial = self._start.start(self.map, camera, observations, frame.sensor)
        if isinstance(initial, Refusal):
            return TrackResult(
                observations.index, observations.timestamp, self.state, reason=initial.reason
            )
        self._updates.begin(self.map, camera, initial.keyframe_id)
        tracking.found()
        keyframe_ids = keyframes_of(self.map, self.map.submap).tolist()
        self._recorder.add_keyframes(keyframe_ids, self.map)
        self._updates.add_places(self.map, keyframe_ids)
        tracking.begin(
            keyframe_ids,
            initial.keyframe_id,
            self.map,
            self._start.watches(self.map, not self.localization_only),
        )
        for waited in self._start.waiting_frames(
            initial, self.map, camera, keyframe_ids[0], tracking.seen
        ):
            self._recorder.add(
                waited.observations.timestamp, waited.T_world_cam, keyframe_ids[0], self.map
            )
        self._updates.count(self.map)
        if initial.tracked is not None:
            return self._follow(initial.tracked, frame, observations, camera)
        point_ids = self.map.observations["point"][self.map.observation_rows(initial.keyframe_id)]
        self.associations = FrameAssociations(observations.pixels, point_ids)
        self._loss_monitor.keep(frame.used_image, observations, point_ids)
        return TrackResult.of_first_keyframe(
            observations, self.map, initial.keyframe_id, tracking.seen, camera
        )

    def _follow(
        self, tracked: TrackedFrame, frame: Frame, observations: Observations, camera: Camera
    ) -> TrackResult:
        """Process a frame whose pose was found; make it a keyframe if needed."""
        tracking = self._tracking
        if tracking.state is TrackState.LOST:
            logger.info("frame %d: tracking found again", observations.index)
            # The first localization in a saved map does not count as a relocalization.
            self.statistics.relocalisations += len(self._recorder) > 0
        tracking.follow(tracked, self.map, camera, counts=not self.localization_only)
        self._recorder.add(
            observations.timestamp, tracked.T_world_cam, tracking.reference_id, self.map
        )
        self.associations = FrameAssociations(observations.pixels, tracked.point_ids)
        self.statistics.frames_direction_only += (
            len(tracked.anchors) > 0 and tracked.inliers < self.config.tracking.min_inliers
        )
        self._loss_monitor.keep(frame.used_image, observations, tracked.point_ids)
        why = ""
        if not self.localization_only:
            why = self._updates.wants_keyframe(tracked, self.map, tracking.reference_id, camera)
        if why:
            tracked = tracking.movers.drop(tracked, self.map)
            with self.statistics.stage("mapping"):
                keyframe_id = self._updates.insert(tracked, self.map, camera)
                self._recorder.move_last(keyframe_id)
                tracking.becomes_keyframe(tracked, keyframe_id, self.map)
        return TrackResult.of(tracked, self.map.submap, why, camera)

    def _lose(self, frame: Frame, observations: Observations, camera: Camera) -> TrackResult:
        """Process a frame without a pose; start a submap once the camera is lost too long."""
        tracking = self._tracking
        reason = (
            "no pose agrees with the map around the last pose"
            if len(observations)
            else "no keypoints in the image"
        )
        if tracking.state is TrackState.TRACKING:
            loss = self._loss_monitor.diagnose(frame.used_image, observations, camera)
            self.statistics.losses.append(loss)
            reason = loss.reason
            logger.warning("frame %d: tracking lost, %s", observations.index, reason)
            self._start.lose()
        tracking.lose(observations)
        result = TrackResult(
            observations.index, observations.timestamp, tracking.state, reason=reason
        )
        if self.localization_only:
            pass
        elif tracking.stays_lost(observations.timestamp):
            result = self._initialize(frame, observations, camera)
            if tracking.state is TrackState.TRACKING:
                logger.warning("frame %d: submap %d starts", observations.index, self.map.submap)
                self._updates.submap_began(self.map.submap, tracking.departure)
                result = self._join_overlap(result, camera)
        else:
            self._start.keep_lost(observations)
        # In a saved map the state is LOST from the beginning, without a loss.
        if tracking.state is TrackState.LOST and self.statistics.losses:
            self.statistics.losses[-1].frames += 1
        return result

    def _join_overlap(self, result: TrackResult, camera: Camera) -> TrackResult:
        """Join a submap that just began to the one before, if keyframes before the loss see both.

        Returns:
            The result of the frame that started the submap, in the joined one.
        """
        tracking, departure = self._tracking, self._tracking.departure
        if departure is None:
            return result
        self._updates.take_up(tracking, None, self.map, camera)
        submap = self.map.submap
        earliest = self._recorder.trajectory(self.map, submap).T_world_cam[0]
        found = self._start.overlap(
            self.map, camera, departure, geometry.inverse(earliest), tracking.seen
        )
        if not self._updates.join_overlap(tracking, self.map, camera, found):
            return result
        logger.warning(
            "frame %d: submap %d joined to submap %d: keyframes before the loss see both",
            result.index, submap, self.map.submap,
        )  # fmt: skip
        T_cam_world = tracking.motion.last(self.map)
        T_world_cam = None if T_cam_world is None else geometry.inverse(T_cam_world)
        return replace(result, T_world_cam=T_world_cam, submap=self.map.submap)

    def _leave_out_body(self, camera: Camera) -> None:
        """Remove points fixed to the camera's carrier from the map and from the waiting frames.

        A young map is initial again without them.
        """
        self._updates.take_up(self._tracking, None, self.map, camera)
        self._start.two_view.leave_out(
            lambda observations: self._body_fixed.of(observations, camera)
        )
        if self._start.first_frames:
            logger.info(
                "points do not move with the rest of the image: the map starts again without them"
            )
            self._begin_again(camera)
            return
        self._body_fixed.take_out(self.map, camera)
        seen = self._tracking.seen
        self._tracking.see(seen[self.map.point_rows(seen) >= 0])
        self._updates.count(self.map)

    def _begin_again(self, camera: Camera) -> TrackResult:
        """Build a young map again from the first frames; return the result of the last frame."""
        self._updates.clear(self.map)
        self._recorder.clear()
        self._tracking.begin_again()
        self._start.two_view.reset()
        self.statistics.losses.clear()
        self.statistics.relocalisations = self.statistics.frames_direction_only = 0
        *before, last = self._start.first_frames or []
        for frame, observations in before:
            self._track(frame, observations, camera)
        return self._track(*last, camera)
