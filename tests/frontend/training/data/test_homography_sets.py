"""Pairs of images with a known homography."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.frontend.training.data import homography_sets as sets
from spslam.frontend.training.evaluation.homography_metrics import warp_points


def picture(height: int = 300, width: int = 400, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of soft blobs of many sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), sigma) * sigma
        for sigma in (2, 5, 12)
    ]
    return np.clip(128 + 60 * np.sum(layers, axis=0), 0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), picture(seed=i))
    return paths


def agreement(pair: sets.ImagePair) -> float:
    """Correlation of image 1 with image 0 warped by the homography, where both are valid."""
    height, width = pair.image1.shape
    warped = cv2.warpPerspective(pair.image0, pair.homography, (width, height))
    seen = cv2.warpPerspective(np.ones_like(pair.image0), pair.homography, (width, height)) > 0
    return float(np.corrcoef(warped[seen], pair.image1[seen])[0, 1])


def test_photo_pairs_agree_with_their_homography(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "photometric_noise", lambda _, image: image)
    pairs = list(sets.photo_pairs(photos))
    assert [pair.name for pair in pairs] == [path.name for path in photos]
    for pair in pairs:
        assert pair.image0.shape == pair.image1.shape == sets.PHOTO_SIZE
        assert pair.image0.dtype == pair.image1.dtype == np.uint8
        assert agreement(pair) > 0.99


def test_photo_pairs_depend_on_seed_and_name_only(photos: list[Path]) -> None:
    everything = {pair.name: pair for pair in sets.photo_pairs(photos)}
    few = list(sets.photo_pairs(photos, limit=2))
    assert len(few) == 2
    for pair in few:
        np.testing.assert_array_equal(pair.homography, everything[pair.name].homography)
        np.testing.assert_array_equal(pair.image1, everything[pair.name].image1)
    other = next(sets.photo_pairs(photos, seed=1))
    assert np.abs(other.homography - everything["0.png"].homography).max() > 1e-3


def test_views_turn_by_at_most_20_degrees_and_lie_in_the_photo() -> None:
    rng = np.random.default_rng(0)
    size = (240, 320)
    centre = np.array([[159.5, 119.5], [169.5, 119.5]])
    angles, inside = [], []
    x, y = np.meshgrid(np.linspace(0, 319, 30), np.linspace(0, 239, 30))
    view = np.stack([x.ravel(), y.ravel()], axis=1)
    for _ in range(200):
        back_to_photo = np.linalg.inv(sets.random_view(rng, size)).astype(np.float64)
        step = np.diff(warp_points(centre, back_to_photo), axis=0)[0]
        angles.append(np.degrees(np.arctan2(step[1], step[0])))
        back = warp_points(view, back_to_photo)
        inside.append(np.all((back >= -0.5) & (back <= [319.5, 239.5]), axis=1).mean())
    # The distorted corners add a few degrees.
    assert 17 < np.abs(angles).max() < 30
    assert min(angles) < -15 < 15 < max(angles)
    assert np.mean(inside) > 0.97
    assert min(inside) > 0.8


def test_photometric_noise_keeps_the_scene() -> None:
    image = picture()
    noisy = sets.photometric_noise(np.random.default_rng(3), image)
    assert noisy.shape == image.shape
    assert 2 < np.abs(noisy.astype(float) - image).mean() < 100
    assert np.corrcoef(noisy.ravel(), image.ravel())[0, 1] > 0.8


def write_scene(folder: Path, image: str, homography: str) -> NDArray[np.float64]:
    """A scene of two images, 300 × 400 and 280 × 360; the second is a known view of the first."""
    folder.mkdir()
    H = np.array([[0.9, 0.1, 5.0], [-0.08, 0.95, 12.0], [1e-4, -5e-5, 1.0]])
    first = cv2.cvtColor(picture(), cv2.COLOR_GRAY2BGR)
    cv2.imwrite(str(folder / image.format(1)), first)
    cv2.imwrite(str(folder / image.format(2)), cv2.warpPerspective(first, H, (360, 280)))
    np.savetxt(folder / homography.format(2), H)
    return H


@pytest.mark.parametrize(
    ("scene", "image", "homography", "group"),
    [
        ("graf", "img{}.png", "H_1_{}", "graf"),
        ("bikes", "{}.png", "H_1_{}", "bikes"),
        ("wall", "img{}.ppm", "H1to{}p", "wall"),
        ("v_bark", "{}.ppm", "H_1_{}", "viewpoint"),
        ("i_lamp", "{}.ppm", "H_1_{}", "illumination"),
    ],
)
def test_both_folder_structures_are_read(
    tmp_path: Path, scene: str, image: str, homography: str, group: str
) -> None:
    write_scene(tmp_path / scene, image, homography)
    for folder in (tmp_path, tmp_path / scene):
        (pair,) = sets.scene_pairs(folder, (240, 320))
        assert pair.group == group
        assert pair.image0.shape == pair.image1.shape == (240, 320)
        assert agreement(pair) > 0.98


def test_resized_homography_follows_the_centres_of_pixels() -> None:
    H = np.array([[0.9, 0.1, 5.0], [-0.08, 0.95, 12.0], [1e-4, -5e-5, 1.0]])
    points = np.array([[0.0, 0.0], [100.0, 50.0], [399.0, 299.0]])

    def halved(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        return (pixels + 0.5) / 2 - 0.5

    resized = sets.resize_homography(H, (300, 400), (300, 400), (150, 200))
    np.testing.assert_allclose(
        warp_points(halved(points), resized), halved(warp_points(points, H)), atol=1e-9
    )


def test_errors_name_the_incomplete_scene(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="H_1_2"):
        list(sets.scene_pairs(tmp_path, (240, 320)))
    with pytest.raises(DatasetError, match="H_1_2"):
        list(sets.scene_pairs(tmp_path / "nowhere", (240, 320)))
    write_scene(tmp_path / "graf", "img{}.png", "H_1_{}")
    (tmp_path / "graf/H_1_2").write_text("1 0 0 0 1 0")
    with pytest.raises(DatasetError, match=r"9 numbers in .*H_1_2"):
        list(sets.scene_pairs(tmp_path, (240, 320)))
    (tmp_path / "graf/img2.png").unlink()
    with pytest.raises(DatasetError, match="images 1 and 2"):
        list(sets.scene_pairs(tmp_path, (240, 320)))


def test_real_scenes(test_data: Path) -> None:
    pairs = list(sets.scene_pairs(test_data / "homography", (240, 320)))
    assert [pair.name for pair in pairs[:6]] == [f"bikes 1-{i}" for i in range(2, 7)] + ["graf 1-2"]
    assert {pair.group for pair in pairs} == {"bikes", "graf", "leuven"}
    assert all(
        agreement(pair) > (0.7 if pair.group == "graf" else 0.9)
        for pair in pairs
        if pair.name[-1] == "2"
    )
