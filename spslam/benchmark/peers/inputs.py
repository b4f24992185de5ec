"""Folders that our system and the peers read: KITTI's or TUM's layout, and a calibration file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spslam.benchmark.peers.suite import Layout
from spslam.camera import Camera
from spslam.errors import BenchmarkError, OutputError
from spslam.frame import Frame, Sensor
from spslam.interfaces import Sequence
from spslam.io.files import write_atomic
from spslam.trajectory import Trajectory, write_kitti, write_tum
from spslam.typing import FloatArray

# File beside an exported folder that says what it was made from.
_RECORD = "input.json"
# Units of 16-bit depth images per metre, as TUM defines them.
_DEPTH_UNITS = 5000.0
# Compression of PNG files: 1 is quick, and decodes as fast as others.
_COMPRESSION = [cv2.IMWRITE_PNG_COMPRESSION, 1]


@dataclass(frozen=True, eq=False)
class PeerInput:
    """The folder of one sequence for one sensor.

    Attributes:
        folder, layout: the folder and its layout.
        calibration: JSON file with the camera; see `calibration_values`.
        config: name of our configuration.
        times: (F,) time stamps of all frames, seconds.
        truth: true poses; None: unknown.
    """

    folder: Path
    layout: Layout
    calibration: Path
    config: str
    times: FloatArray
    truth: Trajectory | None


def layout_for(sequence: Sequence, wanted: Layout | None, readable: Collection[str]) -> Layout:
    """Return the layout of the folder of a sequence.

    Args:
        sequence: the recording.
        wanted: layout that the suite asks for; None: that of the recording if it is in `readable`,
            else kitti for stereo, tum for others.
        readable: layouts that a peer reads.

    Raises:
        BenchmarkError: the layout cannot hold the recording.
    """
    own = as_recorded(sequence)
    if wanted is None:
        usual: Layout = "kitti" if sequence.sensor == "stereo" else "tum"
        return own if own is not None and own in readable else usual
    distorted = sequence.camera.distortion_model != "none"
    impossible = {
        "kitti": sequence.sensor == "rgbd" or distorted,
        "tum": sequence.sensor == "stereo",
        "euroc": own != "euroc",
    }
    if impossible[wanted]:
        raise BenchmarkError(
            f"{sequence.name}, {sequence.sensor}: the layout {wanted} cannot hold it (kitti: "
            "undistorted mono or stereo; tum: mono or RGB-D; euroc: whole sequences of EuRoC)"
        )
    return wanted


def as_recorded(sequence: Sequence) -> Layout | None:
    """Return the layout of a whole recording that peers can read where it is; None: none."""
    found: dict[str, Layout] = {"kitti": "kitti", "tum": "tum", "euroc": "euroc"}
    whole = Path(sequence.source).is_dir() and not hasattr(sequence, "part")
    return found.get(sequence.dataset) if whole else None


def export(sequence: Sequence, folder: Path, layout: Layout, record: dict[str, object]) -> Path:
    """Write a sequence as a folder, unless an equal one is there.

    Images are the grey ones that our reader gives: rectified for stereo.

    Args:
        sequence: the recording.
        folder: folder to write; an older one is replaced.
        layout: `kitti` or `tum`.
        record: what the folder is made from.

    Returns:
        The folder of the sequence, inside `folder`.

    Raises:
        BenchmarkError: no frame can be read.
        OutputError: a file cannot be written.
    """
    place = folder / "sequences" / "00" if layout == "kitti" else folder / "tum"
    text = json.dumps({"layout": layout, **record}, indent=1, sort_keys=True)
    if (folder / _RECORD).is_file() and (folder / _RECORD).read_text(encoding="utf-8") == text:
        return place
    shutil.rmtree(folder, ignore_errors=True)
    try:
        place.mkdir(parents=True)
        write = _write_kitti if layout == "kitti" else _write_tum
        frames = write(sequence, place)
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror or error}") from None
    if not frames:
        raise BenchmarkError(f"{sequence.name}: no frame can be read")
    write_atomic(folder / _RECORD, text)
    return place


def write_calibration(path: Path, camera: Camera) -> None:
    """Write the camera as JSON, for peers.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(path, json.dumps(calibration_values(camera), indent=1) + "\n")


def calibration_values(camera: Camera) -> dict[str, object]:
    """Return the values of the JSON file of a camera.

    Pixels, metres, Hz and seconds; `depth_factor` is the number of units of depth images per metre.
    """
    return {
        "width": camera.width,
        "height": camera.height,
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "distortion_model": camera.distortion_model,
        "distortion": list(camera.distortion),
        "baseline_m": camera.baseline_m,
        "fps": camera.fps,
        "readout_s": camera.readout_s,
        "depth_factor": _DEPTH_UNITS,
    }


def _write_kitti(sequence: Sequence, place: Path) -> int:
    """Write images, `calib.txt`, `times.txt` and `poses/00.txt`; return the number of frames."""
    stereo = sequence.sensor == "stereo"
    for number in (0, 1) if stereo else (0,):
        (place / f"image_{number}").mkdir()
    times = []
    for number, frame in enumerate(sequence):
        _write_image(place / "image_0" / f"{number:06d}.png", frame.image)
        if frame.image_right is not None:
            _write_image(place / "image_1" / f"{number:06d}.png", frame.image_right)
        times.append(frame.timestamp)
    camera = sequence.camera
    right_x = -camera.fx * (camera.baseline_m or 0.0)
    lines = [
        _projection("P0", camera, 0.0),
        *([_projection("P1", camera, right_x)] if stereo else []),
    ]
    write_atomic(place / "calib.txt", "".join(lines))
    write_atomic(place / "times.txt", "".join(f"{time:.9f}\n" for time in times))
    truth = _truth_of_frames(sequence.ground_truth, np.array(times))
    if truth is not None:
        poses = place.parent.parent / "poses"
        poses.mkdir()
        write_kitti(poses / "00.txt", truth)
    return len(times)


def _write_tum(sequence: Sequence, place: Path) -> int:
    """Write images, their lists, `calibration.yaml` and `groundtruth.txt`; return the frames."""
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    for frame in sequence:
        for kind, image in _images_of(frame):
            name = f"{kind}/{frame.timestamp:.9f}.png"
            (place / kind).mkdir(exist_ok=True)
            _write_image(place / name, image)
            lists[kind].append(f"{frame.timestamp:.9f} {name}\n")
    for kind, lines in lists.items():
        if lines:
            write_atomic(place / f"{kind}.txt", "".join(["# timestamp filename\n", *lines]))
    write_atomic(place / "calibration.yaml", _calibration_yaml(sequence.camera, sequence.sensor))
    if sequence.ground_truth is not None:
        write_tum(place / "groundtruth.txt", sequence.ground_truth)
    return len(lists["rgb"])


def _images_of(frame: Frame) -> Iterator[tuple[str, np.ndarray]]:
    yield "rgb", frame.image
    if frame.depth is not None:
        # Depth beyond 13 m does not fit into 16 bits: unknown.
        units = np.rint(np.nan_to_num(frame.depth) * _DEPTH_UNITS)
        yield "depth", np.where(units <= np.iinfo(np.uint16).max, units, 0).astype(np.uint16)


def _calibration_yaml(camera: Camera, sensor: Sensor) -> str:
    lines = [f"{key}: {getattr(camera, key)!r}" for key in ("width", "height", "fx", "fy", "cx")]
    lines += [f"cy: {camera.cy!r}", f"fps: {camera.fps!r}", f"readout_s: {camera.readout_s!r}"]
    if camera.distortion_model != "none":
        lines += ["distortion:", f"  model: {camera.distortion_model}"]
        lines += [f"  coefficients: {list(map(float, camera.distortion))}"]
    if sensor == "rgbd":
        lines.append(f"depth_scale: {_DEPTH_UNITS:g}")
    return "\n".join(lines) + "\n"


def _projection(name: str, camera: Camera, x: float) -> str:
    P = np.array(
        [[camera.fx, 0.0, camera.cx, x], [0.0, camera.fy, camera.cy, 0.0], [0.0, 0.0, 1.0, 0.0]]
    )
    return f"{name}: " + " ".join(f"{value:.12e}" for value in P.ravel()) + "\n"


def _truth_of_frames(truth: Trajectory | None, times: FloatArray) -> Trajectory | None:
    """Return the true poses of all frames, one a frame as KITTI needs; None if one is missing."""
    if truth is None or len(truth) == 0:
        return None
    rows = np.abs(truth.timestamps[:, None] - times[None, :]).argmin(axis=0)
    # KITTI's format has no stamps: half a millisecond tells poses of frames from others.
    if np.abs(truth.timestamps[rows] - times).max() > 5e-4:
        return None
    return truth.select(rows.astype(np.int64))


def _write_image(path: Path, image: np.ndarray) -> None:
    write_atomic(path, cv2.imencode(".png", image, _COMPRESSION)[1].tobytes(), durable=False)
