"""Saved maps are loaded unchanged; files that are not maps are refused in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from map_files import arrays_of, place_arrays, same_map, seal

from spslam.camera import Camera
from spslam.errors import MapError, OutputError
from spslam.map.io import _LACKING, load_map, save_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import begin_submap

CAMERA = Camera(
    640, 480, 400.0, 401.0, 319.5, 239.5, "radtan", (0.1, -0.2, 0.0, 0.001), baseline_m=0.12
)


@pytest.fixture
def slam_map(landmarks) -> Map:
    scene = landmarks.box()
    found = scene.map_of([scene.pose(0.1 * i) for i in range(4)])
    found.origin = Origin("stereo", CAMERA, "superpoint 0123456789ab", "baseline")
    found.loops.append(1, i=0, j=3, S_i_j=scene.pose(0.3), information=np.eye(7), inliers=77)
    begin_submap(found)
    scene.observe(scene.pose(5.0), 9)
    found.add_keyframe(
        scene.observe(scene.pose(5.0), 9), scene.pose(5.0), np.full(len(scene.labels[9]), -1)
    )
    return found


def test_saved_map_loads_equal(slam_map: Map, tmp_path: Path) -> None:
    slam_map.remove_points(np.array([0]))
    places = place_arrays(slam_map, [0, 1, 3])
    save_map(tmp_path / "map.npz", slam_map, places)
    saved = load_map(tmp_path / "map.npz")
    for name, mine in slam_map.tables().items():
        theirs = saved.map.tables()[name]
        for column in mine.names:
            if column == "descriptor":
                assert mine[column].astype(np.float32) == pytest.approx(
                    theirs[column].astype(np.float32), abs=0.005
                )
                assert theirs[column].dtype == mine[column].dtype
            else:
                assert np.array_equal(
                    mine[column], theirs[column], equal_nan=mine[column].dtype.kind == "f"
                ), column
    assert saved.map.origin == slam_map.origin
    assert saved.map.next_ids == slam_map.next_ids
    assert saved.map.session == 1, "new keyframes belong to another session"
    assert {name: values.tolist() for name, values in saved.places.items()} == {
        name: values.tolist() for name, values in places.items()
    }
    assert saved.map.point_rows(np.array([0, 1])).tolist() == [-1, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.npz"]


def test_saving_twice_gives_the_same_file(slam_map: Map, tmp_path: Path) -> None:
    save_map(tmp_path / "a.npz", slam_map)
    save_map(tmp_path / "b.npz", load_map(tmp_path / "a.npz").map)
    save_map(tmp_path / "c.npz", load_map(tmp_path / "b.npz").map)
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


def test_binary_descriptors_are_restored_exactly(tmp_path: Path) -> None:
    slam_map = Map(256)
    bits = np.where(np.random.default_rng(0).random((5, 256)) > 0.5, 1.0, -1.0) / 16
    slam_map.observations.append(
        5,
        keyframe=0,
        pixel=0.0,
        relative_sigma=1,
        u_right=0.0,
        depth=0.0,
        descriptor=bits,
        point=-1,
        color=0,
    )
    slam_map.keyframes.append(
        1, id=0, frame=0, timestamp=0.0, T_world_cam=np.eye(4), submap=0, session=0, channels=0
    )
    slam_map.reindex((0, 1))
    slam_map.origin = Origin("stereo", CAMERA, "orb", "baseline")
    save_map(tmp_path / "map.npz", slam_map)
    assert np.array_equal(
        load_map(tmp_path / "map.npz").map.observations["descriptor"], bits.astype(np.float16)
    )


def test_an_empty_map_can_be_saved(tmp_path: Path) -> None:
    save_map(tmp_path / "map.npz", Map(8))
    assert len(load_map(tmp_path / "map.npz").map.keyframes) == 0


@pytest.mark.parametrize("content", [b"", b"not a map", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_damaged_map_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    path.write_bytes(content)
    with pytest.raises(MapError, match=r"map\.npz") as error:
        load_map(path)
    assert "\n" not in str(error.value)


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="No such file"):
        load_map(tmp_path / "nothing.npz")
    with pytest.raises(MapError, match="directory"):
        load_map(tmp_path)


def test_truncated_map_is_refused(slam_map: Map, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    save_map(path, slam_map)
    whole = path.read_bytes()
    for fraction in (0.2, 0.6, 0.99):
        path.write_bytes(whole[: int(fraction * len(whole))])
        with pytest.raises(MapError):
            load_map(path)


def test_a_flipped_byte_is_detected(slam_map: Map, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    save_map(path, slam_map)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(MapError):
        load_map(path)


def test_foreign_archives_and_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    for arrays in (
        {"a": np.zeros(3)},
        {"format_version": np.array(99)},
        {"format_version": np.array("x")},
    ):
        np.savez(path, **arrays)
        with pytest.raises(MapError, match="version") as error:
            load_map(path)
        assert "\n" not in str(error.value)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(MapError, match="not a zip"):
        load_map(tmp_path / "array.npy")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("points.position", lambda a: a[:-1]),
        ("points.position", lambda a: a * np.nan),
        ("keyframes.T_world_cam", lambda a: a[:, :3]),
        ("keyframes.id", lambda a: a[::-1]),
        ("observations.keyframe", lambda a: a + 100),
        ("observations.point", lambda a: np.where(a == 3, 10**6, a)),
        ("loops.i", lambda a: a + 50),
        ("next_ids", lambda a: a * 0),
        ("next_ids", lambda a: a[:1]),
        ("origin", lambda a: np.array("{")),
        ("origin", lambda a: np.array('{"camera": {"width": -1}}')),
    ],
)
def test_an_inconsistent_map_is_refused(slam_map: Map, tmp_path: Path, name: str, change) -> None:
    path = tmp_path / "map.npz"
    save_map(path, slam_map)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(path, **(arrays | {name: change(arrays[name])}))
    with pytest.raises(MapError, match="damaged"):
        load_map(path)
    np.savez(path, **{key: values for key, values in arrays.items() if key != name})
    with pytest.raises(MapError):
        load_map(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        save_map(tmp_path / "nowhere/map.npz", Map(8))


_SAVING = """
import sys
from spslam.map.io import load_map, save_map
slam_map = load_map(sys.argv[1]).map
print("ready", flush=True)
while True:
    slam_map.positions[:] += 1.0
    save_map(sys.argv[1], slam_map)
"""


def test_a_kill_while_saving_leaves_a_complete_map(slam_map: Map, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    save_map(path, slam_map)
    for delay in (0.0, 0.011, 0.017, 0.029):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVING, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = load_map(path).map
        shift = found.positions[:, 0] - slam_map.positions[:, 0]
        assert np.ptp(shift) < 1e-9, "the file is a mixture of two maps"


def as_version(version: int, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a map file as an earlier version wrote them."""
    lacking = _LACKING[version]
    arrays = {name: values for name, values in arrays_of(path).items() if name not in lacking}
    return arrays | {"format_version": np.array(version)}


@pytest.mark.parametrize("version", [3, 4])
def test_maps_of_earlier_versions_are_read(landmarks, tmp_path: Path, version: int) -> None:
    scene = landmarks.box(50)
    slam_map = scene.map_of([scene.pose(), scene.pose(0.1)])
    slam_map.origin = Origin("stereo", scene.camera, "orb", "baseline")
    slam_map.keyframes["channels"][:] = 3
    slam_map.observations["color"][:] = 200
    slam_map.observations["relative_sigma"][:] = 2.0
    save_map(tmp_path / "map.npz", slam_map)
    seal(tmp_path / "old.npz", as_version(version, tmp_path / "map.npz"))
    found = load_map(tmp_path / "old.npz").map
    colored = version > 3
    assert (found.observations["relative_sigma"] == 1).all()
    assert found.keyframes["channels"].any() == found.observations["color"].any() == colored
    found.observations["relative_sigma"][:] = 2.0
    found.keyframes["channels"][:] = 3
    found.observations["color"][:] = 200
    assert same_map(found, load_map(tmp_path / "map.npz").map), "all the rest is the same"


@pytest.mark.parametrize("version, name", [(v, name) for v in _LACKING for name in _LACKING[v]])
def test_columns_belong_to_their_version(
    landmarks, tmp_path: Path, version: int, name: str
) -> None:
    scene = landmarks.box(50)
    save_map(tmp_path / "map.npz", scene.map_of([scene.pose()]))
    whole = arrays_of(tmp_path / "map.npz")
    seal(tmp_path / "new.npz", {key: value for key, value in whole.items() if key != name})
    with pytest.raises(MapError, match=f"lacks {name}"):
        load_map(tmp_path / "new.npz")
    seal(tmp_path / "old.npz", as_version(version, tmp_path / "map.npz") | {name: whole[name]})
    with pytest.raises(MapError, match="unknown"):
        load_map(tmp_path / "old.npz")


def test_impossible_channels_are_refused(landmarks, tmp_path: Path) -> None:
    scene = landmarks.box(50)
    slam_map = scene.map_of([scene.pose()])
    slam_map.origin = Origin("stereo", scene.camera, "orb", "baseline")
    slam_map.keyframes["channels"][:] = 2
    save_map(tmp_path / "map.npz", slam_map)
    with pytest.raises(MapError, match="channels of the images of keyframes must be 0, 1 or 3"):
        load_map(tmp_path / "map.npz")
