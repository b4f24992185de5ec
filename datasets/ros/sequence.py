"""The frames of a bag as a sequence."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError, FrameError
from spslam.frame import Frame
from spslam.interfaces import LeftOut, SequenceRequest
from spslam.notices import counted, notice
from spslam.trajectory import Trajectory

from ..base import BaseSequence
from ..calibration.calibration import Calibration, find_calibration
from ..calibration.checks import report_baseline, report_doubts, size_advice
from ..calibration.rectify import StereoRectifier, rectified_camera
from ..images.decoding import to_color
from ..images.depth_files import DepthReader, DepthUnits, depth_units
from ..images.grey_levels import GreyReader
from ..masks.mask_images import RawView
from ..timestamps import Timing, nominal_fps, order_frames, pair_by_time
from ..views import Views
from .bag import Bag, open_bag
from .camera_info import InfoCamera, info_camera, is_rectified, left_from_right
from .images import ImageRef, read_pixels
from .topics import ImageTopic, Streams, check_registered, choose_streams, find_camera_info
from .transforms import Transforms, read_transforms
from .truth import find_truth, read_truth

_LOG = logging.getLogger(__name__)
# Rate, 1/s, of a bag with one image.
_FPS = 30.0
# Units of integer depth per metre (REP 118).
_MILLIMETRES = 1000.0


@dataclass(frozen=True, eq=False)
class _Rows:
    """The images of one topic in the order of time.

    Attributes:
        topic: of the images.
        rows: (N,) numbers of their messages.
        seconds: (N,) their stamps, increasing.
        left_out: images that are no frames.
    """

    topic: ImageTopic
    rows: NDArray[np.int64]
    seconds: NDArray[np.float64]
    left_out: list[LeftOut]

    def select(self, index: NDArray[np.int64]) -> _Rows:
        return replace(self, rows=self.rows[index], seconds=self.seconds[index])

    def refs(self, bag: Bag) -> list[ImageRef]:
        return [ImageRef(bag, self.topic.name, row) for row in self.rows.tolist()]


@dataclass(frozen=True, eq=False)
class _Optics:
    """The cameras of a sequence.

    Attributes:
        camera: of `Frame.image`.
        raw: the camera of the images as published.
        rectifier: of pairs that are not rectified, or None.
        depth_scale: units of depth per metre from a calibration file, or None.
    """

    camera: Camera
    raw: Camera
    rectifier: StereoRectifier | None = None
    depth_scale: float | None = None


def open_ros(path: Path, request: SequenceRequest) -> BagSequence:
    """Open a bag as a sequence.

    Raises:
        DatasetError: the bag is damaged, has no images, or it is unclear which are meant.
        CalibrationError: there is no calibration, or it does not fit the images.
        MissingDependencyError: rosbags is not installed.
    """
    if request.time_unit != "auto":
        raise DatasetError(
            f"{path} is a bag, which brings its own times, found --time-unit {request.time_unit}"
        )
    bag = open_bag(path, request.sequence)
    streams = choose_streams(bag, request)
    truth = find_truth(bag, request.topics.truth)
    transforms = read_transforms(bag)
    images, partners, left_out = _frames(bag, streams, request.pair_within_s)
    fps = nominal_fps(images.seconds, _FPS)
    optics = _optics(bag, streams, request, transforms, fps)
    ground_truth = (
        None
        if truth is None
        else read_truth(
            bag,
            truth,
            streams.image.frame,
            transforms,
            np.eye(4) if optics.rectifier is None else optics.rectifier.T_left_rectified,
        )
    )
    return BagSequence(bag, streams, images, partners, optics, ground_truth, left_out)


class BagSequence(BaseSequence):
    """The frames of a bag; `left_out` has the images that are no frames.

    Args:
        bag: the bag.
        streams: its topics.
        images: the (left) images.
        partners: the right or depth images of the same moments, or None.
        optics: the cameras.
        ground_truth: poses of the camera of `Frame.image`, or None.
        left_out: images that are no frames.
    """

    def __init__(
        self,
        bag: Bag,
        streams: Streams,
        images: _Rows,
        partners: _Rows | None,
        optics: _Optics,
        ground_truth: Trajectory | None,
        left_out: list[LeftOut],
    ) -> None:
        self._views = Views(optics.camera, optics.rectifier, paired=streams.right is not None)
        super().__init__(
            bag.name,
            streams.sensor,
            self._views.camera,
            str(bag.source),
            ground_truth,
            dataset="ros",
        )
        self.time_unit, self.left_out = "ns", left_out
        self.streams = streams
        self._seconds = images.seconds
        self._images = images.refs(bag)
        others = [] if partners is None else partners.refs(bag)
        self._right, self._depth = (others, []) if streams.right is not None else ([], others)
        self._optics = optics
        self._grey = GreyReader(bag.name, self._images, self._right, decode=read_pixels)
        self._depths = DepthReader(bag.name, _units(optics))

    def __len__(self) -> int:
        return len(self._images)

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Time stamps of the frames, (N,) float64, seconds."""
        return self._seconds

    @property
    def depth_scale(self) -> float | None:
        """Units per metre of the latest depth image; None before the first."""
        return self._depths.units_per_metre

    def color(self, index: int) -> NDArray[np.uint8] | None:
        """Return the colours (H, W, 3) of `Frame.image`, red first; None if they are grey.

        Raises:
            FrameError: the image cannot be decoded.
        """
        decoded = to_color(read_pixels(self._images[index]))
        return None if decoded is None else self._views.color(decoded)

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from those of the bag."""
        return self._views.raw_views()

    def _read(self, index: int) -> Frame:
        image, decoded = self._grey.read_both(self._images[index])
        _check_size(self._images[index], image.shape, self._optics.raw)
        right, decoded_right, depth = None, None, None
        if self._right:
            right, decoded_right = self._grey.read_both(self._right[index])
            _check_size(self._right[index], right.shape, self._optics.raw)
        if self._depth:
            depth = self._read_depth(self._depth[index])
            _check_size(self._depth[index], depth.shape, self._optics.raw)
        stamp = float(self._seconds[index])
        return self._views.frame(index, stamp, image, decoded, right, decoded_right, depth)

    def _read_depth(self, ref: ImageRef) -> NDArray[np.float32]:
        raw = read_pixels(ref)
        if raw.ndim != 2 or raw.dtype.itemsize < 2:
            raise FrameError(
                f"{ref.name}: expected depth as one channel of 16-bit integers or floats, "
                f"found {raw.dtype} {raw.shape}"
            )
        return self._depths.metres(raw, ref.name)


def _frames(
    bag: Bag, streams: Streams, within_s: float
) -> tuple[_Rows, _Rows | None, list[LeftOut]]:
    """Order the images of each topic by their stamps, and pair them."""
    Timing(pair_within_s=within_s)
    partner = streams.right or streams.depth
    topics = [streams.image] if partner is None else [streams.image, partner]
    found = _stamped(bag, topics)
    images = found[0]
    if partner is None:
        return images, None, images.left_out
    what = "right image" if streams.right is not None else "depth image"
    pairs, alone = pair_by_time(images.seconds, found[1].seconds, within_s, bag.name, what)
    left_out = [*images.left_out, *alone]
    return images.select(pairs[:, 0]), found[1].select(pairs[:, 1]), left_out


def _stamped(bag: Bag, topics: list[ImageTopic]) -> list[_Rows]:
    stamps = bag.stamps_ns([topic.name for topic in topics])
    if any(not values.any() for values in stamps):
        text = "%s: the stamps in the headers of %s are all 0: the times of recording are used"
        names = ", ".join(topic.name for topic in topics)
        notice(_LOG, "no_header_stamps", text, bag.name, names)
        stamps = [bag.topics[topic.name].recorded_ns for topic in topics]
    found = []
    for topic, values in zip(topics, stamps, strict=True):
        # Whole nanoseconds of today do not fit in 53 bits: divide them as integers.
        seconds = np.array([stamp / 10**9 for stamp in values.tolist()])
        if len(seconds) > 1 and (seconds == seconds[0]).all():
            raise DatasetError(
                f"{bag.name}: all {counted(len(seconds), 'stamp')} of {topic.name} "
                f"are {seconds[0]:.9f} s, which is no time"
            )
        rows, left_out = order_frames(seconds, topic.name)
        found.append(_Rows(topic, rows, seconds[rows], left_out))
    return found


def _optics(
    bag: Bag, streams: Streams, request: SequenceRequest, transforms: Transforms, fps: float
) -> _Optics:
    size = streams.image.size
    if size is None:
        raise DatasetError(
            f"{bag.name}: the first images of {streams.image.name} cannot be decoded: "
            f"{_first_fault(bag, streams.image)}"
        )
    if streams.depth is not None:
        check_registered(streams.image, streams.depth, bag.name)
        _tell_depth(bag, streams.depth)
    info = find_camera_info(bag, streams.image)
    if request.calibration is not None or info is None:
        return _given_optics(bag, streams, request.calibration, size, fps)
    left = _camera_of(bag, streams.image, info, fps)
    report_doubts(left.camera, f"{bag.name}, {info}")
    if streams.right is None:
        return _Optics(left.camera, left.camera)
    right_info = find_camera_info(bag, streams.right)
    if right_info is None or right_info == info:
        raise CalibrationError(
            f"{bag.name}: {streams.right.name} has no camera_info of its own: "
            "give --calibration FILE, or use --sensor mono"
        )
    right = _camera_of(bag, streams.right, right_info, fps)
    frames = streams.image.frame, streams.right.frame
    T_left_right = left_from_right(left, right, frames, transforms)
    return _pair(left.camera, right.camera, T_left_right, f"{info} and {right_info}")


def _given_optics(
    bag: Bag, streams: Streams, file: Path | None, size: tuple[int, int], fps: float
) -> _Optics:
    """Return the cameras of a calibration file, for a bag without camera_info or instead of it."""
    folder = bag.source if bag.source.is_dir() else bag.source.parent
    what = f"{streams.image.name} of {bag.name} has no camera_info: it"
    given = find_calibration(file, [folder], what)
    if (given.camera.width, given.camera.height) != size:
        raise DatasetError(
            f"{bag.name}: {streams.image.name} is {size[0]}x{size[1]}, but calibration "
            f"{given.path} is for {given.camera.width}x{given.camera.height}: "
            f"{size_advice(*size, given.camera)}"
        )
    camera = replace(given.camera, fps=fps)
    if streams.right is None:
        return _Optics(camera, camera, depth_scale=given.depth_scale)
    return _pair(camera, *_right_of(given), f"calibration {given.path}")


def _right_of(given: Calibration) -> tuple[Camera, NDArray[np.float64]]:
    if given.right is None or given.T_left_right is None:
        raise CalibrationError(
            f"calibration {given.path} has no right camera: add `right:` and `T_left_right:`, "
            "or use --sensor mono"
        )
    return given.right, given.T_left_right


def _pair(left: Camera, right: Camera, T_left_right: NDArray[np.float64], origin: str) -> _Optics:
    report_baseline(float(np.linalg.norm(T_left_right[:3, 3])), origin)
    try:
        camera = rectified_camera(left, right, T_left_right)
        if camera is not None:
            return _Optics(camera, left)
        rectifier = StereoRectifier(left, right, T_left_right)
    except CalibrationError as error:
        raise CalibrationError(f"{origin}: {error}") from None
    return _Optics(rectifier.camera, left, rectifier)


def _camera_of(bag: Bag, image: ImageTopic, info: str, fps: float) -> InfoCamera:
    if image.size is None:
        raise DatasetError(
            f"{bag.name}: the first images of {image.name} cannot be decoded: "
            f"{_first_fault(bag, image)}"
        )
    rectified = is_rectified(image.base)
    try:
        return info_camera(
            bag.message(info, 0), image.size, rectified=rectified, topic=info, fps=fps
        )
    except CalibrationError as error:
        raise CalibrationError(f"{bag.name}: {error}") from None


def _first_fault(bag: Bag, image: ImageTopic) -> str:
    try:
        read_pixels(ImageRef(bag, image.name, 0))
    except FrameError as error:
        return str(error)
    return "later ones differ"


def _tell_depth(bag: Bag, depth: ImageTopic) -> None:
    units = "metres" if depth.encoding.startswith(("32F", "64F")) else "millimetres"
    text = "%s: depth of %s is read as %s (%s, REP 118)"
    notice(_LOG, "depth_units", text, bag.name, depth.name, units, depth.encoding)


def _units(optics: _Optics) -> DepthUnits:
    return depth_units(optics.depth_scale, _MILLIMETRES)


def _check_size(ref: ImageRef, shape: tuple[int, ...], camera: Camera) -> None:
    if shape != (camera.height, camera.width):
        raise FrameError(
            f"{ref.name}: expected {camera.width}x{camera.height} pixels, "
            f"found {shape[1]}x{shape[0]}"
        )
