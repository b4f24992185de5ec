"""The codebook of place recognition, from what an extractor finds in images."""

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
    """A codebook of what an extractor finds in images; a few hundred of them are enough.

    Args:
        extractor: binary descriptors are clustered as `unit_descriptors`.
        images: (H, W) uint8 grey each, of any sizes; read once, one at a time.
        clusters, dimensions, iterations: see `learn_codebook`.
        seed: of the descriptors taken and of the first centres.
        per_image: descriptors taken from each image at most, at random.

    Raises:
        WeightsError: the images show too few key points for the clusters.
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
