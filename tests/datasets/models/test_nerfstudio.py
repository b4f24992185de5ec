"""`transforms.json`: OpenGL's axes, half a pixel, order of names, depth in millimetres."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError

# Eleven frames: frame_10 must not come before frame_2.
INDICES = (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)


@pytest.fixture
def shots() -> tuple[forms.Shot, ...]:
    return forms.take(INDICES)


def poses(shots: tuple[forms.Shot, ...]) -> list[np.ndarray]:
    return [shot.T_world_cam for shot in shots]


def test_images_are_counted_in_the_order_of_their_names(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    sequence, printed = opened(forms.nerfstudio(tmp_path / "walk", shots))
    assert (sequence.dataset, sequence.name) == ("nerfstudio", "nerfstudio walk")
    assert (sequence.sensor, sequence.time_unit, len(sequence)) == ("mono", "frames", 11)
    assert "counted in the order of their names, 30 a second" in printed
    assert "ground truth are units of transforms.json, no metres" in printed
    for at in (0, 1, 10):
        assert np.array_equal(sequence[at].image, shots[at].left)
        assert sequence[at].timestamp == pytest.approx(at / 30)
    # Half a pixel less than in the file.
    camera = sequence.camera
    assert (camera.cx, camera.cy) == pytest.approx((forms.OWN.cx, forms.OWN.cy))
    assert (camera.fx, camera.distortion_model) == (forms.OWN.fx, "none")
    error = motion_error(sequence.ground_truth.T_world_cam, poses(shots), forms.SCALE)
    assert error < 1e-9


def test_depth_makes_it_rgbd_in_metres(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    folder = forms.nerfstudio(tmp_path, shots[:3], depth=True)
    sequence, printed = opened(folder)
    assert sequence.sensor == "rgbd" and "no metres" not in printed
    assert np.abs(sequence[1].depth - shots[1].depth).max() < 6e-4
    assert motion_error(sequence.ground_truth.T_world_cam, poses(shots[:3])) < 1e-9
    assert opened(folder, sensor="mono")[0].sensor == "mono"
    (folder / "depths" / "frame_2.png").unlink()
    sequence, printed = opened(folder)
    assert len(sequence) == 2 and "1 of 3 images has no depth image and is left out" in printed
    for path in (folder / "depths").iterdir():
        path.unlink()
    assert "none of the depth images" in opened(folder)[1]
    with pytest.raises(DatasetError, match="RGB-D needs depth images, but none is there"):
        open_sequence(folder, sensor="rgbd")


def test_an_applied_scale_is_undone_where_depth_is_in_metres(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    def shrink(values: dict[str, Any]) -> None:
        values["applied_scale"] = 0.25
        for frame in values["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[3] *= 0.25

    folder = forms.nerfstudio(tmp_path, shots[:3], depth=True, change=shrink)
    sequence, printed = opened(folder)
    assert motion_error(sequence.ground_truth.T_world_cam, poses(shots[:3])) < 1e-9
    assert "divided by its applied_scale 0.25" in printed


def test_intrinsics_of_each_frame_are_joined(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    folder = forms.nerfstudio(tmp_path / "equal", shots[:5], per_frame=True)
    sequence, printed = opened(folder)
    assert sequence.camera.fx == forms.OWN.fx and "intrinsics of their own" not in printed

    def drift(values: dict[str, Any]) -> None:
        for at, frame in enumerate(values["frames"]):
            frame["fl_x"] = frame["fl_y"] = 230.0 + at
        values["frames"][0]["fl_x"] = 500.0

    sequence, printed = opened(forms.nerfstudio(tmp_path / "d", shots[:5], False, True, drift))
    assert len(sequence) == 4 and "1 image is left out: their camera has another size" in printed
    assert "the images have intrinsics of their own, up to 0.9 %" in printed
    assert sequence.camera.fx == pytest.approx(232.5)


@pytest.mark.parametrize(
    ("changes", "model", "expected"),
    [
        ({"k1": -0.1, "p2": 0.002}, "radtan", (-0.1, 0.0, 0.0, 0.002, 0.0)),
        (
            {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.01},
            "equidistant",
            (0.1, 0.0, 0.0, 0.01),
        ),
        ({"camera_model": None, "is_fisheye": True, "k2": 0.1}, "equidistant", (0, 0.1, 0, 0)),
    ],
)
def test_lenses(
    tmp_path: Path,
    shots: tuple[forms.Shot, ...],
    changes: dict[str, Any],
    model: str,
    expected: tuple[float, ...],
) -> None:
    folder = forms.nerfstudio(tmp_path, shots[:2], change=lambda values: values.update(changes))
    camera = open_sequence(folder).camera
    assert (camera.distortion_model, camera.distortion) == (model, expected)


def test_a_field_of_view_stands_for_the_focal_length(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    """As in NeRF's synthetic scenes, whose names have no extension."""

    def reduce(values: dict[str, Any]) -> None:
        for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
            del values[key]
        values["camera_angle_x"] = 2 * np.arctan(160 / 230.0)
        for frame in values["frames"]:
            frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")

    folder = forms.nerfstudio(tmp_path, shots[:3], change=reduce)
    (folder / "transforms.json").rename(folder / "transforms_train.json")
    camera = opened(folder)[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((230, 230, 159.5, 119.5))


def test_a_damaged_pose_is_left_out_of_the_ground_truth(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    def damage(values: dict[str, Any]) -> None:
        values["frames"][0]["transform_matrix"] = [[1, 2], [3, 4]]
        values["frames"][1].pop("transform_matrix")

    folder = forms.nerfstudio(tmp_path, shots[:4], change=damage)
    sequence, printed = opened(folder)
    # The file lists the frames backwards.
    truth = sequence.ground_truth
    assert len(sequence) == 4 and truth.timestamps == pytest.approx([0, 1 / 30])
    assert "2 poses are left out of the ground truth" in printed
    assert truth.origin is not None and truth.origin.left_out_rows == 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"fl_x": None, "fl_y": None}, "expected the focal length fl_x, or camera_angle_x"),
        ({"fl_x": "wide"}, "expected a number under fl_x, found 'wide'"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model 'EQUIRECTANGULAR' is not supported"),
        ({"k4": 0.1}, "a lens model of nerfstudio's own"),
        ({"w": 321}, "images in .* are 320x240, but the camera in .* is for 321x240"),
        ({"frames": []}, "lists no frames"),
        ({"frames": 3}, "expected keys with a list of frames"),
        ({"frames": [{"file_path": "x.png"}]}, "none of the 1 image .* expected for example"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, shots: tuple[forms.Shot, ...], change: dict[str, Any], fault: str
) -> None:
    folder = forms.nerfstudio(tmp_path, shots[:2], change=lambda values: values.update(change))
    with pytest.raises((DatasetError, CalibrationError), match=fault) as error:
        open_sequence(folder, dataset="nerfstudio")
    assert "\n" not in str(error.value)


def test_files_that_are_no_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(DatasetError, match="is no JSON"):
        open_sequence(tmp_path)
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [3, {"file_path": ""}]}))
    with pytest.raises(DatasetError, match="none of the 0 images"):
        open_sequence(tmp_path)


def test_our_calibration_makes_it_an_image_folder(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.nerfstudio(tmp_path, shots[:2])
    lines = [f"{key}: {getattr(forms.OWN, key)}" for key in ("width", "height", "fx", "fy")]
    (folder / "calibration.yaml").write_text("\n".join([*lines, "cx: 160", "cy: 120", "fps: 20"]))
    assert open_sequence(folder).dataset == "images"
    assert open_sequence(folder, dataset="nerfstudio").dataset == "nerfstudio"
