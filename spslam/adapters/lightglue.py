"""In place of `lightglue.SuperPoint` and `lightglue.LightGlue`: an extractor and a matcher.

Interface: cvg/LightGlue, `lightglue/utils.py`, class Extractor, and `lightglue/lightglue.py`,
class LightGlue. Published LightGlue weights for SuperPoint belong to Magic Leap's network: they do
not fit spslam's descriptors. `LightGlue` here runs a matcher of `spslam train matcher`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from spslam.adapters.torch_module import FrontEnd, batch_of_one, single
from spslam.config import FeatureConfig, MatchingConfig, describe_errors
from spslam.errors import ConfigError, FrameError
from spslam.frame import KeypointView
from spslam.interfaces import WideStage

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


class LightGlue(nn.Module):
    """A learned matcher of spslam with the interface of `lightglue.LightGlue`.

    Args:
        weights: file of `spslam train matcher`, or the name of built-in weights, such as
            `superpoint_lite`: the matcher of their features.
        extractor: the extractor whose features are matched, to check that the weights belong to
            it; None: no check.
        filter_threshold: least probability of a match.
        engine: auto, openvino, onnxruntime or torch.

    Raises:
        ConfigError: a setting is impossible.
        WeightsError: the weights cannot be used, or belong to another extractor.
        MissingDependencyError: the engine is not installed.
    """

    required_data_keys: ClassVar[list[str]] = ["image0", "image1"]

    def __init__(
        self,
        weights: str | Path,
        extractor: FrontEnd | None = None,
        filter_threshold: float = 0.1,
        engine: str = "auto",
    ) -> None:
        super().__init__()
        from spslam.frontend.learned_matching.card import check_belongs, read_weights
        from spslam.frontend.learned_matching.matcher import run_matcher

        try:
            config = MatchingConfig.model_validate(
                {"threshold": filter_threshold, "engine": engine}
            )
        except ValidationError as error:
            raise ConfigError(f"LightGlue: {describe_errors(error)}") from None
        matcher, card = read_weights(weights)
        if extractor is not None:
            check_belongs(card, extractor.identity, weights)
        self._matcher, self._layers = run_matcher(matcher, config), card.layers

    @torch.no_grad()
    def forward(self, data: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """Match the keypoints of two images.

        Args:
            data: `image0` and `image1`, each with `keypoints` (B, N, 2) pixels, `descriptors`
                (B, N, D) unit, and `image_size` (B, 2) width and height, or (2,) or (1, 2)
                where all images have one size, or `image` (B, C, H, W).

        Returns:
            `matches0` (B, N0) and `matches1` (B, N1), -1 without a match; `matching_scores0` and
            `matching_scores1`, their probabilities; lists of B `matches` (K, 2) and `scores` (K,);
            `stop`, `prune0` and `prune1`: all layers and points are used.

        Raises:
            FrameError: a key is missing, or shapes contradict each other.
            WeightsError: the descriptors have another length than the matcher's.
        """
        sides = [_views(data, key) for key in self.required_data_keys]
        if len(sides[0]) != len(sides[1]):
            raise FrameError(
                "data: expected image0 and image1 of as many images, found "
                f"{len(sides[0])} and {len(sides[1])}"
            )
        found = [self._match(view0, view1) for view0, view1 in zip(*sides, strict=True)]
        device = data["image0"]["keypoints"].device
        columns = [torch.stack([pair[k] for pair in found]).to(device) for k in range(4)]
        matches0, matches1, scores0, scores1 = columns
        rows = [torch.nonzero(index >= 0)[:, 0] for index in matches0]
        return {
            "matches0": matches0,
            "matches1": matches1,
            "matching_scores0": scores0,
            "matching_scores1": scores1,
            "stop": self._layers,
            "matches": [
                torch.stack([row, index[row]], dim=1)
                for row, index in zip(rows, matches0, strict=True)
            ],
            "scores": [score[row] for row, score in zip(rows, scores0, strict=True)],
            "prune0": torch.full_like(matches0, self._layers),
            "prune1": torch.full_like(matches1, self._layers),
        }

    def _match(
        self, view0: KeypointView, view1: KeypointView
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the matches of both sides and their probabilities."""
        matched = self._matcher.match_views(view0, view1, np.inf, stage=WideStage.FILES)
        probability = matched.probability
        if probability is None:
            # Fewer than two points: a nearest neighbour, with no probability.
            probability = (matched.matches0 >= 0).astype(np.float32)
        index1, scores1 = np.full(len(view1), -1, np.int64), np.zeros(len(view1), np.float32)
        rows = np.flatnonzero(matched.matches0 >= 0)
        index1[matched.matches0[rows]] = rows
        scores1[matched.matches0[rows]] = probability[rows]
        arrays = matched.matches0, index1, probability, scores1
        first, second, third, fourth = (torch.from_numpy(array) for array in arrays)
        return first, second, third, fourth


def _views(data: Mapping[str, Mapping[str, Tensor]], key: str) -> list[KeypointView]:
    """Return the keypoints of each image of a batch."""
    given = data.get(key, {})
    missing = {"keypoints", "descriptors"} - set(given)
    if missing or not {"image_size", "image"} & set(given):
        raise FrameError(
            f"data[{key!r}]: expected keypoints, descriptors, and image_size or image, found "
            f"{', '.join(given) or 'no key'}"
        )
    keypoints, descriptors = (
        given[name].detach().cpu().float().numpy() for name in ("keypoints", "descriptors")
    )
    if (
        keypoints.ndim != 3
        or keypoints.shape[2] != 2
        or descriptors.ndim != 3
        or descriptors.shape[:2] != keypoints.shape[:2]
    ):
        raise FrameError(
            f"data[{key!r}]: expected keypoints (B, N, 2) and descriptors (B, N, D), found "
            f"{keypoints.shape} and {descriptors.shape}"
        )
    return [
        KeypointView(pixels, unit, size)
        for pixels, unit, size in zip(
            keypoints, descriptors, _sizes(given, key, len(keypoints)), strict=True
        )
    ]


def _sizes(given: Mapping[str, Tensor], key: str, count: int) -> list[tuple[int, int]]:
    """Return width and height of each of `count` images; one size holds for all of them."""
    if "image_size" not in given:
        height, width = given["image"].shape[-2:]
        return [(width, height)] * count
    found = given["image_size"].detach().cpu()
    if found.shape not in ((2,), (1, 2), (count, 2)):
        raise FrameError(
            f"data[{key!r}]: expected image_size ({count}, 2), or (2,) for all images, found "
            f"{tuple(found.shape)}"
        )
    sizes = [(round(width), round(height)) for width, height in found.reshape(-1, 2).tolist()]
    return sizes if len(sizes) == count else sizes * count


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
