"""TUM VI: EuRoC's layout with a camchain, 16-bit fisheye images and ground truth of the IMU."""

from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError

INDICES = (0, 9, 20)
T_LEFT_RIGHT = forms.rigid([0.004, -0.006, 0.003], [0.101, 0.002, 0.001])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shots = forms.take(INDICES, forms.FISHEYE, T_LEFT_RIGHT)
    return forms.tum_vi(tmp_path, shots, T_LEFT_RIGHT, slice(0, 2))


def test_a_recording_is_recognised_and_right_in_space(folder: Path) -> None:
    for path in (folder, folder / "mav0", folder.parent):
        sequence, _ = opened(path)
        assert (sequence.dataset, sequence.name) == ("tumvi", "tumvi dataset-room1_512_16")
        assert (sequence.sensor, len(sequence), sequence.time_unit) == ("stereo", 3, "ns")
    assert sequence.camera.baseline_m == pytest.approx(np.linalg.norm(T_LEFT_RIGHT[:3, 3]))
    # Ground truth of the beginning only.
    truth = sequence.ground_truth
    assert len(truth) == 2 and "carried from the IMU by T_cam_imu" in truth.frame
    for at in (0, 1):
        pose = truth.T_world_cam[at].copy()
        assert forms.differs_from_world(sequence[at].image, sequence.camera, pose) < 1.5
        pose[:3, 3] += pose[:3, 0] * sequence.camera.baseline_m
        assert forms.differs_from_world(sequence[at].image_right, sequence.camera, pose) < 1.5


def test_mono_keeps_the_fisheye_and_its_axes(folder: Path) -> None:
    sequence, _ = opened(folder, sensor="mono")
    assert sequence.camera.distortion == forms.FISHEYE.distortion
    shots = forms.take(INDICES, forms.FISHEYE, T_LEFT_RIGHT)
    truth = sequence.ground_truth.T_world_cam
    assert motion_error(truth, [shot.T_world_cam for shot in shots[:2]]) < 1e-9
    assert np.abs(sequence[1].image.astype(int) - shots[1].left).max() <= 1


def test_the_camchain_is_found_or_given(folder: Path, tmp_path: Path) -> None:
    chain = (folder / "dso" / "camchain.yaml").rename(tmp_path / "other.yaml")
    with pytest.raises(CalibrationError, match=r"dso/camchain\.yaml, found .* --calibration FILE"):
        open_sequence(folder)
    assert open_sequence(folder, calibration=chain).sensor == "stereo"
    chain.rename(folder / "camchain.yaml")
    assert open_sequence(folder).dataset == "tumvi"


def test_a_recording_with_sensor_yaml_is_eurocs(folder: Path) -> None:
    (folder / "mav0" / "cam0" / "sensor.yaml").touch()
    with pytest.raises(CalibrationError, match=r"sensor\.yaml"):
        open_sequence(folder)
