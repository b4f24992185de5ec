"""What all adapters need: extractors from settings, and grey images from arrays."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from spslam.config import FeatureConfig
from spslam.config.loading import describe_errors
from spslam.errors import ConfigError, FrameError
from spslam.interfaces import Extractor

# Largest number of keypoints; other programs write 0, -1 or None for "all".
MOST_KEYPOINTS = 20000
# Radius of a keypoint, pixels: half the side of a cell of SuperPoint's descriptor map.
KEYPOINT_RADIUS = 4.0
# Settings of other programs and their names in `FeatureConfig`.
HOST_NAMES = {
    "nfeatures": "max_keypoints",
    "max_num_keypoints": "max_keypoints",
    "num_features": "max_keypoints",
    "keypoint_threshold": "threshold",
    "detection_threshold": "threshold",
    "remove_borders": "border",
}


def feature_config(
    settings: Mapping[str, Any],
    config: FeatureConfig | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> FeatureConfig:
    """Build the configuration of an adapter.

    Args:
        settings: values by their names in `FeatureConfig` or `HOST_NAMES`; a number of keypoints of
            0 or less, or None, means `MOST_KEYPOINTS`.
        config: values of the other settings; None: the defaults.
        fixed: values that the adapter sets by its own arguments; `settings` must not name them.

    Raises:
        ConfigError: a setting is unknown, given under two names, fixed or impossible.
    """
    fixed = fixed or {}
    values: dict[str, Any] = {}
    for given, value in settings.items():
        name = HOST_NAMES.get(given, given)
        if name in values:
            raise ConfigError(f"features.{name} is given twice, once as {given}: remove one")
        if name in fixed:
            raise ConfigError(f"{given} is no setting here: the adapter sets it by an argument")
        values[name] = value
    count = values.get("max_keypoints", 1)
    if count is None or (isinstance(count, Real) and count <= 0):
        values["max_keypoints"] = MOST_KEYPOINTS
    base = {} if config is None else config.model_dump()
    try:
        return FeatureConfig(**{**base, **values, **fixed})
    except ValidationError as error:
        raise ConfigError(f"settings of the extractor: {describe_errors(error)}") from None


def create_extractor(config: FeatureConfig) -> Extractor:
    """Create the extractor of a configuration; see `registry.create_extractor` for the errors."""
    from spslam.frontend.extractors import registry

    return registry.create_extractor(config)


def grey_image(pixels: object) -> NDArray[np.uint8]:
    """Convert an image to grey.

    Args:
        pixels: (H, W) or (H, W, 1, 3 or 4), blue first, uint8 or uint16, of any memory layout.

    Returns:
        (H, W) uint8.

    Raises:
        FrameError: this is not such an image, or it is empty.
    """
    from spslam.datasets.images.decoding import to_grey

    if not isinstance(pixels, np.ndarray) or pixels.size == 0:
        found = "no pixels" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise FrameError(f"image: expected an array (H, W) or (H, W, 3) of pixels, found {found}")
    return to_grey(pixels, "image")


def boolean_mask(mask: object, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Convert a mask, where 0 means no keypoints here, to bool.

    Args:
        mask: (H, W) or (H, W, 1), uint8 or bool.
        shape: (H, W) of the image.

    Raises:
        FrameError: the mask has another size or type.
    """
    found = type(mask).__name__
    if isinstance(mask, np.ndarray):
        found = f"{mask.dtype} {mask.shape}"
        if mask.dtype in (np.uint8, np.bool_) and mask.shape in (shape, (*shape, 1)):
            return np.asarray(mask.reshape(shape) != 0)
    raise FrameError(f"mask: expected uint8 of the image's size {shape}, found {found}")


def host_class(package: str, module: str, name: str, stand_in: type) -> Any:
    """Return a base class of another program, or a stand-in where it is not installed.

    Args:
        package: the program's package.
        module: the module of the class inside it.
        name: the class.
        stand_in: a class of the same shape.
    """
    try:
        return getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        # A program that is installed but lacks one of its own packages must not go unnoticed.
        if error.name is None or error.name.split(".")[0] != package:
            raise
        return stand_in
