"""A PyTorch module around an extractor, and conversions between tensors and arrays."""

from __future__ import annotations

import logging
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spslam.adapters.front_end import (
    boolean_mask,
    create_extractor,
    feature_config,
    grey_image,
)
from spslam.config import FeatureConfig
from spslam.errors import FrameError
from spslam.frame import Features, unit_descriptors
from spslam.interfaces import Extractor
from spslam.notices import notice

# Largest distance of a pixel from the range 0 to 1, for rounding in the caller.
_RANGE_TOLERANCE = 1e-3
_LOG = logging.getLogger(__name__)


class FrontEnd(nn.Module):
    """An extractor as a module: `.to(device)` moves its network, there are no parameters.

    The network is loaded again when the device changes from CPU to CUDA or back. On devices that
    spslam does not use, it stays on the CPU, and only tensors are moved.

    Args:
        settings: by their names in `FeatureConfig` or in the host program.
        config: values of the other settings; None: the defaults.

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """

    _place: Tensor

    def __init__(self, settings: Mapping[str, Any], config: FeatureConfig | None = None) -> None:
        super().__init__()
        self._config = feature_config(settings, config)
        self._extractor = create_extractor(self._config)
        # Its device is the one that the caller chose for the module.
        place = "cuda" if self._config.device == "cuda" else "cpu"
        self.register_buffer("_place", torch.zeros(0, device=place), persistent=False)
        self._loaded_for = place

    @property
    def identity(self) -> str:
        """See `spslam.interfaces.Extractor`."""
        return self._extractor.identity

    @property
    def max_keypoints(self) -> int:
        """The largest number of keypoints of an image."""
        return self._config.max_keypoints

    @property
    def pixel_sigma(self) -> float:
        """The standard deviation of a keypoint's position, pixels."""
        return self._config.pixel_sigma or self.extractor.pixel_sigma

    @property
    def extractor(self) -> Extractor:
        """The extractor on the module's device."""
        place = self._place.device.type
        if place != self._loaded_for:
            self._loaded_for = place
            if place in ("cpu", "cuda"):
                self._config = feature_config({"device": place}, self._config)
                self._extractor = create_extractor(self._config)
            else:
                text = "spslam runs the network on cpu or cuda: it stays on %s, not %s"
                notice(_LOG, "device", text, self._config.device, place)
        return self._extractor

    def features(self, image: Tensor, mask: Tensor | None = None) -> Features:
        """Extract features with unit descriptors.

        Args:
            image: (C, H, W) with 1 or 3 channels, red first, floats from 0 to 1 or uint8.
            mask: (1, H, W) or (H, W), 0 where no keypoints may be.

        Raises:
            FrameError: the image or mask has an impossible type, size or value.
        """
        grey = grey_of(image)
        if mask is None:
            found = self.extractor.extract(grey)
        else:
            allowed = boolean_mask((mask != 0).cpu().numpy().reshape(mask.shape[-2:]), grey.shape)
            found = self.extractor.extract_inside(grey, allowed)
        return replace(found, descriptors=unit_descriptors(found.descriptors))


class HostModel(nn.Module, metaclass=ABCMeta):
    """A stand-in for the `BaseModel` of hloc and glue-factory where they are not installed.

    Args:
        conf: replaces values of `default_conf`.
    """

    default_conf: ClassVar[dict[str, Any]] = {}
    required_inputs: ClassVar[list[str]] = []
    required_data_keys: ClassVar[list[str]] = []

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Check the data and process them."""
        for key in {*self.required_inputs, *self.required_data_keys}:
            if key not in data:
                raise FrameError(f"data: expected the key {key}, found {', '.join(data)}")
        return self._forward(data)

    @abstractmethod
    def _init(self, conf: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _forward(self, data: Mapping[str, Any]) -> dict[str, Any]: ...


def grey_of(image: Tensor) -> NDArray[np.uint8]:
    """Convert an image (C, H, W) with 1 or 3 channels, red first, to grey (H, W) uint8.

    Floats must lie between 0 and 1. They are rounded to the nearest of 256 levels: images that were
    read from files of 8 bits become exactly the same again.

    Raises:
        FrameError: the image has an impossible type, size or value.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise FrameError(
            f"image: expected (C, H, W) with 1 or 3 channels, found {tuple(image.shape)}"
        )
    pixels = image.detach()
    if pixels.is_floating_point():
        low, high = (float(value) for value in pixels.aminmax())
        # Not-a-numbers fail this comparison, too.
        if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
            raise FrameError(f"image: expected values from 0 to 1, found {low:g} to {high:g}")
        pixels = (pixels.float() * 255).round().clamp(0, 255).to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise FrameError(f"image: expected floats from 0 to 1 or uint8, found {pixels.dtype}")
    return grey_image(pixels.flip(0).permute(1, 2, 0).cpu().numpy())


def single(image: Tensor) -> Tensor:
    """Return the image (C, H, W) of a batch of one, or the image itself.

    Raises:
        FrameError: the batch has another size: images have different numbers of keypoints.
    """
    if image.ndim == 4 and len(image) == 1:
        return image[0]
    if image.ndim != 3:
        raise FrameError(
            f"image: expected (C, H, W) or a batch of one image, found {tuple(image.shape)}"
        )
    return image


def batch_of_one(array: NDArray[Any], like: Tensor) -> Tensor:
    """Convert an array to a tensor (1, …) float32 on the device of `like`."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None].to(like.device)
