"""Start a map from the first frames, or a submap after a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import Refusal
from spslam.frame import Frame, Observations, Sensor
from spslam.interfaces import Components, WideStage
from spslam.map.map import Map
from spslam.map.submaps import begin_submap, keyframes_of, submap_of
from spslam.slam.initialization import DepthInitializer, InitialMap, TwoViewInitializer
from spslam.slam.loops.similar_places import Departure
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
from spslam.typing import FloatArray, IntArray

# Number of first frames to keep. They are tracked again if the young map held moving points.
_FIRST_FRAMES = 30
# Bad frames in a row after which the search among the waiting frames ends.
_MISSED_WAITING = 3
# Number of keyframes before a loss that are searched in the new submap.
_OLD_KEYFRAMES = 6


class MapStart:
    """Starts maps and submaps, and keeps the first frames of the run.

    Args:
        config: of all stages.
        submaps: the components that do the work.
        tracker: finds the poses of the frames that waited.
        remember: whether the map may be initial again; False for a loaded map.

    Attributes:
        two_view: starts a map from two views of a single camera.
        first_frames: all frames of the run; None once there are too many to track them again.
        lost: frames without a pose since the loss, oldest first, that did not wait for a submap.
    """

    def __init__(
        self, config: Config, components: Components, tracker: Tracker, remember: bool
    ) -> None:
        distance = components.extractor.max_descriptor_distance
        self.two_view = TwoViewInitializer(
            config, components.matcher, components.two_view, distance
        )
        self.first_frames: list[tuple[Frame, Observations]] | None = [] if remember else None
        self.lost: list[Observations] = []
        self._max_lost = config.initialization.max_frames
        self._from_depth = DepthInitializer(config, tracker)
        self._tracker = tracker

    def start(
        self, slam_map: Map, camera: Camera, observations: Observations, sensor: Sensor
    ) -> InitialMap | Refusal:
        """Start a submap with a frame, if it can be initial."""
        if len(slam_map.keyframes) == 0 and slam_map.descriptor_size == 0:
            slam_map.set_descriptor_size(observations.descriptors.shape[1])
        initializer = self.two_view if sensor == "mono" else self._from_depth
        submap_before = slam_map.submap
        begin_submap(slam_map)
        initial = initializer.start(slam_map, camera, observations)
        if isinstance(initial, Refusal):
            slam_map.submap = submap_before
            return initial
        lost, self.lost = self.lost, []
        return replace(initial, before=[*lost, *initial.before])

    def lose(self) -> None:
        """Note that tracking was lost: frames before it do not wait for a submap."""
        self.two_view.reset()
        self.lost = []

    def keep_lost(self, observations: Observations) -> None:
        """Keep a lost frame: its pose may be found in a submap that starts soon."""
        self.lost = [*self.lost, observations][-self._max_lost :]

    def waiting_frames(
        self, initial: InitialMap, slam_map: Map, camera: Camera, first_id: int, point_ids: IntArray
    ) -> Iterator[TrackedFrame]:
        """Track the frames that waited for the first map, going away from its first view.

        Args:
            initial: the new map, and the frames that waited for it.
            slam_map: to track them in.
            camera: of the frames.
            first_id: id of the keyframe that is the first view.
            point_ids: ids of the points of the map.

        Yields:
            Each frame whose pose was found.
        """
        # The motion during a loss is large more often than not: match without a prediction, too.
        without_prediction = [first_id] if slam_map.submap > 0 else []
        for frames in (initial.before[::-1], initial.between):
            T_cam_world = geometry.inverse(slam_map.pose(first_id))
            missed = 0
            for observations in frames:
                tracked = self._tracker.track(
                    observations, slam_map, camera, T_cam_world, point_ids
                )
                if tracked is None:
                    tracked = self._tracker.recover(
                        observations,
                        slam_map,
                        camera,
                        without_prediction,
                        stage=WideStage.START,
                    )
                if tracked is None:
                    missed += 1
                    if missed > _MISSED_WAITING:
                        break
                    continue
                missed = 0
                T_cam_world = tracked.estimate.T_cam_world
                yield tracked

    def overlap(
        self,
        slam_map: Map,
        camera: Camera,
        departure: Departure,
        T_cam_world: FloatArray,
        point_ids: IntArray,
    ) -> Iterator[tuple[int, TrackedFrame]]:
        """Track the last keyframes before a loss in the submap that began after it.

        Args:
            slam_map: of both submaps.
            camera: of the map.
            departure: where the camera was lost.
            T_cam_world: (4, 4), in the new submap, of its earliest frame.
            point_ids: ids of the points of the new submap.

        Yields:
            The id of each keyframe that was found, and the keyframe in the new submap.
        """
        if not slam_map.has_keyframe(departure.keyframe_id):
            return
        last = departure.keyframe_id
        newest = keyframes_of(slam_map, submap_of(slam_map, last))[::-1]
        beside, _ = slam_map.covisible(last)
        half = _OLD_KEYFRAMES // 2
        old = dict.fromkeys([*newest[:half].tolist(), last, *beside.tolist()])
        new = keyframes_of(slam_map, slam_map.submap).tolist()
        for keyframe_id in list(old)[:_OLD_KEYFRAMES]:
            observations = slam_map.observations_of(keyframe_id)
            tracked = self._tracker.track(observations, slam_map, camera, T_cam_world, point_ids)
            if tracked is None:
                tracked = self._tracker.recover(
                    observations, slam_map, camera, new, stage=WideStage.SUBMAPS
                )
            if tracked is not None:
                T_cam_world = tracked.estimate.T_cam_world
                yield keyframe_id, tracked

    def remember(self, frame: Frame, observations: Observations) -> None:
        """Keep one of the first frames."""
        if self.first_frames is None:
            return
        # The observations hold disparity and depth: only whether there was an image still matters.
        right = None if frame.image_right is None else np.empty((0, 0), dtype=np.uint8)
        depth = None if frame.depth is None else np.empty((0, 0), dtype=np.float32)
        kept = replace(frame, image_right=right, depth=depth, color=None, color_right=None)
        self.first_frames.append((kept, observations))
        if len(self.first_frames) > _FIRST_FRAMES:
            self.first_frames = None

    def watches(self, slam_map: Map, mapping: bool) -> bool:
        """Whether the map is young enough to start it again without moving points."""
        has_depth = slam_map.origin is not None and slam_map.origin.sensor != "mono"
        return self.first_frames is not None and mapping and has_depth and slam_map.submap == 0
