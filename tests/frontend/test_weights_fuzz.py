"""Damaged weights give a one-line error or the same network, in bounded time and memory."""

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from spslam.codebook import Codebook
from spslam.errors import WeightsError
from spslam.frontend.superpoint.checkpoints import read_checkpoint, read_codebook
from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.superpoint.weights_file import describe_network, export_weights

pytestmark = pytest.mark.slow
# About 10 seconds altogether.
fuzzed = settings(
    max_examples=70,
    deadline=10_000,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
KINDS = ("own.safetensors", "foreign.safetensors", "archive.pth", "stream.pth")
# Formats with a checksum of their own, or files with spslam's checksum.
VERIFIED = ("own.safetensors", "archive.pth")
WORDS = [
    b"conv1a.weight",
    b"F32",
    b"F16",
    b"BF16",
    b"I8",
    b"C64",
    b"weight",
    b"bias",
    b"shape",
    b"data_offsets",
    b"codebook.",
]
WORDS += [
    b"__metadata__",
    b"FloatStorage",
    b"HalfStorage",
    b"UntypedStorage",
    b"_rebuild_tensor_v2",
    b"OrderedDict",
    b"PK\x01\x02",
]
WORDS += [
    b"K\x00",
    b"M\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"nan",
    b"1e400",
    b"99999999999",
]


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    torch.manual_seed(0)
    network = SuperPoint((1, 1, 1, 1, 1), descriptor_dim=4)
    state = {key.replace(".conv.", "."): value for key, value in network.state_dict().items()}
    files = {
        "foreign.safetensors": save(state, {"descriptor_sampling": "bilinear, align_corners=True"})
    }
    for name, archive in (("archive.pth", True), ("stream.pth", False)):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=archive)
        files[name] = buffer.getvalue()
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, good: dict[str, bytes]) -> Path:
    """A folder with the undamaged files, including spslam's own format."""
    path = tmp_path_factory.mktemp("fuzz")
    torch.manual_seed(0)
    network = SuperPoint((1, 1, 1, 1, 1), descriptor_dim=4)
    book = Codebook(np.eye(3, 4, dtype=np.float32))
    export_weights(network, path / "own.safetensors", describe_network(network, "own"), book)
    good["own.safetensors"] = (path / "own.safetensors").read_bytes()
    for name, data in good.items():
        (path / name).write_bytes(data)
    return path


def read(path: Path) -> tuple[str, Any] | None:
    """Read in bounded memory; None for a one-line refusal."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        weights, book = read_checkpoint(path), read_codebook(path)
        weights.network()
    except WeightsError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # Allowance for imported modules and messages.
    assert peak < 10 * size + 20_000_000
    for values in weights.state.values():
        assert np.isfinite(values).all()
    return weights.digest, None if book is None else book.centres.tobytes()


edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "word", "repeat", "zero"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.sampled_from(WORDS),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    found = bytearray(data)
    for what, place, number, word in changes:
        if not found:
            break
        at = int(place * len(found))
        if what == "flip":
            found[at] ^= 1 << number % 8
        elif what == "set":
            found[at] = number
        elif what == "cut":
            del found[at : at + 1 + number]
        elif what == "insert":
            found[at:at] = bytes([number]) * (number % 9)
        elif what == "word":
            found[at : at + len(word)] = word
        elif what == "repeat":
            found[at:at] = found[max(at - number, 0) : at]
        else:
            found[at : at + number] = bytes(len(found[at : at + number]))
    return bytes(found)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(folder: Path, good: dict[str, bytes], kind: str) -> None:
    expected = read(folder / kind)
    assert expected is not None
    path = folder / f"damaged.{kind.partition('.')[2]}"

    @fuzzed
    @given(changes=edits)
    def check(changes: list[tuple[str, float, int, bytes]]) -> None:
        path.write_bytes(damaged(good[kind], changes))
        found = read(path)
        if kind in VERIFIED and found is not None:
            assert found == expected

    check()


@pytest.mark.parametrize("part", ["data.pkl", "byteorder", "data/0", "version"])
def test_damaged_members_with_correct_checksums(
    folder: Path, good: dict[str, bytes], part: str
) -> None:
    """Damage with correct checksums, as someone could write it on purpose."""
    path = folder / "parts.pth"
    archive = zipfile.ZipFile(io.BytesIO(good["archive.pth"]))
    members = {name: archive.read(name) for name in archive.namelist()}
    (changed,) = (name for name in members if name.endswith(f"/{part}"))

    @fuzzed
    @given(changes=edits)
    def check(changes: list[tuple[str, float, int, bytes]]) -> None:
        with zipfile.ZipFile(path, "w") as new:
            for name, content in members.items():
                new.writestr(name, damaged(content, changes) if name == changed else content)
        read(path)

    check()


values = st.one_of(
    st.integers(-1, 1 << 64),
    st.text(max_size=5),
    st.none(),
    st.lists(st.integers(-1, 1 << 40), max_size=5),
)


def test_wrong_headers(folder: Path, good: dict[str, bytes]) -> None:
    """Safetensors headers with other types, shapes, offsets and metadata in valid JSON."""
    data, path = good["foreign.safetensors"], folder / "header.safetensors"
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    types = st.sampled_from(
        ["F64", "F16", "BF16", "I32", "U8", "BOOL", "C64", "F8_E4M3", "F4", "none"]
    )

    @fuzzed
    @given(
        key=st.sampled_from(sorted(header)),
        entry=st.sampled_from(["dtype", "shape", "data_offsets", "other"]),
        value=st.one_of(types, values),
    )
    def check(key: str, entry: str, value: Any) -> None:
        text = json.dumps(header | {key: header[key] | {entry: value}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        read(path)

    check()
