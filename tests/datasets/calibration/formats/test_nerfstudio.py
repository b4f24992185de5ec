import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError

RigOf = Callable[..., Rig]
SHARED = {"fl_x": 400, "fl_y": 401, "cx": 320, "cy": 240, "w": 640, "h": 480}
BENT = {"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4}


def test_pixels_count_from_their_corners(rig_of: RigOf) -> None:
    rig = rig_of(json.dumps(SHARED | BENT | {"camera_model": "OPENCV", "frames": []}))
    assert rig.cameras[0].intrinsics == (400, 401, 319.5, 239.5)
    assert rig.cameras[0].coefficients == (0.1, 0.2, 0.3, 0.4)


def test_fisheyes_have_k3_and_k4(rig_of: RigOf) -> None:
    values = {"k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4, "camera_model": "OPENCV_FISHEYE"}
    camera = rig_of(json.dumps(SHARED | values)).cameras[0]
    assert camera.model == "equidistant" and camera.coefficients == (0.1, 0.2, 0.3, 0.4)
    ngp = rig_of(json.dumps(SHARED | {"k1": 0.1, "is_fisheye": True})).cameras[0]
    assert ngp.model == "equidistant"


def test_the_k4_of_a_perspective_lens_is_refused(rig_of: RigOf) -> None:
    with pytest.raises(CalibrationError, match=r"that of r\^8"):
        rig_of(json.dumps(SHARED | {"k4": 0.1}))
    with pytest.raises(CalibrationError, match="expected OPENCV, PINHOLE"):
        rig_of(json.dumps(SHARED | {"camera_model": "EQUIRECTANGULAR"}))


def test_an_angle_of_view_or_the_first_frame_gives_the_camera(rig_of: RigOf) -> None:
    angle = rig_of(json.dumps({"camera_angle_x": math.pi / 2, "w": 640, "h": 480}))
    assert angle.cameras[0].intrinsics == pytest.approx((320, 320, 319.5, 239.5))
    frames = [{"file_path": "a.png", **SHARED}, {"file_path": "b.png", **SHARED, "fl_x": 500}]
    rig = rig_of(json.dumps({"camera_model": "OPENCV", "frames": frames}))
    assert rig.cameras[0].intrinsics[0] == 400 and "its first frame" in rig.describe("x")


def test_a_file_with_thousands_of_poses_is_read(tmp_path: Path) -> None:
    pose = [[0.123456789] * 4] * 4
    frames = [{"file_path": f"images/{i}.png", "transform_matrix": pose} for i in range(6000)]
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(SHARED | {"frames": frames}))
    assert path.stat().st_size > 1_000_000
    assert load_calibration(path).camera.fx == 400
