"""The front end's settings as other programs give them: keyword arguments of plain values."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from spslam.config import FeatureConfig, describe_errors
from spslam.errors import ConfigError

# Settings that decide what an adapter is, which a host must not change.
_FIXED = ("extractor", "weights", "device")


def feature_config(
    weights: str | None, device: str, settings: dict[str, Any], **defaults: Any
) -> FeatureConfig:
    """Build the configuration of an adapter's SuperPoint extractor.

    Args:
        weights: a built-in name or a file; None: the default.
        device: `cpu`, `cuda` or `auto`.
        settings: settings by their names in `features.*`, for example `max_keypoints`.
        **defaults: settings of the adapter, which `settings` overrides.

    Raises:
        ConfigError: a setting is unknown or has an impossible value.
    """
    fixed = [name for name in settings if name in _FIXED]
    if fixed:
        raise ConfigError(f"{fixed[0]} is no setting of an adapter: it has an argument of its own")
    values = {
        **defaults,
        **settings,
        "extractor": "superpoint",
        "weights": weights,
        "device": device,
    }
    try:
        return FeatureConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"features: {describe_errors(error)}") from None
