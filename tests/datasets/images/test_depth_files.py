from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spslam.datasets.images.decoding import to_metres
from spslam.datasets.images.depth_files import DepthReader, depth_units
from spslam.errors import FrameError

Write = Callable[[Path, np.ndarray], Path]


@pytest.mark.parametrize(
    "kind", ["u2", ">u2", "i2", "u4", "i4", ">i4", "u8", "i8", "f2", "f4", "f8"]
)
@pytest.mark.parametrize("scale", [1.0, 5000.0, 1e6, 1e20])
def test_the_largest_number_of_a_type_is_unknown_at_any_scale(kind: str, scale: float) -> None:
    dtype = np.dtype(kind)
    most = np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max
    raw = np.array([[0, 1, 1000, most]], dtype=dtype)
    assert (to_metres(raw, scale) > 0).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("kind", ["i4", "u4", "i8", "f4", "f8"])
def test_16_bit_values_in_a_wider_type(kind: str) -> None:
    assert to_metres(np.array([[1000, 65535]], dtype=kind), 10000.0).tolist() == [
        [np.float32(0.1), 0.0]
    ]
    deeper = np.array([[65535, 70000]], dtype=kind)
    assert (to_metres(deeper, 1e5) > 0).all(), "65535 is valid in an array with larger values"


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, -np.inf, 1e300])
def test_invalid_floats_are_unknown(bad: float) -> None:
    assert to_metres(np.array([[bad, 2.0]]), 1.0).tolist() == [[0.0, 2.0]]


def test_negative_integers_are_unknown() -> None:
    assert to_metres(np.array([[-5, 2000]], dtype=np.int16), 1000.0).tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("suffix", [".npy", ".tiff"])
@pytest.mark.parametrize(
    ("given", "stored", "notices"), [(None, 2.5, 0), (1000.0, 2500.0, 1), (1.0, 2.5, 0)]
)
def test_a_given_scale_applies_to_floats_too(
    tmp_path: Path,
    write: Write,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    given: float | None,
    stored: float,
    notices: int,
) -> None:
    path = tmp_path / f"d{suffix}"
    depth = np.full((3, 4), stored, np.float32)
    if suffix == ".npy":
        np.save(path, depth)
    else:
        write(path, depth)
    reader = DepthReader("walk", depth_units(given, 1000.0))
    for _ in range(2):
        assert (reader.read(path) == 2.5).all()
    assert len(caplog.records) == notices
    assert reader.units_per_metre == (given or 1.0)


@pytest.mark.parametrize(("given", "expected"), [(None, 1.0), (500.0, 2.0)])
def test_integer_arrays_have_the_same_scale_as_images(
    tmp_path: Path, write: Write, given: float | None, expected: float
) -> None:
    reader = DepthReader("walk", depth_units(given, 1000.0))
    np.save(tmp_path / "d.npy", np.full((3, 4, 1), 1000, np.int32))
    assert (reader.read(tmp_path / "d.npy") == expected).all()
    assert (
        reader.read(write(tmp_path / "d.png", np.full((3, 4), 1000, np.uint16))) == expected
    ).all()


def test_many_saturated_pixels_are_reported_once(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    few, many = np.full((10, 10), 1000, np.uint16), np.full((10, 10), 1000, np.uint16)
    few[0, 0], many[:3] = 65535, 65535
    reader = DepthReader("walk", depth_units(None, 1000.0))
    reader.read(write(tmp_path / "0.png", few))
    assert not caplog.records
    for _ in range(2):
        reader.read(write(tmp_path / "1.png", many))
    assert [record.getMessage() for record in caplog.records] == [
        "walk: 30 % of 1.png hold 65535, the largest number of their type: read as no measurement"
    ]


def test_8_bits_are_refused_with_the_reason(tmp_path: Path, write: Write) -> None:
    with pytest.raises(
        FrameError, match=r"depth image depth/0\.png: .* found uint8 .*a picture of the depth"
    ):
        DepthReader("walk", depth_units(None, 1000.0)).read(
            write(tmp_path / "depth/0.png", np.zeros((3, 4), np.uint8))
        )
