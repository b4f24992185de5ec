from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.errors import DatasetError


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("kitti", "kitti 00"),
        ("kitti/sequences/00", "kitti 00"),
        ("tum", "tum freiburg1_rpy"),
        ("tum/rgbd_dataset_freiburg1_rpy", "tum freiburg1_rpy"),
        ("euroc/V1_01_easy_still", "euroc V1_01_easy_still"),
        ("euroc/V1_01_easy_still/mav0", "euroc V1_01_easy_still"),
    ],
)
def test_real_folders_are_recognised(test_data: Path, place: str, kind: str) -> None:
    assert open_sequence(test_data / place).name == kind


def test_relative_paths_have_names(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(test_data / "kitti" / "sequences" / "00")
    sequence = open_sequence(".")
    assert sequence.name == "kitti 00" and sequence.ground_truth is not None
    monkeypatch.chdir("image_0")
    assert open_sequence("..").name == "kitti 00"


def test_errors_for_unrecognised_folders_name_what_is_expected_and_found(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"not recognised: expected KITTI .* found an empty folder"
    ):
        open_sequence(tmp_path)
    for i in range(12):
        (tmp_path / f"notes{i:02d}.txt").touch()
    with pytest.raises(DatasetError, match=r"found notes00\.txt, .*, … \(12 in all\)") as error:
        open_sequence(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("below", ["a", "a/b"])
def test_recordings_below_an_unrecognised_folder_are_named(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / below / "0.png"), np.zeros((4, 4), np.uint8))
    (tmp_path / "walk.mp4").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError) as error:
        open_sequence(tmp_path)
    named = str(error.value).split("; give one of the recordings in it, for example ")[1]
    assert set(named.split(", ")) == {below, "walk.mp4"} and "\n" not in str(error.value)


def test_missing_paths_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError,
        match=r"built-in world \(demo, demo-small, .*demo-street\), found nothing at",
    ):
        open_sequence(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DatasetError, match="is a file, but no video"):
        open_sequence(tmp_path / "a.txt")
    with pytest.raises(DatasetError, match="expected a folder with kitti, found a file"):
        open_sequence(tmp_path / "a.txt", dataset="kitti")


def test_a_folder_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read: .*Permission denied"):
        open_sequence(tmp_path)


def test_impossible_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset must be one of auto, kitti, .* found 'kiti'"):
        open_sequence(tmp_path, dataset="kiti")
    with pytest.raises(
        DatasetError, match="sensor must be one of auto, mono, stereo, rgbd, found 'lidar'"
    ):
        open_sequence(tmp_path, sensor="lidar")
    with pytest.raises(DatasetError, match=r"built-in world \(demo, .* found 'kitchen'"):
        open_sequence("kitchen", dataset="demo")


def test_worlds_are_opened_by_name(write: Callable, picture: Callable) -> None:
    sequence = open_sequence("demo-small", max_frames=2)
    assert sequence.sensor == "stereo" and [frame.index for frame in sequence] == [0, 1]
    assert sequence.ground_truth is not None
    with pytest.raises(DatasetError, match="demo brings its own calibration"):
        open_sequence("demo-small", calibration="c.yaml")
    with pytest.raises(DatasetError, match="a demo has no sequences"):
        open_sequence("demo-small", sequence="1")


def test_slices_of_recordings(test_data: Path) -> None:
    part = open_sequence(test_data / "kitti", start=90, max_frames=20, stride=4)
    assert len(part) == 3 and [frame.index for frame in part] == [90, 94, 98]
    with pytest.raises(DatasetError, match="start 100 lies past the end: kitti 00 has 100 frames"):
        open_sequence(test_data / "kitti", start=100)
