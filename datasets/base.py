"""Base classes of the readers: a sequence that skips bad frames, one of files, and a slice."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import RATES_HZ, Camera
from spslam.errors import DatasetError, FrameError, StampError
from spslam.frame import Frame, Sensor
from spslam.interfaces import LeftOut, Sequence
from spslam.notices import counted, notice
from spslam.trajectory import Trajectory

from .calibration.checks import size_advice
from .calibration.mask_paths import MaskPaths
from .calibration.rectify import StereoRectifier
from .images.bayer import BayerPattern
from .images.decoding import estimate_orientation, image_size, read_pixels, to_color
from .images.depth_files import MILLIMETRES, DepthReader, DepthUnits
from .images.grey_levels import GreyReader
from .masks.mask_images import RawView
from .masks.masks import Masks
from .views import Views

_LOG = logging.getLogger(__name__)


class BaseSequence(ABC):
    """Base class of a `spslam.interfaces.Sequence`; a reader adds `__len__` and `_read`.

    Attributes:
        masks: put on every frame; None: frames stay as they are read.
        calibrated_masks: the masks that the recording's calibration names; None: none.
    """

    def __init__(
        self,
        name: str,
        sensor: Sensor,
        camera: Camera,
        source: str,
        ground_truth: Trajectory | None = None,
        *,
        dataset: str,
    ) -> None:
        self.name = name
        self.dataset = dataset
        self.sensor: Sensor = sensor
        self.camera = camera
        self.source = source
        self.ground_truth = ground_truth
        self.skipped: list[tuple[int, str]] = []
        self.time_unit = "s"
        self.left_out: list[LeftOut] = []
        self.masks: Masks | None = None
        self.calibrated_masks: MaskPaths | None = None
        self._late: dict[int, StampError] = {}
        self._reported = (0, 0)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, index: int) -> Frame:
        """Read the frame at `index`, 0 <= index < len(self).

        Raises:
            StampError: the frame is not later than the frames before it.
            FrameError: the frame cannot be decoded.
            IndexError: the recording ends before the frame, which shows only on reading.
        """

    def reaches(self, index: int) -> bool:
        """Return whether there is a frame at `index`, which is at least 0.

        A video knows its length only after its end was reached.
        """
        return index < len(self)

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from raw images."""
        same = RawView(self.camera.width, self.camera.height)
        return same, same

    def image_names(self, right: bool = False) -> list[str] | None:
        """Return the file name of each frame's (right) image; None if images have no names."""
        return None

    def mask_metrics(self) -> dict[str, Any]:
        """Return the source of the masks and the masked fraction, for `metrics.json`."""
        none = {"mask_source": None, "masked_fraction": 0.0, "frames_without_mask": 0}
        return none if self.masks is None else self.masks.metrics()

    def _masked(self, frame: Frame) -> Frame:
        return frame if self.masks is None else self.masks.on(frame)

    def _original_index(self, index: int) -> int:
        """Return the `Frame.index` of the frame at `index`."""
        return index

    def __getitem__(self, index: int) -> Frame:
        """Return the frame at `index`; negative indices count from the end.

        Raises:
            IndexError: there is no such frame.
            FrameError: the frame cannot be decoded.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(
                f"{self.name} has {counted(len(self), 'frame')}, frame {index} was requested"
            )
        return self._masked(self._read(position))

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame that can be decoded and is later than the frames before it.

        Frames that cannot be decoded are logged and added to `skipped`, once each. Frames that
        are not later than the ones before are added to `left_out`.

        Raises:
            DatasetError: at the end, if no frame could be decoded.
        """
        decoded = position = 0
        while self.reaches(position):
            index, position = position, position + 1
            try:
                frame = self._read(index)
            except StampError as error:
                self._leave_out(self._original_index(index), error)
                continue
            except FrameError as error:
                self._skip(self._original_index(index), str(error))
                continue
            except IndexError:
                break
            decoded += 1
            yield self._masked(frame)
        if decoded == 0:
            reason = self.skipped[0][1] if self.skipped else "it is empty"
            raise DatasetError(
                f"{self.name}: none of its {counted(len(self), 'frame')} can be decoded: {reason}"
            )
        if (len(self.skipped), len(self._late)) != self._reported:
            self._reported = len(self.skipped), len(self._late)
            self._tell()

    def _leave_out(self, index: int, error: StampError) -> None:
        if index not in self._late:
            self._late[index] = error
            self.left_out.append(LeftOut(error.stamp_s, error.reason))

    def _tell(self) -> None:
        """Give notices about the frames that were skipped or left out."""
        if self.skipped:
            text = "%s: %s skipped, the first, frame %d: %s"
            count = len(self.skipped)
            what = counted(
                count, "frame cannot be decoded and is", "frames cannot be decoded and are"
            )
            notice(_LOG, "unreadable_images", text, self.name, what, *self.skipped[0], count=count)
        for reason, count in Counter(error.reason for error in self._late.values()).items():
            what = counted(count, "frame is", "frames are")
            first = next(error for error in self._late.values() if error.reason == reason)
            text = "%s: %s left out (%s), the first: %s"
            notice(
                _LOG, reason.replace(" ", "_"), text, self.name, what, reason, first, count=count
            )

    def _skip(self, index: int, reason: str) -> None:
        if any(index == known for known, _ in self.skipped):
            return
        self.skipped.append((index, reason))
        _LOG.warning("%s: frame %d is skipped: %s", self.name, index, reason)


@dataclass(frozen=True, eq=False)
class FrameFiles:
    """The files of a sequence, one row per frame.

    Attributes:
        timestamps: (N,) float64, seconds, strictly increasing.
        images: N paths; the left images of stereo pairs.
        right: N paths of the right images, or None.
        depth: N paths of depth files registered to `images`, or None.
        depth_units: units of the depth files per metre.
        depth_reader: reader of depth files of other encodings; None: PNG, TIFF or NPY files.
        time_unit, left_out: see `Sequence`.
        bayer: pattern of grey images that are mosaics of a colour sensor; None: they are grey.
    """

    timestamps: NDArray[np.float64]
    images: list[Path]
    right: list[Path] | None = None
    depth: list[Path] | None = None
    depth_units: DepthUnits = MILLIMETRES
    depth_reader: DepthReader | None = None
    time_unit: str = "s"
    left_out: tuple[LeftOut, ...] = ()
    bayer: BayerPattern | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sensor(self) -> Sensor:
        """The sensor that the frames come from."""
        if self.right is not None:
            return "stereo"
        return "mono" if self.depth is None else "rgbd"


class FileSequence(BaseSequence):
    """Frames from image files, rectified while reading when a `rectifier` is given.

    `camera` is the camera of `Frame.image`: with a rectifier, the rectified left camera. Without
    a rectifier, images of a wide lens are undistorted while reading (`lens_view`), and the
    attribute `camera` is the pinhole camera of the view.
    """

    def __init__(
        self,
        name: str,
        files: FrameFiles,
        camera: Camera,
        source: str,
        ground_truth: Trajectory | None = None,
        rectifier: StereoRectifier | None = None,
        *,
        dataset: str,
    ) -> None:
        self._views = Views(camera, rectifier, paired=files.right is not None)
        super().__init__(
            name, files.sensor, self._views.camera, source, ground_truth, dataset=dataset
        )
        self.time_unit, self.left_out = files.time_unit, list(files.left_out)
        self._files = files
        if files.images:
            estimate_orientation(files.images[0])
        self._images = GreyReader(name, files.images, files.right or [], bayer=files.bayer)
        self._depth = files.depth_reader or DepthReader(name, files.depth_units)

    @property
    def depth_scale(self) -> float | None:
        """Units per metre of the latest depth file; None before the first."""
        return self._depth.units_per_metre

    def __len__(self) -> int:
        return len(self._files)

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from raw images."""
        return self._views.raw_views()

    def image_names(self, right: bool = False) -> list[str] | None:
        """Return the file name of each frame's (right) image."""
        files = self._files.right if right else self._files.images
        return None if files is None else [path.name for path in files]

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Time stamps of the frames, (N,) float64, seconds."""
        return self._files.timestamps

    def color(self, index: int) -> NDArray[np.uint8] | None:
        """Return the colours of `Frame.image`, rectified like it; None if the file is grey.

        Returns:
            (H, W, 3) uint8, red first.

        Raises:
            FrameError: the file cannot be decoded.
        """
        decoded = to_color(read_pixels(self._files.images[index]))
        return None if decoded is None else self._views.color(decoded)

    def _read(self, index: int) -> Frame:
        files, views = self._files, self._views
        path = files.images[index]
        image, decoded = self._images.read_both(path)
        right, decoded_right, depth = None, None, None
        _check_size(
            "image" if files.right is None else "left image", path, image.shape, views.left_size
        )
        if files.right is not None:
            right, decoded_right = self._images.read_both(files.right[index])
            _check_size("right image", files.right[index], right.shape, views.right_size)
        if files.depth is not None:
            depth = self._depth.read(files.depth[index])
            _check_size("depth image", files.depth[index], depth.shape, views.left_size)
        stamp = float(files.timestamps[index])
        return views.frame(index, stamp, image, decoded, right, decoded_right, depth)


class SlicedSequence(BaseSequence):
    """A slice of a sequence: every `stride`-th frame from `start` on, at most `max_frames`.

    `Frame.index` and the ground truth stay those of the whole sequence. The camera's nominal rate
    is divided by `stride`.

    Raises:
        DatasetError: the slice is impossible or begins past the end.
    """

    def __init__(
        self, whole: Sequence, start: int = 0, max_frames: int | None = None, stride: int = 1
    ) -> None:
        if start < 0 or stride < 1 or (max_frames is not None and max_frames < 1):
            raise DatasetError(
                "expected start >= 0, stride >= 1 and max_frames >= 1, "
                f"found start {start}, stride {stride} and max_frames {max_frames}"
            )
        there = whole.reaches(start) if isinstance(whole, BaseSequence) else start < len(whole)
        if not there:
            raise DatasetError(
                f"start {start} lies past the end: {whole.name} has {counted(len(whole), 'frame')}"
            )
        rate = max(whole.camera.fps / min(stride, len(whole)), RATES_HZ[0])
        camera = whole.camera if stride == 1 else replace(whole.camera, fps=rate)
        super().__init__(
            whole.name,
            whole.sensor,
            camera,
            whole.source,
            whole.ground_truth,
            dataset=whole.dataset,
        )
        self._whole = whole
        self._start, self._stride, self._most = start, stride, max_frames
        self.time_unit, self.left_out = whole.time_unit, self._left_out_here()

    def __len__(self) -> int:
        return len(self._rows)

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from raw images."""
        whole = self._whole
        return whole.raw_views() if isinstance(whole, BaseSequence) else super().raw_views()

    def image_names(self, right: bool = False) -> list[str] | None:
        """Return the file name of each frame's (right) image; None if images have no names."""
        names = self._whole.image_names(right) if isinstance(self._whole, BaseSequence) else None
        return None if names is None else [names[row] for row in self._rows]

    def mask_metrics(self) -> dict[str, Any]:
        """Return the source of the masks and the masked fraction, for `metrics.json`."""
        if self.masks is None and isinstance(self._whole, BaseSequence):
            return self._whole.mask_metrics()
        return super().mask_metrics()

    @property
    def _rows(self) -> range:
        return range(self._start, len(self._whole), self._stride)[: self._most]

    @property
    def part(self) -> tuple[Sequence, range]:
        """The whole sequence, and the rows of its frames that the slice holds."""
        return self._whole, self._rows

    @property
    def depth_scale(self) -> float | None:
        """Units per metre of the latest depth file; None without depth files."""
        return getattr(self._whole, "depth_scale", None)

    def _original_index(self, index: int) -> int:
        return self._rows[index]

    def reaches(self, index: int) -> bool:
        """Return whether there is a frame at `index`, which is at least 0."""
        row, whole = self._start + index * self._stride, self._whole
        wanted = self._most is None or index < self._most
        return wanted and (
            whole.reaches(row) if isinstance(whole, BaseSequence) else row < len(whole)
        )

    def _left_out_here(self) -> list[LeftOut]:
        """Return every `stride`-th entry that the whole left out within the time of this slice."""
        rows, whole = self._rows, self._whole
        if not isinstance(whole, FileSequence):
            return list(whole.left_out)
        begin = -np.inf if rows.start == 0 else whole.timestamps[rows[0]]
        end = np.inf if rows[-1] + rows.step >= len(whole) else whole.timestamps[rows[-1]]
        return [entry for entry in whole.left_out if begin <= entry.stamp_s <= end][:: rows.step]

    def _read(self, index: int) -> Frame:
        frame = self._whole[self._rows[index]]
        return frame if frame.camera is self.camera else replace(frame, camera=self.camera)


def _check_size(what: str, path: Path, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    height, width = shape
    if (width, height) == expected:
        return
    hint = (
        ": depth must be registered to the image, pixel by pixel" if what == "depth image" else ""
    )
    raise FrameError(
        f"{what} {path.parent.name}/{path.name}: expected {expected[0]}x{expected[1]} pixels, "
        f"found {width}x{height}{hint}"
    )


def check_image_size(images: list[Path], camera: Camera, calibration: str) -> None:
    """Check that the first image that can be decoded has the size of `camera`.

    Args:
        images: image files.
        camera: the camera that belongs to the images.
        calibration: origin of `camera` in words, for the message.

    Raises:
        DatasetError: no image can be decoded, or the sizes differ.
    """
    width, height = image_size(images)
    if (width, height) != (camera.width, camera.height):
        raise DatasetError(
            f"images in {images[0].parent} are {width}x{height}, but {calibration} is for "
            f"{camera.width}x{camera.height}: {size_advice(width, height, camera)}"
        )
