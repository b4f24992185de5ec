"""`spslam mesh`: meshes of small runs, and calls that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, refused
from mesh_accuracy import distances_to_faces
from world_folder import world, write_world

from spslam.datasets.world.scene import LAYOUTS
from spslam.geometry import make_transform
from spslam.io.files import write_atomic
from spslam.process.output_lock import hold_output
from spslam.trajectory import Trajectory, write_tum

pytest.importorskip("open3d")
ROWS = (0, 6, 12, 18)
COARSE = ("--voxel", "0.06", "--min-observations", "1")


def run_folder(folder: Path, source: object, sensor: str = "rgbd", **more: Any) -> Path:
    """The files of a run of demo-small with the true poses of `ROWS`."""
    folder.mkdir()
    write_run(folder, truth(), source, sensor, **more)
    return folder


def truth() -> Trajectory:
    found = world().ground_truth
    assert found is not None
    return found.select(np.array(ROWS))


def write_run(
    folder: Path, trajectory: Trajectory, source: object, sensor: str, **more: Any
) -> None:
    metrics = {"sequence": "x", "sensor": sensor, "extractor": "orb", "source": str(source)}
    write_atomic(folder / "metrics.json", json.dumps({**metrics, "frames": 5, **more}))
    write_tum(folder / "trajectory.tum", trajectory)
    write_tum(folder / "keyframes.tum", trajectory.select(np.array([0, 2])))


def vertices_of(path: Path) -> np.ndarray:
    """Vertices (V, 9): position, normal, colour."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    kind = np.dtype([("xyz", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
    table = np.frombuffer(body, kind, count)
    return np.concatenate([table[name] for name in ("xyz", "normal", "color")], axis=1)


def numbers_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "mesh.json").read_text())
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its mesh; made once, because the world is rendered."""
    folder = run_folder(tmp_path_factory.mktemp("mesh") / "run", "built-in world demo-small")
    assert call("mesh", str(folder), *COARSE) == 0
    return folder


def test_the_mesh_lies_on_the_true_faces(made: Path) -> None:
    vertices = vertices_of(made / "mesh.ply")
    distances = distances_to_faces(vertices[:, :3].astype(float), LAYOUTS["room"]().faces())
    assert len(vertices) > 2000
    assert np.median(distances) < 0.003
    assert np.percentile(distances, 95) < 0.03
    # Half a pixel of error in Open3D's pixel centres would move slanted faces by centimetres.
    assert np.allclose(np.linalg.norm(vertices[:, 3:6], axis=1), 1.0, atol=0.01)
    assert np.ptp(vertices[:, 6]) > 50


def test_normals_and_triangles_point_to_the_cameras(made: Path) -> None:
    vertices = vertices_of(made / "mesh.ply")
    towards = truth().positions.mean(axis=0) - vertices[:, :3]
    assert np.mean((towards * vertices[:, 3:6]).sum(axis=1) > 0) > 0.95
    body = (made / "mesh.ply").read_bytes().partition(b"end_header\n")[2][27 * len(vertices) :]
    corners = np.frombuffer(body, np.dtype([("n", "u1"), ("corners", "<i4", 3)]))["corners"]
    a, b, c = (vertices[corners[:, i], :3] for i in range(3))
    normal = np.cross(b - a, c - a)
    assert np.mean((normal * vertices[corners[:, 0], 3:6]).sum(axis=1) > 0) > 0.95


def test_numbers_and_cloud_lie_beside_the_mesh(made: Path) -> None:
    numbers = numbers_of(made)
    assert numbers["frames_fused"] == 4 and numbers["frames_without_pose"] == 1
    assert numbers["colors"] == "grey" and numbers["voxel_m"] == 0.06
    assert numbers["vertices"] == len(vertices_of(made / "cloud.ply"))
    assert numbers["ended"] == "complete" and numbers["blocks"] > 100


def test_the_same_call_writes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert call("mesh", str(made), *COARSE, "--out", str(tmp_path / "a.ply")) == 0
    assert (tmp_path / "a.ply").read_bytes() == (made / "mesh.ply").read_bytes()
    assert (tmp_path / "a_cloud.ply").read_bytes() == (made / "cloud.ply").read_bytes()


def test_the_mesh_follows_the_final_poses(made: Path, tmp_path: Path) -> None:
    """A loop closure moves poses; the mesh must move with them."""
    moved = make_transform(np.eye(3), np.array([0.6, 0.0, -1.2]))
    shifted = replace(truth(), T_world_cam=moved @ truth().T_world_cam)
    folder = run_folder(tmp_path / "run", "built-in world demo-small")
    write_run(folder, shifted, "built-in world demo-small", "rgbd")
    assert call("mesh", str(folder), *COARSE) == 0
    vertices = vertices_of(folder / "mesh.ply")[:, :3].astype(float) - moved[:3, 3]
    distances = distances_to_faces(vertices, LAYOUTS["room"]().faces())
    assert np.median(distances) < 0.003
    before = vertices_of(made / "mesh.ply")[:, :3].mean(axis=0)
    assert np.allclose(vertices.mean(axis=0), before, atol=0.05)


def test_only_keyframes(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "k.ply"
    assert call("mesh", str(made), *COARSE, "--keyframes", "--out", str(out)) == 0
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["frames_fused"] == 2 and numbers["poses"] == "keyframes"


def test_a_full_volume_keeps_what_was_fused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.ply"
    blocks = numbers_of(made)["blocks"]
    limit = str(28672 * (blocks - 5) / 1e6)
    assert call("mesh", str(made), *COARSE, "--max-memory", limit, "--out", str(out)) == 2
    assert "--max-memory" in capsys.readouterr().err
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["ended"] == "memory" and 0 < numbers["frames_fused"] < 4
    assert len(vertices_of(out)) == numbers["vertices"] > 500


@pytest.mark.slow
def test_stereo(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "built-in world demo-small", "stereo")
    assert call("mesh", str(folder), *COARSE) == 0
    vertices = vertices_of(folder / "mesh.ply")[:, :3].astype(float)
    assert len(vertices) > 1000
    assert np.median(distances_to_faces(vertices, LAYOUTS["room"]().faces())) < 0.02


def test_a_moved_recording_with_frames_without_depth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def depth(index: int) -> np.ndarray:
        exact = np.rint(world().depth(index) * 1000.0).astype(np.uint16)
        return np.zeros_like(exact) if index == 1 else exact

    images = write_world(tmp_path / "new place", "rgbd", 3, depth=depth)
    found = world().ground_truth
    assert found is not None
    folder = run_folder(tmp_path / "run", tmp_path / "old place")
    write_run(folder, found.select(np.arange(3)), tmp_path / "old place", "rgbd")
    assert "--sequence PATH" in refused(capsys, "mesh", str(folder), *COARSE)
    assert call("mesh", str(folder), *COARSE, "--sequence", str(images)) == 0
    assert "1 frames have no usable depth" in capsys.readouterr().err
    assert numbers_of(folder)["frames_fused"] == 2


def test_a_wrong_calibration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the place of the recording, which is right."""
    folder = run_folder(tmp_path / "world", "built-in world demo-small")
    line = refused(capsys, "mesh", str(folder), "--calibration", str(tmp_path / "none.yaml"))
    assert "demo brings its own calibration" in line and "--sequence" not in line
    images = write_world(tmp_path / "images", "rgbd", 3)
    folder = run_folder(tmp_path / "run", images)
    line = refused(capsys, "mesh", str(folder), "--calibration", str(tmp_path / "none.yaml"))
    assert "none.yaml cannot be read" in line and "--sequence" not in line


def test_two_calls_do_not_write_one_file(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.ply"
    with hold_output(out):
        assert "is writing" in refused(capsys, "mesh", str(made), *COARSE, "--out", str(out))
    assert not out.exists()
    assert call("mesh", str(made), *COARSE, "--out", str(out)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.ply", "a_cloud.ply"]


def test_another_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = replace(truth(), timestamps=truth().timestamps + 0.013)
    folder = run_folder(tmp_path / "run", "built-in world demo-small")
    write_run(folder, later, "built-in world demo-small", "rgbd")
    assert "none of the 4 poses" in refused(capsys, "mesh", str(folder))


def test_a_single_camera_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "run", "built-in world demo-small", "mono")
    assert "single camera (mono)" in refused(capsys, "mesh", str(folder))


def test_other_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "found nothing" in refused(capsys, "mesh", str(tmp_path / "none"))
    (tmp_path / "file").touch()
    assert "found a file" in refused(capsys, "mesh", str(tmp_path / "file"))
    assert "not the folder of a run" in refused(capsys, "mesh", str(tmp_path))


def test_an_empty_mesh_keeps_the_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", "built-in world demo-small")
    (folder / "mesh.ply").write_bytes(b"earlier")
    names = sorted(path.name for path in folder.iterdir())
    for options in (("--min-triangles", "9999999"), ("--max-memory", "0.1")):
        assert call("mesh", str(folder), *COARSE, *options) == 2
        assert "the mesh is empty and not written" in capsys.readouterr().err
    assert (folder / "mesh.ply").read_bytes() == b"earlier"
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("other", ["scene.json", "scene_cloud.ply"])
def test_other_files_beside_the_mesh_are_left_alone(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", "built-in world demo-small")
    (tmp_path / other).write_text('{"frames": []}')
    out = str(tmp_path / "scene.ply")
    assert f"{other} is left alone" in refused(capsys, "mesh", str(folder), "--out", out)
    assert (tmp_path / other).read_text() == '{"frames": []}'
    (tmp_path / other).unlink()
    for _ in range(2):
        assert call("mesh", str(folder), *COARSE, "--every", "2", "--out", out) == 0


def test_without_open3d(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", "built-in world demo-small")
    # None in sys.modules makes an import fail.
    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    assert "pip install 'spslam[viewer]'" in refused(capsys, "mesh", str(folder))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--voxel", "0"), "--voxel must be positive"),
        (("--max-angle", "100"), "0 to 90 degrees"),
        (("--block", "4"), "odd"),
        (("--min-depth", "3", "--max-depth", "2"), "exceed --min-depth"),
        (("--out", "x.obj"), ".ply"),
        (("--submap", "0"), "map.npz"),
    ],
)
def test_impossible_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    folder = run_folder(tmp_path / "run", "built-in world demo-small")
    assert words in refused(capsys, "mesh", str(folder), *options)
