"""Configuration: one frozen pydantic model per stage; YAML files that may extend one another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spslam.errors import ConfigError
from spslam.io.given_files import read_given
from spslam.io.structured_text import StructureError, one_line, parse_yaml, shown
from spslam.notices import notice

# No configuration is longer, extends more others, or has keys with more parts.
_LONGEST_BYTES = 1_000_000
_LONGEST_CHAIN = 16
_MOST_PARTS = 8
# Mistakes that one message names.
_MOST_MISTAKES = 8


# Keys of older releases and their names today. Old names are read for one release.
RENAMED_KEYS = {
    "features.at_once": "features.max_concurrency",
    "loop.global_delay": "global_bundle.delay",
    "loop.global_iterations": "global_bundle.iterations",
}

_logger = logging.getLogger(__name__)

# No setting is meant to be larger ("never" included), and none that may not be 0 smaller: beyond, numbers overflow.
LARGEST = 1e9
_SMALLEST = 1e-9


class _Stage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _within_reach(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value != 0 and not _SMALLEST <= abs(value) <= LARGEST:
            raise ValueError(f"Input should be of {_SMALLEST:g} to {LARGEST:g}")
        return value


class FeatureConfig(_Stage):
    """Key points and descriptors of one image."""

    extractor: str = Field(
        "superpoint", description="registry name: superpoint, orb, sift or a plug-in's"
    )
    weights: str | None = Field(
        None,
        description="network weights: a file, or a name of the box; None takes superpoint_lite",
    )
    max_keypoints: int = Field(1000, ge=50, le=20000, description="key points kept per image")
    threshold: float = Field(
        0.0001, ge=0, lt=1, description="least detector probability (superpoint)"
    )
    nms_radius: int = Field(4, ge=0, le=32, description="non-maximum suppression radius, pixels")
    border: int = Field(4, ge=0, le=64, description="margin without key points, pixels")
    subpixel: bool = Field(
        True, description="refine key points to sub-pixel positions where the extractor can"
    )
    spread_cell: int = Field(
        64,
        ge=0,
        le=512,
        description="side of the grid cells that key points are spread over, pixels; 0: no spreading",
    )
    pixel_sigma: float | None = Field(
        None,
        gt=0,
        le=10,
        description="standard deviation of a key point's position, pixels; None takes the extractor's; "
        "more for rolling shutters and motion blur",
    )
    device: Literal["cpu", "cuda", "auto"] = Field("cpu", description="where the network runs")
    threads: int = Field(0, ge=0, le=256, description="threads of the network; 0: all cores")
    max_concurrency: int = Field(
        0,
        ge=0,
        le=256,
        description="images in the network at the same time, which share its threads: more images a second, each takes "
        "longer (openvino, onnxruntime); 0: two in a run whose frames need not keep up with a camera, else one",
    )
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = Field(
        "auto",
        description="what runs the network; auto: on a CPU openvino, else onnxruntime, where it is installed and says "
        "the same as torch, else torch",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="arithmetic of the network; auto: the fastest that the engine has for the weights here",
    )

    @model_validator(mode="after")
    def _possible(self) -> FeatureConfig:
        asked = f"engine {self.engine} with precision {self.precision} on device {self.device}"
        if self.engine == "torch" and self.precision not in ("auto", "fp32"):
            raise ValueError(
                f"torch runs the network in fp32 only, found {asked}: use engine openvino"
            )
        if self.engine == "onnxruntime" and self.precision == "bf16":
            raise ValueError(
                f"onnxruntime runs the network in fp32 or int8, found {asked}: use engine openvino"
            )
        if self.device == "cuda" and self.engine in ("openvino", "onnxruntime"):
            raise ValueError(
                f"{self.engine} runs on the CPU only, found {asked}: use device cpu or engine torch"
            )
        if self.device == "cuda" and self.precision not in ("auto", "fp32"):
            raise ValueError(
                f"on CUDA the network runs in fp32 only, found {asked}: use device cpu or precision auto"
            )
        return self


class StereoConfig(_Stage):
    """Left-right matching of a rectified pair."""

    min_disparity: float = Field(0.5, ge=0, description="least disparity, pixels")
    max_disparity: float = Field(256.0, gt=0, le=32767, description="largest disparity, pixels")
    patch_radius: int = Field(
        5, ge=2, le=20, description="half side of the correlation patch, pixels"
    )


class DepthConfig(_Stage):
    """Depth images."""

    min_m: float = Field(0.3, gt=0, description="least depth used, metres")
    max_m: float = Field(8.0, gt=0, description="largest depth used, metres")
    edge_margin_px: int = Field(
        4,
        ge=0,
        le=32,
        description="key points this near to a step in depth get none: it may belong to either side, pixels",
    )
    edge_step: float = Field(
        0.08, gt=0, description="what counts as such a step, share of the depth"
    )
    virtual_baseline_m: float = Field(
        0.2,
        ge=1e-6,
        le=1e6,
        description="baseline of the virtual stereo pair that depth is expressed in, metres",
    )


class InitializationConfig(_Stage):
    """The first map."""

    min_points: int = Field(80, ge=10, description="least number of points of the first map")
    min_parallax_deg: float = Field(
        1.0, gt=0, lt=45, description="least median parallax of two views (mono), degrees"
    )
    min_displacement_px: float = Field(
        12.0, ge=0, description="least median motion of matches to try (mono), pixels"
    )
    max_frames: int = Field(
        60, ge=2, description="frames after which the first view is renewed (mono)"
    )
    max_gap_s: float = Field(
        0.5,
        ge=0,
        description="longest time between two frames that tell the motion of a rolling shutter, seconds",
    )
    still_px: float = Field(
        1.5, ge=0, description="matches that moved less stand still (mono), pixels"
    )
    max_still_fraction: float = Field(
        0.2,
        ge=0,
        le=1,
        description="fraction of the image that stands still, from which on no view is used (mono)",
    )
    max_other_motion_fraction: float = Field(
        0.15,
        ge=0,
        le=1,
        description="fraction of the image that moves together against the solved motion, from which on there are two "
        "motions (mono)",
    )
    min_motion_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="lead of the camera's motion over a second one, fraction of the image (mono)",
    )
    max_unmatched: int = Field(
        4,
        ge=1,
        description="newest frames without a match that may become the first view instead (mono)",
    )
    max_refused: int = Field(
        5,
        ge=1,
        description="frames with an unclear motion after which a later view becomes the first one (mono)",
    )
    min_waiting: int = Field(
        8,
        ge=2,
        description="frames since the first view before an unclear motion may replace it (mono)",
    )


class TrackingConfig(_Stage):
    """Camera pose of each frame."""

    search_radius_px: float = Field(
        24.0, gt=0, description="gate around predicted points, first pass, pixels"
    )
    near_radius_ratio: float = Field(
        0.4,
        gt=0,
        le=1,
        description="radius of the small gate that is tried first, ratio to search_radius_px",
    )
    near_points: int = Field(
        600, ge=6, description="most points that are searched in the small gate"
    )
    near_min_inlier_fraction: float = Field(
        0.6,
        ge=0,
        le=1,
        description="fraction of the matches in the small gate that must agree with the pose",
    )
    wide_radius_ratio: float = Field(
        2.5,
        ge=1,
        description="radius of the wide gate that is tried last, ratio to search_radius_px",
    )
    refine_radius_px: float = Field(
        6.0, gt=0, description="gate around points after the first refinement, pixels"
    )
    min_inliers: int = Field(20, ge=6, description="inliers below which a frame is not tracked")
    min_inlier_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the matches that must agree with the pose, or a wider gate is tried, too",
    )
    min_coverage: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of the image that inliers must span, or the frame is searched again, too",
    )
    max_keyframes: int = Field(24, ge=2, description="key frames of the local map")
    max_view_angle_deg: float = Field(
        60.0, gt=0, lt=180, description="largest change of view direction of a point"
    )
    max_scale_change: float = Field(
        2.5, gt=1, description="largest change of distance to a point, ratio"
    )
    ratio: float = Field(0.9, gt=0, le=1, description="ratio test of matches without a prediction")
    recovery_keyframes: int = Field(
        5, ge=1, description="newest key frames tried when prediction fails"
    )
    recovery_places: int = Field(
        5, ge=0, description="places that look alike tried when prediction fails"
    )
    recovery_inliers: int = Field(
        30, ge=6, description="inliers below which a lost camera is not found again"
    )
    new_part_after_s: float = Field(
        1.0, ge=0, description="seconds without a pose after which a new part of the map may begin"
    )
    new_part_frames: int = Field(
        5, ge=1, description="frames without a pose before a new part of the map may begin"
    )
    speed_memory_s: float = Field(
        1.0,
        gt=0,
        description="time in which the remembered top speed of the camera falls to 1/e, seconds",
    )
    huber: bool = Field(True, description="robust kernel in the pose refinement")


class RelocalizationConfig(_Stage):
    """Where a lost camera is found again, and which of two similar places is accepted."""

    confirmations: int = Field(
        3,
        ge=1,
        description="frames that must find the same place before one out of reach is accepted",
    )
    max_missed: int = Field(3, ge=0, description="frames between these that may find no place")
    min_visible_fraction: float = Field(
        0.45,
        ge=0,
        le=1,
        description="fraction of the last points that constant velocity must keep in view before a frame without them "
        "counts as a camera that was carried away",
    )
    min_keypoint_fraction: float = Field(
        0.33,
        ge=0,
        le=1,
        description="keypoints that a frame needs to tell that, fraction of the last keyframe's",
    )
    expected_s: float = Field(
        1.0,
        ge=0,
        description="time after a loss in which constant velocity decides between similar places, seconds",
    )
    rival_inlier_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="inliers that make another place a rival, fraction of the best place's",
    )
    speed_factor: float = Field(
        1.5,
        ge=0,
        description="largest speed of a lost camera, ratio to its top speed before the loss",
    )
    reach_depths: float = Field(
        0.25,
        ge=0,
        description="distance that a lost camera may always have moved, median scene depths",
    )
    reach_depths_per_s: float = Field(
        0.25, ge=0, description="growth of that distance, median scene depths a second"
    )
    reach_turn_rad: float = Field(
        0.5, ge=0, description="angle that a lost camera may always have turned, radians"
    )
    reach_turn_rad_per_s: float = Field(
        2.0, ge=0, description="growth of that angle, radians a second"
    )
    same_place_depths: float = Field(
        0.25, ge=0, description="largest distance of two poses of one place, median scene depths"
    )
    same_place_turn_rad: float = Field(
        0.3, ge=0, description="largest angle between two poses of one place, radians"
    )


class KeyframeConfig(_Stage):
    """When a frame becomes a key frame."""

    min_interval: int = Field(1, ge=1, description="least number of frames between key frames")
    max_interval: int = Field(
        20, ge=1, description="frames after which a key frame is inserted in any case"
    )
    min_tracked_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="insert when fewer than this share of the reference key frame's points is tracked",
    )
    min_close_points: int = Field(
        100, ge=0, description="insert when fewer close points are tracked (stereo, RGB-D)"
    )
    min_new_close_ratio: float = Field(
        0.7,
        ge=0,
        description="new close points that such a frame must offer, ratio to min_close_points",
    )
    close_baselines: float = Field(
        40.0, gt=0, description="points nearer than this many baselines are close"
    )
    max_flow_share: float = Field(
        0.08,
        gt=0,
        lt=1,
        description="insert when the median point moved by this share of the image width",
    )


class MappingConfig(_Stage):
    """New points, fusion, culling."""

    neighbors: int = Field(
        6, ge=1, description="covisible key frames that new points are triangulated with"
    )
    min_shared_points: int = Field(
        10,
        ge=1,
        description="points that two keyframes must share for triangulation and local bundle adjustment",
    )
    max_epipolar_px: float = Field(1.5, gt=0, description="gate around epipolar lines, pixels")
    min_parallax_deg: float = Field(
        1.0, gt=0, description="least parallax of a triangulated point, degrees"
    )
    min_baseline_depth_ratio: float = Field(
        0.01, ge=0, description="least ratio of baseline to median depth for triangulation"
    )
    fuse_radius_px: float = Field(
        3.0, gt=0, description="points projected this near to each other may be one"
    )
    min_found_ratio: float = Field(
        0.25, ge=0, le=1, description="points found in a smaller share of frames are culled"
    )
    min_observations: int = Field(
        3, ge=2, description="key frames that must see a point by the end of its probation"
    )
    probation_keyframes: int = Field(
        3, ge=1, description="length of a point's probation, key frames"
    )
    proof_frames: int = Field(
        30, ge=1, description="frames that should have seen a point before it is judged at any age"
    )
    min_proven_ratio: float = Field(
        0.33, ge=0, le=1, description="points found in a smaller share of so many frames are culled"
    )
    redundant_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="a key frame whose points are seen by enough others to this share is removed",
    )
    redundant_views: int = Field(3, ge=1, description="other keyframes that are enough for that")


class MoversConfig(_Stage):
    """Points that move by themselves."""

    probation_frames: int = Field(
        3,
        ge=0,
        le=1000,
        description="frames in which a new point must agree with the pose before it is proven to stand still",
    )
    outlier_px: float = Field(
        1.0, ge=0, description="least reprojection error that contradicts a pose, pixels"
    )
    outlier_sigmas: float = Field(
        3.0,
        ge=0,
        description="least reprojection error that contradicts a pose, standard deviations of proven points",
    )
    min_alignment: float = Field(
        0.75,
        ge=0,
        le=1,
        description="residuals that point the same way: length of their sum over the sum of their lengths",
    )
    min_pull_chi2: float = Field(
        100.0,
        ge=0,
        description="shift of the proven points, chi-square, from which on aligned new points pull the pose away",
    )
    takeover_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="proven inliers, ratio to the frame before, below which new points took over",
    )
    min_agreement_gain: float = Field(
        0.1,
        ge=0,
        le=1,
        description="rise of the mean inlier rate over image cells that makes another motion the pose",
    )
    min_explained: float = Field(
        0.45,
        ge=0,
        le=1,
        description="fraction of the squared residuals that the means of image cells explain between two motions",
    )
    first_frames: int = Field(
        10,
        ge=0,
        le=30,
        description="frames after the first one in which another motion may replace the first map",
    )
    min_rival_gain: float = Field(
        0.015,
        ge=0,
        le=1,
        description="least drop of the truncated cost, 0 to 1, with which it does",
    )


class BodyFixedConfig(_Stage):
    """Points that are fixed to the vehicle or robot which carries the camera."""

    radius_px: float = Field(
        1.01, gt=0, description="radius within which a keypoint stays in place, pixels"
    )
    min_points: int = Field(10, ge=1, description="least keypoints in place that are tested")
    min_fraction: float = Field(
        0.02, ge=0, le=1, description="least keypoints in place that are tested, fraction of all"
    )
    min_motion_px: float = Field(
        5.0, ge=0, description="least median motion of the other keypoints, pixels"
    )
    contradiction_px: float = Field(
        2.0,
        ge=0,
        description="least distance to where a point of the world would be, pixels; twice that counts twice",
    )
    min_evidence: int = Field(
        2, ge=1, description="contradictions that prove a point to be fixed to the body"
    )


class BundleConfig(_Stage):
    """Local bundle adjustment."""

    enabled: bool = Field(True, description="refine key frames and points after each key frame")
    window: int = Field(8, ge=2, description="key frames that move")
    max_fixed: int = Field(12, ge=1, description="key frames at the border that hold still")
    iterations: int = Field(8, ge=1, description="most iterations of Levenberg-Marquardt")


class LoopConfig(_Stage):
    """Loop detection, loop closure and the pose graph."""

    enabled: bool = Field(
        True, description="match key frames against places visited before and close the loop"
    )
    near_candidates: int = Field(3, ge=0, description="most candidates from the estimated position")
    similar_candidates: int = Field(3, ge=0, description="most candidates from place recognition")
    similarity_companions: int = Field(
        4, ge=0, description="covisible keyframes whose similarity is added to a candidate's"
    )
    min_interval: int = Field(
        20, ge=2, description="key frames that must lie between a key frame and a revisited one"
    )
    max_distance_ratio: float = Field(
        0.05,
        ge=0,
        description="search radius for revisited key frames, share of the path length since they were seen",
    )
    min_radius_depths: float = Field(
        0.3, ge=0, description="least search radius, median scene depths"
    )
    max_view_angle_deg: float = Field(
        45.0, gt=0, lt=180, description="largest difference of view direction"
    )
    min_likeness: float = Field(
        0.5,
        ge=0,
        le=1,
        description="least likeness of a place, share of the likeness of key frames that surely show the same one",
    )
    confirmations: int = Field(
        2, ge=1, description="key frames in a row that a place must look like before it is tried"
    )
    max_drift_ratio: float = Field(
        0.2,
        gt=0,
        description="largest gap that a loop may close, share of the path length since the place was seen",
    )
    min_matches: int = Field(
        20, ge=6, description="matches of descriptors below which no pose is tried"
    )
    min_inliers: int = Field(40, ge=10, description="inliers of the pose that confirm a revisit")
    min_coverage: float = Field(
        0.06,
        ge=0,
        lt=1,
        description="least share of the image that the inliers of a revisit must span",
    )
    min_covisibility: int = Field(
        30, ge=1, description="shared points that make an edge of the pose graph"
    )
    sigma_inflation: float = Field(
        4.0,
        gt=0,
        description="factor on the standard deviations of a loop's pose, whose inliers are not independent",
    )
    min_scale_sigma: float = Field(
        3e-3, gt=0, description="least standard deviation of the logarithm of a loop's scale (mono)"
    )
    min_scale_points: int = Field(
        15, ge=2, description="common points below which a loop has no scale (mono)"
    )
    max_rivals: int = Field(
        5, ge=0, description="similar places that are compared before two submaps are merged"
    )
    merge_turn_rad: float = Field(
        0.05, ge=0, description="largest difference of two loops that merge two submaps, radians"
    )
    merge_shift_depths: float = Field(
        0.1,
        ge=0,
        description="largest difference of two loops that merge two submaps, median scene depths",
    )
    merge_scale_ratio: float = Field(
        1.1,
        ge=1,
        description="largest difference of two loops that merge two submaps, ratio of scales",
    )
    cooldown: int = Field(
        5, ge=0, description="key frames after a closed loop in which no other is tried"
    )


class GlobalBundleConfig(_Stage):
    """Bundle adjustment of a whole submap after a closed loop."""

    delay: int = Field(
        10,
        ge=0,
        description="keyframes after a closed loop when its result enters the map; 0: no global bundle",
    )
    iterations: int = Field(16, ge=1, description="most iterations of Levenberg-Marquardt")


class LossDiagnosisConfig(_Stage):
    """Why tracking was lost: reported, without effect on poses."""

    recent_frames: int = Field(30, ge=1, description="tracked frames that tell what is usual")
    dark_ratio: float = Field(
        0.3, ge=0, le=1, description="brightness of a dark image, ratio to the usual one"
    )
    blurred_ratio: float = Field(
        0.6, ge=0, le=1, description="sharpness of a blurred image, ratio to the usual one"
    )
    faded_ratio: float = Field(
        0.2, ge=0, le=1, description="contrast of an image without texture, ratio to the usual one"
    )
    few_ratio: float = Field(
        0.5, ge=0, le=1, description="number of keypoints that is too few, ratio to the usual one"
    )
    max_motion_fraction: float = Field(
        0.25,
        ge=0,
        le=1,
        description="median motion of the matches from which on the view jumped, image widths",
    )


class Config(_Stage):
    """All stages of a run."""

    seed: int = Field(0, ge=0, description="seed of everything random")
    features: FeatureConfig = FeatureConfig()
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

    def to_yaml(self) -> str:
        """The resolved configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def config_names(folder: str = "") -> list[str]:
    """Names of the built-in configurations in a folder of the package's configs; empty: those of runs."""
    entries = resources.files("spslam.configs").joinpath(folder).iterdir()
    return sorted(entry.name[:-5] for entry in entries if entry.name.endswith(".yaml"))


def config_for(dataset: str, sensor: str) -> str:
    """The name of the built-in configuration for a data set and sensor; `default` where there is none."""
    name = f"{dataset}_{sensor}"
    return name if name in config_names() else "default"


def load_config(name_or_path: str | Path = "default", overrides: list[str] | None = None) -> Config:
    """Load a built-in configuration by name or a YAML file by path.

    Args:
        name_or_path: `default`, `kitti_stereo`, … or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value (with the key's path).
    """
    values = load_values(str(name_or_path), overrides)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"config {name_or_path}: {describe_errors(error)}") from None


def load_values(
    name_or_path: str, overrides: list[str] | None = None, folder: str = ""
) -> dict[str, Any]:
    """Keys and values of a built-in or a given YAML file, with those it extends and the overrides.

    Args:
        name_or_path: of a file in the package's configs, or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each.
        folder: inside the package's configs where names are looked up; empty: those of runs.

    Raises:
        ConfigError: unknown name, unreadable file or one that is no mapping.
    """
    values = _load_chain(name_or_path, (), folder)
    for override in overrides or []:
        values = _merge(
            values, _today(_parse_override(override), f"override {shown(override)}", folder)
        )
    return values


def with_new_names(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values of one file or override with the keys of `RENAMED_KEYS` under their new names, and the old ones found.

    Raises:
        ConfigError: a key is given under both names.
    """
    renamed: dict[str, Any] = dict(values)
    found = []
    for old, new in RENAMED_KEYS.items():
        (old_stage, old_key), (new_stage, new_key) = old.split("."), new.split(".")
        before, after = renamed.get(old_stage), renamed.get(new_stage, {})
        if not isinstance(before, dict) or not isinstance(after, dict) or old_key not in before:
            continue
        if new_key in after:
            raise ConfigError(f"{old} is the old name of {new}: give one of them, not both")
        renamed[old_stage] = {key: value for key, value in before.items() if key != old_key}
        renamed[new_stage] = renamed.get(new_stage, {}) | {new_key: before[old_key]}
        found.append(old)
    return renamed, found


def _today(values: dict[str, Any], where: str, folder: str) -> dict[str, Any]:
    """Values of a run's configuration under today's names; a notice says which names are old."""
    if folder:
        return values
    try:
        values, found = with_new_names(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for old in found:
        text = "%s: %s is called %s now; the old name ends with the next release"
        notice(_logger, "renamed_key", text, where, old, RENAMED_KEYS[old])
    return values


def _read_yaml(name_or_path: str, folder: str) -> tuple[str, Path | None]:
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        try:
            return read_given(path, _LONGEST_BYTES).decode("utf-8"), path
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read config file {path}: {getattr(error, 'strerror', None) or error}"
            ) from None
    entry = resources.files("spslam.configs").joinpath(folder) / f"{name_or_path}.yaml"
    if not entry.is_file():
        raise ConfigError(
            f"no config named {name_or_path!r}: expected one of {', '.join(config_names(folder))}, "
            "or a path ending in .yaml"
        )
    return entry.read_text(encoding="utf-8"), None


def _load_chain(name_or_path: str, chain: tuple[str, ...], folder: str) -> dict[str, Any]:
    if name_or_path in chain:
        raise ConfigError(
            f"configs extend each other in a circle: {' -> '.join((*chain, name_or_path))}"
        )
    if len(chain) >= _LONGEST_CHAIN:
        raise ConfigError(
            f"config {chain[0]} extends {_LONGEST_CHAIN} others, one the next: write it as fewer"
        )
    text, path = _read_yaml(name_or_path, folder)
    try:
        values = parse_yaml(text)
    except StructureError as error:
        raise ConfigError(f"config {name_or_path} {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(
            f"config {name_or_path}: expected keys and values, found {type(values).__name__}"
        )
    values = {str(key): value for key, value in values.items()}
    parent = values.pop("extends", None)
    # Before files are merged: a new name in one file goes before an old name in those that it extends.
    values = _today(values, f"config {name_or_path}", folder)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(
            f"config {name_or_path}: extends must be a name or a path, found {shown(parent)}"
        )
    if path is not None and parent.endswith((".yaml", ".yml")):
        parent = str((path.parent / parent).resolve())
    return _merge(_load_chain(parent, (*chain, name_or_path), folder), values)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip() or key.count(".") >= _MOST_PARTS:
        raise ConfigError(
            f"override {shown(text)}: expected section.key=value, for example tracking.min_inliers=15"
        )
    try:
        tree: Any = parse_yaml(value) if value.strip() else None
    except StructureError as error:
        raise ConfigError(f"override {shown(text)}: the value {error}") from None
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    assert isinstance(tree, dict)
    return tree


def describe_errors(error: ValidationError) -> str:
    """What is wrong with the values, in one line, with their keys."""
    parts = []
    for item in error.errors()[:_MOST_MISTAKES]:
        path = one_line(".".join(str(part) for part in item["loc"]))
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {path}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"{path}: {message}, found {shown(item['input'])}" if path else message)
    more = error.error_count() - _MOST_MISTAKES
    return "; ".join([*parts, f"and {more} more"] if more > 0 else parts)
