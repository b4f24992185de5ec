"""Random changes of brightness, sharpness and noise, for a batch on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..config import PhotometricConfig


def augment(images: Tensor, config: PhotometricConfig, generator: torch.Generator) -> Tensor:
    """Change images (B, 1, H, W) in [0, 1], each with its own random effects.

    The order follows the imaging process: light (shadow, contrast, brightness), lens (blur), sensor
    (noise, speckle).

    Args:
        images: float, on any device; random numbers are drawn on the generator's device.
        config: largest strengths and the probability of each effect.
        generator: random numbers.
    """
    draw = _Draw(len(images), config.chance, images, generator)
    images = _shade(images, config, draw)
    mean = images.mean(dim=(2, 3), keepdim=True)
    low, high = config.contrast
    # Uniform in the logarithm: halving is as likely as doubling.
    factor = torch.exp(draw.uniform(math.log(low), math.log(high)) * draw.chosen())
    images = (images - mean) * factor + mean
    images = images + draw.uniform(-config.brightness, config.brightness) * draw.chosen()
    images = _blur(images.clamp(0, 1), config, draw)
    images = images + draw.normal(images.shape) * (
        draw.uniform(0, config.noise_sigma) * draw.chosen()
    )
    images = _speckle(images, config, draw)
    return images.clamp(0, 1)


class _Draw:
    """Random numbers, one per image of a batch, of shape (B, 1, 1, 1)."""

    def __init__(self, count: int, chance: float, like: Tensor, generator: torch.Generator) -> None:
        self.count, self.chance, self.like, self.generator = count, chance, like, generator

    def uniform(self, low: float, high: float, shape: tuple[int, ...] | None = None) -> Tensor:
        size = (self.count, 1, 1, 1) if shape is None else shape
        values = torch.rand(size, generator=self.generator, device=self.generator.device)
        return (low + values * (high - low)).to(self.like)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(
            self.like
        )

    def chosen(self) -> Tensor:
        """Return 1 for images that get the effect, 0 for the others."""
        return (self.uniform(0, 1) < self.chance).to(self.like)


def _shade(images: Tensor, config: PhotometricConfig, draw: _Draw) -> Tensor:
    """Add a soft elliptic shadow, or a light if the strength is negative."""
    height, width = images.shape[2:]
    centre_x, centre_y = draw.uniform(0, width), draw.uniform(0, height)
    radius_x, radius_y = (draw.uniform(0.15, 0.6) * max(height, width) for _ in range(2))
    angle = draw.uniform(0, math.pi)
    x = torch.arange(width, device=images.device, dtype=images.dtype) - centre_x
    y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None] - centre_y
    along, across = (
        torch.cos(angle) * x + torch.sin(angle) * y,
        torch.cos(angle) * y - torch.sin(angle) * x,
    )
    falloff = torch.exp(-((along / radius_x) ** 2 + (across / radius_y) ** 2))
    strength = draw.uniform(-0.5 * config.shade, config.shade) * draw.chosen()
    return images * (1 - strength * falloff)


def _blur(images: Tensor, config: PhotometricConfig, draw: _Draw) -> Tensor:
    """Apply Gaussian and motion blur as one kernel per image."""
    radius = max(config.motion_blur_px // 2, math.ceil(2 * config.blur_sigma), 1)
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    x, y = steps[None, None, None, :], steps[None, None, :, None]
    sigma = (draw.uniform(0.1, max(config.blur_sigma, 0.1)) * draw.chosen()).clamp(min=1e-3)
    length = draw.uniform(0, max(config.motion_blur_px - 1, 0) / 2) * draw.chosen()
    angle = draw.uniform(0, math.pi)
    along, across = (
        torch.cos(angle) * x + torch.sin(angle) * y,
        torch.cos(angle) * y - torch.sin(angle) * x,
    )
    beyond = (along.abs() - length).clamp(min=0)
    # Distance to the motion path; half a pixel is the least width of a motion kernel.
    width = torch.maximum(sigma, torch.where(length > 0.3, torch.full_like(sigma, 0.45), sigma))
    kernel = torch.exp(-0.5 * (across**2 + beyond**2) / width**2)
    kernel = kernel / kernel.sum(dim=(2, 3), keepdim=True)
    padded = functional.pad(images, (radius,) * 4, mode="reflect")
    return functional.conv2d(padded.transpose(0, 1), kernel, groups=len(images)).transpose(0, 1)


def _speckle(images: Tensor, config: PhotometricConfig, draw: _Draw) -> Tensor:
    fraction = draw.uniform(0, config.speckle) * draw.chosen()
    where = draw.uniform(0, 1, tuple(images.shape))
    images = torch.where(where < fraction / 2, torch.zeros_like(images), images)
    return torch.where(where > 1 - fraction / 2, torch.ones_like(images), images)
