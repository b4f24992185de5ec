"""Refinement of labels to image corners, and the strength of these corners."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Sigma of the Gaussian blur before gradients, pixels.
_BLUR_PX = 0.8
# Sigma of the Gaussian weights around the corner, pixels.
_SIGMA_PX = 2.0
# Radius of the patch around a keypoint, pixels.
_RADIUS = 6
# Weight of the pull towards the given position, relative to the gradients.
_SPRING = 0.1
# Largest move of a keypoint, pixels.
_MOVE_PX = 4.0
# Iterations; the weights follow the corner.
_ITERATIONS = 4
# Sigma of the Gaussian blur before the corner strength, pixels.
_STRENGTH_BLUR_PX = 1.5
# Side of the window of the corner strength, pixels.
_STRENGTH_WINDOW = 5
# Quantile of an image's eigenvalues that gives strength 1.
_STRONG_QUANTILE = 0.75


def settle_on_corners(
    image: NDArray[np.uint8], keypoints: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move keypoints (N, 2) to the nearby corner that the image gradients point to.

    The corner minimises the weighted squared distances to the lines through the pixels,
    perpendicular to their gradients (Förstner & Gülch, A fast operator for detection and precise
    location of distinct points, corners and centres of circular features, 1987). A spring, in
    proportion to the gradients, pulls towards the given position. It keeps points on edges in
    place, where the corner is undetermined.

    Args:
        image: (H, W) uint8.
        keypoints: (N, 2) x y, pixels.

    Returns:
        (N, 2); points that would leave the image or move too far keep their position.
    """
    if not len(keypoints):
        return keypoints
    height, width = image.shape
    start = keypoints.astype(np.float64)
    base = np.rint(start)
    steps = np.arange(-_RADIUS, _RADIUS + 1)
    y = np.clip(base[:, 1, None].astype(np.int64) + steps, 0, height - 1)[:, :, None]
    x = np.clip(base[:, 0, None].astype(np.int64) + steps, 0, width - 1)[:, None, :]
    smooth = cv2.GaussianBlur(image, (0, 0), _BLUR_PX)
    gradient_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)[y, x]
    gradient_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)[y, x]
    tensors = (gradient_x * gradient_x, gradient_x * gradient_y, gradient_y * gradient_y)
    offset = start - base
    refined = offset
    for _ in range(_ITERATIONS):
        moved = _corner(tensors, refined, offset, steps)
        distance = np.linalg.norm(moved - offset, axis=1, keepdims=True)
        refined = np.where(distance <= _MOVE_PX, moved, offset)
    corner = base + refined
    inside = np.all((corner >= 0) & (corner <= np.array([width, height]) - 1), axis=1)
    return np.where(inside[:, None], corner, start).astype(np.float32)


def corner_strength(
    image: NDArray[np.uint8], keypoints: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return how well the gradients localise keypoints (N, 2): 0 on flat areas and edges, to 1.

    The strength is the smaller eigenvalue of the structure tensor: the inverse variance of a
    corner's position in the less certain direction, under image noise (Shi & Tomasi, Good features
    to track, 1994). It is relative to the image's upper quartile, so a quarter of the keypoints
    have strength 1.

    Args:
        image: (H, W) uint8.
        keypoints: (N, 2) x y, pixels.
    """
    if not len(keypoints):
        return np.zeros(0, np.float32)
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _STRENGTH_BLUR_PX)
    eigenvalue = cv2.cornerMinEigenVal(smooth, _STRENGTH_WINDOW)
    columns, rows = np.rint(keypoints).astype(np.int64).T
    found = eigenvalue[
        np.clip(rows, 0, image.shape[0] - 1), np.clip(columns, 0, image.shape[1] - 1)
    ]
    strong = max(float(np.quantile(found, _STRONG_QUANTILE)), 1e-9)
    strength: NDArray[np.float32] = np.clip(found / np.float32(strong), 0, 1).astype(np.float32)
    return strength


def _corner(
    tensors: tuple[NDArray[np.float32], ...],
    centre: NDArray[np.float64],
    spring: NDArray[np.float64],
    steps: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Solve once for corners (N, 2) in patches of gradient products, weighted around `centre`."""
    # The Gaussian is separable: compute the sums of w, w·x and w·y together.
    weight = np.exp(-0.5 * ((steps - centre[:, :, None]) / _SIGMA_PX) ** 2)
    moments = np.stack([weight, weight * steps], axis=2).astype(np.float32)
    over_x, over_y = moments[:, 0].transpose(0, 2, 1), moments[:, 1]
    xx, xy, yy = ((over_y @ tensor @ over_x).astype(np.float64) for tensor in tensors)
    stiffness = 0.5 * _SPRING * (xx[:, 0, 0] + yy[:, 0, 0]) + 1e-6
    a, b, c = xx[:, 0, 0] + stiffness, xy[:, 0, 0], yy[:, 0, 0] + stiffness
    right_x = xx[:, 0, 1] + xy[:, 1, 0] + stiffness * spring[:, 0]
    right_y = xy[:, 0, 1] + yy[:, 1, 0] + stiffness * spring[:, 1]
    solution = np.stack([c * right_x - b * right_y, a * right_y - b * right_x], axis=1)
    solution /= (a * c - b * b)[:, None]
    return solution
