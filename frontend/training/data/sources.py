"""Sources of training images: augmented shapes, photographs, pairs; reproducible by seed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ...superpoint.superpoint import CELL, SuperPoint, detector_probabilities
from ..config import DataConfig, DistillationConfig
from ..losses.detector_losses import splat_points
from .homography import sample_homographies, valid_mask, warp_images
from .labelled_photos import LabelledPhotos
from .photometric import augment
from .reading import Batch, Reader
from .shapes.cache import ShapeDataset
from .views import (
    RIM_PX,
    PaddedLabels,
    chosen_points,
    grey_images,
    image_size,
    single_view,
    two_views,
    unlabelled_view,
)


class Source(Protocol):
    """Source of batches: images are read on the CPU and augmented on the network's device."""

    @property
    def reader(self) -> Reader:
        """Reader of the images."""

    def augment(self, read: Batch, generator: torch.Generator) -> Batch:
        """Return a block of a batch: the images with random changes, on the generator's device."""


class ShapeSource:
    """Synthetic shapes, augmented, with their corners as labels.

    They are not warped: they are drawn in all poses already, and warping would blur them.
    """

    def __init__(self, shapes: ShapeDataset, data: DataConfig) -> None:
        self.reader, self._data = shapes, data

    def augment(self, read: Batch, generator: torch.Generator) -> Batch:
        """Return images with their labels; see `Source`."""
        images, labels = (
            grey_images(read, generator.device),
            PaddedLabels.of(read, generator.device),
        )
        label_map = splat_points(
            labels.points, labels.mass, labels.exist, image_size(images), self._data.subpixel
        )
        image = augment(images, self._data.photometric, generator)
        valid = torch.ones_like(label_map, dtype=torch.bool)
        batch = {"image": image, "label_map": label_map, "valid": valid}
        return batch | chosen_points(
            labels.points, labels.mass, labels.exist, self._data.points, generator
        )


class PhotoSource:
    """Labelled photographs: one warped view of each, or two with their correspondences.

    Args:
        photos: photographs with labels.
        data: sizes, warps, augmentation.
        pairs: whether to make two views.
    """

    def __init__(self, photos: LabelledPhotos, data: DataConfig, pairs: bool) -> None:
        self.reader, self._data, self._pairs = photos, data, pairs

    def augment(self, read: Batch, generator: torch.Generator) -> Batch:
        """Return views with their labels; see `Source`."""
        images, labels = (
            grey_images(read, generator.device),
            PaddedLabels.of(read, generator.device),
        )
        make_views = two_views if self._pairs else single_view
        return make_views(images, labels, self._data, generator)


class TeacherSource:
    """Photographs with the predictions of a larger network, the teacher.

    The teacher sees the student's view and further warps of it; its probabilities are averaged over
    them.

    Args:
        photos: photographs; labels are not used.
        data: sizes, warps, augmentation.
        teacher: network in evaluation mode.
        settings: number of warps, and the view that the teacher sees.
    """

    def __init__(
        self,
        photos: LabelledPhotos,
        data: DataConfig,
        teacher: SuperPoint,
        settings: DistillationConfig,
    ) -> None:
        self.reader, self._data, self._settings = photos, data, settings
        self._teacher: SuperPoint = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def augment(self, read: Batch, generator: torch.Generator) -> Batch:
        """Return views with the teacher's predictions; see `Source`."""
        clear, valid = unlabelled_view(grey_images(read, generator.device), self._data, generator)
        shown = augment(clear, self._data.photometric, generator)
        view = (shown if self._settings.same_view else clear).to(memory_format=torch.channels_last)
        size = self._data.size
        logits, descriptors = self._teacher(view)
        heat = detector_probabilities(logits.float())
        seen = torch.ones_like(heat)
        for _ in range(self._settings.warps - 1):
            further = sample_homographies(len(view), size, self._data.homography, generator)
            other = detector_probabilities(
                self._teacher.detector_logits(warp_images(view, further)).float()
            )
            back = torch.linalg.inv(further)
            mask = (
                warp_images(valid_mask(further, size, erosion=RIM_PX).float()[:, None], back)[:, 0]
                > 0.99
            )
            heat = heat + warp_images(other[:, None], back)[:, 0] * mask
            seen = seen + mask
        return {
            "image": shown,
            "valid": valid,
            "teacher_probabilities": _classes(heat / seen),
            "teacher_descriptors": descriptors.float(),
        }


def _classes(heat: Tensor) -> Tensor:
    """Convert keypoint probabilities (B, H, W) to (B, 65, H/8, W/8); the dustbin gets the rest."""
    cells = torch.nn.functional.pixel_unshuffle(heat[:, None], CELL)
    total = cells.sum(dim=1, keepdim=True)
    cells = cells / total.clamp(min=1)
    return torch.cat([cells, (1 - total).clamp(min=0)], dim=1)


@torch.no_grad()
def augmented_views(read: Batch, data: DataConfig, generator: torch.Generator) -> Tensor:
    """Return warped and augmented views (B, 1, H, W) of images from a reader, without labels."""
    images = grey_images(read, generator.device)
    return augment(unlabelled_view(images, data, generator)[0], data.photometric, generator)
