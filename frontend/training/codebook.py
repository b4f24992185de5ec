"""Codebook of place recognition, learned from images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from spslam.codebook import CLUSTERS, DIMENSIONS, Codebook, learn_codebook
from spslam.frame import unit_descriptors
from spslam.interfaces import Extractor


def learn_codebook_from_images(
    extractor: Extractor,
    images: Iterable[NDArray[np.uint8]],
    clusters: int = CLUSTERS,
    dimensions: int = DIMENSIONS,
    seed: int = 0,
    iterations: int = 30,
    per_image: int = 300,
) -> Codebook:
    """Learn a codebook from the descriptors of images; a few hundred images are enough.

    Args:
        extractor: its descriptors are clustered; binary ones as `unit_descriptors`.
        images: (H, W) uint8 grey images of any size; read once, one at a time.
        clusters: see `learn_codebook`.
        dimensions: see `learn_codebook`.
        seed: seed for the choice of descriptors and of the first centres.
        iterations: see `learn_codebook`.
        per_image: most descriptors used of each image, chosen at random.

    Raises:
        WeightsError: the images have too few keypoints for the clusters.
    """
    rng = np.random.default_rng(seed)
    taken = [np.empty((0, 0), np.float32)]
    for image in images:
        descriptors = unit_descriptors(extractor.extract(image).descriptors)
        if len(descriptors):
            taken.append(descriptors[np.sort(rng.permutation(len(descriptors))[:per_image])])
    return learn_codebook(
        np.concatenate(taken[1:] or taken), clusters, dimensions, seed, iterations
    )
