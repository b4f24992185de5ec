"""Training configuration: one frozen pydantic model per part, the same YAML rules as `spslam.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spslam.config import LARGEST, describe_errors, load_values
from spslam.errors import ConfigError

from .precision import Precision

_PRECISION = "auto: bf16 where the GPU or processor has instructions for it, else fp32"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _not_beyond(cls, value: Any) -> Any:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int | float) and abs(number) > LARGEST for number in numbers):
            raise ValueError(f"numbers are at most {LARGEST:g}")
        return value


class NetworkConfig(_Part):
    """Which network is trained; see `spslam.frontend.superpoint.superpoint.SuperPoint`."""

    widths: tuple[int, int, int, int, int] = Field(
        (16, 32, 64, 128, 192), description="channels of the four encoder stages and of the heads"
    )
    depths: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2), description="convolutions of each encoder stage"
    )
    detector_width: int | None = Field(
        None,
        ge=1,
        description="channels of the detector's head where it is not as wide as the descriptors'",
    )
    descriptor_dim: int = Field(256, ge=8, le=1024, description="length of a descriptor")
    strided: int = Field(
        0,
        ge=0,
        le=3,
        strict=True,
        description="of the first three stages, how many begin with a stride of 2 instead of ending with a pooling",
    )
    skips: bool = Field(
        True, description="the first three stages add to the detector's logits, pixel by pixel"
    )
    batch_norm: bool = Field(
        True, description="batch norm between convolution and ReLU while training"
    )


class HomographyConfig(_Part):
    """Random homographies: a patch of the image, distorted, is stretched to the whole image."""

    patch_ratio: float = Field(
        0.85, gt=0, le=1, description="side of the patch, share of the image's"
    )
    perspective: float = Field(
        0.2,
        ge=0,
        lt=0.5,
        description="amplitude (two standard deviations) of the corners' perspective shift, share of the patch",
    )
    scale: float = Field(0.2, ge=0, lt=1, description="amplitude of the scale's deviation from 1")
    rotation_deg: float = Field(
        25.0, ge=0, le=180, description="largest rotation, uniform, degrees"
    )
    translation: bool = Field(
        True, description="shift the patch anywhere it stays inside the image"
    )
    allow_artifacts: bool = Field(
        False, description="let the patch leave the image; what lies outside is invalid"
    )


class PhotometricConfig(_Part):
    """Random changes of brightness and noise; each is applied with the probability `chance`."""

    chance: float = Field(0.6, ge=0, le=1, description="probability of each effect, per image")
    brightness: float = Field(0.3, ge=0, le=1, description="largest shift, share of the full range")
    contrast: tuple[float, float] = Field((0.3, 1.8), description="factor around the image's mean")
    noise_sigma: float = Field(
        0.06, ge=0, le=1, description="largest standard deviation of Gaussian noise"
    )
    speckle: float = Field(
        0.0035, ge=0, le=1, description="largest share of pixels set to black or white"
    )
    shade: float = Field(0.6, ge=0, lt=1, description="largest strength of an elliptic shade")
    blur_sigma: float = Field(1.2, ge=0, description="largest sigma of a Gaussian blur, pixels")
    motion_blur_px: int = Field(7, ge=1, le=31, description="longest motion blur, pixels")


class ShapesConfig(_Part):
    """Synthetic shapes."""

    count: int = Field(20000, ge=1, description="images drawn, then cached on disk")
    size: tuple[int, int] = Field((120, 160), description="height and width, pixels")
    validation: int = Field(
        500, ge=1, description="further images that the stage is validated with"
    )


class LabelConfig(_Part):
    """Homographic adaptation."""

    size: tuple[int, int] = Field(
        (240, 320), description="height and width that photographs are fitted to, pixels"
    )
    homographies: int = Field(
        100, ge=1, description="warps averaged for each image, the identity among them"
    )
    homography: HomographyConfig = HomographyConfig(allow_artifacts=True, rotation_deg=60.0)
    erosion_px: int = Field(3, ge=0, description="border of each warp that is not counted, pixels")
    threshold: float = Field(0.004, ge=0, lt=1, description="least averaged probability of a label")
    nms_radius: int = Field(4, ge=0, le=32, description="non-maximum suppression radius, pixels")
    top_k: int = Field(600, ge=1, description="most labels of an image")
    subpixel: bool = Field(
        True, description="labels at the centre of mass of the averaged probabilities"
    )
    batch: int = Field(16, ge=1, description="warps that the network sees at once")
    precision: Precision = Field("auto", description=_PRECISION)


class DataConfig(_Part):
    """What a training pair is made of."""

    size: tuple[int, int] = Field((240, 320), description="height and width of the views, pixels")
    homography: HomographyConfig = HomographyConfig()
    warp_both: bool = Field(True, description="both views are warped, not only the second")
    photometric: PhotometricConfig = PhotometricConfig()
    subpixel: bool = Field(
        True, description="labels share their mass among the four pixels around them"
    )
    settle_labels: bool = Field(
        True,
        description="labels move to the corner that the image's gradients point to before they are trained with",
    )
    strength_exponent: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a label's mass is multiplied by this power of how well the image's gradients tell where it is",
    )
    mass_exponent: float = Field(
        0.5,
        ge=0,
        le=1,
        description="power of a label's mass that is trained with; 0: all labels count alike",
    )
    points: int = Field(
        300, ge=16, description="labelled points of a view or pair used by the losses of points"
    )


class LossConfig(_Part):
    """Weights of the losses."""

    targets: Literal["hard", "soft"] = Field(
        "soft",
        description="one class a cell with random tie-breaking, or the labels' mass shared by sub-pixel position",
    )
    localisation_weight: float = Field(
        0.3,
        ge=0,
        description="weight, per pixel, of the distance of labels from where the detector puts them",
    )
    consistency_weight: float = Field(
        0.0,
        ge=0,
        description="weight, per pixel, of the distance between where the detector puts points in both views",
    )
    selectivity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how much that distance also moves probability to points that are placed well",
    )
    descriptor: Literal["hinge", "contrastive", "sparse"] = Field(
        "sparse", description="loss of the descriptors"
    )
    descriptor_weight: float = Field(
        1.0, ge=0, description="weight of the descriptor loss against the detector's"
    )
    negatives: Literal["pair", "block"] = Field(
        "block",
        description="points that a descriptor of the sparse loss must differ from: its pair's, or its block's",
    )
    temperature: float = Field(0.06, gt=0, description="of the dual softmax")
    positive_margin: float = Field(1.0, description="m_p of the hinge loss")
    negative_margin: float = Field(0.2, description="m_n of the hinge loss")
    positive_weight: float = Field(250.0, gt=0, description="lambda_d of the hinge loss")


class OptimizerConfig(_Part):
    """How the weights move."""

    batch: int = Field(
        8, ge=1, description="images (pairs for joint) of a step, of all processes together"
    )
    block: int = Field(
        4,
        ge=1,
        description="images made together from one seed; what a step sees depends on it, not on the processes",
    )
    steps: int = Field(10000, ge=1, description="steps of the whole schedule")
    learning_rate: float = Field(1e-3, gt=0, description="peak, after the warm-up")
    warmup: int = Field(
        200, ge=0, description="steps of linear warm-up, then a half cosine down to `final_share`"
    )
    final_share: float = Field(
        0.01, ge=0, le=1, description="last learning rate, share of the peak"
    )
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(
        0.998,
        ge=0,
        lt=1,
        description="decay of the averaged weights that are validated and exported",
    )
    precision: Precision = Field("auto", description=_PRECISION)


class DistillationConfig(_Part):
    """What a small network learns from a large one."""

    warps: int = Field(
        3, ge=1, description="views that the teacher's probabilities are averaged over"
    )
    same_view: bool = Field(
        True,
        description="the teacher sees what the student sees, not the view before the photometric changes",
    )
    inherit_steps: int = Field(
        300,
        ge=0,
        description="steps in which a network that is the teacher with fewer channels learns to do what the teacher "
        "does, stage by stage, before it is trained as a whole; 0: it begins with random weights",
    )


class ScheduleConfig(_Part):
    """What happens between the steps."""

    minutes: float | None = Field(
        None,
        gt=0,
        description="the learning rate's schedule ends after this much training at the latest, minutes; with it a "
        "resumed run differs from an uninterrupted one",
    )
    stop_minutes: float | None = Field(
        None,
        gt=0,
        description="end the stage after this much training, minutes, wherever the learning rate's schedule is",
    )
    validate_every: int = Field(500, ge=1, description="steps")
    validation_pairs: int = Field(
        40, ge=1, description="pairs of views that stages with photographs validate with"
    )
    checkpoint_minutes: float = Field(2.0, gt=0, description="time between checkpoints, minutes")
    patience: int = Field(
        20, ge=1, description="validations without a better metric before the stage stops"
    )
    log_every: int = Field(20, ge=1, description="steps between lines of the log")


class LoadingConfig(_Part):
    """How images are read; nothing here changes what a step computes."""

    workers: int = Field(
        0, ge=0, le=64, description="processes that read images ahead; 0: the training's own"
    )
    cache_mb: int = Field(
        1024,
        ge=0,
        le=1_000_000,
        description="most memory for decoded photographs, all workers together, MB",
    )


class TrainingConfig(_Part):
    """Everything about one training stage."""

    seed: int = Field(0, ge=0, description="seed of everything random")
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
        0.1, ge=0, lt=1, description="share of the photos, chosen by the seed, never trained with"
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
                "data.size must not be larger than labels.size: training images are parts of photographs"
            )
        if self.optimizer.batch % self.optimizer.block:
            raise ValueError("optimizer.batch must be a multiple of optimizer.block")
        return self

    def to_yaml(self) -> str:
        """The resolved configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_training_config(
    name_or_path: str | Path = "default", overrides: list[str] | None = None
) -> TrainingConfig:
    """Load a built-in training configuration by name or a YAML file by path.

    Args:
        name_or_path: `default`, `shapes`, `joint`, … (`config_names("training")`) or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value (with the key's path).
    """
    values = load_values(str(name_or_path), overrides, folder="training")
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"training config {name_or_path}: {describe_errors(error)}") from None
