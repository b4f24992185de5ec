"""Files of torch.save are read bit for bit; false claims in a file are refused."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spslam.errors import WeightsError
from spslam.frontend.superpoint.pickled_tensors import Opaque, PickledFile, PickledTensor

FORMATS = (True, False)


def tensors() -> dict[str, Tensor]:
    numbers = torch.arange(24.0).reshape(2, 3, 4) / 7
    kinds = (
        torch.float64,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    found = {str(kind): numbers.to(kind) for kind in (*kinds, torch.complex64, torch.complex128)}
    return found | {
        "whole": numbers,
        "view": numbers[1, :, 1:3],
        "turned": numbers.permute(2, 0, 1),
        "repeated": numbers[:, :1, :1].expand(2, 3, 4),
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(numbers),
    }


@pytest.mark.parametrize("archive", FORMATS)
def test_files_of_pytorch_are_read(tmp_path: Path, archive: bool) -> None:
    saved = tensors()
    torch.save(OrderedDict(saved), tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    file = PickledFile(tmp_path / "a.pth")
    assert list(file.content) == list(saved)
    file.check()
    for name, expected in saved.items():
        found = file.array(file.content[name], name)
        np.testing.assert_array_equal(found, expected.detach().numpy(), strict=True)
        assert found.flags.writeable and found.flags.c_contiguous


@pytest.mark.parametrize("archive", FORMATS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_float_types_that_numpy_lacks(tmp_path: Path, kind: torch.dtype, archive: bool) -> None:
    saved = torch.linspace(-300, 300, 77).to(kind)
    torch.save({"a": saved}, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    file = PickledFile(tmp_path / "a.pth")
    np.testing.assert_array_equal(
        file.array(file.content["a"], "a"), saved.float().numpy(), strict=True
    )


@pytest.mark.parametrize("archive", FORMATS)
def test_plain_values_next_to_tensors(tmp_path: Path, archive: bool) -> None:
    saved = {
        "epoch": 3,
        5: [1.5, None, (True, "text")],
        "set": {1},
        "k": {"deep": torch.zeros(2)},
        "path": Path("x"),
    }
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    content = PickledFile(tmp_path / "a.pth").content
    assert (content["epoch"], content[5]) == (3, [1.5, None, (True, "text")])
    assert isinstance(content["k"]["deep"], PickledTensor)
    assert isinstance(content["path"], Opaque)


def test_names_written_by_python_2(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr(
            "archive/data.pkl",
            pickle.PROTO + b"\x02}(U\x04nameK\x01U\x02\xc3\xa4K\x02U\x01\xffK\x03u.",
        )
    assert PickledFile(tmp_path / "a.pth").content == {"name": 1, "ä": 2, "\ufffd": 3}


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(3.0)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    file = PickledFile(tmp_path / "a.pth")
    assert file.array(file.content["a"], "a").tolist() == [0, 1, 2]


def test_every_flipped_bit_of_the_numbers_is_found(tmp_path: Path) -> None:
    """`torch.load` of PyTorch 2.13.0 loads each of these files without an error."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(6.0)}, path)
    good = path.read_bytes()
    numbers = torch.arange(6.0).numpy().tobytes()
    start = good.index(numbers)
    for bit in range(8 * start, 8 * (start + len(numbers)), 3):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match=r"damaged.*CRC"):
            PickledFile(path)


def rewritten(path: Path, **parts: bytes) -> None:
    """Replace members of the archive, with correct checksums."""
    archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w") as new:
        for name in archive.namelist():
            last = name.rpartition("/")[2].replace(".", "_")
            new.writestr(name, parts.get(last, archive.read(name)))


def test_missing_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(6.0)}, path)
    for data in (b"", bytes(23), bytes(25)):
        torch.save({"a": torch.arange(6.0)}, path)
        rewritten(path, **{"0": data})
        file = PickledFile(path)
        with pytest.raises(
            WeightsError, match=r"damaged: a: expected 6 numbers of 4 bytes, found \d+ bytes"
        ):
            file.array(file.content["a"], "a")
        with pytest.raises(WeightsError, match="damaged"):
            file.check()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": (7,)}, "needs more than 6 stored numbers"),
        ({"offset": 1}, "needs more than 6 stored numbers"),
        ({"strides": (2,)}, "needs more than 6 stored numbers"),
        ({"shape": (1 << 40,), "strides": (0,)}, "repeats few numbers"),
        ({"shape": (1 << 50,), "strides": (0,)}, "expected a shape and strides"),
        ({"shape": (-1,)}, "expected a shape and strides"),
        ({"strides": (-1,)}, "expected a shape and strides"),
        ({"offset": -1}, "expected a shape and strides"),
        ({"shape": (6, 1)}, "expected a shape and strides"),
        ({"shape": None}, "expected a shape and strides"),
        ({"storage": "text"}, "expected a shape and strides"),
        ({"dtype": "float3"}, "expected numbers of a known type, found float3"),
    ],
)
def test_false_shapes_are_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    torch.save({"a": torch.arange(6.0)}, tmp_path / "a.pth")
    file = PickledFile(tmp_path / "a.pth")
    described = vars(file.content["a"]) | change
    with pytest.raises(WeightsError, match=text) as caught:
        file.array(PickledTensor(**described), "a")
    assert "\n" not in str(caught.value)


def test_archives_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(20_000_000))
    with pytest.raises(WeightsError, match="claim to hold 20000000 bytes in 1 file"):
        PickledFile(path)
    torch.save({"a": torch.arange(6.0)}, path)
    data = bytearray(path.read_bytes())
    # Size of the last member in the directory (32 bits; a terabyte would need other fields).
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="claim to hold 4294967"):
        PickledFile(path)


def test_no_code_is_executed_and_reading_is_fast(tmp_path: Path) -> None:
    """Calls become descriptions; keys that take very long to hash and huge numbers are left out."""
    path = tmp_path / "a.pth"
    tower: Any = ()
    for _ in range(60):
        tower = (tower, tower)
    nested = pickle.PROTO + b"\x02}" + pickle.dumps(tower, 2)[2:-1] + b"K\x01s."
    called = pickle.PROTO + b"\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."
    for content in (nested, called):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
        found = PickledFile(path).content
        assert found == {} or isinstance(found, Opaque)


@pytest.mark.parametrize("archive", FORMATS)
def test_truncated_files_are_refused(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(60.0)}, path, _use_new_zipfile_serialization=archive)
    good = path.read_bytes()
    for end in range(0, len(good), max(len(good) // 40, 1)):
        path.write_bytes(good[:end])
        with pytest.raises(WeightsError):
            PickledFile(path).check()
