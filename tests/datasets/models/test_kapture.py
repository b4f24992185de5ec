"""Kapture: world to device, rigs, stamps that are times or numbers."""

from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError

INDICES = (0, 2, 4, 6)


@pytest.fixture
def shots() -> tuple[forms.Shot, ...]:
    return forms.take(INDICES)


@pytest.mark.parametrize("rig", [False, True])
def test_a_kapture_is_recognised_and_its_poses_are_ground_truth(
    tmp_path: Path, shots: tuple[forms.Shot, ...], rig: bool
) -> None:
    sequence, printed = opened(forms.kapture(tmp_path / "walk", shots, rig))
    assert (sequence.dataset, sequence.sensor, len(sequence)) == ("kapture", "mono", 4)
    assert "counted in the order of their numbers" in printed and "no metres" in printed
    assert sequence.camera.cx == pytest.approx(forms.OWN.cx)
    assert np.array_equal(sequence[3].image, shots[3].left)
    expected = [shot.T_world_cam for shot in shots]
    assert motion_error(sequence.ground_truth.T_world_cam, expected, forms.SCALE) < 1e-9


def test_large_stamps_are_times(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    sequence, _ = opened(forms.kapture(tmp_path, shots, first_stamp=1520530308199447626))
    assert sequence.time_unit == "ns"
    assert np.diff(sequence.timestamps) == pytest.approx([0.1] * 3, abs=1e-6)
    assert sequence.ground_truth.timestamps == pytest.approx(sequence.timestamps)


def test_one_of_several_kaptures_is_chosen(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    forms.kapture(tmp_path / "mapping", shots)
    forms.kapture(tmp_path / "query", shots[:2])
    with pytest.raises(DatasetError, match="holds 2 sequences"):
        open_sequence(tmp_path)
    assert len(open_sequence(tmp_path, sequence="query")) == 2


def test_the_camera_with_the_most_images_is_read(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.kapture(tmp_path, shots)
    sensors = folder / "sensors" / "sensors.txt"
    sensors.write_text(
        sensors.read_text() + "cam1, , camera, SIMPLE_RADIAL, 320, 240, 200, 160, 120, 0.1\n"
    )
    records = folder / "sensors" / "records_camera.txt"
    records.write_text(records.read_text().replace("0003, cam0", "0003, cam1"))
    sequence, printed = opened(folder)
    assert len(sequence) == 3 and "3 of 'cam0' are read" in printed
    other = open_sequence(folder, sequence="cam1").camera
    assert (other.fx, other.distortion) == (200.0, (0.1, 0, 0, 0))


def test_missing_poses_and_parts_of_poses_are_left_out(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.kapture(tmp_path, shots)
    path = folder / "sensors" / "trajectories.txt"
    lines = path.read_text().splitlines()
    # A rotation without a translation, and an image without a pose.
    lines[3] = ", ".join([*lines[3].split(", ")[:6], "", "", ""])
    path.write_text("\n".join(lines[:-1]) + "\n")
    sequence, printed = opened(folder)
    assert len(sequence) == 4 and len(sequence.ground_truth) == 2
    assert "1 of 4 images has no pose" in printed and "1 pose is left out" in printed
    path.write_text("0, cam0, 1\n")
    sequence, printed = opened(folder)
    assert sequence.ground_truth is None and "expected timestamp, device_id, qw" in printed


def test_unknown_intrinsics_need_a_calibration(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.kapture(tmp_path / "walk", shots)
    sensors = folder / "sensors" / "sensors.txt"
    sensors.write_text("cam0, , camera, UNKNOWN_CAMERA, 320, 240\n")
    with pytest.raises(CalibrationError, match=r"cam0 are unknown .* give --calibration FILE"):
        open_sequence(folder)
    keys = ("width", "height", "fx", "fy", "cx", "cy")
    calibration = tmp_path / "camera.yaml"
    calibration.write_text("".join(f"{key}: {getattr(forms.OWN, key)}\n" for key in keys))
    assert open_sequence(folder, calibration=calibration).camera.fx == forms.OWN.fx
    sensors.write_text("lidar0, , lidar\n")
    with pytest.raises(CalibrationError, match="expected the camera cam0, found lidar0"):
        open_sequence(folder)
    (folder / "sensors" / "records_camera.txt").write_text("0, cam0\n")
    with pytest.raises(DatasetError, match=r"records_camera\.txt:1: expected timestamp"):
        open_sequence(folder)
