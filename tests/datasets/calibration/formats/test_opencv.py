from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError
from spslam.geometry import inverse, se3_exp
from spslam.notices import shown_notices

RigOf = Callable[..., Rig]
K = np.array([[400.0, 0, 321.0], [0, 402.0, 243.0], [0, 0, 1]])
D = np.array([[-0.2, 0.05, 0.001, -0.002, 0.03]])
T_RIGHT_LEFT = se3_exp(np.array([-0.12, 0.002, -0.001, 0.01, -0.02, 0.005]))


def stored(path: Path, **values: Any) -> Path:
    """Write a file with OpenCV's own FileStorage."""
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in values.items():
        storage.write(key, value)
    storage.release()
    return path


@pytest.mark.parametrize("suffix", [".yml", ".xml", ".json"])
def test_one_camera_in_each_format_of_filestorage(tmp_path: Path, suffix: str) -> None:
    path = stored(
        tmp_path / f"c{suffix}",
        image_width=640,
        image_height=480,
        camera_matrix=K,
        distortion_coefficients=D,
    )
    camera = load_calibration(path).camera
    assert (camera.width, camera.height, camera.fx, camera.fy) == (640, 480, 400.0, 402.0)
    assert (camera.cx, camera.cy) == (321.0, 243.0)
    assert camera.distortion == tuple(D[0])


@pytest.mark.parametrize("suffix", [".yml", ".xml", ".json"])
@pytest.mark.parametrize("names", [("M1", "D1", "M2", "D2"), ("K1", "D1", "K2", "D2")])
def test_r_and_t_of_a_pair_map_left_to_right(
    tmp_path: Path, suffix: str, names: tuple[str, ...]
) -> None:
    matrices = dict(zip(names, (K, D, K + 1e-3, D), strict=True))
    path = stored(
        tmp_path / f"c{suffix}",
        imageWidth=640,
        imageHeight=480,
        **matrices,
        R=T_RIGHT_LEFT[:3, :3].copy(),
        T=T_RIGHT_LEFT[:3, 3:].copy(),
    )
    with shown_notices(lambda _: None) as handler:
        calibration = load_calibration(path)
    assert calibration.T_left_right is not None and calibration.right is not None
    np.testing.assert_allclose(calibration.T_left_right, inverse(T_RIGHT_LEFT), atol=1e-12)
    assert calibration.right.fx == 400.001
    assert "T is taken as metres: a baseline of 0.12" in handler.notices[0].text


def test_a_rotation_vector_and_a_size_in_a_list_are_read(tmp_path: Path) -> None:
    turn = cv2.Rodrigues(T_RIGHT_LEFT[:3, :3])[0]
    path = stored(tmp_path / "c.yml", M1=K, M2=K, D1=D, D2=D, R=turn, T=T_RIGHT_LEFT[:3, 3:].copy())
    path.write_text(path.read_text() + "image_size: [ 640, 480 ]\n")
    found = load_calibration(path).T_left_right
    assert found is not None
    np.testing.assert_allclose(found, inverse(T_RIGHT_LEFT), atol=1e-12)


def test_millimetres_are_refused_until_the_unit_is_given(tmp_path: Path) -> None:
    path = stored(
        tmp_path / "c.yml",
        image_width=640,
        image_height=480,
        **{"M1": K, "D1": D, "M2": K, "D2": D, "R": np.eye(3), "T": np.array([[-120.0], [0], [0]])},
    )
    with pytest.raises(CalibrationError, match="unit of the board's squares: 120 m is no baseline"):
        load_calibration(path)
    found = load_calibration(path, unit_m=0.001).T_left_right
    assert found is not None and found[0, 3] == pytest.approx(0.12)


def test_the_two_files_of_opencvs_sample_are_one_pair(tmp_path: Path) -> None:
    intrinsics = stored(tmp_path / "intrinsics.yml", M1=K, D1=D, M2=K, D2=D)
    alone = load_calibration(intrinsics, lambda: (640, 480))
    assert alone.right is None
    stored(
        tmp_path / "extrinsics.yml",
        R=T_RIGHT_LEFT[:3, :3].copy(),
        T=T_RIGHT_LEFT[:3, 3:].copy(),
        R1=np.eye(3),
    )
    both = load_calibration(intrinsics, lambda: (640, 480))
    assert both.T_left_right is not None and both.T_left_right[0, 3] == pytest.approx(
        0.12, abs=3e-3
    )


def test_the_fisheye_flag_changes_the_model_and_its_absence_is_told(tmp_path: Path) -> None:
    size = {"image_width": 640, "image_height": 480}
    four = np.array([[0.01], [0.02], [0.003], [-0.004]])
    values = {**size, "camera_matrix": K, "distortion_coefficients": four}
    flagged = load_calibration(stored(tmp_path / "a.yml", **values, fisheye_model=1)).camera
    assert flagged.distortion_model == "equidistant"
    with shown_notices(lambda _: None) as handler:
        plain = load_calibration(stored(tmp_path / "b.yml", **values)).camera
    assert plain.distortion_model == "radtan"
    assert "add fisheye_model: 1" in handler.notices[0].text
    no = load_calibration(stored(tmp_path / "c.yml", **values, fisheye_model=0)).camera
    assert no.distortion_model == "radtan"


def test_omnidirectional_files_have_xi_first(rig_of: RigOf) -> None:
    text = (
        "%YAML:1.0\n---\nimage_width: 640\nimage_height: 480\nxi: 1.3\n"
        "K: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n"
        "   data: [400,0,320,0,400,240,0,0,1]\n"
        "D: !!opencv-matrix\n   rows: 1\n   cols: 4\n   dt: d\n   data: [0.1,0.2,0.3,0.4]\n"
    )
    (camera,) = rig_of(text).cameras
    assert camera.model == "omni" and camera.coefficients == (1.3, 0.1, 0.2, 0.3, 0.4)


def test_zeros_of_fourteen_coefficients_say_nothing(rig_of: RigOf) -> None:
    for count in (5, 8, 12, 14):
        text = (
            f"image_size: [640, 480]\nK: {K.tolist()}\ndist: {[0.1, 0.2] + [0.0] * (count - 2)}\n"
        )
        assert rig_of(text).cameras[0].coefficients == (0.1, 0.2, 0.0, 0.0)
    tilted = [0.1] + [0.0] * 12 + [0.01]
    assert rig_of(f"K: {K.tolist()}\ndist: {tilted}\n").cameras[0].coefficients == tuple(tilted)


def test_a_skewed_matrix_is_refused(rig_of: RigOf) -> None:
    with pytest.raises(CalibrationError, match="has a skew of 4"):
        rig_of("K: [[400, 4, 320], [0, 400, 240], [0, 0, 1]]\n")


def test_xml_with_definitions_is_refused_at_once(tmp_path: Path) -> None:
    text = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><opencv_storage><K>&b;</K>'
    (tmp_path / "c.xml").write_text(text + "</opencv_storage>")
    with pytest.raises(CalibrationError):
        load_calibration(tmp_path / "c.xml")
