import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from world_folder import band, bits, world_frame, write_world

from spslam.datasets import open_sequence, read_pictures
from spslam.datasets.images.decoding import read_image
from spslam.datasets.images.grey_levels import GreyReader, GreyScaling, scaling_for

Write = Callable[[Path, np.ndarray], Path]


@pytest.fixture
def smooth() -> Callable[[int], np.ndarray]:
    """8-bit images with all values from 10 to 240."""

    def make(seed: int) -> np.ndarray:
        ramp = np.linspace(10, 240, 40 * 30).reshape(30, 40)
        return np.rint(np.roll(ramp, 7 * seed, axis=1)).astype(np.uint8)

    return make


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 255, GreyScaling(0, 255)),
        (3, 200, GreyScaling(0, 255)),
        (312, 1019, GreyScaling(0, 1023)),
        (0, 3900, GreyScaling(0, 4095)),
        (500, 16000, GreyScaling(0, 16383)),
        (0, 65535, GreyScaling()),
        (2000, 50000, GreyScaling()),
        (20000, 23000, GreyScaling(19700, 23300)),
        (29000, 29010, GreyScaling(28999, 29011)),
        (65000, 65535, GreyScaling(64946, 65535)),
        (7, 8, GreyScaling(6, 9)),
    ],
)
def test_images_are_scaled_by_their_bit_depth_or_their_range(
    low: int, high: int, expected: GreyScaling
) -> None:
    assert scaling_for(low, high) == expected


def test_values_beyond_the_bit_depth_are_clipped() -> None:
    values = np.array([[0, 999, 1000, 1500, 2000, 2001, 65535]], dtype=np.uint16)
    assert GreyScaling(1000, 2000).apply(values).tolist() == [[0, 0, 0, 128, 255, 255, 255]]


@pytest.mark.parametrize("count", [8, 10, 12, 14, 16])
def test_images_of_any_bit_depth_equal_their_8_bit_versions(
    tmp_path: Path, write: Write, smooth: Callable, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    paths = [write(tmp_path / f"{i}.png", bits(count)(smooth(i))) for i in range(4)]
    read = GreyReader("walk", paths).read
    for i, path in enumerate(paths):
        assert np.array_equal(read(path), smooth(i))
    messages = [record.getMessage() for record in caplog.records]
    if count == 16:
        assert messages == []
    else:
        assert len(messages) == 1 and f"* 255 / {2**count - 1}, clipped" in messages[0]
        assert caplog.records[0].__dict__["notice_topic"] == "grey_scaling"


def test_images_of_the_full_range_equal_read_image(tmp_path: Path, write: Write) -> None:
    wide = np.arange(0, 65536, 17, dtype=np.uint16)[:3840].reshape(60, 64)
    path = write(tmp_path / "0.png", wide)
    assert np.array_equal(GreyReader("walk", [path]).read(path), read_image(path))


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_10_bits(tmp_path: Path, write: Write, smooth: Callable, channels: int) -> None:
    colour = np.repeat(bits(10)(smooth(0))[:, :, None], channels, axis=2)
    path = write(tmp_path / "0.png", colour)
    assert np.abs(GreyReader("walk", [path]).read(path).astype(int) - smooth(0)).max() <= 1


@pytest.mark.parametrize("bad", [0, 65535, 23000, 4])
@pytest.mark.parametrize("shape", [bits(10), band(20000, 23000)])
def test_black_and_overexposed_images_do_not_set_the_scaling(
    tmp_path: Path, write: Write, smooth: Callable, shape: Callable, bad: int
) -> None:
    good = [shape(smooth(i)) for i in range(8)]
    flat = np.full((30, 40), bad, np.uint16)
    clean = [write(tmp_path / f"clean/{i}.png", image) for i, image in enumerate(good)]
    dirty = [
        write(tmp_path / f"dirty/{i}.png", image) for i, image in enumerate([flat, flat, *good])
    ]
    assert np.array_equal(
        GreyReader("walk", dirty).read(dirty[2]), GreyReader("walk", clean).read(clean[0])
    )


def test_hot_dead_and_missing_pixels_do_not_set_the_scaling(
    tmp_path: Path, write: Write, smooth: Callable
) -> None:
    images = [band(20000, 23000)(smooth(i)) for i in range(4)]
    bordered = [image.copy() for image in images]
    for image in bordered:
        image[:5], image[:, :3], image[20, 20] = 0, 0, 65535
    paths = [write(tmp_path / f"{i}.png", image) for i, image in enumerate(bordered)]
    found = GreyReader("walk", paths).read(paths[0])
    assert (found[0, 0], found[20, 20]) == (0, 255)
    "the full range would leave 8 grey levels"


def test_a_sequence_that_warms_up_keeps_its_contrast(
    tmp_path: Path, write: Write, smooth: Callable
) -> None:
    paths = [
        write(tmp_path / f"{i:02d}.png", band(20000 + 50 * i, 22000 + 50 * i)(smooth(0)))
        for i in range(40)
    ]
    read = GreyReader("walk", paths).read
    for path in (paths[0], paths[-1]):
        assert np.unique(read(path)).size > 100


def test_flat_images_are_scaled_by_the_full_range(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "0.png", np.full((30, 40), 1000, np.uint16))
    assert (
        np.array_equal(GreyReader("walk", [path]).read(path), read_image(path))
        and not caplog.records
    )


@pytest.mark.parametrize("shape", [bits(12), band(20000, 23000)])
def test_both_cameras_have_one_scaling_in_any_reading_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shape: Callable
) -> None:
    def dark(index: int) -> np.ndarray:
        right = world_frame(index).image_right
        assert right is not None
        return shape(right // 2)

    folder = write_world(tmp_path / "w", "stereo", 4, lambda i: shape(world_frame(i).image), dark)
    with caplog.at_level(logging.WARNING):
        frames = list(open_sequence(folder))
    assert (
        len(
            [
                record
                for record in caplog.records
                if "16-bit images hold values" in record.getMessage()
            ]
        )
        == 1
    )
    again = open_sequence(folder)
    for index in (3, 1):
        assert np.array_equal(again[index].image, frames[index].image)
        right_again, right = again[index].image_right, frames[index].image_right
        assert right_again is not None and right is not None
        assert np.array_equal(right_again, right)
    right = frames[0].image_right
    assert right is not None
    brightness = float(right.mean()) / float(frames[0].image.mean())
    assert 0.3 < brightness < 0.6, "half as bright, not stretched on its own"
    assert np.array_equal(open_sequence(folder, start=2)[0].image, frames[2].image)


def test_pictures_are_scaled_like_the_images_of_a_run(
    tmp_path: Path, write: Write, smooth: Callable
) -> None:
    for i in range(3):
        write(tmp_path / f"a/{i}.png", bits(10)(smooth(i)))
        write(tmp_path / f"b/{i}.png", bits(14)(smooth(i)))
    pictures = dict(read_pictures(tmp_path))
    assert len(pictures) == 6
    for name, pixels in pictures.items():
        assert np.array_equal(pixels, smooth(int(name[2])))
