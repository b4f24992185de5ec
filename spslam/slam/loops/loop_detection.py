"""Loop candidates: older keyframes that are near, and those that look similar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spslam.backend_interfaces import PlaceRecognizer
from spslam.config import LoopConfig
from spslam.map.covisibility import median_depth
from spslam.map.map import Map
from spslam.typing import FloatArray, IntArray


@dataclass(frozen=True)
class _Place:
    """A similar place.

    Attributes:
        keyframe_id: the most similar keyframe.
        members: this keyframe and its covisible keyframes.
        seen: number of keyframes in a row for which the place was similar.
    """

    keyframe_id: int
    members: frozenset[int]
    seen: int


class LoopCandidates:
    """Finds loop candidates.

    A similar place is a candidate once it is similar to several keyframes in a row: a single
    similarity is chance more often than not.
    """

    def __init__(self, config: LoopConfig, places: PlaceRecognizer) -> None:
        self._config = config
        self._place_recognition = places
        self._min_view_cosine = float(np.cos(np.radians(config.max_view_angle_deg)))
        self._before: list[_Place] = []

    def find(self, slam_map: Map, keyframe_id: int) -> IntArray:
        """Return ids of older keyframes that may show the same place, best of each kind first."""
        ids = slam_map.keyframes["id"]
        row = int(slam_map.keyframe_rows(np.asarray(keyframe_id)))
        here = slam_map.keyframes["submap"] == slam_map.keyframes["submap"][row]
        # Another submap is older than the loss of the camera, however few keyframes ago it ended.
        old = (np.arange(len(ids)) < row - self._config.min_interval) | ~here
        connected, shared = slam_map.covisible(
            keyframe_id, least=self._config.min_covisibility // 2
        )
        if not old.any() or np.isin(connected, ids[old]).any():
            # Tracking already sees the old place through the map: there is no gap to close.
            self._before = []
            return np.zeros(0, dtype=np.int64)
        near = self._near(slam_map, row, old & here)
        strong = connected[shared >= self._config.min_covisibility]
        similar = self._similar(slam_map, keyframe_id, ids[old], strong)
        found = np.concatenate([near, similar])
        _, first = np.unique(found, return_index=True)
        return found[np.sort(first)]

    def _near(self, slam_map: Map, row: int, old: NDArray[np.bool_]) -> IntArray:
        """Return older keyframes nearby with a similar viewing direction, nearest first."""
        poses = slam_map.T_world_keyframe
        distance = np.linalg.norm(poses[:, :3, 3] - poses[row, :3, 3], axis=1)
        radius = self._config.max_distance_ratio * travelled(slam_map, row)
        least = self._config.min_radius_depths * median_depth(
            slam_map, int(slam_map.keyframes["id"][row])
        )
        radius = np.maximum(radius, least)
        view_cosine = poses[:, :3, 2] @ poses[row, :3, 2]
        rows = np.flatnonzero(old & (distance < radius) & (view_cosine > self._min_view_cosine))
        order = np.argsort(distance[rows] / np.maximum(radius[rows], 1e-12), kind="stable")
        return slam_map.keyframes["id"][rows[order]][: self._config.near_candidates]

    def _similar(
        self, slam_map: Map, keyframe_id: int, old: IntArray, connected: IntArray
    ) -> IntArray:
        """Return older keyframes of confirmed similar places, the best first."""
        known, cosines = self._place_recognition.similarities(keyframe_id)
        if len(known) == 0 or len(connected) == 0:
            return np.zeros(0, dtype=np.int64)
        similarity = np.full(int(slam_map.keyframes["id"][-1]) + 1, -np.inf)
        similarity[known] = cosines
        # Covisible keyframes show the same place: their similarity gives the scale for the
        # threshold.
        beside = similarity[connected][np.isfinite(similarity[connected])]
        least = self._config.min_similarity * float(np.median(beside)) if len(beside) else np.inf
        candidates = old[similarity[old] > least]
        candidates = candidates[np.argsort(-similarity[candidates], kind="stable")]
        places: list[tuple[float, _Place]] = []
        taken: set[int] = set()
        for candidate in candidates.tolist():
            if len(places) == self._config.similar_candidates:
                break
            if candidate in taken:
                continue
            companions, _ = slam_map.covisible(candidate, least=self._config.min_covisibility // 2)
            members = frozenset([candidate, *companions.tolist()])
            taken |= members
            seen = 1 + max(
                (place.seen for place in self._before if place.members & members), default=0
            )
            score = float(
                similarity[candidate]
                + similarity[companions[: self._config.similarity_companions]].clip(min=0).sum()
            )
            places.append((score, _Place(candidate, members, seen)))
        self._before = [place for _, place in places]
        confirmed = [
            (score, place) for score, place in places if place.seen >= self._config.confirmations
        ]
        confirmed.sort(key=lambda pair: -pair[0])
        return np.array([place.keyframe_id for _, place in confirmed], dtype=np.int64)


def travelled(slam_map: Map, row: int) -> FloatArray:
    """(K,) path length from each keyframe to the one at `row`, map units; 0 in other submaps."""
    here = np.flatnonzero(slam_map.keyframes["submap"] == slam_map.keyframes["submap"][row])
    steps = np.linalg.norm(np.diff(slam_map.T_world_keyframe[here, :3, 3], axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    length = np.zeros(len(slam_map.keyframes))
    length[here] = along[np.searchsorted(here, row)] - along
    return length
