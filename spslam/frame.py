"""Data of one frame: images (`Frame`), extracted `Features`, and undistorted `Observations`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import ExtractorError
from spslam.notices import counted

Sensor = Literal["mono", "stereo", "rgbd"]
# Least and largest relative standard deviation of a position.
SIGMA_RANGE = (0.01, 100.0)


@dataclass(frozen=True, eq=False)
class ColorImage:
    """The colour image of which a frame's grey image was made.

    Colours are looked up or rectified only where they are needed, because tracking uses grey.

    Attributes:
        decoded: (H, W, 3) uint8, blue green red, as decoded.
        maps: x and y, each (H, W) float32, of the decoded pixel that each pixel of the grey image
            shows; None: both images have the same pixels.
    """

    decoded: NDArray[np.uint8]
    maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def at(self, pixels: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Colours (N, 3) uint8, red green blue, of the nearest pixels to pixels (N, 2)."""
        if self.maps is not None:
            column, row = _nearest(pixels, self.maps[0].shape)
            pixels = np.stack([self.maps[0][row, column], self.maps[1][row, column]], axis=1)
        column, row = _nearest(pixels, self.decoded.shape)
        colors: NDArray[np.uint8] = self.decoded[row, column, ::-1]
        return colors

    def image(self) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8, red green blue, pixel by pixel like the grey image."""
        shown = self.decoded
        if self.maps is not None:
            shown = np.asarray(cv2.remap(shown, *self.maps, cv2.INTER_LINEAR), dtype=np.uint8)
        return np.ascontiguousarray(shown[:, :, ::-1])


@dataclass(frozen=True, eq=False)
class Frame:
    """The images of one moment of a sequence.

    Attributes:
        index: position in the sequence (0-based, before any stride).
        timestamp: seconds.
        camera: the camera of `image`; for stereo the rectified left camera with its baseline.
        image: (H, W) uint8, grey; for stereo the rectified left image.
        image_right: (H, W) uint8, grey, the rectified right image; stereo only.
        depth: (H, W) float32, metres along z, registered to `image`; 0 where unknown; RGB-D only.
        color, color_right: `image` and `image_right` in colour; None where the source is grey.
        mask, mask_right: (H, W) bool, which pixels of `image` and `image_right` are used; None: all
            of them.
        recorded_rows: (H, W) float32, the row of the recorded image that each pixel of `image`
            shows, for the read-out times of a rolling shutter; None: its own row.
        captured_s: when a live camera took the images, or when a frame of a recording is due in
            real time, seconds of `time.monotonic`; None for other frames.
    """

    index: int
    timestamp: float
    camera: Camera
    image: NDArray[np.uint8]
    image_right: NDArray[np.uint8] | None = None
    depth: NDArray[np.float32] | None = None
    color: ColorImage | None = None
    color_right: ColorImage | None = None
    mask: NDArray[np.bool_] | None = None
    mask_right: NDArray[np.bool_] | None = None
    recorded_rows: NDArray[np.float32] | None = None
    captured_s: float | None = None

    @property
    def sensor(self) -> Sensor:
        """The kind of sensor, by the images of the frame."""
        if self.image_right is not None:
            return "stereo"
        return "mono" if self.depth is None else "rgbd"

    @property
    def used_image(self) -> NDArray[np.uint8]:
        """`image` for statistics: masked pixels have the mean grey level of the others."""
        if self.mask is None or self.mask.all() or not self.mask.any():
            return self.image
        return np.where(self.mask, self.image, np.uint8(self.image[self.mask].mean()))


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of one image with their descriptors.

    Attributes:
        keypoints: (N, 2) float32, pixels (x, y) of the original, still distorted image.
        scores: (N,) float32, higher is better.
        descriptors: (N, D) float32 of unit length, or (N, B) uint8 packed bits.
        relative_sigma: (N,) float32, standard deviation of each position, divided by the
            extractor's `pixel_sigma`, within `SIGMA_RANGE`; None: 1 for all.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | NDArray[np.uint8]
    relative_sigma: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.keypoints)
        sigma = self.relative_sigma
        if (
            self.keypoints.shape != (n, 2)
            or self.scores.shape != (n,)
            or len(self.descriptors) != n
            or (sigma is not None and sigma.shape != (n,))
        ):
            raise ValueError(
                f"features disagree in length: keypoints {self.keypoints.shape}, "
                f"scores {self.scores.shape}, descriptors {self.descriptors.shape}"
                + ("" if sigma is None else f", relative_sigma {sigma.shape}")
            )
        if sigma is not None and not are_sigmas(sigma):
            raise ValueError(
                "relative_sigma must be within {:g} to {:g}, found {:g} to {:g}".format(
                    *SIGMA_RANGE, sigma.min(), sigma.max()
                )
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Features:
        """The features at `index` ((N,) bool or (M,) int64)."""
        sigma = self.relative_sigma
        return Features(
            self.keypoints[index],
            self.scores[index],
            self.descriptors[index],
            None if sigma is None else sigma[index],
        )

    def inside(self, mask: NDArray[np.bool_]) -> Features:
        """The features whose nearest pixel is True in a mask (H, W) of their image."""
        columns, rows = np.rint(self.keypoints.T).astype(np.int64)
        return self.select(mask[rows, columns])


# Largest deviation of the length of a descriptor from 1; half precision is within 0.001.
_LENGTH_TOLERANCE = 0.01
# Largest distance of a keypoint from the image, pixels: refinement may move one at the border.
_OUTSIDE_PX = 1.0


def check_features(features: Any, shape: tuple[int, ...], name: str) -> Features:
    """Check what an extractor returned, because wrong features are lost without a word.

    Args:
        features: what it returned.
        shape: height and width of the image, pixels.
        name: name of the extractor.

    Returns:
        The same features.

    Raises:
        ExtractorError: they are no `Features`, positions or descriptors are not finite, positions
            are outside the image, or descriptors are neither packed bits nor floats of unit length.
    """
    if not isinstance(features, Features):
        raise _wrong(name, f"{type(features).__name__}: expected spslam.frame.Features")
    _check_positions(features.keypoints, shape, name)
    _check_descriptors(features.descriptors, name)
    return features


def _check_positions(keypoints: NDArray[np.float32], shape: tuple[int, ...], name: str) -> None:
    _check_finite(keypoints, "positions", name)
    last = np.array(shape[1::-1]) - 1
    outside = np.any((keypoints < -_OUTSIDE_PX) | (keypoints > last + _OUTSIDE_PX), axis=1)
    if outside.any():
        x, y = keypoints[outside][0]
        raise _wrong(
            name,
            f"positions outside the image of {shape[1]}x{shape[0]} pixels, such as x {x:.1f}, "
            f"y {y:.1f}: {np.count_nonzero(outside)} of {counted(len(keypoints), 'keypoint')}",
        )


def _check_descriptors(descriptors: NDArray[np.float32] | NDArray[np.uint8], name: str) -> None:
    if descriptors.ndim == 2 and descriptors.dtype == np.uint8:
        return
    if descriptors.ndim != 2 or descriptors.dtype.kind != "f":
        raise _wrong(
            name,
            f"descriptors {descriptors.shape} {descriptors.dtype}: expected (N, D) floats of unit "
            "length or (N, B) uint8 packed bits",
        )
    _check_finite(descriptors, "descriptors", name)
    if len(descriptors):
        # Descriptors of a flat patch may be 0: they match nothing.
        usual = float(np.median(np.sqrt(np.einsum("nd,nd->n", descriptors, descriptors))))
        if abs(usual - 1.0) > _LENGTH_TOLERANCE:
            wrong = f"descriptors of length {usual:.3g} (median)"
            raise _wrong(name, f"{wrong}: expected 1 (divide each by its length)")


def _check_finite(values: NDArray[np.generic], what: str, name: str) -> None:
    # The sum is finite only if all values are; this is faster than a test of each.
    if not np.isfinite(values.sum(dtype=np.float64)):
        bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        some = f"{bad} of {counted(len(values), 'keypoint')}"
        raise _wrong(name, f"{what} that are not finite: {some}")


def _wrong(name: str, what: str) -> ExtractorError:
    return ExtractorError(f"the extractor {name} returned {what}")


@dataclass(frozen=True, eq=False)
class KeypointView:
    """Keypoints of one image, to be matched with another image from any viewpoint.

    Attributes:
        pixels: (N, 2) pixels; NaN for points that the image does not show.
        descriptors: (N, D) unit vectors, float32 or the half precision of the map.
        size: width and height of the image, pixels.
    """

    pixels: NDArray[np.float32] | NDArray[np.float64]
    descriptors: NDArray[np.float32] | NDArray[np.float16]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.pixels)


def are_sigmas(values: NDArray[np.floating]) -> bool:
    """Whether all values (N,) can be relative standard deviations of positions."""
    least, largest = SIGMA_RANGE
    return bool(((values >= least) & (values <= largest)).all())


def unit_descriptors(descriptors: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert descriptors of any kind to unit vectors (N, D) float32.

    Bits become ±1/√D, so the cosine of two binary descriptors is `1 - 2·hamming/D`. The map and the
    matching then handle one kind of descriptor only.
    """
    if descriptors.dtype != np.uint8:
        return np.ascontiguousarray(descriptors, dtype=np.float32)
    bits = np.unpackbits(descriptors.astype(np.uint8, copy=False), axis=1).astype(np.float32)
    return (2.0 * bits - 1.0) / np.float32(np.sqrt(max(bits.shape[1], 1)))


@dataclass(frozen=True, eq=False)
class Observations:
    """The features of one frame for tracking and mapping: undistorted, with depth where known.

    Attributes:
        index: position of the frame in its sequence.
        timestamp: seconds.
        pixels: (N, 2) float64, undistorted pixels.
        descriptors: (N, D) float32 unit vectors.
        scores: (N,) float32.
        relative_sigma: (N,) float32, standard deviation of each position, divided by the
            extractor's `pixel_sigma`.
        u_right: (N,) float64, x of the same point in the rectified right image, pixels (RGB-D: in a
            virtual right image); NaN where unknown.
        depth: (N,) float64, metres along z; NaN where unknown.
        delays: (N,) float64, seconds from the read-out of the middle row, to which the pose refers,
            to the read-out of the point (see `spslam.slam.preprocessing`); 0 for a global
            shutter.
        colors: uint8, of the image at the keypoints: red green blue (N, 3), or grey (N, 1); None
            if unknown.
    """

    index: int
    timestamp: float
    pixels: NDArray[np.float64]
    descriptors: NDArray[np.float32]
    scores: NDArray[np.float32]
    relative_sigma: NDArray[np.float32]
    u_right: NDArray[np.float64]
    depth: NDArray[np.float64]
    delays: NDArray[np.float64]
    colors: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Observations:
        """The observations of the keypoints at `index` ((N,) bool or (M,) int64)."""
        return Observations(
            index=self.index,
            timestamp=self.timestamp,
            pixels=self.pixels[index],
            descriptors=self.descriptors[index],
            scores=self.scores[index],
            relative_sigma=self.relative_sigma[index],
            u_right=self.u_right[index],
            depth=self.depth[index],
            delays=self.delays[index],
            colors=None if self.colors is None else self.colors[index],
        )


def colors_at(frame: Frame, keypoints: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours (N, 3) uint8, or grey values (N, 1), of a frame at keypoints (N, 2) of its image."""
    if frame.color is not None:
        return frame.color.at(keypoints)
    column, row = _nearest(keypoints, frame.image.shape)
    return frame.image[row, column, None]


def rows_at(frame: Frame, keypoints: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows (N,) of the recorded image that show keypoints (N, 2) of a frame's image."""
    if frame.recorded_rows is None:
        return keypoints[:, 1]
    column, row = _nearest(keypoints, frame.image.shape)
    return frame.recorded_rows[row, column]


def _nearest(
    pixels: NDArray[np.floating], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows (N,) of the pixels of an image (H, W, ...) nearest to pixels (N, 2)."""
    last = np.array([shape[1] - 1, shape[0] - 1])
    nearest = np.clip(np.rint(np.nan_to_num(pixels)), 0, last).astype(np.int64)
    return nearest[:, 0], nearest[:, 1]


@dataclass(frozen=True, eq=False)
class FrameAssociations:
    """The keypoints of one frame and their map points, for viewers.

    Attributes:
        pixels: (N, 2) float64, undistorted pixels of the keypoints.
        point_ids: (N,) int64, id of each keypoint's map point; negative without a map point.
    """

    pixels: NDArray[np.float64]
    point_ids: NDArray[np.int64]
