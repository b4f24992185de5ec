"""The configuration of a run: all its stages."""

from __future__ import annotations

from pydantic import Field, model_validator

from spslam.config.front_end import DepthConfig, FeatureConfig, MatchingConfig, StereoConfig
from spslam.config.mapping import (
    BundleConfig,
    GlobalBundleConfig,
    KeyframeConfig,
    LoopConfig,
    MappingConfig,
)
from spslam.config.stage import Stage
from spslam.config.tracking import (
    BodyFixedConfig,
    InitializationConfig,
    LossDiagnosisConfig,
    MoversConfig,
    RelocalizationConfig,
    TrackingConfig,
)


class Config(Stage):
    """All stages of a run."""

    seed: int = Field(0, ge=0, description="seed of all random numbers")
    features: FeatureConfig = FeatureConfig()
    matching: MatchingConfig = MatchingConfig()
    stereo: StereoConfig = StereoConfig()
    depth: DepthConfig = DepthConfig()
    initialization: InitializationConfig = InitializationConfig()
    tracking: TrackingConfig = TrackingConfig()
    relocalization: RelocalizationConfig = RelocalizationConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    mapping: MappingConfig = MappingConfig()
    movers: MoversConfig = MoversConfig()
    body_fixed: BodyFixedConfig = BodyFixedConfig()
    bundle: BundleConfig = BundleConfig()
    loop: LoopConfig = LoopConfig()
    global_bundle: GlobalBundleConfig = GlobalBundleConfig()
    loss_diagnosis: LossDiagnosisConfig = LossDiagnosisConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.keyframes.max_interval < self.keyframes.min_interval:
            raise ValueError(
                "keyframes.max_interval must not be smaller than keyframes.min_interval"
            )
        if self.stereo.max_disparity <= self.stereo.min_disparity:
            raise ValueError("stereo.max_disparity must be larger than stereo.min_disparity")
        if self.depth.max_m <= self.depth.min_m:
            raise ValueError("depth.max_m must be larger than depth.min_m")
        if self.tracking.refine_radius_px > self.tracking.search_radius_px:
            raise ValueError(
                "tracking.refine_radius_px must not be larger than tracking.search_radius_px"
            )
        return self
