import json
from collections.abc import Callable

from spslam.datasets.calibration.formats.rig import Rig

RigOf = Callable[..., Rig]
# Column by column: fx 0 0, 0 fy 0, cx cy 1.
COLUMNS = [525.0, 0, 0, 0, 526.0, 0, 319.5, 239.0, 1]
INTRINSIC = {"width": 640, "height": 480, "intrinsic_matrix": COLUMNS}


def test_the_matrix_is_written_column_by_column(rig_of: RigOf) -> None:
    camera = rig_of(json.dumps(INTRINSIC), "intrinsic.json").cameras[0]
    assert camera.intrinsics == (525.0, 526.0, 319.5, 239.0) and camera.size == (640, 480)
    rows = [525.0, 0, 319.5, 0, 526.0, 239.0, 0, 0, 1]
    by_rows = rig_of(json.dumps(INTRINSIC | {"intrinsic_matrix": rows}), "intrinsic.json")
    assert by_rows.cameras[0].intrinsics == camera.intrinsics


def test_parameters_and_trajectories_hold_it_deeper(rig_of: RigOf) -> None:
    one = {"class_name": "PinholeCameraParameters", "extrinsic": [1.0] * 16, "intrinsic": INTRINSIC}
    assert rig_of(json.dumps(one)).cameras[0].intrinsics[1] == 526.0
    many = {"class_name": "PinholeCameraTrajectory", "parameters": [one, one]}
    rig = rig_of(json.dumps(many))
    assert rig.cameras[0].intrinsics[1] == 526.0 and "first camera" in rig.describe("x")


def test_open3ds_own_file_is_read(rig_of: RigOf, tmp_path: object) -> None:
    import pytest

    open3d = pytest.importorskip("open3d")
    camera = open3d.camera.PinholeCameraIntrinsic(640, 480, 525.0, 526.0, 319.5, 239.0)
    path = f"{tmp_path}/o3d.json"
    open3d.io.write_pinhole_camera_intrinsic(path, camera)
    with open(path) as file:  # noqa: PTH123
        text = file.read()
    assert rig_of(text).cameras[0].intrinsics == (525.0, 526.0, 319.5, 239.0)
