"""Update the map: insert keyframes, refine, cull, and close loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import MapError
from spslam.interfaces import Components
from spslam.map.io import SavedMap
from spslam.map.map import Map
from spslam.map.submaps import submap_numbers
from spslam.slam.camera_tracking import CameraTracking
from spslam.slam.loops.global_bundle import GlobalRefiner
from spslam.slam.loops.loop_closing import LoopCloser, ScaleCorrection
from spslam.slam.loops.similar_places import Departure
from spslam.slam.mapping import KeyframeRule, Mapper, RemovedKeyframe
from spslam.slam.recorder import Statistics
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker

# Least number of frames that must have found a point seen by one keyframe, to keep it at the end.
_CONFIRMED_FRAMES = 3


class KeyframeObserver(Protocol):
    """Keeps poses or lengths relative to keyframes, which must follow them."""

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """Handle a culled keyframe; its parent keyframe replaces it."""
        ...

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """Handle a correction of the map that changed the scale around keyframes."""
        ...


class KeyframeObservers:
    """Forwards events of keyframes to all observers."""

    def __init__(self, *observers: KeyframeObserver) -> None:
        self._observers = observers

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """See `KeyframeObserver`."""
        for observer in self._observers:
            observer.keyframe_removed(slam_map, removed)

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """See `KeyframeObserver`."""
        for observer in self._observers:
            observer.keyframes_rescaled(scale_correction)


@dataclass(frozen=True)
class Refinement:
    """A local bundle adjustment around a new keyframe, in parallel with tracking of the next frame.

    Attributes:
        keyframe_id: of the new keyframe.
        end: waits for the result and writes it to the map.
    """

    keyframe_id: int
    end: Callable[[], None]


class CarriedPose:
    """A pose found during a refinement of the map, kept relative to a keyframe that stays.

    Args:
        tracked: the frame with its pose.
        anchors: ids of keyframes that see the same points, best first.
        newest: id of the refined keyframe, which stays in any case.
        slam_map: before the refinement.
    """

    def __init__(
        self, tracked: TrackedFrame, anchors: list[int], newest: int, slam_map: Map
    ) -> None:
        self._tracked = tracked
        self._anchors, self._newest = anchors, newest
        self._T_world_anchor = {anchor: slam_map.pose(anchor) for anchor in [*anchors, newest]}

    def in_map(self, slam_map: Map, correction: ScaleCorrection | None) -> TrackedFrame:
        """Return the frame with its pose in the current map."""
        anchor = next(
            (other for other in self._anchors if slam_map.has_keyframe(other)), self._newest
        )
        T_anchor_cam = geometry.inverse(self._T_world_anchor[anchor]) @ self._tracked.T_world_cam
        if correction is not None:
            T_anchor_cam[:3, 3] *= float(correction.of(np.asarray(anchor)))
        return self._tracked.moved(geometry.inverse(slam_map.pose(anchor) @ T_anchor_cam), slam_map)


class MapUpdates:
    """Inserts keyframes, and applies the results of refinement, culling and loop closing.

    Attributes:
        pending: the running refinement; None if nothing is running.
    """

    def __init__(
        self,
        config: Config,
        components: Components,
        tracker: Tracker,
        statistics: Statistics,
        *observers: KeyframeObserver,
    ) -> None:
        distance = components.extractor.max_descriptor_distance
        self.pending: Refinement | None = None
        self._config = config
        self._mapper = Mapper(
            config, components.matcher, components.two_view, components.bundle, distance
        )
        self._place_recognition = components.place_recognition
        self._loops = LoopCloser.of(config, components, self._mapper, tracker)
        self._global = GlobalRefiner(config.global_bundle, components.global_bundle)
        self._statistics = statistics
        self._rule: KeyframeRule | None = None
        self._observers = KeyframeObservers(*observers, self._loops)

    def wants_keyframe(
        self, tracked: TrackedFrame, slam_map: Map, reference_id: int, camera: Camera
    ) -> str:
        """Return the reason for a keyframe; an empty string if the frame should not be one."""
        return self._keyframe_rule(camera).wants(tracked, slam_map, reference_id)

    def insert(self, tracked: TrackedFrame, slam_map: Map, camera: Camera) -> int:
        """Make a frame a keyframe and start to refine the map around it; return its id."""
        keyframe_id = self._mapper.insert(
            slam_map,
            camera,
            tracked.observations,
            tracked.T_world_cam,
            tracked.point_ids,
            tracked.anchors,
        )
        self._place_recognition.add(keyframe_id, tracked.observations.descriptors)
        self._keyframe_rule(camera).reset()
        self.pending = Refinement(
            keyframe_id, self._mapper.refine_beside(slam_map, camera, keyframe_id)
        )
        self.count(slam_map)
        return keyframe_id

    def take_up(
        self, tracking: CameraTracking, tracked: TrackedFrame | None, slam_map: Map, camera: Camera
    ) -> TrackedFrame | None:
        """Finish the running refinement, cull keyframes around the new one, and look for a loop.

        It is always called after the next frame was tracked, or before a late frame, however long
        the refinement takes: two runs give the same bytes.

        Args:
            tracking: of the camera.
            tracked: the frame tracked during the refinement; None if tracking failed or did not
                run.
            slam_map: to update.
            camera: of the map.

        Returns:
            That frame in the updated map.
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
                self._place_recognition.remove(removed.keyframe_id)
                self._observers.keyframe_removed(slam_map, removed)
            self._global.keyframe_added(slam_map)
        with self._statistics.stage("loop closing"):
            correction = self._close_loop(slam_map, camera, pending.keyframe_id)
        tracking.see_keyframe(pending.keyframe_id, slam_map)
        self.count(slam_map)
        return None if carried is None else carried.in_map(slam_map, correction)

    def restore_places(self, saved: SavedMap) -> None:
        """Restore the place recognition index of a saved map, or make it if there is none.

        Raises:
            MapError: the index is damaged.
        """
        if not saved.places:
            self.add_places(saved.map, saved.map.keyframes["id"].tolist())
        else:
            try:
                self._place_recognition.restore(saved.places)
            except (KeyError, ValueError) as error:
                raise MapError(f"the map's place recognition index is damaged: {error}") from None

    def begin(self, slam_map: Map, camera: Camera, keyframe_id: int) -> None:
        """Refine a first map around its newest keyframe, without a thread."""
        self._mapper.refine(slam_map, camera, keyframe_id)

    def submap_began(self, submap: int, departure: Departure | None) -> None:
        """Note where the camera was lost before a new submap."""
        self._loops.submap_began(submap, departure)

    def add_places(self, slam_map: Map, keyframe_ids: list[int]) -> None:
        """Add keyframes to the place recognition index."""
        for keyframe_id in keyframe_ids:
            self._place_recognition.add(
                keyframe_id, slam_map.observations_of(keyframe_id).descriptors
            )

    def clear(self, slam_map: Map) -> None:
        """Remove all keyframes."""
        for keyframe_id in slam_map.keyframes["id"].tolist():
            self._place_recognition.remove(keyframe_id)
            slam_map.remove_keyframe(keyframe_id)

    def finish(self, slam_map: Map) -> None:
        """End the run: finish global bundle adjustment, and remove points that few frames found."""
        self._global.finish(slam_map)
        unconfirmed = (slam_map.observation_counts() < 2) & (
            slam_map.points["found"] < _CONFIRMED_FRAMES
        )
        slam_map.remove_points(slam_map.points["id"][unconfirmed])
        self.count(slam_map)

    def tell(self) -> None:
        """Notify the user of doubtful loops."""
        self._loops.tell()

    def count(self, slam_map: Map) -> None:
        """Count keyframes, points and submaps."""
        self._statistics.keyframes = len(slam_map.keyframes)
        self._statistics.points = len(slam_map.points)
        self._statistics.submaps = len(submap_numbers(slam_map))

    def _keyframe_rule(self, camera: Camera) -> KeyframeRule:
        if self._rule is None:
            self._rule = KeyframeRule(self._config, camera)
        return self._rule

    def _close_loop(
        self, slam_map: Map, camera: Camera, keyframe_id: int
    ) -> ScaleCorrection | None:
        submaps = len(submap_numbers(slam_map))
        scale_correction = self._loops.close(slam_map, camera, keyframe_id)
        self._apply(slam_map, camera, scale_correction, submaps)
        return scale_correction

    def join_overlap(
        self,
        tracking: CameraTracking,
        slam_map: Map,
        camera: Camera,
        found: Iterable[tuple[int, TrackedFrame]],
    ) -> bool:
        """Join a submap that just began to the one before; return whether they were joined.

        Args:
            tracking: of the camera.
            slam_map: to correct.
            camera: of the map.
            found: ids of keyframes of the older submap, each tracked in the new one.
        """
        submaps = len(submap_numbers(slam_map))
        correction = self._loops.join_overlap(slam_map, camera, found)
        self._apply(slam_map, camera, correction, submaps)
        if correction is not None:
            tracking.see_keyframe(tracking.reference_id, slam_map)
            self.count(slam_map)
        return correction is not None

    def _apply(
        self,
        slam_map: Map,
        camera: Camera,
        scale_correction: ScaleCorrection | None,
        submaps: int,
    ) -> None:
        """Notify the observers of a corrected map that had a number of submaps before."""
        if scale_correction is not None:
            self._observers.keyframes_rescaled(scale_correction)
            self._statistics.loops += 1
            self._statistics.merges += submaps - len(submap_numbers(slam_map))
            self._global.start(slam_map, camera)
