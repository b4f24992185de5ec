"""Find a lost camera: try the frame against one keyframe after the other.

Keyframes within reach of the last pose come first, and are accepted at once. A place farther away
may only look the same: several frames must see it, no place within reach may agree with them, and
no other place may fit about as well. Otherwise the camera stays lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from spslam import geometry
from spslam.backend_interfaces import PlaceRecognizer
from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.interfaces import WideStage
from spslam.map.map import Map
from spslam.notices import counted, notice
from spslam.slam.loops.similar_places import Departure, Place, Reach, groups_by_similarity
from spslam.slam.motion import Motion
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker
from spslam.slam.visibility import visible_points
from spslam.typing import IntArray

logger = logging.getLogger(__name__)


class _Search:
    """Finds the places that a frame fits, including weak ones; tries each keyframe once."""

    def __init__(
        self,
        tracker: Tracker,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        least: int,
    ) -> None:
        self._tracker = tracker
        self._frame = observations, slam_map, camera
        self._map = slam_map
        self._least = least
        self._tried: dict[int, Place | None] = {}
        self.found: list[Place] = []

    def each(self, keyframe_ids: Iterable[int]) -> Iterator[Place]:
        """Yield the places found by matches with each keyframe."""
        for keyframe_id in keyframe_ids:
            if keyframe_id not in self._tried:
                self._tried[keyframe_id] = self._take(
                    self._tracker.recover(
                        *self._frame, [keyframe_id], self._least, WideStage.RELOCALIZATION
                    )
                )
            place = self._tried[keyframe_id]
            if place is not None:
                yield place

    def around(self, keyframe_id: int) -> Iterator[Place]:
        """Yield the place found by matches with all points around a keyframe."""
        stage = WideStage.RELOCALIZATION
        place = self._take(
            self._tracker.recover_around(*self._frame, keyframe_id, self._least, stage)
        )
        if place is not None:
            yield place

    def _take(self, tracked: TrackedFrame | None) -> Place | None:
        if tracked is None:
            return None
        place = Place.of(tracked, self._map)
        self.found.append(place)
        return place


class Relocalizer:
    """Finds the pose of a frame without a prediction, near the last pose or at a similar place.

    Attributes:
        waited: places of the earlier frames that were confirmed with the latest frame found.
    """

    def __init__(self, config: Config, tracker: Tracker, places: PlaceRecognizer) -> None:
        self._settings = config
        self._config = config.tracking
        self._limits = config.relocalization
        self._min_covisibility = config.loop.min_covisibility
        self._tracker = tracker
        self._place_recognition = places
        self._last: Departure | None = None
        self._away = 0
        self._claims: list[Place] = []
        self._missed = 0
        self._doubted = 0
        self.waited: list[Place] = []

    @property
    def is_about_to_find(self) -> bool:
        """Whether the latest frames saw a place that the next ones may confirm."""
        return bool(self._claims)

    @property
    def departure(self) -> Departure | None:
        """Where the camera was lost, and if it was carried away; None without an earlier pose."""
        if self._last is None:
            return None
        return replace(self._last, carried_away=self._away > 0)

    def lose(self, motion: Motion, reference_id: int, slam_map: Map) -> None:
        """Note the last pose and motion before tracking failed.

        Args:
            motion: of the camera until then.
            reference_id: the keyframe that the last pose is relative to.
            slam_map: that was tracked in.
        """
        self._claims, self._last, self._away = [], None, 0
        T_cam_world = motion.last(slam_map)
        if T_cam_world is not None and slam_map.has_keyframe(reference_id):
            T_keyframe_cam = geometry.inverse(T_cam_world @ slam_map.pose(reference_id))
            self._last = Departure(
                reference_id, T_keyframe_cam, motion.timestamp, motion.velocity, motion.fastest
            )

    def find(
        self, observations: Observations, slam_map: Map, camera: Camera, reference_id: int
    ) -> TrackedFrame | None:
        """Find the pose of a frame; None if no place is accepted.

        Args:
            observations: of the frame.
            slam_map: to find it in.
            camera: of the frame.
            reference_id: the keyframe that shared most points with the last tracked frame.
        """
        self.waited = []
        place: Place | None = None
        if len(observations) >= self._config.min_inliers:
            search = _Search(
                self._tracker, observations, slam_map, camera, self._config.min_inliers
            )
            place = self._find(search, observations, slam_map, camera, reference_id)
        if place is not None:
            self.waited = (
                [claim for claim in self._claims if claim is not place]
                if self._is_claimed(place)
                else []
            )
            self._claims = []
            return place.tracked
        self._missed += 1
        if self._missed > self._limits.max_missed:
            self._claims = []
        return None

    def _find(
        self,
        search: _Search,
        observations: Observations,
        slam_map: Map,
        camera: Camera,
        reference_id: int,
    ) -> Place | None:
        reach = (
            None
            if self._last is None
            else self._last.reach(observations.timestamp, slam_map, self._limits)
        )
        if self._last is None or reach is None:
            return self._anywhere(search, observations, slam_map, reference_id)
        place = self._within(search, observations, slam_map, reach, reference_id)
        if place is not None or any(found.is_within(reach) for found in search.found):
            return place
        if self._would_see(observations, self._last, reach, slam_map, camera):
            self._away += 1
        elif self._away < self._limits.confirmations:
            return None
        return self._confirmed(self._beyond(search, observations, slam_map))

    def _would_see(
        self,
        observations: Observations,
        last: Departure,
        reach: Reach,
        slam_map: Map,
        camera: Camera,
    ) -> bool:
        """Whether a camera that kept its velocity would still see much of its last view.

        If it would, a frame that matches nothing of it means that the camera was carried away.
        """
        usual = slam_map.observation_rows(last.keyframe_id)
        if len(observations) < self._limits.min_keypoint_fraction * (usual.stop - usual.start):
            return False
        seen = slam_map.points_seen_by(np.array([last.keyframe_id]))
        around = slam_map.points_seen_by(self._tracker.local_keyframes(slam_map, seen))
        then, now = (
            len(visible_points(self._config, slam_map, camera, T_cam_world, around)[0])
            for T_cam_world in (geometry.inverse(reach.T_world_cam), last.expected(reach))
        )
        return now >= self._limits.min_visible_fraction * then

    def find_near(
        self, observations: Observations, slam_map: Map, camera: Camera, reference_id: int
    ) -> TrackedFrame | None:
        """Find the pose by the keyframes around the last pose, without a check of the reach."""
        around = self._around(slam_map, reference_id)
        tracked = self._tracker.recover(observations, slam_map, camera, around)
        if tracked is None:
            tracked = self._tracker.recover_around(observations, slam_map, camera, reference_id)
        return tracked

    def tell(self) -> None:
        """Notify the user how many frames fit two similar places."""
        if self._doubted:
            text = "%s two places that look the same about as well: neither place was accepted"
            frames = counted(
                self._doubted, "frame of a lost camera fits", "frames of a lost camera fit"
            )
            notice(logger, "similar_places", text, frames, count=self._doubted)

    # -- where to look -----------------------------------------------------------------------------

    def _within(
        self,
        search: _Search,
        observations: Observations,
        slam_map: Map,
        reach: Reach,
        reference_id: int,
    ) -> Place | None:
        """Find the place within reach of the last pose, around that pose or by similarity."""
        ids = slam_map.keyframes["id"][reach.holds_keyframes(slam_map)]

        def trials() -> Iterator[Place]:
            yield from search.each(self._around(slam_map, reference_id))
            yield from search.around(reference_id)
            yield from search.each(self._similar(observations, slam_map, ids))

        first = next((place for place in self._enough(trials()) if place.is_within(reach)), None)
        if first is None:
            return None
        others = self._enough(search.each(self._similar(observations, slam_map, ids, first)))
        best = max(
            [first, *(place for place in others if place.is_within(reach))],
            key=lambda place: place.inliers,
        )
        rivals = [
            place
            for place in best.rivals(search.found, slam_map, self._settings)
            if place.is_within(reach)
        ]
        return self._expected(best, rivals, reach) if rivals else best

    def _expected(self, best: Place, rivals: list[Place], reach: Reach) -> Place | None:
        """Choose among places that fit about as well: the nearest to the expected position.

        This applies only shortly after a loss, and if the second place is clearly farther away.
        """
        assert self._last is not None
        centre = geometry.inverse(self._last.expected(reach))[:3, 3]

        def off(place: Place) -> float:
            return float(np.linalg.norm(place.tracked.T_world_cam[:3, 3] - centre))

        first, second = sorted([best, *rivals], key=off)[:2]
        enough = first.inliers >= self._config.recovery_inliers
        if enough and reach.seconds <= self._limits.expected_s and off(first) < 0.5 * off(second):
            return first
        self._doubt(best, rivals)
        return None

    def _beyond(self, search: _Search, observations: Observations, slam_map: Map) -> Place | None:
        """Find the place anywhere in the map by similarity; None if a rival fits about as well."""
        trials = search.each(self._similar(observations, slam_map, slam_map.keyframes["id"]))
        best = max(
            [*self._enough(trials), *self._enough(search.found)],
            key=lambda place: place.inliers,
            default=None,
        )
        if best is None:
            return None
        for _ in search.each(self._similar(observations, slam_map, slam_map.keyframes["id"], best)):
            pass
        rivals = best.rivals(search.found, slam_map, self._settings)
        if rivals:
            self._doubt(best, rivals)
        return None if rivals else best

    def _anywhere(
        self, search: _Search, observations: Observations, slam_map: Map, reference_id: int
    ) -> Place | None:
        """Find the place of a camera without an earlier pose."""
        best = self._beyond(search, observations, slam_map)
        if best is None and not search.found:
            best = next(self._enough(search.each(self._around(slam_map, reference_id))), None)
        return best

    def _confirmed(self, place: Place | None) -> Place | None:
        """Return the place once enough frames confirm it."""
        if place is None:
            return None
        if not self._is_claimed(place):
            self._claims = []
        self._claims.append(place)
        self._missed = -1
        return place if len(self._claims) >= self._limits.confirmations else None

    def _is_claimed(self, place: Place) -> bool:
        """Whether the place is within reach of the previous frame's place."""
        if not self._claims:
            return False
        before, fastest = (
            self._claims[-1],
            self._last.fastest if self._last is not None else (0.0, 0.0),
        )
        seconds = place.tracked.observations.timestamp - before.tracked.observations.timestamp
        reach = Reach.after(
            self._limits, seconds, before.submap, before.tracked.T_world_cam, before.depth, fastest
        )
        return place.is_within(reach)

    def _doubt(self, best: Place, rivals: list[Place]) -> None:
        """Reject a place because others fit about as well."""
        self._claims = []
        self._doubted += 1
        logger.info(
            "frame %d fits the places of keyframes %d and %d with %d and %d inliers: "
            "they look the same",
            best.tracked.observations.index, best.keyframe_id, rivals[0].keyframe_id,
            best.inliers, rivals[0].inliers,
        )  # fmt: skip

    def _enough(self, places: Iterable[Place]) -> Iterator[Place]:
        """Select the places with enough inliers to relocalize."""
        return (place for place in places if place.inliers >= self._config.recovery_inliers)

    def _around(self, slam_map: Map, reference_id: int) -> list[int]:
        """The reference keyframe of the last tracked frame, and the newest keyframes, each once."""
        recent: list[int] = slam_map.keyframes["id"][::-1][
            : self._config.recovery_keyframes
        ].tolist()
        if not slam_map.has_keyframe(reference_id):
            return recent
        return list(dict.fromkeys([reference_id, *recent]))

    def _similar(
        self, observations: Observations, slam_map: Map, ids: IntArray, beside: Place | None = None
    ) -> list[int]:
        """Select the keyframes most similar to a frame, only one of each covisible group.

        Args:
            observations: of the frame.
            slam_map: holds the keyframes.
            ids: keyframes to choose from.
            beside: a place whose covisible group is excluded.
        """
        known, similarity = self._place_recognition.search(observations.descriptors)
        wanted = np.isin(known, ids)
        taken: set[int] = set()
        if beside is not None:
            companions, _ = slam_map.covisible(beside.keyframe_id, least=self._min_covisibility)
            taken = {beside.keyframe_id, *companions.tolist()}
        return groups_by_similarity(
            known[wanted],
            similarity[wanted],
            slam_map,
            self._min_covisibility,
            self._config.recovery_candidates,
            taken,
        )
