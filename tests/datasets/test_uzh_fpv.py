"""UZH-FPV: lists of images, a camchain in a folder of its own, two forms of ground truth."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError

INDICES = (0, 9, 20)
T_LEFT_RIGHT = forms.rigid([0.004, -0.006, 0.003], [0.08, 0.001, 0.002])


@pytest.fixture
def shots() -> tuple[forms.Shot, ...]:
    return forms.take(INDICES, forms.FISHEYE, T_LEFT_RIGHT)


@pytest.mark.parametrize("numbered_truth", [False, True])
def test_a_recording_is_recognised_and_right_in_space(
    tmp_path: Path, shots: tuple[forms.Shot, ...], numbered_truth: bool
) -> None:
    folder = forms.uzh_fpv(tmp_path, shots, T_LEFT_RIGHT, numbered_truth)
    sequence, _ = opened(folder)
    assert (sequence.dataset, sequence.sensor, len(sequence)) == ("uzhfpv", "stereo", 3)
    truth = sequence.ground_truth
    assert truth.timestamps == pytest.approx([f.timestamp for f in sequence], abs=1e-6)
    assert "carried from the IMU" in truth.frame
    for at in (0, 1):
        pose = truth.T_world_cam[at].copy()
        assert forms.differs_from_world(sequence[at].image, sequence.camera, pose) < 1.5
    mono, _ = opened(folder, sensor="mono")
    expected = [shot.T_world_cam for shot in shots]
    assert motion_error(mono.ground_truth.T_world_cam, expected) < 1e-9
    assert np.array_equal(mono[2].image, shots[2].left)


def test_the_clock_of_the_imu_is_taken_into_account(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.uzh_fpv(tmp_path, shots, T_LEFT_RIGHT, False, shift_s=-0.0166)
    sequence, printed = opened(folder)
    times = [frame.timestamp for frame in sequence]
    assert sequence.ground_truth.timestamps == pytest.approx(times, abs=1e-6)
    assert "16.6 ms behind the images (timeshift_cam_imu)" in printed


def test_the_calibration_of_the_same_place_and_sensor_is_chosen(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.uzh_fpv(tmp_path, shots, T_LEFT_RIGHT, False)
    own = tmp_path / "indoor_forward_calib_snapdragon"
    shutil.copytree(own, tmp_path / "outdoor_forward_calib_snapdragon")
    shutil.copytree(own, tmp_path / "indoor_forward_calib_davis")
    assert "is used, whose folder has another name" not in opened(folder)[1]
    assert opened(tmp_path)[0].name == f"uzhfpv {folder.name}"
    shutil.rmtree(own)
    with pytest.raises(CalibrationError, match="2 calibrations may be its own"):
        open_sequence(folder)
    shutil.rmtree(tmp_path / "indoor_forward_calib_davis")
    assert "whose folder has another name than the recording" in opened(folder)[1]
    chain = next((tmp_path / "outdoor_forward_calib_snapdragon").rename(tmp_path / "x").iterdir())
    with pytest.raises(CalibrationError, match=r"found none: give it with --calibration FILE"):
        open_sequence(folder)
    assert open_sequence(folder, calibration=chain).sensor == "stereo"


def test_the_davis_is_mono(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    folder = forms.uzh_fpv(tmp_path, shots, T_LEFT_RIGHT, False)
    (folder / "left_images.txt").rename(folder / "images.txt")
    (folder / "right_images.txt").unlink()
    assert opened(folder)[0].sensor == "mono"
    with pytest.raises(DatasetError, match=r"stereo needs lists left_images\.txt"):
        open_sequence(folder, sensor="stereo")


def test_a_ground_truth_that_cannot_be_read_ends_no_run(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.uzh_fpv(tmp_path, shots, T_LEFT_RIGHT, False)
    (folder / "groundtruth.txt").write_text("nonsense\n")
    sequence, printed = opened(folder)
    assert sequence.ground_truth is None and "continues without ground truth" in printed
