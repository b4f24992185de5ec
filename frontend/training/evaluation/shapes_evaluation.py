"""Corner detection on synthetic shapes with known corners (DeTone et al., 2018, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.interfaces import Extractor
from spslam.typing import FloatArray, UInt8Array

from ...superpoint.keypoints import find_maxima
from ..data.shapes import PRIMITIVES
from ..data.shapes.cache import ShapeDataset, open_shapes
from .homography_metrics import NMS_RADIUS, average_precision, pairwise_distance, suppress_near

# Returns keypoints (N, 2) and scores (N,) of an image (H, W) uint8, best first.
Detector = Callable[[UInt8Array], tuple[NDArray[np.float32], NDArray[np.float32]]]

# Largest distance of a correct detection, pixels.
CORNER_PX = 4.0
# Height and width of the evaluation shapes, pixels.
SHAPES_SIZE = (120, 160)
# Seed of the evaluation shapes, unlike any training seed.
SHAPES_SEED = 987_654_321
# Most detections per image.
_MOST_DETECTIONS = 300
# Least difference of grey levels of a FAST corner.
_FAST_THRESHOLD = 5
# Largest shift of the brightness, grey levels of 255.
_BRIGHTNESS = 50.0
# Range of the contrast factor.
_CONTRAST = (0.4, 1.4)
# Range of the standard deviation of Gaussian noise, grey levels of 255.
_NOISE_SIGMA = (2.0, 15.0)
# Largest fraction of pixels set to black or white.
_SPECKLE_FRACTION = 0.0035
# Largest strength of an elliptic shadow or light.
_SHADE = 0.5
# Range of the sigma of the Gaussian blur, pixels.
_BLUR_SIGMA_PX = (0.1, 1.2)


class LabelledImages(Protocol):
    """Images with known corners, for example a `ShapeDataset`.

    Attributes:
        images: (N, H, W) uint8.
        primitives: (N,), index into the names of primitives.
    """

    images: NDArray[np.uint8]
    primitives: NDArray[np.uint8]

    def corners(self, index: int) -> NDArray[np.float32]:
        """Return the corners (n, 2) x y of one image, pixels."""
        ...


def evaluation_shapes(folder: Path, count: int = 540) -> ShapeDataset:
    """Return evaluation shapes (160×120 pixels), evenly split by primitive, cached in `folder`."""
    return open_shapes(folder, count, SHAPES_SIZE, SHAPES_SEED)


def detector_of(extractor: Extractor) -> Detector:
    """Return a detector of an extractor's keypoints after non-maximum suppression."""

    def detect(image: UInt8Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features = suppress_near(extractor.extract(image))
        return features.keypoints[:_MOST_DETECTIONS], features.scores[:_MOST_DETECTIONS]

    return detect


def detect_fast(image: UInt8Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Detect FAST corners (Rosten & Drummond, ECCV 2006)."""
    response = np.zeros(image.shape, np.float32)
    for keypoint in cv2.FastFeatureDetector.create(_FAST_THRESHOLD).detect(image, None):
        response[round(keypoint.pt[1]), round(keypoint.pt[0])] = keypoint.response
    return _maxima(response)


def detect_harris(image: UInt8Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Detect Harris corners (Harris & Stephens, Alvey Vision Conference 1988)."""
    return _maxima(np.asarray(cv2.cornerHarris(image, 3, 3, 0.04), np.float32))


def detect_shi_tomasi(image: UInt8Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Detect corners of Shi & Tomasi (Good features to track, CVPR 1994)."""
    return _maxima(np.asarray(cv2.cornerMinEigenVal(image, 3, ksize=3), np.float32))


# OpenCV detectors for comparison, by name.
OPENCV_DETECTORS: dict[str, Detector] = {
    "FAST": detect_fast,
    "Harris": detect_harris,
    "Shi-Tomasi": detect_shi_tomasi,
}


def evaluate_shapes(
    detect: Detector, shapes: LabelledImages, names: Sequence[str] = PRIMITIVES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compute average precision and localisation error of corners, `clean` and `noisy`.

    Each of the two holds `map` (mean over the primitives with corners), `ap` (over all images;
    detections on ellipses and noise are wrong), `mle_px` (mean distance of correct detections,
    pixels) and `primitives` (`ap` and `mle_px` of each primitive with corners).

    Args:
        detect: the detector; its best 300 points count.
        shapes: images with known corners.
        names: names of the primitives.
        seed: seed of the noise.
    """
    return {
        "clean": _evaluate(detect, shapes, names, None),
        "noisy": _evaluate(detect, shapes, names, seed),
    }


def shape_noise(rng: np.random.Generator, image: UInt8Array) -> UInt8Array:
    """Add random contrast, brightness, shadow, blur, noise and speckles to (H, W) uint8."""
    height, width = image.shape
    pixels = cv2.GaussianBlur(image, (0, 0), rng.uniform(*_BLUR_SIGMA_PX)).astype(np.float64)
    mean = pixels.mean()
    pixels = (
        (pixels - mean) * rng.uniform(*_CONTRAST) + mean + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    )
    y, x = np.mgrid[:height, :width]
    centre, radii = (
        rng.uniform(size=2) * [width, height],
        rng.uniform(0.1, 0.4, 2) * [width, height],
    )
    distance = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    pixels *= 1.0 + rng.uniform(-_SHADE, _SHADE) * np.exp(-0.5 * distance)
    pixels += rng.normal(0.0, rng.uniform(*_NOISE_SIGMA), image.shape)
    speckles = rng.uniform(size=image.shape) < rng.uniform(0.0, _SPECKLE_FRACTION)
    pixels[speckles] = rng.choice([0.0, 255.0], int(speckles.sum()))
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)


def detection_errors(keypoints: NDArray[np.float32], corners: NDArray[np.float32]) -> FloatArray:
    """Return the distance (N,), pixels, of each detection (N, 2) to its corner (M, 2).

    Detections are assigned greedily, best first, to the nearest free corner within 4 pixels;
    infinite without a corner.
    """
    errors = np.full(len(keypoints), np.inf)
    if not len(corners):
        return errors
    distance = pairwise_distance(keypoints, corners)
    for row in np.flatnonzero(distance.min(axis=1) <= CORNER_PX):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] <= CORNER_PX:
            errors[row] = distance[row, nearest]
            distance[:, nearest] = np.inf
    return errors


def _evaluate(
    detect: Detector, shapes: LabelledImages, names: Sequence[str], seed: int | None
) -> dict[str, Any]:
    errors: list[FloatArray] = []
    scores: list[NDArray[np.float32]] = []
    totals = np.zeros(len(shapes.images), np.int64)
    for index in range(len(shapes.images)):
        image = np.array(shapes.images[index])
        if seed is not None:
            image = shape_noise(np.random.default_rng([seed, index]), image)
        keypoints, found = detect(image)
        corners = shapes.corners(index)
        errors.append(detection_errors(keypoints, corners))
        scores.append(found)
        totals[index] = len(corners)

    def summary(chosen: NDArray[np.int64]) -> dict[str, float]:
        error = np.concatenate([errors[index] for index in chosen])
        order = np.argsort(-np.concatenate([scores[index] for index in chosen]), kind="stable")
        correct = np.isfinite(error)
        return {
            "ap": average_precision(correct[order], int(totals[chosen].sum())),
            "mle_px": float(error[correct].mean()) if correct.any() else float("nan"),
        }

    by_primitive: dict[str, dict[str, float]] = {}
    for primitive, name in enumerate(names):
        chosen = np.flatnonzero(shapes.primitives == primitive)
        if totals[chosen].sum():
            by_primitive[name] = summary(chosen)
    mean = (
        float(np.mean([row["ap"] for row in by_primitive.values()]))
        if by_primitive
        else float("nan")
    )
    return {"map": mean, **summary(np.arange(len(totals))), "primitives": by_primitive}


def _maxima(response: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = find_maxima(response, 0.0, NMS_RADIUS, 0)
    rows, columns = rows[:_MOST_DETECTIONS], columns[:_MOST_DETECTIONS]
    return np.stack([columns, rows], axis=1).astype(np.float32), response[rows, columns]
