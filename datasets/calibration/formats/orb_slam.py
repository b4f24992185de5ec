"""Settings of ORB-SLAM2 and ORB-SLAM3, and of stella_vslam (OpenVSLAM)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spslam.errors import CalibrationError
from spslam.io.structured_text import shown

from ..rectify import rectified_camera
from .rig import FoundCamera, Rig, from_rectification, side_by_side
from .source import Source
from .values import (
    Values,
    first_of,
    mapping,
    matrix,
    number,
    numbers,
    of_matrix,
    optional,
    rotation,
    size_of,
    transform,
)

if TYPE_CHECKING:
    from spslam.camera import Camera

    from ..calibration import Calibration

ORB, STELLA = "an ORB-SLAM settings file", "a settings file of stella_vslam (OpenVSLAM)"
_FISHEYE, _RADTAN = ("k1", "k2", "k3", "k4"), ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_MODELS = {
    "": "pinhole",
    "pinhole": "pinhole",
    "perspective": "pinhole",
    "rectified": "rectified",
    "kannalabrandt8": "fisheye",
    "fisheye": "fisheye",
}
# What ORB-SLAM3 needs besides the camera, with the values of its own examples.
_OTHER_SETTINGS = """\
ORBextractor.nFeatures: 1200
ORBextractor.scaleFactor: 1.2
ORBextractor.nLevels: 8
ORBextractor.iniThFAST: 20
ORBextractor.minThFAST: 7
Viewer.KeyFrameSize: 0.05
Viewer.KeyFrameLineWidth: 1.0
Viewer.GraphLineWidth: 0.9
Viewer.PointSize: 2.0
Viewer.CameraSize: 0.08
Viewer.CameraLineWidth: 3.0
Viewer.ViewpointX: 0.0
Viewer.ViewpointY: -0.7
Viewer.ViewpointZ: -3.5
Viewer.ViewpointF: 500.0
"""


def is_orb_slam(source: Source) -> bool:
    """Return whether a file is of ORB-SLAM (its keys have points)."""
    return any(
        key.startswith(("Camera.", "Camera1.", "ORBextractor.", "LEFT.")) for key in source.values
    )


def is_stella(source: Source) -> bool:
    """Return whether a file is of stella_vslam: keys are nested, or with points as OpenVSLAM's."""
    camera = source.values.get("Camera")
    return (isinstance(camera, dict) and "fx" in camera) or "Camera.setup" in source.values


def read_orb_slam(source: Source) -> Rig:
    """Read settings of ORB-SLAM.

    `Stereo.T_c1_c2` and the older `Tlr` map the right camera to the left one. `LEFT.K` … are
    those of images that are not rectified, and then `Camera.fx` … of the rectified ones.
    """
    values = source.values
    remarks = [
        f"{key} says how ORB-SLAM scales its images, and is not used"
        for key in ("Camera.newWidth", "Camera.newHeight", "Camera.imageScale")
        if key in values and optional(values, key) != 1
    ]
    depth_scale = optional(values, first_of(values, "RGBD.DepthMapFactor", "DepthMapFactor")[0])
    depth_scale = depth_scale if depth_scale is not None and depth_scale > 0 else None
    if "LEFT.K" in values and "RIGHT.K" in values:
        return _unrectified(ORB, values, "LEFT", "RIGHT", "{side}.{key}", remarks)
    name = "Camera1" if "Camera1.fx" in values else "Camera"
    left = _camera(values, name)
    key, T = first_of(values, "Stereo.T_c1_c2", "Tlr")
    if "Camera2.fx" in values and T is not None:
        right, note = _right(values, left, name)
        return Rig(ORB, (left, right), transform(T, key), depth_scale, (*remarks, *note))
    if depth_scale is not None:
        return Rig(ORB, (left,), None, depth_scale, tuple(remarks))
    return _rectified(ORB, values, left, remarks)


def read_stella(source: Source) -> Rig:
    """Read settings of stella_vslam, which are those of ORB-SLAM with other names."""
    values = _nested(source.values)
    camera = mapping(values["Camera"], "Camera")
    flat: Values = {f"Camera.{key}": value for key, value in camera.items()}
    preprocessing = values.get("Preprocessing")
    factor = camera.get("depthmap_factor")
    if isinstance(preprocessing, dict):
        factor = preprocessing.get("depthmap_factor", factor)
    setup = str(camera.get("setup", "monocular")).lower()
    left = _camera(flat, "Camera")
    if setup == "rgbd":
        scale = None if factor is None else numbers(factor, "depthmap_factor", 1)[0]
        return Rig(STELLA, (left,), None, scale if scale else None)
    rectifier = values.get("StereoRectifier")
    if isinstance(rectifier, dict) and "K_left" in rectifier:
        given = mapping(rectifier, "StereoRectifier") | {"width": flat.get("Camera.cols")}
        given |= {"height": flat.get("Camera.rows"), "fps": flat.get("Camera.fps")}
        # The rectified cameras are those of `Camera`, with the baseline in focal_x_baseline.
        P = np.array(
            [
                [left.intrinsics[0], 0, left.intrinsics[2], 0],
                [0, left.intrinsics[1], left.intrinsics[3], 0],
                [0, 0, 1.0, 0],
            ]
        )
        P_right = P.copy()
        P_right[0, 3] = -number(flat, "Camera.focal_x_baseline")
        return _unrectified(STELLA, given, "left", "right", "{key}_{side}", [], (P, P_right))
    return _rectified(STELLA, flat, left, []) if setup == "stereo" else Rig(STELLA, (left,))


def _nested(values: Values) -> Values:
    """Return keys with points, `Camera.fx`, as nested ones."""
    nested: Values = {}
    for key, value in values.items():
        group, point, name = key.partition(".")
        if not point:
            nested[key] = value
        elif isinstance(nested.setdefault(group, {}), dict):
            nested[group][name] = value
    return nested


def write_orb_slam3(calibration: Calibration) -> str:
    """Write settings of ORB-SLAM3 1.0.

    ORB-SLAM3 refuses a whole number where it expects a real one, and the other way round.

    Raises:
        CalibrationError: ORB-SLAM3 has no such lens, or not this pair of lenses.
    """
    camera, right, T = calibration.camera, calibration.right, calibration.T_left_right
    straight = None if right is None or T is None else rectified_camera(camera, right, T)
    kind = _kind(camera)
    if right is not None and _kind(right) != kind:
        raise CalibrationError("ORB-SLAM3 reads pairs of one lens model: convert them singly")
    lines = [
        "%YAML:1.0",
        "",
        'File.version: "1.0"',
        f'Camera.type: "{"Rectified" if straight is not None else kind}"',
        *_entries("Camera1", camera, straight is not None),
        f"Camera.width: {camera.width}",
        f"Camera.height: {camera.height}",
        f"Camera.fps: {round(camera.fps)}",
        "Camera.RGB: 1",
    ]
    if straight is not None:
        lines += [f"Stereo.b: {_real(straight.baseline_m)}", "Stereo.ThDepth: 40.0"]
    elif right is not None and T is not None:
        rows = ",\n         ".join(", ".join(map(_real, row)) for row in T)
        lines += _entries("Camera2", right, False)
        if kind == "KannalaBrandt8":
            for side, last in (("Camera1", camera.width), ("Camera2", right.width)):
                lines += [f"{side}.overlappingBegin: 0", f"{side}.overlappingEnd: {last - 1}"]
        # ORB-SLAM3 reads this matrix as 32-bit numbers.
        lines += ["Stereo.T_c1_c2: !!opencv-matrix", "  rows: 4", "  cols: 4", "  dt: f"]
        lines += [f"  data: [{rows}]", "Stereo.ThDepth: 40.0"]
    if calibration.depth_scale is not None:
        lines.append(f"RGBD.DepthMapFactor: {_real(calibration.depth_scale)}")
        if right is None:
            # The baseline of the virtual pair into which ORB-SLAM3 converts depth, metres.
            lines += ["Stereo.b: 0.08", "Stereo.ThDepth: 40.0"]
    return "\n".join(lines) + "\n" + _OTHER_SETTINGS


def _camera(values: Values, name: str, lens_of: str = "") -> FoundCamera:
    kind = _type(values)
    prefix = lens_of or name
    names = _FISHEYE if kind == "fisheye" else () if kind == "rectified" else _RADTAN
    return FoundCamera(
        name,
        size_of(
            first_of(values, "Camera.width", "Camera.cols")[1],
            first_of(values, "Camera.height", "Camera.rows")[1],
        ),
        (
            number(values, f"{name}.fx"),
            number(values, f"{name}.fy"),
            number(values, f"{name}.cx"),
            number(values, f"{name}.cy"),
        ),
        "equidistant" if kind == "fisheye" else "radtan",
        tuple(number(values, f"{prefix}.{key}", 0.0) for key in names),
        optional(values, "Camera.fps"),
    )


def _type(values: Values) -> str:
    given = str(first_of(values, "Camera.type", "Camera.model")[1] or "").strip()
    kind = _MODELS.get(given.lower())
    if kind is None:
        raise CalibrationError(
            f"Camera.type: expected PinHole, Rectified or KannalaBrandt8, found {shown(given)}"
        )
    return kind


def _right(values: Values, left: FoundCamera, name: str) -> tuple[FoundCamera, tuple[str, ...]]:
    own = any(f"Camera2.{key}" in values for key in _FISHEYE)
    right = _camera(values, "Camera2", "" if own else name)
    if _type(values) != "fisheye" or right.coefficients == left.coefficients:
        return right, () if own else (f"Camera2 has no k1 … of its own: those of {name} are used",)
    # Settings.cc of ORB-SLAM3 1.0 reads them from Camera1.
    return right, (
        "k1 to k4 of the right camera are those of Camera2; ORB-SLAM3 takes Camera1's for both",
    )


def _rectified(kind: str, values: Values, left: FoundCamera, remarks: list[str]) -> Rig:
    """Return a rectified pair where the file gives a baseline, else the camera alone."""
    bf = optional(values, first_of(values, "Camera.bf", "Camera.focal_x_baseline")[0])
    baseline = optional(values, "Stereo.b") if bf is None else bf / left.intrinsics[0]
    if not baseline:
        return Rig(kind, (left,), remarks=tuple(remarks))
    if any(left.coefficients):
        remarks = [
            *remarks,
            f"its baseline of {baseline:.6g} m is for rectified images, which have no distortion: "
            "only one camera is read",
        ]
        return Rig(kind, (left,), remarks=tuple(remarks))
    right = FoundCamera("", left.size, left.intrinsics)
    remarks = [*remarks, f"a pair that is rectified already, with a baseline of {baseline:.6g} m"]
    return Rig(kind, (left, right), side_by_side(baseline), remarks=tuple(remarks))


def _unrectified(
    kind: str,
    values: Values,
    left: str,
    right: str,
    pattern: str,
    remarks: list[str],
    projections: tuple[Any, Any] | None = None,
) -> Rig:
    """Return a pair with the matrices K, D, R and P of each side."""
    cameras, turns, found = [], [], []
    # The model of the images, before they are rectified.
    fisheye = str(values.get("model", "")).lower() == "fisheye"
    for side in (left, right):
        keys = {key: pattern.format(side=side, key=key) for key in "KDRP"}
        size = size_of(
            first_of(values, f"{side}.width", "Camera.width", "width")[1],
            first_of(values, f"{side}.height", "Camera.height", "height")[1],
        )
        bent = values.get(keys["D"])
        cameras.append(
            FoundCamera(
                side,
                size,
                of_matrix(values.get(keys["K"]), keys["K"]),
                "equidistant" if fisheye else "radtan",
                () if bent is None else numbers(bent, keys["D"]),
                optional(values, first_of(values, "Camera.fps", "fps")[0]),
            )
        )
        turns.append(rotation(values.get(keys["R"]), keys["R"]))
        if projections is None:
            found.append(matrix(values.get(keys["P"]), keys["P"], 3, 4))
    P_left, P_right = projections or found
    T = from_rectification(turns[0], P_left, turns[1], P_right)
    remarks = [*remarks, "for images that are not rectified"]
    return Rig(kind, tuple(cameras), T, remarks=tuple(remarks))


def _kind(camera: Camera) -> str:
    model, count = str(camera.distortion_model), len(camera.distortion)
    if model == "equidistant":
        return "KannalaBrandt8"
    if model == "none" or (model == "radtan" and count <= 5):
        return "PinHole"
    raise CalibrationError(
        f"ORB-SLAM3 has no {model} lens with {count} coefficients: "
        "it has radtan with 4 or 5, and equidistant"
    )


def _entries(name: str, camera: Camera, rectified: bool) -> list[str]:
    values = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy")}
    if not rectified:
        fisheye = camera.distortion_model == "equidistant"
        bent = (*camera.distortion, *(0.0,) * 4)[: max(4, len(camera.distortion))]
        values |= dict(zip(_FISHEYE if fisheye else _RADTAN, bent, strict=False))
    return [f"{name}.{key}: {_real(value)}" for key, value in values.items()]


def _real(value: float | None) -> str:
    """Write a number with a point."""
    text = repr(float(value or 0.0))
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text
