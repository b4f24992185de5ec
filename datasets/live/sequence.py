"""The frames of a camera that is read while it sees (`LiveSequence`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from spslam.callbacks import never
from spslam.errors import DatasetError
from spslam.frame import Frame
from spslam.interfaces import EQUAL_STAMP, STEPPED_BACK, LeftOut
from spslam.notices import counted, notice

from ..base import BaseSequence
from ..images.decoding import to_color, to_grey, to_metres
from ..masks.mask_images import RawView
from ..views import Views
from .device import LiveCamera, LiveImages
from .newest import Newest

_LOG = logging.getLogger(__name__)


class LiveSequence(BaseSequence):
    """The newest frames of a connected camera (a `spslam.interfaces.LiveSource`).

    It can be iterated once. Frames that are not taken in time are replaced by newer ones. A frame's
    index counts the images that the camera gave since the iteration began. The length is the number
    of frames until now, and old frames are gone.

    Args:
        device: the camera.
        max_frames: number of images after which the sequence ends; None: it ends with the camera.

    Attributes:
        max_frames: as given.
        dropped: indices of the frames that a newer one replaced before they were taken.
    """

    def __init__(self, device: LiveCamera, max_frames: int | None = None) -> None:
        if max_frames is not None and max_frames < 1:
            raise DatasetError(f"expected max_frames >= 1, found {max_frames}")
        self._views = Views(device.camera, device.rectifier, paired=device.sensor == "stereo")
        camera = self._views.camera
        super().__init__(device.name, device.sensor, camera, device.source, dataset=device.dataset)
        self.max_frames = max_frames
        self._device = device
        self._newest = Newest(device.read, device.close, device.source, max_frames)
        self.dropped = self._newest.dropped
        self._length = 0
        self._last_ns: int | None = None
        self._stop: Callable[[], bool] = never
        self._begun = False

    @property
    def latency_from(self) -> str:
        """Where the latency begins: `capture`, or `arrival` where the camera does not tell."""
        return self._device.latency_from

    @property
    def depth_scale(self) -> float | None:
        """Units of the camera's depth images per metre; None without depth."""
        return self._device.units_per_metre if self.sensor == "rgbd" else None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Frame:
        """Raise an IndexError: a camera's frames are gone when they were read."""
        return self._read(index)

    def _read(self, index: int) -> Frame:
        raise IndexError(
            f"{self.source} is a live camera, whose frames can be read once, in order; "
            f"frame {index} was requested"
        )

    def begin(self, stop: Callable[[], bool] = never) -> Frame | None:
        """Wait for a frame to prepare with; it does not count.

        Args:
            stop: called during this wait and those of the iteration; True ends them.

        Returns:
            The frame; None at a stop.

        Raises:
            CameraLostError: the camera gives no image.
        """
        self._stop = stop
        self._newest.start()
        found = self._newest.take(stop)
        return None if found is None else self._frame(0, found[1])

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, again and again.

        Raises:
            CameraLostError: the camera gives no more images.
        """
        if self._begun:
            self._read(0)
        self._begun = True
        self._newest.begin()
        try:
            while (found := self._newest.take(self._stop)) is not None:
                index, images = found
                self._length = index + 1
                if self._is_later(images):
                    yield self._frame(index, images)
        finally:
            self.close()
            self._tell()

    def close(self) -> None:
        """Release the camera."""
        self._newest.close()

    def _is_later(self, images: LiveImages) -> bool:
        """Return whether images are later than those before; else leave them out."""
        last, self._last_ns = self._last_ns, images.stamp_ns
        if last is None:
            notice(_LOG, "time_stamps", "%s: time stamps are %s", self.source, self._device.clock)
        elif images.stamp_ns <= last:
            self._last_ns = last
            reason = EQUAL_STAMP if images.stamp_ns == last else STEPPED_BACK
            self.left_out.append(LeftOut(images.stamp_ns / 1e9, reason))
            return False
        return True

    def _tell(self) -> None:
        if self.left_out:
            count = len(self.left_out)
            text = "%s: %s left out: not later than the one before"
            what = counted(count, "frame is", "frames are")
            notice(_LOG, "left_out_frames", text, self.source, what, count=count)

    def _frame(self, index: int, images: LiveImages) -> Frame:
        depth = None
        if images.depth is not None:
            depth = to_metres(images.depth, self._device.units_per_metre)
        frame = self._views.frame(
            index,
            images.stamp_ns / 1e9,
            to_grey(images.image, f"frame {index}"),
            to_color(images.image),
            images.right,
            depth=depth,
        )
        return self._masked(replace(frame, captured_s=images.captured_s))

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from the camera's."""
        return self._views.raw_views()
