"""Training configuration: a frozen pydantic model per section, YAML rules as in `spslam.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from spslam.config import load_settings
from spslam.config.stage import Stage

from .precision import Precision

# Description of the precision settings.
_PRECISION = "auto: bf16 if the GPU or processor has instructions for it, otherwise fp32"


class NetworkConfig(Stage):
    """Shape of the trained network; see `spslam.frontend.superpoint.superpoint.SuperPoint`."""

    widths: tuple[int, int, int, int, int] = Field(
        (16, 32, 64, 128, 192),
        description="channels of the four encoder stages and of the two heads",
    )
    depths: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2), description="convolutions of each encoder stage"
    )
    detector_width: int | None = Field(
        None,
        ge=1,
        description="channels of the detector head; None: the width of the descriptor head",
    )
    descriptor_dim: int = Field(256, ge=8, le=1024, description="numbers in a descriptor")
    strided: int = Field(
        0,
        ge=0,
        le=3,
        strict=True,
        description="how many of the first three stages have stride 2 instead of pooling",
    )
    skips: bool = Field(
        True, description="add the first three stages to the detector's logits, pixel by pixel"
    )
    batch_norm: bool = Field(
        True, description="use batch norm between convolution and ReLU during training"
    )


class HomographyConfig(Stage):
    """Random homographies: a patch of the image is distorted and stretched to the whole image."""

    patch_ratio: float = Field(
        0.85, gt=0, le=1, description="side of the patch, fraction of the image side"
    )
    perspective: float = Field(
        0.2,
        ge=0,
        lt=0.5,
        description="amplitude (two standard deviations) of corner shifts, fraction of the patch",
    )
    scale: float = Field(0.2, ge=0, lt=1, description="amplitude of the scale's deviation from 1")
    rotation_deg: float = Field(
        25.0, ge=0, le=180, description="largest rotation (uniformly distributed), degrees"
    )
    translation: bool = Field(
        True, description="shift the patch to a random place inside the image"
    )
    allow_artifacts: bool = Field(
        False, description="let the patch leave the image; pixels outside the image are invalid"
    )


class PhotometricConfig(Stage):
    """Random changes of brightness, sharpness and noise, each with probability `chance`."""

    chance: float = Field(0.6, ge=0, le=1, description="probability of each effect, per image")
    brightness: float = Field(
        0.3, ge=0, le=1, description="largest shift, fraction of the grey range"
    )
    contrast: tuple[float, float] = Field(
        (0.3, 1.8), description="range of the factor around the image's mean"
    )
    noise_sigma: float = Field(
        0.06,
        ge=0,
        le=1,
        description="largest standard deviation of Gaussian noise, fraction of the grey range",
    )
    speckle: float = Field(
        0.0035, ge=0, le=1, description="largest fraction of pixels set to black or white"
    )
    shade: float = Field(0.6, ge=0, lt=1, description="largest strength of an elliptic shadow")
    blur_sigma: float = Field(1.2, ge=0, description="largest sigma of a Gaussian blur, pixels")
    motion_blur_px: int = Field(7, ge=1, le=31, description="longest motion blur, pixels")


class ShapesConfig(Stage):
    """Synthetic shapes."""

    count: int = Field(20000, ge=1, description="images to draw and cache on disk")
    size: tuple[int, int] = Field((120, 160), description="height and width, pixels")
    validation: int = Field(500, ge=1, description="further images for validation")


class LabelConfig(Stage):
    """Labels by homographic adaptation."""

    size: tuple[int, int] = Field(
        (240, 320), description="height and width of the fitted photographs, pixels"
    )
    homographies: int = Field(
        100, ge=1, description="warps averaged for each image, including the identity"
    )
    homography: HomographyConfig = HomographyConfig(allow_artifacts=True, rotation_deg=60.0)
    erosion_px: int = Field(3, ge=0, description="ignored border of each warp, pixels")
    threshold: float = Field(0.004, ge=0, lt=1, description="least averaged probability of a label")
    nms_radius: int = Field(4, ge=0, le=32, description="non-maximum suppression radius, pixels")
    top_k: int = Field(600, ge=1, description="most labels per image")
    subpixel: bool = Field(
        True, description="place labels at the centre of mass of the averaged probabilities"
    )
    batch: int = Field(16, ge=1, description="warps per forward pass of the network")
    precision: Precision = Field("auto", description=_PRECISION)


class DataConfig(Stage):
    """How training views are made."""

    size: tuple[int, int] = Field((240, 320), description="height and width of the views, pixels")
    homography: HomographyConfig = HomographyConfig()
    warp_both: bool = Field(True, description="warp both views, not only the second one")
    photometric: PhotometricConfig = PhotometricConfig()
    subpixel: bool = Field(
        True, description="split the mass of a label among the four pixels around it"
    )
    settle_labels: bool = Field(
        True,
        description="move labels to the corner that the image gradients point to before training",
    )
    strength_exponent: float = Field(
        0.0,
        ge=0,
        le=1,
        description="multiply a label's mass by this power of its corner strength",
    )
    mass_exponent: float = Field(
        0.5,
        ge=0,
        le=1,
        description="exponent of a label's mass; 0: all labels have the same weight",
    )
    points: int = Field(
        300, ge=16, description="labelled points per view or pair used by the point losses"
    )


class LossConfig(Stage):
    """Kinds and weights of the losses."""

    targets: Literal["hard", "soft"] = Field(
        "soft",
        description="hard: one class per cell, random among several; soft: mass split by position",
    )
    localisation_weight: float = Field(
        0.3,
        ge=0,
        description="weight, per pixel, of the distance between labels and detected points",
    )
    consistency_weight: float = Field(
        0.0,
        ge=0,
        description="weight, per pixel, of the distance between a point's detections in both views",
    )
    selectivity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how much the consistency loss favours well-localised points; 0: not at all",
    )
    descriptor: Literal["hinge", "contrastive", "sparse"] = Field(
        "sparse", description="loss of the descriptors"
    )
    descriptor_weight: float = Field(
        1.0, ge=0, description="weight of the descriptor loss relative to the detector loss"
    )
    negatives: Literal["pair", "block"] = Field(
        "block",
        description="negatives of the sparse loss: points of the same pair, or of the whole block",
    )
    temperature: float = Field(0.06, gt=0, description="temperature of the dual softmax")
    positive_margin: float = Field(1.0, description="m_p of the hinge loss")
    negative_margin: float = Field(0.2, description="m_n of the hinge loss")
    positive_weight: float = Field(250.0, gt=0, description="lambda_d of the hinge loss")


class OptimizerConfig(Stage):
    """Optimizer and learning rate."""

    batch: int = Field(
        8, ge=1, description="images (joint: pairs) per step, all processes together"
    )
    block: int = Field(
        4,
        ge=1,
        description="images augmented together from one seed; changing it changes the results",
    )
    steps: int = Field(10000, ge=1, description="steps of the whole schedule")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate, after the warm-up")
    warmup: int = Field(
        200,
        ge=0,
        description="steps of linear warm-up; half a cosine down to `final_fraction` follows",
    )
    final_fraction: float = Field(
        0.01, ge=0, le=1, description="last learning rate, fraction of the peak"
    )
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(
        0.998,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which are validated and exported",
    )
    precision: Precision = Field("auto", description=_PRECISION)


class DistillationConfig(Stage):
    """How a small network (student) learns from a large one (teacher)."""

    warps: int = Field(
        3, ge=1, description="views over which the teacher's probabilities are averaged"
    )
    same_view: bool = Field(
        True,
        description="show the teacher the student's view, after the photometric changes",
    )
    inherit_steps: int = Field(
        300,
        ge=0,
        description="steps in which the student learns to imitate the teacher stage by stage, "
        "before training as a whole; 0: random initial weights",
    )


class ScheduleConfig(Stage):
    """Length of a stage, validation, checkpoints and log."""

    minutes: float | None = Field(
        None,
        gt=0,
        description="latest end of the learning-rate schedule, minutes of training; "
        "a resumed run then differs from an uninterrupted one",
    )
    stop_minutes: float | None = Field(
        None,
        gt=0,
        description="end the stage after this training time, minutes, whatever the learning rate",
    )
    validate_every: int = Field(500, ge=1, description="steps between validations")
    validation_pairs: int = Field(
        40, ge=1, description="pairs of views for the validation of stages with photographs"
    )
    checkpoint_minutes: float = Field(2.0, gt=0, description="time between checkpoints, minutes")
    patience: int = Field(
        20, ge=1, description="validations without a better metric after which the stage stops"
    )
    log_every: int = Field(20, ge=1, description="steps between lines of the log")


class LoadingConfig(Stage):
    """How images are read; these settings do not change the result of a step."""

    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that read images ahead; 0: read in the training process",
    )
    cache_mb: int = Field(
        1024,
        ge=0,
        le=1_000_000,
        description="most memory for decoded photographs, all workers together, MB",
    )


class TrainingConfig(Stage):
    """All settings of one training stage."""

    seed: int = Field(0, ge=0, description="seed of all random numbers")
    network: NetworkConfig = NetworkConfig()
    shapes: ShapesConfig = ShapesConfig()
    labels: LabelConfig = LabelConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loading: LoadingConfig = LoadingConfig()
    holdout: float = Field(
        0.1, ge=0, lt=1, description="fraction of the photos held out from training, chosen by seed"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        sizes = {
            "shapes.size": self.shapes.size,
            "labels.size": self.labels.size,
            "data.size": self.data.size,
        }
        for name, (height, width) in sizes.items():
            if min(height, width) < 32 or height % 8 or width % 8:
                raise ValueError(f"{name} must be multiples of 8, at least 32")
        if self.data.size[0] > self.labels.size[0] or self.data.size[1] > self.labels.size[1]:
            raise ValueError(
                "data.size must not exceed labels.size: training views are cut from photographs"
            )
        if self.optimizer.batch % self.optimizer.block:
            raise ValueError("optimizer.batch must be a multiple of optimizer.block")
        return self


def load_training_config(
    name_or_path: str | Path = "default", overrides: list[str] | None = None
) -> TrainingConfig:
    """Load a built-in training configuration by name or a YAML file by path.

    Args:
        name_or_path: `default`, `shapes`, `joint`, … (`config_names("training")`), or a path that
            ends in .yaml or .yml.
        overrides: items `a.b=value`; the value is read as YAML.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value (with its key).
    """
    return load_settings(
        TrainingConfig, name_or_path, overrides, folder="training", kind="training config"
    )
