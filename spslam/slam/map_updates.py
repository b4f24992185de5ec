"""How the map grows: keyframes are inserted, refined beside tracking, culled, and loops are closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import MapError
from spslam.interfaces import Parts
from spslam.map.io import SavedMap
from spslam.map.map import Map
from spslam.slam.camera_tracking import CameraTracking
from spslam.slam.keyframe_observers import KeyframeObserver, KeyframeObservers
from spslam.slam.loops.global_bundle import GlobalRefiner
from spslam.slam.loops.look_alikes import Departure
from spslam.slam.loops.loop_closing import LoopCloser, Rescaling, keyframe_observations
from spslam.slam.mapping import KeyframeRule, Mapper
from spslam.slam.recorder import Statistics
from spslam.slam.tracking import Tracked, Tracker

Array = NDArray[np.float64]
# Frames that a point must be found in, if one keyframe alone saw it, to stay at the end of a run.
_CONFIRMED_FRAMES = 3


@dataclass(frozen=True)
class Refinement:
    """Local bundle adjustment around a new keyframe, which runs while the next frame is tracked.

    Attributes:
        keyframe_id: of the new one.
        end: waits for it and writes its result into the map.
    """

    keyframe_id: int
    end: Callable[[], None]


class CarriedPose:
    """A pose that was found while the map was refined, kept relative to a keyframe that stays.

    Args:
        anchors: ids of keyframes that see the same points, the best first.
        newest: id of the keyframe that is refined, which stays in any case.
    """

    def __init__(self, tracked: Tracked, anchors: list[int], newest: int, slam_map: Map) -> None:
        self._tracked = tracked
        self._anchors, self._newest = anchors, newest
        self._T_world_anchor = {anchor: slam_map.pose(anchor) for anchor in [*anchors, newest]}

    def in_map(self, slam_map: Map, correction: Rescaling | None) -> Tracked:
        """The frame at its pose in the map as it is now."""
        anchor = next(
            (other for other in self._anchors if slam_map.has_keyframe(other)), self._newest
        )
        T_anchor_cam = geometry.inverse(self._T_world_anchor[anchor]) @ self._tracked.T_world_cam
        if correction is not None:
            T_anchor_cam[:3, 3] *= float(correction.of(np.asarray(anchor)))
        return self._tracked.moved(geometry.inverse(slam_map.pose(anchor) @ T_anchor_cam), slam_map)


class MapUpdates:
    """Inserts keyframes and takes up what their refinement, culling and loops make of the map.

    Attributes:
        pending: the refinement that runs; None: none.
    """

    def __init__(
        self,
        config: Config,
        parts: Parts,
        tracker: Tracker,
        statistics: Statistics,
        *observers: KeyframeObserver,
    ) -> None:
        distance = parts.extractor.max_distance
        self.pending: Refinement | None = None
        self._config = config
        self._mapper = Mapper(config, parts.matcher, parts.two_view, parts.bundle, distance)
        self._places = parts.places
        self._loops = LoopCloser(
            config,
            parts.matcher,
            parts.pose_solver,
            parts.pose_graph,
            self._mapper,
            tracker,
            parts.places,
            distance,
        )
        self._global = GlobalRefiner(config.global_bundle, parts.global_bundle)
        self._statistics = statistics
        self._rule: KeyframeRule | None = None
        self._observers = KeyframeObservers(*observers, self._loops)

    def wants_keyframe(
        self, tracked: Tracked, slam_map: Map, reference_id: int, camera: Camera
    ) -> str:
        """Why a frame should be a keyframe; empty: it should not."""
        return self._keyframe_rule(camera).wants(tracked, slam_map, reference_id)

    def insert(self, tracked: Tracked, slam_map: Map, camera: Camera) -> int:
        """Make a frame a keyframe, of the id that is returned, and begin to refine the map around it."""
        keyframe_id = self._mapper.insert(
            slam_map, camera, tracked.observations, tracked.T_world_cam, tracked.point_ids
        )
        self._places.add(keyframe_id, tracked.observations.descriptors)
        self._keyframe_rule(camera).reset()
        self.pending = Refinement(
            keyframe_id, self._mapper.refine_beside(slam_map, camera, keyframe_id)
        )
        self.count(slam_map)
        return keyframe_id

    def take_up(
        self, tracking: CameraTracking, tracked: Tracked | None, slam_map: Map, camera: Camera
    ) -> Tracked | None:
        """End the refinement that runs, remove redundant keyframes around the new one, and look for a loop.

        Always after the next frame was tracked, or before it where its stamp is late, however long that takes: two
        runs give the same bytes.

        Args:
            tracked: the frame that was tracked meanwhile; None: it was not, or there is none.

        Returns:
            That frame in the map as it is now.
        """
        pending, self.pending = self.pending, None
        if pending is None:
            return tracked
        carried = None
        if tracked is not None:
            carried = CarriedPose(
                tracked, tracking.anchors(tracked, slam_map), pending.keyframe_id, slam_map
            )
        with self._statistics.stage("refinement"):
            pending.end()
            for removed in self._mapper.cull_keyframes(slam_map, pending.keyframe_id):
                self._places.remove(removed.keyframe_id)
                self._observers.keyframe_removed(slam_map, removed)
            self._global.keyframe_added(slam_map)
        with self._statistics.stage("loop closing"):
            correction = self._close_loop(slam_map, camera, pending.keyframe_id)
        tracking.see_keyframe(pending.keyframe_id, slam_map)
        self.count(slam_map)
        return None if carried is None else carried.in_map(slam_map, correction)

    def restore_places(self, saved: SavedMap) -> None:
        """Let the keyframes of a saved map be found again.

        Raises:
            MapError: its index of places is damaged.
        """
        if saved.places:
            try:
                self._places.restore(saved.places)
            except (KeyError, ValueError) as error:
                raise MapError(f"the map's index of places is damaged: {error}") from None

    def begin(self, slam_map: Map, camera: Camera, keyframe_id: int) -> None:
        """Refine a first map around its newest keyframe, at once."""
        self._mapper.refine(slam_map, camera, keyframe_id)

    def submap_began(self, submap: int, departure: Departure | None) -> None:
        """A submap begins with a camera that was lost before."""
        self._loops.part_began(submap, departure)

    def add_places(self, slam_map: Map, keyframe_ids: list[int]) -> None:
        """Keyframes can be found again from now on."""
        for keyframe_id in keyframe_ids:
            self._places.add(keyframe_id, keyframe_observations(slam_map, keyframe_id).descriptors)

    def clear(self, slam_map: Map) -> None:
        """Remove all keyframes."""
        for keyframe_id in slam_map.keyframes["id"].tolist():
            self._places.remove(keyframe_id)
            slam_map.remove_keyframe(keyframe_id)

    def finish(self, slam_map: Map) -> None:
        """End the run: refine all of the map if it closed a loop, and remove points that hardly any frame saw."""
        self._global.finish(slam_map)
        unconfirmed = (slam_map.observation_counts() < 2) & (
            slam_map.points["found"] < _CONFIRMED_FRAMES
        )
        slam_map.remove_points(slam_map.points["id"][unconfirmed])
        self.count(slam_map)

    def tell(self) -> None:
        """Notice what was doubtful about loops."""
        self._loops.tell()

    def count(self, slam_map: Map) -> None:
        """Count keyframes, points and submaps."""
        self._statistics.keyframes = len(slam_map.keyframes)
        self._statistics.points = len(slam_map.points)
        self._statistics.parts = len(slam_map.parts)

    def _keyframe_rule(self, camera: Camera) -> KeyframeRule:
        if self._rule is None:
            self._rule = KeyframeRule(self._config, camera)
        return self._rule

    def _close_loop(self, slam_map: Map, camera: Camera, keyframe_id: int) -> Rescaling | None:
        submaps = len(slam_map.parts)
        rescaling = self._loops.close(slam_map, camera, keyframe_id)
        if rescaling is not None:
            self._observers.keyframes_rescaled(rescaling)
            self._statistics.loops += 1
            self._statistics.merges += submaps - len(slam_map.parts)
            self._global.start(slam_map, camera)
        return rescaling
