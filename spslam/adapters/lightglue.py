"""Extractors with the interface of LightGlue's: in place of `lightglue.SuperPoint`.

Interface: cvg/LightGlue, `lightglue/utils.py`, class Extractor. Published LightGlue weights for
SuperPoint belong to Magic Leap's network: they do not fit spslam's descriptors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from spslam.adapters.torch_module import FrontEnd, batch_of_one, single
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError

# Modes of the resizing.
_MODES = ("bilinear", "bicubic", "area", "nearest")


class SuperPoint(FrontEnd):
    """An extractor of spslam for LightGlue and `match_pair`.

    Args:
        config: settings of the extractor; None: the defaults.
        **conf: further settings by their names in `FeatureConfig` or LightGlue's names
            (`max_num_keypoints`, `detection_threshold`, `remove_borders`).

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """

    default_conf: ClassVar[dict[str, Any]] = {}
    # As in LightGlue, but images keep their size unless `resize` is given.
    preprocess_conf: ClassVar[dict[str, Any]] = {
        "resize": None,
        "side": "long",
        "interpolation": "bilinear",
        "antialias": True,
    }
    required_data_keys: ClassVar[list[str]] = ["image"]

    def __init__(self, config: FeatureConfig | None = None, **conf: Any) -> None:
        super().__init__({**self.default_conf, **conf}, config)
        self.conf = SimpleNamespace(**self._config.model_dump())

    @torch.no_grad()
    def forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Extract features.

        Args:
            data: `image` (1, C, H, W) with 1 or 3 channels, red first, from 0 to 1.

        Returns:
            `keypoints` (1, N, 2) x y in pixels, (0, 0) at the centre of the first pixel;
            `keypoint_scores` (1, N), best first; `descriptors` (1, N, D) of unit length; all
            float32 on the device of the image.

        Raises:
            FrameError: there is no image, or more than one, or it has impossible values.
        """
        if "image" not in data:
            raise FrameError(f"data: expected the key image, found {', '.join(data) or 'no key'}")
        image = data["image"]
        found = self.features(single(image))
        return {
            "keypoints": batch_of_one(found.keypoints, image),
            "keypoint_scores": batch_of_one(found.scores, image),
            "descriptors": batch_of_one(found.descriptors, image),
        }

    @torch.no_grad()
    def extract(self, img: Tensor, **conf: Any) -> dict[str, Tensor]:
        """Extract features of an image that may be resized first.

        Args:
            img: (C, H, W) or (1, C, H, W).
            **conf: replaces `preprocess_conf`: `resize` is the length of a `side` (long, short,
                vert or horz) or (height, width), pixels; `interpolation`; `antialias`.

        Returns:
            As `forward`, with keypoints in pixels of the original image, and its `image_size`
            (1, 2), width and height.

        Raises:
            ConfigError: an option is unknown or impossible.
            FrameError: the image has an impossible type, size or value.
        """
        options = {**self.preprocess_conf, **conf}
        unknown = set(options) - set(self.preprocess_conf)
        if unknown:
            raise ConfigError(
                f"extract: unknown option {', '.join(sorted(unknown))}, expected one of "
                f"{', '.join(self.preprocess_conf)}"
            )
        image = single(img)
        height, width = image.shape[-2:]
        resized = image if options["resize"] is None else _resized(image, **options)
        found = self.forward({"image": resized[None]})
        size = torch.tensor([[width, height]], dtype=torch.float32, device=img.device)
        if resized is not image:
            scale = size / torch.tensor(resized.shape[:-3:-1], device=img.device)
            found["keypoints"] = (found["keypoints"] + 0.5) * scale[:, None] - 0.5
        found["image_size"] = size
        return found


def _resized(
    image: Tensor, resize: int | tuple[int, int], side: str, interpolation: str, antialias: bool
) -> Tensor:
    """Resize an image (C, H, W)."""
    if interpolation not in _MODES:
        raise ConfigError(f"interpolation: expected one of {_MODES}, found {interpolation!r}")
    size = _new_size(image.shape[-2:], resize, side)
    # PyTorch filters these two modes only.
    filtered = interpolation in ("bilinear", "bicubic")
    pixels = image.float() if image.is_floating_point() else image.float() / 255
    shrunk = functional.interpolate(
        pixels[None],
        size,
        mode=interpolation,
        align_corners=False if filtered else None,
        antialias=antialias and filtered,
    )
    # Bicubic interpolation overshoots, but errors of the caller must still be found.
    low, high = pixels.aminmax()
    return shrunk[0].clamp(low, high)


def _new_size(shape: tuple[int, ...], resize: int | tuple[int, int], side: str) -> tuple[int, int]:
    """Return the height and width of a resized image, rounded down as in LightGlue."""
    height, width = shape
    lengths = {
        "long": max(height, width),
        "short": min(height, width),
        "vert": height,
        "horz": width,
    }
    if side not in lengths:
        raise ConfigError(f"side: expected one of {', '.join(lengths)}, found {side!r}")
    if isinstance(resize, int):
        size = height * resize // lengths[side], width * resize // lengths[side]
    else:
        size = int(resize[0]), int(resize[1])
    if min(size) < 1:
        raise ConfigError(f"resize: expected at least one pixel, found {size} from {resize}")
    return size
