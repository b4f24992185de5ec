"""`spslam map …`: output, files and error messages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call, refused
from map_files import place_arrays

from spslam import geometry
from spslam.config import Config, LoopConfig
from spslam.datasets import open_sequence
from spslam.map.io import load_map, save_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map


@pytest.fixture
def map_file(landmarks, tmp_path: Path) -> str:
    """A stereo map of two submaps: four keyframes with a loop, and two keyframes."""
    scene = landmarks.box()
    found = scene.map_of([scene.pose(0.1 * i) for i in range(4)], noise_px=0.5)
    found.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    found.loops.append(
        1,
        i=0,
        j=3,
        S_i_j=geometry.inverse(found.pose(0)) @ found.pose(3),
        information=np.eye(7),
        inliers=77,
    )
    append_map(found, scene.map_of([scene.pose(0.1 * i, z=0.5) for i in range(2)]))
    found.keyframes["channels"][:] = 1
    found.observations["color"][:] = 77
    (tmp_path / "maps").mkdir()
    save_map(tmp_path / "maps/map.npz", found, place_arrays(found))
    return str(tmp_path / "maps/map.npz")


def ply_count(path: Path) -> int:
    header = path.read_bytes().split(b"end_header")[0].decode()
    return int(header.split("element vertex ")[1].split()[0])


@pytest.mark.parametrize("command", [[], ["info"], ["export"]])
def test_help_of_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("map", *command, "--help") == 0
    assert "Usage: spslam map" in capsys.readouterr().out


def test_info_prints_a_short_table(
    map_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert call("map", "info", map_file) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 11
    text = "\n".join(lines)
    for submap in (
        map_file, "format version 5", "stereo, superpoint 0123456789ab", "640x480, fx 400",
        "baseline 0.12 m",
        "6 of 2 sessions", "see a point", "4 keyframes", "2 keyframes", " m\n", "stored",
    ):  # fmt: skip
        assert submap in text


def test_info_as_json(map_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("map", "info", map_file, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert (metrics["path"], metrics["keyframes"], metrics["loops"]) == (map_file, 6, 1)
    assert [submap["keyframes"] for submap in metrics["submaps"]] == [4, 2]


def test_info_of_an_empty_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_map(tmp_path / "map.npz", Map(8))
    assert call("map", "info", str(tmp_path / "map.npz")) == 0
    assert "nothing yet" in capsys.readouterr().out
    assert call("map", "info", str(tmp_path / "map.npz"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["camera"] is None


def test_export_writes_every_format_in_one_call(
    map_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    formats = [
        "--ply",
        str(out / "a.ply"),
        "--colmap",
        str(out / "model"),
        "--g2o",
        str(out / "a.g2o"),
    ]
    assert call("map", "export", map_file, *formats) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 3 and printed.err == ""
    assert lines[0].startswith("8 images, ") and "mean reprojection error 0.6" in lines[0]
    assert lines[1].startswith("4 SE(3) nodes, 7 edges, 1 of them a loop, of submap 0 in ")
    assert lines[2].startswith(f"{ply_count(out / 'a.ply')} points of submap 0 in ")
    assert sorted(path.name for path in out.iterdir()) == ["a.g2o", "a.ply", "model"]
    assert sorted(path.name for path in (out / "model").iterdir()) == [
        "cameras.txt",
        "frames.txt",
        "images.txt",
        "points3D.txt",
        "rigs.txt",
    ]


def test_points_of_a_map_without_colours_have_none(
    landmarks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = landmarks.box()
    found = scene.map_of([scene.pose()])
    found.origin = Origin("stereo", scene.camera, "orb", "baseline")
    save_map(tmp_path / "map.npz", found)
    out = tmp_path / "a.ply"
    assert call("map", "export", str(tmp_path / "map.npz"), "--ply", str(out)) == 0
    assert "have no colours" in capsys.readouterr().err
    assert b"red" not in out.read_bytes().split(b"end_header")[0]


def test_export_of_another_submap(
    map_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("map", "export", map_file, "--submap", "1", "--g2o", str(tmp_path / "a.g2o")) == 0
    assert capsys.readouterr().out.startswith(
        "2 SE(3) nodes, 1 edge, 0 of them loops, of submap 1 in "
    )
    assert (tmp_path / "a.g2o").read_text().count("VERTEX_SE3:QUAT") == 2


def test_edges_follow_the_configuration_of_the_run(
    map_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(map_file).with_name("config.yaml")
    export = ["map", "export", map_file, "--g2o", str(tmp_path / "a.g2o")]
    config.write_text(Config(loop=LoopConfig(min_covisibility=10**6)).to_yaml())
    assert call(*export) == 0
    assert capsys.readouterr().out.startswith("4 SE(3) nodes, 4 edges, "), "chain and loop"
    config.write_text("loop: {unknown: 1}")
    assert call(*export) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("4 SE(3) nodes, 7 edges, ")
    assert "note: the built-in configuration is used instead: " in printed.err


def test_export_twice_gives_the_same_bytes(map_file: str, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        formats = [
            "--ply",
            str(tmp_path / "a.ply"),
            "--colmap",
            str(tmp_path / "m"),
            "--g2o",
            str(tmp_path / "a.g2o"),
        ]
        assert call("map", "export", map_file, *formats) == 0
        paths = [tmp_path / "a.ply", tmp_path / "a.g2o", *sorted((tmp_path / "m").iterdir())]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_wrong_calls_give_a_one_line_error(
    map_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ply = str(tmp_path / "a.ply")
    assert "--ply F, --colmap DIR, --g2o F and --nerfstudio DIR" in refused(
        capsys, "map", "export", map_file
    )
    assert "no submap 7: found 0, 1" in refused(
        capsys, "map", "export", map_file, "--submap", "7", "--ply", ply
    )
    assert "No such file" in refused(capsys, "map", "info", str(tmp_path / "gone.npz"))
    assert "No such file" in refused(
        capsys, "map", "export", str(tmp_path / "gone.npz"), "--ply", ply
    )
    assert "nowhere" in refused(
        capsys, "map", "export", map_file, "--ply", str(tmp_path / "nowhere/a.ply")
    )
    assert "nowhere" in refused(
        capsys, "map", "export", map_file, "--g2o", str(tmp_path / "nowhere/a.g2o")
    )
    assert "two files" in refused(capsys, "map", "export", map_file, "--ply", ply, "--g2o", ply)
    whole = Path(map_file).read_bytes()
    for option in ("--ply", "--g2o"):
        assert "the map itself" in refused(capsys, "map", "export", map_file, option, map_file)
    assert Path(map_file).read_bytes() == whole
    assert "left alone" in refused(
        capsys, "map", "export", map_file, "--colmap", str(Path(map_file).parent)
    )
    save_map(tmp_path / "empty.npz", Map(8))
    assert "empty" in refused(capsys, "map", "export", str(tmp_path / "empty.npz"), "--ply", ply)
    (tmp_path / "text.npz").write_text("not a map")
    assert "expected a map.npz" in refused(capsys, "map", "info", str(tmp_path / "text.npz"))
    assert not Path(ply).exists()


# -- images ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stereo run of 12 frames of demo-small with ORB."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--extractor", "orb", "--max-frames", "12", "--outputs", "map,points,trajectory"]
    assert call("run", "demo-small", "--sensor", "stereo", "--out", str(folder), *options) == 0
    return folder


def vertices_of(path: Path) -> np.ndarray:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    assert b"property uchar blue" in header
    fields = [*((name, "<f4") for name in "xyz"), *((name, "u1") for name in ("r", "g", "b"))]
    return np.frombuffer(body, dtype=np.dtype(fields))


def test_points_of_a_run_have_the_grey_values_of_its_images(run_folder: Path) -> None:
    slam_map = load_map(run_folder / "map.npz").map
    vertices = vertices_of(run_folder / "map.ply")
    assert len(vertices) == len(slam_map.points)
    assert np.array_equal(vertices["r"], vertices["b"]) and np.ptp(vertices["r"]) > 60
    world = open_sequence("demo-small", sensor="stereo")
    for row, index in enumerate(slam_map.keyframes["frame"].tolist()):
        at = slam_map.observation_rows(row)
        pixels = np.rint(slam_map.observations["pixel"][at]).astype(int)
        expected = world[index].image[pixels[:, 1], pixels[:, 0]]
        assert np.array_equal(slam_map.observations["color"][at][:, 0], expected)


def test_a_run_folder_is_exported_with_its_images(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = tmp_path / "scene"
    formats = ["--nerfstudio", str(scene), "--colmap", str(scene / "sparse/0"), "--format", "both"]
    for _ in range(2):
        assert call("map", "export", str(run_folder), *formats) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and " images (grey), " in printed.out
    document = json.loads((scene / "transforms.json").read_text())
    slam_map = load_map(run_folder / "map.npz").map
    assert len(document["frames"]) == 2 * len(slam_map.keyframes)
    model = pytest.importorskip("pycolmap").Reconstruction()
    model.read(str(scene / "sparse/0"))
    # A renderer that reads the COLMAP model finds its images in images/.
    for image in model.images.values():
        assert (scene / "images" / image.name).is_file()
    vertices = vertices_of(scene / "points.ply")
    points = np.stack([vertices[name] for name in "xyz"], axis=1).astype(float)
    off = []
    for row, frame in enumerate(document["frames"][::2]):
        camera_to_world = np.array(frame["transform_matrix"])
        seen = (points - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
        x = document["cx"] - document["fl_x"] * seen[:, 0] / seen[:, 2]
        y = document["cy"] + document["fl_y"] * seen[:, 1] / seen[:, 2]
        at = slam_map.observation_rows(row)
        linked = slam_map.observations["point"][at]
        rows = slam_map.point_rows(linked[linked >= 0])
        pixels = slam_map.observations["pixel"][at][linked >= 0] + 0.5
        off.append(np.linalg.norm(np.stack([x, y], axis=1)[rows] - pixels, axis=1))
    errors = np.concatenate(off)
    # ORB's keypoints of this map are off by half a pixel in the median.
    assert np.median(errors) < 1 and np.percentile(errors, 95) < 3


def test_wrong_calls_with_images_give_a_one_line_error(
    map_file: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scene = str(run_folder), ["--nerfstudio", str(tmp_path / "scene")]
    export = ["map", "export"]
    assert "give --images PATH" in refused(capsys, *export, map_file, *scene)
    assert "need --nerfstudio DIR" in refused(
        capsys, *export, run, "--ply", str(tmp_path / "a.ply"), "--images", "demo-small"
    )
    assert "give --colmap DIR" in refused(capsys, *export, run, *scene, "--format", "binary")
    assert "found nothing at" in refused(
        capsys, *export, run, *scene, "--images", str(tmp_path / "gone")
    )
    session = ["--session", "3"]
    assert "has no keyframes of session 3" in refused(capsys, *export, run, *scene, *session)
    assert "is left alone" in refused(capsys, *export, run, "--nerfstudio", str(tmp_path / "maps"))
    assert "is not the folder of a run" in refused(capsys, *export, str(tmp_path), *scene)
    lost = tmp_path / "localized"
    lost.mkdir()
    metrics = json.loads((run_folder / "metrics.json").read_text())
    (lost / "metrics.json").write_text(json.dumps(metrics | {"map_file": "other/map.npz"}))
    assert "it localized in other/map.npz" in refused(capsys, *export, str(lost), *scene)
    (lost / "metrics.json").write_text(json.dumps(metrics | {"disturb": "dark:at=1"}))
    (lost / "map.npz").write_bytes((run_folder / "map.npz").read_bytes())
    assert "disturbed its images (dark:at=1)" in refused(capsys, *export, str(lost), *scene)
    assert call(*export, run, *scene, "--format", "xml") == 2
    assert not (tmp_path / "scene").exists()


def test_a_moved_recording_is_found_by_images(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    metrics = json.loads((run_folder / "metrics.json").read_text())
    (moved / "map.npz").write_bytes((run_folder / "map.npz").read_bytes())
    (moved / "metrics.json").write_text(json.dumps(metrics | {"input_path": "/nowhere/at/all"}))
    scene = ["--nerfstudio", str(tmp_path / "scene")]
    assert "nothing at /nowhere/at/all" in refused(capsys, "map", "export", str(moved), *scene)
    export = ["map", "export", str(moved), *scene, "--images", "demo-small"]
    assert call(*export) == 0
    assert (tmp_path / "scene/transforms.json").is_file()
