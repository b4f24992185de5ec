"""Open images with intrinsics and poses as a recording."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError
from spslam.interfaces import NO_STAMP, LeftOut, SequenceRequest
from spslam.io.files import natural_order
from spslam.notices import counted, notice, plural
from spslam.timestamps import TimeUnit
from spslam.trajectory import Trajectory

from ..base import FileSequence, FrameFiles, check_image_size
from ..calibration.checks import report_doubts
from ..images.depth_files import MILLIMETRES, DepthUnits
from ..paths import shorten
from ..timestamps import Timing, nominal_fps, order_frames, read_stamps
from .cameras import common_camera
from .poses import truth_of_poses

_LOG = logging.getLogger(__name__)
# Nominal rate of images that have no stamps, 1/s.
FPS = 30.0
# Numbers from here on are times, smaller ones count: seconds since 1970 have ten digits.
_SURELY_TIME = 1e9
_STAMPED = re.compile(r"\D*(\d+(?:\.\d+)?)\D*")


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image of a reconstruction.

    Attributes:
        path: the image.
        camera: its camera; None if unknown, for an image that is not in the reconstruction.
        group: name of the camera or stream that it belongs to.
        T_world_cam: (4, 4), camera to world; None if unknown.
        stamp: its time stamp or number in the unit of the list; None without one.
        depth: its depth file; None without one.
    """

    path: Path
    camera: Camera | None
    group: str
    T_world_cam: NDArray[np.float64] | None = None
    stamp: float | None = None
    depth: Path | None = None


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a reader of a reconstruction has found.

    Attributes:
        dataset: name of the reader.
        name: name of the recording.
        source: the folder or file that was opened.
        poses: the file of the poses, for messages.
        images: the images.
        scale: what the lengths of the poses are, for a notice; None if they are metres.
        depth_units: units of the depth files per metre.
    """

    dataset: str
    name: str
    source: Path
    poses: Path
    images: list[PosedImage]
    scale: str | None
    depth_units: DepthUnits = MILLIMETRES


def open_reconstruction(found: Reconstruction, request: SequenceRequest) -> FileSequence:
    """Open the images of one camera of a reconstruction as a recording.

    Of several cameras or folders of images, the one that `request.sequence` names is read, else the
    one with the most images. Poses become the ground truth.

    Raises:
        DatasetError: no image is there, or the request cannot be fulfilled.
    """
    timing = Timing(request.time_unit, request.pair_within_s)
    _refuse_stereo(found, request.sensor)
    images = _on_disk(found)
    images = _one_group(found, images, request.sequence)
    known = [image.camera for image in images if image.camera is not None]
    if not known:
        raise DatasetError(f"{found.name}: no image has a camera")
    camera, fits = common_camera(known, found.name)
    kept = iter(fits)
    images = [image for image in images if image.camera is None or next(kept)]
    images, rgbd, left_out = _with_depth(found, images, request.sensor)
    images = sorted(images, key=lambda image: natural_order(image.path))
    times, unit, order, late = _times(found, images, timing)
    images = [images[i] for i in order]
    files = FrameFiles(
        times,
        [image.path for image in images],
        depth=[image.depth for image in images if image.depth is not None] if rgbd else None,
        depth_units=found.depth_units,
        time_unit=unit,
        left_out=(*left_out, *late),
    )
    origin = f"the camera in {found.poses.parent}"
    report_doubts(camera, origin)
    check_image_size(files.images, camera, origin)
    camera = replace(camera, fps=nominal_fps(times, FPS))
    truth = _ground_truth(found, images, times)
    source = str(found.source)
    return FileSequence(found.name, files, camera, source, truth, dataset=found.dataset)


def _refuse_stereo(found: Reconstruction, sensor: str) -> None:
    if sensor == "stereo":
        raise DatasetError(
            f"{found.source}: stereo pairs of a {found.dataset} recording are not read: "
            "use --sensor mono"
        )


def _on_disk(found: Reconstruction) -> list[PosedImage]:
    """Return the images whose files are there, and count the others."""
    there = [image for image in found.images if image.path.is_file()]
    missing = len(found.images) - len(there)
    if not there:
        first = found.images[0].path if found.images else found.source
        raise DatasetError(
            f"{found.name}: none of the {counted(len(found.images), 'image')} in {found.poses} "
            f"is there, expected for example {first}"
        )
    if missing:
        text = "%s: %d of the %s in %s %s missing"
        what = counted(len(found.images), "image"), found.poses, plural(missing, "is", "are")
        notice(_LOG, "missing_images", text, found.name, missing, *what, count=missing)
    return there


def _one_group(
    found: Reconstruction, images: list[PosedImage], wanted: str | None
) -> list[PosedImage]:
    """Return the images of one camera in one folder."""
    root = _common_folder([image.path for image in images])
    groups: dict[str, list[PosedImage]] = {}
    for image in sorted(images, key=lambda image: natural_order(image.path)):
        folder = image.path.parent.relative_to(root).as_posix()
        groups.setdefault(" ".join(filter(None, (image.group, folder.strip(".")))), []).append(
            image
        )
    sizes = {label: len(group) for label, group in groups.items()}
    listed = shorten([f"{label or root.name}: {size}" for label, size in sizes.items()])
    if wanted is not None:
        fitting = [label for label in groups if wanted == label] or [
            label for label in groups if wanted in label
        ]
        if len(fitting) != 1:
            raise DatasetError(
                f"no single sequence {wanted!r} in {found.source}: its images are {listed}"
            )
        return groups[fitting[0]]
    most = max(sizes, key=sizes.__getitem__)
    if len(groups) > 1:
        text = (
            "%s: of the images of %d cameras or folders, %d of %s are read (%s); --sequence chooses"
        )
        what = len(groups), sizes[most], repr(most), listed
        unused = len(images) - sizes[most]
        notice(_LOG, "unused_images", text, found.name, *what, count=unused)
    return groups[most]


def _common_folder(paths: list[Path]) -> Path:
    shared = [path.parent for path in paths]
    root = shared[0]
    while not all(folder == root or root in folder.parents for folder in shared):
        root = root.parent
    return root


def _with_depth(
    found: Reconstruction, images: list[PosedImage], sensor: str
) -> tuple[list[PosedImage], bool, list[LeftOut]]:
    """Return the images to read, whether depth is read, and the images without depth."""
    named = any(image.depth is not None for image in images)
    if sensor == "mono" or not (named or sensor == "rgbd"):
        return images, False, []
    kept = [image for image in images if image.depth is not None and image.depth.is_file()]
    if not kept and sensor == "auto":
        text = "%s: none of the depth images in %s is there: mono"
        notice(_LOG, "unused_stream", text, found.name, found.poses)
        return images, False, []
    if not kept:
        what = "is there" if named else "is named"
        raise DatasetError(
            f"{found.name}: RGB-D needs depth images, but none {what} in {found.poses}"
        )
    if alone := len(images) - len(kept):
        text = "%s: %d of %d images %s no depth image and %s left out"
        what_is = plural(alone, "has", "have"), plural(alone, "is", "are")
        notice(_LOG, "unpaired_images", text, found.name, alone, len(images), *what_is, count=alone)
    return kept, True, [LeftOut(np.nan, "no depth image")] * alone


def _times(
    found: Reconstruction, images: list[PosedImage], timing: Timing
) -> tuple[NDArray[np.float64], str, NDArray[np.int64], list[LeftOut]]:
    """Return stamps (M,), seconds, their unit, the rows (M,) of their images, and what is left out.

    Stamps are those of the list, else the numbers in the names of the images, if they are times.
    Otherwise images are counted.
    """
    stamps = [image.stamp for image in images]
    values = _numbers(stamps, timing.given) if all(s is not None for s in stamps) else None
    origin = f"{found.name}, time stamps"
    if values is None:
        named = [_STAMPED.fullmatch(image.path.stem) for image in images]
        numbers = [None if match is None else float(match[1]) for match in named]
        values = _numbers(numbers, timing.given)
        origin = f"{found.name}, names of the images"
    if values is None or timing.unit == "frames":
        ids = [stamp for stamp in stamps if stamp is not None]
        # Numbers of a list give the order; names are in natural order.
        numbered = len(ids) == len(images) and bool(np.isfinite(ids).all())
        order = np.argsort(ids, kind="stable") if numbered else np.arange(len(images))
        text = "%s: images without time stamps are counted in the order of their %s, %g a second"
        by = "numbers" if numbered else "names"
        notice(_LOG, "counted_images", text, found.name, by, FPS, count=len(images))
        return np.arange(len(images)) / FPS, "frames", order.astype(np.int64), []
    known = np.isfinite(values)
    seconds, unit = read_stamps(values[known], None, origin, timing, FPS)
    order, left_out = order_frames(seconds, origin)
    left_out += [LeftOut(np.nan, NO_STAMP)] * int(np.count_nonzero(~known))
    return seconds[order], unit, np.flatnonzero(known)[order], left_out


def _numbers(
    numbers: list[float | None] | list[float], unit: TimeUnit | None
) -> NDArray[np.float64] | None:
    """Return numbers (N,) if they are times, else None."""
    if any(number is None for number in numbers):
        return None
    values = np.array(numbers, dtype=np.float64)
    known = values[np.isfinite(values)]
    if len(known) == 0 or (unit is None and known.min() < _SURELY_TIME):
        return None
    return values


def _ground_truth(
    found: Reconstruction, images: list[PosedImage], times: NDArray[np.float64]
) -> Trajectory | None:
    rows = [i for i, image in enumerate(images) if image.T_world_cam is not None]
    if not rows:
        return None
    poses = np.array([images[i].T_world_cam for i in rows])
    if len(rows) < len(images):
        text = "%s: %d of %d images %s no pose: the ground truth is of the others"
        missing = len(images) - len(rows)
        have = plural(missing, "has", "have")
        notice(_LOG, "sparse_truth", text, found.name, missing, len(images), have, count=missing)
    truth = truth_of_poses(found.poses, times[rows], poses, "camera", len(rows))
    if truth is not None and found.scale is not None:
        text = "%s: lengths of the ground truth are %s, no metres: so are errors"
        notice(_LOG, "truth_scale", text, found.name, found.scale)
    return truth
