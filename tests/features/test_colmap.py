"""COLMAP databases: contents, cameras, refusals, and models that pycolmap makes of them."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from feature_files import ALONE, random_features, write_images, write_random

from spslam import geometry
from spslam.camera import Camera
from spslam.config import FeatureConfig
from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, FeatureFileError
from spslam.features.cameras import CameraChoice, colmap_camera
from spslam.features.colmap import open_database
from spslam.features.files import ExtractionSettings, extract_features
from spslam.features.h5 import read_features
from spslam.features.image_list import find_images
from spslam.features.matching import MatchSettings, match_pairs
from spslam.features.pairs import exhaustive_pairs, sequential_pairs

pycolmap: Any = pytest.importorskip("pycolmap")
pytest.importorskip("h5py")
MATCH = MatchSettings(workers=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 4)
    return tmp_path / "photos"


def test_a_database_holds_cameras_frames_points_and_float_descriptors(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "d.db"
    choice = CameraChoice(None, "folder")
    extract_features(find_images(photos), out, replace(ALONE, cameras=choice))
    extract_features(find_images(photos), tmp_path / "f.h5", replace(ALONE, full_precision=True))
    with pycolmap.Database.open(out) as database:
        assert (database.num_images(), database.num_frames()) == (4, 4)
        assert (database.num_cameras(), database.num_rigs()) == (2, 2)
        camera = database.read_all_cameras()[0]
        assert (camera.model_name, camera.width, camera.height) == ("SIMPLE_RADIAL", 160, 120)
        assert camera.params.tolist() == [192, 80, 60, 0] and not camera.has_prior_focal_length
        image = database.read_image_with_name("front/1.png")
        expected = read_features(tmp_path / "f.h5", "front/1.png")
        points = database.read_keypoints(image.image_id)
        assert np.allclose(points, expected.keypoints + 0.5)
        found = pycolmap.FeatureDescriptorsFloat.from_bytes(
            database.read_descriptors(image.image_id)
        )
        assert np.array_equal(found.data, expected.descriptors)
        assert len(np.unique(found.data)) == 2
        assert database.read_frame(image.frame_id).rig_id == 1 + ("front" > "back")
    assert "no calibration: the focal length is guessed" in caplog.text
    with open_database(out) as opened:
        again = opened.read("front/1.png")
        assert np.allclose(again.keypoints, expected.keypoints, atol=1e-4)
        assert np.array_equal(again.descriptors, expected.descriptors)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("d.db", "."))] == [
        "d.db"
    ]


def test_new_images_and_matches_are_added(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.db"
    settings = replace(ALONE, cameras=CameraChoice(None, "all"))
    extract_features(find_images(photos), out, settings)
    names = list(find_images(photos).names)
    first = match_pairs(out, exhaustive_pairs(names), out, MATCH)
    shutil.copy(photos / "back" / "0.png", photos / "new.png")
    assert extract_features(find_images(photos), out, settings).done == 1
    second = match_pairs(out, exhaustive_pairs([*names, "new.png"]), out, MATCH)
    assert (first.done, second.done, second.present) == (6, 4, 6)
    with pycolmap.Database.open(out) as database:
        assert (database.num_images(), database.num_cameras()) == (5, 1)
        ids = [database.read_image_with_name(name).image_id for name in ("back/0.png", "new.png")]
        matches = database.read_matches(*ids)
        # The same picture: every keypoint matches itself.
        assert len(matches) > 20 and np.array_equal(matches[:, 0], matches[:, 1])
        assert len(database.read_all_matches()[0]) == 10
    with pytest.raises(FeatureFileError, match=r"ratio 0\.0, now 0\.9"):
        match_pairs(out, exhaustive_pairs(names), out, replace(MATCH, ratio=0.9))


def test_a_database_of_matches_is_made_from_hdf5(tmp_path: Path) -> None:
    source = write_random(tmp_path / "f.h5", a=random_features(0), b=random_features(0))
    out = tmp_path / "d.db"
    match_pairs(source, [("a", "b")], out, MATCH)
    with pycolmap.Database.open(out) as database:
        assert len(database.read_matches(1, 2)) == 40
    other = write_random(tmp_path / "g.h5", a=random_features(0), b=random_features(0, 30))
    with pytest.raises(FeatureFileError, match=r"has 40 keypoints of b, .*g\.h5 has 30"):
        match_pairs(other, [("a", "b")], out, MATCH)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(84)])
def test_damaged_databases_are_refused_before_pycolmap_reads_them(
    content: bytes, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d.db"
    out.write_bytes(content)
    with pytest.raises(FeatureFileError, match="no database of COLMAP"):
        extract_features(find_images(photos), out, ALONE)
    assert out.read_bytes() == content


def test_cut_and_foreign_databases_are_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.db"
    extract_features(find_images(photos), out, ALONE)
    whole = out.read_bytes()
    with sqlite3.connect(out) as connection:
        connection.execute("DROP TABLE spslam")
    connection.close()
    with pytest.raises(FeatureFileError, match="not written by this command"):
        extract_features(find_images(photos), out, ALONE)
    with pytest.raises(FeatureFileError, match="--max-distance"):
        match_pairs(out, [("back/0.png", "back/2.png")], out, MATCH)
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FeatureFileError, match="no database of COLMAP, or is damaged"):
        match_pairs(out, [("back/0.png", "back/2.png")], out, MATCH)


@pytest.mark.parametrize(
    ("model", "coefficients", "expected"),
    [
        ("none", (), ("PINHOLE", ())),
        ("radtan", (0.1, 0.2, 0.3, 0.4), ("OPENCV", (0.1, 0.2, 0.3, 0.4))),
        ("radtan", (0.1, 0.2, 0.3, 0.4, 0.5), ("FULL_OPENCV", (0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0))),
        ("equidistant", (0.1, 0.2, 0.3, 0.4), ("OPENCV_FISHEYE", (0.1, 0.2, 0.3, 0.4))),
    ],
)
def test_colmap_projects_as_the_calibration_does(
    model: Any, coefficients: tuple[float, ...], expected: tuple[str, tuple[float, ...]]
) -> None:
    camera = Camera(640, 480, 500, 510, 319, 239, model, coefficients)
    made = colmap_camera(CameraChoice(camera), "a", (640, 480))
    assert (made.model, made.params[4:], made.known) == (*expected, True)
    theirs = pycolmap.Camera(model=made.model, width=640, height=480, params=list(made.params))
    rays = np.array([[0.1, -0.2, 1.0], [0.0, 0.3, 1.0]])
    assert np.allclose(theirs.img_from_cam(rays), camera.lens_pixels(rays) + 0.5, atol=1e-6)


def test_calibrations_that_do_not_fit_are_refused() -> None:
    prism = Camera(640, 480, 500, 500, 319, 239, "radtan", (0.1,) * 12)
    with pytest.raises(CalibrationError, match="thin-prism"):
        colmap_camera(CameraChoice(prism), "a", (640, 480))
    with pytest.raises(CalibrationError, match=r"b has 320x240 pixels.* for 640x480"):
        colmap_camera(CameraChoice(prism), "b", (320, 240))


def reconstruct(database: Path, images: Path, folder: Path, pairs: list[Any]) -> Any:
    """The largest model of a database, made by pycolmap."""
    lines = folder / "pairs.txt"
    lines.write_text("".join(f"{first} {second}\n" for first, second in pairs))
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR
    pycolmap.verify_matches(database, lines)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    (folder / "models").mkdir()
    models = pycolmap.incremental_mapping(database, images, folder / "models", options)
    return max(models.values(), key=lambda model: model.num_reg_images())


def test_colmap_finds_the_true_poses_of_rendered_frames(tmp_path: Path) -> None:
    frames = open_sequence("demo-small", sensor="mono")
    assert frames.ground_truth is not None
    images, out = tmp_path / "images", tmp_path / "d.db"
    images.mkdir()
    chosen = range(0, 64, 8)
    for index in chosen:
        cv2.imwrite(str(images / f"{index:02d}.png"), frames[index].image)
    settings = ExtractionSettings(FeatureConfig(), workers=1, cameras=CameraChoice(frames.camera))
    extract_features(find_images(images), out, settings)
    pairs = exhaustive_pairs(find_images(images).names)
    match_pairs(out, pairs, out, MATCH)
    model = reconstruct(out, images, tmp_path, pairs)
    assert model.num_reg_images() == len(chosen)
    found = np.empty((len(chosen), 4, 4))
    for image in model.images.values():
        matrix = np.vstack([image.cam_from_world().inverse().matrix(), [0, 0, 0, 1]])
        found[chosen.index(int(image.name[:2]))] = matrix
    truth = frames.ground_truth.T_world_cam[list(chosen)]
    S = geometry.umeyama(found[:, :3, 3], truth[:, :3, 3], True)
    missed = np.linalg.norm(geometry.apply(S, found[:, :3, 3]) - truth[:, :3, 3], axis=1)
    size = np.ptp(truth[:, :3, 3], axis=0).max()
    assert missed.max() < 0.02 * size, (missed, size)
    # Rotations relative to the first frame do not depend on the alignment.
    turned = found[:, :3, :3].transpose(0, 2, 1) @ found[0, :3, :3]
    true = truth[:, :3, :3].transpose(0, 2, 1) @ truth[0, :3, :3]
    assert np.degrees(geometry.rotation_angle(turned @ true.transpose(0, 2, 1))).max() < 0.5


@pytest.mark.slow
def test_colmap_registers_all_of_50_street_frames(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "malaga_07" / "images"
    names = sorted(path.name for path in source.iterdir())[:50]
    (tmp_path / "list.txt").write_text("\n".join(names))
    # Calibrated at 800×600, reduced to 400×300; (0, 0) is the centre of the first pixel.
    camera = Camera(400, 300, 310.59214, 310.59214, 201.7538, 154.279945)
    settings = ExtractionSettings(FeatureConfig(), workers=1, cameras=CameraChoice(camera))
    out = tmp_path / "d.db"
    extract_features(find_images(tmp_path / "list.txt", source), out, settings)
    pairs = sequential_pairs(names, 5, [10, 20])
    match_pairs(out, pairs, out, MATCH)
    model = reconstruct(out, source, tmp_path, pairs)
    assert model.num_reg_images() == 50
    assert model.num_points3D() > 1000
    assert model.compute_mean_reprojection_error() < 1.5


def test_cameras_of_a_database_are_not_changed_in_silence(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guessed, calibrated = tmp_path / "g.db", tmp_path / "c.db"
    images = find_images(photos)
    camera = Camera(160, 120, 150.0, 150.0, 80.0, 60.0)

    def extract(out: Path, *choice: Any) -> Any:
        return extract_features(images, out, replace(ALONE, cameras=CameraChoice(*choice)))

    with caplog.at_level(logging.INFO):
        extract(guessed, None, "all")
    assert "--camera-per all" not in caplog.text and "cameras: 1" in caplog.text
    extract(calibrated, camera)
    assert extract(guessed, None, "all").present == extract(calibrated, camera).present == 4
    assert extract(calibrated, camera, "all").present == 4
    before = guessed.read_bytes()
    with pytest.raises(FeatureFileError, match=r"otherwise than --camera-per says"):
        extract(guessed, None, "image")
    with pytest.raises(FeatureFileError, match=r"SIMPLE_RADIAL\) than --calibration \(PINHOLE"):
        extract(guessed, camera)
    with pytest.raises(FeatureFileError, match=r"PINHOLE\) than --calibration \(PINHOLE"):
        extract(calibrated, replace(camera, fx=151.0))
    pairs = exhaustive_pairs(images.names)
    with pytest.raises(FeatureFileError, match=r"--camera-per"):
        match_pairs(guessed, pairs, guessed, replace(MATCH, cameras=CameraChoice(None, "folder")))
    assert guessed.read_bytes() == before
