"""The whole system: a frame goes in, its pose comes out, the map grows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config, load_config
from spslam.errors import DatasetError, MapError
from spslam.frame import Frame, Observations, Sensor, Sighting
from spslam.interfaces import Parts
from spslam.map.io import SavedMap, save_map
from spslam.map.map import ARBITRARY, NO_POINT, Ids, Map, Origin
from spslam.notices import notice
from spslam.slam.body_fixed import BodyFixed
from spslam.slam.global_bundle import GlobalRefiner
from spslam.slam.initialization import DepthInitializer, Started, TwoViewInitializer
from spslam.slam.loop_closing import LoopCloser, Rescaling, keyframe_observations
from spslam.slam.loss_diagnosis import HealthMonitor
from spslam.slam.mapping import KeyframeRule, Mapper
from spslam.slam.movers import Movers
from spslam.slam.preprocessing import Observer, tracking_camera
from spslam.slam.recorder import Recorder, Statistics
from spslam.slam.relocalization import Relocalizer
from spslam.slam.rolling_shutter import as_read_at_once
from spslam.slam.tracking import Motion, Tracked, Tracker, TrackResult, TrackState, hull_share
from spslam.trajectory import Trajectory

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
_CONFIRMED_FRAMES = 3
# A pose with fewer inliers than so many times those that finding a lost camera takes is looked for anew.
_FEW_TIMES = 2
# A frame that comes so long after the one before finds the map refined: there was time, and it has farther to look.
_AMPLE_S = 0.25
# Bad frames in a row among those that waited for the first map; those beyond are too far away.
_MISSED_WAITING = 3
# Frames that are kept to go through them once more where something in them proves to be no part of the world.
_FIRST_FRAMES = 30


class Slam:
    """Visual SLAM from frames that come one after the other.

    Sensor and camera are those of the first frame. A camera that stays lost begins a new part of the map; a revisit
    joins the parts.

    Args:
        config: of all stages.
        parts: that do the work.
        saved: a map to find the camera in, instead of an empty one.
        mapping: let the map grow; without, a saved one is tracked against and stays as it is.

    Attributes:
        state: what the system is doing.
        map: key frames and points.
        mapping: whether the map grows.
        statistics: counts and timings.
        engine: what runs the extractor and how exactly.
        observes_at_once: threads that may call `observe` at a time.
        sighting: what the latest frame showed; None before the first.

    Raises:
        MapError: the saved map was made with another front end, or there is none to be tracked against.
    """

    def __init__(self, config: Config, parts: Parts, saved: SavedMap | None = None, mapping: bool = True) -> None:
        self.config = config
        self.state = TrackState.INITIALIZING
        self.map = Map(descriptor_size=0)
        self.mapping = mapping
        self._extractor = parts.extractor.identity
        self.engine = parts.extractor.engine
        self.observes_at_once = parts.extractor.max_concurrency
        self.statistics = Statistics()
        self.sighting: Sighting | None = None
        distance = parts.extractor.max_distance
        self._two_view = TwoViewInitializer(config, parts.matcher, parts.two_view, distance)
        self._observer = Observer(config, parts.extractor, parts.stereo_matcher)
        self._tracker = Tracker(config, parts.matcher, parts.pose_solver, distance)
        self._from_depth = DepthInitializer(config, self._tracker)
        self._mapper = Mapper(config, parts.matcher, parts.two_view, parts.bundle, distance)
        self._places = parts.places
        self._relocalizer = Relocalizer(config, self._tracker, parts.places)
        self._loops = LoopCloser(
            config,
            parts.matcher,
            parts.pose_solver,
            parts.pose_graph,
            self._mapper,
            self._tracker,
            parts.places,
            distance,
        )
        self._body_fixed = BodyFixed(config, parts.matcher, parts.two_view, parts.pose_solver, distance)
        self._movers = Movers(parts.pose_solver)
        # The frames since the first one, while they are so few that they can be gone through once more.
        self._first_frames: list[tuple[Frame, Observations]] | None = [] if saved is None else None
        self._global = GlobalRefiner(config.loop, parts.global_bundle)
        self._health = HealthMonitor(config, parts.matcher, distance)
        self._motion = Motion()
        self._recorder = Recorder()
        self._camera: Camera | None = None
        self._rule: KeyframeRule | None = None
        self._last_timestamp = -np.inf
        self._lost_since: float | None = None
        self._lost_frames = 0
        self._see(np.zeros(0, dtype=np.int64))
        self._reference_id = -1
        # What ends the newest key frame's refinement, which runs while the next frame is tracked.
        self._end_refinement: Callable[[], None] | None = None
        if saved is not None:
            self._resume(saved)
        elif not mapping:
            raise MapError("to track without mapping there must be a map")

    @classmethod
    def from_config(
        cls,
        config: Config | str,
        overrides: list[str] | None = None,
        saved: SavedMap | None = None,
        mapping: bool = True,
        cache: Path | None = None,
        offline: bool = False,
    ) -> Slam:
        """A system from a configuration or the name of a built-in one (see `load_config`); see `build_parts` for
        `cache` and `offline`."""
        from spslam.factory import build_parts

        resolved = load_config(config, overrides) if isinstance(config, str) else config
        return cls(resolved, build_parts(resolved, cache, offline), saved, mapping)

    def observe(self, frame: Frame) -> Observations:
        """What a frame shows, which depends on no other frame: another thread may find it ahead of `track`.

        Raises:
            DatasetError: images that do not fit the camera.
        """
        return self._observer.observe(frame, tracking_camera(frame, self.config))

    def track(self, frame: Frame, observations: Observations | None = None) -> TrackResult:
        """Take in one frame; stamps must increase.

        Args:
            observations: what `observe` finds in it; None: it is done here.

        Raises:
            DatasetError: stamps that do not increase, or images that do not fit the camera.
        """
        with self.statistics.stage("frame"):
            camera = self._start_frame(frame)
            if observations is None:
                with self.statistics.stage("features"):
                    observations = self.observe(frame)
            self._check_descriptors(observations)
            with self.statistics.stage("body-fixed points"):
                self._body_fixed.update(observations, camera)
            if self._body_fixed.found:
                self._leave_out(camera)
            self._remember_first(frame, observations)
            result = self._step(frame, observations, camera)
            if len(self._recorder) == 0:
                self._health.wait(frame.image)
            return result

    def finish(self) -> None:
        """End the run: points that one key frame and hardly any other frame saw go."""
        if self._camera is not None:
            self._finish_keyframe(None, self._camera)
        self._count()
        self._tell_body_fixed()
        self._tell_movers()
        self._relocalizer.tell()
        self._loops.tell()
        if len(self._recorder) == 0:
            self.statistics.no_pose = self._health.why_no_pose(self._two_view.still_shares, self._two_view.strangers)
        self.statistics.frames_elsewhere = int(np.count_nonzero(self._recorder.parts(self.map) != self.main_part))
        if len(self.map.keyframes) < 2 or not self.mapping:
            return
        self._global.finish(self.map)
        unconfirmed = (self.map.observation_counts() < 2) & (self.map.points["found"] < _CONFIRMED_FRAMES)
        self.map.remove_points(self.map.points["id"][unconfirmed])
        self._count()

    def rescale(self, factor: float, source: str) -> None:
        """Multiply all lengths of the main part, the trajectory's, too, by a factor; `source` says in one line where
        its size comes from now."""
        part = self.main_part
        self.map.rescale(part, factor)
        keyframes = self.map.keyframes
        inside = keyframes["part"] == part
        self._recorder.rescale(Rescaling(keyframes["id"].copy(), np.where(inside, factor, 1.0)))
        if self.map.has_keyframe(self._reference_id) and self.map.part_of(self._reference_id) == part:
            self._motion.rescale(factor)
        if self.map.origin is not None:
            self.map.origin = replace(self.map.origin, scale=source)

    @property
    def main_part(self) -> int:
        """The part of the map that most frames of this run were tracked in."""
        parts = self._recorder.parts(self.map)
        return int(np.bincount(parts).argmax()) if len(parts) else int(self.map.part)

    def trajectory(self) -> Trajectory:
        """Poses of all frames tracked in the main part, refined by today's key frames."""
        return self._recorder.trajectory(self.map, self.main_part)

    def keyframe_trajectory(self) -> Trajectory:
        """Poses of the key frames of this run in the main part."""
        keyframes = self.map.keyframes
        mine = (keyframes["part"] == self.main_part) & (keyframes["session"] == self.map.session)
        return Trajectory(keyframes["timestamp"][mine], keyframes["T_world_cam"][mine])

    def save_map(self, path: Path | str) -> None:
        """Write the map with the index of its places; see `spslam.map.io.save_map`.

        Raises:
            OutputError: the file cannot be written.
        """
        save_map(path, self.map, self._places.arrays())

    # -- steps of `track` ------------------------------------------------------------------------------------

    def _step(self, frame: Frame, observations: Observations, camera: Camera) -> TrackResult:
        """Track a frame by what it shows of the world."""
        observations = self._of_the_world(observations, camera)
        self.sighting = Sighting(observations.pixels, np.full(len(observations), NO_POINT, dtype=np.int64))
        if self.state is TrackState.INITIALIZING:
            return self._initialize(observations, frame, camera)
        with self.statistics.stage("tracking"):
            tracked = self._find_pose(observations, camera)
        if tracked is not None and self._goes_with_a_mover(tracked, camera):
            self._finish_keyframe(None, camera)
            return self._begin_again(camera)[-1]
        if tracked is not None:
            with self.statistics.stage("moving points"):
                tracked = self._without_movers(tracked, camera)
        tracked = self._finish_keyframe(tracked, camera)
        if tracked is None:
            return self._lose(observations, frame, camera)
        return self._follow(tracked, observations, frame, camera)

    def _of_the_world(self, observations: Observations, camera: Camera) -> Observations:
        """The observations without those of what carries the camera."""
        if not self._body_fixed.any:
            return observations
        fixed = self._body_fixed.of(observations, camera)
        if not fixed.any():
            return observations
        self.statistics.left_out[observations.index] = float(np.mean(fixed))
        return observations.select(~fixed)

    def _tell_body_fixed(self) -> None:
        """Say how many key points were left out."""
        shares = self.statistics.left_out
        if shares:
            notice(
                logger,
                "body_fixed_points",
                "%.0f %% of the key points stayed in place in the image while the rest moved, and were left out in %d "
                "frames: they belong to the vehicle or robot, to dirt on the lens or to text in the image",
                100 * np.mean(list(shares.values())),
                len(shares),
                count=len(shares),
            )

    def _tell_movers(self) -> None:
        """Say how much moved by itself, and where it may have been the rest that did."""
        moving = self._movers.moving
        if moving.shares:
            notice(
                logger,
                "moving_points",
                "%.0f %% of the matched points moved by themselves in %d frames, from frame %d on, and were left out",
                100 * np.mean(list(moving.shares.values())),
                len(moving.shares),
                min(moving.shares),
                count=len(moving.shares),
            )
        if moving.doubts:
            notice(
                logger,
                "moving_view",
                "as much of the image moved by itself as stood still, or hid what was known, in %d frames, from frame "
                "%d on: the motion of the camera is a guess there",
                len(moving.doubts),
                min(moving.doubts),
                count=len(moving.doubts),
            )

    def _remember_first(self, frame: Frame, observations: Observations) -> None:
        if self._first_frames is not None:
            # The observations hold what the right image or the depth said: only that there was one matters now.
            right = None if frame.image_right is None else np.empty((0, 0), dtype=np.uint8)
            depth = None if frame.depth is None else np.empty((0, 0), dtype=np.float32)
            self._first_frames.append((replace(frame, image_right=right, depth=depth), observations))
            if len(self._first_frames) > _FIRST_FRAMES:
                self._first_frames = None

    def _leave_out(self, camera: Camera) -> None:
        """Take what proved to be fixed to the camera's carrier out of the map, and out of the frames that wait for the
        first one. A young map is made anew without it: its poses follow what does not move."""
        if not self.mapping:
            return
        self._finish_keyframe(None, camera)
        self._two_view.leave_out(lambda observations: self._body_fixed.of(observations, camera))
        if self._first_frames is None:
            self._take_out(camera)
            return
        logger.info("points do not move with the rest of the image: the map is begun anew without them")
        self._begin_again(camera)

    def _begin_again(self, camera: Camera) -> list[TrackResult]:
        """Make a young map anew from the first frames; it has not seen others."""
        for keyframe_id in self.map.keyframes["id"].tolist():
            self._places.remove(keyframe_id)
            self.map.remove_keyframe(keyframe_id)
        self._recorder = Recorder()
        self._motion.stop()
        self._two_view.reset()
        self._see(np.zeros(0, dtype=np.int64))
        self.statistics.losses.clear()
        self.statistics.relocalisations = 0
        self.state = TrackState.INITIALIZING
        self._lost_since, self._lost_frames = None, 0
        return [self._step(frame, observations, camera) for frame, observations in self._first_frames or []]

    def _take_out(self, camera: Camera) -> None:
        """Remove the points of this run that key frames see where the camera's carrier is."""
        keyframes = self.map.keyframes
        mine = (keyframes["session"] == self.map.session) & (keyframes["frame"] >= self._body_fixed.first_frame)
        for keyframe_id in keyframes["id"][mine].tolist():
            rows = self.map.observation_rows(keyframe_id)
            fixed = self._body_fixed.of(keyframe_observations(self.map, keyframe_id), camera)
            self.map.remove_points(np.unique(self.map.observations["point"][rows][fixed]))
        self._see(self._seen_points[self.map.point_rows(self._seen_points) >= 0])
        self._count()

    def _start_frame(self, frame: Frame) -> Camera:
        if not frame.timestamp > self._last_timestamp:
            raise DatasetError(
                f"frame {frame.index}: stamps must increase, found {frame.timestamp} s after {self._last_timestamp} s"
            )
        if self._camera is not None and frame.timestamp - self._last_timestamp > _AMPLE_S:
            self._finish_keyframe(None, self._camera)
        self._last_timestamp = frame.timestamp
        camera = tracking_camera(frame, self.config)
        if self._camera is not None and camera != self._camera:
            raise DatasetError(f"frame {frame.index}: the camera or the sensor changed in the middle of a run")
        if self._camera is None and self.mapping:
            self._set_origin(frame.sensor, camera)
        self._camera = camera
        return camera

    def _resume(self, saved: SavedMap) -> None:
        """Go on with a saved map: the camera is somewhere in it."""
        origin = saved.map.origin
        if origin is None or len(saved.map.keyframes) == 0:
            raise MapError("the map has no key frames to find the camera with")
        if origin.extractor != self._extractor:
            raise MapError(
                f"the map was made with {origin.extractor}, this run uses {self._extractor}: "
                "give the same --extractor and --weights"
            )
        self.map = saved.map
        if saved.places:
            try:
                self._places.restore(saved.places)
            except (KeyError, ValueError) as error:
                raise MapError(f"the map's index of places is damaged: {error}") from None
        self._movers.trust(self.map)
        self.state = TrackState.LOST
        self._count()

    def _check_descriptors(self, observations: Observations) -> None:
        """A saved map names its front end; its descriptors may be others all the same."""
        width, found = self.map.descriptor_size, observations.descriptors.shape[1]
        if len(self.map.keyframes) and len(observations) and width != found:
            raise MapError(
                f"the map's descriptors have {width} numbers, those of {self._extractor} have {found}: it was made "
                "with another front end"
            )

    def _set_origin(self, sensor: Sensor, camera: Camera) -> None:
        origin = self.map.origin
        if origin is None:
            scale = ARBITRARY if sensor == "mono" else "baseline" if sensor == "stereo" else "depth"
            self.map.origin = Origin(sensor, camera, self._extractor, scale)
        elif (origin.sensor, origin.camera) != (sensor, camera):
            raise MapError(
                f"a map is extended by the camera that made it, {_describe(origin.sensor, origin.camera)}; "
                f"found {_describe(sensor, camera)}: use --localize"
            )

    def _wants_keyframe(self, tracked: Tracked, camera: Camera) -> str:
        if not self.mapping:
            return ""
        return self._keyframe_rule(camera).wants(tracked, self.map, self._reference_id)

    def _keyframe_rule(self, camera: Camera) -> KeyframeRule:
        if self._rule is None:
            self._rule = KeyframeRule(self.config, camera)
        return self._rule

    def _initialize(self, observations: Observations, frame: Frame, camera: Camera) -> TrackResult:
        if len(self.map.keyframes) == 0 and self.map.descriptor_size == 0:
            origin, self.map = self.map.origin, Map(observations.descriptors.shape[1])
            self.map.origin = origin
        initializer = self._two_view if frame.sensor == "mono" else self._from_depth
        with self.statistics.stage("tracking"):
            part_before = self.map.part
            self.map.begin_part()
            started = initializer.start(self.map, camera, observations)
        if isinstance(started, str):
            self.map.part = part_before
            return TrackResult(observations.index, observations.timestamp, self.state, reason=started)
        self._mapper.refine(self.map, camera, started.keyframe_id)
        self._found()
        self._begin(started, camera)
        if started.tracked is not None:
            return self._follow(started.tracked, observations, frame, camera)
        point_ids = self.map.observations["point"][self.map.observation_rows(started.keyframe_id)]
        self._keep(frame, observations, point_ids)
        return TrackResult(
            observations.index,
            observations.timestamp,
            self.state,
            T_world_cam=self.map.pose(started.keyframe_id),
            inliers=len(self._seen_points),
            matches=len(self._seen_points),
            part=self.map.part,
            is_keyframe=True,
            reason="first map" if self.map.part == 0 else f"part {self.map.part} of the map begins",
            coverage=hull_share(observations.pixels[point_ids >= 0], camera),
        )

    def _follow(self, tracked: Tracked, observations: Observations, frame: Frame, camera: Camera) -> TrackResult:
        """Take up a frame whose pose was found; it becomes a key frame if need be."""
        self._take_up(tracked, camera)
        self._keep(frame, observations, tracked.point_ids)
        why = self._wants_keyframe(tracked, camera)
        if why:
            tracked = self._drop_movers(tracked)
            with self.statistics.stage("mapping"):
                self._insert_keyframe(tracked, camera)
        return self._result(tracked, why, camera)

    def _begin(self, started: Started, camera: Camera) -> None:
        """Record the first key frames and the frames that waited for them."""
        keyframe_ids = self.map.keyframes_of(self.map.part)
        for keyframe_id in keyframe_ids:
            pose = self.map.pose(int(keyframe_id))
            timestamp = float(self.map.keyframes["timestamp"][self.map.keyframe_rows(keyframe_id)])
            self._recorder.add(timestamp, pose, int(keyframe_id), self.map)
            self._motion.update(timestamp, geometry.inverse(pose), int(keyframe_id), self.map)
            self._places.add(int(keyframe_id), keyframe_observations(self.map, int(keyframe_id)).descriptors)
        self._reference_id = started.keyframe_id
        self._movers.begin(self.map, started.keyframe_id, self._watches_first_frames)
        self._see(self.map.points_seen_by(np.array([started.keyframe_id])))
        first_id = int(keyframe_ids[0])
        for frames in (started.before[::-1], started.between):
            self._track_waiting(frames, first_id, camera)
        self._count()

    def _track_waiting(self, frames: list[Observations], first_id: int, camera: Camera) -> None:
        """Pose the frames that waited for the first map, one after the other away from its first view."""
        T_cam_world = geometry.inverse(self.map.pose(first_id))
        missed = 0
        for observations in frames:
            tracked = self._tracker.track(observations, self.map, camera, T_cam_world, self._seen_points)
            if tracked is None:
                missed += 1
                if missed > _MISSED_WAITING:
                    return
                continue
            missed = 0
            T_cam_world = tracked.estimate.T_cam_world
            self._recorder.add(observations.timestamp, tracked.T_world_cam, first_id, self.map)

    def _see(self, point_ids: Ids) -> None:
        """Points (ids) seen last, in the map as it is from now on."""
        self._seen_points = point_ids
        self._local: tuple[Ids, Ids] | None = None

    def _local_map(self) -> tuple[Ids, Ids]:
        """Key frames and points (ids) around the points seen last."""
        if self._local is None:
            keyframe_ids = self._tracker.local_keyframes(self.map, self._seen_points)
            self._local = keyframe_ids, self._standing(self.map.points_seen_by(keyframe_ids))
        return self._local

    def _standing(self, point_ids: Ids) -> Ids:
        """Those of the points (ids) that are not known to move by themselves."""
        return point_ids[~self._movers.are_moving(self.map, point_ids)]

    def _find_pose(self, observations: Observations, camera: Camera) -> Tracked | None:
        if self.state is TrackState.TRACKING:
            _, local_points = self._local_map()
            prediction = self._motion.predict(observations.timestamp, self.map)
            at_once = as_read_at_once(observations, camera, self._motion.velocity)
            tracked = self._tracker.track(at_once, self.map, camera, prediction, local_points)
            if tracked is not None and self._is_doubtful(tracked, camera):
                near = self._relocalizer.find_near(observations, self.map, camera, self._reference_id)
                tracked = max(tracked, near or tracked, key=lambda found: found.inliers)
            if tracked is not None:
                return tracked
            self._relocalizer.lose(self._motion, self._reference_id, self.map)
        return self._recover(observations, camera)

    def _recover(self, observations: Observations, camera: Camera) -> Tracked | None:
        """The frame of a lost camera with its pose; frames that waited for it get theirs, too."""
        tracked = self._relocalizer.find(observations, self.map, camera, self._reference_id)
        for place in self._relocalizer.waited:
            earlier = place.tracked
            self._recorder.add(earlier.observations.timestamp, earlier.T_world_cam, place.keyframe_id, self.map)
        return tracked

    def _without_movers(self, tracked: Tracked, camera: Camera) -> Tracked:
        """The frame at the pose that what stands still tells."""

        def track_by_proven() -> Tracked | None:
            observations = tracked.observations
            prediction = self._motion.predict(observations.timestamp, self.map)
            _, local_points = self._local_map()
            proven = self._movers.proven(self.map, local_points)
            return self._tracker.track(observations, self.map, camera, prediction, proven)

        return self._movers.judge(tracked, self.map, camera, track_by_proven)

    @property
    def _watches_first_frames(self) -> bool:
        """Whether a map of what moves by itself can be begun anew."""
        has_depth = self.map.origin is not None and self.map.origin.sensor != "mono"
        return self._first_frames is not None and self.mapping and has_depth and self.map.part == 0

    def _goes_with_a_mover(self, tracked: Tracked, camera: Camera) -> bool:
        """Whether a young map's first points prove to be those of something that moves, which is remembered."""
        if not self._watches_first_frames:
            return False
        with self.statistics.stage("moving points"):
            return self._movers.outvotes(tracked, self.map, int(self.map.keyframes["id"][0]), camera)

    def _drop_movers(self, tracked: Tracked) -> Tracked:
        """The frame without the key points that show what moves by itself; the map loses these points."""
        ids = self.map.points["id"]
        self.map.remove_points(ids[self._movers.are_moving(self.map, ids)])
        shown = self._movers.are_moving(self.map, tracked.rejected)
        return tracked.moved(tracked.estimate.T_cam_world, self.map).select(~shown)

    def _is_doubtful(self, tracked: Tracked, camera: Camera) -> bool:
        """Whether so few points, or points in one corner of the image, agree with a pose that they may with another."""
        config = self.config.tracking
        few = tracked.inliers < _FEW_TIMES * config.recovery_inliers
        return few or tracked.coverage(camera) < config.min_coverage

    def _lose(self, observations: Observations, frame: Frame, camera: Camera) -> TrackResult:
        reason = (
            "no key points in the image"
            if len(observations) == 0
            else "no pose agrees with the map around the last one"
        )
        if self.state is TrackState.TRACKING:
            loss = self._health.diagnose(frame.image, observations, camera)
            self.statistics.losses.append(loss)
            reason = loss.reason
            logger.warning("frame %d: tracking lost, %s", observations.index, reason)
            self._two_view.reset()
        self.state = TrackState.LOST
        self._motion.stop()
        self._lost_frames += 1
        if self._lost_since is None:
            self._lost_since = observations.timestamp
        if self.mapping and self._stays_lost(observations.timestamp) and not self._relocalizer.is_about_to_find:
            result = self._begin_anew(observations, frame, camera)
        else:
            result = TrackResult(observations.index, observations.timestamp, self.state, reason=reason)
        # A saved map is begun with lost, without a loss.
        if self.state is TrackState.LOST and self.statistics.losses:
            self.statistics.losses[-1].frames += 1
        return result

    def _stays_lost(self, timestamp: float) -> bool:
        """Whether the camera was looked for long enough."""
        config = self.config.tracking
        assert self._lost_since is not None
        return self._lost_frames >= config.new_part_frames and timestamp - self._lost_since >= config.new_part_after_s

    def _begin_anew(self, observations: Observations, frame: Frame, camera: Camera) -> TrackResult:
        """Begin a new part of the map if this frame can; the camera stays lost otherwise."""
        result = self._initialize(observations, frame, camera)
        if self.state is TrackState.TRACKING:
            logger.warning("frame %d: begins part %d of the map", observations.index, self.map.part)
            self._loops.part_began(self.map.part, self._relocalizer.departure)
        return result

    def _keep(self, frame: Frame, observations: Observations, point_ids: Ids) -> None:
        """Remember what a frame with a pose sees of the map."""
        self.sighting = Sighting(observations.pixels, point_ids)
        self._health.keep(frame.image, observations, point_ids)

    def _found(self) -> None:
        self.state = TrackState.TRACKING
        self._lost_since, self._lost_frames = None, 0

    def _take_up(self, tracked: Tracked, camera: Camera) -> None:
        """Make the pose of a tracked frame the one that the next is predicted from."""
        observations = tracked.observations
        if self.state is TrackState.LOST:
            logger.info("frame %d: tracking found again", observations.index)
            # Finding itself in a saved map at the beginning is none.
            self.statistics.relocalisations += len(self._recorder) > 0
        self._found()
        self._see(tracked.seen)
        local_keyframes, local_points = self._local_map()
        self._reference_id = int(local_keyframes[0])
        self.map.part = self.map.part_of(self._reference_id)
        if self.mapping:
            self._tracker.count_visibility(self.map, camera, tracked, local_points)
        T_cam_world = tracked.estimate.T_cam_world
        self._motion.update(observations.timestamp, T_cam_world, self._reference_id, self.map)
        self._recorder.add(observations.timestamp, tracked.T_world_cam, self._reference_id, self.map)

    def _insert_keyframe(self, tracked: Tracked, camera: Camera) -> None:
        keyframe_id = self._mapper.insert(
            self.map, camera, tracked.observations, tracked.T_world_cam, tracked.point_ids
        )
        self._places.add(keyframe_id, tracked.observations.descriptors)
        self._recorder.move_last(keyframe_id)
        self._motion.anchor(tracked.observations.timestamp, tracked.estimate.T_cam_world, keyframe_id, self.map)
        self._reference_id = keyframe_id
        self._see(self.map.points_seen_by(np.array([keyframe_id])))
        self._keyframe_rule(camera).reset()
        self._end_refinement = self._mapper.refine_beside(self.map, camera, keyframe_id)
        self._count()

    def _finish_keyframe(self, tracked: Tracked | None, camera: Camera) -> Tracked | None:
        """Take up the refinement around the newest key frame and what follows from it; the pose that was found
        meanwhile is carried along.

        Always after the next frame was tracked, or before it where its stamp is late, however long that takes: two runs
        give the same bytes.
        """
        if self._end_refinement is None:
            return tracked
        keyframe_id = self._reference_id
        around = [] if tracked is None else self._tracker.local_keyframes(self.map, tracked.seen).tolist()
        before = {other: self.map.pose(other) for other in [*around, keyframe_id]}
        with self.statistics.stage("refinement"):
            end, self._end_refinement = self._end_refinement, None
            end()
            self._cull_keyframes(keyframe_id)
        with self.statistics.stage("loop closing"):
            rescaling = self._close_loop(keyframe_id, camera)
        self._see(self.map.points_seen_by(np.array([keyframe_id])))
        self._count()
        if tracked is None:
            return None
        anchor_id = next((other for other in around if self.map.has_keyframe(other)), keyframe_id)
        T_anchor_cam = geometry.inverse(before[anchor_id]) @ tracked.T_world_cam
        if rescaling is not None:
            T_anchor_cam[:3, 3] *= float(rescaling.of(np.asarray(anchor_id)))
        return tracked.moved(geometry.inverse(self.map.pose(anchor_id) @ T_anchor_cam), self.map)

    def _cull_keyframes(self, keyframe_id: int) -> None:
        """Remove key frames around one that add nothing, and let what hangs on them hang on others."""
        for removed in self._mapper.cull_keyframes(self.map, keyframe_id):
            self._places.remove(removed.keyframe_id)
            self._recorder.reanchor(removed)
            self._loops.reanchor(self.map, removed)
        self._global.keyframe_added(self.map)

    def _close_loop(self, keyframe_id: int, camera: Camera) -> Rescaling | None:
        parts = len(self.map.parts)
        rescaling = self._loops.close(self.map, camera, keyframe_id)
        if rescaling is not None:
            self._recorder.rescale(rescaling)
            self._motion.rescale(float(rescaling.of(np.asarray(keyframe_id))))
            self.statistics.loops += 1
            self.statistics.merges += parts - len(self.map.parts)
            self._global.start(self.map, camera)
        return rescaling

    def _result(self, tracked: Tracked, why_keyframe: str, camera: Camera) -> TrackResult:
        return TrackResult(
            index=tracked.observations.index,
            timestamp=tracked.observations.timestamp,
            state=self.state,
            T_world_cam=tracked.T_world_cam,
            inliers=tracked.inliers,
            matches=tracked.matches,
            part=self.map.part,
            is_keyframe=bool(why_keyframe),
            reason=f"key frame: {why_keyframe}" if why_keyframe else tracked.how,
            covariance=tracked.estimate.covariance,
            median_error_px=tracked.estimate.median_error_px,
            coverage=tracked.coverage(camera),
        )

    def _count(self) -> None:
        self.statistics.keyframes = len(self.map.keyframes)
        self.statistics.points = len(self.map.points)
        self.statistics.parts = len(self.map.parts)


def _describe(sensor: Sensor, camera: Camera) -> str:
    return f"{sensor} {camera.width}x{camera.height} fx={camera.fx:.3f}"
