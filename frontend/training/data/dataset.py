"""What the stages see: batches of augmented shapes, photographs and pairs of views, the same for the same seed.

A batch is made of blocks of `optimizer.block` images. A block depends on the seed, the step and its number only,
so that it does not matter how many processes share the blocks of a step, nor where training is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spslam.errors import DatasetError

from ...photos import fit_image, read_photo
from ...superpoint.superpoint import CELL, SuperPoint, detector_probabilities
from ..config import DataConfig, DistillationConfig, TrainingConfig
from ..losses.detector_losses import splat_points
from .corners import corner_strength, settle_on_corners
from .homography import identity_homographies, sample_homographies, valid_mask, warp_images, warp_points
from .labels import Labels, label_path, read_labels
from .photometric import augment
from .shapes.cache import ShapeDataset

Batch = dict[str, Tensor]
# Interpolation at the rim of what a warp shows mixes in black.
_RIM_PX = 2


class Source(Protocol):
    """Where a stage's images come from."""

    def __len__(self) -> int:
        """Images there are."""

    def block(self, indices: NDArray[np.int64], generator: torch.Generator) -> Batch:
        """A part of a batch: these images, augmented by what the generator draws, on its device."""


def step_batch(
    source: Source, config: TrainingConfig, step: int, device: torch.device, rank: int = 0, processes: int = 1
) -> Batch:
    """The share of one step's batch that one of several processes works on.

    Args:
        source: of the images.
        config: seed, size of the batch and of its blocks.
        step: number of the step.
        device: where the batch is made.
        rank, processes: this process among them; each takes as many blocks.
    """
    block = config.optimizer.block
    blocks = config.optimizer.batch // block
    share = blocks // processes
    parts = []
    for number in range(rank * share, (rank + 1) * share):
        generator = torch.Generator(device).manual_seed(_seed(config.seed, step, number))
        first = (step * blocks + number) * block
        parts.append(source.block(_shuffled(len(source), first, block, config.seed), generator))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _shuffled(count: int, first: int, length: int, seed: int) -> NDArray[np.int64]:
    """Which images samples `first` to `first + length` are: every epoch shows all, in another order."""
    numbers = np.arange(first, first + length)
    orders = {
        int(epoch): np.random.default_rng([seed, int(epoch)]).permutation(count)
        for epoch in np.unique(numbers // count)
    }
    return np.array([orders[int(number // count)][number % count] for number in numbers], np.int64)


class ShapeSource:
    """Synthetic shapes, augmented, with their corners as labels.

    They are not warped: they are drawn in all poses, and warping would only blur them.
    """

    def __init__(self, shapes: ShapeDataset, config: TrainingConfig) -> None:
        self._shapes, self._data = shapes, config.data

    def __len__(self) -> int:
        return len(self._shapes)

    def block(self, indices: NDArray[np.int64], generator: torch.Generator) -> Batch:
        images = _to_batch(np.stack([self._shapes.images[index] for index in indices]), generator.device)
        corners = [self._shapes.corners(int(index)) for index in indices]
        labels = _pad_labels([(xy, np.ones(len(xy), np.float32)) for xy in corners], generator.device)
        label_map = splat_points(labels.points, labels.mass, labels.exist, _size(images), self._data.subpixel)
        image = augment(images, self._data.photometric, generator)
        valid = torch.ones_like(label_map, dtype=torch.bool)
        batch = {"image": image, "label_map": label_map, "valid": valid}
        return batch | _points(labels.points, labels.mass, labels.exist, self._data.points, generator)


class PhotoSource:
    """Labelled photographs: one warped view of each, or two with what corresponds.

    Args:
        photos: with their labels.
        data: sizes, warps, augmentation.
        pairs: two views.
    """

    def __init__(self, photos: LabelledPhotos, data: DataConfig, pairs: bool) -> None:
        self._photos, self._data, self._pairs = photos, data, pairs

    def __len__(self) -> int:
        return len(self._photos)

    def block(self, indices: NDArray[np.int64], generator: torch.Generator) -> Batch:
        images = _to_batch(self._photos.images(indices), generator.device)
        labels = self._photos.labels(indices)
        exponent = self._data.mass_exponent
        padded = _pad_labels([(label.keypoints, label.mass**exponent) for label in labels], generator.device)
        if self._pairs:
            return _two_views(images, padded, self._data, generator)
        return _single_view(images, padded, self._data, generator)


class TeacherSource:
    """Photographs with what a larger network says about them.

    The teacher sees the student's view, and again through further warps; its probabilities are averaged over them
    before the student learns them.

    Args:
        photos: labels are not used.
        data: sizes, warps, augmentation.
        teacher: in evaluation mode.
        settings: how often the teacher looks, and at what.
    """

    def __init__(
        self, photos: LabelledPhotos, data: DataConfig, teacher: SuperPoint, settings: DistillationConfig
    ) -> None:
        self._photos, self._data, self._settings = photos, data, settings
        self._teacher: SuperPoint = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __len__(self) -> int:
        return len(self._photos)

    @torch.no_grad()
    def block(self, indices: NDArray[np.int64], generator: torch.Generator) -> Batch:
        clear, valid = _unchanged_view(self._photos, self._data, indices, generator)
        shown = augment(clear, self._data.photometric, generator)
        view = (shown if self._settings.same_view else clear).to(memory_format=torch.channels_last)
        size = self._data.size
        logits, descriptors = self._teacher(view)
        heat = detector_probabilities(logits.float())
        seen = torch.ones_like(heat)
        for _ in range(self._settings.warps - 1):
            further = sample_homographies(len(view), size, self._data.homography, generator)
            other = detector_probabilities(self._teacher.detector_logits(warp_images(view, further)).float())
            back = torch.linalg.inv(further)
            mask = warp_images(valid_mask(further, size, erosion=_RIM_PX).float()[:, None], back)[:, 0] > 0.99
            heat = heat + warp_images(other[:, None], back)[:, 0] * mask
            seen = seen + mask
        return {
            "image": shown,
            "valid": valid,
            "teacher_probabilities": _classes(heat / seen),
            "teacher_descriptors": descriptors.float(),
        }


@torch.no_grad()
def augmented_views(
    photos: LabelledPhotos, data: DataConfig, indices: NDArray[np.int64], generator: torch.Generator
) -> Tensor:
    """Warped and augmented views (B, 1, H, W) of photographs; labels are not used."""
    return augment(_unchanged_view(photos, data, indices, generator)[0], data.photometric, generator)


def _unchanged_view(
    photos: LabelledPhotos, data: DataConfig, indices: NDArray[np.int64], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Warped views (B, 1, H, W) before the photometric changes, and which of their pixels (B, H, W) show the image."""
    images = _to_batch(photos.images(indices), generator.device)
    homographies = sample_homographies(len(images), _size(images), data.homography, generator)
    homographies = _crops(len(images), _size(images), data.size, generator) @ homographies
    valid = valid_mask(homographies, _size(images), data.size, erosion=_RIM_PX)
    return warp_images(images, homographies, data.size), valid


def _classes(heat: Tensor) -> Tensor:
    """Probabilities (B, 65, H/8, W/8) of probabilities (B, H, W) of key points; what is missing is the dustbin's."""
    cells = torch.nn.functional.pixel_unshuffle(heat[:, None], CELL)
    total = cells.sum(dim=1, keepdim=True)
    cells = cells / total.clamp(min=1)
    return torch.cat([cells, (1 - total).clamp(min=0)], dim=1)


@dataclass
class LabelledPhotos:
    """Photographs of one size and their labels.

    Args:
        paths: of the photographs.
        root: the folder that label files are named relative to.
        label_folder: of the labels; None: none are needed.
        size: height and width that photographs are fitted to.
        settle: labels move to the corner nearby. The detector that labels is out by a pixel and more; a corner of
            the undisturbed image is found again from another view within half a pixel (median, measured).
        strength_exponent: a label's mass is multiplied by this power of the strength of its corner: the network learns
            to rank points by how well they are found again at their place, too, not only by how often.
    """

    paths: list[Path]
    root: Path
    label_folder: Path | None
    size: tuple[int, int]
    settle: bool = False
    strength_exponent: float = 0.0

    def __post_init__(self) -> None:
        if self.label_folder is not None:
            folder = self.label_folder
            self.paths = [path for path in self.paths if label_path(folder, path, self.root).is_file()]
            if not self.paths:
                raise DatasetError(
                    f"expected labels of the photos of {self.root} in {folder}, found none: "
                    "make them with spslam train label"
                )
        # Photographs are small and seen many times; decoding them again would cost more than the warps.
        self._images: dict[int, NDArray[np.uint8]] = {}
        self._labels: dict[int, Labels] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Grey images (B, H, W) uint8."""
        return np.stack([self._image(int(index)) for index in indices])

    def labels(self, indices: NDArray[np.int64]) -> list[Labels]:
        """Labels of these images, pixels of the fitted image."""
        return [self._label(int(index)) for index in indices]

    def _image(self, index: int) -> NDArray[np.uint8]:
        if index not in self._images:
            self._images[index] = fit_image(read_photo(self.paths[index]), self.size)
        return self._images[index]

    def _label(self, index: int) -> Labels:
        if index not in self._labels:
            assert self.label_folder is not None
            labels = read_labels(label_path(self.label_folder, self.paths[index], self.root), self.size)
            if self.settle:
                labels = replace(labels, keypoints=settle_on_corners(self._image(index), labels.keypoints))
            if self.strength_exponent > 0:
                strength = corner_strength(self._image(index), labels.keypoints)
                labels = replace(labels, mass=labels.mass * strength**self.strength_exponent)
            self._labels[index] = labels
        return self._labels[index]


def _to_batch(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(images).to(device)[:, None].float() / 255


@dataclass
class _PaddedLabels:
    """Labels of a batch: points (B, P, 2), their mass (B, P) and which of them exist (B, P)."""

    points: Tensor
    mass: Tensor
    exist: Tensor


def _pad_labels(labels: list[tuple[NDArray[np.float32], NDArray[np.float32]]], device: torch.device) -> _PaddedLabels:
    longest = max(max(len(keypoints) for keypoints, _ in labels), 1)
    points = np.zeros((len(labels), longest, 2), np.float32)
    mass = np.zeros((len(labels), longest), np.float32)
    exist = np.zeros((len(labels), longest), np.bool_)
    for row, (keypoints, masses) in enumerate(labels):
        count = len(keypoints)
        points[row, :count], mass[row, :count], exist[row, :count] = keypoints, masses, True
    return _PaddedLabels(*(torch.from_numpy(array).to(device) for array in (points, mass, exist)))


@dataclass
class _View:
    """An augmented view with its labels: points (B, P, 2) and which of them are seen (B, P)."""

    image: Tensor
    valid: Tensor
    label_map: Tensor
    points: Tensor
    seen: Tensor


def _view(
    images: Tensor,
    labels: _PaddedLabels,
    homographies: Tensor,
    data: DataConfig,
    generator: torch.Generator,
) -> _View:
    size = height, width = data.size
    valid = valid_mask(homographies, _size(images), size, erosion=_RIM_PX)
    points = warp_points(labels.points, homographies).float()
    pixels = points.round().long()
    inside = (pixels >= 0).all(dim=-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height) & labels.exist
    index = pixels[..., 1].clamp(0, height - 1) * width + pixels[..., 0].clamp(0, width - 1)
    seen = inside & torch.gather(valid.flatten(1), 1, index)
    label_map = splat_points(points, labels.mass, inside, size, subpixel=data.subpixel)
    image = augment(warp_images(images, homographies, size), data.photometric, generator)
    return _View(image, valid, label_map, points, seen)


def _single_view(images: Tensor, labels: _PaddedLabels, data: DataConfig, generator: torch.Generator) -> Batch:
    homographies = sample_homographies(len(images), _size(images), data.homography, generator)
    homographies = _crops(len(images), _size(images), data.size, generator) @ homographies
    view = _view(images, labels, homographies, data, generator)
    batch = {"image": view.image, "label_map": view.label_map, "valid": view.valid}
    return batch | _points(view.points, labels.mass, view.seen, data.points, generator)


def _two_views(images: Tensor, labels: _PaddedLabels, data: DataConfig, generator: torch.Generator) -> Batch:
    count, size = len(images), _size(images)
    if data.warp_both:
        first = sample_homographies(count, size, data.homography, generator)
    else:
        first = identity_homographies(count, generator.device)
    second = sample_homographies(count, size, data.homography, generator)
    crops = _crops(count, size, data.size, generator)
    first, second = crops @ first, crops @ second
    views = [_view(images, labels, warps, data, generator) for warps in (first, second)]
    chosen, exist = _choose(views[0].seen & views[1].seen, data.points, generator)
    batch = {
        "homography": second @ torch.linalg.inv(first),
        "points_mass": torch.gather(labels.mass, 1, chosen),
        "points_valid": exist,
    }
    for number, view in enumerate(views):
        batch[f"image{number}"] = view.image
        batch[f"valid{number}"] = view.valid
        batch[f"label_map{number}"] = view.label_map
        batch[f"points{number}"] = torch.gather(view.points, 1, chosen[..., None].expand(-1, -1, 2))
    return batch


def _crops(count: int, source: tuple[int, int], size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Homographies (B, 3, 3) that cut a random part of `size` out of images of the size of the source."""
    room = torch.tensor([source[1] - size[1], source[0] - size[0]], dtype=torch.float64, device=generator.device)
    uniform = torch.rand((count, 2), generator=generator, dtype=torch.float64, device=generator.device)
    crops = identity_homographies(count, generator.device).clone()
    crops[:, :2, 2] = -(uniform * room).round()
    return crops


def _points(points: Tensor, mass: Tensor, seen: Tensor, count: int, generator: torch.Generator) -> Batch:
    chosen, exist = _choose(seen, count, generator)
    return {
        "points": torch.gather(points, 1, chosen[..., None].expand(-1, -1, 2)),
        "points_mass": torch.gather(mass, 1, chosen),
        "points_valid": exist,
    }


def _choose(seen: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices (B, count) of randomly chosen points that are seen, and which of them really are."""
    key = torch.rand(seen.shape, generator=generator, device=seen.device) + seen
    if key.shape[1] < count:
        key = torch.nn.functional.pad(key, (0, count - key.shape[1]))
        seen = torch.nn.functional.pad(seen, (0, count - seen.shape[1]))
    chosen = key.topk(count, dim=1).indices
    exist = torch.gather(seen, 1, chosen)
    return chosen * exist, exist


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
