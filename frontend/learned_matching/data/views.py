"""Views to train a matcher with: warped photographs, and views of rendered worlds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.interfaces import Extractor
from spslam.typing import FloatArray, UInt8Array

from ...extractors.registry import create_extractor
from ...photos import fit_image, name_seed, read_photo
from ...training.data.homography import (
    identity_homographies,
    sample_homographies,
    valid_mask,
    warp_images,
)
from ...training.data.photometric import augment
from .view_config import ViewConfig
from .view_store import View

# Rays closer to the plane of the camera than this depth, metres, show nothing.
_LEAST_DEPTH_M = 1e-6


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image with exact depth and pose.

    Attributes:
        image: (H, W) uint8.
        depth: (H, W) float32, along z, metres; 0 without a surface.
        T_world_cam: (4, 4) float64.
        camera_matrix: (3, 3) float64.
    """

    image: UInt8Array
    depth: NDArray[np.float32]
    T_world_cam: FloatArray
    camera_matrix: FloatArray


def view_extractor(config: ViewConfig) -> Extractor:
    """Return the extractor of the features of the views."""
    return create_extractor(
        FeatureConfig(
            weights=config.weights,
            max_keypoints=config.keypoints,
            spread_cell=config.spread_cell,
        )
    )


def photo_views(
    path: Path, extractor: Extractor, config: ViewConfig, seed: int, photometric: bool = True
) -> list[View]:
    """Warp a photograph and extract features of each view; the first view is the photograph.

    Args:
        path: the photograph; its name and the seed decide the warps.
        extractor: extracts the features.
        config: number, size and warps of the views.
        seed: seed of the warps and of the photometric changes.
        photometric: change brightness, sharpness and noise of each view.

    Raises:
        DatasetError: the photograph cannot be read.
    """
    generator = torch.Generator().manual_seed((name_seed(path) ^ seed) & (2**63 - 1))
    image = torch.from_numpy(fit_image(read_photo(path), config.size)).float() / 255
    warps = sample_homographies(config.per_group - 1, config.size, config.homography, generator)
    homographies = torch.cat([identity_homographies(1), warps])
    images = warp_images(image.expand(config.per_group, 1, *config.size), homographies)
    masks = valid_mask(homographies, config.size, erosion=config.erosion_px)
    if photometric:
        images = augment(images, config.photometric, generator)
    pixels = (images[:, 0] * 255).round().to(torch.uint8).numpy()
    views = []
    for shown, mask, homography in zip(pixels, masks.numpy(), homographies.numpy(), strict=True):
        features = extractor.extract_inside(shown, mask)
        keypoints = features.keypoints.astype(np.float64)
        lifted = np.c_[keypoints, np.ones(len(keypoints))] @ np.linalg.inv(homography).T
        places = np.c_[lifted[:, :2] / lifted[:, 2:], np.ones(len(keypoints))]
        views.append(View(features, places, np.c_[homography, np.zeros(3)]))
    return views


def posed_views(
    images: Sequence[PosedImage],
    extractor: Extractor,
    config: ViewConfig,
    seed: int,
    photometric: bool = True,
) -> list[View]:
    """Extract features of images with depth and pose; see `photo_views`."""
    generator = torch.Generator().manual_seed(seed)
    pixels = [image.image for image in images]
    if photometric and images:
        batch = torch.from_numpy(np.stack(pixels)).float()[:, None] / 255
        changed = augment(batch, config.photometric, generator)
        pixels = list((changed[:, 0] * 255).round().to(torch.uint8).numpy())
    views = []
    for posed, shown in zip(images, pixels, strict=True):
        features = extractor.extract(shown)
        projection = posed.camera_matrix @ np.linalg.inv(posed.T_world_cam)[:3]
        views.append(View(features, world_places(posed, features.keypoints), projection))
    return views


def world_places(posed: PosedImage, keypoints: NDArray[np.float32]) -> FloatArray:
    """Return the world points (N, 3) that keypoints (N, 2) show; NaN without a surface."""
    columns, rows = np.rint(keypoints.T).astype(np.int64)
    height, width = posed.depth.shape
    depth = posed.depth[rows.clip(0, height - 1), columns.clip(0, width - 1)].astype(np.float64)
    depth = np.where(depth > _LEAST_DEPTH_M, depth, np.nan)
    rays = np.c_[keypoints.astype(np.float64), np.ones(len(keypoints))]
    local = (rays @ np.linalg.inv(posed.camera_matrix).T) * depth[:, None]
    places: FloatArray = local @ posed.T_world_cam[:3, :3].T + posed.T_world_cam[:3, 3]
    return places
