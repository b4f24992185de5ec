"""What a sensor gives (`Frame`), what a front end makes of it (`Features`), what tracking sees (`Observations`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera

Sensor = Literal["mono", "stereo", "rgbd"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of a sequence.

    Attributes:
        index: position in the sequence (0-based, before any stride).
        timestamp: seconds.
        camera: what `image` was taken with; for a stereo pair the rectified left camera with its baseline.
        image: (H, W) uint8, grey; the left image of a stereo pair (rectified).
        image_right: (H, W) uint8, grey, rectified; stereo only.
        depth: (H, W) float32, metres along z, registered to `image`; 0 where unknown; RGB-D only.
    """

    index: int
    timestamp: float
    camera: Camera
    image: NDArray[np.uint8]
    image_right: NDArray[np.uint8] | None = None
    depth: NDArray[np.float32] | None = None

    @property
    def sensor(self) -> Sensor:
        """What the frame carries."""
        if self.image_right is not None:
            return "stereo"
        return "mono" if self.depth is None else "rgbd"


@dataclass(frozen=True, eq=False)
class Features:
    """Key points of one image with their descriptors.

    Attributes:
        keypoints: (N, 2) float32, pixels (x, y) of the image as it was given (still distorted).
        scores: (N,) float32, higher is better.
        descriptors: (N, D) float32 of unit length, or (N, B) uint8 packed bits.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.keypoints)
        if (
            self.keypoints.shape != (n, 2)
            or self.scores.shape != (n,)
            or len(self.descriptors) != n
        ):
            raise ValueError(
                f"features disagree in length: keypoints {self.keypoints.shape}, "
                f"scores {self.scores.shape}, descriptors {self.descriptors.shape}"
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Features:
        """The features at `index` ((N,) bool or (M,) int64)."""
        return Features(self.keypoints[index], self.scores[index], self.descriptors[index])


def unit_descriptors(descriptors: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Descriptors as unit vectors, (N, D) float32, whatever their kind.

    Bits become ±1/√D, so that the cosine of two binary descriptors is `1 - 2·hamming/D`: from here on
    the map, matching and gates know one kind of descriptor only.
    """
    if descriptors.dtype != np.uint8:
        return np.ascontiguousarray(descriptors, dtype=np.float32)
    bits = np.unpackbits(descriptors.astype(np.uint8, copy=False), axis=1).astype(np.float32)
    return (2.0 * bits - 1.0) / np.float32(np.sqrt(max(bits.shape[1], 1)))


@dataclass(frozen=True, eq=False)
class Observations:
    """The features of one frame as tracking and mapping see them: undistorted, with depth where known.

    Attributes:
        index: index of the frame in its sequence.
        timestamp: seconds.
        pixels: (N, 2) float64, undistorted pixels.
        descriptors: (N, D) float32 unit vectors.
        scores: (N,) float32.
        u_right: (N,) float64, x of the same point in the rectified right image (for RGB-D: in a virtual
            one); NaN where unknown.
        depth: (N,) float64, metres along z; NaN where unknown.
        delays: (N,) float64, seconds from the moment that positions refer to, the read-out of the middle row, to the
            one when the point was seen (see `spslam.slam.rolling_shutter`); 0 with a global shutter.
    """

    index: int
    timestamp: float
    pixels: NDArray[np.float64]
    descriptors: NDArray[np.float32]
    scores: NDArray[np.float32]
    u_right: NDArray[np.float64]
    depth: NDArray[np.float64]
    delays: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pixels)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Observations:
        """The key points at `index` ((N,) bool or (M,) int64) alone."""
        return Observations(
            index=self.index,
            timestamp=self.timestamp,
            pixels=self.pixels[index],
            descriptors=self.descriptors[index],
            scores=self.scores[index],
            u_right=self.u_right[index],
            depth=self.depth[index],
            delays=self.delays[index],
        )


@dataclass(frozen=True, eq=False)
class Sighting:
    """What one frame showed, for those who look at a run.

    Attributes:
        pixels: (N, 2) float64, undistorted pixels of its key points.
        point_ids: (N,) int64, the map point that each sees, negative for none.
    """

    pixels: NDArray[np.float64]
    point_ids: NDArray[np.int64]
