"""`spslam export-trajectory RUN --bag`: written bags, read back through rosbags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, refused
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from spslam.geometry import make_transform, quaternion_to_rotation, se3_exp
from spslam.reports.plots import write_ply
from spslam.run.poses_csv import COLUMNS
from spslam.trajectory import Trajectory, write_tum

COUNT = 5
START_S = 1_700_000_000.25
XI = np.random.default_rng(2).normal(size=(COUNT, 6))
POINTS = np.random.default_rng(3).normal(size=(7, 3))
COLORS = np.random.default_rng(4).integers(0, 256, (7, 3), dtype=np.uint8)
NAMES = ["x.bag", "x.mcap", "x.db3", "folder"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose last frame has no covariance."""
    folder = tmp_path / "run"
    folder.mkdir()
    trajectory = Trajectory(START_S + 0.05 * np.arange(COUNT, dtype=np.float64), se3_exp(XI))
    write_tum(folder / "trajectory.tum", trajectory)
    labels = {"sequence": "x", "sensor": "stereo", "extractor": "orb"}
    (folder / "metrics.json").write_text(json.dumps(labels))
    rows = [",".join(COLUMNS)]
    for index in range(COUNT):
        numbers = [f"{value:.9e}" for value in covariance(index)[np.triu_indices(6)]]
        cells = [str(index), f"{START_S + 0.05 * index:.9f}", "ok", "0", *["0"] * 7]
        rows.append(",".join(cells + (numbers if index < COUNT - 1 else [""] * 21)))
    (folder / "poses.csv").write_text("\n".join(rows) + "\n")
    write_ply(folder / "map.ply", POINTS, COLORS)
    return folder


def covariance(index: int) -> np.ndarray:
    """Any covariance in the axes of the camera."""
    root = np.random.default_rng(index).normal(size=(6, 6)) * 0.01
    return root @ root.T


def read(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
        for connection, recorded, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((recorded, message))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_poses_covariances_and_points_come_back(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert call("export-trajectory", str(run), "--bag", str(out)) == 0
    assert f"{COUNT} poses in {out}" in capsys.readouterr().out
    assert (out / "metadata.yaml").is_file() == (name == "folder")
    found = read(out)
    poses = se3_exp(XI)
    for index, (recorded, message) in enumerate(found["/spslam/odometry"]):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert stamp == recorded and abs(stamp / 1e9 - START_S - 0.05 * index) < 1e-6
        pose = message.pose.pose
        position = np.array([pose.position.x, pose.position.y, pose.position.z])
        q = pose.orientation
        T = make_transform(quaternion_to_rotation(np.array([q.x, q.y, q.z, q.w])), position)
        np.testing.assert_allclose(T, poses[index], atol=1e-8)
        np.testing.assert_allclose(
            message.pose.covariance.reshape(6, 6), fixed_axes(index), atol=1e-9
        )
    ((_, path),) = found["/spslam/path"]
    assert len(path.poses) == COUNT
    ((_, cloud),) = found["/spslam/points"]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb"]
    rows = cloud.data.reshape(cloud.width, cloud.point_step)
    np.testing.assert_array_equal(
        np.ascontiguousarray(rows[:, :12]).view("<f4"), POINTS.astype("f4")
    )
    # PCL: the bytes of a 32-bit number 0x00RRGGBB.
    np.testing.assert_array_equal(rows[:, 14:11:-1], COLORS)


def fixed_axes(index: int) -> np.ndarray:
    """The covariance of the position and of the rotation about the world's axes, by differences."""
    if index == COUNT - 1:
        return np.zeros((6, 6))
    T, step = se3_exp(XI)[index], 1e-6
    columns = []
    for axis in range(6):
        moved = T @ se3_exp(np.eye(6)[axis] * step)
        turned = moved[:3, :3] @ T[:3, :3].T
        spin = np.array([turned[2, 1], turned[0, 2], turned[1, 0]])
        columns.append(np.r_[moved[:3, 3] - T[:3, 3], spin] / step)
    J = np.stack(columns, axis=1)
    return J @ covariance(index) @ J.T


def test_a_run_without_tables_and_a_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "poses.csv").unlink()
    (run / "map.ply").unlink()
    assert call("export-trajectory", str(run), "--bag", str(tmp_path / "a.mcap")) == 0
    printed = capsys.readouterr().err
    assert "no poses.csv" in printed and "no map.ply" in printed
    assert "/spslam/points" not in read(tmp_path / "a.mcap")
    file = run / "trajectory.tum"
    assert call("export-trajectory", str(file), "--bag", str(tmp_path / "b.bag")) == 0
    assert len(read(tmp_path / "b.bag")["/spslam/odometry"]) == COUNT


def test_files_are_replaced_and_folders_are_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert call("export-trajectory", str(run), "--bag", str(tmp_path / "x.mcap")) == 0
    assert call("export-trajectory", str(run), "--bag", str(tmp_path / "folder")) == 0
    capsys.readouterr()
    assert "it exists" in refused(
        capsys, "export-trajectory", str(run), "--bag", str(tmp_path / "folder")
    )
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "options", [[], ["--format", "tum"], ["--bag", "x.bag", "--format", "tum"]]
)
def test_one_kind_of_output_is_needed(
    options: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--bag FILE alone" in refused(capsys, "export-trajectory", str(run), *options)
