"""Read KITTI odometry: rectified stereo, grey or colour.

Source: Geiger et al., Are we ready for autonomous driving?, CVPR 2012.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import LeftOut
from spslam.io.given_files import read_given
from spslam.notices import counted, notice
from spslam.timestamps import stamp_column
from spslam.trajectory import Trajectory, carried_truth, read_ground_truth

from .base import FileSequence, FrameFiles
from .calibration.checks import report_baseline, report_doubts
from .images.decoding import IMAGE_KINDS, image_size, list_files
from .kitti_calibration import read_lines
from .paths import contents, find_sequence, reason, subfolders
from .timestamps import Timing, nominal_fps, order_frames, read_stamps, report_unpaired

_LOG = logging.getLogger(__name__)
# Nominal frames per second, 1/s, where times.txt has fewer than two lines.
_FPS = 10.0
# Numbers of the left cameras, grey and colour, in order of preference.
_LEFT_CAMERAS = (0, 2)
# Largest relative difference of the focal lengths of a rectified pair.
_SAME_FOCAL = 1e-3
# Largest difference of the principal points of a rectified pair, pixels.
_SAME_ROW = 0.5
# Largest magnitude of a number in a projection; larger ones are refused as damaged.
_LARGEST = 1e12
# Most digits of an image's number, without leading zeros; longer names are no frame numbers.
_MOST_DIGITS = 12


def is_kitti(path: Path) -> bool:
    """Return whether a folder is the root or one sequence of KITTI odometry."""
    return _is_sequence(path) or bool(_sequences(path))


def open_kitti(
    path: Path,
    sequence: str | None = None,
    sensor: str = "auto",
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> FileSequence:
    """Open a sequence of KITTI odometry.

    The grey pair `image_0`/`image_1` is preferred to the colour pair `image_2`/`image_3`. The
    ground truth gives poses of camera 0; for images of camera 2 it is carried to that camera.

    Args:
        path: KITTI's root (with `sequences/`), or the folder of one sequence.
        sequence: number of the sequence where `path` is the root.
        sensor: `auto`, `stereo` or `mono`; `auto` is stereo where both cameras have images.
        timing: unit of the time stamps.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    folder = _find_sequence(path, sequence)
    cameras, stereo = _choose_cameras(folder, sensor)
    name = f"kitti {folder.name}"
    projections = _read_projections(folder / "calib.txt")
    times, unit = _read_times(folder / "times.txt", timing)
    images, rows = _numbered_images(folder / f"image_{cameras}", len(times))
    right, unpaired = None, list[LeftOut]()
    if stereo:
        images, right, rows, alone = _pair(images, folder / f"image_{cameras + 1}", rows, name)
        unpaired = [LeftOut(float(times[row]), "no right image") for row in alone]
    elif sensor == "auto" and (folder / f"image_{cameras + 1}").is_dir():
        text = "%s: image_%d has no images (%s): mono"
        notice(_LOG, "unused_stream", text, name, cameras + 1, IMAGE_KINDS)
    order, left_out = order_frames(times[rows], f"{name} times.txt")
    files = FrameFiles(
        timestamps=times[rows][order],
        images=[images[i] for i in order],
        right=None if right is None else [right[i] for i in order],
        time_unit=unit,
        left_out=(*unpaired, *left_out),
    )
    left = _projection(projections, cameras, folder)
    baseline = (
        _baseline(left, _projection(projections, cameras + 1, folder), folder) if stereo else None
    )
    camera = _camera(left, baseline, files, folder)
    ground_truth = _read_ground_truth(folder, times, left, cameras)
    return FileSequence(name, files, camera, str(folder), ground_truth, dataset="kitti")


@dataclass(frozen=True, eq=False)
class _Projection:
    """`P = K [I | t]`: camera matrix K (3, 3), and t (3,) from camera 0 to this one, metres."""

    K: NDArray[np.float64]
    t: NDArray[np.float64]


def _is_sequence(path: Path) -> bool:
    return any((path / f"image_{k}").is_dir() for k in _LEFT_CAMERAS)


def _sequences(path: Path) -> dict[str, Path]:
    """Return the folders of the sequences in KITTI's root or its `sequences` folder, by name."""
    folders = [*subfolders(path / "sequences"), *subfolders(path)]
    return {folder.name: folder for folder in folders if _is_sequence(folder)}


def _find_sequence(path: Path, sequence: str | None) -> Path:
    files = "sequences/NN with image_0 or image_2, calib.txt and times.txt"
    expected = f"KITTI odometry in {path} ({files})"
    wanted = sequence.zfill(2) if sequence is not None and sequence.isdigit() else sequence
    one = _is_sequence(path)
    # A sequence is checked against the name as it was given.
    return find_sequence(path, one, _sequences(path), sequence if one else wanted, expected)


def _choose_cameras(folder: Path, sensor: str) -> tuple[int, bool]:
    """Return the number of the left (or only) camera, and whether to read stereo pairs."""
    if sensor == "rgbd":
        raise DatasetError(
            f"{folder} is KITTI odometry, which has no depth images: use --sensor stereo or mono"
        )
    there = {k: bool(list_files(folder / f"image_{k}")) for k in range(4)}
    if sensor != "mono":
        for k in _LEFT_CAMERAS:
            if there[k] and there[k + 1]:
                return k, True
        if sensor == "stereo":
            raise DatasetError(
                f"stereo needs images in image_0 and image_1 (or image_2 and image_3) of {folder}, "
                f"found {', '.join(f'image_{k}' for k in there if there[k]) or 'none'}"
            )
    for k in _LEFT_CAMERAS:
        if there[k]:
            return k, False
    raise DatasetError(f"expected images (*.png) in {folder}/image_0 or image_2, found none")


def _read_projections(path: Path) -> dict[str, NDArray[np.float64]]:
    projections = {}
    for line in read_lines(path):
        key, _, values = line.partition(":")
        if key.strip() not in ("P0", "P1", "P2", "P3"):
            continue
        try:
            P = np.array([float(value) for value in values.split()])
        except ValueError:
            P = np.zeros(0)
        if P.shape != (12,) or not (np.abs(P) <= _LARGEST).all():
            raise CalibrationError(
                f"{path}: expected 12 numbers after {key.strip()}:, found {values.strip()[:60]!r}"
            )
        projections[key.strip()] = P.reshape(3, 4)
    return projections


def _projection(
    projections: dict[str, NDArray[np.float64]], camera: int, folder: Path
) -> _Projection:
    P = projections.get(f"P{camera}")
    if P is None:
        raise CalibrationError(
            f"{folder}/calib.txt: expected a line 'P{camera}: …' for image_{camera}, "
            f"found {', '.join(sorted(projections)) or 'no P line at all'}"
        )
    # A rectified camera has no skew, and K ends with the row 0 0 1.
    if (
        not np.allclose(P[(0, 1, 2, 2, 2), (1, 0, 0, 1, 2)], (0, 0, 0, 0, 1))
        or abs(np.linalg.det(P[:, :3])) < 1e-9
    ):
        raise CalibrationError(f"{folder}/calib.txt: P{camera} is no projection of a camera")
    return _Projection(P[:, :3], np.asarray(np.linalg.solve(P[:, :3], P[:, 3]), dtype=np.float64))


def _baseline(left: _Projection, right: _Projection, folder: Path) -> float:
    focal_differs = not np.allclose(np.diag(left.K), np.diag(right.K), rtol=_SAME_FOCAL)
    centre_differs = (
        abs(left.K[0, 2] - right.K[0, 2]) > _SAME_ROW
        or abs(left.K[1, 2] - right.K[1, 2]) > _SAME_ROW
    )
    if focal_differs or centre_differs:
        raise CalibrationError(
            f"{folder}/calib.txt: left and right camera differ; KITTI's images are rectified"
        )
    return float(left.t[0] - right.t[0])


def _camera(left: _Projection, baseline: float | None, files: FrameFiles, folder: Path) -> Camera:
    width, height = image_size(files.images)
    try:
        camera = Camera(
            width=width,
            height=height,
            fx=float(left.K[0, 0]),
            fy=float(left.K[1, 1]),
            cx=float(left.K[0, 2]),
            cy=float(left.K[1, 2]),
            baseline_m=baseline,
            fps=nominal_fps(files.timestamps, _FPS),
        )
    except CalibrationError as error:
        raise CalibrationError(f"{folder}/calib.txt: {error}") from None
    report_doubts(camera, f"{folder}/calib.txt")
    if baseline is not None:
        report_baseline(baseline, f"{folder}/calib.txt")
    return camera


def _read_times(path: Path, timing: Timing) -> tuple[NDArray[np.float64], str]:
    """Return the time stamps (N,), seconds, and their unit in the file."""
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"expected KITTI's time stamps at {path}: cannot be read ({reason(error)})"
        ) from None
    return read_stamps(stamp_column(lines, str(path)), "s", str(path), timing, _FPS)


def _numbered_images(folder: Path, count: int) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the images of `folder`, and their numbers: rows in times.txt."""
    files = list_files(folder)
    images = [path for path in files if _is_number(path.stem)]
    if not images:
        raise DatasetError(
            f"expected images named 000000.png, 000001.png, … in {folder}, found {contents(folder)}"
        )
    if ignored := len(files) - len(images):
        what = counted(ignored, "image is", "images are")
        text = "%s: %s left out: their names are no frame numbers"
        notice(_LOG, "unlisted_images", text, folder, what, count=ignored)
    rows = np.array([int(path.stem) for path in images], dtype=np.int64)
    if rows.max() >= count:
        raise DatasetError(
            f"{folder} has an image {rows.max():06d}, but times.txt only has "
            f"{counted(count, 'line')}"
        )
    return images, rows


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name.lstrip("0")) <= _MOST_DIGITS


def _pair(
    images: list[Path], right_folder: Path, rows: NDArray[np.int64], name: str
) -> tuple[list[Path], list[Path], NDArray[np.int64], NDArray[np.int64]]:
    """Pair left and right images of the same number.

    Returns:
        Left images, right images, their rows in times.txt, and the rows of unpaired left images.
    """
    right = {int(path.stem): path for path in list_files(right_folder) if _is_number(path.stem)}
    paired = np.array([int(row) in right for row in rows])
    report_unpaired(int((~paired).sum()), len(images), name, f"right image in {right_folder.name}")
    kept = [image for image, both in zip(images, paired, strict=True) if both]
    return kept, [right[int(row)] for row in rows[paired]], rows[paired], rows[~paired]


def _read_ground_truth(
    folder: Path, times: NDArray[np.float64], left: _Projection, camera: int
) -> Trajectory | None:
    path = folder.parent.parent / "poses" / f"{folder.name}.txt"
    if not path.is_file():
        return None
    truth = read_ground_truth(path, times, "left camera", row_a_frame=True)
    if truth is None:
        return None
    T_cam0_left = np.eye(4)
    T_cam0_left[:3, 3] = -left.t
    frame = (
        "left camera" if camera == 0 else f"left colour camera (carried from camera 0 by P{camera})"
    )
    return carried_truth(truth, T_cam0_left, frame)
