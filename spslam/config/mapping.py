"""Settings of mapping: keyframes, points, bundle adjustment and loops."""

from __future__ import annotations

from pydantic import Field

from spslam.config.stage import Stage


class KeyframeConfig(Stage):
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
    many_points: int = Field(
        120,
        ge=0,
        description="number of tracked points from which min_fraction_of_many replaces a larger "
        "min_tracked_fraction",
    )
    min_fraction_of_many: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="as min_tracked_fraction, for frames of a single camera with at least "
        "many_points tracked points",
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


class MappingConfig(Stage):
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


class BundleConfig(Stage):
    """Local bundle adjustment."""

    enabled: bool = Field(True, description="refine keyframes and points after each new keyframe")
    window: int = Field(8, ge=2, description="number of keyframes that are optimised")
    max_fixed: int = Field(
        12, ge=1, description="maximum number of fixed keyframes around the window"
    )
    iterations: int = Field(8, ge=1, description="maximum number of Levenberg-Marquardt iterations")


class LoopConfig(Stage):
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


class GlobalBundleConfig(Stage):
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
