"""Configuration of the views that a matcher is trained and compared with."""

from __future__ import annotations

from pydantic import Field

from spslam.config.stage import Stage

from ...training.config import HomographyConfig, PhotometricConfig


class ViewConfig(Stage):
    """Views whose features are extracted once, before the training."""

    weights: str = Field(
        "superpoint_lite",
        description="network whose features are matched: a file or a built-in name",
    )
    size: tuple[int, int] = Field((240, 320), description="height and width, pixels")
    keypoints: int = Field(512, ge=32, le=4096, description="maximum keypoints of a view")
    spread_cell: int = Field(64, ge=0, le=512, description="as features.spread_cell, pixels")
    per_group: int = Field(
        5, ge=2, le=32, description="views of a photograph, or of a spot of a world"
    )
    homography: HomographyConfig = HomographyConfig(
        patch_ratio=0.7,
        scale=0.45,
        perspective=0.3,
        rotation_deg=60.0,
        allow_artifacts=True,
    )
    photometric: PhotometricConfig = PhotometricConfig()
    erosion_px: int = Field(
        4, ge=0, description="border of a warped photograph without keypoints, pixels"
    )
