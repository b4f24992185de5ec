"""How a map, or a submap after a loss, begins: from the first frames, and anew where they proved to hold what moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Frame, Observations, Sensor
from spslam.interfaces import Parts
from spslam.map.map import Ids, Map
from spslam.slam.initialization import DepthInitializer, Started, TwoViewInitializer
from spslam.slam.tracking import Tracked, Tracker

# Frames that are kept to go through them once more where something in them proves to be no part of the world.
_FIRST_FRAMES = 30
# Bad frames in a row among those that waited for the first map; those beyond are too far away.
_MISSED_WAITING = 3


class MapStart:
    """Begins maps and submaps, and remembers the first frames of the run.

    Args:
        remember: whether the map may be begun anew; one that was loaded may not.

    Attributes:
        two_view: starts from two views of a single camera.
        first_frames: since the first one, while they are so few that they can be gone through once more.
    """

    def __init__(self, config: Config, parts: Parts, tracker: Tracker, remember: bool) -> None:
        distance = parts.extractor.max_distance
        self.two_view = TwoViewInitializer(config, parts.matcher, parts.two_view, distance)
        self.first_frames: list[tuple[Frame, Observations]] | None = [] if remember else None
        self._from_depth = DepthInitializer(config, tracker)
        self._tracker = tracker

    def start(
        self, slam_map: Map, camera: Camera, observations: Observations, sensor: Sensor
    ) -> Started | str:
        """Begin a submap with a frame; a refusal is one line that says why."""
        if len(slam_map.keyframes) == 0 and slam_map.descriptor_size == 0:
            slam_map.set_descriptor_size(observations.descriptors.shape[1])
        initializer = self.two_view if sensor == "mono" else self._from_depth
        submap_before = slam_map.part
        slam_map.begin_part()
        started = initializer.start(slam_map, camera, observations)
        if isinstance(started, str):
            slam_map.part = submap_before
        return started

    def waiting_frames(
        self, started: Started, slam_map: Map, camera: Camera, first_id: int, point_ids: Ids
    ) -> Iterator[Tracked]:
        """The frames that waited for the first map with their poses, one after the other away from its first view.

        Args:
            first_id: of the keyframe that is the first view.
            point_ids: of the map.
        """
        for frames in (started.before[::-1], started.between):
            T_cam_world = geometry.inverse(slam_map.pose(first_id))
            missed = 0
            for observations in frames:
                tracked = self._tracker.track(
                    observations, slam_map, camera, T_cam_world, point_ids
                )
                if tracked is None:
                    missed += 1
                    if missed > _MISSED_WAITING:
                        break
                    continue
                missed = 0
                T_cam_world = tracked.estimate.T_cam_world
                yield tracked

    def remember(self, frame: Frame, observations: Observations) -> None:
        """Keep one of the first frames."""
        if self.first_frames is None:
            return
        # The observations hold what the right image or the depth said: only that there was one matters now.
        right = None if frame.image_right is None else np.empty((0, 0), dtype=np.uint8)
        depth = None if frame.depth is None else np.empty((0, 0), dtype=np.float32)
        self.first_frames.append((replace(frame, image_right=right, depth=depth), observations))
        if len(self.first_frames) > _FIRST_FRAMES:
            self.first_frames = None

    def watches(self, slam_map: Map, mapping: bool) -> bool:
        """Whether the map is so young that it can be begun anew without what moves by itself."""
        has_depth = slam_map.origin is not None and slam_map.origin.sensor != "mono"
        return self.first_frames is not None and mapping and has_depth and slam_map.part == 0
