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
from spslam.map.io import save_map
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
        map_file, "format version 3", "stereo, superpoint 0123456789ab", "640x480, fx 400",
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
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("4 images, ") and "mean reprojection error 0.6" in lines[0]
    assert lines[1].startswith("4 SE(3) nodes, 7 edges, 1 of them loops, of submap 0 in ")
    assert lines[2].startswith(f"{ply_count(out / 'a.ply')} points of submap 0 in ")
    assert sorted(path.name for path in out.iterdir()) == ["a.g2o", "a.ply", "model"]
    assert sorted(path.name for path in (out / "model").iterdir()) == [
        "cameras.txt",
        "images.txt",
        "points3D.txt",
    ]


def test_export_of_another_submap(
    map_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("map", "export", map_file, "--submap", "1", "--g2o", str(tmp_path / "a.g2o")) == 0
    assert capsys.readouterr().out.startswith(
        "2 SE(3) nodes, 1 edges, 0 of them loops, of submap 1 in "
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
    assert "--ply F, --colmap DIR and --g2o F" in refused(capsys, "map", "export", map_file)
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
    assert "left alone" in refused(
        capsys, "map", "export", map_file, "--colmap", str(Path(map_file).parent)
    )
    save_map(tmp_path / "empty.npz", Map(8))
    assert "empty" in refused(capsys, "map", "export", str(tmp_path / "empty.npz"), "--ply", ply)
    (tmp_path / "text.npz").write_text("not a map")
    assert "expected a map.npz" in refused(capsys, "map", "info", str(tmp_path / "text.npz"))
    assert not Path(ply).exists()
