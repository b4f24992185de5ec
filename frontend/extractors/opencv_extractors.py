"""ORB and RootSIFT with OpenCV; keypoints are spread over the image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import ConfigError
from spslam.frame import Features
from spslam.interfaces import Extractor

from ..images import check_image
from ..superpoint.decoder import first_at_each_pixel, spread_top_k

# Candidates for each keypoint; the even spread chooses among them.
_ORB_CANDIDATES = 4
# Number of corners that no image has.
_ORB_ALL = 10_000_000
# Scale between levels of the image pyramid, and number of levels.
_ORB_SCALE = 1.2
_ORB_LEVELS = 8
# Least difference of a corner from the pixels around it, grey levels.
_ORB_FAST_THRESHOLD = 10
# Margin without keypoints, pixels: half the rotated patch of a descriptor. OpenCV's default is 31.
_ORB_EDGE = 19
# Standard deviation of a position on the finest level, pixels, and its exponent over the levels'
# scales. Reprojection errors after bundle adjustment grow with the scale to the power of 1 on a
# rendered world, of about 0.5 on KITTI and EuRoC.
_ORB_SIGMA, _ORB_SIGMA_EXPONENT = 0.7, 0.7
# The same for SIFT in units of its `pixel_sigma`, for a diameter of 2 pixels and over diameters.
_SIFT_SIGMA, _SIFT_SIGMA_EXPONENT = 0.8, 0.4
# Least width and height of an image, pixels; smaller images are too small for the pyramid.
_ORB_LEAST_SIDE = 2 * _ORB_EDGE


class _OpenCvExtractor(Extractor):
    """The base of the OpenCV extractors: detect, drop duplicates and the border, spread, describe.

    Raises:
        ConfigError: weights are given, which these extractors do not use.
    """

    # Fraction of the keypoints that are spread evenly; the best scores are the rest.
    _spread_fraction = 0.5

    def __init__(self, config: FeatureConfig) -> None:
        if config.weights is not None:
            raise ConfigError(
                f"{self.name} is not a network and takes no weights: "
                f"remove features.weights {config.weights}"
            )
        self._config = config

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Extract the features of a grey (H, W) uint8 image of any size."""
        return self._extract(image, None)

    def extract_inside(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Features:
        """Extract up to `max_keypoints` features where a mask (H, W) is True."""
        return self._extract(image, mask)

    def _extract(self, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> Features:
        height, width = check_image(image)
        found = self._detect(image, None if mask is None else mask.astype(np.uint8))
        pixels = self._positions(found, image.shape)
        scores = np.array([keypoint.response for keypoint in found], np.float32)
        border = self._config.border
        inside = np.all(
            (pixels >= border) & (pixels <= np.array([width, height]) - 1 - border), axis=1
        )
        candidates = np.flatnonzero(inside)
        if mask is not None:
            columns, rows = np.rint(pixels[candidates].T).astype(np.int64)
            candidates = candidates[mask[rows, columns]]
        candidates = candidates[first_at_each_pixel(pixels[candidates], scores[candidates])]
        kept = candidates[
            spread_top_k(
                pixels[candidates],
                scores[candidates],
                self._config.max_keypoints,
                self._config.spread_cell,
                self._spread_fraction,
            )
        ]
        for rank, index in enumerate(kept):
            found[index].class_id = rank
        # OpenCV may drop points and sort them by octave; `class_id` keeps their ranks.
        described, descriptors = self._describe(image, [found[index] for index in kept])
        ranks = np.array([keypoint.class_id for keypoint in described], np.int64)
        order = np.argsort(ranks)
        index = kept[ranks[order]]
        sigma = self._relative_sigma([found[row] for row in index])
        return Features(pixels[index], scores[index], descriptors[order], sigma)

    def describe(
        self, image: NDArray[np.uint8], keypoints: NDArray[np.float32]
    ) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Compute the descriptors (N, D) of keypoints that `extract` finds in the same image.

        A descriptor needs the scale and the orientation of its keypoint, which a position lacks:
        they are found by detecting again.

        Raises:
            ConfigError: a position is not one of a keypoint of this extractor.
        """
        check_image(image)
        wanted = np.asarray(keypoints, np.float32).reshape(-1, 2)
        found = self._detect_all(image)
        scores = np.array([keypoint.response for keypoint in found], np.float32)
        rows = _rows_at(wanted, self._positions(found, image.shape), scores)
        given = [_ranked(found[row], rank) for rank, row in enumerate(rows) if row >= 0]
        described, descriptors = self._describe(image, given)
        if len(described) < len(wanted):
            missing = len(wanted) - len(described)
            raise ConfigError(
                f"extractor {self.name} describes only keypoints that it finds in the same image, "
                f"found {missing} (of {len(wanted)}) others: their positions lack the scale and "
                "orientation that its descriptors need; use superpoint, or OpenCV's own class"
            )
        ranks = np.array([keypoint.class_id for keypoint in described], np.int64)
        return descriptors[np.argsort(ranks)]

    @abstractmethod
    def _detect(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None
    ) -> list[cv2.KeyPoint]: ...

    def _detect_all(self, image: NDArray[np.uint8]) -> list[cv2.KeyPoint]:
        """Detect at least the keypoints that `_detect` finds with any mask."""
        return self._detect(image, None)

    def _positions(
        self, found: Sequence[cv2.KeyPoint], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Return the positions (N, 2) x y of keypoints of an image of this shape, pixels."""
        return np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)

    @abstractmethod
    def _relative_sigma(self, found: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
        """Return the standard deviations (N,) of positions, in units of `pixel_sigma`."""

    @abstractmethod
    def _describe(
        self, image: NDArray[np.uint8], keypoints: list[cv2.KeyPoint]
    ) -> tuple[Sequence[cv2.KeyPoint], NDArray[np.float32] | NDArray[np.uint8]]: ...


class OrbExtractor(_OpenCvExtractor):
    """ORB (Rublee et al., ICCV 2011), with descriptors of 256 packed bits.

    `subpixel` has no effect: refined points would lie off the patches that describe them.
    """

    name = "orb"
    # L2 distance of unit descriptors; equals 58 of 256 different bits.
    max_descriptor_distance = 0.95
    pixel_sigma = 1.0
    # Harris scores grow with the fourth power of the contrast: the best of them crowd on the object
    # with the most contrast.
    _spread_fraction = 1.0

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__(config)
        self._orb = _orb(_ORB_CANDIDATES * config.max_keypoints)

    def _detect(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None
    ) -> list[cv2.KeyPoint]:
        return list(self._orb.detect(image, mask)) if min(image.shape) >= _ORB_LEAST_SIDE else []

    def _detect_all(self, image: NDArray[np.uint8]) -> list[cv2.KeyPoint]:
        # A mask leaves room for weaker corners than those that are found without one.
        every = _orb(_ORB_ALL)
        return list(every.detect(image, None)) if min(image.shape) >= _ORB_LEAST_SIDE else []

    def _positions(
        self, found: Sequence[cv2.KeyPoint], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        # OpenCV only multiplies a level's positions by its nominal scale. The level has a whole
        # number of pixels, though, and its border is aligned with the image's
        # (findings/opencv_orb_coarse_levels_off.sh).
        nominal = _orb_scales(found)[:, None]
        size = np.array([shape[1], shape[0]], np.float64)
        scales = size / np.rint(size / nominal)
        on_level = super()._positions(found, shape) / nominal
        pixels: NDArray[np.float64] = (on_level + 0.5) * scales - 0.5
        return pixels.astype(np.float32)

    def _relative_sigma(self, found: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
        sigma = _ORB_SIGMA * _orb_scales(found) ** _ORB_SIGMA_EXPONENT
        return (sigma / self.pixel_sigma).astype(np.float32)

    def _describe(
        self, image: NDArray[np.uint8], keypoints: list[cv2.KeyPoint]
    ) -> tuple[Sequence[cv2.KeyPoint], NDArray[np.uint8]]:
        described, descriptors = self._orb.compute(image, keypoints) if keypoints else ([], None)
        if descriptors is None:
            return [], np.zeros((0, 32), np.uint8)
        return described, np.asarray(descriptors, np.uint8)


class SiftExtractor(_OpenCvExtractor):
    """RootSIFT, with descriptors of 128 numbers.

    SIFT (Lowe, IJCV 2004), compared by the Hellinger kernel (Arandjelović & Zisserman, CVPR 2012).
    """

    name = "sift"
    max_descriptor_distance = 0.6
    pixel_sigma = 0.6

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__(config)
        # Without the precise upscaling, every position is off by a quarter pixel.
        self._sift = cv2.SIFT.create(contrastThreshold=0.01, enable_precise_upscale=True)

    def _detect(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None
    ) -> list[cv2.KeyPoint]:
        return list(self._sift.detect(image, mask))

    def _relative_sigma(self, found: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
        diameters = np.array([keypoint.size for keypoint in found], np.float64)
        return (_SIFT_SIGMA * (0.5 * diameters) ** _SIFT_SIGMA_EXPONENT).astype(np.float32)

    def _describe(
        self, image: NDArray[np.uint8], keypoints: list[cv2.KeyPoint]
    ) -> tuple[Sequence[cv2.KeyPoint], NDArray[np.float32]]:
        described, descriptors = self._sift.compute(image, keypoints) if keypoints else ([], None)
        if descriptors is None:
            return [], np.zeros((0, 128), np.float32)
        descriptors = np.asarray(descriptors, np.float32)
        fractions = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-12)
        return described, np.sqrt(fractions)


def _orb(count: int) -> cv2.ORB:
    """Return a detector of at most `count` corners."""
    return cv2.ORB.create(
        nfeatures=count,
        scaleFactor=_ORB_SCALE,
        nlevels=_ORB_LEVELS,
        fastThreshold=_ORB_FAST_THRESHOLD,
        edgeThreshold=_ORB_EDGE,
    )


def _orb_scales(found: Sequence[cv2.KeyPoint]) -> NDArray[np.float64]:
    """Return the scale (N,) of each keypoint's level."""
    scales: NDArray[np.float64] = _ORB_SCALE ** np.array(
        [keypoint.octave for keypoint in found], np.float64
    )
    return scales


def _rows_at(
    wanted: NDArray[np.float32], positions: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the row of the keypoint at each wanted position (N, 2), -1 without one.

    Of several at one position, it is the first with the best score, as `first_at_each_pixel` keeps.
    """
    best = np.argsort(-scores, kind="stable")
    # Later entries of a dict win.
    known = {tuple(positions[row].tolist()): row for row in best[::-1].tolist()}
    return np.array([known.get(tuple(xy), -1) for xy in wanted.tolist()], np.int64)


def _ranked(keypoint: cv2.KeyPoint, rank: int) -> cv2.KeyPoint:
    """Copy a keypoint, with a rank as its `class_id`."""
    x, y = keypoint.pt
    size, angle, response = keypoint.size, keypoint.angle, keypoint.response
    return cv2.KeyPoint(x, y, size, angle, response, keypoint.octave, rank)
