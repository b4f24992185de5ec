"""KITTI-360: the rectified pair, and poses of some of the frames."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError

INDICES = (0, 9, 20, 31)
POSED = (1, 3)
DRIVE = "2013_05_28_drive_0000_sync"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return forms.kitti_360(tmp_path / "KITTI-360", forms.take(INDICES), POSED)


def test_a_drive_is_recognised_and_has_poses_of_some_frames(root: Path) -> None:
    for path in (root, root / "data_2d_raw", root / "data_2d_raw" / DRIVE):
        sequence, printed = opened(path)
        assert (sequence.dataset, sequence.name) == ("kitti360", f"kitti360 {DRIVE}")
        assert (sequence.sensor, len(sequence)) == ("stereo", 4)
    assert "the fisheye images of image_02 and image_03 are not read" in printed
    assert sequence.camera.baseline_m == pytest.approx(0.11)
    truth, shots = sequence.ground_truth, forms.take(INDICES)
    assert truth.timestamps.tolist() == [sequence[at].timestamp for at in POSED]
    assert motion_error(truth.T_world_cam, [shots[at].T_world_cam for at in POSED]) < 1e-8
    # UTM coordinates are taken relative to the first pose.
    assert np.abs(truth.positions).max() < 10


def test_poses_of_the_body_are_carried_to_the_rectified_camera(root: Path) -> None:
    (root / "data_poses" / DRIVE / "cam0_to_world.txt").unlink()
    sequence, _ = opened(root)
    expected = [forms.take(INDICES)[at].T_world_cam for at in POSED]
    assert motion_error(sequence.ground_truth.T_world_cam, expected) < 1e-8
    assert "carried from the body" in sequence.ground_truth.frame
    shutil.rmtree(root / "data_poses")
    assert opened(root, sensor="mono")[0].ground_truth is None


def test_damaged_poses_are_left_out(root: Path) -> None:
    poses = root / "data_poses" / DRIVE / "cam0_to_world.txt"
    good = poses.read_text()
    poses.write_text(good + "99 " + good.splitlines()[0].partition(" ")[2] + "\n2 1 0 nonsense\n")
    sequence, printed = opened(root)
    assert len(sequence.ground_truth) == 2
    assert "1 pose is of no image with a time stamp" in printed and "1 row is left out" in printed
    poses.write_text("nonsense\n")
    sequence, printed = opened(root)
    assert sequence.ground_truth is None and "has no pose of any frame" in printed


def test_without_the_list_of_stamps_images_are_counted(root: Path) -> None:
    for number in (0, 1):
        (root / "data_2d_raw" / DRIVE / f"image_0{number}" / "timestamps.txt").unlink()
    sequence, printed = opened(root)
    assert (
        sequence.time_unit == "frames" and "timestamps.txt is missing: images are count" in printed
    )
    assert [frame.timestamp for frame in sequence] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert sequence.ground_truth.timestamps == pytest.approx([0.1, 0.3])


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(DatasetError, match="is KITTI-360, which has no depth images"):
        open_sequence(root, sensor="rgbd")
    (root / "calibration" / "perspective.txt").unlink()
    with pytest.raises(
        CalibrationError, match=r"expected KITTI-360's calibration at .*perspective"
    ):
        open_sequence(root)
