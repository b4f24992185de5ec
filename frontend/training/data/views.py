"""Views of images: warped, cropped, augmented, with their visible labels."""

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

# Invalid margin at the edge of a warped image, pixels: interpolation mixes in black there.
RIM_PX = 2


@dataclass
class PaddedLabels:
    """Labels of a batch: points (B, P, 2), masses (B, P) and which points exist (B, P)."""

    points: Tensor
    mass: Tensor
    exist: Tensor

    @staticmethod
    def of(read: Batch, device: torch.device) -> PaddedLabels:
        """Return the labels of a `Reader` on a device."""
        return PaddedLabels(*(read[key].to(device) for key in ("points", "mass", "exist")))


@dataclass
class _View:
    """Augmented view with its labels: points (B, P, 2) and which are visible (B, P)."""

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
    """Return a warped and augmented view of each image, with its labels.

    Args:
        images: (B, 1, H, W) in [0, 1].
        labels: labels of the images.
        data: sizes, warps, augmentation.
        generator: random numbers.
    """
    homographies = sample_homographies(len(images), image_size(images), data.homography, generator)
    homographies = _crops(len(images), image_size(images), data.size, generator) @ homographies
    view = _view(images, labels, homographies, data, generator)
    batch = {"image": view.image, "label_map": view.label_map, "valid": view.valid}
    return batch | chosen_points(view.points, labels.mass, view.seen, data.points, generator)


def two_views(
    images: Tensor, labels: PaddedLabels, data: DataConfig, generator: torch.Generator
) -> Batch:
    """Return two warped and augmented views of each image, with common points and the homography.

    For the arguments, see `single_view`.
    """
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
    """Return homographies (B, 3, 3) that crop a random area of `size` from source images."""
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
    """Return `count` random visible points of each image, for the point losses.

    Args:
        points: (B, P, 2) x y, pixels.
        mass: (B, P).
        seen: (B, P) bool, which points are visible.
        count: points to choose per image.
        generator: random numbers.

    Returns:
        `points` (B, count, 2), `points_mass` (B, count) and `points_valid` (B, count): which are
        visible.
    """
    chosen, exist = _choose(seen, count, generator)
    return {
        "points": torch.gather(points, 1, chosen[..., None].expand(-1, -1, 2)),
        "points_mass": torch.gather(mass, 1, chosen),
        "points_valid": exist,
    }


def _choose(seen: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return indices (B, count) of random points, visible ones first, and which are visible."""
    key = torch.rand(seen.shape, generator=generator, device=seen.device) + seen
    if key.shape[1] < count:
        key = torch.nn.functional.pad(key, (0, count - key.shape[1]))
        seen = torch.nn.functional.pad(seen, (0, count - seen.shape[1]))
    chosen = key.topk(count, dim=1).indices
    exist = torch.gather(seen, 1, chosen)
    return chosen * exist, exist


def image_size(images: Tensor) -> tuple[int, int]:
    """Return height and width of images (B, C, H, W)."""
    return images.shape[2], images.shape[3]


def grey_images(read: Batch, device: torch.device) -> Tensor:
    """Return the images (B, 1, H, W) in [0, 1] of a `Reader` on a device."""
    return read["images"].to(device)[:, None].float() / 255


def unlabelled_view(
    images: Tensor, data: DataConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return warped views (B, 1, H, W) without photometric changes, and valid pixels (B, H, W)."""
    homographies = sample_homographies(len(images), image_size(images), data.homography, generator)
    homographies = _crops(len(images), image_size(images), data.size, generator) @ homographies
    valid = valid_mask(homographies, image_size(images), data.size, erosion=RIM_PX)
    return warp_images(images, homographies, data.size), valid
