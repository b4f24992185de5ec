"""Where a camera that tracking lost may be: key frames that the frame is tried against, one after the other."""

from __future__ import annotations

import numpy as np

from spslam.camera import Camera
from spslam.config import Config
from spslam.frame import Observations
from spslam.map import Map
from spslam.ports import PlaceRecognizer
from spslam.tracking import Tracked, Tracker


class Relocalizer:
    """Finds the pose of a frame without a prediction: around where the camera was last, and where it looks alike."""

    def __init__(self, config: Config, tracker: Tracker, places: PlaceRecognizer) -> None:
        self._config = config.tracking
        self._min_covisibility = config.loop.min_covisibility
        self._tracker = tracker
        self._places = places

    def find(
        self, observations: Observations, slam_map: Map, camera: Camera, reference_id: int, just_lost: bool
    ) -> Tracked | None:
        """The frame with its pose, or None.

        Args:
            observations: of the frame.
            slam_map: to find it in.
            camera: of the frame.
            reference_id: the key frame that tracking saw most of, last.
            just_lost: the camera is still about there, so that is tried first; otherwise likeness is.
        """
        if just_lost:
            tracked = self.find_near(observations, slam_map, camera, reference_id)
            if tracked is not None:
                return tracked
        around, alike = self._around(slam_map, reference_id), self._alike(observations, slam_map)
        candidates = [k for k in alike if k not in around] if just_lost else [*dict.fromkeys([*alike, *around])]
        return self._tracker.recover(observations, slam_map, camera, candidates)

    def find_near(self, observations: Observations, slam_map: Map, camera: Camera, reference_id: int) -> Tracked | None:
        """As `find`, around the last place alone."""
        around = self._around(slam_map, reference_id)
        tracked = self._tracker.recover(observations, slam_map, camera, around)
        if tracked is None:
            tracked = self._tracker.recover_around(observations, slam_map, camera, reference_id)
        return tracked

    def _around(self, slam_map: Map, reference_id: int) -> list[int]:
        """The key frame that tracking saw most of, last, and the newest ones."""
        recent: list[int] = slam_map.keyframes["id"][::-1][: self._config.recovery_keyframes].tolist()
        return [reference_id, *recent] if slam_map.has_keyframe(reference_id) else recent

    def _alike(self, observations: Observations, slam_map: Map) -> list[int]:
        """The key frames most like the frame, of each group that shares points only the best."""
        known, likeness = self._places.search(observations.descriptors)
        found: list[int] = []
        taken: set[int] = set()
        for keyframe_id in known[np.argsort(-likeness, kind="stable")].tolist():
            if len(found) == self._config.recovery_places:
                break
            if keyframe_id not in taken:
                found.append(keyframe_id)
                taken |= set(slam_map.covisible(keyframe_id, least=self._min_covisibility)[0].tolist())
        return found
