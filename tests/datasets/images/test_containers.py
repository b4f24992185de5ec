from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets.images.containers import container_fault
from spslam.datasets.images.decoding import IMAGE_SUFFIXES, read_grey, read_pixels
from spslam.errors import FrameError

Write = Callable[[Path, np.ndarray], Path]
Picture = Callable[..., np.ndarray]
LOSSY = (".jpg", ".jpeg", ".webp")


def encoded(suffix: str, image: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return bytes(data.tobytes())


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_format_is_read(tmp_path: Path, picture: Picture, suffix: str) -> None:
    channels = 3 if suffix == ".ppm" else 1
    smooth = cv2.GaussianBlur(picture(width=64, height=48, channels=channels), (0, 0), 4)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, smooth))
    expected = smooth if channels == 1 else cv2.cvtColor(smooth, cv2.COLOR_BGR2GRAY)
    difference = np.abs(read_grey(path).astype(int) - expected)
    assert difference.max() <= (8 if suffix in LOSSY else 0)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_values_of_many_bits_are_kept(
    tmp_path: Path, picture: Picture, suffix: str, bits: int
) -> None:
    wide = picture().astype(np.uint16) * (2**bits // 256)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, wide))
    assert np.array_equal(read_pixels(path), wide)


@pytest.mark.parametrize("suffix", sorted({*IMAGE_SUFFIXES} - {".jpeg", ".tiff"}))
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, picture: Picture, suffix: str) -> None:
    data = encoded(suffix, picture(width=64, height=48, channels=3 if suffix == ".ppm" else 1))
    path = tmp_path / f"a{suffix}"
    for length in (2, 11, 30, len(data) // 2, len(data) - 6):
        path.write_bytes(data[:length])
        with pytest.raises(FrameError, match=f"a{suffix}: "):
            read_pixels(path)


def test_the_container_says_so_without_the_decoder(picture: Picture) -> None:
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".pgm", ".tif"):
        data = encoded(suffix, picture(width=64, height=48))
        assert container_fault(data) is None
        assert "cut short" in str(container_fault(data[: len(data) * 2 // 3]))


def test_pnm_headers_with_comments_and_any_largest_value() -> None:
    pixels = bytes(range(12))
    for header in (b"P5 4 3 255\n", b"P5\n# of a camera\n4 3\n# more\n100\n", b"P5\t4\t3\t255\r"):
        assert container_fault(header + pixels) is None
        assert container_fault(header + pixels[:-1]) == "the PNM file is cut short"
    assert container_fault(b"P5 4 3 1023\n" + pixels) == "the PNM file is cut short"
    assert container_fault(b"P5 4 3 1023\n" + 2 * pixels) is None
    assert container_fault(b"P5 what") == "the PNM file has no valid header"
    assert container_fault(b"P4 9 2\n" + bytes(4)) is None
    assert container_fault(b"P4 9 2\n" + bytes(3)) == "the PNM file is cut short"


def test_tiff_with_a_directory_outside_of_the_file() -> None:
    assert container_fault(b"II*\0\xff\xff\xff\x7f") == "the TIFF file is cut short or damaged"


def test_unknown_containers_pass() -> None:
    assert container_fault(b"GIF89a") is None
    assert container_fault(b"") == "the file is empty"
