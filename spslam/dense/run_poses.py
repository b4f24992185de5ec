"""The final poses of a finished run, and the frames of its recording that they belong to."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spslam.camera import Camera
from spslam.errors import DatasetError, FrameError, MapError, OutputError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.io.given_files import read_given
from spslam.map.io import load_map
from spslam.map.submaps import submap_numbers
from spslam.run.output import read_metrics, recording_of
from spslam.trajectory import Trajectory, read_tum
from spslam.typing import FloatArray

# Names of files in the folder of a run.
_TRAJECTORY, _KEYFRAMES, _FRAMES, _MAP = "trajectory.tum", "keyframes.tum", "frames.csv", "map.npz"
# Maximum difference of equal stamps, seconds: files round to 1e-9, doubles of today's Unix time to
# 2.4e-7.
_SAME_STAMP_S = 1e-6
# Maximum relative difference of equal camera parameters.
_SAME_CAMERA = 1e-6


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run with depth.

    Attributes:
        folder: its folder.
        metrics: its `metrics.json`.
        trajectory: final poses of the tracked frames, or of the keyframes, in one world.
        frames: number of frames that the run read.
        what: what the poses are of: `frames`, `keyframes` or `keyframes of submap N`.
    """

    folder: Path
    metrics: dict[str, Any]
    trajectory: Trajectory
    frames: int
    what: str

    @property
    def recording(self) -> dict[str, Any]:
        """How the run opened its recording; see `recording_of`."""
        return recording_of(self.metrics, self.folder)

    @property
    def sensor(self) -> str:
        """`stereo` or `rgbd`."""
        return str(self.metrics["sensor"])


def read_run(
    folder: Path, *, keyframes_only: bool = False, submap: int | None = None
) -> FinishedRun:
    """Read the final poses of a run with depth.

    Args:
        folder: the folder of the run.
        keyframes_only: only the poses of keyframes.
        submap: the keyframes of this submap, in its world, instead of the trajectory, which has the
            frames of one submap only.

    Raises:
        OutputError: the folder holds no run, a run of a single camera, or no poses.
        MapError: the submap needs `map.npz`, which is missing, or there is no such submap.
        TrajectoryError: the trajectory is missing or damaged.
    """
    if not folder.is_dir():
        raise OutputError(
            "expected the folder of a run (spslam run --out DIR), found "
            f"{'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    metrics = read_metrics(folder)
    if metrics["sensor"] not in ("stereo", "rgbd"):
        raise OutputError(
            f"{folder} is a run of a single camera ({metrics['sensor']}), which measures no depth: "
            "a mesh needs a run with --sensor stereo or rgbd"
        )
    if submap is not None:
        trajectory, what = _of_submap(folder / _MAP, submap), f"keyframes of submap {submap}"
    else:
        trajectory, what = _read_poses(folder / _TRAJECTORY), "frames"
        if keyframes_only:
            trajectory, what = _at_keyframes(trajectory, folder / _KEYFRAMES), "keyframes"
    if len(trajectory) == 0:
        raise OutputError(f"{folder} has no poses: no frame of the run was tracked")
    return FinishedRun(folder, metrics, trajectory, _count(metrics, len(trajectory)), what)


def check_camera(run: FinishedRun, camera: Camera) -> None:
    """Check that the recording has the camera of the run's map; nothing without a map.

    Args:
        run: the run.
        camera: camera of the recording.

    Raises:
        DatasetError: the cameras differ.
        MapError: the map is damaged.
    """
    path = run.folder / _MAP
    origin = load_map(path).map.origin if path.is_file() else None
    if origin is None:
        return
    # The baseline of RGB-D is virtual, and the configuration of the run sets it.
    names = ["width", "height", "fx", "fy", "cx", "cy"]
    for name in [*names, "baseline_m"] if run.sensor == "stereo" else names:
        expected, found = getattr(origin.camera, name), getattr(camera, name)
        if abs(expected - found) > _SAME_CAMERA * max(abs(expected), 1.0):
            raise DatasetError(
                f"the camera of the recording has {name} {found:.6g}, that of the run's map "
                f"{expected:.6g}: give the recording and the calibration of the run "
                "(--sequence, --calibration)"
            )


def frame_rows(run: FinishedRun, sequence: Sequence) -> list[int]:
    """Return the position in the recording of the frame of each pose, -1 without a frame.

    Frames are found by their time stamps. A recording that does not list its stamps is indexed by
    the run's table of frames, and `posed_frames` compares the stamps.

    Raises:
        DatasetError: no pose belongs to a frame, or the frames cannot be found.
    """
    stamps = run.trajectory.timestamps
    known = getattr(sequence, "timestamps", None)
    rows = np.arange(len(sequence))
    if known is None:
        known, rows = _frame_table(run.folder / _FRAMES)
    known = np.asarray(known, dtype=np.float64)
    if len(known) == 0:
        return [-1] * len(stamps)
    after = np.clip(np.searchsorted(known, stamps), 1, max(len(known) - 1, 1))
    candidates = np.stack([after - 1, np.minimum(after, len(known) - 1)])
    nearest = candidates[np.abs(known[candidates] - stamps).argmin(axis=0), np.arange(len(stamps))]
    found = np.where(np.abs(known[nearest] - stamps) <= _SAME_STAMP_S, rows[nearest], -1)
    if (found < 0).all():
        raise DatasetError(
            f"none of the {len(stamps)} poses of {run.folder} belongs to a frame of "
            f"{sequence.source}: the run is from {stamps[0]:.6f} to {stamps[-1]:.6f} s, the "
            f"recording from {known[0]:.6f} to {known[-1]:.6f} s; give the recording of the run "
            "with --sequence"
        )
    return [int(row) for row in found]


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """A frame and its final pose.

    Attributes:
        row: position in the recording.
        frame: the images; None if they cannot be decoded.
        T_world_cam: (4, 4) float64.
    """

    row: int
    frame: Frame | None
    T_world_cam: FloatArray


def posed_frames(
    run: FinishedRun, sequence: Sequence, rows: list[int], every: int = 1
) -> Iterator[PosedFrame]:
    """Read every `every`-th frame that has a pose, in the order of time.

    Args:
        run: the run.
        sequence: its recording.
        rows: the result of `frame_rows`.
        every: step.

    Raises:
        DatasetError: a frame has another time stamp than its pose.
    """
    poses = [number for number, row in enumerate(rows) if row >= 0][::every]
    for number in poses:
        stamp = run.trajectory.timestamps[number]
        frame: Frame | None
        try:
            frame = sequence[rows[number]]
        except (FrameError, IndexError):
            frame = None
        if frame is not None and abs(frame.timestamp - stamp) > _SAME_STAMP_S:
            raise DatasetError(
                f"frame {rows[number]} of {sequence.source} is at {frame.timestamp:.6f} s, in the "
                f"run at {stamp:.6f} s: give the recording of the run with --sequence"
            )
        yield PosedFrame(rows[number], frame, run.trajectory.T_world_cam[number])


def _read_poses(path: Path) -> Trajectory:
    """Read a trajectory that may be empty."""
    try:
        if not read_given(path).partition(b"\n")[2].strip():
            return Trajectory(np.zeros(0), np.zeros((0, 4, 4)), "left camera")
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from None
    return read_tum(path, "left camera", "s")


def _at_keyframes(trajectory: Trajectory, path: Path) -> Trajectory:
    stamps = _read_poses(path).timestamps
    if len(stamps) == 0 or len(trajectory) == 0:
        return trajectory.select(np.zeros(0, np.int64))
    distance = np.abs(trajectory.timestamps[:, None] - stamps).min(axis=1)
    return trajectory.select(np.flatnonzero(distance <= _SAME_STAMP_S))


def _of_submap(path: Path, submap: int) -> Trajectory:
    """Read the keyframes of a submap that the run itself created, in the order of time."""
    if not path.is_file():
        raise MapError(f"--submap needs the map of the run, found no {path}")
    slam_map = load_map(path).map
    numbers = submap_numbers(slam_map).tolist()
    if submap not in numbers:
        raise MapError(
            f"{path} has no submap {submap}: it has {', '.join(str(number) for number in numbers)}"
        )
    keyframes = slam_map.keyframes
    latest = keyframes["session"] == keyframes["session"].max()
    rows = np.flatnonzero((keyframes["submap"] == submap) & latest)
    rows = rows[np.argsort(keyframes["timestamp"][rows], kind="stable")]
    return Trajectory(keyframes["timestamp"][rows], slam_map.T_world_keyframe[rows], "left camera")


def _frame_table(path: Path) -> tuple[FloatArray, Any]:
    """Read stamps (F,) and positions (F,) of the frames of a run, in the order of time."""
    try:
        text = read_given(path).decode("utf-8")
        table = csv.DictReader(io.StringIO(text, newline=""))
        found = sorted((float(row["timestamp"]), int(row["frame"])) for row in table)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(
            f"the recording lists no time stamps, and {path} cannot be read: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from None
    return np.array([stamp for stamp, _ in found]), np.array([row for _, row in found], np.int64)


def _count(metrics: dict[str, Any], at_least: int) -> int:
    frames = metrics.get("frames")
    return max(frames, at_least) if isinstance(frames, int) else at_least
