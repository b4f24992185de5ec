"""Settings of the front end: features, stereo matching and depth."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from spslam.config.stage import Stage


class FeatureConfig(Stage):
    """Keypoints and descriptors of one image."""

    extractor: str = Field(
        "superpoint",
        description="registry name: superpoint, orb, sift or the name of a plug-in",
    )
    weights: str | None = Field(
        None,
        description="network weights: a file or a built-in name; None: superpoint_lite",
    )
    max_keypoints: int = Field(
        1000, ge=50, le=20000, description="maximum number of keypoints per image"
    )
    threshold: float = Field(
        0.0001, ge=0, lt=1, description="minimum detector probability, 0 to 1 (superpoint)"
    )
    nms_radius: int = Field(4, ge=0, le=32, description="radius of non-maximum suppression, pixels")
    border: int = Field(
        4, ge=0, le=64, description="width of the image border without keypoints, pixels"
    )
    subpixel: bool = Field(
        True, description="refine keypoints to sub-pixel positions, if the extractor can"
    )
    spread_cell: int = Field(
        64,
        ge=0,
        le=512,
        description="side of the cells over which keypoints are spread, pixels; 0: no spreading",
    )
    pixel_sigma: float | None = Field(
        None,
        gt=0,
        le=10,
        description="standard deviation of a keypoint's position, pixels; None: the extractor's "
        "own; larger for rolling shutters and motion blur",
    )
    device: Literal["cpu", "cuda", "auto"] = Field("cpu", description="device of the network")
    threads: int = Field(
        0, ge=0, le=256, description="number of threads of the network; 0: one for each core"
    )
    max_concurrency: int = Field(
        0,
        ge=0,
        le=256,
        description="number of images that the network processes at the same time (openvino, "
        "onnxruntime); they share its threads: more images per second, but each takes longer; "
        "0: two, or one if the run must keep up with a camera",
    )
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = Field(
        "auto",
        description="inference engine; auto: on a CPU the first of openvino and onnxruntime that "
        "is installed and agrees with torch, otherwise torch",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="arithmetic of the network; auto: the fastest that the engine supports for the "
        "weights on this machine",
    )

    @model_validator(mode="after")
    def _possible(self) -> FeatureConfig:
        requested = f"engine {self.engine} with precision {self.precision} on device {self.device}"
        if self.engine == "torch" and self.precision not in ("auto", "fp32"):
            raise ValueError(
                f"torch runs the network in fp32 only, found {requested}: use engine openvino"
            )
        if self.engine == "onnxruntime" and self.precision == "bf16":
            raise ValueError(
                f"onnxruntime runs the network in fp32 or int8, found {requested}: "
                "use engine openvino"
            )
        if self.device == "cuda" and self.engine in ("openvino", "onnxruntime"):
            raise ValueError(
                f"{self.engine} runs on the CPU only, found {requested}: "
                "use device cpu or engine torch"
            )
        if self.device == "cuda" and self.precision not in ("auto", "fp32"):
            raise ValueError(
                f"on CUDA the network runs in fp32 only, found {requested}: "
                "use device cpu or precision auto"
            )
        return self


class MatchingConfig(Stage):
    """Matching of two whole images whose views may be far apart."""

    learned: Literal["off", "auto", "on"] = Field(
        "off",
        description="use a learned matcher to start a map, relocalize, verify loops and join "
        "submaps; auto: if there is one of the features' weights; off: nearest neighbours",
    )
    weights: str | None = Field(
        None,
        description="file of a learned matcher (spslam train matcher) or a built-in name; it must "
        "belong to the weights of the features; None: NAME.matcher.safetensors beside the weights",
    )
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = Field(
        "auto", description="inference engine of the learned matcher; auto: the fastest installed"
    )
    threshold: float = Field(
        0.1, ge=0, lt=1, description="minimum probability of a match of the learned matcher"
    )
    threads: int = Field(
        0, ge=0, le=256, description="threads of the learned matcher; 0: one for each core"
    )

    @field_validator("learned", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        """Accept the booleans that YAML reads from `on` and `off`."""
        return ("on" if value else "off") if isinstance(value, bool) else value


class StereoConfig(Stage):
    """Left-right matching of a rectified stereo pair."""

    min_disparity: float = Field(0.5, ge=0, description="minimum disparity, pixels")
    max_disparity: float = Field(256.0, gt=0, le=32767, description="maximum disparity, pixels")
    patch_radius: int = Field(
        5, ge=2, le=20, description="half side of the correlation patch, pixels"
    )
    disparity_sigma: float | None = Field(
        None,
        gt=0,
        le=10,
        description="standard deviation of a disparity, pixels; None: as if the position in the "
        "right image were independent of that in the left, with features.pixel_sigma",
    )


class DepthConfig(Stage):
    """Depth images (RGB-D)."""

    min_m: float = Field(0.3, gt=0, description="minimum depth that is used, metres")
    max_m: float = Field(8.0, gt=0, description="maximum depth that is used, metres")
    edge_margin_px: int = Field(
        4,
        ge=0,
        le=32,
        description="distance to a depth edge within which a keypoint gets no depth, because it "
        "may belong to either side, pixels",
    )
    edge_step: float = Field(
        0.08,
        gt=0,
        description="minimum difference of depth that is a depth edge, fraction of the depth",
    )
    virtual_baseline_m: float = Field(
        0.2,
        ge=1e-6,
        le=1e6,
        description="baseline of the virtual stereo pair into which depth is converted, metres",
    )
