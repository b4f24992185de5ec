"""Settings of tracking: first map, pose, lost cameras, and what moves by itself."""

from __future__ import annotations

from pydantic import Field

from spslam.config.stage import Stage


class InitializationConfig(Stage):
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


class TrackingConfig(Stage):
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
        "with fewer, unless fewer are usual, search_radius_px is tried",
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


class RelocalizationConfig(Stage):
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


class MoversConfig(Stage):
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


class BodyFixedConfig(Stage):
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


class LossDiagnosisConfig(Stage):
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
