"""Configuration of the training of a learned matcher; YAML rules as in `spslam.config`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from spslam.config import load_settings
from spslam.config.stage import Stage

from ...training.config import OptimizerConfig, ScheduleConfig
from ..data.view_config import ViewConfig
from ..weights import HEAD_WIDTH, MatcherShape

# Folder of the built-in configurations, below configs.
FOLDER = "training/matcher"


class MatcherNetworkConfig(Stage):
    """Size of the network; see `spslam.frontend.learned_matching.network`."""

    width: int = Field(96, ge=HEAD_WIDTH, le=512, description="channels of the states")
    layers: int = Field(3, ge=1, le=12, description="layers of self- and cross-attention")

    @model_validator(mode="after")
    def _heads(self) -> MatcherNetworkConfig:
        if self.width % HEAD_WIDTH:
            raise ValueError(f"network.width must be a multiple of {HEAD_WIDTH}")
        return self

    def shape(self, descriptor_dim: int) -> MatcherShape:
        """Return the shape of a network for descriptors of this length."""
        return MatcherShape(descriptor_dim, self.width, self.layers)


class WorldConfig(Stage):
    """Views of rendered worlds, with exact depth and poses."""

    worlds: tuple[str, ...] = Field(
        ("demo-small@11", "demo@12", "demo-twins@13", "demo@14", "demo-small@15", "demo-twins@16"),
        description="built-in worlds to train with, NAME@SEED; empty: none",
    )
    held_out: tuple[str, ...] = Field(
        ("demo-loop@91", "demo-loop@92"), description="built-in worlds to validate with"
    )
    spots: int = Field(80, ge=1, description="spots of each world, each with several views")
    held_out_spots: int = Field(30, ge=1, description="spots of each held-out world")
    largest_angle_deg: float = Field(
        40.0, gt=0, le=80, description="largest angle of a view from the middle of its spot's views"
    )


class PairConfig(Stage):
    """Pairs of views for each step."""

    positive_px: float = Field(
        3.0, gt=0, description="largest reprojection error of a true match, in both views, pixels"
    )
    negative_px: float = Field(
        4.0,
        gt=0,
        description="a point has no match if no other point is nearer to its projection, pixels",
    )
    keypoints: tuple[int, ...] = Field(
        (256, 384, 512),
        min_length=1,
        description="most keypoints of a view, the best ones; each step has one of these, in turn",
    )
    world_fraction: float = Field(0.25, ge=0, le=1, description="pairs of views of worlds")
    map_fraction: float = Field(
        0.25, ge=0, le=1, description="pairs of keyframes of saved maps, where maps are given"
    )
    foreign_fraction: float = Field(
        0.03, ge=0, le=1, description="pairs of views of different places: no point has a match"
    )


class MatcherLossConfig(Stage):
    """Weights of the losses."""

    early_layers: float = Field(
        1.0, ge=0, description="weight of the loss of an earlier layer; one of them in each step"
    )
    confidence: float = Field(
        1.0, ge=0, description="weight of the confidence by which inference ends early"
    )
    threshold: float = Field(
        0.1, ge=0, lt=1, description="least probability of a match, also of the finished matcher"
    )


class MatcherConfig(Stage):
    """All settings of the training of a matcher."""

    seed: int = Field(0, ge=0, description="seed of all random numbers")
    network: MatcherNetworkConfig = MatcherNetworkConfig()
    views: ViewConfig = ViewConfig()
    worlds: WorldConfig = WorldConfig()
    pairs: PairConfig = PairConfig()
    loss: MatcherLossConfig = MatcherLossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(
        batch=16,
        block=1,
        steps=20000,
        learning_rate=6e-4,
        warmup=200,
        weight_decay=1e-3,
        # On processors without matrix tiles bf16 takes longer: most of a step is no product.
        precision="fp32",
    )
    schedule: ScheduleConfig = ScheduleConfig(
        validate_every=500, validation_pairs=60, checkpoint_minutes=10.0, patience=1000
    )
    holdout: float = Field(
        0.1, ge=0, lt=1, description="fraction of the photos held out from training, chosen by seed"
    )

    @model_validator(mode="after")
    def _consistent(self) -> MatcherConfig:
        if self.pairs.negative_px < self.pairs.positive_px:
            raise ValueError("pairs.negative_px must not be smaller than pairs.positive_px")
        return self


def load_matcher_config(
    name_or_path: str | Path = "default", overrides: list[str] | None = None
) -> MatcherConfig:
    """Load a built-in configuration of a matcher by name or a YAML file by path.

    Args:
        name_or_path: `default`, `superpoint`, …, or a path that ends in .yaml or .yml.
        overrides: items `a.b=value`; the value is read as YAML.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value (with its key).
    """
    return load_settings(
        MatcherConfig, name_or_path, overrides, folder=FOLDER, kind="matcher config"
    )
