"""Images and features for the tests of files of features."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from spslam.config import FeatureConfig
from spslam.features.files import ExtractionSettings
from spslam.features.h5 import FEATURES_FORMAT, StoredFeatures, write_features_file

# A front end that starts at once, and settings of one process.
ORB = FeatureConfig(extractor="orb", max_keypoints=200)
ALONE = ExtractionSettings(ORB, workers=1)


def texture(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A picture with many corners, (H, W) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 8, width // 8), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def write_images(folder: Path, count: int = 4) -> list[str]:
    """Write textures to a folder and a subfolder; return their names in natural order."""
    names = [f"{'front' if index % 2 else 'back'}/{index}.png" for index in range(count)]
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), texture(index))
    return sorted(names)


def random_features(seed: int, count: int = 40, dimension: int = 16) -> StoredFeatures:
    """Features at random places of an image of 640×480."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, dimension)).astype(np.float32)
    return StoredFeatures(
        rng.uniform(0, 470, (count, 2)).astype(np.float32),
        rng.uniform(size=count).astype(np.float32),
        descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        (640, 480),
        0.7,
    )


def write_random(path: Path, **images: StoredFeatures) -> Path:
    """Write a file of features by name; `__` in a name becomes `/`."""
    attributes = {"format": FEATURES_FORMAT, "max_descriptor_distance": 0.7}
    named = ((name.replace("__", "/"), features) for name, features in images.items())
    write_features_file(path, attributes, named, np.float32)
    return path
