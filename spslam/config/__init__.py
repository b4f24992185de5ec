"""Configuration: one frozen pydantic model per stage, read from YAML files that extend others."""

from spslam.config.config import Config
from spslam.config.front_end import DepthConfig, FeatureConfig, MatchingConfig, StereoConfig
from spslam.config.loading import (
    RENAMED_KEYS,
    RENAMED_TRAINING_KEYS,
    config_for,
    config_names,
    describe_errors,
    load_config,
    load_settings,
    load_values,
    with_new_names,
)
from spslam.config.mapping import (
    BundleConfig,
    GlobalBundleConfig,
    KeyframeConfig,
    LoopConfig,
    MappingConfig,
)
from spslam.config.stage import LARGEST
from spslam.config.tracking import (
    BodyFixedConfig,
    InitializationConfig,
    LossDiagnosisConfig,
    MoversConfig,
    RelocalizationConfig,
    TrackingConfig,
)

__all__ = [
    "LARGEST",
    "RENAMED_KEYS",
    "RENAMED_TRAINING_KEYS",
    "BodyFixedConfig",
    "BundleConfig",
    "Config",
    "DepthConfig",
    "FeatureConfig",
    "GlobalBundleConfig",
    "InitializationConfig",
    "KeyframeConfig",
    "LoopConfig",
    "LossDiagnosisConfig",
    "MappingConfig",
    "MatchingConfig",
    "MoversConfig",
    "RelocalizationConfig",
    "StereoConfig",
    "TrackingConfig",
    "config_for",
    "config_names",
    "describe_errors",
    "load_config",
    "load_settings",
    "load_values",
    "with_new_names",
]
