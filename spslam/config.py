"""Configuration: one frozen pydantic model per stage, read from YAML files that extend others."""

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

# Maximum size of a configuration file, bytes; larger files are refused.
_LONGEST_BYTES = 1_000_000
# Maximum number of files in a chain of `extends`; longer chains are refused.
_LONGEST_CHAIN = 16
# Maximum number of names in a dotted key of an override (`a.b` has two); longer keys are refused.
_MOST_PARTS = 8
# Maximum number of mistakes that one error message lists; the rest is counted.
_MOST_MISTAKES = 8

# Old keys and their new names. Old names are accepted for one release, with a notice.
RENAMED_KEYS = {
    "features.at_once": "features.max_concurrency",
    "tracking.min_inlier_share": "tracking.min_inlier_fraction",
    "tracking.min_coverage": "tracking.min_inlier_coverage",
    "tracking.recovery_places": "tracking.recovery_candidates",
    "tracking.new_part_after_s": "tracking.new_submap_after_s",
    "tracking.new_part_frames": "tracking.new_submap_frames",
    "keyframes.min_tracked_share": "keyframes.min_tracked_fraction",
    "keyframes.max_flow_share": "keyframes.max_flow_fraction",
    "mapping.redundant_share": "mapping.redundant_fraction",
    "loop.min_likeness": "loop.min_similarity",
    "loop.min_coverage": "loop.min_inlier_coverage",
    "loop.global_delay": "global_bundle.delay",
    "loop.global_iterations": "global_bundle.iterations",
}

# The same of the configurations of trainings.
RENAMED_TRAINING_KEYS = {"optimizer.final_share": "optimizer.final_fraction"}

_logger = logging.getLogger(__name__)

# Maximum and minimum magnitude of every number; 0 is allowed, too. Arithmetic with larger or
# smaller numbers could overflow.
LARGEST = 1e9
_SMALLEST = 1e-9


class _Stage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _within_reach(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value != 0 and not _SMALLEST <= abs(value) <= LARGEST:
            raise ValueError(f"Input should be between {_SMALLEST:g} and {LARGEST:g}")
        return value


class FeatureConfig(_Stage):
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


class StereoConfig(_Stage):
    """Left-right matching of a rectified stereo pair."""

    min_disparity: float = Field(0.5, ge=0, description="minimum disparity, pixels")
    max_disparity: float = Field(256.0, gt=0, le=32767, description="maximum disparity, pixels")
    patch_radius: int = Field(
        5, ge=2, le=20, description="half side of the correlation patch, pixels"
    )


class DepthConfig(_Stage):
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


class InitializationConfig(_Stage):
    """Initialization of the map."""

    min_points: int = Field(80, ge=10, description="minimum number of points of the first map")
    min_parallax_deg: float = Field(
        1.0,
        gt=0,
        lt=45,
        description="minimum median parallax between the two views (mono), degrees",
    )
    min_displacement_px: float = Field(
        12.0,
        ge=0,
        description="minimum median motion of the matches before the relative pose is computed "
        "(mono), pixels",
    )
    max_frames: int = Field(
        60,
        ge=2,
        description="number of frames after which a newer frame becomes the first view (mono)",
    )
    max_gap_s: float = Field(
        0.5,
        ge=0,
        description="maximum time between two frames from which the motion during a rolling "
        "shutter's read-out is estimated, seconds",
    )
    still_px: float = Field(
        1.5, ge=0, description="motion below which a match stands still (mono), pixels"
    )
    max_still_fraction: float = Field(
        0.2,
        ge=0,
        le=1,
        description="maximum fraction of the image that stands still; with more, a frame cannot "
        "initialize the map (mono)",
    )
    max_other_motion_fraction: float = Field(
        0.15,
        ge=0,
        le=1,
        description="maximum fraction of the image whose matches agree with a second motion; with "
        "more, the image shows two motions (mono)",
    )
    min_motion_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="minimum lead of the camera's motion over a second motion, fraction of the "
        "image (mono)",
    )
    max_unmatched: int = Field(
        4,
        ge=1,
        description="number of newest unmatched frames that may replace the first view (mono)",
    )
    max_refused: int = Field(
        5,
        ge=1,
        description="number of frames with an ambiguous motion after which a later frame replaces "
        "the first view (mono)",
    )
    min_waiting: int = Field(
        8,
        ge=2,
        description="minimum number of frames since the first view before an ambiguous motion may "
        "replace it (mono)",
    )


class TrackingConfig(_Stage):
    """Camera pose of each frame."""

    search_radius_px: float = Field(
        24.0,
        gt=0,
        description="search radius around predicted point positions in the first pass, pixels",
    )
    near_radius_ratio: float = Field(
        0.4,
        gt=0,
        le=1,
        description="small search radius that is tried first, ratio to search_radius_px",
    )
    near_points: int = Field(
        600, ge=6, description="maximum number of points searched within the small radius"
    )
    near_min_inlier_fraction: float = Field(
        0.6,
        ge=0,
        le=1,
        description="minimum fraction of the matches within the small radius that are inliers; "
        "with fewer, search_radius_px is tried",
    )
    wide_radius_ratio: float = Field(
        2.5,
        ge=1,
        description="wide search radius that is tried last, ratio to search_radius_px",
    )
    refine_radius_px: float = Field(
        6.0, gt=0, description="search radius after the first refinement of the pose, pixels"
    )
    min_inliers: int = Field(20, ge=6, description="minimum number of inliers of a tracked frame")
    min_inlier_fraction: float = Field(
        0.3,
        ge=0,
        le=1,
        description="minimum fraction of the matches that are inliers; with fewer, a wider search "
        "radius is tried as well",
    )
    min_inlier_coverage: float = Field(
        0.2,
        ge=0,
        le=1,
        description="minimum inlier coverage: fraction of the image area inside the convex hull of "
        "the inliers; with less, the frame is searched again as well",
    )
    max_keyframes: int = Field(24, ge=2, description="maximum number of keyframes in the local map")
    max_view_angle_deg: float = Field(
        60.0,
        gt=0,
        lt=180,
        description="maximum change of the viewing direction of a point that is searched, degrees",
    )
    max_scale_change: float = Field(
        2.5,
        gt=1,
        description="maximum change of the distance to a point that is searched, ratio",
    )
    ratio: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Lowe's ratio test for matches without predicted positions: maximum ratio of "
        "the best to the second-best distance",
    )
    recovery_keyframes: int = Field(
        5, ge=1, description="number of newest keyframes that are tried if the prediction fails"
    )
    recovery_candidates: int = Field(
        5,
        ge=0,
        description="number of candidates from place recognition that are tried if the prediction "
        "fails",
    )
    recovery_inliers: int = Field(
        30, ge=6, description="minimum number of inliers that relocalize a lost camera"
    )
    new_submap_after_s: float = Field(
        1.0, ge=0, description="time without a pose before a new submap may begin, seconds"
    )
    new_submap_frames: int = Field(
        5, ge=1, description="number of frames without a pose before a new submap may begin"
    )
    speed_memory_s: float = Field(
        1.0,
        gt=0,
        description="time in which the remembered top speed of the camera decays to 1/e, seconds",
    )
    huber: bool = Field(True, description="robust kernel in the pose refinement")


class RelocalizationConfig(_Stage):
    """Relocalization of a lost camera, and the choice between similar places."""

    confirmations: int = Field(
        3,
        ge=1,
        description="number of frames that must find the same place before a place out of the "
        "camera's reach is accepted",
    )
    max_missed: int = Field(
        3,
        ge=0,
        description="maximum number of frames without a place in between these confirmations",
    )
    min_visible_fraction: float = Field(
        0.45,
        ge=0,
        le=1,
        description="minimum fraction of the last points that constant velocity keeps in view; if "
        "a frame then sees none of them, the camera was carried away",
    )
    min_keypoint_fraction: float = Field(
        0.33,
        ge=0,
        le=1,
        description="minimum number of keypoints of a frame for that conclusion, fraction of the "
        "last keyframe's",
    )
    expected_s: float = Field(
        1.0,
        ge=0,
        description="time after a loss during which constant velocity decides between similar "
        "places, seconds",
    )
    rival_inlier_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="minimum number of inliers of a rival place, fraction of the best place's",
    )
    speed_factor: float = Field(
        1.5,
        ge=0,
        description="maximum speed of a lost camera, ratio to its top speed before the loss",
    )
    reach_depths: float = Field(
        0.25,
        ge=0,
        description="distance that a lost camera can move at once, median scene depths",
    )
    reach_depths_per_s: float = Field(
        0.25, ge=0, description="growth of that distance, median scene depths per second"
    )
    reach_turn_rad: float = Field(
        0.5, ge=0, description="angle that a lost camera can turn at once, radians"
    )
    reach_turn_rad_per_s: float = Field(
        2.0, ge=0, description="growth of that angle, radians per second"
    )
    same_place_depths: float = Field(
        0.25,
        ge=0,
        description="maximum distance between two poses of the same place, median scene depths",
    )
    same_place_turn_rad: float = Field(
        0.3, ge=0, description="maximum angle between two poses of the same place, radians"
    )


class KeyframeConfig(_Stage):
    """When a frame becomes a keyframe."""

    min_interval: int = Field(1, ge=1, description="minimum number of frames between two keyframes")
    max_interval: int = Field(
        20, ge=1, description="number of frames after which a keyframe is always inserted"
    )
    min_tracked_fraction: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="insert a keyframe if less than this fraction of the reference keyframe's "
        "points is tracked",
    )
    min_close_points: int = Field(
        100,
        ge=0,
        description="insert a keyframe if fewer close points are tracked (stereo, RGB-D)",
    )
    min_new_close_ratio: float = Field(
        0.7,
        ge=0,
        description="minimum number of new close points of such a frame, ratio to min_close_points",
    )
    close_baselines: float = Field(
        40.0, gt=0, description="maximum depth of a close point, stereo baselines"
    )
    max_flow_fraction: float = Field(
        0.08,
        gt=0,
        lt=1,
        description="insert a keyframe if the median motion of the points exceeds this fraction of "
        "the image width",
    )


class MappingConfig(_Stage):
    """Triangulation, fusion and culling of points; culling of keyframes."""

    neighbors: int = Field(
        6, ge=1, description="number of covisible keyframes used to triangulate new points"
    )
    min_shared_points: int = Field(
        10,
        ge=1,
        description="minimum number of points that two keyframes share for triangulation and local "
        "bundle adjustment",
    )
    max_epipolar_px: float = Field(
        1.5, gt=0, description="maximum distance of a match to its epipolar line, pixels"
    )
    min_parallax_deg: float = Field(
        1.0, gt=0, description="minimum parallax of a triangulated point, degrees"
    )
    min_baseline_depth_ratio: float = Field(
        0.01, ge=0, description="minimum ratio of baseline to median depth for triangulation"
    )
    fuse_radius_px: float = Field(
        3.0, gt=0, description="search radius for duplicates of a projected point, pixels"
    )
    min_found_ratio: float = Field(
        0.25,
        ge=0,
        le=1,
        description="minimum fraction of the frames with a new point in view that find it; a point "
        "below is culled",
    )
    min_observations: int = Field(
        3,
        ge=2,
        description="minimum number of keyframes that see a point at the end of its probation",
    )
    probation_keyframes: int = Field(
        3, ge=1, description="length of a point's probation, keyframes"
    )
    proof_frames: int = Field(
        30,
        ge=1,
        description="number of frames with a point in view from which on min_proven_ratio applies",
    )
    min_proven_ratio: float = Field(
        0.33,
        ge=0,
        le=1,
        description="as min_found_ratio, for points of any age with at least proof_frames frames",
    )
    redundant_fraction: float = Field(
        0.9,
        gt=0,
        le=1,
        description="a keyframe is culled if enough other keyframes see at least this fraction of "
        "its points",
    )
    redundant_views: int = Field(
        3, ge=1, description="number of other keyframes that are enough for that"
    )


class MoversConfig(_Stage):
    """Points on objects that move."""

    probation_frames: int = Field(
        3,
        ge=0,
        le=1000,
        description="number of frames in which a new point must agree with the pose before it is "
        "proven static",
    )
    outlier_px: float = Field(
        1.0, ge=0, description="minimum reprojection error that contradicts a pose, pixels"
    )
    outlier_sigmas: float = Field(
        3.0,
        ge=0,
        description="minimum reprojection error that contradicts a pose, standard deviations of "
        "proven points",
    )
    min_alignment: float = Field(
        0.75,
        ge=0,
        le=1,
        description="minimum alignment of residuals that point the same way: length of their sum "
        "divided by the sum of their lengths",
    )
    min_pull_chi2: float = Field(
        100.0,
        ge=0,
        description="minimum shift of the proven points if aligned new points pull the pose away, "
        "chi-square",
    )
    takeover_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="ratio of proven inliers to those of the previous frame, below which new "
        "points took over the pose",
    )
    min_agreement_gain: float = Field(
        0.1,
        ge=0,
        le=1,
        description="minimum gain of the inlier rate, averaged over image cells, with which "
        "another motion becomes the pose",
    )
    min_explained: float = Field(
        0.45,
        ge=0,
        le=1,
        description="minimum fraction of the squared residuals that the means of image cells "
        "explain if there are two motions",
    )
    first_frames: int = Field(
        10,
        ge=0,
        le=30,
        description="number of frames after the first one in which another motion may replace the "
        "first map",
    )
    min_rival_gain: float = Field(
        0.015,
        ge=0,
        le=1,
        description="minimum drop of the truncated cost (0 to 1) with which it does",
    )


class BodyFixedConfig(_Stage):
    """Points that are fixed to the vehicle or robot that carries the camera."""

    radius_px: float = Field(
        1.01, gt=0, description="maximum motion of a keypoint that stays in place, pixels"
    )
    min_points: int = Field(
        10, ge=1, description="minimum number of keypoints in place before they are tested"
    )
    min_fraction: float = Field(
        0.02,
        ge=0,
        le=1,
        description="minimum number of keypoints in place before they are tested, fraction of all",
    )
    min_motion_px: float = Field(
        5.0, ge=0, description="minimum median motion of the other keypoints, pixels"
    )
    contradiction_px: float = Field(
        2.0,
        ge=0,
        description="minimum distance to where a static point would appear, pixels; a "
        "contradiction of twice that distance counts twice",
    )
    min_evidence: int = Field(
        2,
        ge=1,
        description="number of contradictions that prove that a point is fixed to the body",
    )


class BundleConfig(_Stage):
    """Local bundle adjustment."""

    enabled: bool = Field(True, description="refine keyframes and points after each new keyframe")
    window: int = Field(8, ge=2, description="number of keyframes that are optimised")
    max_fixed: int = Field(
        12, ge=1, description="maximum number of fixed keyframes around the window"
    )
    iterations: int = Field(8, ge=1, description="maximum number of Levenberg-Marquardt iterations")


class LoopConfig(_Stage):
    """Loop detection, loop closure and the pose graph."""

    enabled: bool = Field(True, description="detect loops and correct the map by them")
    near_candidates: int = Field(
        3, ge=0, description="maximum number of candidates near the estimated position"
    )
    similar_candidates: int = Field(
        3, ge=0, description="maximum number of candidates from place recognition"
    )
    similarity_companions: int = Field(
        4,
        ge=0,
        description="number of covisible keyframes whose similarity is added to a candidate's",
    )
    min_interval: int = Field(
        20, ge=2, description="minimum number of keyframes between the two ends of a loop"
    )
    max_distance_ratio: float = Field(
        0.05,
        ge=0,
        description="search radius for loop candidates, fraction of the path length since the "
        "candidate",
    )
    min_radius_depths: float = Field(
        0.3, ge=0, description="minimum search radius for loop candidates, median scene depths"
    )
    max_view_angle_deg: float = Field(
        45.0,
        gt=0,
        lt=180,
        description="maximum difference of the viewing direction of a loop candidate, degrees",
    )
    min_similarity: float = Field(
        0.5,
        ge=0,
        le=1,
        description="minimum similarity of a candidate, fraction of the similarity of keyframes "
        "that certainly show the same place",
    )
    confirmations: int = Field(
        2,
        ge=1,
        description="number of consecutive keyframes that must find a place before it is tried",
    )
    max_drift_ratio: float = Field(
        0.2,
        gt=0,
        description="maximum gap that a loop may close, fraction of the path length between its "
        "ends",
    )
    min_matches: int = Field(
        20, ge=6, description="minimum number of descriptor matches before a pose is computed"
    )
    min_inliers: int = Field(
        40, ge=10, description="minimum number of inliers of the pose that confirms a loop"
    )
    min_inlier_coverage: float = Field(
        0.06,
        ge=0,
        lt=1,
        description="minimum inlier coverage of a loop: fraction of the image area inside the "
        "convex hull of its inliers",
    )
    min_covisibility: int = Field(
        30,
        ge=1,
        description="minimum number of shared points of two keyframes with an edge in the pose "
        "graph",
    )
    sigma_inflation: float = Field(
        4.0,
        gt=0,
        description="factor on the standard deviations of a loop's pose, because its inliers are "
        "not independent",
    )
    min_scale_sigma: float = Field(
        3e-3,
        gt=0,
        description="minimum standard deviation of the logarithm of a loop's scale (mono)",
    )
    min_scale_points: int = Field(
        15,
        ge=2,
        description="minimum number of common points from which a loop's scale is computed (mono)",
    )
    max_rivals: int = Field(
        5,
        ge=0,
        description="maximum number of similar places that are compared before two submaps are "
        "merged",
    )
    merge_turn_rad: float = Field(
        0.05,
        ge=0,
        description="maximum angle between two loops that merge two submaps, radians",
    )
    merge_shift_depths: float = Field(
        0.1,
        ge=0,
        description="maximum distance between two loops that merge two submaps, median scene "
        "depths",
    )
    merge_scale_ratio: float = Field(
        1.1,
        ge=1,
        description="maximum ratio of the scales of two loops that merge two submaps",
    )
    cooldown: int = Field(
        5,
        ge=0,
        description="number of keyframes after a closed loop during which no other is tried",
    )


class GlobalBundleConfig(_Stage):
    """Bundle adjustment of a whole submap after a closed loop."""

    delay: int = Field(
        10,
        ge=0,
        description="number of keyframes after a closed loop at which the result enters the map; "
        "0: no global bundle adjustment",
    )
    iterations: int = Field(
        16, ge=1, description="maximum number of Levenberg-Marquardt iterations"
    )


class LossDiagnosisConfig(_Stage):
    """Diagnosis of lost tracking: it is reported and has no effect on poses."""

    recent_frames: int = Field(
        30, ge=1, description="number of recent tracked frames that define the usual values"
    )
    dark_ratio: float = Field(
        0.3, ge=0, le=1, description="brightness below which an image is dark, ratio to the usual"
    )
    blurred_ratio: float = Field(
        0.6, ge=0, le=1, description="sharpness below which an image is blurred, ratio to the usual"
    )
    faded_ratio: float = Field(
        0.2,
        ge=0,
        le=1,
        description="contrast below which an image has no texture, ratio to the usual",
    )
    few_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="number of keypoints below which there are too few, ratio to the usual",
    )
    max_motion_fraction: float = Field(
        0.25,
        ge=0,
        le=1,
        description="median motion of the matches above which the view jumped, fraction of the "
        "image width",
    )


class Config(_Stage):
    """All stages of a run."""

    seed: int = Field(0, ge=0, description="seed of all random numbers")
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
    """Names of the built-in configurations in a folder of the package's configs.

    Args:
        folder: the folder; empty: the configurations of runs.
    """
    entries = resources.files("spslam.configs").joinpath(folder).iterdir()
    return sorted(entry.name[:-5] for entry in entries if entry.name.endswith(".yaml"))


def config_for(dataset: str, sensor: str) -> str:
    """The built-in configuration for a data set and sensor; `default` if neither has its own."""
    name = f"{dataset}_{sensor}"
    return name if name in config_names() else "default"


def load_config(name_or_path: str | Path = "default", overrides: list[str] | None = None) -> Config:
    """Load a built-in configuration by name or a YAML file by path.

    Args:
        name_or_path: `default`, `kitti_stereo`, … or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value; the message
            names the key.
    """
    values = load_values(str(name_or_path), overrides)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"config {name_or_path}: {describe_errors(error)}") from None


def load_values(
    name_or_path: str, overrides: list[str] | None = None, folder: str = ""
) -> dict[str, Any]:
    """Load a YAML file, merged with the files it extends and with the overrides.

    Args:
        name_or_path: a name in the package's configs, or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.
        folder: the folder of the package's configs with that name; empty: those of runs.

    Raises:
        ConfigError: unknown name, unreadable file, or a file that is no mapping.
    """
    values = _load_chain(name_or_path, (), folder)
    for override in overrides or []:
        values = _merge(
            values, _today(_parse_override(override), f"override {shown(override)}", folder)
        )
    return values


def with_new_names(
    values: Mapping[str, Any], names: Mapping[str, str] = RENAMED_KEYS
) -> tuple[dict[str, Any], list[str]]:
    """Rename the old keys of `RENAMED_KEYS` in the values of one file or override.

    Returns:
        The values with new names, and the old names that were found.

    Raises:
        ConfigError: a key is given under both names.
    """
    renamed: dict[str, Any] = dict(values)
    found = []
    for old, new in names.items():
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
    """Rename the old keys of a run's configuration; a notice names each."""
    names = RENAMED_TRAINING_KEYS if folder == "training" else {} if folder else RENAMED_KEYS
    try:
        values, found = with_new_names(values, names)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for old in found:
        text = "%s: %s is called %s now; the old name ends with the next release"
        notice(_logger, "renamed_key", text, where, old, names[old])
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
            f"config {chain[0]} extends {_LONGEST_CHAIN} others in a chain: use fewer files"
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
    # Rename before merging: a new name in this file overrides an old name in the files it extends.
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
            f"override {shown(text)}: expected section.key=value, "
            "for example tracking.min_inliers=15"
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
    """Describe the mistakes of a configuration in one line, with their keys."""
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
