"""Recognise calibration files of other programs, and suggest the calibration to write instead.

These files are not read as calibrations. The error message names the kind of file and gives the
calibration to write, filled in with the numbers of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import inverse
from spslam.lens import COEFFICIENT_COUNTS, lens

from .yaml_text import parse_yaml

Values = dict[str, Any]
# Keys of our format with the numbers of the file, and a remark for the user.
Filled = tuple[Values, str]
_T = TypeVar("_T")
EUROC_SENSOR = "a sensor.yaml of EuRoC (ASL)"
_REQUIRED = ("width", "height", "fx", "fy", "cx", "cy")
# COLMAP and others measure cx and cy from the corner of the first pixel, spslam from its centre:
# the difference in pixels.
_CORNER = 0.5
# COLMAP's camera models: the number of focal lengths, and our name of the lens model.
_COLMAP_FOCALS = {
    "SIMPLE_PINHOLE": (1, "none"),
    "PINHOLE": (2, "none"),
    "SIMPLE_RADIAL": (1, "radtan"),
    "RADIAL": (1, "radtan"),
    "OPENCV": (2, "radtan"),
    "FULL_OPENCV": (2, "radtan"),
    "OPENCV_FISHEYE": (2, "equidistant"),
    "SIMPLE_RADIAL_FISHEYE": (1, "equidistant"),
    "RADIAL_FISHEYE": (1, "equidistant"),
    "FOV": (2, "FOV"),
    "THIN_PRISM_FISHEYE": (2, "THIN_PRISM_FISHEYE"),
}
# Names that programs give to the camera matrix, the distortion, the width and the height.
_MATRICES = (
    "camera_matrix",
    "Camera_Matrix",
    "cameraMatrix",
    "CameraMatrix",
    "K1",
    "M1",
    "cameraMatrix1",
    "K",
    "mtx",
)
_DISTORTIONS = (
    *(
        "distortion_coefficients",
        "Distortion_Coefficients",
        "distortion_coeffs",
        "distCoeffs",
        "dist_coeffs",
    ),
    *("dist_coeff", "dist", "D1", "distCoeffs1", "D", "distortion"),
)
_WIDTHS = ("image_width", "image_Width", "imageWidth", "width")
_HEIGHTS = ("image_height", "image_Height", "imageHeight", "height")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS_ONLY = re.compile(rf"\s*{_NUMBER}(?:[\s,;]+{_NUMBER})*\s*")
_XML_MATRIX = re.compile(
    r"<(?P<name>\w+)\s+type_id=\"opencv-matrix\">"
    r"\s*<rows>(?P<rows>\d+)</rows>\s*<cols>(?P<cols>\d+)</cols>"
    r"[^<]*(?:<dt>[^<]*</dt>[^<]*)?"
    r"<data>(?P<data>[^<]*)</data>"
)
_XML_NUMBER = re.compile(r"<(?P<name>\w+)>\s*(?P<value>\d+)\s*</")


@dataclass(frozen=True)
class Foreign:
    """A calibration file of another program.

    Attributes:
        kind: kind of file, with its article.
        values: keys of our format with the numbers that were found in the file.
        remark: a hint for the user; may be empty.
    """

    kind: str
    values: Values = field(default_factory=dict)
    remark: str = ""

    def advice(self) -> str:
        """Return one line: the kind of file, and what to write instead."""
        if not self.values and self.remark:
            return f"this is {self.kind}: {self.remark}"
        filled = {key: self.values.get(key, "?") for key in _REQUIRED} | self.values
        blanks = ", each ? filled in" if "?" in filled.values() else ""
        remark = f" ({self.remark})" if self.remark else ""
        return (
            f"this is {self.kind}, which is not read: "
            f"write a file with {_flow(filled)}{blanks}{remark}"
        )


def recognise(text: str) -> Foreign | None:
    """Recognise the calibration file of another program; None if it is ours or unknown."""
    for test in (_colmap, _kitti, _tum_mono, _ros_ini, _opencv_xml, _bare_numbers):
        found = _tried(test, text)
        if found is not None:
            return found
    values = _mapping(text)
    if values is None or sum(key in values for key in _REQUIRED) >= 3:
        return None
    for kind, is_it, fill in _KINDS:
        if is_it(values):
            filled = _tried(fill, values)
            return Foreign(kind) if filled is None else Foreign(kind, *filled)
    return None


def _tried(test: Callable[[Any], _T | None], given: Any) -> _T | None:
    """Return `test(given)`; None if the file lacks a value or has a wrong one."""
    try:
        return test(given)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None


def _mapping(text: str) -> Values | None:
    try:
        values = parse_yaml(text)
    except CalibrationError:
        return None
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else None


def _flow(values: Values) -> str:
    """Write a mapping on one line of YAML."""

    def show(value: Any) -> str:
        if isinstance(value, dict):
            return _flow(value)
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(show(part) for part in value) + "]"
        return f"{value:.10g}" if isinstance(value, float) else str(value)

    return "{" + ", ".join(f"{key}: {show(value)}" for key, value in values.items()) + "}"


def _camera(
    size: Any, intrinsics: Any, model: Any = None, coefficients: Any = (), fps: Any = None
) -> Filled:
    """Fill in the keys of our format for one camera.

    Args:
        size: (width, height), pixels, or None.
        intrinsics: (fx, fy, cx, cy), pixels, or None.
        model: name of the lens model.
        coefficients: coefficients of the lens model.
        fps: rate, 1/s, or None.

    Returns:
        Keys and values, and a remark. For a lens that is not supported there are no values, and
        the remark names the lens.
    """
    values: Values = {}
    if size is not None:
        values |= {"width": int(size[0]), "height": int(size[1])}
    if intrinsics is not None:
        values |= dict(zip(("fx", "fy", "cx", "cy"), _floats(intrinsics, 4), strict=True))
    if fps is not None:
        values["fps"] = float(fps)
    try:
        ours, found = lens(model, _floats(coefficients))
        if len(found) > max(COEFFICIENT_COUNTS[ours]):
            return {}, f"its lens has {len(found)} coefficients, which no model has"
    except CalibrationError as error:
        return {}, str(error)  # with such a lens the other numbers have another meaning
    if any(found) or ours == "equidistant":
        values["distortion"] = {"model": ours, "coefficients": list(found)}
    return values, ""


def _floats(values: Any, count: int | None = None) -> tuple[float, ...]:
    flat = np.asarray(values, dtype=np.float64).ravel()
    if (count is not None and len(flat) != count) or not np.isfinite(flat).all():
        raise ValueError("other numbers than expected")
    return tuple(float(value) for value in flat)


def _matrix(value: Any) -> NDArray[np.float64]:
    """Read a matrix as OpenCV and ROS write it (rows, cols, data), or as lists."""
    if isinstance(value, dict):
        return np.reshape(
            np.asarray(value["data"], dtype=np.float64), (int(value["rows"]), int(value["cols"]))
        )
    return np.asarray(value, dtype=np.float64)


def _of_matrix(K: Any) -> tuple[float, ...]:
    """Return fx, fy, cx and cy of a camera matrix."""
    matrix = _matrix(K)
    matrix = matrix.reshape(3, 3) if matrix.size == 9 else matrix
    return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])


def _transform(value: Any) -> NDArray[np.float64]:
    T = np.eye(4)
    found = _matrix(value)
    found = found.reshape(-1, 4) if found.ndim == 1 else found
    T[: len(found)] = found
    return T


def _with_right(values: Values, right: Values, T_left_right: NDArray[np.float64]) -> Values:
    if not (values and right):
        return {}
    return values | {
        "right": {key: value for key, value in right.items() if key != "fps"},
        "T_left_right": [[float(f"{number:.8g}") for number in row] for row in T_left_right],
    }


def _first(values: Values, *keys: str) -> Any:
    return next((values[key] for key in keys if key in values), None)


def _orb_slam(given: Values) -> Filled:
    prefix = "Camera1" if "Camera1.fx" in given else "Camera"
    fisheye = str(given.get("Camera.type", "")).lower().startswith("kannala")
    names = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")

    def side(name: str) -> Filled:
        size = (_first(given, "Camera.width"), _first(given, "Camera.height"))
        bent = [float(given.get(f"{name}.{key}", 0.0)) for key in names]
        model = "equidistant" if fisheye else "radtan" if any(bent) else "none"
        intrinsics = [given[f"{name}.{key}"] for key in ("fx", "fy", "cx", "cy")]
        return _camera(
            None if None in size else size,
            intrinsics,
            model,
            () if model == "none" else bent,
            given.get("Camera.fps"),
        )

    values, remark = side(prefix)
    depth_scale = _first(given, "RGBD.DepthMapFactor", "DepthMapFactor")
    if depth_scale is not None and float(depth_scale) > 0:
        return values | {"depth_scale": float(depth_scale)}, remark
    if "Camera2.fx" in given and "Stereo.T_c1_c2" in given:
        return _with_right(values, side("Camera2")[0], _transform(given["Stereo.T_c1_c2"])), remark
    bf = given.get("Camera.bf")
    baseline = given.get("Stereo.b") if bf is None else float(bf) / values["fx"]
    if baseline is None:
        return values, remark
    straight = np.eye(4)
    straight[0, 3] = float(baseline)
    ideal = {key: value for key, value in values.items() if key != "distortion"}
    return _with_right(ideal, ideal, straight), "for pairs that are rectified already"


def _stella(given: Values) -> Filled:
    camera = given["Camera"]
    fisheye = str(camera.get("model", "")).lower() == "fisheye"
    names = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")
    return _camera(
        (camera["cols"], camera["rows"]),
        [camera[key] for key in ("fx", "fy", "cx", "cy")],
        "equidistant" if fisheye else "radtan",
        [float(camera.get(key, 0.0)) for key in names],
        camera.get("fps"),
    )


def _kalibr_cameras(given: Values) -> list[Values]:
    names = sorted(key for key in given if re.fullmatch(r"cam\d+", key))
    return [
        given[name]
        for name in names
        if isinstance(given[name], dict) and "intrinsics" in given[name]
    ]


def _kalibr(given: Values) -> Filled:
    def side(camera: Values) -> Filled:
        kind = camera.get("camera_model", "pinhole")
        model = camera.get("distortion_model", "none") if kind == "pinhole" else kind
        # Some camera models have parameters of their own before fx fy cx cy.
        own, intrinsics = camera["intrinsics"][:-4], camera["intrinsics"][-4:]
        bent = camera.get("distortion_coeffs", ())
        if own and camera.get("distortion_model") not in (None, "none", "radtan"):
            model = f"{kind}-{camera['distortion_model']}"
        return _camera(camera.get("resolution"), intrinsics, model, (*own, *bent))

    cameras = _kalibr_cameras(given)
    values, remark = side(cameras[0])
    T = _between(*cameras[:2]) if len(cameras) > 1 else None
    return values if T is None else _with_right(values, side(cameras[1])[0], T), remark


def _between(left: Values, right: Values) -> NDArray[np.float64] | None:
    """Return `T_left_right` (4, 4) of two of Kalibr's cameras; None if it is not given."""
    if "T_cn_cnm1" in right:
        return inverse(_transform(right["T_cn_cnm1"]))
    if "T_cam_imu" in left and "T_cam_imu" in right:
        return _transform(left["T_cam_imu"]) @ inverse(_transform(right["T_cam_imu"]))
    if "T_imu_cam" in left and "T_imu_cam" in right:
        return inverse(_transform(left["T_imu_cam"])) @ _transform(right["T_imu_cam"])
    return None


def _rig(given: Values, key: str) -> bool:
    """Return whether the file has a list of cameras, the first of them with `key`."""
    cameras = given.get("cameras")
    return (
        isinstance(cameras, list)
        and bool(cameras)
        and isinstance(cameras[0], dict)
        and key in cameras[0]
    )


def _okvis(given: Values) -> Filled:
    def side(camera: Values) -> Filled:
        intrinsics = [*camera["focal_length"], *camera["principal_point"]]
        bent = camera.get("distortion_coefficients", ())
        return _camera(camera["image_dimension"], intrinsics, camera.get("distortion_type"), bent)

    cameras = given["cameras"]
    values, remark = side(cameras[0])
    if len(cameras) == 1:
        return values, remark
    T = inverse(_transform(cameras[0]["T_SC"])) @ _transform(cameras[1]["T_SC"])
    return _with_right(values, side(cameras[1])[0], T), remark


def _svo(given: Values) -> Filled:
    camera = given["cameras"][0]["camera"]
    bent = camera.get("distortion", {})
    return _camera(
        (camera["image_width"], camera["image_height"]),
        _matrix(camera["intrinsics"]).ravel()[:4],
        bent.get("type"),
        _matrix(bent["parameters"]) if "parameters" in bent else (),
    )


def _basalt(given: Values) -> Filled:
    entry, size = given["value0"]["intrinsics"][0], given["value0"]["resolution"][0]
    numbers, kind = entry["intrinsics"], entry["camera_type"]
    names = (
        ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
        if "radtan" in kind
        else ("k1", "k2", "k3", "k4", "xi", "alpha", "beta", "w")
    )
    return _camera(
        size,
        [numbers[key] for key in ("fx", "fy", "cx", "cy")],
        kind,
        [float(numbers[key]) for key in names if key in numbers],
    )


def _camodocal(given: Values) -> Filled:
    size = (given["image_width"], given["image_height"]) if "image_width" in given else None
    projection, bent = (
        given.get("projection_parameters", {}),
        given.get("distortion_parameters", {}),
    )
    kind = str(given.get("model_type", "PINHOLE"))
    if kind.upper().startswith("KANNALA"):
        intrinsics = [projection[key] for key in ("mu", "mv", "u0", "v0")]
        return _camera(size, intrinsics, "equidistant", [projection[f"k{i}"] for i in range(2, 6)])
    if kind.upper() == "MEI" and projection:
        mirror = (float(given["mirror_parameters"]["xi"]),)
        bent = tuple(float(bent.get(key, 0.0)) for key in ("k1", "k2", "p1", "p2"))
        intrinsics = [projection[key] for key in ("gamma1", "gamma2", "u0", "v0")]
        return _camera(size, intrinsics, kind, (*mirror, *bent))
    if not kind.upper().startswith("PINHOLE"):
        return _camera(size, None, kind)
    intrinsics = [projection[key] for key in ("fx", "fy", "cx", "cy")]
    return _camera(
        size, intrinsics, "radtan", [float(bent.get(key, 0.0)) for key in ("k1", "k2", "p1", "p2")]
    )


def _vins(given: Values) -> Filled:
    size = (given["image_width"], given["image_height"]) if "image_width" in given else None
    files = " and ".join(str(given[key]) for key in ("cam0_calib", "cam1_calib") if key in given)
    return _camera(size, None)[0], f"its cameras are in {files}" if files else ""


def _euroc(given: Values) -> Filled:
    return _camera(
        given.get("resolution"),
        given.get("intrinsics"),
        given.get("distortion_model"),
        given.get("distortion_coefficients", ()),
        given.get("rate_hz"),
    )


def _ros_message(given: Values) -> Filled:
    size = (given["width"], given["height"])
    model = given["distortion_model"] or None
    return _camera(size, _of_matrix(_first(given, "K", "k")), model, _first(given, "D", "d") or ())


def _ros_file(given: Values) -> Filled:
    bent = given.get("distortion_coefficients")
    return _camera(
        (given["image_width"], given["image_height"]) if "image_width" in given else None,
        _of_matrix(given["camera_matrix"]),
        given.get("distortion_model", "plumb_bob"),
        () if bent is None else _matrix(bent),
    )


def _camera_matrix(given: Values) -> Filled:
    bent = _first(given, *_DISTORTIONS)
    width, height = _first(given, *_WIDTHS), _first(given, *_HEIGHTS)
    size = (
        _first(given, "image_size", "imageSize", "size")
        if width is None or height is None
        else (width, height)
    )
    fisheye = (
        bool(given.get("fisheye_model"))
        or "fisheye" in str(given.get("distortion_model", "")).lower()
    )
    values, remark = _camera(
        size,
        _of_matrix(_first(given, *_MATRICES)),
        "equidistant" if fisheye else "radtan",
        () if bent is None else _matrix(bent),
    )
    unsure = not fisheye and len(values.get("distortion", {}).get("coefficients", ())) == 4
    return values, remark or (
        "model equidistant if it was calibrated with cv2.fisheye" if unsure else ""
    )


def _open3d(given: Values) -> Filled:
    K = np.reshape(_floats(given["intrinsic_matrix"], 9), (3, 3)).T  # by columns
    return _camera((given["width"], given["height"]), _of_matrix(K))


def _nerfstudio(given: Values) -> Filled:
    bent = [float(given.get(key, 0.0)) for key in ("k1", "k2", "p1", "p2")]
    fx = float(given["fl_x"])
    values = [fx, float(given.get("fl_y") or fx), float(given["cx"]), float(given["cy"])]
    intrinsics = np.array(values) - (0.0, 0.0, _CORNER, _CORNER)
    return _camera((given["w"], given["h"]), intrinsics, "radtan", bent)


def _colmap(text: str) -> Foreign | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) < 5 or not words[0].isdigit() or words[1] not in _COLMAP_FOCALS:
            continue
        focals, model = _COLMAP_FOCALS[words[1]]
        numbers = _floats([float(word) for word in words[4:]])
        fx, fy = numbers[0], numbers[focals - 1]
        cx, cy = (value - _CORNER for value in numbers[focals : focals + 2])
        bent = numbers[focals + 2 :]
        if words[1] in ("SIMPLE_RADIAL", "RADIAL") or words[1].endswith("RADIAL_FISHEYE"):
            bent = (*bent, 0.0, 0.0, 0.0)[:4]
        values, remark = _camera(words[2:4], (fx, fy, cx, cy), model, bent)
        return Foreign(
            "a cameras.txt of COLMAP",
            values,
            remark
            or "COLMAP counts pixels from their corners: cx and cy are half a pixel less here",
        )
    return None


def _kitti(text: str) -> Foreign | None:
    rows = dict(
        re.findall(
            rf"^(P_rect_0\d|P\d|K_0\d|S_rect_0\d):((?:[ \t]+{_NUMBER})+)[ \t\r]*$",
            text,
            re.MULTILINE,
        )
    )
    name = next(
        (key for key in ("P_rect_00", "P0", "P_rect_02", "P2", "K_00") if key in rows), None
    )
    if name is None:
        return None
    P = np.array([float(number) for number in rows[name].split()])
    matrix = P.reshape(3, -1)
    size = next((rows[key].split() for key in rows if key.startswith("S_rect")), None)
    values, _ = _camera(
        None if size is None else [float(number) for number in size], _of_matrix(matrix[:, :3])
    )
    return Foreign(
        "a calibration of KITTI", values, f"of {name}; KITTI's own folders bring it along"
    )


def _tum_mono(text: str) -> Foreign | None:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if (
        len(lines) not in (3, 4)
        or len(lines[1]) != 2
        or not all(word.isdigit() for word in lines[1])
    ):
        return None
    words = lines[0]
    name = "" if re.fullmatch(_NUMBER, words[0]) else words.pop(0).lower()
    numbers = _floats([float(word) for word in words])
    if len(numbers) not in (4, 5, 8):
        return None
    scale = np.array([float(word) for word in lines[1] * 2]) if max(numbers[:4]) < 2 else np.ones(4)
    shift = (0.0, 0.0, _CORNER, _CORNER) if max(numbers[:4]) < 2 else (0.0,) * 4
    kind = {
        "radtan": "radtan",
        "equidistant": "equidistant",
        "pinhole": "none",
        "kannalabrandt": "equidistant",
    }
    model = kind.get(name, "fov" if len(numbers) == 5 and numbers[4] else "none")
    intrinsics = np.array(numbers[:4]) * scale - shift
    values, remark = _camera([int(word) for word in lines[1]], intrinsics, model, numbers[4:])
    return Foreign("a camera.txt of TUM mono, DSO or LSD-SLAM", values, remark)


def _ros_ini(text: str) -> Foreign | None:
    if not (re.search(r"^\[image\]", text, re.MULTILINE) and "camera matrix" in text):
        return None
    size = [
        int(value) for value in re.findall(r"^(?:width|height)\s+(\d+)", text, re.MULTILINE)[:2]
    ]
    numbers = [
        float(number)
        for number in re.findall(_NUMBER, text.split("camera matrix", 1)[1].split("distortion")[0])
    ]
    bent = [
        float(number) for number in text.split("distortion", 1)[1].strip().splitlines()[0].split()
    ]
    values, remark = _camera(size, _of_matrix(numbers), "radtan", bent)
    return Foreign("a ROS camera calibration (.ini)", values, remark)


def _opencv_xml(text: str) -> Foreign | None:
    if "<opencv_storage>" not in text:
        return None
    given: Values = {match["name"]: int(match["value"]) for match in _XML_NUMBER.finditer(text)}
    for match in _XML_MATRIX.finditer(text):
        data = [float(number) for number in match["data"].split()]
        given[match["name"]] = {"rows": match["rows"], "cols": match["cols"], "data": data}
    found = _tried(_camera_matrix, given)
    kind = "an OpenCV FileStorage calibration (XML)"
    return Foreign(kind) if found is None else Foreign(kind, *found)


def _bare_numbers(text: str) -> Foreign | None:
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines or not all(_NUMBERS_ONLY.fullmatch(line) for line in lines):
        return None
    rows = [[float(number) for number in re.findall(_NUMBER, line)] for line in lines]
    if len(rows) == 1 and len(rows[0]) in (4, 8, 9):
        values, remark = _camera(
            None, rows[0][:4], "radtan" if len(rows[0]) > 4 else None, rows[0][4:]
        )
        return Foreign("a line of fx fy cx cy, as DROID-SLAM's", values, remark)
    if len(rows) in (3, 4) and len({len(row) for row in rows}) == 1 and len(rows[0]) in (3, 4):
        return Foreign("a camera matrix alone", _camera(None, _of_matrix(np.array(rows)))[0])
    return None


# Kinds of YAML and JSON files in the order in which they are tried: name, test, reader.
_KINDS: tuple[tuple[str, Callable[[Values], bool], Callable[[Values], Filled]], ...] = (
    (
        "an ORB-SLAM settings file",
        lambda given: any(
            key.startswith(("Camera.", "Camera1.", "ORBextractor.")) for key in given
        ),
        _orb_slam,
    ),
    (
        "a settings file of stella_vslam (OpenVSLAM)",
        lambda given: isinstance(given.get("Camera"), dict) and "fx" in given["Camera"],
        _stella,
    ),
    ("a Kalibr camchain", lambda given: bool(_kalibr_cameras(given)), _kalibr),
    ("an OKVIS configuration", lambda given: _rig(given, "focal_length"), _okvis),
    ("a camera rig of SVO or aslam", lambda given: _rig(given, "camera"), _svo),
    (
        "a Basalt calibration",
        lambda given: isinstance(given.get("value0"), dict) and "intrinsics" in given["value0"],
        _basalt,
    ),
    (
        "a VINS (camodocal) camera file",
        lambda given: "model_type" in given or "projection_parameters" in given,
        _camodocal,
    ),
    (
        "a VINS configuration",
        lambda given: any(
            key in given
            for key in ("cam0_calib", "image0_topic", "body_T_cam0", "extrinsicRotation")
        ),
        _vins,
    ),
    (
        "a ROS camera_info message",
        lambda given: "distortion_model" in given and any(key in given for key in ("K", "k")),
        _ros_message,
    ),
    (
        "a ROS camera_info file",
        lambda given: (
            "camera_matrix" in given and ("projection_matrix" in given or "camera_name" in given)
        ),
        _ros_file,
    ),
    (
        EUROC_SENSOR,
        lambda given: "T_BS" in given or ("intrinsics" in given and "resolution" in given),
        _euroc,
    ),
    ("an Open3D camera", lambda given: "intrinsic_matrix" in given and "width" in given, _open3d),
    ("a nerfstudio transforms.json", lambda given: "fl_x" in given, _nerfstudio),
    (
        "an OpenCV FileStorage calibration",
        lambda given: any(isinstance(given.get(name), dict) for name in _MATRICES),
        _camera_matrix,
    ),
    (
        "a calibration with a camera matrix",
        lambda given: any(name in given for name in _MATRICES),
        _camera_matrix,
    ),
)
