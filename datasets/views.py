"""Make the frames of a sequence from recorded images: rectified, undistorted or as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.frame import ColorImage, Frame
from spslam.typing import BoolArray

from .calibration.lens_view import Maps, lens_view
from .calibration.rectify import StereoRectifier
from .masks.mask_images import RawView


class Views:
    """What frames show of the recorded images of a camera or a pair.

    Pairs with a `rectifier` are rectified. Single images of a wide lens are undistorted
    (`lens_view`). Other images stay as they are.

    Args:
        camera: camera of the recorded (left) images; of rectified pairs with its baseline.
        rectifier: of pairs that are not rectified.
        paired: whether frames are pairs.

    Attributes:
        camera: camera of `Frame.image`.
        left_size, right_size: width and height of the recorded images, pixels.
    """

    def __init__(
        self, camera: Camera, rectifier: StereoRectifier | None = None, paired: bool = False
    ) -> None:
        self._rectifier = rectifier
        self._view = None if paired else lens_view(camera)
        self.camera = camera if self._view is None else self._view.camera
        recorded = (camera, camera) if rectifier is None else (rectifier.left, rectifier.right)
        self.left_size, self.right_size = ((c.width, c.height) for c in recorded)
        self._maps: tuple[Maps | None, Maps | None] = (None, None)
        self._masks: tuple[BoolArray | None, BoolArray | None] = (None, None)
        if rectifier is not None:
            self._maps = rectifier.maps_left, rectifier.maps_right
            self._masks = rectifier.mask_left, rectifier.mask_right
        elif self._view is not None:
            self._maps = self._view.maps, None

    def frame(
        self,
        index: int,
        stamp_s: float,
        image: NDArray[np.uint8],
        decoded: NDArray[np.uint8] | None,
        right: NDArray[np.uint8] | None = None,
        decoded_right: NDArray[np.uint8] | None = None,
        depth: NDArray[np.float32] | None = None,
    ) -> Frame:
        """Make a frame.

        Args:
            index: as `Frame.index`.
            stamp_s: its time, seconds.
            image: recorded grey (left) image (H, W).
            decoded: the same in colour (H, W, 3), blue green red; None: grey.
            right: recorded grey right image (H, W), or None.
            decoded_right: the same in colour, or None.
            depth: (H, W) metres along z, registered to `image`, or None.
        """
        if right is not None and self._rectifier is not None:
            image, right = self._rectifier.rectify(image, right)
        if self._view is not None:
            image = self._view.image(image)
            depth = None if depth is None else self._view.depth(depth)
        return Frame(
            index,
            stamp_s,
            self.camera,
            image,
            right,
            depth,
            None if decoded is None else ColorImage(decoded, self._maps[0]),
            None if decoded_right is None else ColorImage(decoded_right, self._maps[1]),
            *self._masks,
            recorded_rows(self.camera, self._maps[0]),
        )

    def color(self, decoded: NDArray[Any]) -> NDArray[np.uint8]:
        """Return what `Frame.image` shows of a colour image (H, W, 3) uint8, blue first.

        Returns:
            (H, W, 3) uint8, red first.
        """
        return ColorImage(decoded, self._maps[0]).image()

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from recorded images."""
        left, right = self._maps
        return RawView(*self.left_size, left), RawView(*self.right_size, right)


def recorded_rows(camera: Camera, maps: Maps | None) -> NDArray[np.float32] | None:
    """Return `Frame.recorded_rows` of a view with these maps; None where nothing depends on it."""
    return maps[1] if maps is not None and camera.readout_s > 0 else None
