"""Random changes of brightness, noise and sharpness."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spslam.frontend.training.config import PhotometricConfig
from spslam.frontend.training.data.photometric import augment

NONE = PhotometricConfig(
    chance=1.0,
    brightness=0.0,
    contrast=(1.0, 1.0),
    noise_sigma=0.0,
    speckle=0.0,
    shade=0.0,
    blur_sigma=0.0,
    motion_blur_px=1,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def only(**changes: object) -> PhotometricConfig:
    return NONE.model_copy(update=changes)


def run(images: torch.Tensor, config: PhotometricConfig, seed: int = 0) -> torch.Tensor:
    return augment(images, config, torch.Generator().manual_seed(seed))


def texture(count: int = 4, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    return torch.rand((count, 1, *size), generator=torch.Generator().manual_seed(7))


def grey(value: float, count: int = 64, size: tuple[int, int] = (40, 48)) -> torch.Tensor:
    return torch.full((count, 1, *size), value)


def test_zero_strength_changes_nothing() -> None:
    images = texture()
    torch.testing.assert_close(run(images, NONE), images, atol=1e-6, rtol=0)


def test_zero_probability_changes_nothing() -> None:
    images = texture()
    torch.testing.assert_close(
        run(images, PhotometricConfig(chance=0.0)), images, atol=1e-6, rtol=0
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), value=st.floats(0, 1))
def test_values_stay_between_black_and_white(seed: int, value: float) -> None:
    result = run(texture() * 0.5 + 0.5 * value, PhotometricConfig(chance=1.0), seed)
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


def test_same_seed_same_result() -> None:
    config = PhotometricConfig()
    images = texture()
    before = images.clone()
    assert torch.equal(run(images, config, 1), run(images, config, 1))
    assert not torch.equal(run(images, config, 1), run(images, config, 2))
    assert torch.equal(images, before)


def test_each_image_has_its_own_changes() -> None:
    result = run(grey(0.5), only(brightness=0.3))
    assert len(result[:, 0, 0, 0].unique()) == len(result)


def test_probability_is_the_fraction_of_changed_images() -> None:
    result = run(grey(0.5, count=2000, size=(8, 8)), only(brightness=0.3, chance=0.6))
    assert abs(float((result[:, 0, 0, 0] != 0.5).float().mean()) - 0.6) < 0.05


def test_brightness_shifts_all_pixels_equally_within_its_range() -> None:
    images = texture(64) * 0.2 + 0.4
    shift = run(images, only(brightness=0.3)) - images
    assert shift.abs().max() <= 0.3 + 1e-5
    assert shift.abs().max() > 0.2
    assert (shift.amax(dim=(1, 2, 3)) - shift.amin(dim=(1, 2, 3))).max() < 1e-5


def test_contrast_stretches_around_the_mean_within_its_range() -> None:
    images = texture(200) * 0.2 + 0.4
    result = run(images, only(contrast=(0.5, 2.0)))
    torch.testing.assert_close(result.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=1e-4, rtol=0)
    factor = result.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert factor.min() >= 0.5 - 1e-4
    assert factor.max() <= 2 + 1e-4
    # Halved as often as doubled.
    assert abs(float(factor.log().mean())) < 0.1
    assert factor.min() < 0.6
    assert factor.max() > 1.8


def test_noise_is_at_most_as_strong_as_configured() -> None:
    result = run(grey(0.5, count=100), only(noise_sigma=0.06))
    deviation = result.std(dim=(1, 2, 3))
    assert deviation.max() < 0.065
    assert deviation.max() > 0.05
    assert (result.mean(dim=(1, 2, 3)) - 0.5).abs().max() < 0.01


def test_speckle_is_black_and_white_and_rare() -> None:
    result = run(grey(0.5, count=100), only(speckle=0.02))
    changed = result != 0.5
    assert set(result[changed].tolist()) == {0.0, 1.0}
    assert changed.float().mean(dim=(1, 2, 3)).max() < 0.03
    assert 0.005 < float(changed.float().mean()) < 0.015


def test_shade_is_smooth_and_bounded() -> None:
    result = run(grey(0.5, count=100), only(shade=0.6))
    assert result.min() >= 0.5 * (1 - 0.6) - 1e-6
    assert result.max() <= 0.5 * (1 + 0.3) + 1e-6
    assert result.min() < 0.35
    steps = torch.cat([result.diff(dim=2).abs().flatten(), result.diff(dim=3).abs().flatten()])
    assert steps.max() < 0.08


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_blur_keeps_a_constant_image(value: float) -> None:
    images = grey(value, count=16)
    torch.testing.assert_close(
        run(images, only(blur_sigma=2.0, motion_blur_px=9)), images, atol=1e-5, rtol=0
    )


def test_blur_keeps_the_sum_and_the_centre() -> None:
    image = torch.zeros((64, 1, 41, 41))
    image[:, :, 20, 20] = 1
    result = run(image, only(blur_sigma=1.5, motion_blur_px=9))
    torch.testing.assert_close(result.sum(dim=(1, 2, 3)), torch.ones(64))
    steps = torch.arange(41.0) - 20
    assert (result.sum(dim=2) @ steps).abs().max() < 1e-4
    assert (result.sum(dim=3) @ steps).abs().max() < 1e-4


def spread(result: torch.Tensor) -> torch.Tensor:
    """Eigenvalues (B, 2) of the covariance of the blurred image of one bright pixel."""
    steps = torch.arange(float(result.shape[-1])) - result.shape[-1] // 2
    x, y = steps[None, None, :], steps[None, :, None]
    heat = result[:, 0]
    moments = [(heat * product).sum(dim=(1, 2)) for product in (x * x, x * y, x * y, y * y)]
    return torch.linalg.eigvalsh(torch.stack(moments, dim=-1).reshape(-1, 2, 2))


def point_images() -> torch.Tensor:
    image = torch.zeros((200, 1, 41, 41))
    image[:, :, 20, 20] = 1
    return image


def test_gaussian_blur_is_round_and_bounded() -> None:
    deviations = spread(run(point_images(), only(blur_sigma=1.5))).clamp(min=0).sqrt()
    assert deviations.max() < 1.55
    assert deviations.max() > 1.2
    assert (deviations[:, 1] - deviations[:, 0]).max() < 0.02


def test_motion_blur_is_long_and_narrow() -> None:
    variances = spread(run(point_images(), only(motion_blur_px=9)))
    # A uniform path of 9 pixels has a variance of 81 / 12.
    assert variances[:, 1].max() < 81 / 12 + 0.5
    assert variances[:, 1].max() > 4
    assert variances[:, 0].max() < 0.5
