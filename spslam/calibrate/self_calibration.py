"""Self-calibration: find the camera of a recording from its images alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.calibrate.adjustment import Adjusted, Prior, adjust
from spslam.calibrate.exif import focal_length_from_exif
from spslam.calibrate.frames import LEAST_FRAMES, choose, examine, read_chosen
from spslam.calibrate.mapping import Mapper, Model, load_pycolmap
from spslam.calibrate.model import NAMES, Intrinsics, Structure
from spslam.callbacks import ignore
from spslam.camera import Camera
from spslam.config import FeatureConfig, MatchingConfig
from spslam.errors import CalibrationError
from spslam.features.h5 import StoredFeatures
from spslam.geometry import rotation_angle
from spslam.interfaces import Extractor, Matcher, Sequence
from spslam.io.files import temporary_folder
from spslam.notices import counted, notice
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)
_NEAREST = MatchingConfig()
# First guesses of the focal length, longer sides of the image: cameras of robots and cars, whose
# field of view is wide; then COLMAP's, for photographs.
_GUESSES = (0.7, 1.2)
# Longer side of the images in which features are extracted, pixels, and their number.
_LARGEST, _KEYPOINTS = 960, 600
# Least fraction of the images that a model must register.
_LEAST_REGISTERED = 0.5
# Plausible focal lengths, longer sides of the image: fields of view of 136 and 8 degrees.
_SHORTEST, _LONGEST = 0.2, 7.0
# Number of points of the last adjustment, those with the most observations.
_MOST_POINTS = 1500
# Standard deviations before the images are seen: of k1 and k2, and of the principal point as a
# fraction of the longer side.
_LENS_SIGMA, _CENTRE_SIGMA = 0.1, 0.015
# Error of an observation against which these count, pixels. It is far larger than that of a
# keypoint: errors of neighbouring observations are correlated, and a hundred count as one.
_OBSERVATION_PX = 10.0
_FREE = ("f", "k1", "k2", "cx", "cy")
# Least relative standard deviation of the focal length. Below it, what the model leaves out counts
# for more than noise: tangential distortion, pixels that are not square, biases of keypoints.
_LEAST_SIGMA = 0.005
# Relative standard deviation of the focal length above which it is refused, and doubted.
_REFUSED_SIGMA, _DOUBTED_SIGMA = 0.05, 0.02
# Least median angle between the outer rays of a point, degrees.
_LEAST_PARALLAX_DEG = 1.5
# Fraction of the pairs of images that one homography explains, above which the camera seems to
# turn only, or to see one plane only; and above which this is certain.
_FLAT = 0.8
_ALL_FLAT = 0.95
# Thickness of the points about their best plane, fraction of their width, below which the scene
# counts as a plane.
_THIN = 0.01
# Range of the directions, degrees, below which the camera does not turn.
_NO_TURN_DEG = 4.0
# Median residual above which the lens model does not fit, pixels.
_DOUBTED_RESIDUAL_PX = 2.0


@dataclass(frozen=True)
class SelfCalibration:
    """A camera that was found from the images of a recording.

    Attributes:
        camera: the camera.
        sigmas: standard deviation of each estimated parameter: f, k1, k2, cx, cy.
        images: number of the images that were used.
        registered: number of those that the model explains.
        points: number of points of the model.
        residual_px: median distance of an observation from its point, pixels.
        parallax_deg: median angle between the outer rays of a point, degrees.
        fps_known: whether the rate of the camera is the recording's own.
        doubts: reasons not to trust the result, one line each.
    """

    camera: Camera
    sigmas: dict[str, float]
    images: int
    registered: int
    points: int
    residual_px: float
    parallax_deg: float
    fps_known: bool
    doubts: tuple[str, ...]

    @property
    def field_of_view_deg(self) -> tuple[float, float]:
        """Horizontal and vertical field of view without distortion, degrees."""
        camera = self.camera
        across = (camera.width / (2 * camera.fx), camera.height / (2 * camera.fy))
        horizontal, vertical = (math.degrees(2 * math.atan(half)) for half in across)
        return horizontal, vertical


def calibrate_frames(
    frames: Sequence,
    progress: Callable[[str, int, int], None] = ignore,
    matching: MatchingConfig = _NEAREST,
) -> SelfCalibration:
    """Find the camera of a recording; equal images give equal results.

    Args:
        frames: the recording; its calibration is not used.
        progress: called with what is being done, and how much of it is done, and of all.
        matching: how pairs of images are matched.

    Raises:
        CalibrationError: the images do not determine the camera; the message says why.
        ConfigError: a learned matcher is demanded, but there are no weights.
        DatasetError: images cannot be read.
        MissingDependencyError: pycolmap is not installed.
        WeightsError: the learned matcher cannot be used, or belongs to other weights.
    """
    load_pycolmap()
    extractor, matcher = _front_end(matching)
    examined = examine(frames, lambda done, of: progress("examining frames", done, of))
    chosen = choose(examined)
    if len(chosen) < LEAST_FRAMES:
        raise _refused(
            frames,
            f"the image moves too little: {counted(len(examined.index), 'frame')} give only "
            f"{len(chosen)} different views",
        )
    features = _features(extractor, frames, chosen, progress)
    width, height = features[0][1].image_size
    with temporary_folder("spslam-calibrate-") as folder:
        matched = Mapper(
            folder,
            features,
            matcher,
            extractor.max_descriptor_distance,
            lambda done, of: progress("matching", done, of),
        )
        flat = matched.flat_fraction()
        if flat > _ALL_FLAT:
            raise _refused(
                frames,
                f"one homography explains {100 * flat:.0f} % of the pairs of images: the camera "
                "only turns, or sees one plane only",
            )
        model = _best_model(matched, frames, len(chosen), flat, progress)
    progress("adjusting", 0, 1)
    start = Intrinsics.central(width, height, model.intrinsics["f"], model.intrinsics["k1"])
    adjusted = adjust(model.structure.longest(_MOST_POINTS), start, _FREE, _prior(start))
    return judge(adjusted, len(chosen), flat, frames)


def judge(adjusted: Adjusted, images: int, flat: float, frames: Sequence) -> SelfCalibration:
    """Decide whether a camera may be used.

    Args:
        adjusted: the camera and the structure.
        images: number of the images that were tried.
        flat: fraction of the pairs of images that one homography explains.
        frames: the recording.

    Raises:
        CalibrationError: the motion does not determine the camera.
    """
    structure, camera = adjusted.structure, adjusted.intrinsics
    # Motion that does not determine the camera shows in the images; the prior of an unknown lens
    # only gives a doubt.
    relative = adjusted.sigma("f", with_bias=False) / camera["f"]
    whole = adjusted.sigma("f") / camera["f"]
    parallax = median_parallax_deg(structure)
    reasons = _reasons(structure, parallax, flat)
    why = f": {'; '.join(reasons)}" if reasons else ""
    if parallax < _LEAST_PARALLAX_DEG or not math.isfinite(relative):
        raise _refused(frames, f"the motion does not determine the focal length{why}")
    if relative > _REFUSED_SIGMA or not _plausible(camera):
        raise _refused(
            frames,
            f"the motion does not determine the focal length ({camera['f']:.4g} ± "
            f"{adjusted.sigma('f'):.2g} px){why}",
        )
    residual = float(np.median(np.linalg.norm(adjusted.residuals, axis=1)))
    doubts = list(reasons)
    if whole > _DOUBTED_SIGMA:
        unless = "" if relative > _DOUBTED_SIGMA else ", unless the lens has no distortion"
        doubts.append(f"the focal length is known to {100 * whole:.1f} % only{unless}")
    if residual > _DOUBTED_RESIDUAL_PX:
        doubts.append(
            f"points are {residual:.1f} px off: is the lens a fisheye, or the image stabilised?"
        )
    return SelfCalibration(
        camera.camera(frames.camera.fps),
        {name: adjusted.sigma(name) for name in adjusted.free}
        | {"f": math.hypot(adjusted.sigma("f"), _LEAST_SIGMA * camera["f"])},
        images,
        len(structure.names),
        len(structure.points),
        residual,
        parallax,
        frames.dataset == "video" or frames.time_unit != "frames",
        tuple(doubts),
    )


def median_parallax_deg(structure: Structure) -> float:
    """Return the median, over points, of the angle between the first and the farthest ray.

    It is at least half of the largest angle between two rays of a point.
    """
    R, t = structure.T_cam_world[:, :3, :3], structure.T_cam_world[:, :3, 3]
    centres = -np.einsum("nji,nj->ni", R, t)
    rays = structure.points[structure.point] - centres[structure.image]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    order = np.argsort(structure.point, kind="stable")
    firsts = order[np.searchsorted(structure.point[order], np.arange(len(structure.points)))]
    cosine = np.einsum("ki,ki->k", rays, rays[firsts][structure.point])
    least = np.ones(len(structure.points))
    np.minimum.at(least, structure.point, cosine)
    return float(np.degrees(np.median(np.arccos(np.clip(least, -1.0, 1.0)))))


def _reasons(structure: Structure, parallax: float, flat: float) -> list[str]:
    """Return what the motion or the scene lacks."""
    reasons = []
    R = structure.T_cam_world[:, :3, :3]
    turned = float(np.degrees(rotation_angle(R @ R[0].T).max()))
    if parallax < _LEAST_PARALLAX_DEG:
        reasons.append(f"there is too little parallax ({parallax:.1f}°): walk, do not only turn")
    elif flat > _FLAT:
        reasons.append("one homography explains most pairs: the camera only turns, or sees a plane")
    if _thickness(structure.points) < _THIN:
        reasons.append("all points lie on one plane")
    if turned < _NO_TURN_DEG:
        reasons.append(f"the camera hardly turns ({turned:.1f}°), it moves straight on")
    return reasons


def _thickness(points: FloatArray) -> float:
    """Return the median distance of points (M, 3) from their plane, fraction of their spread."""
    away = points - points.mean(axis=0)
    along = np.abs(away @ np.linalg.svd(away, full_matrices=False)[2].T)
    return float(np.median(along[:, 2]) / max(np.median(along[:, 1]), 1e-300))


def _front_end(matching: MatchingConfig) -> tuple[Extractor, Matcher]:
    """Create the extractor and the matcher."""
    from spslam.factory import create_matcher
    from spslam.frontend.extractors.registry import create_extractor
    from spslam.frontend.superpoint.checkpoints import find_weights

    extractor = create_extractor(FeatureConfig(max_keypoints=_KEYPOINTS))
    return extractor, create_matcher(matching, extractor, find_weights())


def _features(
    extractor: Extractor,
    frames: Sequence,
    chosen: NDArray[np.int64],
    progress: Callable[[str, int, int], None],
) -> list[tuple[str, StoredFeatures]]:
    """Extract the features of the chosen frames."""
    from spslam.features.extraction import extract_scaled

    found = []
    for index, image in read_chosen(frames, chosen):
        found.append((f"frame{index:06d}", extract_scaled(extractor, image, _LARGEST)))
        progress("extracting features", len(found), len(chosen))
    return found


def _best_model(
    matched: Mapper,
    frames: Sequence,
    images: int,
    flat: float,
    progress: Callable[[str, int, int], None],
) -> Model:
    """Map with several first guesses until a model holds.

    Raises:
        CalibrationError: none holds.
    """
    width, height = matched.size
    guesses = [guess * max(width, height) for guess in _GUESSES]
    known = _focal_of_photographs(frames)
    if known is not None:
        guesses.insert(0, known)
    best: Model | None = None
    for done, focal in enumerate(guesses):
        progress("mapping", done, len(guesses))
        models = [model for model in matched.models(focal) if _plausible(model.intrinsics)]
        for model in models[:1]:
            if best is None or len(model.structure.names) > len(best.structure.names):
                best = model
        if best is not None and len(best.structure.names) >= _LEAST_REGISTERED * images:
            _tell_dropped(models[1:])
            return best
    count = 0 if best is None else len(best.structure.names)
    reason = f"only {count} of {images} images fit together"
    if flat > _FLAT:
        reason += "; one homography explains most pairs: the camera only turns, or sees a plane"
    raise _refused(frames, reason)


def _tell_dropped(models: list[Model]) -> None:
    for model in models:
        text = "self-calibration: a smaller model of %s (focal length %.0f px) is dropped"
        count = counted(len(model.structure.names), "image")
        notice(_LOG, "dropped_model", text, count, model.intrinsics["f"])


def _focal_of_photographs(frames: Sequence) -> float | None:
    """Return the focal length in the Exif data of the first image, pixels; None if unknown."""
    source = Path(frames.source)
    if not source.is_dir():
        return None
    from spslam.datasets.images.decoding import list_files

    first = next(iter(list_files(source)), None)
    if first is None:
        return None
    return focal_length_from_exif(first, frames.camera.width, frames.camera.height)


def _plausible(intrinsics: Intrinsics) -> bool:
    return _SHORTEST < intrinsics["f"] / max(intrinsics.width, intrinsics.height) < _LONGEST


def _prior(start: Intrinsics) -> Prior:
    """Return the prior of lens and principal point: an ideal lens in the middle of the image."""
    sigma = np.full(len(NAMES), np.inf)
    centre = _CENTRE_SIGMA * max(start.width, start.height)
    for name, value in (("k1", _LENS_SIGMA), ("k2", _LENS_SIGMA), ("cx", centre), ("cy", centre)):
        sigma[NAMES.index(name)] = value
    mean = Intrinsics.central(start.width, start.height, start["f"]).values
    return Prior(mean, sigma, _OBSERVATION_PX)


def _refused(frames: Sequence, reason: str) -> CalibrationError:
    return CalibrationError(
        f"{frames.name} cannot be self-calibrated: {reason}; give --calibration FILE, or record "
        "while you walk and turn in a room"
    )
