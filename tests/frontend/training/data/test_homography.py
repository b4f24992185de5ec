"""Random homographies, and how they warp images and points."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spslam.frontend.training.config import HomographyConfig
from spslam.frontend.training.data.homography import (
    identity_homographies,
    sample_homographies,
    valid_mask,
    warp_images,
    warp_points,
)

SIZE = (120, 160)
STRONG = HomographyConfig(allow_artifacts=True, rotation_deg=180.0, scale=0.4, perspective=0.3)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sample(
    count: int, config: HomographyConfig, size: tuple[int, int] = SIZE, seed: int = 0
) -> torch.Tensor:
    return sample_homographies(count, size, config, torch.Generator().manual_seed(seed))


def translation(x: float, y: float) -> torch.Tensor:
    return torch.tensor([[[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]]], dtype=torch.float64)


def quads(homographies: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Source patches (B, 4, 2), relative to the image centre, that fill the warped image."""
    extent = torch.tensor([size[1], size[0]], dtype=torch.float64)
    corners = (
        torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]], dtype=torch.float64)
        * extent
    )
    centre = (extent - 1) / 2
    return (
        warp_points(
            (corners + centre).expand(len(homographies), 4, 2), torch.linalg.inv(homographies)
        )
        - centre
    )


def pixels(size: tuple[int, int]) -> torch.Tensor:
    """x y of all pixels, (1, H W, 2)."""
    y, x = torch.meshgrid(
        *(torch.arange(length, dtype=torch.float64) for length in size), indexing="ij"
    )
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2)


def blob_through(
    homography: torch.Tensor, centre: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """A Gaussian of 4 pixels (H, W) seen through a homography (1, 3, 3), without interpolation."""
    offset = warp_points(pixels(size), torch.linalg.inv(homography))[0] - centre
    return torch.exp(-0.5 * (offset**2).sum(dim=-1) / 4.0**2).reshape(size)


def blob(centre: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return blob_through(identity_homographies(1), centre, size)[None, None].float()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), x=st.floats(60, 100), y=st.floats(45, 75))
def test_images_and_points_are_warped_consistently(seed: int, x: float, y: float) -> None:
    homography = sample(1, HomographyConfig(rotation_deg=90.0, translation=False), seed=seed)
    point = torch.tensor([x, y], dtype=torch.float64)
    warped = warp_images(blob(point, SIZE), homography)[0, 0].double()
    expected = blob_through(homography, point, SIZE)
    # A shift by d changes the image by d · gradient; find d by least squares.
    gradient = torch.stack(torch.gradient(expected)[::-1], dim=-1).reshape(-1, 2)
    shift = torch.linalg.lstsq(gradient, (warped - expected).reshape(-1, 1)).solution
    assert shift.abs().max() < 0.01
    assert (warped - expected).abs().max() < 0.02


def test_the_peak_of_an_image_moves_with_its_point() -> None:
    homographies = sample(20, HomographyConfig())
    point = torch.tensor([80.0, 60.0], dtype=torch.float64)
    images = blob(point, SIZE).expand(20, 1, *SIZE)
    for heat, target in zip(
        warp_images(images, homographies)[:, 0],
        warp_points(point.expand(20, 1, 2), homographies)[:, 0],
        strict=True,
    ):
        row, column = divmod(int(heat.argmax()), SIZE[1])
        assert abs(column - target[0]) <= 0.6
        assert abs(row - target[1]) <= 0.6


def test_identity_changes_nothing() -> None:
    images = torch.rand((3, 2, 17, 23), generator=torch.Generator().manual_seed(0))
    identity = identity_homographies(3)
    torch.testing.assert_close(warp_images(images, identity), images, atol=1e-4, rtol=0)
    assert valid_mask(identity, (17, 23)).all()
    points = torch.rand((3, 5, 2))
    torch.testing.assert_close(warp_points(points, identity), points.double())


def test_whole_pixel_shift() -> None:
    image = torch.rand((1, 1, 20, 30), generator=torch.Generator().manual_seed(0))
    warped = warp_images(image, translation(5, 3))
    torch.testing.assert_close(warped[:, :, 3:, 5:], image[:, :, :-3, :-5], atol=1e-4, rtol=0)
    assert warped[:, :, :3].max() < 1e-4
    assert warped[:, :, :, :5].max() < 1e-4
    mask = valid_mask(translation(5, 3), (20, 30))[0]
    assert mask[3:, 5:].all()
    assert mask.sum() == 17 * 25


def test_warping_into_another_size() -> None:
    image = torch.rand((1, 1, 20, 30), generator=torch.Generator().manual_seed(0))
    warped = warp_images(image, translation(0, 0), (25, 16))
    assert warped.shape == (1, 1, 25, 16)
    torch.testing.assert_close(warped[:, :, :20], image[:, :, :, :16], atol=1e-4, rtol=0)
    mask = valid_mask(translation(0, 0), (20, 30), (25, 16))[0]
    assert mask[:20].all()
    assert not mask[20:].any()


@pytest.mark.parametrize("erosion", [1, 3, 6])
def test_erosion_removes_a_margin_at_every_border(erosion: int) -> None:
    mask = valid_mask(translation(10, 0), (40, 50), erosion=erosion)[0]
    expected = torch.zeros((40, 50), dtype=torch.bool)
    expected[erosion : 40 - erosion, 10 + erosion : 50 - erosion] = True
    assert torch.equal(mask, expected)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), erosion=st.integers(0, 5))
def test_valid_pixels_contain_no_black(seed: int, erosion: int) -> None:
    homographies = sample(4, STRONG, seed=seed)
    white = warp_images(torch.ones((4, 1, *SIZE)), homographies)[:, 0]
    mask = valid_mask(homographies, SIZE, erosion=erosion)
    assert (white[mask] > 1 - 1e-3).all()
    # Without erosion, invalid pixels contain black, except for the outermost half pixel.
    if erosion == 0:
        assert (white[~mask] < 1 + 1e-3).all()
        assert ((white > 1 - 1e-6) & ~mask).float().mean() < 0.01
    else:
        assert not (mask & ~valid_mask(homographies, SIZE)).any()


def test_pixels_beyond_the_horizon_are_invalid() -> None:
    # The depth is 0 in column 25 of the warped image, whose centre lies to the left of it.
    homography = torch.linalg.inv(
        torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-1 / 25, 0, 1]]], dtype=torch.float64)
    )
    mask = valid_mask(homography, (20, 40))[0]
    warped = warp_images(torch.ones((1, 1, 20, 40)), homography)[0, 0]
    # Column x shows source column x / (1 - x / 25); the last one, 39, is at x = 15.2.
    assert mask[0, :16].all()
    assert not mask[:, 16:].any()
    assert torch.equal(warped[:, 17:], torch.zeros(20, 23))


def test_points_on_the_horizon_are_finite() -> None:
    homography = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0.1, 0, 1]]])
    assert torch.isfinite(warp_points(torch.tensor([[[-10.0, 3.0]]]), homography.double())).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ratio=st.floats(0.3, 1.0),
    perspective=st.just(0.0) | st.floats(1e-6, 0.45),
    scale=st.just(0.0) | st.floats(1e-6, 0.9),
    rotation=st.just(0.0) | st.floats(1e-6, 180),
    size=st.sampled_from([(120, 160), (240, 320), (100, 37)]),
)
def test_patches_stay_inside_without_artefacts(
    seed: int,
    ratio: float,
    perspective: float,
    scale: float,
    rotation: float,
    size: tuple[int, int],
) -> None:
    config = HomographyConfig(
        patch_ratio=ratio, perspective=perspective, scale=scale, rotation_deg=rotation
    )
    homographies = sample(16, config, size, seed)
    half = torch.tensor([size[1], size[0]], dtype=torch.float64) / 2
    assert (quads(homographies, size).abs() <= half + 1e-6).all()
    # The outermost pixels reach half a pixel beyond their centres.
    assert valid_mask(homographies, size).float().mean() > 0.9


def test_patches_may_leave_the_image_with_artefacts() -> None:
    valid = valid_mask(sample(50, STRONG), SIZE).float().mean(dim=(1, 2))
    assert (valid < 0.95).any()
    assert (valid > 0.2).all()


def test_same_seed_same_homographies() -> None:
    assert torch.equal(sample(10, STRONG, seed=3), sample(10, STRONG, seed=3))
    assert not torch.equal(sample(10, STRONG, seed=3), sample(10, STRONG, seed=4))
    assert sample(10, STRONG).dtype == torch.float64
    assert sample(0, STRONG).shape == (0, 3, 3)


def test_amplitudes_are_truncated() -> None:
    """One transformation at a time: never beyond its amplitude; deviation about half of it."""
    still = HomographyConfig(
        patch_ratio=0.8,
        perspective=0,
        scale=0,
        rotation_deg=0,
        translation=False,
        allow_artifacts=True,
    )
    extent = torch.tensor([160.0, 120.0], dtype=torch.float64)
    base = quads(sample(1, still), SIZE)[0]
    torch.testing.assert_close(base.abs(), (extent * 0.4).expand(4, 2))

    scaled = quads(sample(2000, still.model_copy(update={"scale": 0.3})), SIZE)
    factors = (scaled / base).mean(dim=(1, 2)) - 1
    assert factors.abs().max() <= 0.3 + 1e-9
    # A normal distribution cut off at two deviations has 0.88 of the deviation.
    assert abs(float(factors.std()) - 0.88 * 0.15) < 0.01

    tilted = quads(sample(2000, still.model_copy(update={"perspective": 0.2})), SIZE)
    moved = (tilted - base) / extent / 0.8
    assert moved.abs().max() <= 0.2 + 1e-9
    assert abs(float(moved.std()) - 0.88 * 0.1) < 0.01

    turned = quads(sample(2000, still.model_copy(update={"rotation_deg": 30.0})), SIZE)
    edge = turned[:, 2] - turned[:, 1]
    angles = torch.rad2deg(torch.atan2(edge[:, 1], edge[:, 0]))
    assert angles.abs().max() <= 30 + 1e-6
    assert abs(float(angles.std()) - 30 / np.sqrt(3)) < 1
    # A rotated patch is still a rectangle, also in an image that is not square.
    torch.testing.assert_close(
        torch.linalg.norm(turned - turned.mean(dim=1, keepdim=True), dim=-1).std(dim=1),
        torch.zeros(2000, dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )


def test_translation_uses_the_available_margin() -> None:
    config = HomographyConfig(patch_ratio=0.5, perspective=0, scale=0, rotation_deg=0)
    centres = quads(sample(2000, config), SIZE).mean(dim=1) / torch.tensor([160.0, 120.0])
    assert centres.abs().max() <= 0.25
    assert (centres.amax(dim=0) > 0.24).all()
    assert (centres.amin(dim=0) < -0.24).all()
