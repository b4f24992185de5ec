"""Views of images: warped, cut out, augmented, with the labels that they show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import DataConfig
from ..losses.detector_losses import splat_points
from .homography import (
    identity_homographies,
    sample_homographies,
    valid_mask,
    warp_images,
    warp_points,
)
from .photometric import augment
from .reading import Batch

# Margin, pixels, at the edge of what a warp shows: interpolation mixes in black there.
RIM_PX = 2


@dataclass
class PaddedLabels:
    """Labels of a batch: points (B, P, 2), their mass (B, P) and which of them exist (B, P)."""

    points: Tensor
    mass: Tensor
    exist: Tensor

    @staticmethod
    def of(read: Batch, device: torch.device) -> PaddedLabels:
        """The labels that a `Reader` gives, on a device."""
        return PaddedLabels(*(read[key].to(device) for key in ("points", "mass", "exist")))


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
    labels: PaddedLabels,
    homographies: Tensor,
    data: DataConfig,
    generator: torch.Generator,
) -> _View:
    size = height, width = data.size
    valid = valid_mask(homographies, image_size(images), size, erosion=RIM_PX)
    points = warp_points(labels.points, homographies).float()
    pixels = points.round().long()
    inside = (
        (pixels >= 0).all(dim=-1)
        & (pixels[..., 0] < width)
        & (pixels[..., 1] < height)
        & labels.exist
    )
    index = pixels[..., 1].clamp(0, height - 1) * width + pixels[..., 0].clamp(0, width - 1)
    seen = inside & torch.gather(valid.flatten(1), 1, index)
    label_map = splat_points(points, labels.mass, inside, size, subpixel=data.subpixel)
    image = augment(warp_images(images, homographies, size), data.photometric, generator)
    return _View(image, valid, label_map, points, seen)


def single_view(
    images: Tensor, labels: PaddedLabels, data: DataConfig, generator: torch.Generator
) -> Batch:
    homographies = sample_homographies(len(images), image_size(images), data.homography, generator)
    homographies = _crops(len(images), image_size(images), data.size, generator) @ homographies
    view = _view(images, labels, homographies, data, generator)
    batch = {"image": view.image, "label_map": view.label_map, "valid": view.valid}
    return batch | chosen_points(view.points, labels.mass, view.seen, data.points, generator)


def two_views(
    images: Tensor, labels: PaddedLabels, data: DataConfig, generator: torch.Generator
) -> Batch:
    count, size = len(images), image_size(images)
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


def _crops(
    count: int, source: tuple[int, int], size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Homographies (B, 3, 3) that cut a random part of `size` out of images of the size of the source."""
    room = torch.tensor(
        [source[1] - size[1], source[0] - size[0]], dtype=torch.float64, device=generator.device
    )
    uniform = torch.rand(
        (count, 2), generator=generator, dtype=torch.float64, device=generator.device
    )
    crops = identity_homographies(count, generator.device).clone()
    crops[:, :2, 2] = -(uniform * room).round()
    return crops


def chosen_points(
    points: Tensor, mass: Tensor, seen: Tensor, count: int, generator: torch.Generator
) -> Batch:
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


def image_size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def grey_images(read: Batch, device: torch.device) -> Tensor:
    """The images (B, 1, H, W), 0 to 1, that a `Reader` gives, on a device."""
    return read["images"].to(device)[:, None].float() / 255


def unlabelled_view(
    images: Tensor, data: DataConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Warped views (B, 1, H, W) before the photometric changes, and which of their pixels (B, H, W) show the image."""
    homographies = sample_homographies(len(images), image_size(images), data.homography, generator)
    homographies = _crops(len(images), image_size(images), data.size, generator) @ homographies
    valid = valid_mask(homographies, image_size(images), data.size, erosion=RIM_PX)
    return warp_images(images, homographies, data.size), valid
