"""A damaged map file is refused in one line or gives the saved map, in bounded time and memory.

For longer runs with new cases each time: `SPSLAM_FUZZ=100000 pytest tests/test_map_fuzz.py`.
"""

from __future__ import annotations

import io
import json
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from map_files import Arrays, arrays_of, place_arrays, same_map, seal

from spslam.backend.place_recognition import PlaceIndex
from spslam.backend.pose_graph import write_g2o
from spslam.errors import MapError, SpslamError
from spslam.map.colmap import write_colmap
from spslam.map.export import choose_submap, describe_map, submap_graph
from spslam.map.io import load_map, save_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map
from spslam.trajectory import Trajectory
from spslam.visualization.saved_run import build_map_view

_EXAMPLES = int(os.environ.get("SPSLAM_FUZZ", "0"))
_LONGEST_S = 10.0
# Memory for reading a file of any size: id tables, descriptor lookup, Python's own objects.
_FIXED_BYTES = 4e6
examples = settings(
    deadline=None,
    max_examples=_EXAMPLES or 150,
    derandomize=not _EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.slow


class Saved:
    """The file of a map, with and without a checksum, and its content."""

    def __init__(self, folder: Path, slam_map: Map) -> None:
        self.path = folder / "map.npz"
        save_map(self.path, slam_map, place_arrays(slam_map))
        self.loaded = load_map(self.path)
        self.arrays = arrays_of(self.path)
        self.sealed = self.path.read_bytes()
        comment = len("spslam sha256 ") + 64
        self.unsealed = self.sealed[: -comment - 2] + b"\0\0"
        self.directory = self.sealed.index(b"PK\x01\x02")

    def is_the_saved_one(self) -> bool:
        """Whether the changed file, if it loads at all, loads what was saved."""
        found = load_map(self.path)
        return same_map(found.map, self.loaded.map) and {
            k: v.tobytes() for k, v in found.places.items()
        } == {k: v.tobytes() for k, v in self.loaded.places.items()}


@pytest.fixture
def saved(landmarks, tmp_path: Path) -> Saved:
    scene = landmarks.box(40)
    found = scene.map_of([scene.pose(0.1 * i) for i in range(3)])
    found.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    found.loops.append(1, i=0, j=2, S_i_j=scene.pose(0.2), information=np.eye(7), inliers=77)
    append_map(found, scene.map_of([scene.pose(0.1 * i, z=0.5) for i in range(2)]))
    return Saved(tmp_path, found)


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Check that time and memory are in proportion to the file and that nothing warns."""
    size = path.stat().st_size
    tracemalloc.start()
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < _LONGEST_S
    assert peak < 10 * size + _FIXED_BYTES, f"{peak / 1e6:.1f} MB for a file of {size / 1e6:.3f} MB"


@contextmanager
def one_line() -> Iterator[None]:
    """Accept refusals that are one line."""
    try:
        yield
    except SpslamError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000


# --- bytes ---

PLACE = st.floats(0, 1, exclude_max=True)
DAMAGES = st.one_of(
    st.tuples(st.just("bits"), st.lists(PLACE, min_size=1, max_size=4)),
    st.tuples(st.just("write"), PLACE, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=200)),
    st.tuples(st.just("drop"), PLACE, st.integers(1, 3000)),
    st.tuples(st.just("copy"), PLACE, PLACE, st.integers(1, 3000)),
    st.tuples(st.just("cut"), PLACE),
    st.tuples(
        st.just("number"),
        PLACE,
        st.sampled_from([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]),
    ),
)


def damaged(data: bytes, damage: tuple[Any, ...], start: int) -> bytes:
    """Damage the file; positions are fractions of the bytes after `start`."""

    def at(fraction: float) -> int:
        return start + int(fraction * (len(data) - start))

    kind, *how = damage
    if kind == "bits":
        changed = bytearray(data)
        for fraction in how[0]:
            changed[at(fraction)] ^= 1 << int(fraction * 1e9) % 8
        return bytes(changed)
    first = at(how[0])
    if kind == "write":
        return data[:first] + how[1] + data[first + len(how[1]) :]
    if kind == "insert":
        return data[:first] + how[1] + data[first:]
    if kind == "drop":
        return data[:first] + data[first + how[1] :]
    if kind == "copy":
        submap = data[at(how[1]) : at(how[1]) + how[2]]
        return data[:first] + submap + data[first + len(submap) :]
    if kind == "number":
        return data[:first] + struct.pack("<L", how[1]) + data[first + 4 :]
    return data[:first]


@given(st.data())
@examples
def test_damage_is_refused_or_changes_nothing(saved: Saved, data: st.DataObject) -> None:
    whole = saved.sealed if data.draw(st.booleans(), "with a checksum") else saved.unsealed
    start = data.draw(st.sampled_from([0, saved.directory, len(whole) - 110]), "from")
    changed = damaged(whole, data.draw(DAMAGES, "damage"), start)
    saved.path.write_bytes(changed)
    if not changed:
        return
    with bounded(saved.path), one_line():
        assert saved.is_the_saved_one()
        # A reader that uses the checksum notices every change.
        assert whole is saved.unsealed or changed == whole


# --- values ---

NUMBERS = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        7,
        2**31,
        2**53,
        2**62,
        -(2**63),
        0.5,
        -0.0,
        1e-200,
        1e200,
        1e308,
        np.inf,
        -np.inf,
        np.nan,
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
DTYPES = st.sampled_from(
    ["<i8", "<f8", "<f4", "<f2", "|i1", "|b1", "<U5", "|S3", "<c16", "<M8[s]", ">i8", ">f8", "|V8"]
)


def changed_origin(data: st.DataObject, text: str) -> str:
    if data.draw(st.booleans(), "anything"):
        return json.dumps(data.draw(JSON, "origin"))
    found = json.loads(text)
    where = found if data.draw(st.booleans(), "origin itself") else found["camera"]
    name = data.draw(st.sampled_from([*where, "other"]), "field")
    if data.draw(st.booleans(), "drop"):
        where.pop(name, None)
    else:
        where[name] = data.draw(JSON | NUMBERS.map(float), "value")
    return json.dumps(found)


def changed_array(data: st.DataObject, array: np.ndarray) -> np.ndarray:
    """The array with other entries, of another type or shape."""
    kind = data.draw(st.sampled_from(["entry", "all", "type", "shape", "rows", "shift"]), "kind")
    number = data.draw(NUMBERS, "number")
    if kind == "type":
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.zeros(array.shape, data.draw(DTYPES, "dtype"))
    if kind == "shape":
        return array.reshape(
            data.draw(st.sampled_from([(-1,), (1, -1), (-1, 1), array.shape[::-1]]), "shape")
        )
    if kind == "rows" and array.ndim:
        return np.resize(
            array, (data.draw(st.integers(0, 2 * len(array)), "rows"), *array.shape[1:])
        )
    array = array.copy()
    if array.dtype.kind not in "ifc":
        return array
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if array.dtype.kind == "i":
            info = np.iinfo(array.dtype)
            number = int(
                np.clip(
                    np.nan_to_num(number),
                    info.min,
                    info.max - 1025 if info.bits == 64 else info.max,
                )
            )
        if kind == "shift":
            array += np.asarray(number).astype(array.dtype)
        elif kind == "entry" and array.size:
            array.flat[data.draw(st.integers(0, array.size - 1), "place")] = number
        else:
            array[...] = number
    return array


def used(path: Path, folder: Path) -> None:
    """Use an accepted map in every way; only errors of spslam may be raised."""
    found = load_map(path)
    describe_map(path, found)
    if found.places:
        PlaceIndex().restore(found.places)
    submap = choose_submap(found.map)
    nodes, edges, fixed = submap_graph(found.map, submap, 30)
    write_g2o(folder / "a.g2o", nodes, edges, fixed)
    write_colmap(folder / "model", found.map, submap, "both")
    build_map_view(
        found.map,
        submap,
        found.map.session - 1,
        Trajectory(np.zeros(0), np.zeros((0, 4, 4))),
        min_covisibility=30,
    )
    append_map(found.map, found.map)
    save_map(folder / "again.npz", found.map)
    assert len(load_map(folder / "again.npz").map.keyframes) == len(found.map.keyframes)


@given(st.data())
@examples
def test_values_are_refused_or_can_be_used(
    saved: Saved, tmp_path: Path, data: st.DataObject
) -> None:
    """The checksum is correct, as the author of such a file would write it."""
    arrays: Arrays = dict(saved.arrays)
    for _ in range(data.draw(st.integers(1, 2), "changes")):
        name = data.draw(st.sampled_from(sorted(arrays)), "array")
        if name == "origin":
            arrays[name] = np.array(changed_origin(data, str(saved.arrays[name])))
        else:
            arrays[name] = changed_array(data, arrays[name])
    try:
        seal(saved.path, arrays)
    except UnicodeEncodeError:
        return
    with bounded(saved.path), one_line():
        used(saved.path, tmp_path)


# --- headers ---

HEADERS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")),
    st.tuples(
        st.sampled_from(
            [
                "'<f8'",
                "'|O'",
                "'<U1'",
                "'<U99999999'",
                "'|V0'",
                "[('a', '<f8')]",
                "'<i8', 7",
                "None",
            ]
        ),
        st.sampled_from(["False", "True", "0", "None"]),
        st.lists(st.sampled_from([0, 1, 3, 5, -1, 2**31, 2**62, 2**64, 10**30]), max_size=4).map(
            tuple
        ),
        st.sampled_from(["", "(" * 3000, "-" * 3000, "[" * 200, "\\x00", "9" * 5000]),
    ).map(
        lambda h: f"{{'descr': {h[0]}, 'fortran_order': {h[1]}, 'shape': {h[3]}{h[2]}, }}".encode()
    ),
)


@given(
    name=st.integers(0, 32),
    header=HEADERS,
    version=st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"]),
)
@examples
def test_headers_are_refused_or_change_nothing(
    saved: Saved, name: int, header: bytes, version: bytes
) -> None:
    chosen = sorted(saved.arrays)[name % len(saved.arrays)]
    with zipfile.ZipFile(saved.path, "w") as archive:
        for key, values in saved.arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, values)
            content = buffer.getvalue()
            if key == chosen:
                length = (
                    struct.pack("<H", len(header))
                    if version == b"\x01\x00"
                    else struct.pack("<L", len(header))
                )
                content = b"\x93NUMPY" + version + length + header + content[128:]
            archive.writestr(f"{key}.npy", content)
    with bounded(saved.path):
        try:
            assert saved.is_the_saved_one()
        except MapError as error:
            assert "\n" not in str(error)
