"""ORB's positions on the coarse levels of its pyramid."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.datasets import open_sequence
from spslam.datasets.world.disturbed import disturb
from spslam.frontend.extractors.registry import create_extractor

# The rounded sizes of levels differ between these widths.
WIDTHS = (640, 417)


def blobs(width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.full((380, width), 90, np.uint8)
    for _ in range(300):
        corners = rng.integers(0, (width, 380)) + rng.integers(-50, 50, (4, 2))
        hull = cv2.convexHull(corners.astype(np.int32))
        cv2.fillConvexPoly(image, hull, int(rng.integers(0, 256)), cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 1.5)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_mirrored_image_has_mirrored_keypoints(width: int) -> None:
    image = blobs(width)
    extractor = create_extractor(FeatureConfig(extractor="orb", max_keypoints=3000))
    there = extractor.extract(image)
    back = extractor.extract(np.ascontiguousarray(image[:, ::-1])).keypoints
    back = np.array([width - 1, 0]) + back * np.array([-1, 1])
    assert there.relative_sigma is not None
    apart = np.linalg.norm(there.keypoints[:, None] - back, axis=2)
    nearest = apart.argmin(axis=1)
    levels = np.rint(np.log(there.relative_sigma / 0.7) / (0.7 * np.log(1.2))).astype(int)
    for level in range(8):
        same = (levels == level) & (apart.min(axis=1) < 2 * 1.2**level)
        assert np.count_nonzero(same) > 30
        off = there.keypoints[same, 0] - back[nearest[same], 0]
        assert abs(np.mean(off)) < 0.1, f"level {level}"


def test_keypoints_do_not_crowd_on_the_best_texture() -> None:
    disturbances = ["mover:fraction=0.4,speed=8,path=pass"]
    wall = open_sequence("demo-small", sensor="mono")[50].image
    image = disturb(open_sequence("demo-small", sensor="mono"), disturbances)[50].image
    box = cv2.absdiff(wall, image) > 2
    box = cv2.morphologyEx(box.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((15, 15))) > 0
    features = create_extractor(FeatureConfig(extractor="orb")).extract(image)
    x, y = np.rint(features.keypoints).astype(int).T
    # The best scores alone would have 0.72 of the keypoints there.
    assert np.mean(box) > 0.38 and np.mean(box[y, x]) < 0.6
