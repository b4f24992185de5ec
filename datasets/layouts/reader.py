"""The reader of all data sets that are described by tables."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError, FrameError
from spslam.frame import Sensor
from spslam.interfaces import LeftOut, SequenceRequest
from spslam.notices import notice
from spslam.trajectory import Trajectory, carried_truth

from ..base import FileSequence, FrameFiles, check_image_size
from ..calibration.calibration import CALIBRATION_NAME, Calibration, load_calibration
from ..calibration.checks import report_baseline, report_doubts
from ..calibration.rectify import StereoRectifier, rectified_camera
from ..images.decoding import image_size, read_pixels, read_raw_depth
from ..images.depth_files import DepthUnits
from ..images.images import is_images
from ..paths import check_sequence_name, choose_sequence, contents, subfolders
from ..timestamps import Timing, nominal_fps, order_frames, pair_by_time, report_unpaired
from .cameras import FoundCamera, describe_camera, find_camera, read_rigid
from .depth import TableDepthReader
from .files import Clock, NumberedFiles, exists, find_files, has_files
from .poses import FrameTimes, read_poses
from .schema import Depth, Layout, Right
from .tables import all_layouts, find_layout

_LOG = logging.getLogger(__name__)
# Units of integer depth files per metre where neither table nor calibration gives them.
_MILLIMETRES = 1000.0
# Depth to which sequences are searched below a root, and the largest number of folders searched.
_DEEPEST, _MOST_FOLDERS = 3, 300


def is_layout(path: Path) -> bool:
    """Return whether a folder is a sequence of a table, or holds such sequences.

    A root with other sequences in TUM's form does not count: it is left to the reader of TUM RGB-D.
    """
    layouts = [layout for layout, _ in all_layouts()]
    if any(_is_sequence(layout, path) for layout in layouts):
        return True
    others = [
        folder
        for folder in subfolders(path)
        if (folder / "rgb.txt").is_file()
        and not any(_is_sequence(layout, folder) for layout in layouts)
    ]
    return not others and bool(_fitting(path, layouts))


def open_layout(path: Path, request: SequenceRequest) -> FileSequence:
    """Open a sequence by the first table that fits and offers the requested sensor.

    Raises:
        DatasetError: no table fits; or see `open_with`.
    """
    fitting = _fitting(path, [layout for layout, _ in all_layouts()])
    if not fitting:
        names = ", ".join(layout.name for layout, _ in all_layouts())
        raise DatasetError(
            f"{path} is not recognised as one of {names}: found {contents(path)}; "
            "name one with --dataset, or write a layout (see spslam data layouts)"
        )
    # Of one sequence several tables may read different sensors: stereo or RGB-D.
    chosen = next((each for each in fitting if _offers(path, each, request)), fitting[0])
    return open_with(chosen, path, request)


def open_named(name: str, path: Path, request: SequenceRequest) -> FileSequence:
    """Open a sequence by the table of a name or a path; see `open_with`."""
    return open_with(find_layout(name)[0], path, request)


def open_with(layout: Layout, path: Path, request: SequenceRequest) -> FileSequence:
    """Open a sequence as a table describes it.

    Args:
        layout: the table.
        path: the folder of a sequence, or a folder with sequences below.
        request: the user's choices. A calibration takes the place of the table's camera.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    folder = _find_sequence(layout, path, request.sequence)
    opening = _Opening(layout, folder, request)
    return opening.sequence()


@dataclass(frozen=True, eq=False)
class _Cameras:
    """The cameras of a sequence.

    Attributes:
        camera: camera of the frames: rectified, with the baseline for stereo.
        raw: camera of the (left) images as they are.
        rectifier: for raw stereo pairs, else None.
        depth_units: units per metre of depth that a calibration or the sequence gives, or None.
    """

    camera: Camera
    raw: Camera
    rectifier: StereoRectifier | None
    depth_units: float | None


class _Opening:
    """One sequence while it is being opened."""

    def __init__(self, layout: Layout, folder: Path, request: SequenceRequest) -> None:
        self._layout, self._folder, self._request = layout, folder, request
        self._timing = Timing(request.time_unit, request.pair_within_s)
        self._clock = Clock(layout.stamps, self._timing)
        self._name = f"{layout.name} {folder.name}"
        self._assumed: list[str] = []

    def sequence(self) -> FileSequence:
        layout, folder = self._layout, self._folder
        sensor = _choose_sensor(layout, folder, self._request.sensor)
        left = find_files(folder, layout.images, "image")
        cameras = self._cameras(left.paths, sensor)
        files, frames = self._frame_files(left, sensor, cameras)
        truth = None if layout.poses is None else self._truth(frames, cameras)
        self._tell()
        camera = replace(cameras.camera, fps=nominal_fps(files.timestamps, layout.stamps.fps))
        return FileSequence(
            self._name,
            files,
            camera,
            str(folder),
            truth,
            cameras.rectifier,
            dataset=layout.name,
        )

    def _cameras(self, images: list[Path], sensor: Sensor) -> _Cameras:
        given = self._calibration()
        size = image_size(images)
        if given is not None:
            found = FoundCamera(given.camera, f"calibration {given.path}", False, given.depth_scale)
        else:
            found = find_camera(
                self._folder, self._layout.camera, self._layout.name, size, self._layout.stamps.fps
            )
            report_doubts(found.camera, found.origin)
        check_image_size(images, found.camera, found.origin)
        if found.assumed:
            self._assumed.append(f"the camera {describe_camera(found.camera)}")
            if self._layout.camera.doubt is not None:
                notice(_LOG, "camera_doubt", "%s: %s", self._name, self._layout.camera.doubt)
        camera, rectifier = found.camera, None
        if sensor == "stereo":
            assert self._layout.right is not None
            camera, rectifier = self._stereo(self._layout.right, found, given, size)
        return _Cameras(camera, found.camera, rectifier, found.depth_scale)

    def _calibration(self) -> Calibration | None:
        given = self._request.calibration
        if given is None and (self._folder / CALIBRATION_NAME).is_file():
            given = self._folder / CALIBRATION_NAME
        return None if given is None else load_calibration(given)

    def _stereo(
        self, right: Right, left: FoundCamera, given: Calibration | None, size: tuple[int, int]
    ) -> tuple[Camera, StereoRectifier | None]:
        """Return the rectified left camera, and the rectifier of raw pairs."""
        origin = left.origin
        if given is not None and given.right is not None and given.T_left_right is not None:
            other, T_left_right = given.right, given.T_left_right
        elif right.baseline_m is not None:
            if left.camera.distortion:
                raise CalibrationError(
                    f"{origin} has a lens model, but the pairs of layout {self._layout.name} are "
                    "rectified: give a calibration without distortion, or with right: and "
                    "T_left_right:"
                )
            self._assumed.append(f"a baseline of {right.baseline_m:g} m")
            return replace(left.camera, baseline_m=right.baseline_m), None
        elif given is not None:
            raise CalibrationError(
                f"{origin} has no right camera: add right: and T_left_right:, or use --sensor mono"
            )
        else:
            assert right.camera is not None and right.T_left_right is not None
            name, fps = self._layout.name, self._layout.stamps.fps
            other = find_camera(self._folder, right.camera, name, size, fps).camera
            T_left_right = read_rigid(self._folder, right.T_left_right)
            report_baseline(float(np.linalg.norm(T_left_right[:3, 3])), str(self._folder))
        try:
            camera = rectified_camera(left.camera, other, T_left_right)
            if camera is not None:
                return camera, None
            rectifier = StereoRectifier(left.camera, other, T_left_right)
        except CalibrationError as error:
            raise CalibrationError(f"{origin}: {error}") from None
        return rectifier.camera, rectifier

    def _frame_files(
        self, left: NumberedFiles, sensor: Sensor, cameras: _Cameras
    ) -> tuple[FrameFiles, FrameTimes]:
        times, rows, unit, left_out = self._ordered(left)
        partner: list[Path] | None = None
        if sensor != "mono":
            entry = self._layout.right if sensor == "stereo" else self._layout.depth
            assert entry is not None
            what = "right image" if sensor == "stereo" else "depth image"
            other = find_files(self._folder, entry, what)
            pairs, alone = self._pairs(left.numbers[rows], times, other, what)
            rows, times = rows[pairs[:, 0]], times[pairs[:, 0]]
            partner = [other.paths[at] for at in pairs[:, 1]]
            left_out += alone
        reader = None
        if sensor == "rgbd":
            assert self._layout.depth is not None and partner is not None
            reader = self._depth_reader(self._layout.depth, cameras, partner)
        files = FrameFiles(
            times,
            [left.paths[row] for row in rows],
            right=partner if sensor == "stereo" else None,
            depth=partner if sensor == "rgbd" else None,
            depth_reader=reader,
            time_unit=unit,
            left_out=tuple(left_out),
        )
        return files, FrameTimes(left.numbers[rows], times, unit)

    def _ordered(
        self, found: NumberedFiles
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], str, list[LeftOut]]:
        """Return times (M,) in order, their rows (M,), the unit, and what is left out."""
        seconds, unit = self._clock.seconds(found.numbers, str(found.source))
        order, left_out = order_frames(seconds, str(found.source))
        return seconds[order], order, unit, left_out

    def _pairs(
        self,
        numbers: NDArray[np.float64],
        times: NDArray[np.float64],
        other: NumberedFiles,
        what: str,
    ) -> tuple[NDArray[np.int64], list[LeftOut]]:
        """Pair images with right or depth images: by number if they count, else by time.

        Returns:
            Rows (M, 2) of images and of `other`, and the images without a partner.
        """
        if not self._clock.counts:
            other_times, rows, _, _ = self._ordered(other)
            within = self._timing.pair_within_s
            pairs, alone = pair_by_time(times, other_times, within, self._name, what)
            return np.stack([pairs[:, 0], rows[pairs[:, 1]]], axis=1), alone
        places = {number: row for row, number in reversed(list(enumerate(other.numbers.tolist())))}
        found = [
            (row, places[number]) for row, number in enumerate(numbers.tolist()) if number in places
        ]
        pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
        missing = np.setdiff1d(np.arange(len(numbers)), pairs[:, 0])
        report_unpaired(len(missing), len(numbers), self._name, f"{what} of the same number")
        return pairs, [LeftOut(float(times[row]), f"no {what}") for row in missing]

    def _depth_reader(self, depth: Depth, cameras: _Cameras, files: list[Path]) -> TableDepthReader:
        own = None
        if depth.camera is not None:
            shape = read_pixels(files[0]).shape if depth.camera.width is None else (0, 0)
            size, fps = (shape[1], shape[0]), self._layout.stamps.fps
            own = find_camera(self._folder, depth.camera, self._layout.name, size, fps).camera
        if not depth.registered:
            text = (
                "%s: depth images are of another camera than the images, and the data set gives "
                "no way between the two: depth is off by some pixels"
            )
            notice(_LOG, "depth_not_registered", text, self._name)
        units = _depth_units(depth, cameras.depth_units)
        given = cameras.depth_units is not None or depth.encoding != "numbers"
        if not given and _holds_integers(files[0]):
            self._assumed.append(f"integer depth in 1/{units.integers:g} m")
        return TableDepthReader(self._name, units, depth, cameras.raw, own)

    def _truth(self, frames: FrameTimes, cameras: _Cameras) -> Trajectory | None:
        poses = self._layout.poses
        assert poses is not None
        truth = read_poses(self._folder, poses, frames, self._clock)
        if truth is None or cameras.rectifier is None:
            return truth
        return carried_truth(truth, cameras.rectifier.T_left_rectified, f"{poses.of} as rectified")

    def _tell(self) -> None:
        """Say which table was used, and what was assumed."""
        if self._clock.counts:
            self._assumed.append(f"{self._layout.stamps.fps:g} images a second")
        text = "%s is read by the layout %s (%s)%s"
        assumed = f"; assumed: {', '.join(self._assumed)}" if self._assumed else ""
        layout = self._layout
        notice(_LOG, "layout", text, self._folder, layout.name, layout.title, assumed)
        for note in layout.notes:
            notice(_LOG, "layout_note", "%s: %s", self._name, note)


def _depth_units(depth: Depth, given: float | None) -> DepthUnits:
    if given is not None:
        return DepthUnits(given, given if depth.encoding == "numbers" else 1.0)
    if depth.encoding == "numbers":
        return DepthUnits(depth.units_per_metre or _MILLIMETRES)
    return DepthUnits(1.0, depth.units_per_metre or 1.0)


def _choose_sensor(layout: Layout, folder: Path, wanted: str) -> Sensor:
    """Return the sensor to read: stereo if possible, else RGB-D, else mono.

    Raises:
        DatasetError: the sequence does not offer what is wanted.
    """
    offered = _sensors(layout, folder)
    if wanted == "auto":
        if offered[:2] == ["stereo", "rgbd"]:
            text = "%s: depth images are not used, and the run is stereo; --sensor rgbd uses them"
            notice(_LOG, "unused_stream", text, folder)
        return offered[0]
    for sensor in offered:
        if sensor == wanted:
            return sensor
    entry = layout.right if wanted == "stereo" else layout.depth
    what = "right" if wanted == "stereo" else "depth"
    if entry is None:
        raise DatasetError(
            f"layout {layout.name} has no {what} images: use --sensor {' or '.join(offered)}"
        )
    patterns = " or ".join(entry.files or entry.listed_in or [])
    raise DatasetError(f"{wanted} needs {what} images in {folder} ({patterns}), found none")


def _sensors(layout: Layout, folder: Path) -> list[Sensor]:
    """Return the sensors that a sequence offers, the richest one first."""
    found: list[Sensor] = []
    if layout.right is not None and has_files(folder, layout.right):
        found.append("stereo")
    if layout.depth is not None and has_files(folder, layout.depth):
        found.append("rgbd")
    return [*found, "mono"]


def _offers(path: Path, layout: Layout, request: SequenceRequest) -> bool:
    if request.sensor == "auto":
        return True
    folders = _sequences(layout, path).values()
    return any(request.sensor in _sensors(layout, folder) for folder in folders)


def _fitting(path: Path, layouts: list[Layout]) -> list[Layout]:
    """Return the tables of which a folder is a sequence, else those that fit folders below it."""
    here = [layout for layout in layouts if _is_sequence(layout, path)]
    return here or [layout for layout in layouts if _below(layout, path)]


def _is_sequence(layout: Layout, folder: Path) -> bool:
    """Return whether a folder is a sequence of a table."""
    rules = layout.recognise
    return (
        (rules.folder is None or re.search(rules.folder, folder.name, re.IGNORECASE) is not None)
        and all(exists(folder, pattern) for pattern in rules.has)
        and not any(exists(folder, pattern) for pattern in rules.has_not)
    )


def _sequences(layout: Layout, path: Path) -> dict[str, Path]:
    """Return the folders of the sequences of a table in a folder, by name."""
    return {path.name: path} if _is_sequence(layout, path) else _below(layout, path)


def _below(layout: Layout, path: Path) -> dict[str, Path]:
    """Return the sequences of a table below a folder, by relative path.

    The search goes `_DEEPEST` deep, but only one deep below a folder of images.
    """
    level, searched = subfolders(path), 0
    for _ in range(1 if is_images(path) else _DEEPEST):
        level = level[: _MOST_FOLDERS - searched]
        searched += len(level)
        found = [folder for folder in level if _is_sequence(layout, folder)]
        if found:
            return {folder.relative_to(path).as_posix(): folder for folder in found}
        level = [inner for folder in level for inner in subfolders(folder)]
    return {}


def _find_sequence(layout: Layout, path: Path, wanted: str | None) -> Path:
    """Return the folder of the sequence.

    A folder that a table of the user's choice does not recognise is taken as it is, if it holds
    the images: the user named the table.

    Raises:
        DatasetError: there is no such sequence, or several fit.
    """
    if _is_sequence(layout, path):
        check_sequence_name(path, wanted)
        return path
    choices = _below(layout, path)
    if choices:
        return choose_sequence(path, choices, wanted)
    if wanted is None and has_files(path, layout.images):
        return path
    needed = ", ".join(layout.recognise.has)
    raise DatasetError(
        f"expected a sequence of layout {layout.name} in {path} ({needed}), found {contents(path)}"
    )


def _holds_integers(path: Path) -> bool:
    """Return whether a depth file holds integers; a damaged one is taken for one that does."""
    try:
        return bool(np.issubdtype(read_raw_depth(path).dtype, np.integer))
    except FrameError:
        return True
