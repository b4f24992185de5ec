"""Frames of the folders that `spslam bench peers` gives to other systems.

For the virtual environments of the peers: needs NumPy and OpenCV only, and imports nothing of
spslam.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# Largest time between an image and its depth image, seconds.
_PAIR_WITHIN_S = 0.02


@dataclass(frozen=True)
class Recording:
    """A recording: time stamps (seconds), image files, and the second images or None."""

    stamps: list[float]
    images: list[Path]
    seconds: list[Path] | None


@dataclass(frozen=True)
class Shown:
    """A frame: stamp, grey image, right or depth image or None, and when it was due (epoch)."""

    stamp: float
    image: np.ndarray
    second: np.ndarray | None
    due: float


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all drivers share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sequence", type=Path, help="folder of the sequence")
    parser.add_argument("layout", choices=["kitti", "tum"])
    parser.add_argument("sensor", choices=["mono", "stereo", "rgbd"])
    parser.add_argument("calibration", type=Path, help="JSON file of the camera")
    parser.add_argument("out", type=Path, help="trajectory to write, TUM's format")
    parser.add_argument("--keyframes", type=Path, help="trajectory of keyframes to write")
    parser.add_argument("--realtime", action="store_true", help="frames come at their time stamps")
    return parser


def read_recording(folder: Path, layout: str, sensor: str) -> Recording:
    """List the frames of a folder."""
    return _kitti(folder, sensor) if layout == "kitti" else _tum(folder, sensor)


def play(recording: Recording, sensor: str, realtime: bool) -> Iterator[Shown]:
    """Yield frames: all, or in real time the newest one that is due; others are dropped."""
    count = len(recording.stamps)
    begin: float | None = None
    index = 0
    while index < count:
        if begin is not None:
            late = time.time() - begin
            while index + 1 < count and recording.stamps[index + 1] - recording.stamps[0] <= late:
                index += 1
        image, second = _load(recording, index, sensor)
        offset = recording.stamps[index] - recording.stamps[0]
        due = time.time()
        if realtime:
            begin = due if begin is None else begin
            due = begin + offset
            time.sleep(max(due - time.time(), 0.0))
        yield Shown(recording.stamps[index], image, second, due)
        index += 1


class Report:
    """The JSON line for the suite: times of the frames, begin and end of the loop.

    Args:
        recording: the frames.
        realtime: whether they came at their time stamps.
    """

    def __init__(self, recording: Recording, realtime: bool) -> None:
        self._frames, self._realtime = len(recording.stamps), realtime
        self._track_ms: list[float] = []
        self._latency_ms: list[float] = []
        self._tracked = 0
        self._begun_at = time.time()
        self._ended_at = self._begun_at

    def add(self, frame: Shown, begin: float, tracked: bool) -> None:
        """Add a frame that was tracked just now; `begin` is from `time.perf_counter`."""
        self._track_ms.append(round(1e3 * (time.perf_counter() - begin), 3))
        self._ended_at = time.time()
        self._latency_ms.append(round(1e3 * (self._ended_at - frame.due), 3))
        self._tracked += tracked

    def show(self, kind: str = "frames") -> None:
        """Print the line; `kind` is what the trajectory holds, `frames` or `keyframes`."""
        values: dict[str, Any] = {
            "frames": self._frames,
            "tracked": self._tracked,
            "trajectory": kind,
            "track_ms": self._track_ms,
            "begun_at": self._begun_at,
            "ended_at": self._ended_at,
            "dropped": self._frames - len(self._track_ms),
        }
        if self._realtime:
            values["latency_ms"] = self._latency_ms
        # The system may have left a line of its own without an end.
        print("\n" + json.dumps(values), flush=True)


def write_trajectory(path: Path, stamps: list[float], rows: list[list[float]]) -> None:
    """Write rows of `tx ty tz qx qy qz qw` with their stamps in TUM's format."""
    lines = [
        f"{stamp:.9f} " + " ".join(f"{value:.9f}" for value in row)
        for stamp, row in zip(stamps, rows, strict=True)
    ]
    path.write_text("".join(line + "\n" for line in lines))


def _load(recording: Recording, index: int, sensor: str) -> tuple[np.ndarray, np.ndarray | None]:
    image = _read(recording.images[index], cv2.IMREAD_GRAYSCALE)
    if recording.seconds is None:
        return image, None
    flag = cv2.IMREAD_GRAYSCALE if sensor == "stereo" else cv2.IMREAD_UNCHANGED
    return image, _read(recording.seconds[index], flag)


def _read(path: Path, flag: int) -> np.ndarray:
    image = cv2.imread(str(path), flag)
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    return image


def _kitti(folder: Path, sensor: str) -> Recording:
    stamps = [float(line) for line in (folder / "times.txt").read_text().split()]
    left = "image_0" if (folder / "image_0").is_dir() else "image_2"
    images = {int(path.stem): path for path in (folder / left).glob("*.png")}
    right = folder / f"image_{int(left[-1]) + 1}"
    others = {int(path.stem): path for path in right.glob("*.png")} if sensor == "stereo" else None
    numbers = sorted(images if others is None else images.keys() & others.keys())
    return Recording(
        [stamps[number] for number in numbers],
        [images[number] for number in numbers],
        None if others is None else [others[number] for number in numbers],
    )


def _tum(folder: Path, sensor: str) -> Recording:
    stamps, images = _list(folder / "rgb.txt")
    if sensor != "rgbd":
        return Recording(stamps, images, None)
    depth_stamps, depths = _list(folder / "depth.txt")
    nearest = np.abs(np.subtract.outer(stamps, depth_stamps)).argmin(axis=1)
    kept = [
        row
        for row, other in enumerate(nearest)
        if abs(stamps[row] - depth_stamps[other]) <= _PAIR_WITHIN_S
    ]
    return Recording(
        [stamps[row] for row in kept],
        [images[row] for row in kept],
        [depths[nearest[row]] for row in kept],
    )


def _list(path: Path) -> tuple[list[float], list[Path]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    rows = sorted((float(row[0]), row[1]) for row in rows if row and not row[0].startswith("#"))
    return [stamp for stamp, _ in rows], [path.parent / name for _, name in rows]
