"""Photographs of one size and their labels, as the training reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spslam.errors import DatasetError

from ...photos import fit_image, read_photo
from .bounded_cache import BoundedCache
from .corners import corner_strength, settle_on_corners
from .labels import Labels, label_path, read_labels
from .reading import Batch, padded_labels


@dataclass
class LabelledPhotos:
    """Photographs fitted to one size, and their labels.

    Args:
        paths: paths of the photographs.
        root: folder to which the names of label files are relative.
        label_folder: folder of the labels; None: without labels.
        size: height and width to which photographs are fitted, pixels.
        settle: move labels to the nearby corner of the undisturbed image, which is more precise
            than the labelling detector.
        strength_exponent: a label's mass is multiplied by this power of its corner's strength, so
            that the network learns to prefer well-localised points.
        mass_exponent: exponent of the masses that `read` returns.
        cache_bytes: most memory for decoded photographs, bytes.
    """

    paths: list[Path]
    root: Path
    label_folder: Path | None
    size: tuple[int, int]
    settle: bool = False
    strength_exponent: float = 0.0
    mass_exponent: float = 1.0
    cache_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.label_folder is not None:
            folder = self.label_folder
            self.paths = [
                path for path in self.paths if label_path(folder, path, self.root).is_file()
            ]
            if not self.paths:
                raise DatasetError(
                    f"expected labels of the photos of {self.root} in {folder}, found none: "
                    "make them with spslam train label"
                )
        # Decoding a photograph takes longer than warping it.
        self._images = BoundedCache[NDArray[np.uint8]](self.cache_bytes, _image_bytes)
        # Labels get a tenth of the photographs' memory; settling them takes time.
        self._labels = BoundedCache[Labels](self.cache_bytes // 10, _label_bytes)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """Return a batch as `Reader.read`; without a label folder only images."""
        batch = {"images": torch.from_numpy(self.images(indices))}
        if self.label_folder is None:
            return batch
        labels = [
            (label.keypoints, label.mass**self.mass_exponent) for label in self.labels(indices)
        ]
        return batch | padded_labels(labels)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return grey images (B, H, W) uint8."""
        return np.stack([self._image(int(index)) for index in indices])

    def labels(self, indices: NDArray[np.int64]) -> list[Labels]:
        """Return the labels of these images, in pixels of the fitted image."""
        return [self._label(int(index)) for index in indices]

    def _image(self, index: int) -> NDArray[np.uint8]:
        return self._images.get(index, lambda: fit_image(read_photo(self.paths[index]), self.size))

    def _label(self, index: int) -> Labels:
        return self._labels.get(index, lambda: self._read_labels(index))

    def _read_labels(self, index: int) -> Labels:
        assert self.label_folder is not None
        labels = read_labels(label_path(self.label_folder, self.paths[index], self.root), self.size)
        if self.settle:
            labels = replace(
                labels, keypoints=settle_on_corners(self._image(index), labels.keypoints)
            )
        if self.strength_exponent > 0:
            strength = corner_strength(self._image(index), labels.keypoints)
            labels = replace(labels, mass=labels.mass * strength**self.strength_exponent)
        return labels


def _image_bytes(image: NDArray[np.uint8]) -> int:
    return image.nbytes


def _label_bytes(labels: Labels) -> int:
    return labels.keypoints.nbytes + labels.mass.nbytes + labels.scores.nbytes
