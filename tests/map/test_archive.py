"""Protection of map files: changed bits are detected, and headers are checked before use."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from map_files import Arrays, arrays_of, place_arrays, same_map, seal

from spslam.errors import MapError
from spslam.map.io import load_map, save_map
from spslam.map.map import Map, Origin

_SEAL_LENGTH = len("spslam sha256 ") + 64


@pytest.fixture
def slam_map(landmarks) -> Map:
    scene = landmarks.box(60)
    found = scene.map_of([scene.pose(0.1 * i) for i in range(3)])
    found.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    found.loops.append(1, i=0, j=2, S_i_j=scene.pose(0.2), information=np.eye(7), inliers=77)
    return found


@pytest.fixture
def path(slam_map: Map, tmp_path: Path) -> Path:
    save_map(tmp_path / "map.npz", slam_map, place_arrays(slam_map))
    return tmp_path / "map.npz"


def without_seal(data: bytes) -> bytes:
    """The file without a checksum, as earlier versions wrote it."""
    return data[: -_SEAL_LENGTH - 2] + b"\0\0"


def directory_start(data: bytes) -> int:
    return data.index(b"PK\x01\x02")


def refusal(path: Path) -> str:
    with pytest.raises(MapError, match=path.name) as error:
        load_map(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def topics(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "notice_topic", "") for record in caplog.records]


def flipped(data: bytes, bits: list[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# -- the checksum ----------------------------------------------------------------------------------


def test_numpy_reads_a_map(path: Path, slam_map: Map) -> None:
    arrays = arrays_of(path)
    assert arrays["points.position"].tolist() == slam_map.positions.tolist()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert (
            archive.comment.startswith(b"spslam sha256 ") and len(archive.comment) == _SEAL_LENGTH
        )


def test_the_same_map_is_the_same_bytes(path: Path, slam_map: Map, tmp_path: Path) -> None:
    save_map(tmp_path / "again.npz", slam_map, place_arrays(slam_map))
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_every_flipped_bit_outside_of_the_arrays_is_detected(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bits of names, offsets, sizes, compression types, dates, the directory and the checksum.

    Every 61st bit of the end of the file, every third of the checksum, and 600 of the whole file.
    """
    data = path.read_bytes()
    start = directory_start(data)
    end = range(start * 8, len(data) * 8)
    anywhere = np.random.default_rng(5).integers(0, len(data) * 8, 600)
    for bit in [*end[::61], *end[-8 * (_SEAL_LENGTH + 22) :: 3], *anywhere.tolist()]:
        path.write_bytes(flipped(data, [bit]))
        refusal(path)
    assert not caplog.records, "no changed file is taken for a map of an earlier version"


@pytest.mark.parametrize(
    "change", [lambda d: d + b"\0", lambda d: b"\0" + d, lambda d: d[:-1], lambda d: d + d]
)
def test_bytes_around_the_archive_are_detected(
    path: Path, change: Callable[[bytes], bytes]
) -> None:
    path.write_bytes(change(path.read_bytes()))
    refusal(path)


def test_an_exchanged_array_is_detected(path: Path) -> None:
    """All CRC-32 values of the archive are correct, also that of the new content."""
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        old = archive.read("points.distance.npy")
        crc = archive.getinfo("points.distance.npy").CRC
    new = old[:-8] + struct.pack("<d", 4.5)
    assert new != old
    changed = data.replace(old, new).replace(
        struct.pack("<L", crc), struct.pack("<L", zlib.crc32(new))
    )
    path.write_bytes(changed)
    assert np.load(path)["points.distance"][-1] == 4.5
    assert "checksum" in refusal(path)


def test_a_map_of_an_earlier_version_is_read_with_a_note(
    path: Path, slam_map: Map, caplog: pytest.LogCaptureFixture
) -> None:
    whole = load_map(path)
    assert not caplog.records
    path.write_bytes(without_seal(path.read_bytes()))
    assert same_map(load_map(path).map, whole.map)
    assert topics(caplog) == ["map_without_checksum"]


def test_a_flipped_bit_never_changes_the_content_of_a_map_of_an_earlier_version(path: Path) -> None:
    whole = load_map(path)
    data = without_seal(path.read_bytes())
    rng = np.random.default_rng(6)
    start = directory_start(data) * 8
    bits = [
        *rng.integers(start, len(data) * 8, 400).tolist(),
        *rng.integers(0, start, 100).tolist(),
    ]
    for bit in bits:
        path.write_bytes(flipped(data, [bit]))
        try:
            found = load_map(path)
        except MapError:
            continue
        assert same_map(found.map, whole.map)
        assert {k: v.tolist() for k, v in found.places.items()} == {
            k: v.tolist() for k, v in whole.places.items()
        }


def test_a_flipped_bit_in_an_array_name_is_detected(path: Path) -> None:
    """With and without a checksum, in both places that hold the name."""
    data = path.read_bytes()
    for whole in (data, without_seal(data)):
        for name in (b"points.found.npy", b"places.ids.npy", b"loops.i.npy", b"origin.npy"):
            for at in (whole.index(name), whole.rindex(name)):
                path.write_bytes(flipped(whole, [8 * (at + len(name) - 6)]))
                refusal(path)


# -- claims ----------------------------------------------------------------------------------------


def headed(array: np.ndarray, shape: str, descr: str | None = None) -> bytes:
    """An array whose header claims another shape or type, or has any other text as shape."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    data = buffer.getvalue()
    found = f"'shape': {array.shape}".encode()
    assert found in data
    header, content = data[10:128], data[128:]
    header = header.replace(found, f"'shape': {shape}".encode())
    if descr is not None:
        header = header.replace(repr(array.dtype.str).encode(), descr.encode())
    header = header.rstrip(b" \n")
    header += b" " * (118 - len(header) - 1) + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + content


def with_member(path: Path, name: str, content: bytes, arrays: Arrays) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for key, values in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, values)
            archive.writestr(f"{key}.npy", content if key == name else buffer.getvalue())


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ("(1000000000000,)", None),
        ("(4294967296, 4294967296)", None),
        ("(999999999999999999, 999999999999999999, 999999999999999999)", None),
        ("(-1,)", None),
        ("(0,)", None),
        ("(0, 999999999999)", None),
        ("(1e3,)", None),
        ("(3)", None),
        ("((((((((3,", None),
        ("[9] * 10**9", None),
        (f"({'9' * 60},)", None),
        ("{}", None),
        ("(3,)", "'|O'"),
        ("(3,)", "'<U999999999'"),
        ("(3,)", "'|V0'"),
        ("(3,)", "'<f4'"),
        ("(3,)", "[('a', '<f8')]"),
        ("(3,)", "('<f8', (999999999,))"),
        ("(3,)", "'nonsense'"),
    ],
)
def test_false_headers_are_refused_before_anything_is_allocated(
    path: Path, shape: str, descr: str | None
) -> None:
    arrays = arrays_of(path)
    with_member(
        path, "keyframes.timestamp", headed(arrays["keyframes.timestamp"], shape, descr), arrays
    )
    tracemalloc.start()
    try:
        message = refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "keyframes.timestamp" in message
    assert peak < 4e6


def test_false_archive_members_are_refused(path: Path, tmp_path: Path) -> None:
    arrays = arrays_of(path)
    data = path.read_bytes()
    members: dict[str, Any] = dict(arrays)
    np.savez_compressed(tmp_path / "small.npz", **members)
    assert "compressed" in refusal(tmp_path / "small.npz")
    # A size in the directory: a field of four bytes.
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("points.position.npy").file_size
    field = struct.pack("<LL", size, size)
    for claimed in (0, 1, size - 8, size + 8, 2**31, 2**32 - 2):
        old = without_seal(data)
        at = old.rindex(field, 0, old.rindex(b"points.position.npy"))
        path.write_bytes(old[:at] + struct.pack("<LL", claimed, claimed) + old[at + 8 :])
        refusal(path)
    # Two names for the same bytes, which would be read once per name.
    old = without_seal(data)
    with zipfile.ZipFile(io.BytesIO(old)) as archive:
        first, second = (
            struct.pack("<L", archive.getinfo(f"points.{n}.npy").header_offset)
            for n in ("id", "born")
        )
    at = directory_start(old)
    path.write_bytes(old[:at] + old[at:].replace(second, first))
    refusal(path)


def test_an_endless_directory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(3000):
            archive.writestr(f"{index}.npy", b"")
    tracemalloc.start()
    try:
        assert "directory of " in refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e5


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "map.npz")
    assert "pipe" in refusal(tmp_path / "map.npz")
    if Path("/dev/zero").exists():
        assert "device" in refusal(tmp_path.joinpath("/dev/zero"))


# -- ids -------------------------------------------------------------------------------------------


def test_very_large_ids_are_renumbered(
    path: Path, slam_map: Map, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids up to 5e8 would need tables of 8 GB; the observations stay the same."""
    arrays = arrays_of(path)
    far = arrays["points.id"].copy()
    far[1:] += 499_999_000
    linked = arrays["observations.point"]
    arrays |= {"points.id": far, "observations.point": np.where(linked < 0, linked, far[linked])}
    seal(path, arrays | {"next_ids": np.array([500_000_000, 6_000])})
    tracemalloc.start()
    try:
        found = load_map(path).map
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * path.stat().st_size + 2e6
    assert found.points["id"].tolist() == list(range(len(far)))
    assert found.next_ids == (len(far), 6_000)
    assert found.observations["point"].tolist() == linked.tolist()
    assert found.observation_counts().tolist() == slam_map.observation_counts().tolist()
    assert topics(caplog) == ["point_ids_numbered_anew"]


@pytest.mark.parametrize(
    "next_ids", [[500_000_000, 3], [2**62, 2**62], [2**31 + 1, 2**31], [-1, 3], [10**9, -(2**63)]]
)
def test_impossible_next_ids_are_refused(path: Path, next_ids: list[int]) -> None:
    seal(path, arrays_of(path) | {"next_ids": np.array(next_ids)})
    tracemalloc.start()
    try:
        refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * path.stat().st_size + 2e6


def test_missing_ids_of_any_size_are_refused(path: Path) -> None:
    arrays = arrays_of(path) | {"next_ids": np.array([500_000_000, 6_000])}
    for name in ("points.id", "observations.point"):
        seal(path, arrays | {name: arrays[name] + 499_990_000})
        assert "not there" in refusal(path)
    extreme = arrays["points.id"].copy()
    extreme[[0, -1]] = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    seal(path, arrays | {"points.id": extreme})
    assert "ascend" in refusal(path)
