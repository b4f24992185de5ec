"""Models of COLMAP: world to camera, half a pixel, text and binary, sparse poses."""

from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import motion_error, opened

from spslam.datasets import open_sequence
from spslam.datasets.models.cameras import MODELS, colmap_camera
from spslam.datasets.models.colmap import read_cameras, read_images
from spslam.errors import CalibrationError, DatasetError

INDICES = (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)


@pytest.fixture
def shots() -> tuple[forms.Shot, ...]:
    return forms.take(INDICES)


@pytest.mark.parametrize("binary", [False, True])
def test_a_project_is_recognised_and_its_poses_are_ground_truth(
    tmp_path: Path, shots: tuple[forms.Shot, ...], binary: bool
) -> None:
    folder = forms.colmap(tmp_path / "walk", shots, binary)
    for path in (folder, folder / "sparse" / "0"):
        sequence, printed = opened(path)
        assert (sequence.dataset, sequence.sensor, len(sequence)) == ("colmap", "mono", 11)
    assert "units of COLMAP's model, no metres" in printed and "counted in the order" in printed
    camera, own = sequence.camera, forms.OWN
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx(
        (own.fx, own.fy, own.cx, own.cy)
    )
    assert np.array_equal(sequence[10].image, shots[10].left)
    expected = [shot.T_world_cam for shot in shots]
    assert motion_error(sequence.ground_truth.T_world_cam, expected, forms.SCALE) < 1e-9


def test_images_that_are_not_in_the_model_have_no_ground_truth(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    sequence, printed = opened(forms.colmap(tmp_path, shots, False, registered=(1, 4, 7)))
    assert len(sequence) == 11 and "8 images of its folder are not in the model" in printed
    truth = sequence.ground_truth
    assert truth.timestamps == pytest.approx([1 / 30, 4 / 30, 7 / 30])
    expected = [shots[at].T_world_cam for at in (1, 4, 7)]
    assert motion_error(truth.T_world_cam, expected, forms.SCALE) < 1e-9


def test_binary_files_win_and_the_largest_model_is_read(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.colmap(tmp_path / "walk", shots, True)
    other = forms.colmap(tmp_path / "other", shots[:2], False)
    model = folder / "sparse" / "0"
    for path in (other / "sparse" / "0").iterdir():
        path.rename(model / path.name)
    sequence, printed = opened(folder)
    assert len(sequence.ground_truth) == 11 and "binary files of the model are read" in printed
    small = folder / "sparse" / "1"
    small.mkdir()
    for name in ("cameras.txt", "images.txt"):
        (model / name).rename(small / name)
    sequence, printed = opened(folder)
    assert len(sequence.ground_truth) == 11
    assert "of 2 models, sparse/0 is read, which has the most images" in printed
    truth = open_sequence(folder, sequence="1").ground_truth
    assert truth is not None and len(truth) == 2


def test_the_camera_with_the_most_images_is_read(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.colmap(tmp_path, shots[:5], True)
    model, params = folder / "sparse" / "0", (200.0, 160.0, 120.0)
    forms.write_cameras_binary(
        model, {3: (0, 320, 240, params), 7: (0, 320, 240, (250.0, 160.0, 120.0))}
    )
    q, t = np.array([1.0, 0, 0, 0]), np.zeros(3)
    images = [(at, 3 if at < 2 else 7, f"walk_{at}.png", q, t + at) for at in range(5)]
    forms.write_images_binary(model, images)
    sequence, printed = opened(folder)
    assert (len(sequence), sequence.camera.fx) == (3, 250.0)
    assert "of the images of 2 cameras or folders, 3 of 'camera 7' are read" in printed
    assert open_sequence(folder, sequence="camera 3").camera.fx == 200.0
    with pytest.raises(DatasetError, match="no single sequence 'camera 9'"):
        open_sequence(folder, sequence="camera 9")


def test_photographs_with_a_camera_each_are_one_recording(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    folder = forms.colmap(tmp_path, shots[:5], True)
    model = folder / "sparse" / "0"
    q, t = np.array([1.0, 0, 0, 0]), np.zeros(3)
    cameras = {at: (0, 320, 240, (230.0 + at, 160.0, 120.0)) for at in range(5)}
    forms.write_cameras_binary(model, cameras)
    forms.write_images_binary(model, [(at, at, f"walk_{at}.png", q, t) for at in range(5)])
    sequence, printed = opened(folder)
    assert len(sequence) == 5 and sequence.camera.fx == 232.0
    assert "the median, which is used for all" in printed


def test_names_that_are_times_are_used(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    folder = forms.colmap(tmp_path, shots[:3], False)
    images = folder / "sparse" / "0" / "images.txt"
    lines = images.read_text()
    for at, shot in enumerate(shots[:3]):
        name = f"{1520530308199447626 + round(shot.time_s * 1e9)}.png"
        (folder / "images" / f"walk_{at}.png").rename(folder / "images" / name)
        lines = lines.replace(f"walk_{at}.png", name)
    images.write_text(lines)
    sequence, _ = opened(folder)
    assert sequence.time_unit == "ns"
    assert np.diff(sequence.timestamps) == pytest.approx([0.1, 0.1], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("images.txt", "1 1 0 0 0\n\n", "expected IMAGE_ID QW QX QY QZ"),
        ("images.txt", "# nothing\n", "lists no images"),
        ("images.txt", "1 1 0 0 0 0 0 0 9 a.png\n\n", "cameras.txt lacks camera 9"),
        ("cameras.txt", "1 PINHOLE 320 240 230 230 160\n", "takes 4 parameters, found 3"),
        ("cameras.txt", "1 THIN 320 240 230 230 160 120\n", "camera model 'THIN' is not supported"),
        ("cameras.txt", "1 PINHOLE 320\n", "expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, shots: tuple[forms.Shot, ...], name: str, data: str, fault: str
) -> None:
    folder = forms.colmap(tmp_path, shots[:2], False)
    (folder / "sparse" / "0" / name).write_text(data)
    with pytest.raises((DatasetError, CalibrationError), match=fault):
        open_sequence(folder)


@pytest.mark.parametrize("name", ["images.bin", "cameras.bin"])
def test_files_that_are_cut_short_are_refused(
    tmp_path: Path, shots: tuple[forms.Shot, ...], name: str
) -> None:
    path = forms.colmap(tmp_path, shots[:2], True) / "sparse" / "0" / name
    whole = path.read_bytes()
    for length in (0, 5, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises((DatasetError, CalibrationError), match=f"{name} holds no"):
            open_sequence(tmp_path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises((DatasetError, CalibrationError), match=f"{name} holds no"):
        open_sequence(tmp_path)


def test_a_quaternion_of_zeros_is_no_pose(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    folder = forms.colmap(tmp_path, shots[:2], True)
    q = np.array([1.0, 0, 0, 0])
    images = [(0, 1, "walk_0.png", q, np.zeros(3)), (1, 1, "walk_1.png", 0 * q, np.zeros(3))]
    forms.write_images_binary(folder / "sparse" / "0", images)
    sequence, printed = opened(folder)
    assert len(sequence.ground_truth) == 1 and "1 pose is left out" in printed


def test_stereo_and_depth_are_refused(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    folder = forms.colmap(tmp_path, shots[:2], True)
    with pytest.raises(DatasetError, match="stereo pairs of a colmap recording are not read"):
        open_sequence(folder, sensor="stereo")
    with pytest.raises(DatasetError, match="RGB-D needs depth images, but none is named"):
        open_sequence(folder, sensor="rgbd")


def test_models_written_by_pycolmap_are_read_with_the_same_numbers(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    params = {
        name: [300.0] * kind.focals + [160.0, 120.0] + [0.01] * kind.coefficients
        for name, kind in MODELS.items()
        if kind.lens in ("none", "radtan", "equidistant")
    }
    for number, (name, values) in enumerate(params.items(), start=1):
        camera = pycolmap.Camera(camera_id=number, model=name, width=320, height=240, params=values)
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=f"{name}.png", camera_id=number, image_id=number)
        turn = pycolmap.Rotation3d(np.array([0.1, 0.2, 0.3, np.sqrt(0.86)]))
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(turn, [1.0, 2.0, number]))
    model.write_binary(tmp_path)
    model.write_text(tmp_path)
    for suffix in (".bin", ".txt"):
        cameras = read_cameras(tmp_path / f"cameras{suffix}")
        images = {image.name: image for image in read_images(tmp_path / f"images{suffix}")}
        assert len(cameras) == len(images) == len(params)
        for number, (name, values) in enumerate(params.items(), start=1):
            theirs, ours = model.cameras[number], cameras[number]
            assert ours == colmap_camera(name, (320, 240), tuple(values), 30.0)
            rays = np.array([[0.2, -0.1, 1.0], [-0.3, 0.25, 1.0]])
            pixels = np.array([theirs.img_from_cam(ray) for ray in rays]).reshape(-1, 2)
            assert ours.lens_pixels(rays) + 0.5 == pytest.approx(pixels, abs=1e-6)
            T_cam_world = np.linalg.inv(images[f"{name}.png"].T_world_cam)[:3]
            assert T_cam_world == pytest.approx(model.images[number].cam_from_world().matrix())
