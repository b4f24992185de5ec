"""Map files with a valid checksum and impossible values are refused by all commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused
from map_files import Arrays, arrays_of, place_arrays, same_map, seal
from small_map import map_of_three_views

from spslam.camera import Camera
from spslam.errors import MapError, SpslamError
from spslam.map.checks import check_tables
from spslam.map.io import load_map, save_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map
from spslam.visualization.saved_run import load_map_view

CAMERA = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
Change = Callable[[np.ndarray], Any]


@pytest.fixture
def path(landmarks, tmp_path: Path) -> Path:
    scene = landmarks.box(80)
    found = scene.map_of([scene.pose(0.1 * i) for i in range(4)])
    found.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    S_i_j = scene.pose(0.3)
    S_i_j[:3, :3] *= 1.25
    found.loops.append(1, i=0, j=3, S_i_j=S_i_j, information=np.eye(7), inliers=77)
    append_map(found, scene.map_of([scene.pose(0.1 * i, z=0.5) for i in range(2)]))
    save_map(tmp_path / "map.npz", found, place_arrays(found))
    return tmp_path / "map.npz"


def entry(index: Any, value: Any) -> Change:
    """Replace one entry of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] = value
        return array

    return change


def origin(**values: Any) -> Change:
    """Replace fields of the origin; `camera_fx` is a field of its camera."""

    def change(array: np.ndarray) -> np.ndarray:
        found = json.loads(str(array))
        for name, value in values.items():
            where = found["camera"] if name.startswith("camera_") else found
            where[name.removeprefix("camera_")] = value
        return np.array(json.dumps(found))

    return change


IMPOSSIBLE: list[tuple[str, Change, str]] = [
    ("origin", lambda a: np.array("null"), "which camera recorded its 6 keyframes"),
    ("origin", lambda a: np.array("7"), "its origin must be named values, found 7"),
    ("origin", lambda a: np.array(7), "another type"),
    ("origin", lambda a: np.array("[]"), "named values"),
    ("origin", lambda a: np.array("{}"), "lacks camera, extractor, scale, sensor"),
    ("origin", lambda a: np.array("[" * 50_000), "damaged"),
    ("origin", lambda a: np.array("9" * 50_000), "damaged"),
    ("origin", origin(sensor="lidar"), "sensor is 'lidar'"),
    ("origin", origin(sensor=None), "sensor is None"),
    ("origin", origin(sensor=["mono"]), "sensor is"),
    ("origin", origin(sensor="mono"), "baseline of 0.12"),
    ("origin", origin(extractor=5), "extractor"),
    ("origin", origin(extractor="orb\x1b[2J"), "extractor"),
    ("origin", origin(scale="a\nb"), "scale"),
    ("origin", origin(scale=None), "scale"),
    ("origin", origin(scale=float("nan")), "scale"),
    ("origin", origin(colour="red"), "'colour', which is unknown"),
    ("origin", origin(camera=None), "camera must be named values"),
    ("origin", origin(camera_width=640.5), "width"),
    ("origin", origin(camera_width=10**400), "width"),
    ("origin", origin(camera_height=-1), "height"),
    ("origin", origin(camera_fx=10**400), "fx"),
    ("origin", origin(camera_fx=float("nan")), "fx"),
    ("origin", origin(camera_fx=True), "fx"),
    ("origin", origin(camera_fy="400"), "fy"),
    ("origin", origin(camera_fy=-400.0), "fy"),
    ("origin", origin(camera_cx=1e200), "cx"),
    ("origin", origin(camera_baseline_m=0), "baseline"),
    ("origin", origin(camera_baseline_m=None), "baseline of None"),
    ("origin", origin(camera_distortion=None), "distortion"),
    (
        "origin",
        origin(camera_distortion=[0.1, None, 0, 0], camera_distortion_model="radtan"),
        "distortion",
    ),
    ("origin", origin(camera_distortion_model=["radtan"]), "distortion"),
    ("origin", origin(camera_fps=float("inf")), "fps"),
    ("descriptor_scale", lambda a: a * np.nan, "scale of descriptors"),
    ("descriptor_scale", lambda a: a * 0, "scale of descriptors"),
    ("descriptor_scale", lambda a: a * 1e-200, "scale of descriptors"),
    ("descriptor_scale", lambda a: a * 1e6, "scale of descriptors"),
    ("descriptor_scale", lambda a: np.array([float(a)] * 2), "scale of descriptors"),
    ("keyframes.T_world_cam", lambda a: a * 0, "poses of keyframes: number 0 is no rigid motion"),
    ("keyframes.T_world_cam", entry(2, 0.0), "number 2 is no rigid motion"),
    ("keyframes.T_world_cam", entry((1, 0, 3), np.inf), "finite"),
    ("keyframes.T_world_cam", entry((1, 0, 3), 1e200), "found 0 to 1e+200"),
    ("keyframes.T_world_cam", entry((1, 0, 0), 1.1), "rigid motion"),
    ("keyframes.T_world_cam", entry((1, 0), [-1.0, 0, 0, 0]), "rigid motion"),
    ("keyframes.T_world_cam", entry((1, 3), [0.0, 0, 0, 2]), "rigid motion"),
    ("keyframes.T_world_cam", lambda a: a * 1e-200, "rigid motion"),
    ("keyframes.timestamp", entry(0, np.nan), "timestamps must be finite, found nan to nan"),
    ("keyframes.timestamp", entry(0, 1e308), "timestamps"),
    ("keyframes.submap", entry(0, 500_000_000), "submaps must be 0 to 5, found 0 to 500000000"),
    ("keyframes.submap", entry(0, -1), "submaps"),
    ("keyframes.session", entry(0, 10**12), "sessions"),
    ("keyframes.frame", entry(0, -3), "frames of keyframes"),
    ("keyframes.id", lambda a: a.astype(np.float64), "keyframes.id must be int64, found float64"),
    ("points.position", entry((0, 0), -np.inf), "finite"),
    ("points.position", entry((3, 1), 1e200), "finite"),
    ("points.normal", entry(0, np.nan), "viewing direction"),
    ("points.normal", entry(0, 7.0), "viewing direction"),
    ("points.distance", entry(0, -1.0), "distance -1 from its camera"),
    ("points.distance", entry(0, np.nan), "distances of points"),
    ("points.born", entry(0, 10**12), "born"),
    ("points.visible", entry(0, -1), "visible"),
    ("points.descriptor", lambda a: a[:, :16], "16 numbers, those of observations 32"),
    ("points.descriptor", lambda a: a.astype(np.float32), "8 bits"),
    ("points.descriptor", lambda a: a[:, 0], "8 bits"),
    (
        "observations.descriptor",
        lambda a: np.hstack([a, a]),
        "32 numbers, those of observations 64",
    ),
    ("observations.pixel", entry((0, 1), np.nan), "keypoints"),
    ("observations.relative_sigma", entry(0, 0.0), "within 0.01 to 100"),
    ("observations.relative_sigma", entry(1, np.nan), "within 0.01 to 100"),
    ("observations.u_right", entry(0, np.inf), "right image"),
    ("observations.depth", entry(0, -2.0), "a depth of -2 m"),
    ("observations.point", entry(0, 10**6), "not there"),
    ("observations.point", entry(0, -2), "not there"),
    ("observations.keyframe", entry(-1, 77), "not there"),
    ("loops.i", entry(0, 50), "not there"),
    ("loops.j", entry(0, 0), "joins a keyframe with itself"),
    ("loops.S_i_j", lambda a: a * np.nan, "not finite"),
    ("loops.S_i_j", lambda a: a * 0, "no similarity"),
    ("loops.S_i_j", lambda a: a * np.diag([-1.0, 1, 1, 1]), "no similarity"),
    ("loops.information", lambda a: a * np.nan, "not finite"),
    ("loops.information", lambda a: -a, "inverse covariance"),
    ("loops.information", entry((0, 0, 1), 0.5), "inverse covariance"),
    ("loops.inliers", entry(0, -5), "confirm"),
    ("places.ids", entry(0, 77), "names missing keyframes"),
    ("places.ids", lambda a: a[::-1], "names missing keyframes"),
    ("places.ids", lambda a: a[:-1], "6 vectors of 12 numbers for 5 keyframes"),
    ("places.vectors", lambda a: a[:, :-1], "vectors of 11 numbers"),
    ("places.vectors", lambda a: a * np.nan, "vectors of its place index is not finite"),
    ("places.codebook.centres", lambda a: a[:, :-1], "3 centres of 3"),
    ("places.codebook.centres", lambda a: a[0], "centres"),
    (
        "places.codebook.projection",
        lambda a: a[:, :16],
        "projects descriptors of 16 numbers to 4, its points have 32",
    ),
    ("places.codebook.projection", lambda a: a[:3], "centres 4"),
    (
        "places.codebook.projection",
        lambda a: a.astype(np.float64),
        "must be float32 with 2 axes, found float64",
    ),
]


@pytest.mark.parametrize(("name", "change", "why"), IMPOSSIBLE)
def test_impossible_values_are_refused(path: Path, name: str, change: Change, why: str) -> None:
    arrays = arrays_of(path)
    seal(path, arrays)
    before = load_map(path)
    seal(path, arrays | {name: np.asarray(change(arrays[name]))})
    with pytest.raises(MapError) as error:
        load_map(path)
    assert str(path) in str(error.value) and "is damaged" in str(error.value)
    assert why in str(error.value) and "\n" not in str(error.value)
    seal(path, arrays)
    assert same_map(load_map(path).map, before.map)


def test_arrays_that_are_missing_or_unknown_are_refused(path: Path) -> None:
    arrays = arrays_of(path)
    for name in arrays.keys() - {"places.codebook.projection"}:
        seal(path, {key: values for key, values in arrays.items() if key != name})
        with pytest.raises(
            MapError, match=name.removeprefix("places.") if name != "format_version" else "version"
        ):
            load_map(path)
    for name in ("points.colour", "places.colour", "colour"):
        seal(path, arrays | {name: np.zeros(3)})
        with pytest.raises(MapError, match="unknown"):
            load_map(path)


def test_unusual_but_valid_values_are_read(path: Path) -> None:
    """Unknown depths, very distant points, a point without a normal, an empty place index."""
    arrays = arrays_of(path)
    unusual: Arrays = {
        "points.position": entry(0, 1e9)(arrays["points.position"]),
        "points.normal": entry(0, 0.0)(arrays["points.normal"]),
        "observations.depth": entry(slice(0, 3), [np.nan, np.inf, 0.0])(
            arrays["observations.depth"]
        ),
        "observations.u_right": arrays["observations.u_right"] * np.nan,
        "keyframes.timestamp": arrays["keyframes.timestamp"] - 1e12,
        "places.ids": np.zeros(0, np.int64),
        "places.vectors": np.zeros((0, 0), np.float32),
    }
    seal(path, arrays | unusual)
    found = load_map(path)
    for name in ("points.position", "points.normal", "observations.depth", "observations.u_right"):
        table, column = name.split(".")
        np.testing.assert_array_equal(found.map.tables()[table][column], unusual[name])


def test_descriptors_of_odd_length_are_read(tmp_path: Path) -> None:
    slam_map = Map(3)
    rows = np.eye(3)
    slam_map.observations.append(
        3,
        keyframe=0,
        pixel=0.0,
        relative_sigma=1,
        u_right=0.0,
        depth=1.0,
        descriptor=rows,
        point=-1,
        color=0,
    )
    slam_map.keyframes.append(
        1, id=0, frame=0, timestamp=0.0, T_world_cam=np.eye(4), submap=0, session=0, channels=0
    )
    slam_map.reindex((0, 1))
    slam_map.origin = Origin("mono", CAMERA, "none", "arbitrary")
    save_map(tmp_path / "map.npz", slam_map)
    np.testing.assert_allclose(
        load_map(tmp_path / "map.npz").map.observations["descriptor"], rows, atol=1e-3
    )


# -- all commands ----------------------------------------------------------------------------------

COMMANDS: dict[str, list[str]] = {
    "info": ["map", "info", "{map}"],
    "info as JSON": ["map", "info", "{map}", "--json"],
    "PLY": ["map", "export", "{map}", "--ply", "{folder}/a.ply"],
    "COLMAP": ["map", "export", "{map}", "--colmap", "{folder}/model"],
    "g2o": ["map", "export", "{map}", "--g2o", "{folder}/a.g2o"],
    "merge, first": ["map", "merge", "{map}", "{good}", "--out", "{folder}/both.npz"],
    "merge, second": ["map", "merge", "{good}", "{map}", "--out", "{folder}/both.npz"],
    "localize": [
        "run",
        "demo-small",
        "--extractor",
        "orb",
        "--map",
        "{map}",
        "--localize",
        "--out",
        "{folder}/run",
    ],
    "extend": [
        "run",
        "demo-small",
        "--extractor",
        "orb",
        "--map",
        "{map}",
        "--extend",
        "--out",
        "{folder}/run",
    ],
    "view": ["view", "{run}", "--render", "{folder}/a.png"],
}


SAME_CHECK = (
    "keyframes.T_world_cam",
    "descriptor_scale",
    "points.descriptor",
    "places.codebook.projection",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_the_same_maps(
    command: str,
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "spslam.slam.loops.map_merging.merge_maps",
        lambda *_: pytest.fail("a damaged map was merged"),
    )
    monkeypatch.setattr(
        "spslam.slam.system.Slam.from_config",
        lambda *_, **__: pytest.fail("a damaged map was used"),
    )
    monkeypatch.setattr("spslam.factory.build_components", lambda *_: None)
    folder, run, good = tmp_path / "out", tmp_path / "run", tmp_path / "good.npz"
    folder.mkdir()
    run.mkdir()
    (run / "metrics.json").write_text(
        json.dumps({"sequence": "x", "sensor": "stereo", "extractor": "orb"})
    )
    (run / "trajectory.tum").write_text("# nothing\n")
    arrays = arrays_of(path)
    good.write_bytes(path.read_bytes())
    bad = path.rename(run / "map.npz")
    flipped = bytearray(good.read_bytes())
    flipped[flipped.rindex(b"points.found.npy") + 8] ^= 1
    changes = [
        IMPOSSIBLE[0],
        IMPOSSIBLE[1],
        *(next(each for each in IMPOSSIBLE if each[0] == name) for name in SAME_CHECK),
    ]
    written = [bytes(flipped)]
    for name, change, _ in changes:
        seal(bad, arrays | {name: np.asarray(change(arrays[name]))})
        written.append(bad.read_bytes())
    seal(bad, arrays | {"next_ids": np.array([500_000_000, 6])})
    written.append(bad.read_bytes())
    for content in written:
        bad.write_bytes(content)
        line = refused(
            capsys,
            *(
                word.format(map=bad, good=good, folder=folder, run=run)
                for word in COMMANDS[command]
            ),
        )
        assert str(bad) in line and "is damaged" in line
        assert bad.read_bytes() == content
        assert not list(folder.iterdir()), "nothing is written"


# -- the run of the map ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("tracking,5000000000", "no submap 5000000000"),
        ("tracking,-1", "no submap -1"),
        (f"tracking,{10**30}", f"no submap {10**30}"),
        ("tracking", "cannot be read"),
        ("tracking,x", "cannot be read"),
        (f"tracking,{'9' * 200_000}", "cannot be read"),
    ],
)
def test_frames_of_missing_submaps_are_refused(
    path: Path, tmp_path: Path, rows: str, why: str
) -> None:
    (tmp_path / "frames.csv").write_text(f"state,part\n{rows}\n")
    (tmp_path / "trajectory.tum").write_text("# nothing\n")
    metrics = {"sequence": "x", "sensor": "stereo", "extractor": "orb", "mode": "localize"}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(SpslamError, match=why):
        load_map_view(tmp_path)
    (tmp_path / "frames.csv").write_text("state,part\ntracking,1\ntracking,1\ntracking,0\n")
    assert len(load_map_view(tmp_path).keyframes) == 2
    (tmp_path / "metrics.json").write_text("[" * 100_000)
    with pytest.raises(SpslamError, match="cannot be read"):
        load_map_view(tmp_path)


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("points", "id", [1, 0, 2, 3], "do not ascend"),
        ("keyframes", "id", [0, 1, 3], "do not ascend"),
        ("observations", "keyframe", [1] + 11 * [0], "out of order"),
        ("observations", "point", 12 * [4], "not there"),
    ],
)
def test_tables_that_do_not_fit_together(
    table: str, column: str, values: list[int], message: str
) -> None:
    slam_map = map_of_three_views()
    check_tables(slam_map, slam_map.next_ids)
    slam_map.tables()[table][column][:] = values
    with pytest.raises(ValueError, match=message):
        check_tables(slam_map, slam_map.next_ids)
