"""Record a run: the pose of every tracked frame, counts and timings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.interfaces import WideStage
from spslam.map.map import Map
from spslam.notices import counted, notice
from spslam.slam.loops.loop_closing import ScaleCorrection
from spslam.slam.loss_diagnosis import Loss
from spslam.slam.mapping import RemovedKeyframe
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

logger = logging.getLogger(__name__)


@dataclass
class Statistics:
    """Counts and timings of a run.

    Attributes:
        keyframes, points: number in the map.
        loops: number of closed loops.
        merges: number of loops that joined two submaps.
        submaps: number of submaps.
        frames_elsewhere: number of frames tracked in other submaps than the main one.
        frames_direction_only: number of frames tracked by directions, with hardly any point: their
            positions are guesses (see `spslam.slam.directions`).
        relocalisations: number of times that a lost camera was found again.
        losses: losses of tracking, oldest first.
        left_out: fraction of the keypoints left out as fixed to the camera, by index of the frame.
        learned_pairs: number of pairs that the learned matcher matched, by stage; None without one.
        no_pose: why no frame has a pose, where known.
        stage_ms: durations of each stage, milliseconds.
    """

    keyframes: int = 0
    points: int = 0
    loops: int = 0
    merges: int = 0
    submaps: int = 0
    frames_elsewhere: int = 0
    frames_direction_only: int = 0
    relocalisations: int = 0
    losses: list[Loss] = field(default_factory=list)
    left_out: dict[int, float] = field(default_factory=dict)
    learned_pairs: dict[WideStage, int] | None = None
    no_pose: str = ""
    stage_ms: dict[str, list[float]] = field(default_factory=dict)
    _lap_ms: dict[str, float] = field(default_factory=dict, repr=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the duration of a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(name, (perf_counter() - start) * 1e3)

    def add(self, name: str, elapsed_ms: float) -> None:
        """Add the duration of a stage that was measured elsewhere."""
        self.stage_ms.setdefault(name, []).append(elapsed_ms)
        self._lap_ms[name] = self._lap_ms.get(name, 0.0) + elapsed_ms

    def tell(self) -> None:
        """Notify the user of frames whose positions are guesses."""
        if self.frames_direction_only:
            notice(
                logger,
                "direction_only",
                "the camera turned away from all points with a known depth in %s: the orientation "
                "was tracked there, but the position and the scale of what was seen first there "
                "are guesses",
                counted(self.frames_direction_only, "frame"),
                count=self.frames_direction_only,
            )

    def lap(self) -> dict[str, float]:
        """Return milliseconds by stage since the last call, and start again."""
        lap, self._lap_ms = self._lap_ms, {}
        return lap


@dataclass(frozen=True, eq=False)
class FramePoses:
    """The poses of all recorded frames in the current map, ordered by time.

    Attributes:
        timestamps: (N,) float64, seconds.
        submaps: (N,) int64, the submap whose world each pose refers to.
        T_world_cam: (N, 4, 4) float64.
        scales: (N,) float64, current length divided by the length when the frame was tracked.
    """

    timestamps: NDArray[np.float64]
    submaps: NDArray[np.int64]
    T_world_cam: NDArray[np.float64]
    scales: NDArray[np.float64]


class Recorder:
    """Records poses of tracked frames relative to keyframes, so that they follow refinements."""

    def __init__(self) -> None:
        self._timestamps: list[float] = []
        self._keyframe_ids: list[int] = []
        self._T_keyframe_cam: list[FloatArray] = []
        self._scales: list[float] = []

    def __len__(self) -> int:
        return len(self._timestamps)

    def add(
        self, timestamp: float, T_world_cam: FloatArray, keyframe_id: int, slam_map: Map
    ) -> None:
        """Record a frame relative to a keyframe of the map."""
        self._timestamps.append(timestamp)
        self._keyframe_ids.append(keyframe_id)
        self._T_keyframe_cam.append(geometry.inverse(slam_map.pose(keyframe_id)) @ T_world_cam)
        self._scales.append(1.0)

    def add_keyframes(self, keyframe_ids: list[int], slam_map: Map) -> None:
        """Record the frames that a submap starts with."""
        for keyframe_id in keyframe_ids:
            timestamp = float(
                slam_map.keyframes["timestamp"][slam_map.keyframe_rows(np.asarray(keyframe_id))]
            )
            self.add(timestamp, slam_map.pose(keyframe_id), keyframe_id, slam_map)

    def move_last(self, keyframe_id: int) -> None:
        """Attach the latest frame to the keyframe that it became."""
        self._keyframe_ids[-1] = keyframe_id
        self._T_keyframe_cam[-1] = np.eye(4)

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """Transfer the frames of a culled keyframe to its parent."""
        for i, keyframe_id in enumerate(self._keyframe_ids):
            if keyframe_id == removed.keyframe_id:
                self._keyframe_ids[i] = removed.parent_id
                self._T_keyframe_cam[i] = removed.T_parent_removed @ self._T_keyframe_cam[i]

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """Scale the distances to keyframes with the map around them."""
        scales = scale_correction.of(np.asarray(self._keyframe_ids, dtype=np.int64))
        for T_keyframe_cam, scale in zip(self._T_keyframe_cam, scales, strict=True):
            T_keyframe_cam[:3, 3] *= scale
        self._scales = (np.asarray(self._scales) * scales).tolist()

    def clear(self) -> None:
        """Forget all frames."""
        self._timestamps, self._keyframe_ids, self._T_keyframe_cam = [], [], []
        self._scales = []

    def submaps(self, slam_map: Map) -> NDArray[np.int64]:
        """(N,) the submap of each recorded frame."""
        return slam_map.keyframes["submap"][
            slam_map.keyframe_rows(np.asarray(self._keyframe_ids, dtype=np.int64))
        ]

    def trajectory(self, slam_map: Map, submap: int) -> Trajectory:
        """Return all recorded frames in a submap of the current map, ordered by time."""
        poses = self.poses(slam_map)
        chosen = poses.submaps == submap
        return Trajectory(poses.timestamps[chosen], poses.T_world_cam[chosen])

    def poses(self, slam_map: Map) -> FramePoses:
        """Return all recorded frames in the current map."""
        timestamps = np.asarray(self._timestamps, dtype=np.float64)
        order = np.argsort(timestamps, kind="stable")
        ids = np.asarray(self._keyframe_ids, dtype=np.int64)[order]
        from_keyframes = np.asarray(self._T_keyframe_cam).reshape(-1, 4, 4)[order]
        T_world_cam = slam_map.T_world_keyframe[slam_map.keyframe_rows(ids)] @ from_keyframes
        return FramePoses(
            timestamps[order],
            self.submaps(slam_map)[order],
            geometry.orthonormalize(T_world_cam),
            np.asarray(self._scales, dtype=np.float64)[order],
        )
