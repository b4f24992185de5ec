"""KITTI raw: drives `_sync` and `_extract`, and the ground truth of the GPS and IMU."""

from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.datasets.kitti_raw import poses_of_oxts
from spslam.errors import CalibrationError, DatasetError

INDICES = (0, 9, 20, 31)
DRIVE = "2011_09_26_drive_0001_sync"


@pytest.fixture
def shots() -> tuple[forms.Shot, ...]:
    return forms.take(INDICES)


def test_a_drive_is_recognised_with_its_calibration_and_ground_truth(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    date = forms.kitti_raw(tmp_path, shots)
    for path in (date, date / DRIVE, tmp_path):
        sequence, _ = opened(path)
        assert (sequence.dataset, sequence.name) == ("kitti_raw", f"kitti_raw {DRIVE}")
        assert (sequence.sensor, len(sequence), sequence.time_unit) == ("stereo", 4, "s")
    camera, own = sequence.camera, forms.OWN
    assert (camera.fx, camera.cy, camera.baseline_m) == pytest.approx((own.fx, own.cy, 0.11))
    assert np.array_equal(sequence[1].image, shots[1].left)
    assert np.array_equal(sequence[1].image_right, shots[1].right)
    # Nine digits behind the second, though the sum with the seconds since 1970 has seven.
    steps = [frame.timestamp - sequence[0].timestamp for frame in sequence]
    assert steps == pytest.approx([shot.time_s for shot in shots], abs=1e-6)
    truth = sequence.ground_truth
    assert motion_error(truth.T_world_cam, [s.T_world_cam for s in shots]) < 1e-5
    assert truth.frame.startswith("left camera (carried from the GPS/IMU")
    # The stamps of the ground truth are its own, a millisecond later.
    assert truth.timestamps[0] - sequence[0].timestamp == pytest.approx(1e-3, abs=1e-6)


def test_one_of_several_drives_is_chosen(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    forms.kitti_raw(tmp_path, shots[:2])
    date = forms.kitti_raw(tmp_path, shots[2:], "2011_09_26_drive_0005_sync")
    with pytest.raises(DatasetError, match=r"holds 2 sequences .* choose one with --sequence"):
        open_sequence(date)
    for path in (date, tmp_path):
        assert open_sequence(path, sequence="0005").name.endswith("0005_sync")


def test_the_colour_pair_is_a_few_centimetres_beside_camera_0(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    sequence, _ = opened(forms.kitti_raw(tmp_path, shots, cameras=(2, 3)))
    assert sequence.camera.baseline_m == pytest.approx(0.11)
    assert sequence.ground_truth.frame.startswith("left colour camera")
    assert motion_error(sequence.ground_truth.T_world_cam, [s.T_world_cam for s in shots]) < 1e-5


def test_images_as_recorded_are_rectified(tmp_path: Path) -> None:
    T_left_right = forms.rigid([0, 0, 0], [0.11, 0.002, -0.001])
    shots = forms.take(INDICES[:2], forms.BENT, T_left_right)
    name = "2011_09_26_drive_0001_extract"
    date = forms.kitti_raw(tmp_path, shots, name, camera=forms.BENT, T_left_right=T_left_right)
    sequence, printed = opened(date)
    assert "the size before rectification (240x160): K and D" in printed
    assert sequence.camera.distortion_model == "none"
    assert sequence.camera.baseline_m == pytest.approx(np.linalg.norm(T_left_right[:3, 3]))
    mono, _ = opened(date, sensor="mono")
    assert mono.camera.distortion == forms.BENT.distortion
    assert motion_error(mono.ground_truth.T_world_cam, [s.T_world_cam for s in shots]) < 1e-5
    # The rectified camera is turned against the left one: the same turn for all frames.
    T_world_left = mono.ground_truth.T_world_cam
    T_left_rectified = np.linalg.inv(T_world_left) @ sequence.ground_truth.T_world_cam
    assert np.abs(T_left_rectified - T_left_rectified[0]).max() < 1e-9
    pose = shots[1].T_world_cam @ T_left_rectified[0]
    assert forms.differs_from_world(sequence[1].image, sequence.camera, pose) < 1.5
    pose[:3, 3] += pose[:3, 0] * sequence.camera.baseline_m
    assert forms.differs_from_world(sequence[1].image_right, sequence.camera, pose) < 1.5


def test_a_partial_ground_truth_is_used_as_far_as_it_goes(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    date = forms.kitti_raw(tmp_path, shots)
    data = date / DRIVE / "oxts" / "data"
    (data / "0000000001.txt").write_text("49.0 8.4 nonsense")
    (data / "0000000003.txt").unlink()
    sequence, printed = opened(date)
    assert "1 pose is left out of the ground truth" in printed
    expected = [shots[0].T_world_cam, shots[2].T_world_cam]
    assert motion_error(sequence.ground_truth.T_world_cam, expected) < 1e-5
    (date / "calib_imu_to_velo.txt").unlink()
    sequence, printed = opened(date)
    assert sequence.ground_truth is None and "calib_imu_to_velo.txt: cannot be read" in printed


def test_images_without_a_stamp_or_a_partner_are_left_out(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    date = forms.kitti_raw(tmp_path, shots)
    stamps = date / DRIVE / "image_00" / "timestamps.txt"
    stamps.write_text("".join(stamps.read_text().splitlines(keepends=True)[:3]))
    (date / DRIVE / "image_01" / "data" / "0000000001.png").unlink()
    sequence, printed = opened(date)
    assert len(sequence) == 2 and len(sequence.left_out) == 2
    assert "1 of 4 images is left out: timestamps.txt has no stamp" in printed
    assert "1 of 3 images has no right image" in printed


def test_what_is_missing_is_named(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    date = forms.kitti_raw(tmp_path, shots[:2])
    with pytest.raises(DatasetError, match="is KITTI raw, which has no depth images"):
        open_sequence(date, sensor="rgbd")
    (date / "calib_cam_to_cam.txt").rename(tmp_path / "calib")
    with pytest.raises(CalibrationError, match=r"expected KITTI's calibration at .*calib\.zip"):
        open_sequence(date)
    for old, new, fault in (
        ("P_rect_00: ", "P_rect_00: x ", "expected 12 numbers after 'P_rect_00:'"),
        ("S_rect_00", "S_rct", "expected 2 numbers after 'S_rect_00:', found no such line"),
    ):
        lines = (tmp_path / "calib").read_text().replace(old, new)
        (date / "calib_cam_to_cam.txt").write_text(lines)
        with pytest.raises(CalibrationError, match=fault):
            open_sequence(date)


def test_the_projection_has_axes_east_north_up() -> None:
    degree_m = np.radians(1.0) * 6378137.0
    still = [49.0, 8.0, 100.0, 0.0, 0.0, 0.0]
    east, north = [49.0, 8.001, 101.0, 0, 0, 0], [49.001, 8.0, 100.0, 0, 0, np.pi / 2]
    poses = poses_of_oxts(np.array([still, east, north]))
    moved = poses[1:, :3, 3] - poses[0, :3, 3]
    assert moved[0] == pytest.approx([1e-3 * degree_m * np.cos(np.radians(49.0)), 0.0, 1.0])
    assert moved[1] == pytest.approx([0.0, 1e-3 * degree_m, 0.0], abs=2e-3)
    # The IMU's x axis points forwards: with a yaw of 90 degrees to the north.
    assert poses[2, :3, 0] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
