from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError

RigOf = Callable[..., Rig]


@pytest.mark.parametrize(
    ("line", "intrinsics", "model", "coefficients"),
    [
        ("SIMPLE_PINHOLE 640 480 400 320 240", (400, 400, 319.5, 239.5), None, ()),
        ("PINHOLE 640 480 400 401 320 240", (400, 401, 319.5, 239.5), None, ()),
        (
            "SIMPLE_RADIAL 640 480 400 320 240 0.1",
            (400, 400, 319.5, 239.5),
            "radtan",
            (0.1, 0, 0, 0),
        ),
        (
            "RADIAL 640 480 400 320 240 0.1 0.2",
            (400, 400, 319.5, 239.5),
            "radtan",
            (0.1, 0.2, 0, 0),
        ),
        (
            "OPENCV 640 480 400 401 320 240 0.1 0.2 0.3 0.4",
            (400, 401, 319.5, 239.5),
            "radtan",
            (0.1, 0.2, 0.3, 0.4),
        ),
        (
            "FULL_OPENCV 640 480 400 401 320 240 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8",
            (400, 401, 319.5, 239.5),
            "radtan",
            (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        ),
        (
            "OPENCV_FISHEYE 640 480 400 401 320 240 0.1 0.2 0.3 0.4",
            (400, 401, 319.5, 239.5),
            "equidistant",
            (0.1, 0.2, 0.3, 0.4),
        ),
        (
            "SIMPLE_RADIAL_FISHEYE 640 480 400 320 240 0.1",
            (400, 400, 319.5, 239.5),
            "equidistant",
            (0.1, 0, 0, 0),
        ),
        ("SIMPLE_FISHEYE 640 480 400 320 240", (400, 400, 319.5, 239.5), "equidistant", (0,) * 4),
        ("FOV 640 480 400 401 320 240 0.9", (400, 401, 319.5, 239.5), "fov", (0.9,)),
        ("EUCM 640 480 400 401 320 240 0.6 1.1", (400, 401, 319.5, 239.5), "eucm", (0.6, 1.1)),
    ],
)
def test_models_of_colmap_count_pixels_from_their_corners(
    rig_of: RigOf,
    line: str,
    intrinsics: tuple[float, ...],
    model: str | None,
    coefficients: tuple[float, ...],
) -> None:
    (camera,) = rig_of(
        f"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n7 {line}\n", "cameras.txt"
    ).cameras
    assert camera.intrinsics == intrinsics and camera.size == (640, 480)
    assert camera.model == model and camera.coefficients == pytest.approx(coefficients)


def test_of_several_cameras_the_first_is_used_and_the_others_told(rig_of: RigOf) -> None:
    rig = rig_of("1 PINHOLE 640 480 400 401 320 240\n2 PINHOLE 320 240 200 200 160 120\n")
    assert rig.describe("x").endswith("camera 1 (PINHOLE); 1 more cameras are not used")


@pytest.mark.parametrize("line", ["THIN_PRISM_FISHEYE", "DIVISION"])
def test_models_without_ours_are_refused(rig_of: RigOf, line: str) -> None:
    with pytest.raises(CalibrationError, match=f"COLMAP's model {line}, which is not read"):
        rig_of(f"1 {line} 640 480 400 401 320 240 0 0 0 0 0 0 0 0\n")
    with pytest.raises(CalibrationError, match="expected 8 parameters of OPENCV, found 4"):
        rig_of("1 OPENCV 640 480 400 401 320 240\n")


def test_both_files_of_pycolmap_are_read_and_project_the_same(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    theirs = pycolmap.Camera(
        model="OPENCV",
        width=640,
        height=480,
        params=[400, 401, 322, 239, 0.1, -0.05, 0.001, 0.002],
        camera_id=3,
    )
    model.add_camera(theirs)
    (tmp_path / "text").mkdir()
    (tmp_path / "binary").mkdir()
    model.write_text(str(tmp_path / "text"))
    model.write_binary(str(tmp_path / "binary"))
    text, binary = (
        load_calibration(tmp_path / name).camera
        for name in ("text/cameras.txt", "binary/cameras.bin")
    )
    assert isinstance(binary, Camera) and text == binary
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    rays = np.concatenate([points, np.ones((50, 1))], axis=1)
    np.testing.assert_allclose(
        binary.lens_pixels(rays), np.array(theirs.img_from_cam(rays)) - 0.5, atol=1e-9
    )


def test_damaged_binary_files_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "cameras.bin").write_bytes((1).to_bytes(8, "little") + b"\0" * 20)
    with pytest.raises(CalibrationError, match=r"cameras\.bin is no text"):
        load_calibration(tmp_path / "cameras.bin")
