"""Calibrations written for other programs are read back as they were."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.calibration.calibration import Calibration, load_calibration
from spslam.datasets.calibration.formats.writers import WRITERS, write_calibration
from spslam.datasets.calibration.mask_paths import MaskPaths
from spslam.errors import CalibrationError
from spslam.geometry import se3_exp

SIZE = (640, 480)
INTRINSICS = (400.123456789, 401.5, 318.3, 243.77777777)
LENSES = {
    "none": ("none", ()),
    "radtan 4": ("radtan", (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)),
    "radtan 5": ("radtan", (-0.2, 0.07, 0.0002, 1e-5, 0.03)),
    "radtan 8": ("radtan", (0.2, 0.07, 0.0002, 1e-5, 0.03, 0.1, 0.02, 0.003)),
    "radtan 14": ("radtan", (0.2, 0.07, 2e-4, 1e-5, *(0.01,) * 8, 0.001, 0.002)),
    "fisheye": ("equidistant", (0.0034823894, 0.00071503, -0.0020532361, 0.000202936735)),
    "double sphere": ("double_sphere", (-0.18309, 0.59228)),
    "eucm": ("eucm", (0.63, 1.04)),
    "ucm": ("ucm", (0.58,)),
    "omni": ("omni", (1.4854,)),
    "omni radtan": ("omni", (1.4854, -0.2164, 0.1391, 0.0003, -0.0002)),
    "fov": ("fov", (0.92,)),
}
UNIFIED = {"eucm", "ucm"}
# Lenses that a format has; the others are refused.
HELD = {
    "spslam": set(LENSES),
    "opencv": {"none", "fisheye", "omni", "omni radtan"}
    | {f"radtan {count}" for count in (4, 5, 8, 14)},
    "basalt": {"none", "radtan 4", "radtan 5", "radtan 8", "fisheye", "double sphere", "fov"}
    | UNIFIED,
    "colmap": {"none", "radtan 4", "radtan 5", "radtan 8", "fisheye", "fov"} | UNIFIED,
    "ros": {"none", "radtan 4", "radtan 5", "radtan 8", "fisheye"},
    "kalibr": {"none", "radtan 4", "fisheye", "double sphere", "fov", "omni", "omni radtan"}
    | UNIFIED,
    "euroc": {"none", "radtan 4", "fisheye"},
    "orbslam3": {"none", "radtan 4", "radtan 5", "fisheye"},
    "nerfstudio": {"none", "radtan 4", "radtan 5", "fisheye"},
    "open3d": {"none"},
}
SUFFIXES = {
    "colmap": "txt",
    "opencv": "yml",
    "basalt": "json",
    "nerfstudio": "json",
    "open3d": "json",
}
T_LEFT_RIGHT = se3_exp(np.array([0.12, 0.002, -0.001, 0.01, -0.02, 0.005]))


def camera(lens: str, shift: float = 0.0) -> Camera:
    model, coefficients = LENSES[lens]
    fx, fy, cx, cy = INTRINSICS
    return Camera(*SIZE, fx + shift, fy, cx, cy + shift, model, coefficients, fps=25.0)  # type: ignore[arg-type]


def written(calibration: Calibration, name: str, folder: Path) -> Path:
    out = folder / f"left.{SUFFIXES.get(name, 'yaml')}"
    for path, text in write_calibration(calibration, name, out)[0].items():
        path.write_text(text)
    return out


def assert_same(found: Camera | None, expected: Camera) -> None:
    assert found is not None
    for key in ("width", "height", "fx", "fy", "cx", "cy"):
        assert getattr(found, key) == pytest.approx(getattr(expected, key), rel=1e-12, abs=1e-9)
    assert found.distortion_model == expected.distortion_model
    longer = np.zeros((2, 14))
    longer[0, : len(found.distortion)] = found.distortion
    longer[1, : len(expected.distortion)] = expected.distortion
    np.testing.assert_allclose(longer[0], longer[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("name", WRITERS)
def test_one_camera_comes_back_or_its_lens_is_refused(tmp_path: Path, name: str, lens: str) -> None:
    calibration = Calibration(tmp_path / "c.yaml", camera(lens), 25.0)
    if lens not in HELD[name]:
        with pytest.raises(CalibrationError, match=r" (no|not) | have no ") as error:
            written(calibration, name, tmp_path)
        assert "\n" not in str(error.value)
        return
    found = load_calibration(written(calibration, name, tmp_path))
    expected = calibration.camera
    if lens == "ucm" and name in ("colmap", "kalibr"):
        # These formats hold ucm as eucm with β = 1.
        expected = replace(expected, distortion_model="eucm", distortion=(*expected.distortion, 1))
    assert_same(found.camera, expected)
    assert found.fps == (25.0 if "fps" in WRITERS[name].holds else None)


@pytest.mark.parametrize("lens", ["none", "radtan 4", "fisheye", "double sphere", "omni radtan"])
@pytest.mark.parametrize("name", [name for name in WRITERS if "pair" in WRITERS[name].holds])
def test_a_pair_comes_back(tmp_path: Path, name: str, lens: str) -> None:
    if lens not in HELD[name]:
        pytest.skip(f"{name} has no {lens} lens")
    left, right = camera(lens), camera(lens, 0.5)
    calibration = Calibration(tmp_path / "c.yaml", left, 25.0, right, T_LEFT_RIGHT)
    found = load_calibration(written(calibration, name, tmp_path))
    assert_same(found.camera, left)
    assert_same(found.right, right)
    assert found.T_left_right is not None
    np.testing.assert_allclose(found.T_left_right, T_LEFT_RIGHT, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in WRITERS if "pair" in WRITERS[name].holds])
def test_a_rectified_pair_comes_back(tmp_path: Path, name: str) -> None:
    T = np.eye(4)
    T[0, 3] = 0.11
    calibration = Calibration(tmp_path / "c.yaml", camera("none"), None, camera("none"), T)
    path = written(calibration, name, tmp_path)
    found = load_calibration(path)
    assert found.T_left_right is not None
    np.testing.assert_allclose(found.T_left_right, T, atol=1e-9)
    if name == "orbslam3":
        assert 'Camera.type: "Rectified"\n' in path.read_text()


def test_what_a_format_does_not_hold_is_named(tmp_path: Path) -> None:
    right, T = camera("none"), np.eye(4)
    T[0, 3] = 0.11
    calibration = Calibration(tmp_path / "c.yaml", camera("none"), 25.0, right, T, 5000.0)
    out = tmp_path / "left.yaml"
    assert write_calibration(calibration, "spslam", out)[1] == []
    assert write_calibration(calibration, "orbslam3", out)[1] == []
    assert write_calibration(calibration, "open3d", out)[1] == [
        "fps",
        "depth_scale",
        "right and T_left_right",
    ]


def test_masks_and_mosaics_are_kept_or_named(tmp_path: Path) -> None:
    masks = MaskPaths(tmp_path / "left.png", tmp_path / "right")
    right = camera("none")
    calibration = Calibration(
        tmp_path / "c.yaml", right, None, right, T_LEFT_RIGHT, bayer="RGGB", masks=masks
    )
    (tmp_path / "elsewhere").mkdir()
    found = load_calibration(written(calibration, "spslam", tmp_path / "elsewhere"))
    assert (found.bayer, found.masks) == ("RGGB", masks)
    assert write_calibration(calibration, "kalibr", tmp_path / "k.yaml")[1] == ["bayer", "mask"]


def test_a_double_sphere_pair_goes_from_kalibr_to_basalt_and_back(tmp_path: Path) -> None:
    left, right = camera("double sphere"), camera("double sphere", 0.5)
    given = Calibration(tmp_path / "c.yaml", left, None, right, T_LEFT_RIGHT)
    for name in ("kalibr", "basalt", "kalibr"):
        given = load_calibration(written(given, name, tmp_path))
    assert_same(given.camera, left)
    assert_same(given.right, right)
    assert given.T_left_right is not None
    np.testing.assert_allclose(given.T_left_right, T_LEFT_RIGHT, atol=1e-9)


@pytest.mark.parametrize("name", ["ros", "euroc"])
def test_a_pair_in_two_files_needs_a_name_with_a_side(tmp_path: Path, name: str) -> None:
    calibration = Calibration(
        tmp_path / "c.yaml", camera("none"), None, camera("none"), T_LEFT_RIGHT
    )
    with pytest.raises(CalibrationError, match="a pair takes two files"):
        write_calibration(calibration, name, tmp_path / "camera.yaml")
    files = write_calibration(calibration, name, tmp_path / "cam0.yaml")[0]
    assert [path.name for path in files] == ["cam0.yaml", "cam1.yaml"]


def test_opencv_reads_its_files(tmp_path: Path) -> None:
    left, right = camera("radtan 5"), camera("radtan 5", 0.5)
    calibration = Calibration(tmp_path / "c.yaml", left, None, right, T_LEFT_RIGHT)
    for suffix in ("yml", "xml", "json"):
        path = tmp_path / f"c.{suffix}"
        path.write_text(write_calibration(calibration, "opencv", path)[0][path])
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        np.testing.assert_allclose(storage.getNode("M1").mat(), left.K, rtol=1e-15)
        np.testing.assert_allclose(storage.getNode("D2").mat()[0], right.distortion, rtol=1e-15)
        R, t = storage.getNode("R").mat(), storage.getNode("T").mat()
        point = np.array([0.3, -0.2, 2.0, 1.0])
        at_right = np.linalg.solve(T_LEFT_RIGHT, point)[:3]
        np.testing.assert_allclose(R @ point[:3] + t[:, 0], at_right, atol=1e-12)
        assert storage.getNode("image_width").real() == 640


def test_pycolmap_reads_our_cameras(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    calibration = Calibration(tmp_path / "c.yaml", camera("radtan 8"))
    out = tmp_path / "cameras.txt"
    out.write_text(write_calibration(calibration, "colmap", out)[0][out])
    for name in ("images.txt", "points3D.txt"):
        (tmp_path / name).write_text("")
    theirs = pycolmap.Reconstruction(str(tmp_path)).cameras[1]
    rays = np.array([[0.1, 0.2, 1.0], [-0.3, 0.25, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(
        np.array(theirs.img_from_cam(rays)) - 0.5,
        calibration.camera.lens_pixels(rays),
        atol=1e-8,
    )


def test_orb_slam3_finds_its_types_and_settings(tmp_path: Path) -> None:
    """It refuses `Camera1.fx: 400` (expects a real number) and `Camera.fps: 25.0` (a whole one)."""
    left = Camera(*SIZE, 400.0, 400.0, 320.0, 240.0, fps=25.0)
    calibration = Calibration(tmp_path / "c.yaml", left, 25.0, left, T_LEFT_RIGHT, None)
    out = tmp_path / "c.yaml"
    out.write_text(write_calibration(calibration, "orbslam3", out)[0][out])
    storage = cv2.FileStorage(str(out), cv2.FILE_STORAGE_READ)
    for key in ("Camera1.fx", "Camera1.k1", "Camera2.cy", "Stereo.ThDepth", "Viewer.PointSize"):
        assert storage.getNode(key).isReal(), key
    for key in ("Camera.fps", "Camera.width", "Camera.RGB", "ORBextractor.nFeatures"):
        assert storage.getNode(key).isInt(), key
    T = storage.getNode("Stereo.T_c1_c2").mat()
    assert T.dtype == np.float32
    np.testing.assert_allclose(T, T_LEFT_RIGHT, atol=1e-6)


def test_open3d_writes_columns(tmp_path: Path) -> None:
    calibration = Calibration(tmp_path / "c.yaml", camera("none"))
    out = tmp_path / "c.json"
    values = json.loads(write_calibration(calibration, "open3d", out)[0][out])
    assert values["intrinsic_matrix"][6:8] == [INTRINSICS[2], INTRINSICS[3]]
