"""Random homographies, and warps of images, masks and points.

A homography `(3, 3)` maps pixels of the source image to pixels of the warped image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..config import HomographyConfig

# Random scales and rotations tried before the patch keeps its own.
_TRIES = 8


def sample_homographies(
    count: int, size: tuple[int, int], config: HomographyConfig, generator: torch.Generator
) -> Tensor:
    """Return random homographies (B, 3, 3) float64, on the generator's device.

    A centred patch of the source is distorted by perspective, scaled, shifted and rotated, in this
    order. The homography stretches it to the whole warped image. The transformations are drawn from
    truncated normal distributions (DeTone et al., SuperPoint, 2018, section 5.2). All lengths are
    in pixels, so rotations are exact in images that are not square.

    Args:
        count: B.
        size: height and width of both images, pixels.
        config: amplitudes; with `allow_artifacts` the patch may leave the source.
        generator: random numbers.
    """
    height, width = size
    device = generator.device
    extent = torch.tensor([width, height], dtype=torch.float64, device=device)
    corners = torch.tensor(
        [[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]], dtype=torch.float64, device=device
    )
    centre = (extent - 1) / 2
    quad = (corners * extent * config.patch_ratio).expand(count, 4, 2)
    quad = quad + _perspective(quad, extent, config, generator)
    quad = _scale(quad, extent, config, generator)
    if config.translation:
        quad = quad + _translation(quad, extent, config, generator)
    quad = _rotate(quad, extent, config, generator)
    return _four_point(quad + centre, (corners * extent + centre).expand(count, 4, 2))


def identity_homographies(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return identities (B, 3, 3) float64."""
    return torch.eye(3, dtype=torch.float64, device=device).expand(count, 3, 3)


def warp_points(points: Tensor, homographies: Tensor) -> Tensor:
    """Map points (B, N, 2) x y by homographies (B, 3, 3); float64."""
    points = points.double()
    lifted = points @ homographies[:, :, :2].transpose(1, 2) + homographies[:, None, :, 2]
    # Map points on the horizon far away instead of to NaN.
    depth = lifted[..., 2:]
    depth = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
    return lifted[..., :2] / depth


def warp_images(
    images: Tensor, homographies: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """Warp images (B, C, H, W) by homographies (B, 3, 3), bilinear, black outside the source.

    Args:
        images: float images.
        homographies: from pixels of `images` to pixels of the result.
        size: height and width of the result, pixels; None: the size of the images.
    """
    height, width = images.shape[2:]
    source = _source_pixels(homographies, size or (height, width)).to(images.dtype)
    scale = source.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    return functional.grid_sample(images, source * scale - 1, mode="bilinear", align_corners=True)


def valid_mask(
    homographies: Tensor,
    source_size: tuple[int, int],
    size: tuple[int, int] | None = None,
    erosion: int = 0,
) -> Tensor:
    """Return which pixels (B, H, W) bool of the warped images show the source.

    Args:
        homographies: (B, 3, 3), from pixels of the source to pixels of the warped image.
        source_size: height and width of the source, pixels.
        size: height and width of the warped image, pixels; None: as the source.
        erosion: width of the border removed from the valid area, also at the image border, pixels.
    """
    size = size or source_size
    source = _source_pixels(homographies, size)
    x, y = source[..., 0], source[..., 1]
    # Only between the centres of the outermost pixels: beyond them, interpolation mixes in black.
    mask = (x >= 0) & (x <= source_size[1] - 1) & (y >= 0) & (y <= source_size[0] - 1)
    if erosion <= 0:
        return mask
    outside = functional.pad((~mask).float()[:, None], (erosion,) * 4, value=1.0)
    side = 2 * erosion + 1
    return (
        functional.max_pool2d(
            functional.max_pool2d(outside, (side, 1), stride=1), (1, side), stride=1
        )[:, 0]
        == 0
    )


def _source_pixels(homographies: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the source position of each pixel of the warped image, (B, H, W, 2)."""
    height, width = size
    inverse = torch.linalg.inv(homographies.double())
    # Scale the depth in the middle of the image to 1, so that single precision is exact enough.
    middle = inverse.new_tensor([(width - 1) / 2, (height - 1) / 2, 1.0])
    inverse = (inverse / (inverse[:, 2] @ middle)[:, None, None]).float()
    x = torch.arange(width, dtype=torch.float32, device=inverse.device)
    y = torch.arange(height, dtype=torch.float32, device=inverse.device)
    lifted = (
        inverse[:, None, None, :, 0] * x[None, None, :, None]
        + inverse[:, None, None, :, 1] * y[None, :, None, None]
        + inverse[:, None, None, :, 2]
    )
    depth = lifted[..., 2:]
    far = lifted.new_full((), 1e6)
    # Points beyond the horizon are invisible: move them far outside the source.
    return torch.where(depth > 1e-6, lifted[..., :2] / depth.clamp(min=1e-6), far)


def _truncated_normal(
    shape: tuple[int, ...], amplitude: float, generator: torch.Generator
) -> Tensor:
    """Draw values with standard deviation amplitude / 2, truncated at `amplitude`; float64."""
    low = math.erf(-math.sqrt(2))
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return torch.erfinv((2 * uniform - 1) * -low) * math.sqrt(2) * amplitude / 2


def _perspective(
    quad: Tensor, extent: Tensor, config: HomographyConfig, generator: torch.Generator
) -> Tensor:
    """Draw corner shifts (B, 4, 2): the left and right sides change their lengths and lean."""
    amplitude = config.perspective * config.patch_ratio
    if not config.allow_artifacts:
        amplitude = min(amplitude, (1 - config.patch_ratio) / 2)
    left, right, tilt = _truncated_normal((3, len(quad)), amplitude, generator)
    x = torch.stack([left, left, right, right], dim=1)
    y = torch.stack([tilt, -tilt, tilt, -tilt], dim=1)
    return torch.stack([x, y], dim=2) * extent


def _inside(quads: Tensor, extent: Tensor) -> Tensor:
    """Return which centred quads (..., 4, 2) lie inside the image of this extent, (...) bool."""
    return ((quads.abs() <= extent / 2).all(dim=-1)).all(dim=-1)


def _pick(candidates: Tensor, fallback: Tensor, extent: Tensor, config: HomographyConfig) -> Tensor:
    """Return the first allowed candidate of (B, T, 4, 2), or the fallback (B, 4, 2)."""
    if config.allow_artifacts:
        return candidates[:, 0]
    allowed = _inside(candidates, extent)
    first = allowed.int().argmax(dim=1)
    chosen = candidates[torch.arange(len(candidates), device=candidates.device), first]
    return torch.where(allowed.any(dim=1)[:, None, None], chosen, fallback)


def _scale(
    quad: Tensor, extent: Tensor, config: HomographyConfig, generator: torch.Generator
) -> Tensor:
    factors = 1 + _truncated_normal((len(quad), _TRIES), config.scale, generator)
    centre = quad.mean(dim=1, keepdim=True)
    candidates = (quad - centre)[:, None] * factors[:, :, None, None] + centre[:, None]
    return _pick(candidates, quad, extent, config)


def _translation(
    quad: Tensor, extent: Tensor, config: HomographyConfig, generator: torch.Generator
) -> Tensor:
    room_low = -extent / 2 - quad.amin(dim=1)
    room_high = extent / 2 - quad.amax(dim=1)
    if config.allow_artifacts:
        overlap = 0.1 * extent
        room_low, room_high = room_low - overlap, room_high + overlap
    uniform = torch.rand(
        (len(quad), 2), generator=generator, dtype=torch.float64, device=generator.device
    )
    shift = room_low + uniform * (room_high - room_low)
    # A patch larger than the image is not shifted.
    return torch.where(room_high > room_low, shift, torch.zeros_like(shift))[:, None]


def _rotate(
    quad: Tensor, extent: Tensor, config: HomographyConfig, generator: torch.Generator
) -> Tensor:
    uniform = torch.rand(
        (len(quad), _TRIES), generator=generator, dtype=torch.float64, device=generator.device
    )
    angles = (2 * uniform - 1) * math.radians(config.rotation_deg)
    # Later tries have smaller angles, so that one of them nearly always fits.
    if not config.allow_artifacts:
        angles = angles * torch.linspace(1, 0.1, _TRIES, dtype=torch.float64, device=angles.device)
    cos, sin = torch.cos(angles), torch.sin(angles)
    rotation = torch.stack([cos, -sin, sin, cos], dim=-1).reshape(*angles.shape, 2, 2)
    centre = quad.mean(dim=1, keepdim=True)
    candidates = torch.einsum("btij,bnj->btni", rotation, quad - centre) + centre[:, None]
    return _pick(candidates, quad, extent, config)


def _four_point(source: Tensor, target: Tensor) -> Tensor:
    """Return homographies (B, 3, 3) that map four points (B, 4, 2) to four others.

    Source: Hartley & Zisserman, Multiple view geometry, 2nd edition, section 4.1, last entry fixed
        to 1.
    """
    x, y = source[..., 0], source[..., 1]
    u, v = target[..., 0], target[..., 1]
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    system = torch.cat([rows_u, rows_v], dim=1)
    solution = torch.linalg.solve(system, torch.cat([u, v], dim=1)[..., None])[..., 0]
    return functional.pad(solution, (0, 1), value=1.0).reshape(-1, 3, 3)
