"""Checks of a map from a file: every value must be one that a run can write.

`spslam.map.io.load_map` calls them before it returns a map, so that all commands refuse the same
files. Bounds are wide: they refuse impossible values, not unusual ones.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.codebook import KEY_PREFIX
from spslam.frame import SIGMA_RANGE, Sensor, are_sigmas
from spslam.map.map import NO_POINT, Map, Origin
from spslam.notices import counted

# Largest length, time or pixel, in any unit: the square of a larger one could overflow.
_LARGEST = 1e20
# Largest entry of an inverse covariance, whose lengths can be as small as 1e-6.
_MOST_INFORMATION = 1e60
# Largest deviation of a rotation from orthonormal, of a scale from 1 and of a symmetric matrix,
# relative. Maps stay within rounding errors, which are far smaller.
_ROUNDING = 1e-3
# Largest id: the product of two must fit 64 bits.
_MOST_IDS = 1 << 31
# Largest mean number of points per keyframe. A keyframe has at most 20,000 keypoints and creates at
# most one point for each of them.
_MOST_POINTS_PER_KEYFRAME = 100_000
# Numbers of channels of the images of keyframes; 0: unknown.
_CHANNELS = (0, 1, 3)
# Largest number of entries of a descriptor.
_MOST_DESCRIPTOR = 1 << 16
# Largest width or height of an image, pixels.
_MOST_PIXELS = 1 << 20
# Arrays of the codebook in a place index.
_CENTRES, _PROJECTION = KEY_PREFIX + "centres", KEY_PREFIX + "projection"
# Arrays of a place index: type and number of axes (see `spslam.interfaces.PlaceRecognizer.arrays`).
_PLACES = {
    "ids": (np.int64, 1),
    "vectors": (np.float32, 2),
    _CENTRES: (np.float32, 2),
    _PROJECTION: (np.float32, 2),
}
# Arrays that a place index can lack.
_OPTIONAL_PLACES = {_PROJECTION}


def check_ids(next_point_id: int, next_keyframe_id: int) -> None:
    """Check the next ids, before tables are made by id.

    Args:
        next_point_id: Id of the next new point.
        next_keyframe_id: Id of the next new keyframe.

    Raises:
        ValueError: An id is negative or larger than any run reaches.
    """
    if not (0 <= next_keyframe_id <= _MOST_IDS and 0 <= next_point_id <= _MOST_IDS):
        raise ValueError(
            f"the next ids {next_point_id} and {next_keyframe_id} are not within 0 to {_MOST_IDS}"
        )
    if next_point_id > _MOST_POINTS_PER_KEYFRAME * next_keyframe_id:
        raise ValueError(
            f"{next_point_id} points of {next_keyframe_id} keyframes are more than a run creates"
        )


def check_descriptors(
    points: NDArray[Any], observations: NDArray[Any], scale: NDArray[Any]
) -> None:
    """Check 8-bit descriptors of points (P, D) and observations (O, D), and their scale.

    Args:
        points: Descriptors of points, int8.
        observations: Descriptors of observations, int8.
        scale: Scalar that the integers are multiplied by.

    Raises:
        ValueError: They differ in width, or cannot be unit vectors with this scale.
    """
    for name, values in (("points", points), ("observations", observations)):
        if values.dtype != np.int8 or values.ndim != 2:
            raise ValueError(
                f"descriptors of {name} must be (rows, numbers) of 8 bits, "
                f"found {_described(values)}"
            )
    if points.shape[1] != observations.shape[1]:
        raise ValueError(
            f"descriptors of points have {points.shape[1]} numbers, "
            f"those of observations {observations.shape[1]}"
        )
    if not points.shape[1] <= _MOST_DESCRIPTOR or (
        points.shape[1] == 0 and len(points) + len(observations)
    ):
        raise ValueError(f"descriptors of {points.shape[1]} numbers")
    # The scale is the largest entry / 127. The entries of unit vectors are at most 1; a map without
    # descriptors has a tiny scale.
    if scale.shape != () or scale.dtype.kind != "f" or not 0.9e-6 < 127 * float(scale) < 2:
        raise ValueError(
            "the scale of descriptors must be a number from 1e-6/127 to 1/127, "
            f"found {_described(scale)}"
        )


def check_tables(slam_map: Map, next_ids: tuple[int, int]) -> None:
    """Check that the tables of a map fit together.

    Args:
        slam_map: Map whose tables were filled.
        next_ids: Ids of its next point and its next keyframe.

    Raises:
        ValueError: Ids do not ascend or do not exist, or poses or points are not finite.
    """
    next_point_id, next_keyframe_id = next_ids
    point_ids, keyframe_ids = slam_map.points["id"], slam_map.keyframes["id"]
    linked = slam_map.observations["point"]
    for ids, end in ((point_ids, next_point_id), (keyframe_ids, next_keyframe_id)):
        # Comparisons instead of differences: differences of arbitrary ids can overflow.
        if (ids[1:] <= ids[:-1]).any() or (len(ids) and not 0 <= ids[0] <= ids[-1] < end):
            raise ValueError("ids do not ascend")
    if (slam_map.observations["keyframe"][1:] < slam_map.observations["keyframe"][:-1]).any():
        raise ValueError("observations are out of order")
    named = (
        (slam_map.observations["keyframe"], keyframe_ids),
        (linked[linked != NO_POINT], point_ids),
        (slam_map.loops["i"], keyframe_ids),
        (slam_map.loops["j"], keyframe_ids),
    )
    if not all(np.isin(ids, known).all() for ids, known in named):
        raise ValueError("it refers to keyframes or points that are not there")
    for values in (
        slam_map.positions,
        slam_map.T_world_keyframe,
        slam_map.loops["S_i_j"],
        slam_map.loops["information"],
    ):
        if not np.isfinite(values).all():
            raise ValueError("poses or points are not finite")


def check_map(slam_map: Map, places: dict[str, NDArray[Any]]) -> None:
    """Check the values in a map's tables, its origin and its place index.

    Args:
        slam_map: Map whose tables fit together (see `check_tables`).
        places: Arrays of the place index by name; empty: no index.

    Raises:
        ValueError: A value that no run writes; the message names it.
    """
    _check_keyframes(slam_map)
    _check_points(slam_map)
    observations = slam_map.observations
    _check_lengths(observations["pixel"], "keypoints")
    _check_lengths(observations["u_right"], "keypoints in the right image", nan=True)
    if not are_sigmas(observations["relative_sigma"]):
        least, largest = SIGMA_RANGE
        raise ValueError(
            "relative standard deviations of keypoints that are not within "
            f"{least:g} to {largest:g}"
        )
    # A depth can be infinite: with `stereo.min_disparity=0`, a disparity of 0 is valid.
    nearest = float(np.fmin.reduce(observations["depth"], initial=0))
    if nearest < 0:
        raise ValueError(f"a depth of {nearest:g} m")
    _check_loops(slam_map)
    if len(slam_map.keyframes) and slam_map.origin is None:
        raise ValueError(
            "it does not say which camera recorded its "
            f"{counted(len(slam_map.keyframes), 'keyframe')}"
        )
    _check_places(places, slam_map)


def read_origin(values: Any) -> Origin | None:
    """Return the origin from parsed JSON; None for null.

    Raises:
        ValueError: Fields are missing, of another type or unknown.
        CalibrationError: The camera's values are impossible.
    """
    if values is None:
        return None
    fields = _fields(values, "its origin", {"sensor", "camera", "extractor", "scale"})
    if fields["sensor"] not in get_args(Sensor):
        raise ValueError(
            f"its sensor is {fields['sensor']!r}: expected one of {', '.join(get_args(Sensor))}"
        )
    for name in ("extractor", "scale"):
        text = fields[name]
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise ValueError(f"its {name} must be a line of text, found {text!r:.80}")
    camera = _read_camera(fields["camera"])
    if (fields["sensor"] == "mono") == camera.has_depth:
        raise ValueError(
            f"a {fields['sensor']} map whose camera has a baseline of {camera.baseline_m} m"
        )
    return Origin(
        camera=camera, **{name: fields[name] for name in ("sensor", "extractor", "scale")}
    )


def _read_camera(values: Any) -> Camera:
    known = set(Camera.__dataclass_fields__)
    # Fields that earlier versions did not write have defaults.
    needed = known - {"readout_s", "fps", "baseline_m", "distortion", "distortion_model"}
    fields = _fields(values, "its camera", needed, known)
    for name in ("width", "height"):
        if type(fields[name]) is not int or not 0 < fields[name] <= _MOST_PIXELS:
            raise ValueError(
                f"its camera's {name} must be a number of pixels, found {fields[name]!r:.80}"
            )
    model, distortion = fields.get("distortion_model", "none"), fields.get("distortion", [])
    if not isinstance(model, str) or not isinstance(distortion, list):
        raise ValueError(
            "its camera's distortion must be a name and numbers, "
            f"found {model!r:.80}, {distortion!r:.80}"
        )
    numbers = {
        name: value
        for name, value in fields.items()
        if name not in ("width", "height", "distortion_model", "distortion")
        and (name, value) != ("baseline_m", None)
    }
    for name, value in (*numbers.items(), *(("distortion", value) for value in distortion)):
        if type(value) not in (int, float) or not abs(value) < _LARGEST:
            raise ValueError(f"its camera's {name} must be a number, found {value!r:.80}")
    return Camera(**(fields | {"distortion": tuple(distortion)}))


def _fields(
    values: Any, of: str, needed: set[str], known: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{of} must be named values, found {values!r:.80}")
    if missing := needed - values.keys():
        raise ValueError(f"{of} lacks {', '.join(sorted(missing))}")
    if unknown := values.keys() - (known or needed):
        raise ValueError(f"{of} has {min(unknown)!r:.80}, which is unknown")
    return values


def _check_keyframes(slam_map: Map) -> None:
    keyframes, (_, end) = slam_map.keyframes, slam_map.next_ids
    _check_lengths(keyframes["timestamp"], "timestamps")
    _check_range(keyframes["frame"], "frames of keyframes")
    # Every submap and session has a keyframe, so their numbers are below the next keyframe id.
    _check_range(keyframes["submap"], "submaps", end)
    _check_range(keyframes["session"], "sessions", end)
    _check_similarities(keyframes["T_world_cam"], "poses of keyframes", scaled=False)
    channels = keyframes["channels"]
    if not np.isin(channels, _CHANNELS).all():
        raise ValueError(
            f"channels of the images of keyframes must be 0, 1 or 3, "
            f"found {channels.min()} to {channels.max()}"
        )


def _check_points(slam_map: Map) -> None:
    points = slam_map.points
    _check_lengths(points["position"], "points")
    _check_range(points["born"], "keyframes that created points (born)", slam_map.next_ids[1])
    for name in ("visible", "found"):
        _check_range(points[name], f"counts of how often points were {name}")
    _check_lengths(points["distance"], "distances of points")
    if (points["distance"] < 0).any():
        raise ValueError(f"a point has the distance {points['distance'].min():g} from its camera")
    _check_lengths(points["normal"], "mean viewing directions")
    lengths = np.linalg.norm(points["normal"], axis=1)
    if not (lengths <= 1 + _ROUNDING).all():
        raise ValueError(
            f"a mean viewing direction has the length {lengths.max():g}, expected at most 1"
        )


def _check_loops(slam_map: Map) -> None:
    loops = slam_map.loops
    _check_similarities(loops["S_i_j"], "loop edges", scaled=True)
    if (loops["i"] == loops["j"]).any():
        raise ValueError("a loop edge joins a keyframe with itself")
    _check_range(loops["inliers"], "points that confirm loop edges")
    information = loops["information"]
    if not (np.abs(information) < _MOST_INFORMATION).all():
        raise ValueError("the information of a loop edge is not finite")
    largest = np.abs(information).max(axis=(1, 2), initial=0)
    skewed = np.abs(information - information.swapaxes(1, 2)).max(axis=(1, 2), initial=0)
    negative = np.diagonal(information, axis1=1, axis2=2).min(axis=1, initial=0)
    if (skewed > _ROUNDING * largest).any() or (negative < 0).any():
        raise ValueError("the information of a loop edge is no inverse covariance")


def _check_places(places: dict[str, NDArray[Any]], slam_map: Map) -> None:
    if not places:
        return
    if unknown := places.keys() - _PLACES.keys():
        raise ValueError(f"its place index has {min(unknown)!r:.80}, which is unknown")
    if missing := _PLACES.keys() - _OPTIONAL_PLACES - places.keys():
        raise ValueError(f"its place index lacks {', '.join(sorted(missing))}")
    for name, values in places.items():
        dtype, axes = _PLACES[name]
        if values.dtype.newbyteorder("=") != dtype or values.ndim != axes:
            raise ValueError(
                f"{name} of its place index must be {np.dtype(dtype)} with {axes} axes, "
                f"found {_described(values)}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name} of its place index is not finite")
    ids, vectors, centres = places["ids"], places["vectors"], places[_CENTRES]
    if (ids[1:] <= ids[:-1]).any() or not np.isin(ids, slam_map.keyframes["id"]).all():
        raise ValueError("its place index names missing keyframes, or one keyframe twice")
    # An index without keyframes does not know the length of its vectors yet.
    if vectors.shape != (len(ids), centres.size) and len(ids) + len(vectors):
        raise ValueError(
            f"its place index has {vectors.shape[0]} vectors of {vectors.shape[1]} numbers for "
            f"{counted(len(ids), 'keyframe')} and {counted(centres.shape[0], 'centre')} of "
            f"{centres.shape[1]}"
        )
    projection = places.get(_PROJECTION)
    rows, width = (centres.shape[1],) * 2 if projection is None else projection.shape
    if (rows, width) != (centres.shape[1], slam_map.descriptor_size):
        raise ValueError(
            f"its place index projects descriptors of {width} numbers to {rows}, its points have "
            f"{slam_map.descriptor_size} and its centres {centres.shape[1]}"
        )


def _check_lengths(values: NDArray[np.float64], name: str, nan: bool = False) -> None:
    """Check that values are finite and below `_LARGEST`; with `nan`, NaN stands for unknown."""
    # No temporary arrays: a map has millions of keypoints.
    least, most = (np.fmin, np.fmax) if nan else (np.minimum, np.maximum)
    found = (
        float(least.reduce(values, axis=None, initial=0)),
        float(most.reduce(values, axis=None, initial=0)),
    )
    if not (found[0] > -_LARGEST and found[1] < _LARGEST):
        raise ValueError(f"{name} must be finite, found {found[0]:g} to {found[1]:g}")


def _check_range(values: NDArray[np.int64], name: str, end: int | None = None) -> None:
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    if least < 0 or (end is not None and most >= max(end, 1)):
        raise ValueError(
            f"{name} must be 0 {'or more' if end is None else f'to {end - 1}'}, "
            f"found {least} to {most}"
        )


def _check_similarities(S: NDArray[np.float64], name: str, scaled: bool) -> None:
    """Check that S (N, 4, 4) are rigid motions or, with `scaled`, similarities."""
    _check_lengths(S, name)
    block = S[:, :3, :3]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scales = geometry.similarity_scale(S)
        products = block @ block.swapaxes(1, 2) / np.square(scales)[:, None, None]
        good = (
            (np.abs(products - np.eye(3)).max(axis=(1, 2), initial=0) < _ROUNDING)
            & (np.linalg.det(block) > 0)
            & (S[:, 3] == (0.0, 0.0, 0.0, 1.0)).all(axis=1)
            & (True if scaled else np.abs(scales - 1.0) < _ROUNDING)
        )
    if not good.all():
        raise ValueError(
            f"{name}: number {int(np.argmin(good))} "
            f"is no {'similarity' if scaled else 'rigid motion'}"
        )


def _described(values: NDArray[Any]) -> str:
    return f"{values.item()!r:.40}" if values.shape == () else f"{values.dtype} {values.shape}"
